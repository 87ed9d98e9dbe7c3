"""Connections to untrusted servers that cannot block the event loop, whatever they send."""

import ssl
from typing import Final

import anyio
import anyio.lowlevel
import httpcore2
from anyio import to_thread

MAX_HEAD_BYTES: Final = 32 * 1024
"""How many bytes a server may send before the body of its response, informational responses (RFC
9110 section 15.2) and headers in all: twice the limit of Node.js. Trailers and chunk extensions
have the same limit. Parsing this many bytes of the shortest headers takes Python about 25 ms."""
HEAD_PIECE_BYTES: Final = 1024
"""How much of a head is read at a time: the informational responses in it are parsed without a
pause, in 1.5 ms."""
BODY_PIECE_BYTES: Final = 16 * 1024
"""How much of a body is read at a time: it may hold trailers, which are parsed like a head."""


class BoundedConnection(httpcore2.AsyncHTTP11Connection):
    """An HTTP/1.1 connection that parses less at a time than httpcore2 does by default."""

    READ_NUM_BYTES = BODY_PIECE_BYTES
    MAX_INCOMPLETE_EVENT_SIZE = MAX_HEAD_BYTES


class TLSStream(httpcore2.AsyncNetworkStream):
    """TLS on a connection, with the handshake computed in other threads.

    A key exchange takes half a second if the server asks for 8192-bit Diffie-Hellman. anyio and
    asyncio would compute it on the event loop.
    """

    def __init__(
        self, plain: httpcore2.AsyncNetworkStream, context: ssl.SSLContext, name: str
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

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109  so named by httpcore2
        while True:
            try:
                return self._tls.read(max_bytes)
            except ssl.SSLWantReadError:
                await self._receive()
            except ssl.SSLEOFError:
                # Many servers close without a TLS close_notify. A body that was cut off is found
                # by the HTTP parser, from its Content-Length or chunks.
                return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        self._tls.write(buffer)
        await self._send()

    async def aclose(self) -> None:
        await self._plain.aclose()

    async def _receive(self) -> None:
        await self._send()  # the peer may be waiting for this before it sends anything
        data = await self._plain.read(BODY_PIECE_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _send(self) -> None:
        await self._plain.write(self._outgoing.read())


class PacedStream(httpcore2.AsyncNetworkStream):
    """A connection that hands out little at a time, so that parsing never blocks the event loop.

    httpcore2 parses all that `read` returned without a pause, for example any number of
    informational responses in a row. So `read` returns little, and to only one download per
    iteration of the event loop: all downloads share the lock `turn`.
    """

    def __init__(self, plain: httpcore2.AsyncNetworkStream, turn: anyio.Lock) -> None:
        self.in_head = True
        self._plain = plain
        self._turn = turn
        self._head_bytes = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  so named by httpcore2
        if self.in_head:
            if self._head_bytes >= MAX_HEAD_BYTES:
                raise httpcore2.RemoteProtocolError("the head of the response is too long")
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
