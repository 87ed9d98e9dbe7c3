"""An event loop in a thread of its own, for a mock that no server runs."""

import asyncio
import os
from contextlib import suppress
from threading import Lock, Thread
from weakref import WeakKeyDictionary, finalize

from mock_server.mock import Mock
from mock_server.real_time import EventLoop

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
            loop, ended = EventLoop(), asyncio.Event()
            # A daemon, so that a mock that still exists does not keep the process from ending.
            Thread(target=_run, args=(loop, ended), name="upscaling-mock", daemon=True).start()
            finalize(mock, _end, loop, ended)
            _loops[mock] = loop
        return _loops[mock]


def _run(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    async def run_until_ended() -> None:
        await ended.wait()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run_until_ended())


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
