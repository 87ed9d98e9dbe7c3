"""Requests as bytes on a connection, for what no client library would send."""

import json
import socket
from contextlib import suppress
from typing import Any, NamedTuple

import httpx

from tests.support.service import GOOD

HEAD = (
    b"POST /upscaling HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer first-token\r\n"
)
"""Of a request with a valid token, but for the length of its body."""
CLOSE = b"Connection: close\r\n"
END = b"\r\n\r\n"
"""Of any head."""
PATIENCE_S = 100
"""How long a connection waits for what must come: a machine that does much else may stand still."""


class Answer(NamedTuple):
    """A response as received up to its end, with header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def detail(self) -> str:
        """The one sentence of an error (RES-7)."""
        detail = json.loads(self.body)["detail"]
        assert isinstance(detail, str)
        return detail


def connected(api: httpx.Client) -> socket.socket:
    address = api.base_url.host, api.base_url.port or 80
    return socket.create_connection(address, timeout=PATIENCE_S)


def request(fields: dict[str, Any] = GOOD, head: bytes = HEAD) -> bytes:
    body = json.dumps(fields).encode()
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def send(api: httpx.Client, fields: dict[str, Any] = GOOD) -> socket.socket:
    """A connection on which a whole request was sent; the response is not awaited."""
    connection = connected(api)
    connection.sendall(request(fields))
    return connection


def rest(connection: socket.socket) -> bytes:
    """All bytes that still arrive, until the server closes or a timeout."""
    data = bytearray()
    with suppress(OSError):
        while part := connection.recv(2**16):
            data += part
    return bytes(data)


def answers(data: bytes) -> list[Answer]:
    """The responses in `data` except interim ones; the body of the last may be incomplete."""
    found = []
    while END in data:
        head, _, data = data.partition(END)
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", 0))
        if int(status) >= 200:
            found.append(Answer(int(status), headers, data[:length]))
        data = data[length:]
    return found


def exchange(api: httpx.Client, data: bytes, patience_s: float = PATIENCE_S) -> bytes:
    """The bytes that `data` gets in response on a connection of its own: see `rest`."""
    with connected(api) as connection:
        connection.settimeout(patience_s)
        with suppress(OSError):  # who is refused early may not get all of it across
            connection.sendall(data)
        return rest(connection)
