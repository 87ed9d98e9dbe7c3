"""The GitHub Action and the image: their scripts and commands, as far as one gets without either.

Where the action installs the mock, the test has the one that is installed here; what is installed
in the image is what lies in the environment of the tests.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
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
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text()


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


IMAGES: Final = ("mock", "contract")
"""The last one in the Dockerfile is what is built if none is named."""


def instructions(image: str) -> list[tuple[str, str]]:
    """Those of the Dockerfile by which this image is made, those of what it stands on first."""
    joined = DOCKERFILE.replace("\\\n", " ").splitlines()
    found = [line.split(None, 1) for line in joined if line.strip() and not line.startswith("#")]
    starts = [number for number, (name, _) in enumerate(found) if name == "FROM"]
    for start, end in zip(starts, [*starts[1:], len(found)], strict=True):
        base, _, named = found[start][1].partition(" AS ")
        if named == image:
            own = [(name, rest) for name, rest in found[start + 1 : end]]
            return [*(instructions(base) if ":" not in base else [("FROM", base)]), *own]
    raise AssertionError(f"no image is called {image}")


def copied(image: str = "mock") -> list[str]:
    """What is copied into an image."""
    return [source for name, rest in instructions(image) if name == "COPY"
            for source in rest.split()[:-1]]  # fmt: skip


def only(instruction: str, image: str = "mock") -> str:
    (rest,) = (rest for name, rest in instructions(image) if name == instruction)
    return rest


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_a_small_base_no_torch_and_no_root(image: str) -> None:
    assert re.fullmatch(r"python:3\.11-slim", only("FROM", image))
    user, group = only("USER", image).split(":")
    assert int(user) > 0
    assert int(group) > 0
    order = [name for name, _ in instructions(image)]
    assert order.index("USER") > order.index("RUN"), "what is installed is root's"
    assert order.index("USER") < order.index("ENTRYPOINT")
    assert not re.search("torch|engine", re.sub("#.*", "", DOCKERFILE))


def test_the_mock_is_the_default_image() -> None:
    assert re.findall("^FROM .* AS (.*)$", DOCKERFILE, re.MULTILINE)[-1] == "mock"
    assert only("EXPOSE") == "8000"


def test_the_image_of_the_contract_tests_runs_their_command() -> None:
    (command,) = json.loads(only("ENTRYPOINT", "contract"))
    assert (Path(sys.executable).parent / command).exists()
    install = "pip install --constraint /source/constraints.txt '/source[contract]' &&"
    assert only("RUN", "contract").startswith(install)
    assert copied("contract") == copied("mock")


def test_the_image_copies_what_is_needed_to_install() -> None:
    for name in copied():
        assert (ROOT / name).exists(), name
    with (ROOT / "pyproject.toml").open("rb") as file:
        config = tomllib.load(file)
    wheel = config["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        "pyproject.toml", "README.md", *config["project"]["license-files"],
        *wheel["packages"], *wheel["force-include"], "constraints.txt",
    }  # fmt: skip
    assert needed == {*copied()}
    let_in = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in let_in if line.startswith("!")} == needed
    assert only("RUN").startswith("pip install --constraint /source/constraints.txt /source &&")


def test_the_image_serves_and_is_healthy(tmp_path: Path) -> None:
    """On this machine alone and on a free port, which stand in place of the image's."""
    for name in copied():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    command = json.loads(only("ENTRYPOINT"))
    assert command == ["upscaler-mock", "--host", "0.0.0.0", "--port", "8000"]
    program = "import sys; from mock_server.serving.fast_start import main; sys.exit(main())"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    options = [{"0.0.0.0": "127.0.0.1", "8000": port}.get(word, word) for word in command[1:]]
    check = json.loads(only("HEALTHCHECK").partition(" CMD ")[2])
    checked = [sys.executable, *(word.replace("8000", port) for word in check[1:])]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    assert subprocess.run(checked, check=False, capture_output=True).returncode != 0
    with subprocess.Popen(
        [sys.executable, "-c", program, *options, "--token", "secret"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            assert process.stdout
            assert process.stdout.readline() == f"http://127.0.0.1:{port}\n"
            # Docker's clients pass the host's proxies on, and the mock is behind none of them.
            proxies = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
            for more in ({}, proxies):
                healthy = subprocess.run(checked, check=False, env=os.environ | more)
                assert healthy.returncode == 0
        finally:
            process.terminate()
    assert process.returncode == 0
