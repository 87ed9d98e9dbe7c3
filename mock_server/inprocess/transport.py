"""A transport for httpx that answers requests from a mock in the same process.

    client = httpx.Client(transport=Transport(mock), base_url="https://image.octoai.run")

The app runs in an event loop of its own, so the client may use any or none: asyncio's or trio's.
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

from mock_server import real_time
from mock_server.faults.exchange import EXTENSION
from mock_server.inprocess.event_loop import loop_of
from mock_server.mock import Mock

RESET: Final = "[Errno 104] Connection reset by peer"
"""The message of a reset on Linux, as httpx has it."""
BODILESS: Final = (204, 304)
"""The statuses of responses without a body (RFC 9110, 6.4.1)."""


class Transport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport for synchronous and asynchronous clients, whose requests `mock` answers."""

    def __init__(self, mock: Mock) -> None:
        self._mock = mock

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response; its body is streamed."""
        request.read()
        exchange = self._start(request)
        return exchange.response(exchange.message())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response; its body is streamed."""
        await request.aread()
        exchange = self._start(request)
        return exchange.response(await exchange.message_async())

    def _start(self, request: httpx.Request) -> "Exchange":
        exchange = Exchange(request, loop_of(self._mock))
        exchange.start(self._mock.app)
        return exchange


class Exchange:
    """One request and its response, between a client in any thread and an app in `loop`.

    For the faults it is a `BreakableConnection`, as `MockConnection` is on a socket.
    """

    def __init__(self, request: httpx.Request, loop: asyncio.AbstractEventLoop) -> None:
        self._request = request
        self._loop = loop
        self._read_timeout_s: float | None = request.extensions.get("timeout", {}).get("read")
        self._to_receive: list[Message] = [{"type": "http.request", "body": request.content}]
        # The client waits in its own thread, and the app must never wait for the client.
        self._sent: SimpleQueue[Message | httpx.TransportError] = SimpleQueue()
        self._over = asyncio.Event()
        self._length: int | None = None
        self._sent_bytes = 0

    # Called by the client

    def start(self, app: ASGIApp) -> None:
        """Start the app, in a context of its own, as a server would."""
        self._loop.call_soon_threadsafe(self._start_task, app, context=Context())

    def message(self) -> Message:
        """Return the next message of the response; raises an error of httpx if there is none."""
        try:
            message = self._sent.get(timeout=self._read_timeout_s)
        except Empty:
            self.disconnect()
            message = httpx.ReadTimeout("timed out")
        if isinstance(message, Exception):
            raise message
        return message

    async def message_async(self) -> Message:
        """Return the same without blocking the loop of the client."""
        if not self._sent.empty():
            return self.message()
        limiter = anyio.CapacityLimiter(1)  # the default one may be used up by such requests
        try:
            return await to_thread.run_sync(self.message, abandon_on_cancel=True, limiter=limiter)
        except BaseException:
            self.disconnect()
            raise

    def response(self, start: Message) -> httpx.Response:
        """Return the response that begins with this message."""
        return httpx.Response(
            start["status"], headers=start["headers"], stream=Body(self), request=self._request
        )

    def disconnect(self) -> None:
        """Tell the app that the client has gone, and end any wait for a message."""
        self._sent.put(httpx.ReadError("the connection is closed"))
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._over.set)

    # Called by faults

    def end(self) -> None:
        """Close the connection after what was sent."""
        expected = "incomplete chunked read"
        if self._length is not None:
            expected = f"received {self._sent_bytes} bytes, expected {self._length}"
        msg = f"peer closed connection without sending complete message body ({expected})"
        self._fail(httpx.RemoteProtocolError(msg))

    def reset(self) -> None:
        """Reset the connection."""
        self._fail(httpx.ReadError(RESET))

    async def wait(self, seconds: float | None) -> None:
        """Wait for that long, or without end if it is None; less if the client disconnects.

        A client that would time out before does so at once, and so does one without a timeout if
        the wait has no end: a test that hangs helps nobody.
        """
        if seconds is None or (self._read_timeout_s is not None and seconds > self._read_timeout_s):
            self._fail(httpx.ReadTimeout("timed out: the mock would never respond"))
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    # Called in the loop of the app

    def _start_task(self, app: ASGIApp) -> None:
        # Kept, since the loop has only a weak reference to a task.
        self._task = asyncio.ensure_future(self._run(app))

    async def _run(self, app: ASGIApp) -> None:
        with suppress(Exception):  # it is in the app's log
            await app(self._scope(), self._receive, self._send)
        if not self._over.is_set():  # it failed after the response began
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
            # The host of the URL, by which `admin_access` knows that there is no socket.
            "server": (url.host, url.port or {"http": 80}.get(url.scheme, 443)),
            "extensions": {EXTENSION: self},
            "state": {},
        }

    async def _receive(self) -> Message:
        if self._to_receive:
            return self._to_receive.pop()
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._over.is_set():
            return
        if message["type"] == "http.response.start":
            self._sent.put(self._as_server(message))
            return
        body = b"" if self._bodiless else message.get("body", b"")
        self._sent_bytes += len(body)
        self._sent.put({**message, "body": body})
        if not message.get("more_body"):
            self._over.set()  # after the response, `receive` says that the client is gone

    def _as_server(self, start: Message) -> Message:
        """Return the start of the response with the headers that a server adds."""
        self._bodiless = self._request.method == "HEAD" or start["status"] in BODILESS
        length = Headers(raw=start["headers"]).get("Content-Length")
        self._length = None if length is None else int(length)
        more = [(b"date", formatdate(real_time.time(), usegmt=True).encode())]
        if length is None and not self._bodiless:
            more.append((b"transfer-encoding", b"chunked"))
        return {**start, "headers": [*more, *start["headers"]]}

    def _fail(self, error: httpx.TransportError) -> None:
        self._sent.put(error)
        self._over.set()


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a response, in chunks as they are sent."""

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
        self._exchange.disconnect()

    async def aclose(self) -> None:
        self._exchange.disconnect()
