"""Both sides of a download: servers on their own loopback addresses, and their clients."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address, ip_network
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest
import trustme

from upscaler.errors import FieldError, InvalidRequest
from upscaler.service.download import Downloader, Resolve, resolve
from upscaler.service.ip_ranges import Address

HERE = "127.0.0.1"
"""What nobody may connect to. Tests allow 127.0.0.2 and 127.0.0.3 instead."""
NEAR = "http://near.example"
KNOWN = {"near.example": ["127.0.0.2"]}
"""A name for the server of a test, for a resolver that knows it."""
BODY = bytes(range(256)) * 700
AUTHORITY = trustme.CA()
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
PATIENCE_S = 60


def _many_loopbacks() -> bool:
    try:
        socket.create_server(("127.0.0.2", 0)).close()
    except OSError:
        return False
    return True


needs_many_loopbacks = pytest.mark.skipif(
    not _many_loopbacks(), reason="only 127.0.0.1 is loopback here, as on macOS"
)

Answer = Callable[[socket.socket], None]
"""Answers one request, whose head has been read, on the connection that it came by."""


def answer(
    body: bytes = b"", status: int = 200, *, size: int | None = None, **headers: str
) -> Answer:
    """A response with `body` and a Content-Length of `size`, which may be false."""
    lines = [f"HTTP/1.1 {status} Any"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body) if size is None else size}", "", ""]
    return raw("\r\n".join(lines).encode() + body)


def redirect(location: str, status: int = 302) -> Answer:
    return answer(b"SECRET", status, Location=location)


def raw(data: bytes) -> Answer:
    return lambda connection: connection.sendall(data)


def silent(connection: socket.socket) -> None:
    """Send nothing more until the client disconnects."""
    connection.recv(1)


def chunked(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


class Host(ThreadingTCPServer):
    """A server on a free port of `address`; it notes the heads of the requests that it gets.

    It gives its answers in turn, and then always the last. `hung_up` counts the connections that
    ended, whoever ended them.
    """

    daemon_threads = False  # so that closing it waits for the answers to end
    request_queue_size = 128

    def __init__(self, answers: tuple[Answer, ...], address: str, tls: ssl.SSLContext | None):
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, 0), Handler)
        self.address, self.answers, self.tls = address, answers, tls
        self.port = self.socket.getsockname()[1]
        shown = f"[{address}]" if ":" in address else address
        self.url = f"{'https' if tls else 'http'}://{shown}:{self.port}"
        self.requests: list[bytes] = []
        self.hung_up = threading.Semaphore(0)

    def meet(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        with suppress(OSError):  # of which whoever hangs up leaves many kinds
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head:
                part = connection.recv(65536)
                if not part:
                    return
                head += part
            self.requests.append(head)
            self.answers[min(len(self.requests), len(self.answers)) - 1](connection)
            if self.tls:
                connection.close()


class Handler(BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Host)
        self.server.meet(self.request)

    def finish(self) -> None:
        assert isinstance(self.server, Host)
        self.server.hung_up.release()


@contextmanager
def serving(
    *answers: Answer, address: str = "127.0.0.2", tls: ssl.SSLContext | None = None
) -> Iterator[Host]:
    with Host(answers, address, tls) as host:
        thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield host
        finally:
            host.shutdown()
            thread.join()


@contextmanager
def unvisited(address: str = HERE) -> Iterator[int]:
    """A port of `address`, and for 127.0.0.1 of ::1 too, that nobody may connect to."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server((address, 0)))]
        port: int = listeners[0].getsockname()[1]
        if address == HERE:
            with suppress(OSError):  # no IPv6
                other = socket.create_server(("::1", port), family=socket.AF_INET6)
                listeners.append(stack.enter_context(other))
        yield port
        for listener in listeners:
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()


class Names:
    """A resolver that answers from `tables`, each time from the next, then always from the last.

    It notes which names it is asked for. Those that it does not know are loopback.
    """

    def __init__(self, *tables: Mapping[str, Iterable[str]]) -> None:
        self.tables = tables or ({},)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        await asyncio.sleep(0)
        table = self.tables[min(len(self.asked), len(self.tables)) - 1]
        return [ip_address(address) for address in table.get(host, [HERE])]


def fetcher(
    *ports: int,
    resolve: Resolve = resolve,
    tls: ssl.SSLContext = NO_TLS,
    deadline_s: float = PATIENCE_S,
) -> Downloader:
    networks = [ip_network("127.0.0.2/31")]
    return Downloader(
        ports=ports, networks=networks, resolve=resolve, tls=tls, deadline_s=deadline_s
    )


def certificate(*names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*names).configure_cert(context)
    return context


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def run(download: Awaitable[bytes]) -> bytes:
    async def main() -> bytes:
        return await download

    return asyncio.run(main())


def refusal(download: Awaitable[bytes]) -> FieldError:
    """The error that a download fails with, whose message must not describe the other host."""
    with pytest.raises(InvalidRequest) as caught:
        run(download)
    return only_error(caught.value)


def only_error(refused: InvalidRequest) -> FieldError:
    """The same of what was raised."""
    (error,) = refused.errors
    assert error.loc == ("body", "init_image_url")
    for secret in ("SECRET", "://", "127.", "example", "::1", "%"):
        assert secret not in error.msg
    return error


def outcome(*answers: Answer, path: str = "/", deadline_s: float = PATIENCE_S) -> str:
    """The type of the error with which a download from a server with these responses ends."""
    with serving(*answers) as host:
        return refusal(fetcher(host.port, deadline_s=deadline_s).fetch(host.url + path)).type
