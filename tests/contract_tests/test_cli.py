"""The command `upscaler-contract`."""

import os
import re
import signal
import subprocess
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from contract_tests.oracle.rules import RULES
from contract_tests.report.report import Outcome
from contract_tests.session import MAX_INCONCLUSIVE
from mock_server.serving.server import MockServer
from tests.support.contract_cli import COMMAND, HIDDEN, TOKEN, CliResult, run_cli
from tests.support.stub_servers import OK, ReceivedRequest, Reply, stub_server, unused_url

STRICT: Final = ("--level", "strict", "--max-examples", "3")
FEW: Final = ("--only", "REQ-2", "REQ-8", "RES-9", *STRICT)
REFUSED: Final = (422, {"Content-Type": "application/json", "X-User-Request-ID": "1"}, b"{}")


def paid(mock: MockServer) -> int:
    """How many pictures the mock has made."""
    return sum(call.status == 200 for call in mock.calls)


def judge(mock: MockServer, *options: str, **environment: str) -> CliResult:
    return run_cli(mock.url, TOKEN, *options, **environment)


def last_line(run_cli: CliResult) -> str:
    return run_cli.output.rstrip().rpartition("\n")[2]


# Exit statuses


def test_a_conforming_target(mock: MockServer) -> None:
    done = judge(mock, *FEW)
    assert done.status == 0, done.output
    assert last_line(done) == "Conforms to 3 rules at the level strict."
    assert done.report["verdict"] == "conforms"
    assert paid(mock) == done.report["money"]["billed"] > 0
    assert TOKEN not in done.output


@pytest.mark.slow
def test_a_target_that_does_not_conform(mock: MockServer) -> None:
    mock.faults.set("wrong-sizex*")
    done = judge(mock, "--only", "REQ-16", *STRICT)
    assert done.status == 1, done.output
    assert last_line(done) == "Does not conform: REQ-16 is broken."
    assert "source:   page, choice: the rounding" in done.output
    assert re.search(r'repeat:   .*curl .*"Authorization: Bearer \$TOKEN"', done.output)
    assert mock.url in done.output
    assert "Traceback" not in done.output


@pytest.mark.slow
def test_a_target_that_is_always_busy_ends_the_run(mock: MockServer) -> None:
    mock.faults.set("429:retry-after=600x*")
    done = judge(mock, "--only", "REQ-4", "REQ-5", "RES-9", *STRICT)
    assert done.status == 3, done.output
    assert last_line(done).startswith("Inconclusive: 5 tests in a row were inconclusive")
    assert "asks to wait for another 600 s" in last_line(done)
    assert len(mock.calls) == 1 + MAX_INCONCLUSIVE  # the first one asks whether the token is taken
    assert done.findings == []


@pytest.mark.slow
def test_a_target_that_is_busy_for_a_while_is_retried(mock: MockServer) -> None:
    mock.faults.set("429:retry-after=1,503:retry-after=0x3,ok")
    done = judge(mock, "--only", "REQ-5", "--max-examples", "3")
    assert done.status == 0, done.output


def test_the_budget_is_kept(mock: MockServer) -> None:
    done = judge(mock, "--only", "REQ-13", "--max-cost", "0.011", *STRICT)
    assert done.status == 4, done.output
    assert paid(mock) == 2
    assert last_line(done).startswith(
        "The budget was reached before everything was tested: 2 requests"
    )
    outcomes = [test["outcome"] for test in done.report["tests"]]
    assert outcomes.count(Outcome.BUDGET) > outcomes.count(Outcome.FAILED) == 0


@pytest.mark.slow
def test_the_budget_is_kept_while_shrinking_a_failure(mock: MockServer) -> None:
    mock.faults.set("wrong-sizex*")
    done = judge(mock, "--only", "REQ-16", "--max-requests", "4", *STRICT)
    assert done.status == 1, done.output
    assert paid(mock) == done.report["money"]["billed"] == 4


@pytest.mark.slow
def test_the_budget_is_kept_with_a_target_that_refuses_nothing() -> None:
    with stub_server(lambda _: OK) as server:
        done = run_cli(server.url, TOKEN, "--max-requests", "3", *STRICT)
    assert done.status == 1, done.output
    made = [
        received
        for received in server.posts
        if received.header("authorization") == f"Bearer {TOKEN}"
    ]
    assert len(made) <= done.report["money"]["billed"] == 3


