"""The example project in docs/mock-project."""

import re
import shutil
from pathlib import Path

import yaml

from mock_server import MockServer
from tests.support.consumer_suites import outcome
from tests.support.paths import ROOT

PROJECT = ROOT / "docs" / "mock-project"


def project(folder: Path) -> Path:
    """Return a copy of the project."""
    return shutil.copytree(PROJECT, folder / "project", ignore=shutil.ignore_patterns("__*"))


def test_the_project_has_ten_lines() -> None:
    lines = (PROJECT / "enlarge.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) == 10


def test_with_the_fixture_one_test_fails_and_says_why(tmp_path: Path) -> None:
    came = outcome(project(tmp_path), "test_enlarge.py")
    assert came.counts == {"passed": 1, "failed": 1}, came.said
    assert "FAILED test_enlarge.py::test_drawings_have_a_model_of_their_own" in came.said
    told = (
        "AssertionError: expected a matching call, but 0 of 1 matched",
        "the closest miss is request 1: POST /upscaling -> 200",
        "  model: expected 'real-esrgan-x4-plus-anime', but was not sent",
        "  as expected: scale",
    )
    for line in told:
        assert line in came.said


def test_the_project_ignores_the_settings_of_the_checkout() -> None:
    """Those need plugins that a user of the mock does not have."""
    came = outcome(PROJECT, "--collect-only", "test_enlarge.py")
    assert "configfile: pytest.ini" in came.said.splitlines(), came.said


def test_with_a_url_one_test_passes_and_one_fails(tmp_path: Path) -> None:
    with MockServer() as mock:
        came = by_url(project(tmp_path), mock.url, mock.token)
    assert came == {"passed": 1, "failed": 1}


def by_url(folder: Path, url: str, token: str) -> dict[str, int]:
    """Run the tests that get the URL of the mock, without the plugin."""
    came = outcome(
        folder, "test_by_url.py", "-pno:upscaling", UPSCALING_URL=url, UPSCALING_TOKEN=token
    )
    assert re.search("assert None == 'real-esrgan-x4-plus-anime'", came.said), came.said
    return came.counts


def test_the_workflow_uses_inputs_of_the_action() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    (job,) = yaml.safe_load((PROJECT / "workflow.yml").read_text())["jobs"].values()
    (mock,) = (step for step in job["steps"] if "octo-upscaler" in step.get("uses", ""))
    assert mock["with"].keys() <= action["inputs"].keys()
    told = re.findall(r"steps\.mock\.outputs\.(\w+)", str(job))
    assert {*told} == {"url", "token"} <= action["outputs"].keys()
