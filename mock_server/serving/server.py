"""A mock on a free port of this machine, in a thread of the process that uses it.

with MockServer() as mock:
    httpx.post(f"{mock.url}/upscaling", ...)
    mock.assert_called_with(scale=2)
"""

import asyncio
import socket
import warnings
from contextlib import suppress
from email.utils import formatdate
from threading import Event, Thread
from typing import Any, Final, Self

import uvicorn

from mock_server import real_time
from mock_server.mock import Mock
from mock_server.serving.connection import MockConnection
from upscaler.service.server.connection import server
from upscaler.service.server.listener import Server

HOST: Final = "127.0.0.1"
TICKS_PER_S: Final = 10
"""uvicorn's."""
STOP_S: Final = 10.0
"""How long the server may take to stop, and then once more without waiting for its requests."""


class GuestServer(Server):
    """A server in a process whose clock belongs to a test."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started_or_ended = Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.has_started_or_ended.set()

    async def on_tick(self, counter: int) -> bool:
        # uvicorn's own asks the module `time` for the date, ten times a second.
        if counter % TICKS_PER_S == 0:
            date = formatdate(real_time.time(), usegmt=True).encode()
            self.server_state.default_headers = [(b"date", date), *self.config.encoded_headers]
        return self.should_exit


class MockServer(Mock):
    """A `Mock` that is served at `url` within its `with` block, which can be entered once.

    Clients that obey the proxies of the environment, as most do, reach it only if NO_PROXY names
    127.0.0.1, where there is a proxy.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  those of Mock
        super().__init__(**options)
        self.url = ""
        self._server = GuestServer(server(self.app, HOST, 0, MockConnection).config)
        self._thread = Thread(target=self._run, name="upscaling-mock", daemon=True)

    @property
    def token(self) -> str:
        """The first of the tokens that it accepts."""
        return self.tokens[0]

    def __enter__(self) -> Self:
        self._loop = real_time.EventLoop()
        self._thread.start()
        self._server.has_started_or_ended.wait()
        if not self._server.started:
            raise OSError(f"the mock did not start on {HOST}; the log says why")
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://{HOST}:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        for how in ("should_exit", "force_exit"):
            with suppress(RuntimeError):  # it has ended already
                # In the loop's own thread, which this wakes.
                self._loop.call_soon_threadsafe(setattr, self._server, how, True)
            self._thread.join(STOP_S)
            if not self._thread.is_alive():
                return
        warnings.warn(
            f"the mock at {self.url} does not stop: something has blocked its thread, "
            f"{self._thread.name}, which now ends with the process",
            RuntimeWarning,
            stacklevel=2,
        )

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._server.serve())
        finally:
            self._server.has_started_or_ended.set()