def test_an_unreachable_target_is_reported_in_a_sentence() -> None:
    url = unused_url()
    done = run_cli(url, TOKEN)
    assert done.status == 5
    assert last_line(done) == f"Unreachable: nothing responds at {url}: Connection refused."
    assert "Traceback" not in done.output


@pytest.mark.slow
def test_a_target_that_disappears_ends_the_run(tmp_path: Path) -> None:
    gone = threading.Event()
    error = b'{"detail": [{"loc": ["body", "scale"], "msg": "it is wrong", "type": "wrong"}]}'
    refusal = (422, {"Content-Type": "application/json"}, error)
    with ExitStack() as stack:
        with stub_server(lambda _: None if gone.is_set() else refusal) as server:
            command = [COMMAND, "--base-url", server.url, "--only", "REQ-6"]
            process = stack.enter_context(begun(command, tmp_path))
            while len(server.posts) < 2:
                time.sleep(0.005)
            gone.set()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 5, output
    assert "Unreachable: nothing responds at" in output
    assert output.count("\nunreachable") == 1


def test_an_interrupted_run_writes_its_reports(tmp_path: Path) -> None:
    def slow(received: ReceivedRequest) -> Reply:
        time.sleep(0.5 if received.method == "POST" else 0)
        return REFUSED

    with stub_server(slow) as server:
        command = [COMMAND, "--base-url", server.url, "--report", "report.json"]
        with begun(command, tmp_path) as process:
            while len(server.posts) < 2:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert output.rstrip().endswith("Interrupted before everything was tested.")
    assert "Traceback" not in output
    assert (tmp_path / "report.json").exists()


