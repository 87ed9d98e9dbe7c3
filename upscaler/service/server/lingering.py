"""Closes a connection in such a way that its client can still read the response (RFC 9112, 9.6).

Closing a socket with unread data in it resets the connection, and on a reset the client loses what
it has not read yet, such as an error that was sent before its body had arrived. So only the
server's direction is closed first, and incoming data is discarded until the client closes its own,
as it does once it has read the response. The amount and the time of this are limited.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from upscaler.api.limits import MAX_BODY_BYTES

LINGER_S: Final = 5.0
LINGER_BYTES_PER_S: Final = 250_000
"""A client has five seconds to close the connection, plus the time that the bytes it still sends
take at 2 Mbit/s."""
LINGER_BYTES: Final = 2 * MAX_BODY_BYTES
"""How many bytes are discarded at most. Many clients send a whole body before they read anything:
they get the response even if the body is larger than allowed."""


class DrainTimer:
    """Limits the time and the amount of discarded data; calls `cut_off` beyond either limit.

    `more_s` extends the time, for a response that the client must read first.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, cut_off: Callable[[], None], more_s: float
    ) -> None:
        self._loop = loop
        self._cut_off = cut_off
        self._until_s = loop.time() + LINGER_S + more_s
        self._bytes = 0
        self._timer = loop.call_at(self._until_s, self._check)

    def add(self, data: bytes) -> None:
        """Count discarded data."""
        self._bytes += len(data)
        self._until_s += len(data) / LINGER_BYTES_PER_S
        if self._bytes > LINGER_BYTES:
            self._cut_off()

    def cancel(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _check(self) -> None:
        # `add` only moves the deadline: a new timer for each part would cost more.
        if self._loop.time() < self._until_s:
            self._timer = self._loop.call_at(self._until_s, self._check)
        else:
            self._cut_off()


class LingeringTransport(asyncio.Transport):
    """A transport that lingers when it is closed, if `is_unread` says that data may be unread.

    Data that arrives while it lingers must be passed to `drain`. `time_to_send` returns the seconds
    that a client may take to read a number of bytes.
    """

    drain: DrainTimer | None = None

    def __init__(
        self,
        inner: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        is_unread: Callable[[], bool],
        time_to_send: Callable[[int], float],
    ) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._is_unread = is_unread
        self._time_to_send = time_to_send

    def close(self) -> None:
        if self.drain is None and not self._inner.is_closing() and self._is_unread():
            self.linger()
        elif self.drain is None:
            self._inner.close()

    def linger(self) -> None:
        """Close this direction after what was written, and go on reading."""
        if self.drain is not None or self._inner.is_closing():
            return
        unsent_s = self._time_to_send(self._inner.get_write_buffer_size())
        self.drain = DrainTimer(self._loop, self._inner.abort, unsent_s)
        if self._inner.can_write_eof():
            self._inner.write_eof()
        self._inner.resume_reading()  # uvicorn pauses it while a body is not consumed

    def close_now(self) -> None:
        """Close both directions without lingering."""
        # asyncio's `close` first sends what is buffered: a client that reads nothing prevents it.
        if self._inner.get_write_buffer_size():
            self._inner.abort()
        else:
            self._inner.close()

    def is_closing(self) -> bool:
        # To uvicorn a lingering transport is closed: it parses no more requests and sends nothing.
        return self.drain is not None or self._inner.is_closing()

    def pause_reading(self) -> None:
        # Unread data would reset the connection: while it lingers, reading must go on.
        if self.drain is None:
            self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        # After `write_eof` the inner transport would raise an error.
        if self.drain is None:
            self._inner.write(data)

    def get_write_buffer_size(self) -> int:
        return self._inner.get_write_buffer_size()

    def abort(self) -> None:
        self._inner.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401  asyncio's
        return self._inner.get_extra_info(name, default)
