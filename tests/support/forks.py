"""Processes of Python that begin with modules already imported (Linux only).

    forks = Forks("torch")
    process = forks.start(["-c", "import torch; print(torch.__version__)"], stdout=file)
    assert process.wait(60) == 0

Importing torch and the engine takes most of a short run. Here a process without threads imports
them once and forks for each start. What it forks goes on as `python -c SCRIPT` or `python -m
MODULE` does, with the environment of who starts it, in the checkout.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import IO, Final

from tests.support.paths import ROOT

MESSAGE_BYTES: Final = 2**18
ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
"""What libraries read when they are imported. numpy's would have threads, of which a fork has none.
And torch's threads would spin while they wait, beside other tests."""


class Forked:
    """A running process: its id, and later its exit status as in subprocess."""

    def __init__(self, told: IO[str]) -> None:
        self._told = told
        self.pid = int(told.readline())

    def wait(self, timeout_s: float) -> int:
        """The status once it has ended; it is killed if that takes longer."""
        if not select.select([self._told], [], [], timeout_s)[0]:
            os.kill(self.pid, signal.SIGKILL)
        with self._told:
            return int(self._told.readline())


class Forks:
    """Starts processes that have imported `modules`; the first one waits until that is done."""

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._control: socket.socket | None = None

    def start(
        self, arguments: list[str], *, stdout: IO[str], stderr: IO[str], stdin: int = 0
    ) -> Forked:
        """Start what `python` does with these arguments, of which the first is -c or -m."""
        message = json.dumps([arguments, dict(os.environ)]).encode()
        assert len(message) < MESSAGE_BYTES
        reading, writing = os.pipe()
        streams = [stdin, stdout.fileno(), stderr.fileno()]
        socket.send_fds(self._serving(), [message], [*streams, writing])
        os.close(writing)
        return Forked(os.fdopen(reading))

    def _serving(self) -> socket.socket:
        if not self._control:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            server = subprocess.Popen(
                [sys.executable, "-m", __name__, *self._modules],
                stdin=theirs.fileno(),
                cwd=ROOT,
                env=os.environ | ENVIRONMENT,
            )
            theirs.close()
            atexit.register(server.wait)
            atexit.register(self._control.close)
        return self._control


def main(modules: list[str]) -> None:
    """Import the modules and fork for each message, until there is nobody to send one."""
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=0)
    while True:
        message, given, *_ = socket.recv_fds(control, MESSAGE_BYTES, 4)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not message:
            return
        if not os.fork():
            break
        for descriptor in given:
            os.close(descriptor)
    *streams, told = given
    if pid := os.fork():
        _tell(told, pid)
        _tell(told, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)
    os.close(told)
    control.detach()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    _run(*json.loads(message))


def _tell(descriptor: int, number: int) -> None:
    with suppress(BrokenPipeError):
        os.write(descriptor, b"%d\n" % number)


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    """Be a process of Python with these arguments."""
    os.environ.clear()
    os.environ.update(environment)
    way, program, *sys.argv[1:] = arguments
    if way == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.argv[0] = way
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main(sys.argv[1:])
