"""The mock's connections: the service's, which can also be broken and held up on purpose."""

import asyncio
import socket
import struct
import sys
from contextlib import suppress
from typing import Final

from starlette.types import Receive, Scope, Send

from mock_server.rules.middleware import NamingConnection

EXTENSION: Final = "mock_server.serving.connection"
"""Under this name an app finds its request's connection in `scope["extensions"]`."""
GRACE_S: Final = 1.0
"""How long what is held up on purpose may go on once the server has been told to stop."""
LINGER: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""Linger for no time at all, so that closing a socket is a reset (socket(7), SO_LINGER)."""


class Wire(NamingConnection):
    """A connection that its requests can break."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._ended = asyncio.Event()
        self._held_up = 0
        self._told_to_stop = False

    async def _at_work(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("extensions", {})[EXTENSION] = self
        await super()._at_work(scope, receive, send)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(GRACE_S, self._end_what_is_held_up)

    def end(self) -> None:
        """Close the connection behind what was sent."""
        self.transport.close()

    def reset(self) -> None:
        """Close the connection with a reset."""
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, LINGER
        )
        self.transport.abort()

    async def wait(self, seconds: float | None) -> None:
        """Let so much time pass, or any if None; less if the connection ends."""
        if self._told_to_stop:
            self.transport.abort()
        self._held_up += 1
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), seconds)
        finally:
            self._held_up -= 1

    def _end_what_is_held_up(self) -> None:
        self._told_to_stop = True
        if self._held_up:
            self.transport.abort()
