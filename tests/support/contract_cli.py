"""Runs the command `upscaler-contract` in a process of its own."""

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn
from unittest.mock import patch

COMMAND: Final = str(Path(sys.executable).parent / "upscaler-contract")
TOKEN: Final = "a-token-to-be-kept"
HIDDEN: Final = ("PYTEST_", "UPSCALER_", "OCTOAI_")
"""Prefixes of variables that belong to this suite."""
OUTPUT: Final = "output.txt"
if sys.platform == "win32":
    FORKING: Final = multiprocessing.get_context("spawn")
else:
    FORKING: Final = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["tests.support.contract_preload"])


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
    """Judge the target at `url`, with the same requests every time.

    The process is forked from one that has imported everything, which takes half of a short run.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
    added = {"CI": "true", "UPSCALER_TOKEN": token, **environment}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        arguments = ("--base-url", url, "--report", str(report), *options)
        process = FORKING.Process(target=_judge, args=(arguments, kept | added, folder))
        with patch.dict(os.environ, CI="true"):  # Hypothesis reads it when it is imported
            process.start()
        try:
            process.join()
        finally:
            process.kill()  # where the test has had its time
        output = (Path(folder) / OUTPUT).read_text()
        parsed = json.loads(report.read_text()) if report.exists() else {}
        assert process.exitcode is not None
    return CliResult(process.exitcode, output, parsed)


def _judge(arguments: Sequence[str], environment: dict[str, str], folder: str) -> NoReturn:
    """What the command does, with its output in a file."""
    from contract_tests.cli import main

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with Path(OUTPUT).open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.exit(main(arguments))
