"""The GitHub Action: its scripts, as far as one gets without GitHub.

Where the action installs the mock, the test has the one that is installed here.
"""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from tests.mock_server.test_project import by_url, project
from tests.support.mock_servers import MOCK
from tests.support.paths import ROOT
from tests.support.service import GOOD

ACTION: Final = yaml.safe_load((ROOT / "action.yml").read_text())
INSTALL, START = ACTION["runs"]["steps"]
BASH: Final = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
"""As GitHub calls it for `shell: bash`."""


def test_the_action_is_composite_and_complete() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert [step["shell"] for step in (INSTALL, START)] == ["bash", "bash"]
    for name, output in ACTION["outputs"].items():
        assert output["value"] == f"${{{{ steps.{START['id']}.outputs.{name} }}}}"
    used = re.findall(r"\${{ inputs\.([a-z-]+) }}", str(ACTION))
    assert sorted(used) == sorted(ACTION["inputs"])


@pytest.mark.parametrize("step", [INSTALL, START], ids=["install", "start"])
def test_inputs_are_never_part_of_a_script(step: dict[str, Any]) -> None:
    assert "${{" not in step["run"]
    assert subprocess.run([*BASH, "-n", "-c", step["run"]], check=True).returncode == 0


def test_the_action_installs_its_own_checkout(tmp_path: Path) -> None:
    """With a Python that only notes what it is called with."""
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\nmkdir -p "$3/bin"\n'
        'printf "%s\\n" "$@" > "$3/made"\n'
        'printf \'#!/bin/sh\\nprintf "%%s\\\\n" "$@" > "%s/../../installed"\\n\' "$3/bin"'
        ' > "$3/bin/python"\nchmod +x "$3/bin/python"\n'
    )
    python.chmod(0o755)
    done, told = step(INSTALL, tmp_path, {"python": str(python)})
    assert done.returncode == 0, done.stderr
    folder = Path(told["GITHUB_OUTPUT"]["folder"])
    assert folder.parent == tmp_path
    called = (folder / "installed").read_text().splitlines()
    assert called[:3] == ["-m", "pip", "install"]
    assert called[-2:] == [str(ROOT / "constraints.txt"), str(ROOT)]


def test_a_project_has_a_passing_and_a_failing_test_with_the_action(tmp_path: Path) -> None:
    with started(tmp_path, {"rate-limit": "pro", "token": "one,two"}) as told:
        output, environment = told["GITHUB_OUTPUT"], told["GITHUB_ENV"]
        url = output["url"]
        assert environment == {"UPSCALING_MOCK_URL": url, "UPSCALING_MOCK_TOKEN": "one"}
        counts = by_url(project(tmp_path), url, output["token"])
        assert counts == {"passed": 1, "failed": 1}
        headers = {"Authorization": "Bearer two"}
        assert httpx.post(f"{url}/upscaling", json=GOOD, headers=headers).status_code == 200
        assert '"status": 200' in Path(output["log"]).read_text()


def test_the_mock_starts_with_the_inputs(tmp_path: Path) -> None:
    scenario = tmp_path / "a scenario.toml"
    scenario.write_text('[faults]\nupscaling = "502"\n')
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    given = {"scenario": str(scenario), "port": port, "seed": "-3", "rate-limit": "2/min"}
    with started(tmp_path, given) as told:
        url = f"http://127.0.0.1:{port}"
        assert told["GITHUB_OUTPUT"]["url"] == url
        headers = {"Authorization": f"Bearer {ACTION['inputs']['token']['default']}"}
        answers = [httpx.post(f"{url}/upscaling", json=GOOD, headers=headers) for _ in range(4)]
        assert answers[0].status_code == 502
        assert answers[-1].status_code == 429


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rate-limit": "many"}, "argument --rate-limit"),
        ({"scenario": "nowhere.toml"}, "nowhere.toml: No such file or directory"),
        ({"token": "a b"}, "a token has at least one character, and no spaces"),
        ({"port": "0; touch $RUNNER_TEMP/pwned"}, "a port is a number"),
        ({"seed": "$(touch $RUNNER_TEMP/pwned)"}, "a seed is an integer"),
    ],
)
def test_a_mock_that_does_not_start_fails_the_step(
    tmp_path: Path, given: dict[str, str], words: str
) -> None:
    done, told = step(START, tmp_path, given)
    assert done.returncode == 1
    assert words in done.stderr
    assert "::error::the mock of the Upscaling API has not started" in done.stdout
    assert told == {"GITHUB_OUTPUT": {}, "GITHUB_ENV": {}}
    assert not (tmp_path / "pwned").exists()


@contextmanager
def started(folder: Path, given: dict[str, str]) -> Iterator[dict[str, dict[str, str]]]:
    """What the action tells the job, while its mock runs."""
    done, told = step(START, folder, given)
    try:
        assert done.returncode == 0, done.stderr
        yield told
    finally:
        with suppress(ProcessLookupError, FileNotFoundError):
            os.kill(int((folder / "pid").read_text()), signal.SIGTERM)


def step(
    which: dict[str, Any], folder: Path, given: dict[str, str]
) -> tuple["subprocess.CompletedProcess[str]", dict[str, dict[str, str]]]:
    """Run a step as GitHub does, in a job whose mock is that of these tests; what it has told."""
    program = folder / "venv" / "bin" / "upscaler-mock"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f'#!/bin/sh\necho $$ > "{folder}/pid"\nexec "{MOCK}" "$@"\n')
    program.chmod(0o755)
    values = {name: each["default"] for name, each in ACTION["inputs"].items()} | given
    known = {f"inputs.{name}": value for name, value in values.items()}
    known["steps.install.outputs.folder"] = str(folder)
    told = {name: folder / name for name in ("GITHUB_OUTPUT", "GITHUB_ENV")}
    environment = {"GITHUB_ACTION_PATH": str(ROOT), "RUNNER_TEMP": str(folder)}
    for name, path in told.items():
        path.touch()
        environment[name] = str(path)
    for name, text in which["env"].items():
        match = re.fullmatch(r"\${{ (.+) }}", text)
        assert match, text
        environment[name] = known[match[1]]
    script = folder / f"{which['id']}.sh"
    script.write_text(which["run"])
    done = subprocess.run(
        [*BASH, str(script)],
        cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    return done, {name: lines(path) for name, path in told.items()}


def lines(path: Path) -> dict[str, str]:
    """What a step has told in a file of NAME=VALUE."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines())
