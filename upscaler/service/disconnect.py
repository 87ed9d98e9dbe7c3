"""Waiting for work, and giving it up when the client has gone."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from upscaler.errors import release_frames
from upscaler.service.backend import UpscaleResult
from upscaler.service.responses import cancel_and_wait

Result = TypeVar("Result")


async def wait_done(making: asyncio.Future[UpscaleResult], seconds: float | None) -> bool:
    """Whether it is done in that time. If this is cancelled, it is given up as well."""
    try:
        await asyncio.wait({making}, timeout=seconds)
    except asyncio.CancelledError:
        await cancel_and_wait(making)
        raise
    return making.done()


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns, unless the client hangs up before: then ClientDisconnect is raised.

    The body must have been read. Either way nothing is left running.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        for outcome in await asyncio.gather(working, leaving, return_exceptions=True):
            if isinstance(outcome, BaseException):
                release_frames(outcome)
        del working, leaving  # whose error has this frame in its traceback
