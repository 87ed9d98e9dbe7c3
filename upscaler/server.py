"""The server below the app: what a connection may do before, between and after its requests.

uvicorn waits without end for the head of a request and for a client that does not take its answer,
and what is not HTTP it answers in plain text. Here a connection has its time for either, there is a
limit to how many there are, and a refusal has the shape of all others (RES-6, RES-7). How long a
body may take is the app's to say: see `intake`.
"""

import asyncio
import json
import logging
import socket
import time
from http import HTTPStatus
from typing import Final
from uuid import uuid4

import anyio
import h11
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from upscaler import logs
from upscaler.contract import REQUEST_ID_HEADER
from upscaler.errors import Busy, HeadTooLarge, NotHTTP, UpscalerError

HEAD_DEADLINE_S: Final = 20.0
"""How long a connection may be open without a request: for the first one's head to arrive, and for
the next one's. What goes on meanwhile makes it no longer."""
ANSWER_GRACE_S: Final = 60.0
ANSWER_BYTES_PER_S: Final = 125_000
"""An answer must be taken at 1 Mbit/s from its first byte to its last, but for a minute that may
pass besides. Until it is taken, the service holds it."""
MAX_HEAD_BYTES: Final = 64 * 2**10
"""The most that a request's line and headers may have together: eight times the longest URL that
RFC 9110, 4.1, wants anybody to take."""
PART_BYTES: Final = 16 * 2**10
"""How much of a head that is too long is looked at beyond its limit."""
MAX_CONNECTIONS: Final = 500
"""Each takes one of the 1024 files that a process may usually have open, and the service needs
some of its own: for weights, downloads, and answers to those who are already here."""
RETRY_AFTER_S: Final = 5
LINGER_S: Final = 2.0
"""How long a connection is read on after a refusal. Closed with something unread, it would take the
refusal with it (RFC 9112, 9.6)."""

log = logging.getLogger(__name__)


def server(
    app: ASGIApp, host: str, port: int, connection: "type[Connection] | None" = None
) -> uvicorn.Server:
    """A server for `app`, not yet started, on a port of this machine; 0 is any that is free."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="asyncio",  # not uvloop where that happens to be: nothing was tried with it
        http=connection or Connection,
        ws="none",
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        log_config=None,
        access_log=False,  # the app has a line of its own for each request
        server_header=False,
    )
    return uvicorn.Server(config)


class Connection(H11Protocol):
    """One client's connection.

    While no request is at work on it, `_end` is the timer that cuts it off.
    """

    _end: asyncio.TimerHandle | None = None
    _requests = 0
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does this only on sockets of its own. Without it the last bytes of an answer wait
        # for the client's receipt of those before, and clients take 40 ms for that.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._inner, self.app = self.app, self._at_work
        self._wait_for_a_request()
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(Busy("there are too many connections", RETRY_AFTER_S))

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # h11 measures only heads that are not complete, so it is given a part of one at a time.
        while data and not self._refused:
            within_body = self.conn.their_state is h11.SEND_BODY
            part_bytes = len(data) if within_body else PART_BYTES
            super().data_received(data[:part_bytes])
            data = data[part_bytes:]

    def headers_of(self, error: UpscalerError) -> dict[str, str]:
        """What a refusal says in its headers, besides what every answer says."""
        return error.headers

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP; so uvicorn calls it."""
        unread, _ = self.conn.trailing_data
        if len(unread) > MAX_HEAD_BYTES:
            self._refuse(_head_too_large())
        else:
            self._refuse(NotHTTP(msg))

    async def _at_work(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._refused:
            return  # what was no HTTP came with the request, and its client is gone
        self._cancel_end()
        if _head_bytes(scope) > MAX_HEAD_BYTES:  # which h11 lets pass once it is there as a whole
            self._refuse(_head_too_large())
            return
        self._requests += 1
        try:
            await self._inner(scope, receive, self._in_time(send))
        finally:
            self._requests -= 1
            if not self._requests and not self._refused:
                self._wait_for_a_request()

    def _in_time(self, send: Send) -> Send:
        """`send` for one answer, which cuts off a client that is too slow for it."""
        waited_s, sent_bytes = 0.0, 0  # what the app took between two parts is not the client's

        async def timed(message: Message) -> None:
            nonlocal waited_s, sent_bytes
            began_s = time.monotonic()
            left_s = ANSWER_GRACE_S + sent_bytes / ANSWER_BYTES_PER_S - waited_s
            sent_bytes += len(message.get("body", b""))
            try:
                with anyio.fail_after(left_s):
                    await send(message)
            except TimeoutError:
                log.warning("a client that took its answer too slowly was cut off")
                self.transport.abort()
            waited_s += time.monotonic() - began_s

        return timed

    def _wait_for_a_request(self) -> None:
        """Start the time in which the next request must come, once all that was said is taken."""
        unsent = self.transport.get_write_buffer_size()
        wait_s = HEAD_DEADLINE_S + unsent / ANSWER_BYTES_PER_S
        self._cut_off_in(wait_s)

    def _cut_off_in(self, seconds: float) -> None:
        self._cancel_end()
        self._end = self.loop.call_later(seconds, self.transport.abort)

    def _cancel_end(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _refuse(self, error: UpscalerError) -> None:
        """Answer with `error` if an answer can still be given, and take nothing more."""
        self._refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()  # the app is told that its client is gone
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in _events(error, self.headers_of(error)):
                self.transport.write(self.conn.send(event) or b"")
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._cut_off_in(LINGER_S)


def _head_bytes(scope: Scope) -> int:
    """How long a request's line and headers were at least: any spaces around values are gone."""
    line = len(scope["method"]) + len(scope["raw_path"]) + len(scope["query_string"])
    return line + sum(len(name) + len(value) + len(":\r\n") for name, value in scope["headers"])


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"the head may have at most {MAX_HEAD_BYTES} bytes")


def _events(error: UpscalerError, more: dict[str, str]) -> tuple[h11.Event, ...]:
    """The whole answer to what was not even a request, which is logged under an id of its own."""
    request_id = uuid4().hex
    said_by = logs.request_id.set(request_id)
    log.info("refused a connection: %s", error, extra={"status": error.status})
    logs.request_id.reset(said_by)
    body = json.dumps({"detail": error.detail}).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        REQUEST_ID_HEADER: request_id,
        **more,
    }
    head = h11.Response(
        status_code=error.status,
        headers=list(headers.items()),
        reason=HTTPStatus(error.status).phrase,
    )
    return head, h11.Data(data=body), h11.EndOfMessage()
