"""Starts processes of `upscaler.bench.worker` and exchanges messages with them."""

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from upscaler.errors import WorkerFailed


class WorkerProcess:
    """A process that does one job. Leaving its context kills it."""

    def __init__(self, job: dict[str, Any], log: Path) -> None:
        """Start it; its standard error goes to the file `log`."""
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603  our own module
                [sys.executable, "-m", "upscaler.bench.worker", json.dumps(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def answer(self) -> dict[str, Any]:
        """Read the next answer, then stop the process. Raises WorkerFailed."""
        line = self._answers.readline()
        if not line:
            raise WorkerFailed(self._cause_of_death())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        # Idle threads may spin, which would slow down the contender whose turn it is.
        if hasattr(signal, "SIGSTOP"):
            self._process.send_signal(signal.SIGSTOP)
        return answer

    def ask(self, **question: object) -> dict[str, Any]:
        """Continue the process, send it a question and return its answer. Raises WorkerFailed."""
        if hasattr(signal, "SIGCONT"):
            self._process.send_signal(signal.SIGCONT)
        try:
            print(json.dumps(question), file=self._questions, flush=True)
        except BrokenPipeError:
            raise WorkerFailed(self._cause_of_death()) from None
        return self.answer()

    def end(self) -> None:
        """Kill it, even if it is stopped; may be called twice."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
        # Closing flushes a question that the dead process did not read.
        with contextlib.suppress(BrokenPipeError):
            self._questions.close()

    def _cause_of_death(self) -> str:
        status = self._process.wait()
        if status == -signal.SIGKILL:
            return "killed, as the system does when memory runs out"
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"died ({how}): {lines[-1]}" if lines else f"died ({how})"
