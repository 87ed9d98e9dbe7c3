"""The implementation that is judged, at its URL: requests go there one by one, politely.

What is answered with 429 or 5xx is asked again after a while, as OctoAI's own clients did.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx

from contract_tests.failures import Inconclusive, Unreachable
from contract_tests.requests.request import (
    LONGER_TOKEN,
    SHORTER_TOKEN,
    SWAPPED_CASE_TOKEN,
    TOKEN_PLACEHOLDER,
    Request,
)
from contract_tests.target.response import Response

BUSY: Final = frozenset({429, 502, 503, 504})
"""Statuses that say nothing of the request: it may be asked again, and be answered."""
FIRST_PAUSE_S: Final = 0.5
"""Without Retry-After: the pause after the first such answer; each one is twice as long."""
MAX_ATTEMPTS: Final = 6
"""OctoAI's clients asked up to five times again (RES-5)."""
CONNECT_S: Final = 10.0
"""A connection is made or refused sooner than this: who takes longer is not there."""
BETWEEN_PROBES_S: Final = 0.1
MAX_ANSWER_BYTES: Final = 2**29
"""No picture within the limits is longer: 8192x8192 pixels of noise in base64 are half of it."""
MAX_REDIRECTS: Final = 20
"""Modal's proxy sends one of them for each 150 seconds that a picture takes."""


@dataclass(frozen=True)
class ClientOptions:
    """How long to wait for the target, and how often to ask it."""

    timeout_s: float = 300.0
    """How long an answer may take."""
    wait_s: float = 0.0
    """How long to wait for a target that is not there yet."""
    patience_s: float = 120.0
    """How long a busy target is waited for, all pauses of one request together."""
    per_minute: float | None = None
    """At most so many requests in a minute, evenly; None: the next once the last is answered."""


