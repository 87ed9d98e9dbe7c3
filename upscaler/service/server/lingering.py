"""Closing a connection so that its client can still read what it was told (RFC 9112, 9.6).

A socket that is closed with something unread in it resets the connection, and the reset takes away
what was sent just before: an answer that refuses a body before it is there. So the server's side is
closed alone, and what comes is thrown away until the client closes its own, which it does once it
has read the answer. What a client may still send, and for how long, is bounded.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from upscaler.api.limits import MAX_BODY_BYTES

LINGER_S: Final = 5.0
LINGER_BYTES_PER_S: Final = 250_000
"""A client that was refused has five seconds to close the connection, and as much longer as the
bytes that it goes on sending take at 2 Mbit/s, which any body must have."""
LINGER_BYTES: Final = 2 * MAX_BODY_BYTES
"""How much of what nobody reads may come. Clients that send all of a body before they read the
answer should get it, even one that is larger than allowed."""


class DrainTimer:
    """Waits for what is thrown away to end, and calls `cut_off` if that takes too long.

    `more_s` is how much longer it may take, for what must be taken first.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, cut_off: Callable[[], None], more_s: float
    ) -> None:
        self._loop = loop
        self._cut_off = cut_off
        self._until_s = loop.time() + LINGER_S + more_s
        self._bytes = 0
        self._timer = loop.call_at(self._until_s, self._look)

    def came(self, data: bytes) -> None:
        """Note that this was thrown away."""
        self._bytes += len(data)
        self._until_s += len(data) / LINGER_BYTES_PER_S
        if self._bytes > LINGER_BYTES:
            self._cut_off()

    def cancel(self) -> None:
        """Wait no longer."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._loop.time() < self._until_s:
            self._timer = self._loop.call_at(self._until_s, self._look)
        else:
            self._cut_off()


class LingeringTransport(asyncio.Transport):
    """A transport that lingers before it is closed, if `unread` says that something may come.

    What comes meanwhile is to be handed to `patience`.
    """

    patience: DrainTimer | None = None

    def __init__(
        self,
        inner: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        unread: Callable[[], bool],
        time_to_take: Callable[[int], float],
    ) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._unread = unread
        self._time_to_take = time_to_take

    def close(self) -> None:
        if self.patience is None and not self._inner.is_closing() and self._unread():
            self.linger()
        elif self.patience is None:
            self._inner.close()

    def linger(self) -> None:
        """Close this side alone, behind what was written, and read on."""
        if self.patience is not None or self._inner.is_closing():
            return
        unsent_s = self._time_to_take(self._inner.get_write_buffer_size())
        self.patience = DrainTimer(self._loop, self._inner.abort, unsent_s)
        if self._inner.can_write_eof():
            self._inner.write_eof()
        self._inner.resume_reading()

    def drop(self) -> None:
        """Close both sides now."""
        if self._inner.get_write_buffer_size():
            self._inner.abort()
        else:
            self._inner.close()

    def is_closing(self) -> bool:
        return self.patience is not None or self._inner.is_closing()

    def pause_reading(self) -> None:
        if self.patience is None:
            self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.patience is None:
            self._inner.write(data)

    def get_write_buffer_size(self) -> int:
        return self._inner.get_write_buffer_size()

    def abort(self) -> None:
        self._inner.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401  asyncio's
        return self._inner.get_extra_info(name, default)
