"""The service in a process of its own, so that its use of resources can be measured.

    python -m tests.support.processes

serves, with a backend without a network, until its standard input is closed. Resources are measured
by Linux's /proc.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.forks import Forks
from tests.support.raw_http import PATIENCE_S
from tests.support.service import SETTINGS, TOKENS, Resizer, running
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend, Upscaler

HEADERS = {"Authorization": f"Bearer {TOKENS[0]}"}

SERVICES = Forks("tests.support.service")

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="what a process has is in /proc")


@dataclass(frozen=True)
class Child:
    """A service at `url`, and the file that it writes to."""

    url: str
    pid: int
    said: Path

    def memory_bytes(self) -> int:
        """The resident memory in bytes."""
        return self._status("VmRSS")

    def peak_bytes(self) -> int:
        """The peak of the resident memory since `forget_peak`, in bytes."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Reset the peak."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def processor_seconds(self) -> float:
        """Its CPU time in seconds, in user mode and in the kernel (proc(5), stat)."""
        _, _, fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")
        by_itself, in_kernel = fields.split()[11:13]
        return (int(by_itself) + int(in_kernel)) / os.sysconf("SC_CLK_TCK")

    def threads(self) -> int:
        return self._status("Threads")

    def descriptors(self) -> int:
        """How many files and sockets are open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def tasks(self) -> int:
        """How many tasks asyncio has, that of this question among them."""
        return int(httpx.get(f"{self.url}/tasks").text)

    def _status(self, name: str) -> int:
        """A number in /proc/PID/status, in bytes if it has a unit."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        value, *unit = text.partition(f"{name}:")[2].partition("\n")[0].split()
        return int(value) * (1024 if unit else 1)


@contextmanager
def child(
    folder: Path,
    *arguments: str,
    module: str = __name__,
    forks: Forks = SERVICES,
    must_end_well: bool = True,
) -> Iterator[Child]:
    """A process of `module`, which prints its URL and ends once its standard input is closed."""
    said, (theirs, ours), (answers, told) = folder / "said", os.pipe(), os.pipe()
    with said.open("w") as file, os.fdopen(told, "w") as stdout:
        process = forks.start(["-m", module, *arguments], stdin=theirs, stdout=stdout, stderr=file)
    os.close(theirs)
    with os.fdopen(answers) as lines:
        url = lines.readline().strip()
        try:
            assert url, said.read_text()
            yield Child(url, process.pid, said)
        finally:
            os.close(ours)
            status = process.wait(PATIENCE_S)
    assert status == 0 or not must_end_well, said.read_text()


def serve(upscaler: Upscaler) -> None:
    """Be such a process."""
    logging.basicConfig(level=logging.WARNING)
    app = create_app(LocalBackend(upscaler), SETTINGS)

    async def tasks() -> int:
        return len(asyncio.all_tasks())

    app.get("/tasks")(tasks)
    with running(app) as url:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    serve(Resizer())
