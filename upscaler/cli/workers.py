"""Several processes that serve one address: `upscaler serve --workers N`."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from socket import socket
from typing import Final

from upscaler.cli.output import fail
from upscaler.errors import UpscalerError
from upscaler.settings import Settings

Serve = Callable[[Settings, list[socket]], int]
"""Serves in one process until that is told to stop, and returns its exit status."""

LOOK_S: Final = 0.2
"""How often it is seen whether a process has ended."""
STOPS: Final = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger(__name__)


def run(serve: Serve, settings: Settings, listeners: list[socket], count: int) -> int:
    """Serve in `count` processes until this one is told to stop; return the exit status.

    One that is killed is replaced; one that fails ends all, since others would fail alike. The
    kernel gives each connection to one of them.
    """
    # A thread of torch's for each core in each of them would be far slower than a share of them.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    stopping = threading.Event()
    for each in STOPS:
        signal.signal(each, lambda *_: stopping.set())
    context = multiprocessing.get_context("spawn")

    def start() -> SpawnProcess:
        process = context.Process(target=_work, args=(serve, settings, listeners))
        process.start()
        return process

    processes = [start() for _ in range(count)]
    status = 0
    while not stopping.wait(LOOK_S):
        for number, process in enumerate(processes):
            if process.exitcode is None:
                continue
            if process.exitcode >= 0:
                status = process.exitcode
                stopping.set()
                break
            log.error("a process was ended by signal %d: starting another", -process.exitcode)
            processes[number] = start()
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()
    return status


def _end_with_parent() -> None:
    """Stop this process when the first one has ended, which may have been killed.

    Else it would serve the address for ever, and nobody could start the service there again.
    """
    parent = multiprocessing.parent_process()
    assert parent, "this is one of several"
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _work(serve: Serve, settings: Settings, listeners: list[socket]) -> None:
    # Ctrl-C reaches all processes of a terminal: the first one tells the others to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        status = serve(settings, listeners)
    except UpscalerError as error:  # such as a device that is not there: all would end so
        status = fail(str(error), 1)
    raise SystemExit(status)