class Target:
    """What answers at `base_url`, for the bearer `token`."""

    def __init__(self, base_url: str, token: str, options: ClientOptions | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._token = token
        self.options = options or ClientOptions()
        timeout = httpx.Timeout(
            self.options.timeout_s, connect=min(CONNECT_S, self.options.timeout_s)
        )
        self._client = httpx.Client(timeout=timeout, headers=httpx.Headers())
        # A header that a request does not have is not sent at all.
        self._client.headers.clear()
        self._next_s = 0.0
        self._fails = False
        """Whether a 500 has come twice for the same request: the next is believed at once."""

    @property
    def token_has_letters(self) -> bool:
        """Whether the token has another case."""
        return self._token.swapcase() != self._token

    def close(self) -> None:
        self._client.close()

    def probe(self) -> None:
        """Raise Unreachable unless anything answers here at all."""
        try:
            self._send_once(Request(method="GET", path="/healthcheck", headers=()))
        except httpx.TransportError as error:
            raise Unreachable(f"nothing answers at {self.base_url}: {_reason(error)}") from error

    def wait(self) -> None:
        """Return once anything answers here; raise Unreachable if it does not within `wait_s`."""
        until_s = time.monotonic() + self.options.wait_s
        while True:
            try:
                self.probe()
            except Unreachable:
                if time.monotonic() >= until_s:
                    raise
                time.sleep(BETWEEN_PROBES_S)
            else:
                return

    def accepts_token(self) -> bool:
        """Whether a request that asks for nothing is refused for something else than its token."""
        return self._send_once(Request(b"{}")).status not in (401, 403)

    def send(
        self,
        request: Request,
        on_attempt: Callable[[], None] = lambda: None,
        on_response: Callable[[Response], None] = lambda _: None,
    ) -> Response:
        """Send a request, again while the target is busy, and return the last response.

        `on_attempt` is called before each attempt, and `on_response` with each response.

        Raises Inconclusive if the target is busy for too long, does not answer in time, or hangs
        up on us, and Unreachable if it does not answer anything else either.
        """
        waited_s, pause_s = 0.0, FIRST_PAUSE_S
        for attempt in range(1, MAX_ATTEMPTS + 1):
            on_attempt()
            response = self._attempt(request, last=attempt == MAX_ATTEMPTS)
            if response is not None:
                on_response(response)
            if response is not None and response.status not in BUSY and response.status < 500:
                return response
            if response is not None and response.status == 500 and (attempt > 1 or self._fails):
                self._fails = True
                return response
            wait_s = _retry_after_s(response) if response else None
            wait_s = pause_s if wait_s is None else wait_s
            waited_s, pause_s = waited_s + wait_s, 2 * pause_s
            if response and (waited_s > self.options.patience_s or attempt == MAX_ATTEMPTS):
                raise Inconclusive(
                    f"the target answered {response.status} {attempt} times, "
                    f"and asks to wait for {wait_s:g} s more"
                )
            time.sleep(wait_s)
        raise AssertionError("the last attempt has returned or raised")

    def _attempt(self, request: Request, *, last: bool) -> Response | None:
        """An answer, or None if the connection failed and there may be another attempt."""
        try:
            return self._follow_redirects(request)
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            msg = f"the target gave no answer within {self.options.timeout_s:g} s"
            raise Inconclusive(msg) from error
        except httpx.TransportError as error:
            self.probe()
            if last:
                msg = f"the target hung up on this request, each time: {_reason(error)}"
                raise Inconclusive(msg) from error
            return None

    def _follow_redirects(self, request: Request) -> Response:
        """The answer behind every 303, with which Modal's proxy asks for patience."""
        response = self._send_once(request)
        for _ in range(MAX_REDIRECTS):
            if response.status != 303 or "location" not in response.headers:
                break
            try:
                path = urljoin(self._url(request), response.headers["location"])
            except ValueError as error:
                raise Inconclusive("the target redirects to what is no URL") from error
            request = Request(method="GET", path=path, headers=request.headers)
            response = self._send_once(request)
        return response

    def _send_once(self, request: Request) -> Response:
        self._throttle()
        headers = [(name, self._with_token(value)) for name, value in request.headers]
        began_s = time.perf_counter()
        with self._client.stream(
            request.method,
            self._url(request),
            headers=[(name.encode(), value.encode()) for name, value in headers],
            content=request.body if request.body or request.method == "POST" else None,
        ) as response:
            body = bytearray()
            for part in response.iter_raw():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise Inconclusive(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
        told = {name.lower(): value for name, value in response.headers.items()}
        return Response(response.status_code, told, bytes(body), time.perf_counter() - began_s)

    def _url(self, request: Request) -> str:
        if "://" not in request.path:
            return self.base_url + request.path
        if not is_url(request.path):
            raise Inconclusive(f"{request.path} is no URL of HTTP")
        return request.path

    def _with_token(self, text: str) -> str:
        forms = {
            SWAPPED_CASE_TOKEN: self._token.swapcase(),
            LONGER_TOKEN: f"{self._token}x",
            SHORTER_TOKEN: self._token[:-1],
            TOKEN_PLACEHOLDER: self._token,
        }
        for form, token in forms.items():
            text = text.replace(form, token)
        return text

    def _throttle(self) -> None:
        if self.options.per_minute:
            time.sleep(max(0.0, self._next_s - time.monotonic()))
            self._next_s = time.monotonic() + 60 / self.options.per_minute


def is_url(text: object) -> bool:
    """Whether it is a whole URL, of HTTP."""
    if not isinstance(text, str) or " " in text:
        return False
    try:
        parts = urlsplit(text)
        httpx.URL(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx.InvalidURL):  # for a port, too, that is none
        return False


def _retry_after_s(response: Response) -> float | None:
    """What Retry-After asks for, in seconds or as a date (RFC 9110, 10.2.3)."""
    text = response.headers.get("retry-after", "")
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:  # it has none if it says -0000, or nothing
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _reason(error: httpx.TransportError) -> str:
    """Why nothing could be sent or read, in a few words."""
    text = str(error).partition("] ")[2] or str(error)
    return text or type(error).__name__
