"""Middleware that adds requests to the journal while they are answered.

A request is in the journal before the first byte of its response is sent, so a test that has the
response finds the request there.
"""

import asyncio
from typing import Final

import anyio
from anyio import to_thread
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mock_server.faults.fault import OK
from mock_server.faults.schedule import SelectedFault
from mock_server.journal.journal import Journal
from upscaler.api.limits import MAX_BODY_BYTES

MAX_HELD_BYTES: Final = 2 * MAX_BODY_BYTES
"""How many bytes of incoming bodies are held for the journal, of all requests together."""
INLINE_BYTES: Final = 2**18
"""A larger body is read in a thread, so that other requests are answered meanwhile."""
CONCURRENT_BYTES: Final = 2**22
"""A body of at most this goes on to the service while the journal reads it. With a larger one, the
copies of both at the same time would take too much memory."""


class JournalMiddleware:
    """Middleware that adds each request to `journal`."""

    def __init__(self, app: ASGIApp, journal: Journal) -> None:
        self.app = app
        self._journal = journal
        self._budget = BodyBudget()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        recorder = RequestRecorder(self._journal, self._budget, scope)
        try:
            await self.app(scope, recorder.wrap_receive(receive), recorder.wrap_send(send))
        except ClientDisconnect:
            raise  # nothing was sent, so the status stays None
        except Exception:
            recorder.entry.status = recorder.entry.status or 500  # RequestMiddleware sends it
            raise
        finally:
            await recorder.finish()


class BodyBudget:
    """What all requests share: how many bytes of bodies they hold, and the thread that reads."""

    def __init__(self) -> None:
        self.held_bytes = 0
        self.reader = anyio.CapacityLimiter(1)  # reading takes several times the memory of a body

    def resize(self, before: int, after: int) -> bool:
        """Hold `after` bytes instead of `before` if there is room, and return whether there is."""
        others = self.held_bytes - before
        fits = after <= MAX_BODY_BYTES and others + after <= MAX_HELD_BYTES
        self.held_bytes = others + (after if fits else 0)
        return fits


class RequestRecorder:
    """Records one request, from its first byte on."""

    def __init__(self, journal: Journal, budget: BodyBudget, scope: Scope) -> None:
        self.entry = journal.open_entry(scope)
        self._journal = journal
        self._budget = budget
        self._scope = scope
        self._chunks: list[bytes] | None = []
        self._held_bytes = 0
        self._reading: asyncio.Task[None] | None = None

    async def finish(self) -> None:
        """Add the request to the journal, once its body has been read if that has begun."""
        if self._reading:
            # The request is cancelled when its client disconnects, but its body was sent.
            await asyncio.shield(self._reading)
        self._add()

    def wrap_receive(self, receive: Receive) -> Receive:
        """Return `receive` that reads the body for the journal, before or while it hands it on."""

        async def receive_and_record() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                await self._take(message.get("body", b""), more=message.get("more_body", False))
            return message

        return receive_and_record

    def wrap_send(self, send: Send) -> Send:
        """Return `send` that finishes the record before the response begins."""

        async def record_and_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.entry.status = message["status"]
                await self.finish()
            await send(message)

        return record_and_send

    async def _take(self, chunk: bytes, *, more: bool) -> None:
        self.entry.body_bytes += len(chunk)
        if self._chunks is None:
            return
        if not self._hold(self.entry.body_bytes):
            self._chunks = None  # the service still gets the body; the journal does without
            return
        self._chunks.append(chunk)
        if not more:
            body, self._chunks = b"".join(self._chunks), None
            self._reading = asyncio.create_task(self._read(body))
            if not INLINE_BYTES < len(body) <= CONCURRENT_BYTES:
                await asyncio.shield(self._reading)

    async def _read(self, body: bytes) -> None:
        # A body that is compressed may be a hundred times as long as it looks.
        if len(body) <= INLINE_BYTES and "content-encoding" not in self.entry.headers:
            self._journal.read_body(self.entry, body)
        else:
            read, reader = self._journal.read_body, self._budget.reader
            await to_thread.run_sync(read, self.entry, body, limiter=reader)
        self._add()

    def _add(self) -> None:
        """Add the request to the journal with the fault selected by now, and hold no body."""
        # FaultMiddleware is inside this middleware, and has left it there if it was reached.
        selected: SelectedFault | None = self._scope.get("state", {}).get("fault")
        if selected and selected.fault != OK:
            self.entry.fault, self.entry.fault_from = str(selected.fault), selected.source
        self._journal.add(self.entry)
        self._chunks = None
        self._hold(0)

    def _hold(self, size_bytes: int) -> bool:
        """Hold so many bytes of the body if there is room, and otherwise none."""
        fits = self._budget.resize(self._held_bytes, size_bytes)
        self._held_bytes = size_bytes if fits else 0
        return fits
