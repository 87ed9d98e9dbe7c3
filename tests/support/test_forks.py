"""Forked processes are as those that the command starts."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.support.forks import Forked, Forks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they are of Linux alone")
SCRIPT = """
import os, sys
print(os.environ["NAME"], __name__, sys.argv[1:], "decimal" in sys.modules, sys.stdin.read())
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def forks() -> Forks:
    return Forks("decimal")


@pytest.fixture
def said(tmp_path: Path) -> Iterator[IO[str]]:
    with (tmp_path / "said").open("w+") as file:
        yield file


def start(forks: Forks, said: IO[str], *arguments: str) -> tuple[Forked, int]:
    """A process, and the descriptor that its standard input comes from."""
    theirs, ours = os.pipe()
    process = forks.start([*arguments], stdin=theirs, stdout=said, stderr=said)
    os.close(theirs)
    return process, ours


def test_each_has_its_own_environment_arguments_and_status(
    forks: Forks, said: IO[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for number in ("3", "0"):
        monkeypatch.setenv("NAME", f"n{number}")
        process, ours = start(forks, said, "-c", SCRIPT, number)
        os.write(ours, b"in")
        os.close(ours)
        told.append(process.wait(60))
    assert told == [3, 0]
    said.seek(0)
    assert said.read() == "n3 __main__ ['3'] True in\nn0 __main__ ['0'] True in\n"


def test_a_module_may_be_run_and_an_error_is_told(forks: Forks, said: IO[str]) -> None:
    process, ours = start(forks, said, "-m", "json.tool", "/dev/null")
    assert process.wait(60) == 1
    os.close(ours)
    said.seek(0)
    assert "Expecting value" in said.read()


def test_who_takes_too_long_is_killed(forks: Forks, said: IO[str]) -> None:
    (slow, first), (other, second) = (
        start(forks, said, "-c", "import sys; sys.stdin.read()") for _ in range(2)
    )
    os.close(second)
    assert other.wait(60) == 0, "two at once"
    assert slow.wait(0) == -signal.SIGKILL
    os.close(first)
