"""The client of the implementation that is judged: it sends requests one by one.

After a 429 or 5xx it waits and sends the request again, as OctoAI's own clients did (RES-5).
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
from contract_tests.oracle.limits import MAX_OUTPUT_PX
from contract_tests.requests.request import (
    LONGER_TOKEN,
    SHORTER_TOKEN,
    SWAPPED_CASE_TOKEN,
    TOKEN_PLACEHOLDER,
    Request,
)
from contract_tests.target.response import Response

RETRIED: Final = frozenset({429, 502, 503, 504})
"""Statuses that say nothing about the request: sent again, it may get another."""
FIRST_PAUSE_S: Final = 0.5
"""The first pause if there is no Retry-After; each further one is twice as long."""
MAX_ATTEMPTS: Final = 6
"""OctoAI's clients retried up to five times (RES-5)."""
CONNECT_TIMEOUT_S: Final = 10.0
BETWEEN_PROBES_S: Final = 0.1
MAX_RESPONSE_BYTES: Final = 8 * MAX_OUTPUT_PX**2
"""No allowed image is longer: the largest one, of noise, takes half of it in base64."""
MAX_REDIRECTS: Final = 20
"""Modal's proxy sends one for each 150 seconds that an image takes."""


@dataclass(frozen=True)
class ClientOptions:
    """How long to wait for the target, and how often to send requests."""

    timeout_s: float = 300.0
    """For one response."""
    wait_s: float = 0.0
    """For a target that is starting."""
    patience_s: float = 120.0
    """For a busy target: all pauses of one request together."""
    per_minute: float | None = None
    """The most requests in a minute, evenly spaced; None: each once the last one has a response."""


class Target:
    """The implementation at `base_url`, used with the bearer `token`."""

    def __init__(self, base_url: str, token: str, options: ClientOptions | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._token = token
        self.options = options or ClientOptions()
        timeout_s = self.options.timeout_s
        timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        self._client = httpx.Client(timeout=timeout, headers=httpx.Headers())
        # httpx adds defaults such as User-Agent; only the headers of a request are to be sent.
        self._client.headers.clear()
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
        except httpx.TransportError as error:
            raise Unreachable(f"nothing responds at {self.base_url}: {_reason(error)}") from error

    def wait(self) -> None:
        """Return once there is any response; raise Unreachable after `wait_s` without."""
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
        """Whether an empty request, which costs nothing, is not refused for its token."""
        return self._send_once(Request(b"{}")).status not in (401, 403)

    def send(
        self,
        request: Request,
        on_attempt: Callable[[], None] = lambda: None,
        on_response: Callable[[Response], None] = lambda _: None,
    ) -> Response:
        """Send a request, again while the target is busy, and return the last response.

        `on_attempt` is called before each attempt, and `on_response` with each response.

        Raises Inconclusive if the target is busy for too long, exceeds the timeout, or closes the
        connection; Unreachable if it does not respond to anything else either.
        """
        waited_s, pause_s = 0.0, FIRST_PAUSE_S
        for attempt in range(1, MAX_ATTEMPTS + 1):
            on_attempt()
            response = self._attempt(request, last=attempt == MAX_ATTEMPTS)
            if response is not None:
                on_response(response)
                if response.status not in RETRIED and response.status < 500:
                    return response
                # The same 500 twice is no accident: it counts as the response.
                if response.status == 500 and (attempt > 1 or self._fails):
                    self._fails = True
                    return response
            wait_s = _retry_after_s(response) if response else None
            wait_s = pause_s if wait_s is None else wait_s
            waited_s, pause_s = waited_s + wait_s, 2 * pause_s
            if response and (waited_s > self.options.patience_s or attempt == MAX_ATTEMPTS):
                raise Inconclusive(
                    f"the target responded with {response.status} {attempt} times, "
                    f"and asks to wait for another {wait_s:g} s"
                )
            time.sleep(wait_s)
        raise AssertionError("the last attempt has returned or raised")

    def _attempt(self, request: Request, *, last: bool) -> Response | None:
        """A response, or None if the connection failed and there may be another attempt."""
        try:
            return self._follow_redirects(request)
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            msg = f"the target did not respond within {self.options.timeout_s:g} s"
            raise Inconclusive(msg) from error
        except httpx.TransportError as error:
            self.probe()  # if nothing responds at all, the whole run ends as unreachable
            if last:
                msg = f"the target closed the connection each time: {_reason(error)}"
                raise Inconclusive(msg) from error
            return None

    def _follow_redirects(self, request: Request) -> Response:
        """The response behind every 303, which Modal's proxy sends while an image takes long."""
        response = self._send_once(request)
        for _ in range(MAX_REDIRECTS):
            if response.status != 303 or "location" not in response.headers:
                break
            try:
                path = urljoin(self._url(request), response.headers["location"])
            except ValueError as error:
                raise Inconclusive("the target redirects to an invalid URL") from error
            request = Request(method="GET", path=path, headers=request.headers)
            response = self._send_once(request)
        return response

    def _send_once(self, request: Request) -> Response:
        if self.options.per_minute:
            time.sleep(max(0.0, self._next_s - time.monotonic()))
            self._next_s = time.monotonic() + 60 / self.options.per_minute
        headers = [(name, self._with_token(value)) for name, value in request.headers]
        began_s = time.perf_counter()
        with self._client.stream(
            request.method,
            self._url(request),
            headers=[(name.encode(), value.encode()) for name, value in headers],
            content=request.body if request.body or request.method == "POST" else None,
        ) as received:
            body = bytearray()
            # Part by part, since a hostile target may never end its response.
            for part in received.iter_raw():
                body += part
                if len(body) > MAX_RESPONSE_BYTES:
                    raise Inconclusive(f"the response has more than {MAX_RESPONSE_BYTES} bytes")
        seconds = time.perf_counter() - began_s
        lower_case = {name.lower(): value for name, value in received.headers.items()}
        return Response(received.status_code, lower_case, bytes(body), seconds)

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
        httpx.URL(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx.InvalidURL):  # an invalid port, too
        return False


def _retry_after_s(response: Response) -> float | None:
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


def _reason(error: httpx.TransportError) -> str:
    """Why nothing could be sent or received, without the number of the error."""
    text = str(error).partition("] ")[2] or str(error)
    return text or type(error).__name__
