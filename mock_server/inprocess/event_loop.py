"""An event loop in a thread of its own, for a mock that no server runs."""

import asyncio
import os
import sys
from concurrent.futures import Future
from contextlib import suppress
from threading import Lock, Thread
from typing import Final
from weakref import WeakKeyDictionary, finalize

from mock_server import real_time
from mock_server.mock import Mock

CANNOT_RUN: Final = (
    "the mock's event loop cannot run in a thread of its own, perhaps since threads are patched, "
    "as by gevent: give clients the URL of an upscaler-mock in a process of its own"
)

_lock = Lock()
_loops: WeakKeyDictionary[Mock, asyncio.AbstractEventLoop] = WeakKeyDictionary()
_elsewhere: WeakKeyDictionary[Mock, asyncio.AbstractEventLoop] = WeakKeyDictionary()
"""The loops of the process that this one was forked from, whose threads are not in this one."""


def loop_of(mock: Mock) -> asyncio.AbstractEventLoop:
    """Return the event loop of `mock` in this process, which runs as long as that exists.

    There is only one for each mock: asyncio's locks and events belong to the loop that they were
    first used in, and an app has some. So in a fork the app is a new one, too.
    """
    with _lock:
        if mock not in _loops:
            if _elsewhere.pop(mock, None):
                mock.renew()
            loop, ended, began = EventLoop(), asyncio.Event(), Future[None]()
            # A daemon, so that a mock that still exists does not keep the process from ending.
            work = (loop, ended, began)
            Thread(target=_run, args=work, name="upscaling-mock", daemon=True).start()
            began.result()  # clients would wait for ever for a loop that does not run
            finalize(mock, _end, loop, ended)
            _loops[mock] = loop
        return _loops[mock]


class EventLoop(real_time.EventLoop):
    """A loop that needs no socket of the module `socket`, in suites that allow none.

    pytest-socket and tests themselves replace that class. asyncio takes two, by which other threads
    wake a loop.
    """

    if sys.platform != "win32":

        def _make_self_pipe(self) -> None:
            import _socket  # noqa: PLC0415  only here

            self._ssock, self._csock = _socket.socketpair()
            for each in (self._ssock, self._csock):
                each.setblocking(False)
            self._internal_fds: int = self._internal_fds + 1
            self._add_reader(self._ssock.fileno(), self._read_from_self)  # type: ignore[attr-defined]


def _run(loop: asyncio.AbstractEventLoop, ended: asyncio.Event, began: Future[None]) -> None:
    async def run_until_ended() -> None:
        began.set_result(None)
        await ended.wait()

    running = run_until_ended()
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(running)
    except RuntimeError as error:
        running.close()
        if began.done():
            raise
        began.set_exception(RuntimeError(f"{CANNOT_RUN} ({error})"))


def _end(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """Tell a loop to end, without waiting: the garbage collector calls this at any point."""
    with suppress(RuntimeError):  # it is closed already
        loop.call_soon_threadsafe(ended.set)


def _forget_loops() -> None:
    """Leave the loops behind; the lock as well, which another thread may have held."""
    global _lock, _loops  # noqa: PLW0603  of a process that has just begun
    _lock = Lock()
    _elsewhere.update(_loops)
    _loops = WeakKeyDictionary()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_loops)
