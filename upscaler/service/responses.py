"""Pictures and errors as HTTP responses."""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

import pybase64
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from upscaler.api.headers import (
    COST_HEADER,
    INPUT_SIZE_HEADER,
    MODEL_HEADER,
    OUTPUT_SIZE_HEADER,
    WEIGHTS_HEADER,
)
from upscaler.api.responses import ImageResponse
from upscaler.api.sizes import Size
from upscaler.errors import UpscalerError, release_frames
from upscaler.service.backend import WORK_STAGES, UpscaleResult
from upscaler.service.negotiation import JSON, MEDIA_TYPES

BEAT_S: Final = 15.0
"""How often something is sent of an answer that has begun: OctoAI's client waits 60 s for it."""
SENT_BYTES: Final = 2**20
"""About how many bytes of an answer are sent at one go."""
VARY: Final = {"Vary": "Accept"}


def in_pixels(size: Size) -> str:
    """A size as headers and logs have it: 608x512."""
    return f"{size[0]}x{size[1]}"


def image_response(made: UpscaleResult, price_per_second: Decimal | None) -> Response:
    """The answer that holds a picture: JSON (RES-1) or the file itself (RES-8)."""
    headers = {
        **VARY,
        "Server-Timing": ", ".join(f"{k};dur={1000 * v:.1f}" for k, v in made.seconds.items()),
        INPUT_SIZE_HEADER: in_pixels(made.input_size),
        OUTPUT_SIZE_HEADER: in_pixels(made.size),
        MODEL_HEADER: made.model,
        WEIGHTS_HEADER: made.weights_sha256,
    }
    if price_per_second is not None:
        headers[COST_HEADER] = f"{cost_usd(made, price_per_second):.8f}"
    if made.as_file:
        headers["Content-Length"] = str(made.file_bytes)
        return StreamingResponse(_sent(made.file), 200, headers, MEDIA_TYPES[made.encoding])
    headers["Content-Length"] = str(json_bytes(made.file_bytes))
    return StreamingResponse(_sent(in_json(made.file)), 200, headers, JSON)


class KeepAliveJSONResponse(StreamingResponse):
    """The answer in JSON to a request whose picture is still being made.

    Until it is there, spaces come, which may stand before any JSON (RFC 8259, 2). What fails now
    can have no status any more: the connection is cut off, and no client takes that for an answer.
    """

    def __init__(
        self, making: asyncio.Future[UpscaleResult], on_made: Callable[[UpscaleResult], None]
    ) -> None:
        """Answer with what comes of `making`, which is given up if the client goes."""
        super().__init__(self._pieces(), 200, VARY, JSON)
        self._making = making
        self._on_made = on_made

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except Exception as error:
            error.__context__ = None  # Starlette's group of tasks, which has the error as well
            release_frames(error)
            raise
        finally:
            await cancel_and_wait(self._making)
            del self._making

    async def _pieces(self) -> AsyncIterator[bytes]:
        while not self._making.done():
            yield b" "
            await asyncio.wait({self._making}, timeout=BEAT_S)
        made = self._making.result()
        self._on_made(made)
        async for piece in _sent(in_json(made.file)):
            yield piece


async def cancel_and_wait(making: asyncio.Future[Any]) -> None:
    """Cancel what is being made, unless it is done, and wait until it has ended."""
    making.cancel()
    await asyncio.gather(making, return_exceptions=True)
    with suppress(asyncio.CancelledError):  # which is taken out of it by this, and held no longer
        making.exception()


def cost_usd(made: UpscaleResult, price_per_second: Decimal) -> Decimal:
    """What the time cost in which the machine worked for this picture: no waiting, no download."""
    return price_per_second * Decimal(sum(made.seconds[stage] for stage in WORK_STAGES))


def in_json(file: Iterable[bytes]) -> Generator[bytes, None, None]:
    """The pieces of the answer (RES-1 to RES-3) that holds `file`; nothing is ever withheld."""
    before, after = _around()
    ready, rest = before, b""
    for piece in file:
        data = rest + piece
        whole = len(data) - len(data) % 3  # three bytes are four characters; padding ends a text
        yield ready + pybase64.b64encode(memoryview(data)[:whole])
        ready, rest = b"", data[whole:]
    yield ready + pybase64.b64encode(rest) + after


def json_bytes(file_bytes: int) -> int:
    """How long the answer is that holds a file of so many bytes."""
    before, after = _around()
    return len(before) + 4 * -(-file_bytes // 3) + len(after)


def _around() -> tuple[bytes, bytes]:
    """What stands before and behind the file's base64 in an answer."""
    answer = ImageResponse(image_b64="", removed_for_safety=False).model_dump_json()
    before, after = answer.encode().split(b'""')
    return before + b'"', b'"' + after


def error(fault: UpscalerError) -> Response:
    """The answer to an error that was raised on purpose (RES-4, RES-7)."""
    return JSONResponse({"detail": fault.detail}, fault.status, fault.headers)


async def _sent(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """The pieces as they are sent. Base64 of one takes less time than going to a thread and back.

    Starlette takes a thread for each piece of what is no asynchronous iterator. Small pieces go
    together: what each has to pass on its way takes as long as some hundred thousand bytes do.
    """
    waiting: list[bytes] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) >= SENT_BYTES:
            yield b"".join(waiting)
            waiting.clear()
    if waiting:
        yield b"".join(waiting)
