"""Scripts that run in a process of their own, so that its memory can be measured."""

import subprocess
import sys

from tests.support.paths import ROOT


def numbers_of(script: str, *arguments: object, timeout_s: int = 120) -> list[int]:
    """The numbers that a script of Python prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [int(word) for word in done.stdout.split()]
