"""One request and its response, and what can be done to both on purpose."""

import asyncio
from typing import Final, Protocol

import anyio
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from mock_server.faults.corruption import CORRUPTIONS, halve, throttle
from mock_server.faults.fault import BREAKING, Fault
from upscaler.api.limits import MAX_BODY_BYTES
from upscaler.service.body import BODY_DEADLINE_S

EXTENSION: Final = "mock_server.connection"
"""The key in `scope["extensions"]` under which a server offers a `BreakableConnection`."""
READ_S: Final = 0.05
"""How long a client has to read what was sent before a reset, which may discard it."""


class BreakableConnection(Protocol):
    """A connection that its own requests can delay and break."""

    async def wait(self, seconds: float | None) -> None:
        """Wait for that long, or without end if it is None; less if the connection ends."""
        ...

    def end(self) -> None:
        """Close the connection after what was sent."""
        ...

    def reset(self) -> None:
        """Reset the connection."""
        ...


class FaultyExchange:
    """One request and its response, with what a fault can do to them."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.is_broken = False
        self._send = send
        self._connection: BreakableConnection | None = scope.get("extensions", {}).get(EXTENSION)

    async def read_body(self) -> bytes | None:
        """Return the whole body, or None if it is too long or does not arrive in time."""
        body = bytearray()
        declared = Headers(scope=self.scope).get("Content-Length", "")
        # The first 20 digits decide; int() of thousands of them is slow, and then an error.
        if declared.isdecimal() and int(declared[:20]) > MAX_BODY_BYTES:
            return None
        with anyio.move_on_after(BODY_DEADLINE_S):
            while len(body) <= MAX_BODY_BYTES:
                message = await self.receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    return bytes(body) if len(body) <= MAX_BODY_BYTES else None
        return None

    async def wait(self, seconds: float) -> None:
        """Wait for that long, or less if the client disconnects."""
        if self._connection:
            await self._connection.wait(seconds)
        else:
            await asyncio.sleep(seconds)

    async def wait_for_disconnect(self) -> None:
        """Do nothing until the client disconnects."""
        if self._connection:
            await self._connection.wait(None)
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def break_off(self, fault: Fault) -> None:
        """End the connection at once, as `fault` says."""
        self.is_broken = True
        if self._connection is None:
            # ASGI cannot close a connection. Raising is all that is left under another server, and
            # most of them close it then.
            raise ConnectionAbortedError(f"the mock was asked for this fault: {fault}")
        if "reset" in fault.flags:
            await self.wait(READ_S)
            self._connection.reset()
        else:
            self._connection.end()

    def send_with(self, fault: Fault) -> Send:
        """Return the `send` of a response with `fault`.

        The last wrapper is the first to act, so a corrupted body can be throttled and broken off.
        """
        send = self._send
        if fault.flags.intersection(BREAKING):
            send = halve(send, lambda: self.break_off(fault))
        if fault.drip:
            send = throttle(send, fault.drip, self.wait)
        for flag, corrupt in CORRUPTIONS.items():
            if flag in fault.flags:
                send = corrupt(send)
        return send
