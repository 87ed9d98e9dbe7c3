"""Middleware that notes requests in the journal while they are answered.

A request is noted before the first byte of its answer goes out, so that whoever has the answer
finds it there.
"""

import asyncio
from typing import Final

import anyio
from anyio import to_thread
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mock_server.faults.fault import OK
from mock_server.faults.schedule import Chosen
from mock_server.journal.journal import Journal
from upscaler.api.limits import MAX_BODY_BYTES

MAX_READ_BYTES: Final = 2 * MAX_BODY_BYTES
"""So many bytes of bodies are held for the journal while they come, of all requests together."""
INLINE_BYTES: Final = 2**18
"""A body of more than this is read in a thread, so that others are answered meanwhile."""
BESIDE_BYTES: Final = 2**22
"""A body of at most this goes on to the service while it is read there. Of a larger one the service
would make its own copies at the same time, and both together take too much memory."""


class Recording:
    """Middleware that notes what it lets pass in `journal`."""

    def __init__(self, app: ASGIApp, journal: Journal) -> None:
        self.app = app
        self._journal = journal
        self._desk = Desk()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        note = Note(self._journal, self._desk, scope)
        try:
            await self.app(scope, note.reading(receive), note.answering(send))
        except ClientDisconnect:
            raise
        except Exception:
            note.entry.status = note.entry.status or 500  # as it is answered above
            raise
        finally:
            await note.add()


class Desk:
    """What all notes share: how many bytes of bodies they hold, and who reads the large ones."""

    def __init__(self) -> None:
        self.held_bytes = 0
        self.reader = anyio.CapacityLimiter(1)  # it takes several times the memory of a body


class Note:
    """The note of one request, from its first byte on."""

    def __init__(self, journal: Journal, desk: Desk, scope: Scope) -> None:
        self.entry = journal.opened(scope)
        self._journal = journal
        self._desk = desk
        self._scope = scope
        self._body: list[bytes] | None = []
        self._held_bytes = 0
        self._reading: asyncio.Task[None] | None = None

    async def add(self) -> None:
        """Put it into the journal, once what has come as a whole is read."""
        if self._reading:
            await asyncio.shield(self._reading)
        self._add()

    def _add(self) -> None:
        """Put it into the journal, with the fault that was chosen by now; hold no body any more."""
        chosen: Chosen | None = self._scope.get("state", {}).get("chosen")
        if chosen and chosen.fault != OK:
            self.entry.fault, self.entry.fault_from = str(chosen.fault), chosen.source
        self._journal.add(self.entry)
        self._body = None
        self._hold(0)

    def reading(self, receive: Receive) -> Receive:
        """`receive`, and a body is read for the journal before, or while, its end is handed on."""

        async def read() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                await self._take(message.get("body", b""), more=message.get("more_body", False))
            return message

        return read

    def answering(self, send: Send) -> Send:
        """`send`, and the status is noted before it goes out."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.entry.status = message["status"]
                await self.add()
            await send(message)

        return answer

    async def _take(self, part: bytes, *, more: bool) -> None:
        self.entry.body_bytes += len(part)
        if self._body is None:
            return
        if not self._hold(self.entry.body_bytes):
            self._body = None
            return
        self._body.append(part)
        if not more:
            whole, self._body = b"".join(self._body), None
            self._reading = asyncio.create_task(self._read(whole))
            if not INLINE_BYTES < len(whole) <= BESIDE_BYTES:
                await asyncio.shield(self._reading)

    async def _read(self, body: bytes) -> None:
        if len(body) <= INLINE_BYTES:
            self._journal.read(self.entry, body)
        else:
            read, reader = self._journal.read, self._desk.reader
            await to_thread.run_sync(read, self.entry, body, limiter=reader)
        self._add()

    def _hold(self, size_bytes: int) -> bool:
        """Whether so many bytes may be held; if not, none are."""
        others = self._desk.held_bytes - self._held_bytes
        fits = size_bytes <= MAX_BODY_BYTES and others + size_bytes <= MAX_READ_BYTES
        self._held_bytes = size_bytes if fits else 0
        self._desk.held_bytes = others + self._held_bytes
        return fits
