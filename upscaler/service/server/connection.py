"""The HTTP server: uvicorn, with limits for what a connection may do around its requests.

uvicorn has no timeout for the head of a request or for a client that does not read its response,
and it answers invalid HTTP in plain text. Here both have a timeout, the number of connections is
limited (see `listener`), and an error that no app sees has the form of all others (RES-6, RES-7)
and reaches its client (see `lingering`). The app limits the time of a body: see `service.body`.
"""

import asyncio
import json
import logging
import os
import socket
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, cast
from uuid import uuid4

import anyio
import h11
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upscaler.api.headers import REQUEST_ID_HEADER
from upscaler.errors import Busy, HeadTooLarge, NotHTTP, UpscalerError
from upscaler.service import logs
from upscaler.service.auth import AUTHORISED
from upscaler.service.disconnect import GOES_ON
from upscaler.service.server.http1 import StrictConnection
from upscaler.service.server.lingering import DrainTimer, LingeringTransport
from upscaler.service.server.listener import EvictableConnection, Server, max_connections

HEAD_DEADLINE_S: Final = 20.0
"""How long the complete head of the next request may take. Bytes that arrive do not extend it, or a
client could keep a connection open with one byte at a time (slowloris)."""
RESPONSE_GRACE_S: Final = 60.0
RESPONSE_BYTES_PER_S: Final = 125_000
"""A client must read a response at 1 Mbit/s on average, plus one minute. Until then the service
holds it in memory."""
MAX_HEAD_BYTES: Final = 64 * 2**10
"""The limit of the request line and all headers together: eight times the length of a URL that RFC
9110, 4.1, recommends to support."""
PART_BYTES: Final = 16 * 2**10
"""How much data h11 is given at a time, and so how much of a head it may hold beyond its limit."""
RETRY_AFTER_S: Final = 5
ANONYMOUS_RESPONSE_S: Final = 10.0
"""How long a client without a token may read a response before its connection may be evicted for a
new one. Otherwise slow readers could occupy all connections without a token."""
MAX_HEADERS: Final = 1000
"""How many headers a request may have: in memory each takes a hundred bytes, even if it is only
four bytes long. nginx has the same limit."""
STOP_S: Final = 1.0
"""How long a client may take to read an error once the server is shutting down, and how often it is
seen then whether a request only watches what goes on without it."""
TRUSTED_PROXIES: Final = "127.0.0.1,::1"
"""Default of FORWARDED_ALLOW_IPS: the proxies whose X-Forwarded-Proto and -For are trusted."""

log = logging.getLogger(__name__)


