"""An event loop in a thread of its own, for whatever is run without a server."""

import asyncio
from contextlib import suppress
from threading import Lock, Thread
from typing import Final
from weakref import WeakKeyDictionary, finalize

_lock: Final = Lock()
_loops: Final[WeakKeyDictionary[object, asyncio.AbstractEventLoop]] = WeakKeyDictionary()


def loop_of(owner: object) -> asyncio.AbstractEventLoop:
    """The loop that belongs to `owner`, the same one as long as that is there.

    Never two: what an app waits with belongs to the loop that it has waited in before.
    """
    with _lock:
        if owner not in _loops:
            loop, ended = asyncio.new_event_loop(), asyncio.Event()
            Thread(target=_run, args=(loop, ended), name="upscaling-mock", daemon=True).start()
            finalize(owner, _end, loop, ended)
            _loops[owner] = loop
        return _loops[owner]


def _run(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(_until(ended))


async def _until(ended: asyncio.Event) -> None:
    await ended.wait()


def _end(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """Let a loop come to its end, in its own time: who calls this may hold any lock."""
    with suppress(RuntimeError):  # it has been closed
        loop.call_soon_threadsafe(ended.set)
