"""The pytest plugin, in suites that judge a target, and in those that do not."""

import re
import textwrap
from pathlib import Path

import pytest

from mock_server.serving.server import MockServer
from tests.support.consumer_suites import Outcome, outcome
from tests.support.contract_cli import TOKEN
from tests.support.stub_servers import unused_url


def suite(folder: Path, *options: str, token: str = TOKEN) -> Outcome:
    """The outcome of the contract tests under pytest, with these options."""
    return outcome(
        folder, "--pyargs", "contract_tests", "-q", *options, UPSCALER_TOKEN=token, CI="true"
    )


def test_pytest_judges_as_the_command_does(mock: MockServer, tmp_path: Path) -> None:
    done = suite(tmp_path, "--contract-url", mock.url, "--contract-only", "REQ-13,RES-9",
                 "--contract-max-examples", "3", "--contract-report", "report.json")  # fmt: skip
    assert done.status == 0, done.said
    assert "Conforms to 2 rules at the level documented." in done.said
    assert (tmp_path / "report.json").exists()


@pytest.mark.slow
def test_pytest_reports_a_failure_without_a_traceback(mock: MockServer, tmp_path: Path) -> None:
    mock.faults.set("wrong-sizex*")
    done = suite(tmp_path, "--contract-url", mock.url, "--contract-only", "REQ-16",
                 "--contract-level", "strict", "--contract-max-examples", "2")  # fmt: skip
    assert done.status == 1, done.said
    assert "REQ-16: A requested side is exact." in done.said
    assert "contract_tests/" not in done.said.partition("FAILURES")[2].partition("summary")[0]


@pytest.mark.slow
def test_pytest_without_a_url_says_what_is_missing(tmp_path: Path) -> None:
    done = suite(tmp_path)
    assert done.status == 2
    assert "the contract tests need a target: --contract-url URL" in done.said
    assert "Traceback" not in done.said


def test_pytest_without_a_token_says_so(tmp_path: Path) -> None:
    done = suite(tmp_path, "--contract-url", "http://127.0.0.1:1", token="")
    assert done.status == 2
    assert "expected in the variable UPSCALER_TOKEN" in done.said


@pytest.mark.slow
def test_pytest_reports_an_unreachable_target(tmp_path: Path) -> None:
    url = unused_url()
    done = suite(tmp_path, "--contract-url", url)
    assert done.status == 5
    assert f"nothing responds at {url}" in done.said


@pytest.mark.slow
def test_pytest_prints_the_plan_and_sends_nothing(mock: MockServer, tmp_path: Path) -> None:
    options = ("--contract-url", mock.url, "--contract-only", "REQ-4", "--contract-plan")
    done = suite(tmp_path, *options)
    assert done.status == 0, done.said
    assert re.search(r"^ +1 +0 +\$0\.00  two images are refused$", done.said, re.MULTILINE)
    assert "4 billable requests: $0.016 if the target conforms" in done.said
    assert mock.journal.find() == []


def test_the_guard_of_the_real_hosts_is_an_error(tmp_path: Path) -> None:
    done = suite(tmp_path, "--contract-target", "octoai")
    assert done.status == 2
    assert "add -o upscaling_guard=false" in done.said
    assert "INTERNALERROR" not in done.said


def test_pytest_with_several_processes_is_refused(mock: MockServer, tmp_path: Path) -> None:
    done = suite(tmp_path, "--contract-url", mock.url, "-n", "2")
    assert done.status == 2
    assert "leave out -n" in done.said


@pytest.mark.slow
def test_other_suites_are_not_changed(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        textwrap.dedent("""
        import sys

        import pytest

        @pytest.fixture
        def run():
            return "mine"

        def test_mine(run, pytestconfig):
            assert run == "mine"
            assert not any("rule(" in line for line in pytestconfig.getini("markers"))
            ours = {name for name in sys.modules if name.startswith("contract_tests.")}
            assert ours == {f"contract_tests.{name}" for name in (
                "plugin", "options", "oracle", "oracle.limits", "oracle.rules", "oracle.values")}
    """)
    )
    done = outcome(tmp_path, "--strict-markers", "--strict-config")
    assert done.counts == {"passed": 1}, done.said
