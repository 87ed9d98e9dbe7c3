"""A test suite of somebody who uses the mock, run by pytest in a process of its own."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HIDDEN: Final = ("PYTEST_", "UPSCALER_", "UPSCALING_", "NO_PROXY", "no_proxy")
"""How variables begin that are this suite's own."""
OPTIONS: Final = ("-p", "no:cacheprovider", "--color=no", "--rootdir=.", "-p", "no:schemathesis")
"""The last one is of a plugin that takes long to import."""


@dataclass(frozen=True)
class Outcome:
    """What came of a suite: how many tests are what, and all that pytest wrote."""

    counts: dict[str, int]
    said: str
    status: int


def outcome(folder: Path, *options: str, **environment: str) -> Outcome:
    """What comes of the suite in `folder`, in which nothing is known of this one."""
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
