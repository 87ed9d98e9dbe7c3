"""The command `upscaler-contract`, run on a target in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

COMMAND: Final = str(Path(sys.executable).parent / "upscaler-contract")
HIDDEN: Final = ("PYTEST_", "UPSCALER_", "OCTOAI_")
"""How variables begin that are this suite's own."""


@dataclass(frozen=True)
class CliResult:
    """What came of it: the exit status, all that was printed, and the report."""

    status: int
    output: str
    report: dict[str, Any]

    @property
    def findings(self) -> list[dict[str, Any]]:
        """All that was found, each with its rule, sentence, curl line and answer."""
        return [found for test in self.report.get("tests", ()) for found in test["findings"]]


def run_cli(url: str, token: str, *options: str, **environment: str) -> CliResult:
    """Judge what is at `url`, with the same requests every time."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
    told = {"CI": "true", "UPSCALER_TOKEN": token, **environment}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        done = subprocess.run(
            [COMMAND, "--base-url", url, "--report", str(report), *options],
            env=kept | told,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        read = json.loads(report.read_text()) if report.exists() else {}
    return CliResult(done.returncode, done.stdout + done.stderr, read)
