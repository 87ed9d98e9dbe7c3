"""Reads the body of a request, which must be JSON, within limits of size and time."""

from typing import Final

import anyio
from anyio import from_thread, to_thread
from fastapi import Request

from upscaler.api.limits import check_body_size
from upscaler.errors import FieldError, InvalidRequest, RequestTimeout
from upscaler.service.coding import coding_of, decode_body
from upscaler.service.negotiation import JSON
from upscaler.service.queue import MemoryReservation

BODY_DEADLINE_S: Final = 120.0
"""How long a body may take to arrive: at 2 Mbit/s the largest one takes this long."""
BODY_GRACE_S: Final = 20.0
BODY_BYTES_PER_S: Final = 16_000
"""The slowest average rate of a body, after a grace period in which a connection may stall. Without
it a client that announces a body and sends nothing would be waited for until the deadline. The
slowest mobile connections are twice as fast."""


async def read_json_body(
    request: Request,
    memory: MemoryReservation,
    limiter: anyio.CapacityLimiter,
    *,
    asynchronous: bool,
) -> bytearray:
    """Return the body, decoded from its Content-Encoding, in a thread of `limiter`; not yet parsed.

    `memory` is reserved for bytes as they arrive, not by Content-Length: clients that only announce
    bodies would otherwise reserve all of it. Raises BodyTooLarge, also for what it decodes to,
    RequestTimeout, Busy if there is no memory, InvalidRequest for a content type other than JSON
    (REQ-3) or a body that is not in its coding, and UnsupportedCoding.
    """
    # A number of any length is valid here, and Python refuses to parse one of 4,301 digits.
    declared = request.headers.get("Content-Length", "")
    check_body_size(int(declared[:20]) if declared.isdecimal() else 0, asynchronous=asynchronous)
    body = bytearray()
    began_s = anyio.current_time()
    with anyio.move_on_after(min(BODY_GRACE_S, BODY_DEADLINE_S)) as scope:
        async for chunk in request.stream():
            body += chunk
            check_body_size(len(body), asynchronous=asynchronous)
            memory.reserve(len(body))
            limit_s = BODY_GRACE_S + len(body) / BODY_BYTES_PER_S
            scope.deadline = began_s + min(limit_s, BODY_DEADLINE_S)
    if scope.cancelled_caught:
        raise RequestTimeout(
            f"the body arrived too slowly: send {BODY_BYTES_PER_S // 1000} kB a second on average, "
            f"after the first {BODY_GRACE_S:.0f} seconds, and all of it in {BODY_DEADLINE_S:.0f}"
        )
    # Only now, since a body that is too large is reported first (REQ-19).
    media_type = request.headers.get("Content-Type", "").partition(";")[0]
    if media_type.strip().lower() != JSON:
        msg = f"send the header Content-Type: {JSON}"
        raise InvalidRequest(FieldError(("header", "Content-Type"), msg, "content_type"))
    coding = coding_of(request.headers)
    if coding is None:
        return body

    def check_size(decoded_bytes: int) -> None:
        check_body_size(decoded_bytes, asynchronous=asynchronous)
        from_thread.run_sync(memory.reserve, len(body) + decoded_bytes)

    decoded = await to_thread.run_sync(decode_body, body, coding, check_size, limiter=limiter)
    memory.set(len(decoded))
    return decoded
