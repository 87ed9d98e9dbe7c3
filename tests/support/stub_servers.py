"""HTTP servers that respond as a test wants, and record what they receive."""

import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class ReceivedRequest:
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


Reply = tuple[int, dict[str, str], bytes] | None
"""A status, headers and a body; None closes the connection."""
OK: Final[Reply] = (200, {}, b"{}")


@dataclass
class StubServer:
    url: str = ""
    seen: list[ReceivedRequest] = field(default_factory=list)

    @property
    def posts(self) -> list[ReceivedRequest]:
        return [received for received in self.seen if received.method == "POST"]


@contextmanager
def stub_server(reply: Callable[[ReceivedRequest], Reply]) -> Iterator[StubServer]:
    """A server on a free port of this machine that responds with `reply`."""
    known = StubServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            received = ReceivedRequest(
                self.command, self.path, self.headers.items(), self.rfile.read(length)
            )
            known.seen.append(received)
            told = reply(received)
            if told is None:
                self.close_connection = True
                return
            status, headers, body = told
            self.send_response_only(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = do_PATCH = respond  # noqa: N815  its names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        known.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield known
        finally:
            server.shutdown()
            thread.join()


def in_turn(*replies: Reply) -> Callable[[ReceivedRequest], Reply]:
    """A server's replies in turn, and then always the last one."""
    left = list(replies)

    def reply(received: ReceivedRequest) -> Reply:
        if received.path == "/healthcheck":
            return OK
        return left.pop(0) if len(left) > 1 else left[0]

    return reply


def status_only(status: int, **headers: str) -> Reply:
    """A response without an image."""
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, b""


def unused_url() -> str:
    """A URL at which nothing responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
