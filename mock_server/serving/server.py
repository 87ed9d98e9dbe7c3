"""A mock on a free port of this machine, in a thread of the process that uses it.

with MockServer() as mock:
    httpx.post(f"{mock.url}/upscaling", ...)
    mock.assert_called_with(scale=2)
"""

import time
from threading import Thread
from typing import Any, Final, Self

from mock_server.mock import Mock
from mock_server.serving.connection import MockConnection
from upscaler.service.server.connection import server

HOST: Final = "127.0.0.1"
POLL_S: Final = 0.005
"""How often it is checked whether the server has started."""


class MockServer(Mock):
    """A `Mock` that is served at `url` within its `with` block, which can be entered once."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  those of Mock
        super().__init__(**options)
        self.url = ""
        self._server = server(self.app, HOST, 0, MockConnection)
        self._thread = Thread(target=self._server.run, name="upscaling-mock", daemon=True)

    @property
    def token(self) -> str:
        """The first of the tokens that it accepts."""
        return self.tokens[0]

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise OSError(f"the mock did not start on {HOST}; the log says why")
            time.sleep(POLL_S)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://{HOST}:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
