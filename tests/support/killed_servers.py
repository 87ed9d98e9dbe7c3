"""Services on one folder, each in a process that can be killed and is quickly there again.

    python -m tests.support.killed_servers FOLDER

forks one for each line of its standard input, and prints its process's id and its URL. So what they
import is imported once, and a start takes some milliseconds.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT
from tests.support.service import SETTINGS, Resizer
from upscaler.api.sizes import Size
from upscaler.imaging.pixels import Pixels
from upscaler.models import UpscalingModel
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend, Progress
from upscaler.service.jobs.disk import DiskJobStore
from upscaler.service.server.connection import server

WORK_S: Final = 0.02
"""How long a picture takes."""


class Working(Resizer):
    """Takes a moment for a picture, so that a job is at work now and then."""

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        time.sleep(WORK_S)
        yield from super().upscale(pixels, model, size, progress)


def serve(folder: Path, port: socket.socket) -> None:
    app = create_app(LocalBackend(Working()), SETTINGS, DiskJobStore(folder, 2**30))
    server(app, "127.0.0.1", 0).run(sockets=[port])


def main(folder: Path) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies of those that are killed
    for _ in sys.stdin:
        # Bound here, so that a client can connect as soon as it knows the URL.
        listener = socket.create_server(("127.0.0.1", 0))
        pid = os.fork()
        if pid == 0:
            serve(folder, listener)
            os._exit(0)
        print(pid, f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201  it is the output
        listener.close()


@dataclass(frozen=True)
class Server:
    pid: int
    url: str

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class Servers:
    """Starts services on one folder."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.started: list[Server] = []

    def start(self) -> Server:
        assert self._process.stdin
        assert self._process.stdout
        print(file=self._process.stdin, flush=True)
        pid, url = self._process.stdout.readline().split()
        self.started.append(Server(int(pid), url))
        return self.started[-1]


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Services on `folder`; those that are left at the end are killed, too."""
    command = [sys.executable, "-m", __name__, str(folder)]
    with (
        (folder / "said").open("w") as said,
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
        ) as process,
    ):
        started = Servers(process)
        try:
            yield started
        finally:
            for each in started.started:
                try:
                    each.kill()
                except ProcessLookupError:  # killed before
                    continue
            process.kill()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
