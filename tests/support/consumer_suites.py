"""Runs the pytest suite of a user of the mock, in a process of its own."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HIDDEN: Final = ("CI", "PYTEST_", "UPSCALER_", "UPSCALING_", "NO_PROXY", "no_proxy")
"""The prefixes of environment variables of this suite, which the other one must not see. In CI
pytest prints whole messages once more at its end."""
OPTIONS: Final = ("-p", "no:cacheprovider", "--color=no", "--rootdir=.", "-p", "no:schemathesis")
"""The last one disables a plugin that is slow to import."""


@dataclass(frozen=True)
class Outcome:
    """The result of a suite: the number of tests by outcome, and the output of pytest."""

    counts: dict[str, int]
    said: str
    status: int


def outcome(folder: Path, *options: str, **environment: str) -> Outcome:
    """Run the suite in `folder`, isolated from this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
    command = [sys.executable, "-B", "-W", "error", "-m", "pytest", *OPTIONS, *options]
    done = subprocess.run(
        command,
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    said = done.stdout + done.stderr
    last = said.rstrip().rpartition("\n")[2]
    counts = {name: int(number) for number, name in re.findall(r"(\d+) (\w+)", last)}
    return Outcome(counts, said, done.returncode)
