"""The Dockerfile, as far as one gets without Docker.

What is installed in an image is what is installed in the environment of the tests.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support.paths import ROOT


class Stage(NamedTuple):
    """A stage of the Dockerfile: what it stands on, and its instructions."""

    base: str
    instructions: list[tuple[str, str]]


def read_stages() -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, rest = line.split(None, 1)
        if name == "FROM":
            base, _, own = rest.partition(" AS ")
            stages[own] = Stage(base, [])
        elif stages:
            [*stages.values()][-1].instructions.append((name, rest.strip()))
    return stages


STAGES: Final = read_stages()
IMAGES: Final = ("cpu", "cuda", "mock", "contract")
BASE: Final = "python:${PYTHON}-slim"


def instructions(stage: str) -> list[tuple[str, str]]:
    """Those by which a stage is made, those of what it stands on first."""
    if stage not in STAGES:
        return [("FROM", stage)]
    return instructions(STAGES[stage].base) + STAGES[stage].instructions


def last(instruction: str, stage: str) -> str:
    return [rest for name, rest in instructions(stage) if name == instruction][-1]


def copied() -> list[str]:
    """What is copied into the build from outside."""
    return [
        word
        for stage in STAGES.values()
        for name, rest in stage.instructions
        if name == "COPY" and not rest.startswith("--from")
        for word in rest.split()[:-1]
    ]


def venv_of(image: str) -> str:
    """The stage that an image has its packages from."""
    (copy,) = (rest for name, rest in instructions(image) if name == "COPY")
    match = re.fullmatch("--from=(.+) /venv /venv", copy)
    assert match, copy
    return match[1]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_small_and_not_run_by_root(image: str) -> None:
    assert instructions(image)[0] == ("FROM", BASE)
    user, group = map(int, last("USER", image).split(":"))
    assert user > 0
    assert group > 0
    run = [rest for name, rest in instructions(image) if name == "RUN"]
    assert not [line for line in run if "pip" in line], "packages come from a stage of their own"


def test_the_mock_is_the_default_image() -> None:
    assert [*STAGES][-1] == "mock"


@pytest.mark.parametrize(
    ("image", "what", "torch"),
    [
        ("mock", ".", None),
        ("contract", "'.[contract]'", None),
        ("cpu", "'.[engine]'", 'pip install --no-deps --index-url "$TORCH_INDEX"'),
        ("cuda", "'.[engine]'", "pip install --require-hashes --no-deps --requirement gpu.txt"),
    ],
)
def test_an_image_has_what_its_command_needs(image: str, what: str, torch: str | None) -> None:
    run = [rest for name, rest in instructions(venv_of(image)) if name == "RUN"]
    assert run[-1] == f"pip install --constraint constraints.txt {what}"
    assert run[-2].startswith(torch or "pip install --require-hashes --no-deps --requirement front")
    (command, *_) = json.loads(last("ENTRYPOINT", image))
    assert (Path(sys.executable).parent / command).exists()


def test_the_lock_of_cpus_is_that_of_gpus_without_cuda(tmp_path: Path) -> None:
    match = re.search("awk '.*?' gpu.txt > cpu.txt", last("RUN", "cpu-packages"))
    assert match
    (tmp_path / "gpu.txt").symlink_to(ROOT / "locks" / "gpu.txt")
    subprocess.run(["sh", "-c", match[0]], cwd=tmp_path, check=True)
    names = {
        name: re.findall(r"^([\w-]+)==.*\n +--hash", file.read_text(), re.MULTILINE)
        for name, file in (("gpu", tmp_path / "gpu.txt"), ("cpu", tmp_path / "cpu.txt"))
    }
    assert {"numba", "numpy", "sympy"} < {*names["cpu"]}
    removed = {name for name in names["gpu"] if name not in names["cpu"]}
    assert {"torch", "triton", "nvidia-cublas"} < removed
    of_cuda = {name for name in names["gpu"] if re.match("torch$|triton$|nvidia-|cuda-", name)}
    assert removed == of_cuda


def test_the_locks_are_made_for_the_python_of_the_images() -> None:
    (python,) = re.findall("^ARG PYTHON=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert f"--python-version {python} " in (ROOT / "Makefile").read_text()


def test_the_images_get_what_is_needed_to_install() -> None:
    for name in copied():
        assert (ROOT / name).exists(), name
    with (ROOT / "pyproject.toml").open("rb") as file:
        config = tomllib.load(file)
    wheel = config["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        "pyproject.toml", "README.md", *config["project"]["license-files"],
        *wheel["packages"], *wheel["force-include"], "constraints.txt", "locks/front.txt",
        "locks/gpu.txt",
    }  # fmt: skip
    assert needed == {*copied()}
    let_in = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in let_in if line.startswith("!")} == needed


@pytest.mark.parametrize("image", ["cpu", "cuda"])
def test_a_service_writes_to_its_volume_alone(image: str) -> None:
    variables = " ".join(rest for name, rest in instructions(image) if name == "ENV")
    assert "HOME=/data UPSCALER_DATA=/data" in variables
    # Where tempfile makes files if neither /tmp nor /var/tmp may be written.
    assert last("WORKDIR", image) == last("VOLUME", image) == "/data"


def test_the_image_serves_and_is_healthy(tmp_path: Path) -> None:
    """On this machine alone and on a free port, which stand in place of the image's."""
    for name in copied():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    command = json.loads(last("ENTRYPOINT", "mock"))
    assert command == ["upscaler-mock", "--host", "0.0.0.0", "--port", last("EXPOSE", "mock")]
    program = "import sys; from mock_server.serving.fast_start import main; sys.exit(main())"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    options = [{"0.0.0.0": "127.0.0.1", "8000": port}.get(word, word) for word in command[1:]]
    check = json.loads(last("HEALTHCHECK", "mock").partition(" CMD ")[2])
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
