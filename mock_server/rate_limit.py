"""OctoAI's rate limit: so many requests a minute for each token, and beyond that 429 (RES-5)."""

import re
import time
from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Final, NamedTuple

from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mock_server.endpoints import route_of
from upscaler.errors import UpscalerError
from upscaler.service import responses

PLANS: Final = {"free": 10, "pro": 60}
"""Requests a minute, by the plan of OctoAI's customers."""
MINUTE_S: Final = 60.0
POLICY: Final = "a-minute"
"""The name of the limit in the headers."""
POLICY_HEADER: Final = "RateLimit-Policy"
QUOTA_HEADER: Final = "RateLimit"
"""On responses to requests that are counted: the limit, and what is left of it."""


class Quota(NamedTuple):
    """What a token has left of its `requests` a minute; in `reset_s` there is one more."""

    requests: int
    remaining: int
    reset_s: int

    @property
    def headers(self) -> dict[str, str]:
        """The headers of draft-ietf-httpapi-ratelimit-headers, as of its 10th version."""
        return {
            POLICY_HEADER: f'"{POLICY}";q={self.requests};w={MINUTE_S:.0f}',
            QUOTA_HEADER: f'"{POLICY}";r={self.remaining};t={self.reset_s}',
        }


class RateLimited(UpscalerError):
    """A token was used too often within a minute; it can be used again in `retry_after_s`."""

    status = 429

    def __init__(self, quota: Quota) -> None:
        super().__init__(quota)
        self.quota = quota
        self.requests = quota.requests
        self.retry_after_s = quota.reset_s

    def __str__(self) -> str:
        return (
            f"more than {self.requests} requests within a minute: "
            f"try again in {self.retry_after_s} s"
        )

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_s), **self.quota.headers}


def parse_rate(text: str) -> int:
    """Return the requests a minute of free, pro, or a rate such as 5/min; raises ValueError."""
    if text in PLANS:
        return PLANS[text]
    match = re.fullmatch(r"([0-9]{1,6})/min", text, re.ASCII)
    if not match or int(match[1]) == 0:
        raise ValueError("a rate limit is free, pro, or a number of requests such as 5/min")
    return int(match[1])


class SlidingWindow:
    """The requests of each token within the last minute, of which there may be `requests`."""

    def __init__(self, requests: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.requests = requests
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget all requests."""
        self._times: dict[str, deque[float]] = {}

    def count(self, token: str) -> Quota:
        """Count a request, and return what is left; raises RateLimited for one too many.

        That one is not counted.
        """
        now, times = self._clock(), self._times.setdefault(token, deque())
        # At most `requests` times are kept, since refused requests are not counted.
        while times and times[0] + MINUTE_S <= now:
            times.popleft()
        is_full = len(times) >= self.requests
        if not is_full:
            times.append(now)
        # There is one more when the oldest request leaves the window.
        reset_s = ceil(times[0] + MINUTE_S - now)
        quota = Quota(self.requests, self.requests - len(times), reset_s)
        if is_full:
            raise RateLimited(quota)
        return quota


class RateLimitMiddleware:
    """Middleware that limits the rate of requests for upscaling, and says what is left.

    Requests without one of `tokens` are not counted: the service answers them with 401, which comes
    before this (REQ-19).
    """

    def __init__(self, app: ASGIApp, window: SlidingWindow, tokens: tuple[str, ...]) -> None:
        self.app = app
        self._window = window
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = _token(scope)
        if token not in self._tokens:
            await self.app(scope, receive, send)
            return
        try:
            quota = self._window.count(token)
        except RateLimited as error:
            await responses.error(error)(scope, receive, send)
            return

        async def add_headers_and_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(quota.headers)
            await send(message)

        await self.app(scope, receive, add_headers_and_send)


def _token(scope: Scope) -> str | None:
    """Return the token of a request for upscaling, if it has one, read as the service reads it."""
    if scope["type"] != "http" or route_of(scope) != "upscaling":
        return None
    scheme, token = get_authorization_scheme_param(Headers(scope=scope).get("Authorization"))
    if scheme.lower() != "bearer":
        return None
    # Headers are bytes that Starlette decodes as Latin-1; tokens are UTF-8.
    return token.encode("latin-1").decode(errors="replace")
