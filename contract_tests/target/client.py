"""The client of the implementation that is judged: it sends requests one by one.

After a 429 or 5xx it waits and sends the request again, as OctoAI's own clients did (RES-5).
"""

import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx2

from contract_tests.failures import Inconclusive, Unreachable
from contract_tests.requests.request import (
    LONGER_TOKEN,
    SHORTER_TOKEN,
    SWAPPED_CASE_TOKEN,
    TOKEN_PLACEHOLDER,
    Request,
)
from contract_tests.target.http_client import HttpClient, TooSlow, proxy_variable
from contract_tests.target.response import Response
from contract_tests.target.run_clock import RunClock

FINAL: Final = frozenset({501, 505})
"""The statuses above 500 that are about the request and not about the moment (RFC 9110, 15.6.2 and
15.6.6): sent again, it would get the same."""
USER_AGENT: Final = "upscaler-contract/{}"
"""Firewalls refuse clients that do not name themselves; with the version of this package."""
FIRST_PAUSE_S: Final = 0.5
"""The first pause if there is no Retry-After; each further one is twice as long."""
MAX_ATTEMPTS: Final = 6
"""OctoAI's clients retried up to five times (RES-5)."""
NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})
"""What OpenSSL says of plain HTTP, the second one in later versions."""
CONNECT_TIMEOUT_S: Final = 10.0
BETWEEN_PROBES_S: Final = 0.1
MAX_REDIRECTS: Final = 20
"""Modal's proxy sends one for each 150 seconds that an image takes."""


@dataclass(frozen=True)
class ClientOptions:
    """How long to wait for the target, and how often to send requests."""

    timeout_s: float = 300.0
    """For one complete response, with all redirects to it."""
    wait_s: float = 0.0
    """For a target that is starting."""
    patience_s: float = 120.0
    """For a busy target: all pauses of one request together."""
    per_minute: float | None = None
    """The most requests in a minute, evenly spaced; None: each once the last one has a response."""
    http2: bool = False
    """Whether all requests are sent by HTTP/2, which the target must offer; else by HTTP/1.1."""


