"""What a fault can do to a response on its way: each function wraps an ASGI `send`."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Message, Send

from mock_server.real_time import monotonic
from upscaler.api.headers import OUTPUT_SIZE_HEADER
from upscaler.api.responses import ImageResponse
from upscaler.service.negotiation import JSON

CHUNK_S: Final = 0.05
"""How often a chunk of a throttled body is sent."""
NOT_JSON: Final = b"{'"
"""How a malformed body begins: as Python prints a dict, which no JSON parser accepts."""
NOT_BASE64: Final = b"*"


def halve(send: Send, break_off: Callable[[], Awaitable[None]]) -> Send:
    """Send the first half of the body, call `break_off`, and drop the rest."""
    left_bytes, is_over = 1, False

    async def send_half(message: Message) -> None:
        nonlocal left_bytes, is_over
        if is_over:
            return
        if message["type"] == "http.response.start":
            # At least one byte, so that the client has seen the response begin.
            left_bytes = max(1, int(_header(message, "Content-Length") or 0) // 2)
            await send(message)
            return
        chunk = message.get("body", b"")[:left_bytes]
        left_bytes -= len(chunk)
        is_over = not left_bytes
        # With more_body the server does not complete the response here.
        more_body = is_over or message.get("more_body", False)
        await send({**message, "body": chunk, "more_body": more_body})
        if is_over:
            await break_off()

    return send_half


def throttle(send: Send, rate: float, wait: Callable[[float], Awaitable[None]]) -> Send:
    """Send `rate` bytes of the body a second."""
    began_s, sent_bytes = 0.0, 0

    async def send_slowly(message: Message) -> None:
        nonlocal began_s, sent_bytes
        body = message.get("body", b"")
        began_s = began_s or monotonic()
        step = max(1, int(rate * CHUNK_S))
        for at in range(0, len(body), step):
            chunk = body[at : at + step]
            sent_bytes += len(chunk)
            # By the time since the beginning, so that delays between chunks do not add up.
            await wait(max(0.0, began_s + sent_bytes / rate - monotonic()))
            more_body = at + step < len(body) or message.get("more_body", False)
            await send({**message, "body": chunk, "more_body": more_body})
        if not body:
            await send(message)

    return send_slowly


def corrupt_body(send: Send) -> Send:
    """Overwrite the first bytes of the body, so that it is neither JSON nor an image."""
    is_done = False

    async def send_corrupted(message: Message) -> None:
        nonlocal is_done
        body = message.get("body", b"")
        if len(body) >= len(NOT_JSON) and not is_done:
            is_done = True
            message = {**message, "body": NOT_JSON + body[len(NOT_JSON) :]}
        await send(message)

    return send_corrupted


def corrupt_base64(send: Send) -> Send:
    """Overwrite the first character of `image_b64` with one that is not in base64."""
    is_pending = False

    async def send_corrupted(message: Message) -> None:
        nonlocal is_pending
        if message["type"] == "http.response.start":
            is_pending = _has_image(message) and _header(message, "Content-Type") == JSON
        elif is_pending:
            is_pending = False
            # `image_b64` is the first member, and its string begins in the first chunk.
            key, quotes, text = message["body"].partition(b'":"')
            message = {**message, "body": key + quotes + NOT_BASE64 + text[1:]}
        await send(message)

    return send_corrupted


def remove_image(send: Send) -> Send:
    """Send the response of an image that was removed for safety (RES-3) in place of an image."""
    is_removed = False

    async def send_without_image(message: Message) -> None:
        nonlocal is_removed
        if message["type"] != "http.response.start":
            if not is_removed:
                await send(message)
            return
        is_removed = _has_image(message)
        if not is_removed:
            await send(message)
            return
        # JSON even for a client that accepts a file, since no file can say this.
        body = ImageResponse(image_b64=None, removed_for_safety=True).model_dump_json().encode()
        headers = [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(body))]
        await send({**message, "headers": [*headers, (b"vary", b"Accept")]})
        await send({"type": "http.response.body", "body": body})

    return send_without_image


CORRUPTIONS: Final[dict[str, Callable[[Send], Send]]] = {
    "malformed": corrupt_body,
    "bad-base64": corrupt_base64,
    "removed-for-safety": remove_image,
}
"""The flags that change the body of a response, and how."""


def _has_image(start: Message) -> bool:
    return start["status"] == HTTPStatus.OK and _header(start, OUTPUT_SIZE_HEADER) is not None


def _header(start: Message, name: str) -> str | None:
    return Headers(raw=start["headers"]).get(name)
