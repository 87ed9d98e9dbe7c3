"""Reading the body of a request: JSON, no further than it may be long, and no slower."""

from typing import Final

import anyio
from fastapi import Request

from upscaler.api.limits import check_body_size
from upscaler.errors import FieldError, InvalidRequest, RequestTimeout
from upscaler.service.negotiation import JSON
from upscaler.service.queue import MemoryReservation

BODY_DEADLINE_S: Final = 120.0
"""How long a body may take to arrive: the largest one in this time is a line of 2 Mbit/s."""
BODY_GRACE_S: Final = 20.0
BODY_BYTES_PER_S: Final = 16_000
"""Nor may it come more slowly than this on average, but for some seconds in which a line may stand
still: those that only say that they will send something are not waited for. The slowest lines that
phones have send twice as much."""


async def read_json_body(
    request: Request, memory: MemoryReservation, *, asynchronous: bool
) -> bytearray:
    """The body, if it is said to be JSON (REQ-3), read no further than it may be long.

    `memory` is told of it as it comes, and of nothing that is only promised. Raises BodyTooLarge,
    RequestTimeout, Busy if there is no memory for it, and InvalidRequest for another content type.
    """
    declared = request.headers.get("Content-Length", "")
    check_body_size(int(declared[:20]) if declared.isdecimal() else 0, asynchronous=asynchronous)
    body = bytearray()
    began_s = anyio.current_time()
    with anyio.move_on_after(min(BODY_GRACE_S, BODY_DEADLINE_S)) as waiting:
        async for chunk in request.stream():
            body += chunk
            check_body_size(len(body), asynchronous=asynchronous)
            memory.reserve(len(body))
            patience_s = BODY_GRACE_S + len(body) / BODY_BYTES_PER_S
            waiting.deadline = began_s + min(patience_s, BODY_DEADLINE_S)
    if waiting.cancelled_caught:
        raise RequestTimeout(
            f"the body arrived too slowly: send {BODY_BYTES_PER_S // 1000} kB a second on average, "
            f"after the first {BODY_GRACE_S:.0f} seconds, and all of it in {BODY_DEADLINE_S:.0f}"
        )
    media_type = request.headers.get("Content-Type", "").partition(";")[0]
    if media_type.strip().lower() != JSON:
        msg = f"send the header Content-Type: {JSON}"
        raise InvalidRequest(FieldError(("header", "Content-Type"), msg, "content_type"))
    return body