class Target:
    """The implementation at `base_url`, used with the bearer `token`."""

    def __init__(
        self,
        base_url: str,
        token: str,
        options: ClientOptions | None = None,
        clock: RunClock | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._token = token
        self.options = options or ClientOptions()
        self._clock = clock or RunClock()
        # Half of a short timeout, so that no connection can be told from a slow response.
        connect_timeout_s = min(CONNECT_TIMEOUT_S, self.options.timeout_s / 2)
        self._client = HttpClient(self._clock, connect_timeout_s, http2=self.options.http2)
        self.user_agent = USER_AGENT.format(version("octo-upscaler"))
        self._next_s = 0.0
        self._fails = False
        """Whether a request got a 500 twice: from then on the first one is believed."""

    @property
    def token_has_letters(self) -> bool:
        """Whether the token differs in another case."""
        return self._token.swapcase() != self._token

    def close(self) -> None:
        self._client.close()

    def probe(self) -> None:
        """Raise Unreachable unless there is any response at all."""
        try:
            self._send_once(Request(method="GET", path="/healthcheck", headers=()))
        except (httpx2.TransportError, TooSlow) as error:
            if isinstance(error, httpx2.TransportError) and speaks_no_tls(error):
                rest = self.base_url.partition(":")[2]
                msg = f"{self.base_url} does not speak TLS: give --base-url http:{rest}"
                raise Unreachable(msg) from error
            variable = proxy_variable(self.base_url)
            by = f", through the proxy that {variable} names" if variable else ""
            msg = f"nothing responds at {self.base_url}{by}: {reason(error)}"
            raise Unreachable(msg) from error

    def wait(self) -> None:
        """Return once there is any response; raise Unreachable after `wait_s` without."""
        until_s = time.monotonic() + self.options.wait_s
        while True:
            try:
                self.probe()
            except Unreachable:
                if time.monotonic() >= until_s:
                    raise
                self._clock.pause(BETWEEN_PROBES_S)
            else:
                return

    def send(
        self,
        request: Request,
        on_attempt: Callable[[], None] = lambda: None,
        on_end: Callable[[Response | None], None] = lambda _: None,
    ) -> Response:
        """Send a request, again while the target is busy, and return the last response.

        `on_attempt` is called before each attempt, and `on_end` after it, with the response or with
        None if it was lost.

        Raises Inconclusive if the target is busy for too long, exceeds the timeout, or closes the
        connection; Unreachable if it does not respond to anything else either; and whatever the
        clock of the run and the callbacks raise.
        """
        waited_s, pause_s = 0.0, FIRST_PAUSE_S
        for attempt in range(1, MAX_ATTEMPTS + 1):
            last = attempt == MAX_ATTEMPTS
            response = self._attempt(request, on_attempt, on_end, last=last)
            if response is not None:
                if response.status in FINAL or (response.status < 500 and response.status != 429):
                    return response
                # The same 500 twice is no accident: it counts as the response.
                if response.status == 500 and (attempt > 1 or self._fails):
                    self._fails = True
                    return response
            asked_s = retry_after_s(response) if response else None
            wait_s = pause_s if asked_s is None else asked_s
            waited_s, pause_s = waited_s + wait_s, 2 * pause_s
            if response and (last or waited_s > self.options.patience_s):
                times = "once" if attempt == 1 else f"{attempt} times"
                more = "" if asked_s is None else f", and asks to wait for another {asked_s:g} s"
                raise Inconclusive(f"the target responded with {response.status} {times}{more}")
            self._clock.pause(wait_s)
        raise AssertionError("the last attempt has returned or raised")

    def send_once(self, request: Request) -> Response:
        """The only response to a request, behind all redirects.

        Raises httpx2.TransportError if there is none, and TooSlow after the timeout.
        """
        return self._follow_redirects(request)

    def _attempt(
        self,
        request: Request,
        on_attempt: Callable[[], None],
        on_end: Callable[[Response | None], None],
        *,
        last: bool,
    ) -> Response | None:
        """A response, or None if the connection failed and there may be another attempt."""
        on_attempt()
        response: Response | None = None
        try:
            response = self._follow_redirects(request)
        except TooSlow as error:
            raise Inconclusive(f"the target did not respond {reason(error)}") from error
        except httpx2.TransportError as error:
            self.probe()  # if nothing responds at all, the whole run ends as unreachable
            if last:
                msg = f"the target closed the connection each time: {reason(error)}"
                raise Inconclusive(msg) from error
        finally:
            on_end(response)
        return response

    def _follow_redirects(self, request: Request) -> Response:
        """The response behind every 303, which Modal's proxy sends while an image takes long."""
        response = self._send_once(request)
        took_s = response.seconds
        for _ in range(MAX_REDIRECTS):
            if response.status != 303 or "location" not in response.headers:
                break
            try:
                path = urljoin(self._url(request), response.headers["location"])
            except ValueError as error:
                raise Inconclusive("the target redirects to an invalid URL") from error
            request = Request(method="GET", path=path, headers=request.headers)
            response = self._send_once(request, took_s)
            took_s += response.seconds
        return replace(response, seconds=took_s)

    def _send_once(self, request: Request, took_s: float = 0.0) -> Response:
        """A response, for which there are `timeout_s` less the `took_s` of those before it."""
        self._clock.check()
        if self.options.per_minute:
            self._clock.pause(max(0.0, self._next_s - time.monotonic()))
            self._next_s = time.monotonic() + 60 / self.options.per_minute
        named = request.header("User-Agent") is not None
        headers = [*([] if named else [("User-Agent", self.user_agent)]), *request.headers]
        try:
            return self._client.exchange(
                request.method,
                self._url(request),
                [(name.encode(), self._with_token(value).encode()) for name, value in headers],
                request.body if request.body or request.method == "POST" else None,
                max(0.0, self.options.timeout_s - took_s),
            )
        except TooSlow as error:
            raise TooSlow(f"within {self.options.timeout_s:g} s") from error

    def _url(self, request: Request) -> str:
        if "://" not in request.path:
            return self.base_url + request.path
        if not is_url(request.path):
            raise Inconclusive(f"{request.path} is not a valid http(s) URL")
        return request.path

    def _with_token(self, text: str) -> str:
        forms = {
            SWAPPED_CASE_TOKEN: self._token.swapcase(),
            LONGER_TOKEN: f"{self._token}x",
            SHORTER_TOKEN: self._token[:-1],
            TOKEN_PLACEHOLDER: self._token,  # last, as the others contain it
        }
        for form, token in forms.items():
            text = text.replace(form, token)
        return text


def is_url(text: object) -> bool:
    """Whether it is an absolute http or https URL."""
    if not isinstance(text, str) or " " in text:
        return False
    try:
        parts = urlsplit(text)
        httpx2.URL(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx2.InvalidURL):  # an invalid port, too
        return False


def retry_after_s(response: Response) -> float | None:
    """The value of Retry-After, in seconds or as a date (RFC 9110, 10.2.3); None if invalid."""
    text = response.headers.get("retry-after", "")
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:  # the zone is -0000, or missing
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def speaks_no_tls(error: httpx2.TransportError) -> bool:
    """Whether a server answered the beginning of TLS with something else, such as plain HTTP."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ssl.SSLError) and inner.reason in NO_TLS:
            return True
        inner = inner.__cause__ or inner.__context__
    return False


def reason(error: httpx2.TransportError | TooSlow) -> str:
    """Why nothing could be sent or received, in the words of the system if it knows."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ConnectionError) and inner.errno:
            return os.strerror(inner.errno)
        inner = inner.__cause__ or inner.__context__
    text = str(error).partition("] ")[2] or str(error)
    return text or type(error).__name__
