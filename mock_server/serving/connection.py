"""The mock's connections: the service's, which faults can also delay and break."""

import asyncio
import socket
import struct
import sys
from contextlib import suppress
from typing import Any, Final

from starlette.types import Scope

from mock_server.faults.exchange import EXTENSION
from mock_server.rules.middleware import RULE_HEADER, rule_of_status
from upscaler.errors import UpscalerError
from upscaler.service.server.connection import Connection

GRACE_S: Final = 1.0
"""How long a delay may go on once the server is stopping."""
NO_LINGER: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""Linger for 0 seconds, so that closing the socket resets the connection (socket(7), SO_LINGER)."""


class MockConnection(Connection):
    """A connection that its requests can break: a `BreakableConnection`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  uvicorn's
        super().__init__(*args, **kwargs)
        self._lost = asyncio.Event()
        self._waiting = 0
        self._is_stopping = False

    def prepare_scope(self, scope: Scope) -> None:
        scope.setdefault("extensions", {})[EXTENSION] = self

    def refusal_headers(self, error: UpscalerError) -> dict[str, str]:
        headers = super().refusal_headers(error)
        rule = rule_of_status(error.status, has_retry_after="Retry-After" in headers)
        return headers | {RULE_HEADER: rule}

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        super().shutdown()
        # uvicorn waits for requests to end, and a timeout never does.
        self.loop.call_later(GRACE_S, self._stop_waiting)

    def end(self) -> None:
        """Close the connection after what was sent."""
        self.transport.close()

    def reset(self) -> None:
        """Reset the connection."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.transport.abort()

    async def wait(self, seconds: float | None) -> None:
        """Wait for that long, or without end if it is None; less if the connection ends."""
        if self._is_stopping:  # this request came before the stop, and waits only now
            self.transport.abort()
        self._waiting += 1
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), seconds)
        finally:
            self._waiting -= 1

    def _stop_waiting(self) -> None:
        self._is_stopping = True
        if self._waiting:
            self.transport.abort()
