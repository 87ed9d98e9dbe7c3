"""OctoAI's rate limit: so many requests a minute for each token, and beyond that 429 (RES-5)."""

import re
import time
from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Final

from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from upscaler.errors import UpscalerError
from upscaler.service import responses

PLANS: Final = {"free": 10, "pro": 60}
"""Requests a minute, by the plan that OctoAI's customers had."""
MINUTE_S: Final = 60.0


class RateLimited(UpscalerError):
    """The token has been used too often within a minute; it may be again in `retry_after_s`."""

    status = 429

    def __init__(self, requests: int, retry_after_s: int) -> None:
        super().__init__(requests, retry_after_s)
        self.requests = requests
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return (
            f"more than {self.requests} requests within a minute: "
            f"try again in {self.retry_after_s} s"
        )

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_s)}


def parse_rate(text: str) -> int:
    """Requests a minute: free, pro, or a number such as 5/min; raises ValueError otherwise."""
    if text in PLANS:
        return PLANS[text]
    match = re.fullmatch(r"([0-9]{1,6})/min", text, re.ASCII)
    if not match or int(match[1]) == 0:
        raise ValueError("a rate limit is free, pro, or a number of requests such as 5/min")
    return int(match[1])


class Rate:
    """The requests of each token within the last minute; no more than so many may be."""

    def __init__(self, requests: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.requests = requests
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget all requests."""
        self._times: dict[str, deque[float]] = {}

    def note(self, token: str) -> None:
        """Count a request, or raise RateLimited, which counts as none."""
        now, times = self._clock(), self._times.setdefault(token, deque())
        while times and times[0] + MINUTE_S <= now:
            times.popleft()
        if len(times) >= self.requests:
            raise RateLimited(self.requests, ceil(times[0] + MINUTE_S - now))
        times.append(now)


class RateLimit:
    """Middleware that lets only so many upscaling requests pass.

    Those without one of `tokens` pass and are not counted: below, the answer to them is 401, which
    is told before this (REQ-19).
    """

    def __init__(self, app: ASGIApp, rate: Rate, tokens: tuple[str, ...]) -> None:
        self.app = app
        self._rate = rate
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = _token(scope)
        if token in self._tokens:
            try:
                self._rate.note(token)
            except RateLimited as error:
                await responses.error(error)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _token(scope: Scope) -> str | None:
    """The token of an upscaling request, if it has one; the service reads it in the same way."""
    if scope["type"] != "http" or (scope["method"], scope["path"]) != ("POST", "/upscaling"):
        return None
    scheme, token = get_authorization_scheme_param(Headers(scope=scope).get("Authorization"))
    if scheme.lower() != "bearer":
        return None
    return token.encode("latin-1").decode(errors="replace")
