"""Images and errors as HTTP responses."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

import pybase64
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from upscaler.api.headers import (
    COST_HEADER,
    FACES_HEADER,
    IGNORED_HEADER,
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
"""How often a BEAT is sent while the image is not done. OctoAI's client gives up after 60 s."""
BEAT: Final = b" " * 2**14
"""A proxy that collects a response before it passes it on would hold a single space for long."""
SENT_BYTES: Final = 2**20
"""About how many bytes of a response are sent at a time."""
VARY: Final = {"Vary": "Accept"}
"""For caches: whether the response is JSON or a file depends on the Accept header."""


def in_pixels(size: Size) -> str:
    """Format a size for headers and logs, such as 608x512."""
    return f"{size[0]}x{size[1]}"


async def image_response(result: UpscaleResult, price_per_second: Decimal | None) -> Response:
    """Return the response with an image: JSON (RES-1) or the file itself (RES-8).

    `price_per_second` is in dollars; without it the response states no cost. Raises the errors of a
    body that is stored elsewhere.
    """
    headers = {
        **VARY,
        "Server-Timing": ", ".join(f"{k};dur={1000 * v:.1f}" for k, v in result.seconds.items()),
        INPUT_SIZE_HEADER: in_pixels(result.input_size),
        OUTPUT_SIZE_HEADER: in_pixels(result.size),
        MODEL_HEADER: result.model,
        WEIGHTS_HEADER: result.weights_sha256,
    }
    if result.faces is not None:
        headers[FACES_HEADER] = str(result.faces)
    if result.ignored:
        headers[IGNORED_HEADER] = ", ".join(result.ignored)
    if price_per_second is not None:
        headers[COST_HEADER] = f"{cost_usd(result, price_per_second):.8f}"
    headers["Content-Length"] = str(body_bytes(result))
    return StreamingResponse(await begun(body(result)), 200, headers, media_type(result))


def record(request: Request, result: UpscaleResult) -> None:
    """Count the memory of a result until it is sent, and add its facts to the log line."""
    memory = request.state.memory
    memory.set_result(result.held_bytes)
    memory.set(0 if result.held_bytes else result.file_bytes)
    request.state.facts |= {
        "model": result.model.value,
        "input": in_pixels(result.input_size),
        "output": in_pixels(result.size),
        "stages": {stage: round(seconds, 4) for stage, seconds in result.seconds.items()},
    }
    if result.faces is not None:
        request.state.facts["faces"] = result.faces
    if result.ignored:
        request.state.facts["ignored"] = ", ".join(result.ignored)


def redirect(url: str) -> Response:
    """Return the response that sends a client to where its result is."""
    # The URL is a secret, and is valid for a while only.
    return RedirectResponse(url, 307, {"Cache-Control": "no-store", "Vary": "Accept, User-Agent"})


def body(result: UpscaleResult) -> AsyncIterator[bytes]:
    """The body of the response with an image, in pieces."""
    if result.stored:
        return result.stored.pieces()
    return _merged(result.file if result.as_file else in_json(result.file))


def body_bytes(result: UpscaleResult) -> int:
    """The length of that body."""
    if result.stored:
        return result.stored.size_bytes
    return result.file_bytes if result.as_file else json_bytes(result.file_bytes)


def media_type(result: UpscaleResult) -> str:
    """The media type of that body."""
    return MEDIA_TYPES[result.encoding] if result.as_file else JSON


class KeepAliveJSONResponse(StreamingResponse):
    """The JSON response to a request whose job is still running.

    It begins with spaces, which may precede any JSON (RFC 8259, 2), until the job is done. If the
    job fails then, the status can no longer say so: an object that has the error is begun, and the
    connection is closed before its end. So no client takes it for a valid response, not even behind
    a proxy that ends it as if all were there.
    """

    def __init__(
        self, running: asyncio.Future[UpscaleResult], on_result: Callable[[UpscaleResult], None]
    ) -> None:
        """Respond with the result of `running`, which is cancelled if the client disconnects."""
        super().__init__(self._spaces_then_json(), 200, VARY, JSON)
        self._running = running
        self._on_result = on_result

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except Exception as error:
            error.__context__ = None  # the exception group of Starlette's task group, with `error`
            release_frames(error)
            raise
        finally:
            await cancel_and_wait(self._running)
            # The future holds its error, whose traceback holds this frame, and so `self`.
            del self._running

    async def _spaces_then_json(self) -> AsyncIterator[bytes]:
        while not self._running.done():
            yield BEAT
            await asyncio.wait({self._running}, timeout=BEAT_S)
        try:
            result = self._running.result()
            self._on_result(result)
            pieces = await begun(body(result))
        except Exception as error:
            yield _unfinished(error)
            raise
        async for piece in pieces:
            yield piece


def _unfinished(error: Exception) -> bytes:
    """The status and detail of an error as JSON, which lacks its end and so cannot be parsed.

    A whole object would be a result for OctoAI's clients: of a 200 they return whatever it has.
    """
    known = error if isinstance(error, UpscalerError) else UpscalerError("Internal Server Error")
    text = json.dumps({"status": known.status, "detail": known.detail})
    return text.removesuffix("}").encode()


async def cancel_and_wait(running: asyncio.Future[Any]) -> None:
    """Cancel a future, unless it is done, and wait until it has ended."""
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    # A cancelled future holds its CancelledError, with the frames in its traceback, until it is
    # asked for.
    with suppress(asyncio.CancelledError):
        running.exception()


def cost_usd(result: UpscaleResult, price_per_second: Decimal) -> Decimal:
    """The cost in dollars of the time that the machine worked, without queue and download."""
    return price_per_second * Decimal(sum(result.seconds[stage] for stage in WORK_STAGES))


def in_json(file: Iterable[bytes]) -> Generator[bytes, None, None]:
    """Yield the JSON response (RES-1 to RES-3) with `file`, in pieces.

    `removed_for_safety` is always false: nothing is withheld.
    """
    before, after = _json_envelope()
    ready, rest = before, b""
    for piece in file:
        data = rest + piece
        # Three bytes are four characters of base64; padding may only stand at the end.
        whole = len(data) - len(data) % 3
        yield ready + pybase64.b64encode(memoryview(data)[:whole])
        ready, rest = b"", data[whole:]
    yield ready + pybase64.b64encode(rest) + after


def json_bytes(file_bytes: int) -> int:
    """The length of the JSON response with a file of so many bytes."""
    before, after = _json_envelope()
    return len(before) + 4 * -(-file_bytes // 3) + len(after)


def _json_envelope() -> tuple[bytes, bytes]:
    """The JSON before and after the base64 of the file."""
    response = ImageResponse(image_b64="", removed_for_safety=False).model_dump_json()
    before, after = response.encode().split(b'""')
    return before + b'"', b'"' + after


def error(fault: UpscalerError) -> Response:
    """Return the response to an error that was raised on purpose (RES-4, RES-7)."""
    return JSONResponse({"detail": fault.detail}, fault.status, fault.headers)


async def _merged(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the same bytes in pieces of about SENT_BYTES.

    Each piece has a fixed cost on its way, as much as sending some hundred thousand bytes. The
    iterator is asynchronous, since Starlette would fetch each piece of any other in a thread, which
    takes longer than its base64.
    """
    waiting: list[bytes] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) >= SENT_BYTES:
            yield b"".join(waiting)
            waiting.clear()
    if waiting:
        yield b"".join(waiting)


async def begun(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same pieces once the first is there: what fails before gets a response of its own."""
    first = await anext(pieces)

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return whole()
