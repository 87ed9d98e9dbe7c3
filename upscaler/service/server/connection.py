"""The server below the app: what a connection may do before, between and after its requests.

uvicorn waits without end for the head of a request and for a client that does not take its answer,
and what is not HTTP it answers in plain text. Here a connection has its time for either, there is a
limit to how many there are (see `listening`), and a refusal has the shape of all others (RES-6,
RES-7) and reaches its client (see `lingering`). How long a body may take is the app's to say: see
`intake`.
"""

import asyncio
import json
import logging
import os
import socket
import time
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
from upscaler.service.server.http1 import Requests
from upscaler.service.server.lingering import DrainTimer, LingeringTransport
from upscaler.service.server.listener import EvictableConnection, Server, most_connections

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
RETRY_AFTER_S: Final = 5
UNKNOWN_S: Final = 10.0
"""How long a client without a token may take for an answer before its connection may be dropped for
another, where there is no room: else slow ones could keep all others out."""
MAX_HEADERS: Final = 1000
"""How many headers a request may have, as nginx has it: in memory each takes a hundred bytes, be it
four bytes long."""
STOP_S: Final = 1.0
"""How long a refusal may take to be read once the server has been told to stop."""
TRUSTED_PROXIES: Final = "127.0.0.1,::1"
"""Whose X-Forwarded-Proto and X-Forwarded-For are believed if FORWARDED_ALLOW_IPS does not say."""

log = logging.getLogger(__name__)


def server(
    app: ASGIApp, host: str, port: int, connection: "type[Connection] | None" = None
) -> Server:
    """A server for `app`, not yet started, on a port of this machine; 0 is any that is free.

    Of what proxies say of their clients, it believes those alone that FORWARDED_ALLOW_IPS names.
    """
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
        proxy_headers=True,
        forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", TRUSTED_PROXIES),
    )
    return Server(config)


class Connection(EvictableConnection):
    """One client's connection.

    A subclass may override `prepare_scope` and `refusal_headers`, and extend what asyncio and
    uvicorn call (`connection_made`, `connection_lost`, `data_received`, `shutdown`).

    While no request is being answered, `_end` is the timer that cuts the connection off, or, as
    long as the rest of a body arrives that nobody reads, `_patience`.
    """

    conn: Requests
    _end: asyncio.TimerHandle | None = None
    _patience: DrainTimer | None = None
    _requests = 0
    _dropped = False
    _rest_s = 0.0
    _answer_s: float | None = None
    _state: Mapping[str, object] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  those of uvicorn
        super().__init__(*args, **kwargs)
        self.conn = Requests(h11.SERVER, MAX_HEAD_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        lingering = LingeringTransport(transport, self.loop, self._is_unread, _time_to_take)
        super().connection_made(lingering)
        # asyncio does this only on sockets of its own. Without it the last bytes of an answer wait
        # for the client's receipt of those before, and clients take 40 ms for that.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._inner, self.app = self.app, self._at_work
        self._wait_for_a_request()
        active = sum(
            not guest.lingering for guest in cast("set[EvictableConnection]", self.connections)
        )
        if active > most_connections():
            self._refuse(Busy("too many connections are open", RETRY_AFTER_S))

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_end()
        if self.transport.patience:
            self.transport.patience.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # h11 measures only heads that are not complete, so it is given a part of one at a time.
        while data and not self.transport.is_closing():
            if self.conn.their_state is h11.MUST_CLOSE:
                self._dropped = True  # no request comes behind the last one (RFC 9112, 9.6)
                return
            within_body = self.conn.their_state is h11.SEND_BODY
            part_bytes = len(data) if within_body else PART_BYTES
            self._take(data[:part_bytes])
            data = data[part_bytes:]
        if data and self.transport.patience:
            self._rest_s = self.loop.time()
            self.transport.patience.came(data)

    def shutdown(self) -> None:
        if not self.lingering:
            super().shutdown()
        if self.lingering:
            self._cut_off_in(STOP_S)

    @property
    def rests_since_s(self) -> float | None:
        unsent = self._requests or self.transport.get_write_buffer_size()
        if self._answer_s is not None and unsent:
            return None if self._state.get(AUTHORISED) else self._answer_s + UNKNOWN_S
        if self._requests or not (self.cycle is None or self.cycle.response_complete):
            return None
        return self._rest_s

    def prepare_scope(self, scope: Scope) -> None:
        """Hook: called with the scope of each request before the app is, to add to it."""

    def refusal_headers(self, error: UpscalerError) -> dict[str, str]:
        """Hook: the headers of a refusal that no app sees, besides those of every response."""
        return error.headers

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP; so uvicorn calls it."""
        unread, _ = self.conn.trailing_data
        if len(unread) > MAX_HEAD_BYTES:
            self._refuse(_head_too_large())
        else:
            self._refuse(NotHTTP(self.conn.fault or msg))

    def _take(self, data: bytes) -> None:
        """Let h11 and the app have what came."""
        super().data_received(data)
        if self._patience is None:
            return
        self._rest_s = self.loop.time()
        self._patience.came(data)
        if self.conn.their_state is not h11.SEND_BODY and not self.lingering:
            self._wait_for_a_request()  # or there is one already, which will see to that

    async def _at_work(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.lingering:
            return  # what was no HTTP came with the request, and its client is gone
        self._cancel_end()
        self.prepare_scope(scope)
        if _head_bytes(scope) > MAX_HEAD_BYTES:  # which h11 lets pass once it is there as a whole
            self._refuse(_head_too_large())
            return
        if len(scope["headers"]) > MAX_HEADERS:
            self._refuse(HeadTooLarge(f"a request may have at most {MAX_HEADERS} headers"))
            return
        self._requests += 1
        self._answer_s, self._state = None, scope["state"]
        try:
            await self._inner(scope, receive, self._in_time(send))
        finally:
            self._requests -= 1
            self._rest_s = self.loop.time()
            if not self._requests and not self.lingering:
                self._wait_for_a_request()

    def _in_time(self, send: Send) -> Send:
        """`send` for one answer, which cuts off a client that is too slow for it."""
        waited_s, sent_bytes = 0.0, 0  # what the app took between two parts is not the client's

        async def timed(message: Message) -> None:
            nonlocal waited_s, sent_bytes
            began_s = time.monotonic()
            if self._answer_s is None:
                self._answer_s = self.loop.time()
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
        self._rest_s = self.loop.time()
        unsent_s = _time_to_take(self.transport.get_write_buffer_size())
        if self.conn.their_state is h11.SEND_BODY:  # of which the app wanted no more
            self._cancel_end()
            self._patience = DrainTimer(self.loop, self.transport.abort, unsent_s)
        else:
            self._cut_off_in(HEAD_DEADLINE_S + unsent_s)

    def _cut_off_in(self, seconds: float) -> None:
        self._cancel_end()
        self._end = self.loop.call_later(seconds, self.transport.abort)

    def _cancel_end(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _is_unread(self) -> bool:
        """Whether the client may still be sending something that nobody reads any more."""
        if self.conn.their_state in (h11.SEND_BODY, h11.ERROR) or self._dropped:
            return True
        return bool(self.conn.trailing_data[0])

    def _refuse(self, error: UpscalerError) -> None:
        """Answer with `error` if an answer can still be given, and take nothing more."""
        self._cancel_end()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()  # the app is told that its client is gone
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in _events(error, self.refusal_headers(error)):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.linger()


def _time_to_take(unsent_bytes: int) -> float:
    """How many seconds a client may take for what is said and not yet sent."""
    return unsent_bytes / ANSWER_BYTES_PER_S


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
