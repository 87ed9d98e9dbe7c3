"""Serves files to browsers, with a Content-Security-Policy and an ETag."""

import hashlib
import html
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
"""How much of a file is sent at a time. Before Python 3.12 asyncio copies what it cannot send yet:
for each client that reads nothing it would copy the whole file, and these files need no token."""


def headers(policy: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of every file of a page with this policy."""
    return {
        "Content-Security-Policy": "; ".join(f"{what} {from_}" for what, from_ in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        # Revalidate every time: after an upgrade, a cached page would talk to the new service.
        "Cache-Control": "no-cache",
    }


def with_notice(page: bytes, notice: str) -> bytes:
    """Return an HTML page with a sentence at its top; as it is if that is empty.

    Its style is a file of its own, since the policy lets no page have any within it.
    """
    if not notice:
        return page
    style = '<link rel="stylesheet" href="page/notice.css">'
    line = f'{style}<p class="notice" role="note">{html.escape(notice)}</p>'
    return page.replace(b"<body>\n", f"<body>\n{line}\n".encode(), 1)


def serve(
    router: APIRouter,
    path: str,
    read: Callable[[], bytes],
    media_type: str,
    headers: Mapping[str, str],
) -> None:
    """Add a route for GET and HEAD of `path`, which responds with the bytes that `read` returns.

    `read` is called once, at the first request. A client that has the file already gets a 304.
    """

    @cache
    def known() -> tuple[bytes, str]:
        content = read()
        return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'

    async def respond(request: Request) -> Response:
        content, etag = known()
        more = {**headers, "ETag": etag}
        # The header may be a list, and a proxy may have marked each tag as weak: W/"...".
        if etag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=more)
        more["Content-Length"] = str(len(content))
        return StreamingResponse(_parts(content), headers=more, media_type=media_type)

    router.add_api_route(path, respond, methods=["GET", "HEAD"])


async def _parts(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), PART_BYTES):
        yield content[start : start + PART_BYTES]
