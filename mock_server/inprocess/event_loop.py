"""An event loop in a thread of its own, for a mock that no server runs."""

import asyncio
from contextlib import suppress
from threading import Lock, Thread
from typing import Final
from weakref import WeakKeyDictionary, finalize

_lock: Final = Lock()
_loops: Final[WeakKeyDictionary[object, asyncio.AbstractEventLoop]] = WeakKeyDictionary()


def loop_of(owner: object) -> asyncio.AbstractEventLoop:
    """Return the event loop of `owner`, which runs as long as that exists.

    There is only one for each owner: asyncio's locks and events belong to the loop that they were
    first used in, and an app has some.
    """
    with _lock:
        if owner not in _loops:
            loop, ended = asyncio.new_event_loop(), asyncio.Event()
            # A daemon, so that a mock that still exists does not keep the process from ending.
            Thread(target=_run, args=(loop, ended), name="upscaling-mock", daemon=True).start()
            finalize(owner, _end, loop, ended)
            _loops[owner] = loop
        return _loops[owner]


def _run(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    async def run_until_ended() -> None:
        await ended.wait()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run_until_ended())


def _end(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """Tell a loop to end, without waiting: the garbage collector calls this at any point."""
    with suppress(RuntimeError):  # it is closed already
        loop.call_soon_threadsafe(ended.set)
