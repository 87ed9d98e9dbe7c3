"""Runs the command `upscaler-contract` in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

COMMAND: Final = str(Path(sys.executable).parent / "upscaler-contract")
TOKEN: Final = "a-token-to-be-kept"
HIDDEN: Final = ("PYTEST_", "UPSCALER_", "OCTOAI_")
"""Prefixes of variables that belong to this suite."""


@dataclass(frozen=True)
class CliResult:
    """The exit status, everything that was printed, and the JSON report."""

    status: int
    output: str
    report: dict[str, Any]

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Everything that was found, each with its rule, sentence, curl command and response."""
        return [found for test in self.report.get("tests", ()) for found in test["findings"]]


def run_cli(url: str, token: str, *options: str, **environment: str) -> CliResult:
    """Judge the target at `url`, with the same requests every time."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
    added = {"CI": "true", "UPSCALER_TOKEN": token, **environment}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        done = subprocess.run(
            [COMMAND, "--base-url", url, "--report", str(report), *options],
            env=kept | added,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        parsed = json.loads(report.read_text()) if report.exists() else {}
    return CliResult(done.returncode, done.stdout + done.stderr, parsed)
