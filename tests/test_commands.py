"""What all three commands have in common."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest

SCRIPTS: Final = Path(sys.executable).parent
COMMANDS: Final[dict[str, list[str]]] = {
    "upscaler": [str(SCRIPTS / "upscaler")],
    "python -m upscaler": [sys.executable, "-m", "upscaler"],
    "upscaler-mock": [str(SCRIPTS / "upscaler-mock")],
    "upscaler-contract": [str(SCRIPTS / "upscaler-contract")],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_it_says_its_version_and_minds_no_reader_that_is_gone(name: str) -> None:
    command = [*COMMANDS[name], "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shown = name.removeprefix("python -m ")
    assert (done.stdout, done.stderr) == (f"{shown} {version('octo-upscaler')}\n", "")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()  # as `head` does, once it has what it wanted
        assert process.stderr.read() == b""
    assert process.returncode == 1
