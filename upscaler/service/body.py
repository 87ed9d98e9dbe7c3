"""From an HTTP request to what it asks for: the token, the body, and the headers that matter."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

import anyio
import mimeparse
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from upscaler.api.request import AUTHORISED, check_body_size
from upscaler.errors import FieldError, InvalidRequest, NotAcceptable, RequestTimeout, Unauthorized
from upscaler.formats import ImageEncoding
from upscaler.service.queue import MemoryReservation

BODY_DEADLINE_S: Final = 120.0
"""How long a body may take to arrive: the largest one in this time is a line of 2 Mbit/s."""
BODY_GRACE_S: Final = 20.0
BODY_BYTES_PER_S: Final = 16_000
"""Nor may it come more slowly than this on average, but for some seconds in which a line may stand
still: those that only say that they will send something are not waited for. The slowest lines that
phones have send twice as much."""
JSON: Final = "application/json"
MEDIA_TYPES: Final = {encoding: f"image/{encoding}" for encoding in ImageEncoding}


def require_token(tokens: tuple[str, ...]) -> Callable[..., Awaitable[None]]:
    """A dependency that lets only requests with one of `tokens` pass, or raises Unauthorized."""
    accepted = [token.encode() for token in tokens]
    bearer = HTTPBearer(auto_error=False, description="One of the tokens in UPSCALER_TOKEN.")

    async def check(
        request: Request,
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> None:
        # Header text is latin-1 by the time it comes here; every token is compared, so that the
        # time taken does not tell which one was nearly right.
        offered = given.credentials.encode("latin-1") if given else b""
        matches = [hmac.compare_digest(offered, token) for token in accepted]
        if not any(matches):
            raise Unauthorized("send a valid token in the header: Authorization: Bearer TOKEN")
        setattr(request.state, AUTHORISED, True)

    return check


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
            f"the body came too slowly: send {BODY_BYTES_PER_S // 1000} kB a second on average, "
            f"after the first {BODY_GRACE_S:.0f} seconds, and all of it in {BODY_DEADLINE_S:.0f}"
        )
    media_type = request.headers.get("Content-Type", "").partition(";")[0]
    if media_type.strip().lower() != JSON:
        msg = f"send the header Content-Type: {JSON}"
        raise InvalidRequest(FieldError(("header", "Content-Type"), msg, "content_type"))
    return body


def negotiate(accept: str, asked: ImageEncoding) -> ImageEncoding | None:
    """Which kind of file a client wants that sends this Accept header, or None for JSON (RES-8).

    The one it likes best, by RFC 9110, 12.5.1; of those that it likes equally, the one that it
    names most exactly, and then JSON before a file, and one as `asked` in the body before another.
    No header, an empty one, as OctoAI's client for JavaScript sends it, and one that cannot be
    read all stand for JSON. Raises NotAcceptable if it likes none of them.
    """
    if not accept.strip(" ,"):
        return None
    likes = sorted(MEDIA_TYPES, key=lambda encoding: encoding is asked)
    try:
        best = mimeparse.best_match([*map(MEDIA_TYPES.__getitem__, likes), JSON], accept.lower())
    except mimeparse.MimeTypeParseException:
        return None
    if not best:
        offered = ", ".join([JSON, *MEDIA_TYPES.values()])
        raise NotAcceptable(f"an answer can be one of {offered}: accept one of them")
    return next((encoding for encoding in likes if MEDIA_TYPES[encoding] == best), None)
