"""What h11 reads from a connection, held to what RFC 9112 asks of a server besides."""

import re
from typing import Final

import h11

from upscaler.authority import is_authority

MAX_EMPTY_LINES: Final = 8
"""Before a request line; one at least is to be passed over (RFC 9112, 2.2)."""
EMPTY_LINES: Final = re.compile(rb"(?:\r?\n)+")
ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
"""A target with its host: what is sent to a proxy, and must be taken by any server (3.2.2)."""


class Requests(h11.Connection):
    """The server's side of a connection, which raises RemoteProtocolError for a request it refuses.

    `fault` is then what is wrong with it, if it was not h11 that saw it.
    """

    fault: str | None = None
    _empty_lines = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self.their_state in (h11.IDLE, h11.DONE) and self._is_before_its_line():
            return h11.NEED_DATA
        event = super().next_event()
        if not isinstance(event, h11.Request):
            return event
        self._empty_lines = 0
        try:
            return _checked(event)
        except ValueError as error:
            self.fault = str(error)
            raise h11.RemoteProtocolError(self.fault) from error

    def _is_before_its_line(self) -> bool:
        """Pass over empty lines; whether half of one is there and nothing else yet."""
        data, _ = self.trailing_data
        if match := EMPTY_LINES.match(data):
            self._empty_lines += match[0].count(b"\n")
            if self._empty_lines <= MAX_EMPTY_LINES:
                self._receive_buffer.maybe_extract_at_most(len(match[0]))
                data = data[len(match[0]) :]
        return data == b"\r"


def _checked(request: h11.Request) -> h11.Request:
    """The request as the app may read it. Raises ValueError for one that is to be refused.

    An absolute target goes before the Host header (RFC 9112, 3.2.2), of Content-Length and
    Transfer-Encoding the second counts, and then the connection ends with the answer (6.1 and 6.3):
    whoever passed the request on may have read its end elsewhere.
    """
    target, headers = request.target, list(request.headers)
    host = dict(headers).get(b"host")
    if absolute := ABSOLUTE.fullmatch(target):
        named, rest = absolute.groups()
        _check_host(named)
        if host:
            _check_host(host)
        target = rest if rest.startswith(b"/") else b"/" + rest
        headers = [(b"host", named), *_without(b"host", headers)]
    elif host is not None:
        _check_host(host)
    if not _has_a_form_of_its_method(request.method, target):
        raise ValueError("the request's target is neither a path nor a URL of http")
    if not request.http_version.startswith(b"1."):
        raise ValueError("this server speaks HTTP/1.0 and HTTP/1.1")
    if b"transfer-encoding" in dict(headers):
        if request.http_version < b"1.1":
            raise ValueError("HTTP/1.0 has no Transfer-Encoding")
        if b"content-length" in dict(headers):
            rest_of_them = _without(b"connection", _without(b"content-length", headers))
            headers = [*rest_of_them, (b"connection", b"close")]
    if (target, headers) == (request.target, list(request.headers)):
        return request
    return h11.Request(
        method=request.method, target=target, headers=headers, http_version=request.http_version
    )


def _check_host(value: bytes) -> None:
    if not is_authority(value.decode("latin-1")):
        raise ValueError("the host of the request is not a host, or a host and a port")


def _has_a_form_of_its_method(method: bytes, target: bytes) -> bool:
    """Whether the target is in one of the forms of RFC 9112, 3.2, that go with the method.

    CONNECT with a path is answered as any other method that a path has not: with a 405.
    """
    if target.startswith(b"/") or (method, target) == (b"OPTIONS", b"*"):
        return True
    return method == b"CONNECT" and is_authority(target.decode("latin-1"))


def _without(name: bytes, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(each, value) for each, value in headers if each != name]