def server(
    app: ASGIApp, host: str, port: int, connection: "type[Connection] | None" = None
) -> Server:
    """Return a server for `app` that is not started yet; port 0 is any free port.

    X-Forwarded-Proto and X-Forwarded-For are trusted only from the proxies in FORWARDED_ALLOW_IPS.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="asyncio",  # uvicorn prefers uvloop if it is installed, which is not tested here
        http=connection or Connection,
        ws="none",
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        log_config=None,
        access_log=False,  # `RequestMiddleware` logs each request
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", TRUSTED_PROXIES),
    )
    return Server(config)


class Connection(EvictableConnection):
    """One client's connection.

    A subclass may override `prepare_scope` and `refusal_headers`, and extend what asyncio and
    uvicorn call (`connection_made`, `connection_lost`, `data_received`, `shutdown`).

    While no request is running, a timer closes the connection: `_cutoff`, or `_drain` as long as
    the rest of a body arrives that the app did not read.
    """

    conn: StrictConnection
    _cutoff: asyncio.TimerHandle | None = None
    _drain: DrainTimer | None = None
    _running_requests = 0
    _has_discarded = False
    _idle_from_s = 0.0
    _response_began_s: float | None = None
    _state: Mapping[str, object] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  those of uvicorn
        super().__init__(*args, **kwargs)
        self.conn = StrictConnection(h11.SERVER, MAX_HEAD_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        lingering = LingeringTransport(transport, self.loop, self._is_unread, _time_to_send)
        super().connection_made(lingering)
        # asyncio sets this only on sockets that it has created. Without it the last bytes of a
        # response wait until the client acknowledges those before, which takes up to 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._inner, self.app = self.app, self._run_app
        self._start_idle_timer()
        active = sum(
            not each.is_lingering for each in cast("set[EvictableConnection]", self.connections)
        )
        if active > max_connections():
            self._refuse(Busy("too many connections are open", RETRY_AFTER_S))

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        if self.transport.drain:
            self.transport.drain.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # h11 applies its limit only to a head that is still incomplete after all data was added.
        # So it gets a little at a time, or it would accept a longer head that arrives at once.
        while data and not self.transport.is_closing():
            if self.conn.their_state is h11.MUST_CLOSE:
                # No request may follow one with `Connection: close` (RFC 9112, 9.6).
                self._has_discarded = True
                return
            in_body = self.conn.their_state is h11.SEND_BODY
            part = data if in_body else data[:PART_BYTES]
            data = data[len(part) :]
            super().data_received(part)
            if self._drain is None:
                continue
            self._idle_from_s = self.loop.time()
            self._drain.add(part)
            if self.conn.their_state is not h11.SEND_BODY and not self.is_lingering:
                # The unread body is complete. If the next request came with it, `_run_app` will
                # cancel this timer.
                self._start_idle_timer()
        if data and self.transport.drain:
            self._idle_from_s = self.loop.time()
            self.transport.drain.add(data)

    def shutdown(self) -> None:
        if not self.is_lingering:
            super().shutdown()
        if self.is_lingering:  # uvicorn waits until all connections are closed
            self._cut_off_in(STOP_S)
        self._stop_watching()

    def _stop_watching(self) -> None:
        """Disconnect a client that only watches, now or once it does: it can come back."""
        if self.transport.is_closing() or not self._running_requests:
            return
        if self._state.get(GOES_ON):
            self.transport.abort()
        else:
            self.loop.call_later(STOP_S, self._stop_watching)

    @property
    def idle_since_s(self) -> float | None:
        is_unsent = self._running_requests or self.transport.get_write_buffer_size()
        if self._response_began_s is not None and is_unsent:
            # Clients with a token may read slowly: only RESPONSE_BYTES_PER_S limits them.
            if self._state.get(AUTHORISED):
                return None
            return self._response_began_s + ANONYMOUS_RESPONSE_S
        if self._running_requests or not (self.cycle is None or self.cycle.response_complete):
            return None
        return self._idle_from_s

    def prepare_scope(self, scope: Scope) -> None:
        """Hook: may add to the scope of each request before the app is called."""

    def refusal_headers(self, error: UpscalerError) -> dict[str, str]:
        """Hook: additional headers of an error response that no app is involved in."""
        return error.headers

    def send_400_response(self, msg: str) -> None:
        """Answer invalid HTTP; uvicorn calls it."""
        # h11 reports a head that is too long by the same exception as any other invalid one.
        unread, _ = self.conn.trailing_data
        if len(unread) > MAX_HEAD_BYTES:
            self._refuse(_head_too_large())
        else:
            self._refuse(NotHTTP(self.conn.fault or msg))

    async def _run_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app for a request, unless its head is too large; uvicorn calls it as its app."""
        if self.is_lingering:
            return  # invalid HTTP arrived together with the request, and was answered already
        self._cancel_timers()
        self.prepare_scope(scope)
        # h11 measures only incomplete heads: one that its last part completes may be longer.
        if _head_bytes(scope) > MAX_HEAD_BYTES:
            self._refuse(_head_too_large())
            return
        if len(scope["headers"]) > MAX_HEADERS:
            self._refuse(HeadTooLarge(f"a request may have at most {MAX_HEADERS} headers"))
            return
        self._running_requests += 1
        self._response_began_s, self._state = None, scope["state"]
        try:
            await self._inner(scope, receive, self._with_deadline(send))
        finally:
            self._running_requests -= 1
            self._idle_from_s = self.loop.time()
            # With pipelining, uvicorn may have started the next request before this one has ended.
            if not self._running_requests and not self.is_lingering:
                self._start_idle_timer()

    def _with_deadline(self, send: Send) -> Send:
        """Return a `send` for one response that cuts off a client that reads it too slowly."""
        waited_s, sent_bytes = 0.0, 0

        async def timed(message: Message) -> None:
            nonlocal waited_s, sent_bytes
            began_s = self.loop.time()
            if self._response_began_s is None:
                self._response_began_s = self.loop.time()
            left_s = RESPONSE_GRACE_S + sent_bytes / RESPONSE_BYTES_PER_S - waited_s
            sent_bytes += len(message.get("body", b""))
            try:
                with anyio.fail_after(left_s):
                    await send(message)
            except TimeoutError:
                log.warning("a client that read its response too slowly was cut off")
                self.transport.abort()
            # Only time within `send` counts: a slow app is not the client's fault.
            waited_s += self.loop.time() - began_s

        return timed

    def _start_idle_timer(self) -> None:
        """Limit the time until the next request, plus the time to send what is still unsent."""
        self._idle_from_s = self.loop.time()
        unsent_s = _time_to_send(self.transport.get_write_buffer_size())
        if self.conn.their_state is h11.SEND_BODY:  # the app responded without reading all of it
            self._cancel_timers()
            self._drain = DrainTimer(self.loop, self.transport.abort, unsent_s)
        else:
            self._cut_off_in(HEAD_DEADLINE_S + unsent_s)

    def _cut_off_in(self, seconds: float) -> None:
        self._cancel_timers()
        self._cutoff = self.loop.call_later(seconds, self.transport.abort)

    def _cancel_timers(self) -> None:
        if self._cutoff is not None:
            self._cutoff.cancel()
            self._cutoff = None
        if self._drain is not None:
            self._drain.cancel()
            self._drain = None

    def _is_unread(self) -> bool:
        """Whether the client may have sent, or may still send, data that is never read."""
        if self.conn.their_state in (h11.SEND_BODY, h11.ERROR) or self._has_discarded:
            return True
        return bool(self.conn.trailing_data[0])

    def _refuse(self, error: UpscalerError) -> None:
        """Send `error` if a response can still be sent, and close the connection."""
        self._cancel_timers()
        if self.cycle is not None and not self.cycle.response_complete:
            # To a running app this looks like a client that has disconnected.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # no response has begun
            for event in _error_events(error, self.refusal_headers(error)):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.linger()


def _time_to_send(unsent_bytes: int) -> float:
    """How many seconds a client may take to read so many bytes."""
    return unsent_bytes / RESPONSE_BYTES_PER_S


def _head_bytes(scope: Scope) -> int:
    """The length of a request line and headers, without the spaces that h11 has removed."""
    line = len(scope["method"]) + len(scope["raw_path"]) + len(scope["query_string"])
    return line + sum(len(name) + len(value) + len(":\r\n") for name, value in scope["headers"])


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"the head may have at most {MAX_HEAD_BYTES} bytes")


def _error_events(error: UpscalerError, more: dict[str, str]) -> tuple[h11.Event, ...]:
    """Return the complete error response, and log it under a request id of its own."""
    request_id = uuid4().hex
    token = logs.request_id.set(request_id)
    log.info("refused a connection: %s", error, extra={"status": error.status})
    logs.request_id.reset(token)
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
