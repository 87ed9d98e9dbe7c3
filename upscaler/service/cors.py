"""CORS: which pages of other origins may use the API from a browser.

A browser asks before a page's request with a token goes out (a preflight), and lets the page read a
response only if that says so. Programs are not concerned. Tokens come in a header, and there are no
cookies, so that a page can only do what its own token allows.
"""

from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from upscaler.api.headers import (
    COST_HEADER,
    FACES_HEADER,
    IGNORED_HEADER,
    INPUT_SIZE_HEADER,
    MODEL_HEADER,
    OUTPUT_SIZE_HEADER,
    REQUEST_ID_HEADER,
    WEIGHTS_HEADER,
)

METHODS: Final = ("GET", "HEAD", "POST", "DELETE")
EXPOSED: Final = (
    *(REQUEST_ID_HEADER, INPUT_SIZE_HEADER, OUTPUT_SIZE_HEADER, MODEL_HEADER, WEIGHTS_HEADER),
    *(COST_HEADER, FACES_HEADER, IGNORED_HEADER),
    *("Server-Timing", "Retry-After", "WWW-Authenticate", "Allow", "Accept-Encoding"),
)
"""The headers of responses that a page may read, besides those that any page may."""


class CORS(CORSMiddleware):
    """Starlette's middleware, whose refusals have the shape of all other errors (RES-7)."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        reason = bytes(response.body).decode()
        detail = f"{reason}: UPSCALER_CORS_ORIGINS says which pages may use this service"
        headers = {
            name: text for name, text in response.headers.items() if not name.startswith("content-")
        }
        return JSONResponse({"detail": detail}, response.status_code, headers)


def middleware(origins: Collection[str], also_exposed: Collection[str] = ()) -> list[Middleware]:
    """Return the middleware that lets pages of `origins` use the API: none for no origin.

    `origins` are as browsers write them, such as `https://app.example.com`, or `*` for all.
    """
    if not origins:
        return []
    return [
        Middleware(
            CORS,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=["*"],  # any is accepted and ignored (REQ-18), and clients have their own
            expose_headers=[*EXPOSED, *also_exposed],
        )
    ]
