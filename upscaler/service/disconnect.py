"""Waits for work, and cancels it when the client disconnects."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from upscaler.errors import release_frames
from upscaler.service.backend import UpscaleResult
from upscaler.service.responses import cancel_and_wait

Result = TypeVar("Result")

GOES_ON: Final = "goes_on"
"""The key of a request's state that is True if the work goes on without its client, and even in the
next process: a server that is to stop does not wait for it."""


async def wait_done(running: asyncio.Future[UpscaleResult], seconds: float | None) -> bool:
    """Return whether `running` is done within the time; None is no limit.

    A cancellation of this cancels `running` as well: `asyncio.wait` itself would leave it running.
    """
    try:
        await asyncio.wait({running}, timeout=seconds)
    except asyncio.CancelledError:
        await cancel_and_wait(running)
        raise
    return running.done()


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`; raises ClientDisconnect if the client disconnects before.

    The body of the request must have been read, since this reads its further messages. `work` has
    ended in either case.
    """

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():  # else it counts, even if the client disconnected as well
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        for outcome in await asyncio.gather(working, leaving, return_exceptions=True):
            if isinstance(outcome, BaseException):
                release_frames(outcome)
        # A reference cycle otherwise: their errors have this frame in their tracebacks.
        del working, leaving
