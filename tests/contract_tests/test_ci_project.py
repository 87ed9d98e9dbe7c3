"""What other teams copy to judge an implementation in their CI, and what is said of it."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from contract_tests.oracle.rules import RULES
from contract_tests.report.report import Report, ReportedFinding, RuleResult, TestResult
from tests.support.mock_servers import mock_child
from tests.support.paths import ROOT

DOCS: Final = ROOT / "docs"
GUIDE: Final = (DOCS / "CONTRACT_TESTS.md").read_text()
README: Final = (ROOT / "README.md").read_text()
GITHUB: Final = yaml.safe_load((DOCS / "contract-project" / "github.yml").read_text())
GITLAB: Final = yaml.safe_load((DOCS / "contract-project" / "gitlab.yml").read_text())
BASH: Final = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")
"""As GitHub calls it."""
QUICK: Final = "upscaler-contract --max-examples 1 --only RES-1 REQ-2 REQ-8"
"""Whether a target conforms to all others is not for tests of the commands."""


def steps(job: str) -> list[dict[str, Any]]:
    """The steps of a job of GitHub's that are scripts, but for those that install."""
    scripts = [step for step in GITHUB["jobs"][job]["steps"] if "run" in step]
    return [step for step in scripts if not step["run"].startswith("pip ")]


def scripts(job: str) -> str:
    """What a job of GitLab's does."""
    return "\n".join(GITLAB[job]["script"])


def done(script: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A script's run in a folder of its own, with one example of each property of a few rules."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ours = {name: value for name, value in os.environ.items() if not name.startswith("UPSCALER_")}
    ended = "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT"  # as a job's end does
    return subprocess.run(
        [*BASH, f"{ended}\n{script.replace('upscaler-contract ', f'{QUICK} ')}"],
        cwd=folder, env={**ours, "PATH": programs, "CI": "true", **environment}, check=False,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("host", ["github", "gitlab"])
def test_the_mock_is_judged_in_one_job(host: str, tmp_path: Path) -> None:
    (step,) = steps("mock")
    script = step["run"] if host == "github" else scripts("contract-mock")
    # A variable of GitLab's project goes before one of the job, and so is what the script finds.
    variables = step["env"] if host == "github" else {"UPSCALER_TOKEN": "the deployment's"}
    result = done(script, tmp_path, **variables)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Conforms to" in result.stdout


@pytest.mark.parametrize("host", ["github", "gitlab"])
def test_a_job_ends_if_the_mock_does_not_start(host: str, tmp_path: Path) -> None:
    script = steps("mock")[0]["run"] if host == "github" else scripts("contract-mock")
    (tmp_path / "port").write_text("1\n")  # of a mock that was killed
    result = done(script.replace("--port-file", "--no-such-option"), tmp_path, UPSCALER_TOKEN="x")
    assert result.returncode != 0
    assert "127.0.0.1:1" not in result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("host", ["github", "gitlab"])
def test_a_deployment_is_judged_and_the_reports_are_kept(host: str, tmp_path: Path) -> None:
    script = steps("deployment")[0]["run"] if host == "github" else scripts("contract-deployment")
    work = tmp_path / "work"
    work.mkdir()
    with mock_child(tmp_path, "--token", "secret") as mock:
        result = done(script, work, UPSCALING_URL=mock.url, UPSCALER_TOKEN="secret")
    assert result.returncode == 0, result.stdout + result.stderr
    kept = GITLAB["contract-deployment"]["artifacts"]
    assert {*kept["paths"], kept["reports"]["junit"]} == {file.name for file in work.iterdir()}
    upload = GITHUB["jobs"]["deployment"]["steps"][-1]
    assert upload["if"] == "always()"
    assert {*work.glob(upload["with"]["path"])} == {*work.iterdir()}


@pytest.mark.slow
def test_the_commands_of_the_readme_end_with_a_verdict(tmp_path: Path) -> None:
    section = README.partition("## The contract tests")[2]
    block = re.findall("```sh\n(.*?)```", section, re.DOTALL)[0]
    install, *rest = block.splitlines()
    assert install == "pip install -c constraints.txt '.[contract]'"
    result = done("\n".join(rest), tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Conforms to" in result.stdout


def test_the_guide_has_every_option_and_status() -> None:
    command = [str(Path(sys.executable).parent / "upscaler-contract"), "--help"]
    wide = {**os.environ, "COLUMNS": "1000"}  # so that no option is broken at its hyphen
    printed = subprocess.run(command, env=wide, capture_output=True, text=True, check=True).stdout
    told = " ".join(printed.split())
    known = set(re.findall(r"--[a-z-]+", told)) - {"--help", "--fail-fast", "--verbose"}
    table = GUIDE.partition("## Options")[2].partition("The same by pytest")[0]
    assert set(re.findall(r"--[a-z][a-z-]+", table)) - {"--dialect"} == known
    statuses = re.findall(r"^\| (\d+) \|", GUIDE, re.MULTILINE)
    assert statuses == re.findall(r"(\d+) [a-z]", told.partition("Exit status:")[2])


def test_the_guide_names_what_is_in_a_report() -> None:
    section = GUIDE.partition("## Reports")[2].partition("`--report` writes JSON")[2]
    named = set(re.findall(r"`([a-z]+)`", section.partition("## ")[0]))
    known = {
        each.name
        for kind in (Report, RuleResult, TestResult, ReportedFinding)
        for each in fields(kind)
    }
    assert len(named) > 15
    assert named <= known


def test_every_rule_that_is_named_is_one() -> None:
    named = re.findall(r"\b(?:REQ|RES|ASY|EXT)-\d+\b", GUIDE + (DOCS / "defects.md").read_text())
    assert named
    assert set(named) <= set(RULES)


def test_every_defect_is_in_the_table_and_found() -> None:
    from tests.contract_tests.defects import DEFECTS

    table = (DOCS / "defects.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (.+?) \|", table, re.MULTILINE)[1:]
    assert [mistake for mistake, _ in rows] == [defect.mistake for defect in DEFECTS]
    assert not [mistake for mistake, told in rows if "nothing" in told]
    assert f"{len(DEFECTS)} of {len(DEFECTS)} defects are found." in table