@contextmanager
def begun(command: list[str], folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process of the command, all that it says in its stdout, that does not outlive the test."""
    with subprocess.Popen(
        command, env=environment(), cwd=folder, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def environment(**more: str) -> dict[str, str]:
    """The environment without what belongs to this suite, and with a token."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
    return {**kept, "CI": "true", "UPSCALER_TOKEN": TOKEN, **more}


# What is asked, and what is not


@pytest.mark.slow
def test_a_plan_sends_nothing() -> None:
    with stub_server(lambda _: OK) as server:
        done = run_cli(server.url, "", "--plan", *STRICT)
    assert done.status == 0
    assert server.seen == []
    assert "exactly one image and one size are required" in done.output
    assert "at most $1.20, whatever is found" in done.output


def test_a_plan_needs_neither_a_token_nor_a_url(capsys: Any, tmp_path: Path) -> None:
    command = [COMMAND, "--plan", "-v", "--only", "REQ-4"]
    done = subprocess.run(
        command, env=environment(UPSCALER_TOKEN=""), cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '<POST /upscaling | {"scale": 2}>' in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_plan_is_what_is_sent(mock: MockServer) -> None:
    options = ("--only", "REQ-8", "REQ-9", *STRICT)
    plan = judge(mock, "--plan", *options)
    billable = int(re.findall(r"^(\d+) billable requests", plan.output, re.MULTILINE)[0])
    free = int(re.findall(r"^(\d+) requests that must be", plan.output, re.MULTILINE)[0])
    assert mock.calls == []
    judge(mock, *options)
    assert paid(mock) == billable
    assert len(mock.calls) - paid(mock) == 1 + free  # and one that asks whether the token is taken


@pytest.mark.slow
def test_a_plan_beyond_the_budget_says_so(mock: MockServer) -> None:
    done = judge(mock, "--plan", "--max-cost", "0.02", *STRICT)
    assert "at most $0.02, whatever is found" in done.output
    assert "The budget is reached before everything is tested" in done.output


@pytest.mark.slow
def test_free_requests_are_sent_first(mock: MockServer) -> None:
    judge(mock, "--only", "REQ-3", "REQ-8", *STRICT)
    statuses = [call.status for call in mock.calls]
    assert 200 in statuses
    assert statuses == [422] * statuses.index(200) + [200] * statuses.count(200)


def test_the_list_has_all_rules_and_needs_no_target(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "--list", "--level", "strict"], env=environment(), cwd=tmp_path,
        capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rules = dict(re.findall(r"^(\S+-\d+) +(\S.*\n(?: +- .*\n)+)", done.stdout, re.MULTILINE))
    assert rules.keys() == RULES.keys()
    assert rules["REQ-13"].startswith("The input has 256 to 2048 pixels on each side.\n")
    covering = "- an input at the limits is accepted (may cost money)"
    assert {rule for rule, tests in rules.items() if covering in tests} == {"REQ-13"}


@pytest.mark.slow
def test_rules_that_are_skipped_are_not_judged(mock: MockServer) -> None:
    mock.faults.set("wrong-sizex*")
    done = judge(mock, "--only", "REQ-16,REQ-2", "--skip", "REQ-16", *STRICT)
    assert done.status == 0, done.output
    verdicts = {rule["id"]: rule["verdict"] for rule in done.report["rules"]}
    assert verdicts["REQ-2"] == "conforms"
    assert verdicts["REQ-16"] == "not tested"


@pytest.mark.slow
def test_the_default_level_is_documented(mock: MockServer) -> None:
    done = judge(mock, "--only", "RES-8", "--max-examples", "2")
    assert done.report["level"] == "documented"
    assert "left out" in done.output
    assert "of the level strict" in done.output


@pytest.mark.slow
def test_concurrent_requests_need_the_option() -> None:
    with stub_server(lambda _: OK) as server:
        one = run_cli(server.url, TOKEN, "--plan", "--only", "RES-2")
        two = run_cli(server.url, TOKEN, "--plan", "--only", "RES-2", "--concurrency", "2")
    says = "images of concurrent requests are not mixed up"
    assert says not in one.output
    assert "left out: 1 test for --concurrency 2 or more" in one.output
    assert says in two.output


def bodies(*options: str, **environment: str) -> list[bytes]:
    """What arrives of a property's requests."""
    with stub_server(lambda _: REFUSED) as server:
        run_cli(server.url, TOKEN, "--only", "REQ-11", "--max-examples", "5", *options,
               **environment)  # fmt: skip
    return [received.body for received in server.posts]


@pytest.mark.slow
def test_a_seed_gives_the_same_requests_again() -> None:
    one = bodies("--seed", "1")
    assert one == bodies("--seed", "1")
    assert one != bodies("--seed", "2")


@pytest.mark.slow
def test_in_ci_the_requests_are_always_the_same() -> None:
    assert bodies() == bodies()
    assert bodies(CI="") != bodies(CI="")


@pytest.mark.parametrize("option", ["--report", "--html", "--junit"])
def test_an_unwritable_report_is_an_error_before_anything_is_sent(
    mock: MockServer, option: str
) -> None:
    done = judge(mock, option, f"{'x' * 300}.out", *STRICT)
    assert done.status == 2
    assert "cannot be written: File name too long" in last_line(done)
    assert mock.calls == []


@pytest.mark.slow
def test_a_test_with_nothing_to_send_counts_for_no_rule(mock: MockServer) -> None:
    """At the level documented other base64 may be taken."""
    done = judge(mock, "--only", "REQ-17", "--level", "documented", "--max-examples", "3")
    assert done.status == 0, done.output
    nothing = [test for test in done.report["tests"] if test["outcome"] == "nothing to send"]
    assert "nonstandard base64 is refused" in {test["says"] for test in nothing}
    (rule,) = (rule for rule in done.report["rules"] if rule["id"] == "REQ-17")
    assert not {test["id"] for test in nothing} & set(rule["tests"])


@pytest.mark.slow
def test_a_wrong_status_breaks_a_rule_that_is_judged(mock: MockServer) -> None:
    mock.faults.set("ok,404x*")
    done = judge(mock, "--only", "RES-7", *STRICT)
    assert last_line(done) == "Does not conform: RES-7 is broken."


def test_fail_fast_stops_at_the_first_failure(mock: MockServer) -> None:
    mock.faults.set("wrong-sizex*")
    done = judge(mock, "-x", "--only", "REQ-16", *STRICT)
    assert done.status == 1
    assert [bool(test["findings"]) for test in done.report["tests"]].index(True) + 1 == len(
        done.report["tests"]
    )


def test_a_wrong_token_ends_the_run_at_once(mock: MockServer) -> None:
    done = run_cli(mock.url, "another", *STRICT)
    assert done.status == 2
    assert last_line(done) == (f"upscaler-contract: {mock.url} does not accept the token")
    assert len(mock.calls) == 1


@pytest.mark.slow
def test_the_first_of_several_tokens_is_taken(mock: MockServer) -> None:
    done = run_cli(mock.url, f" {TOKEN} ,other", "--only", "RES-9", "REQ-8", *STRICT)
    assert done.status == 0, done.output


# Two implementations


@pytest.mark.slow
def test_two_targets_that_agree(mock: MockServer) -> None:
    with MockServer(tokens=["other-token"]) as other:
        done = judge(mock, "--diff", other.url, "--diff-token-env", "OTHER",
                     "--only", "REQ-9", *STRICT, OTHER="other-token")  # fmt: skip
    assert done.status == 0, done.output
    assert done.report["rules"][-1]["verdict"] == "conforms"
    assert done.report["money"]["billed"] == 2 * paid(mock)


@pytest.mark.slow
def test_two_targets_that_differ(mock: MockServer) -> None:
    with MockServer(tokens=[TOKEN]) as other:
        other.faults.set("wrong-encodingx*")
        done = judge(mock, "--diff", other.url, "--only", "REQ-8", *STRICT)
    assert done.status == 1, done.output
    assert last_line(done) == "The two differ."
    assert "the image's encoding differs: PNG here, JPEG there" in done.output


# What is written


def test_junits_xml_has_the_rules(mock: MockServer, tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    mock.faults.set("wrong-sizex*")
    done = judge(mock, "--only", "REQ-16", "--junit", str(file), "--max-requests", "3", *STRICT)
    assert done.status == 1, done.output
    suite = ET.parse(file).getroot()[0]
    failed = [case for case in suite if case.find("failure") is not None]
    skipped = [case for case in suite if case.find("skipped") is not None]
    assert failed
    assert skipped
    rules = [each.get("value") for each in failed[0].iter("property") if each.get("name") == "rule"]
    assert "REQ-16" in rules
    assert "curl" in (failed[0][-1].text or "")
    assert "budget reached" in (skipped[0][-1].get("message") or "")


def test_an_undecided_test_has_its_request_in_every_report(tmp_path: Path) -> None:
    def fail(received: ReceivedRequest) -> Reply:
        return (
            REFUSED if received.body == b"{}" else (500, {"Content-Type": "text/plain"}, b"oh no")
        )

    html, junit = tmp_path / "page.html", tmp_path / "junit.xml"
    with stub_server(fail) as server:
        done = run_cli(server.url, TOKEN, "--only", "REQ-18",
            "--html", str(html), "--junit", str(junit))  # fmt: skip
    assert done.status == 3, done.output
    (ended,) = [test["undecided"] for test in done.report["tests"] if test["undecided"]]
    assert ended["answer"] == "500 text/plain: oh no"
    assert "X-OctoAI-Queue-Dispatch: x" in ended["curl"]
    assert f"  request:  {ended['request']}\n" in done.output
    assert f"  repeat:   {ended['repeat']}\n" in done.output
    assert f"{server.url}/upscaling" in ended["repeat"]
    suite = ET.parse(junit).getroot()[0]
    (skipped,) = [each for case in suite if (each := case.find("skipped")) is not None]
    assert ended["repeat"] in (skipped.get("message") or "")
    page = html.read_text()
    assert "Not decided" in page
    assert page.count('data-copies="undecided-') == 1


@pytest.mark.slow
def test_a_repeated_token_is_redacted_everywhere(tmp_path: Path) -> None:
    def echo(received: ReceivedRequest) -> Reply:
        told = str(received.headers).encode()
        return 400, {"Content-Type": "text/plain"}, told

    html, junit = tmp_path / "page.html", tmp_path / "junit.xml"
    with stub_server(echo) as server:
        done = run_cli(server.url, TOKEN, "--only", "REQ-5", "REQ-1", "RES-7", "RES-6",
            "--html", str(html), "--junit", str(junit), *STRICT)  # fmt: skip
    assert done.status == 1
    assert done.findings
    written = done.output + str(done.report) + html.read_text() + junit.read_text()
    assert any("Bearer $TOKEN" in found["answer"] for found in done.findings)
    assert TOKEN not in written


@pytest.mark.slow
def test_the_users_project_is_not_loaded(mock: MockServer, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError('not mine')\n")
    (tmp_path / "contract_tests").mkdir()
    (tmp_path / "contract_tests" / "__init__.py").write_text("raise RuntimeError\n")
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [COMMAND, "--base-url", mock.url, *FEW],
        env=environment(PYTEST_ADDOPTS="--no-such", PYTEST_PLUGINS="nothing", PYTHONWARNINGS=""),
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_closed_pipe_is_no_error(mock: MockServer, tmp_path: Path) -> None:
    done = subprocess.run(
        f"{COMMAND} --list | head -1", shell=True, env=environment(), cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("REQ-1 ")
    assert done.stderr == ""
