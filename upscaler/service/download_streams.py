"""Connections to other servers that cannot keep the event loop busy, whatever they send."""

import ssl
from typing import Final

import anyio
import anyio.lowlevel
import httpcore
from anyio import to_thread

MAX_HEAD_BYTES: Final = 32 * 1024
"""How many bytes a server may send before its answer's body, hints (RFC 9110 section 15.2) and
headers in all: twice what Node.js reads. Longer trailers or extensions of a chunk are not read
either. Python takes 25 ms or so to parse as many bytes of the shortest headers."""
HEAD_PIECE_BYTES: Final = 1024
"""How much of a head is read at once: the hints in it are parsed in a row, in 1.5 ms."""
BODY_PIECE_BYTES: Final = 16 * 1024
"""How much of a body is read at once: its trailers may be in it, which are parsed like a head."""


class BoundedConnection(httpcore.AsyncHTTP11Connection):
    """Parses less at once than httpcore does by default."""

    READ_NUM_BYTES = BODY_PIECE_BYTES
    MAX_INCOMPLETE_EVENT_SIZE = MAX_HEAD_BYTES


class TLSStream(httpcore.AsyncNetworkStream):
    """TLS on a connection, of which the handshake is computed by other threads.

    It takes half a second where the server wants a Diffie-Hellman of 8192 bits. anyio and asyncio
    would have the event loop compute it.
    """

    def __init__(
        self, plain: httpcore.AsyncNetworkStream, context: ssl.SSLContext, name: str
    ) -> None:
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    async def shake_hands(self, cores: anyio.CapacityLimiter) -> None:
        while True:
            try:
                await to_thread.run_sync(self._tls.do_handshake, limiter=cores)
            except ssl.SSLWantReadError:
                await self._receive()
            else:
                return await self._send()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109  so named by httpcore
        while True:
            try:
                return self._tls.read(max_bytes)
            except ssl.SSLWantReadError:
                await self._receive()
            except ssl.SSLEOFError:  # a lack of bytes is seen by whoever reads HTTP
                return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        self._tls.write(buffer)
        await self._send()

    async def aclose(self) -> None:
        await self._plain.aclose()

    async def _receive(self) -> None:
        await self._send()
        data = await self._plain.read(BODY_PIECE_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _send(self) -> None:
        await self._plain.write(self._outgoing.read())


class PacedStream(httpcore.AsyncNetworkStream):
    """A connection to a server that would keep the event loop busy if it could.

    What is read is parsed at once, by httpcore, however many answers it is that only announce
    another. So little is given out at a time, and only to one download at every turn of the loop:
    `turn` is what all of them wait for.
    """

    def __init__(self, plain: httpcore.AsyncNetworkStream, turn: anyio.Lock) -> None:
        self.in_head = True
        self._plain = plain
        self._turn = turn
        self._head_bytes = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  so named by httpcore
        if self.in_head:
            if self._head_bytes >= MAX_HEAD_BYTES:
                raise httpcore.RemoteProtocolError("the head of the answer is too long")
            max_bytes = HEAD_PIECE_BYTES
        data = await self._plain.read(max_bytes, timeout)
        if self.in_head:
            self._head_bytes += len(data)
        async with self._turn:
            await anyio.lowlevel.checkpoint()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._plain.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._plain.aclose()
