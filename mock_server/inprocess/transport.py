"""The mock without a socket: it answers clients of httpx in their own process.

    client = httpx.Client(transport=Transport(mock), base_url="https://image.octoai.run")

The app runs in a loop of its own, whatever the client runs in: in no loop, in asyncio's or trio's.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from contextvars import Context
from email.utils import formatdate
from queue import Empty, SimpleQueue
from typing import Any, Final

import anyio
import httpx
from anyio import to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message

from mock_server.inprocess.event_loop import loop_of
from mock_server.mock import Mock
from mock_server.serving.connection import EXTENSION

RESET: Final = "[Errno 104] Connection reset by peer"
BODILESS: Final = (204, 304)
"""Answers of these statuses have no body (RFC 9110, 6.4.1)."""


class Transport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport for clients, synchronous and asynchronous, whose requests `mock` answers."""

    def __init__(self, mock: Mock) -> None:
        self._mock = mock

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The answer, with its body still to come."""
        request.read()
        exchange = self._begun(request)
        return exchange.response(exchange.message())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer, with its body still to come."""
        await request.aread()
        exchange = self._begun(request)
        return exchange.response(await exchange.message_async())

    def _begun(self, request: httpx.Request) -> "Exchange":
        exchange = Exchange(request, loop_of(self._mock))
        exchange.begin(self._mock.app)
        return exchange


class Exchange:
    """One request and its answer: its client is in any thread, and its app in `loop`.

    To the app's faults it is the connection, in place of `mock_server.serving.connection.Wire`.
    """

    def __init__(self, request: httpx.Request, loop: asyncio.AbstractEventLoop) -> None:
        self._request = request
        self._loop = loop
        self._patience_s: float | None = request.extensions.get("timeout", {}).get("read")
        self._unread: list[Message] = [{"type": "http.request", "body": request.content}]
        self._arrived: SimpleQueue[Message | httpx.TransportError] = SimpleQueue()
        self._over = asyncio.Event()
        self._length: int | None = None
        self._sent_bytes = 0

    # What the client does.

    def begin(self, app: ASGIApp) -> None:
        """Let the app answer; nothing of the client's context goes along."""
        self._loop.call_soon_threadsafe(self._start, app, context=Context())

    def message(self) -> Message:
        """The next message of the answer; raises what httpx raises where none comes."""
        try:
            arrived = self._arrived.get(timeout=self._patience_s)
        except Empty:
            self.hang_up()
            arrived = httpx.ReadTimeout("timed out")
        if isinstance(arrived, Exception):
            raise arrived
        return arrived

    async def message_async(self) -> Message:
        """The same where others go on meanwhile."""
        if not self._arrived.empty():
            return self.message()
        limiter = anyio.CapacityLimiter(1)  # those that all share may be in use, by the very same
        try:
            return await to_thread.run_sync(self.message, abandon_on_cancel=True, limiter=limiter)
        except BaseException:
            self.hang_up()
            raise

    def response(self, head: Message) -> httpx.Response:
        """The answer that has this head."""
        return httpx.Response(
            head["status"], headers=head["headers"], stream=Body(self), request=self._request
        )

    def hang_up(self) -> None:
        """Tell the app that its client is gone, and whoever waits for the app not to."""
        self._arrived.put(httpx.ReadError("the connection is closed"))
        with suppress(RuntimeError):  # the loop has ended before
            self._loop.call_soon_threadsafe(self._over.set)

    # What the app's faults do.

    def end(self) -> None:
        """End the connection behind what was sent."""
        expected = "incomplete chunked read"
        if self._length is not None:
            expected = f"received {self._sent_bytes} bytes, expected {self._length}"
        msg = f"peer closed connection without sending complete message body ({expected})"
        self._fail(httpx.RemoteProtocolError(msg))

    def reset(self) -> None:
        """Reset the connection."""
        self._fail(httpx.ReadError(RESET))

    async def wait(self, seconds: float | None) -> None:
        """Let so much time pass, or any if None; less if the client goes.

        It goes at once if it would not wait for so long. So does one that waits for ever for what
        never comes: a test that hangs helps nobody.
        """
        if seconds is None or (self._patience_s is not None and seconds > self._patience_s):
            self._fail(httpx.ReadTimeout("timed out: the mock makes this client wait in vain"))
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    # What the app does.

    def _start(self, app: ASGIApp) -> None:
        self._running = asyncio.ensure_future(self._run(app))

    async def _run(self, app: ASGIApp) -> None:
        with suppress(Exception):  # the app has logged what it raises
            await app(self._scope(), self._receive, self._send)
        if not self._over.is_set():  # it has failed behind the head of its answer
            self.end()

    def _scope(self) -> dict[str, Any]:
        url = self._request.url
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self._request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "client": ("127.0.0.1", 0),
            "server": (url.host, url.port or {"http": 80}.get(url.scheme, 443)),
            "extensions": {EXTENSION: self},
            "state": {},
        }

    async def _receive(self) -> Message:
        if self._unread:
            return self._unread.pop()
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._over.is_set():
            return
        if message["type"] == "http.response.start":
            self._arrived.put(self._headed(message))
            return
        body = b"" if self._bodiless else message.get("body", b"")
        self._sent_bytes += len(body)
        self._arrived.put({**message, "body": body})
        if not message.get("more_body"):
            self._over.set()

    def _headed(self, start: Message) -> Message:
        """The head of the answer, with what a server adds to it."""
        self._bodiless = self._request.method == "HEAD" or start["status"] in BODILESS
        length = Headers(raw=start["headers"]).get("Content-Length")
        self._length = None if length is None else int(length)
        more = [(b"date", formatdate(usegmt=True).encode())]
        if length is None and not self._bodiless:
            more.append((b"transfer-encoding", b"chunked"))
        return {**start, "headers": [*more, *start["headers"]]}

    def _fail(self, error: httpx.TransportError) -> None:
        self._arrived.put(error)
        self._over.set()


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of an answer, as its parts come."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        more = True
        while more:
            message = self._exchange.message()
            more = message.get("more_body", False)
            yield message["body"]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._exchange.message_async()
            more = message.get("more_body", False)
            yield message["body"]

    def close(self) -> None:
        self._exchange.hang_up()

    async def aclose(self) -> None:
        self._exchange.hang_up()
