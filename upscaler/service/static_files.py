"""Files for browsers, as they are answered: under a policy, by their ETag, and part by part."""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from functools import cache
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

HTML: Final = "text/html; charset=utf-8"
SCRIPT: Final = "text/javascript; charset=utf-8"
STYLE: Final = "text/css; charset=utf-8"

POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
"""The Content-Security-Policy of every page: what it may load and do, and where it may be shown."""
PART_BYTES: Final = 64 * 2**10
"""So much of a file is handed on at a time. Before Python 3.12 asyncio copies what it cannot send
yet: all of the file for each client that takes nothing, and no client needs a token."""


def headers(policy: Mapping[str, str]) -> dict[str, str]:
    """What is said of every file of a page, whose policy is this one."""
    return {
        "Content-Security-Policy": "; ".join(f"{what} {from_}" for what, from_ in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        # Ask every time: after an upgrade the old page would talk to the new service.
        "Cache-Control": "no-cache",
    }


def serve(
    router: APIRouter,
    path: str,
    read: Callable[[], bytes],
    media_type: str,
    headers: Mapping[str, str],
) -> None:
    """Answer GET and HEAD of `path` with what `read` gives, or 304 to who has it already.

    It is read once, when it is asked for first.
    """

    @cache
    def known() -> tuple[bytes, str]:
        content = read()
        return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'

    async def answer(request: Request) -> Response:
        content, etag = known()
        more = {**headers, "ETag": etag}
        # The header may be a list, and a proxy may have marked each tag as weak: W/"...".
        if etag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=more)
        more["Content-Length"] = str(len(content))
        return StreamingResponse(_parts(content), headers=more, media_type=media_type)

    router.add_api_route(path, answer, methods=["GET", "HEAD"])


async def _parts(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), PART_BYTES):
        yield content[start : start + PART_BYTES]
