"""What can be done to an answer on its way: each makes of an ASGI `send` another one."""

import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Message, Send

from upscaler.api.headers import OUTPUT_SIZE_HEADER
from upscaler.api.responses import ImageResponse
from upscaler.service.negotiation import JSON

PIECE_S: Final = 0.05
"""How often a piece of a dripping answer comes."""
SPOILT: Final = b"{'"
"""How a malformed answer begins: as what Python prints of a dict, which no parser of JSON takes."""
NOT_BASE64: Final = b"*"


def halved(send: Send, break_off: Callable[[], Awaitable[None]]) -> Send:
    """`send` up to the middle of the body, and then `break_off`."""
    left, over = 1, False

    async def halving(message: Message) -> None:
        nonlocal left, over
        if over:
            return
        if message["type"] == "http.response.start":
            left = max(1, int(_header(message, "Content-Length") or 0) // 2)
            await send(message)
            return
        part = message.get("body", b"")[:left]
        left -= len(part)
        over = not left
        await send({**message, "body": part, "more_body": over or message.get("more_body", False)})
        if over:
            await break_off()

    return halving


def dripped(send: Send, rate: float, wait: Callable[[float], Awaitable[None]]) -> Send:
    """`send` so many bytes of the body a second."""
    began_s, sent_bytes = 0.0, 0

    async def dripping(message: Message) -> None:
        nonlocal began_s, sent_bytes
        body = message.get("body", b"")
        began_s = began_s or time.monotonic()
        step = max(1, int(rate * PIECE_S))
        for at in range(0, len(body), step):
            part = body[at : at + step]
            sent_bytes += len(part)
            await wait(max(0.0, began_s + sent_bytes / rate - time.monotonic()))
            more = at + step < len(body) or message.get("more_body", False)
            await send({**message, "body": part, "more_body": more})
        if not body:
            await send(message)

    return dripping


def _malformed(send: Send) -> Send:
    """`send` with another beginning of the body."""
    begun = False

    async def spoiling(message: Message) -> None:
        nonlocal begun
        body = message.get("body", b"")
        if len(body) >= len(SPOILT) and not begun:
            begun = True
            message = {**message, "body": SPOILT + body[len(SPOILT) :]}
        await send(message)

    return spoiling


def _bad_base64(send: Send) -> Send:
    """`send` with a wrong character at the beginning of a picture in JSON."""
    ahead = False

    async def spoiling(message: Message) -> None:
        nonlocal ahead
        if message["type"] == "http.response.start":
            ahead = _has_picture(message) and _header(message, "Content-Type") == JSON
        elif ahead:
            ahead = False
            before, quotes, text = message["body"].partition(b'":"')
            message = {**message, "body": before + quotes + NOT_BASE64 + text[1:]}
        await send(message)

    return spoiling


def _removed(send: Send) -> Send:
    """`send` with nothing in place of a picture."""
    removed = False

    async def removing(message: Message) -> None:
        nonlocal removed
        if message["type"] != "http.response.start":
            if not removed:
                await send(message)
            return
        removed = _has_picture(message)
        if not removed:
            await send(message)
            return
        body = ImageResponse(image_b64=None, removed_for_safety=True).model_dump_json().encode()
        headers = [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(body))]
        await send({**message, "headers": [*headers, (b"vary", b"Accept")]})
        await send({"type": "http.response.body", "body": body})

    return removing


SPOILS: Final[dict[str, Callable[[Send], Send]]] = {
    "malformed": _malformed,
    "bad-base64": _bad_base64,
    "removed-for-safety": _removed,
}
"""What changes the bodies of answers."""


def _has_picture(start: Message) -> bool:
    return start["status"] == HTTPStatus.OK and _header(start, OUTPUT_SIZE_HEADER) is not None


def _header(start: Message, name: str) -> str | None:
    return Headers(raw=start["headers"]).get(name)
