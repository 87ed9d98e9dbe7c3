"""Requests as h11 parses them, with further rules of RFC 9112 that h11 does not check."""

import re
from typing import Final

import h11

from upscaler.host_port import is_authority

MAX_EMPTY_LINES: Final = 8
"""How many are skipped before a request line; RFC 9112, 2.2, asks for at least one."""
EMPTY_LINES: Final = re.compile(rb"(?:\r?\n)+")
ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
"""A target in absolute form, as clients send it to proxies; servers must accept it, too (3.2.2)."""


class StrictConnection(h11.Connection):
    """The server's side of a connection; raises RemoteProtocolError for an invalid request.

    `fault` is then the reason, unless h11 itself found the error.
    """

    fault: str | None = None
    _empty_lines = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self.their_state in (h11.IDLE, h11.DONE):
            self._skip_empty_lines()
            if self.trailing_data[0] == b"\r":  # perhaps half of another empty line
                return h11.NEED_DATA
        event = super().next_event()
        if not isinstance(event, h11.Request):
            return event
        self._empty_lines = 0
        try:
            return _normalized(event)
        except ValueError as error:
            self.fault = str(error)
            raise h11.RemoteProtocolError(self.fault) from error

    def _skip_empty_lines(self) -> None:
        data, _ = self.trailing_data
        if match := EMPTY_LINES.match(data):
            self._empty_lines += match[0].count(b"\n")
            # Beyond the limit they stay in the buffer, and h11 rejects them as invalid.
            if self._empty_lines <= MAX_EMPTY_LINES:
                # h11 has no public method to discard data.
                self._receive_buffer.maybe_extract_at_most(len(match[0]))


def _normalized(request: h11.Request) -> h11.Request:
    """The request as the app reads it: a target in origin form, and one host and length.

    Raises ValueError for a request that is invalid by RFC 9112.
    """
    target, headers = request.target, list(request.headers)
    host = dict(headers).get(b"host")
    if absolute := ABSOLUTE.fullmatch(target):
        named, rest = absolute.groups()
        _check_host(named)
        if host:
            _check_host(host)
        target = rest if rest.startswith(b"/") else b"/" + rest
        # The host of an absolute target overrides the Host header (3.2.2).
        headers = [(b"host", named), *_without(b"host", headers)]
    elif host is not None:
        _check_host(host)
    if not _is_target_valid(request.method, target):
        raise ValueError("the request's target is neither a path nor a URL of http")
    if not request.http_version.startswith(b"1."):
        raise ValueError("this server speaks HTTP/1.0 and HTTP/1.1")
    if b"transfer-encoding" in dict(headers):
        if request.http_version < b"1.1":
            raise ValueError("HTTP/1.0 has no Transfer-Encoding")
        if b"content-length" in dict(headers):
            # Transfer-Encoding overrides Content-Length (6.3), and the connection must be closed
            # after the response (6.1): a proxy that used the Content-Length saw another end of
            # the request, and the bytes behind it could smuggle in a second one.
            others = _without(b"connection", _without(b"content-length", headers))
            headers = [*others, (b"connection", b"close")]
    if (target, headers) == (request.target, list(request.headers)):
        return request
    return h11.Request(
        method=request.method, target=target, headers=headers, http_version=request.http_version
    )


def _check_host(value: bytes) -> None:
    if not is_authority(value.decode("latin-1")):
        raise ValueError("the host of the request is not a host, or a host and a port")


def _is_target_valid(method: bytes, target: bytes) -> bool:
    """Whether the target has a form of RFC 9112, 3.2, that the method may have.

    CONNECT with a path passes: the app answers 405, as for any method that a path does not have.
    """
    if target.startswith(b"/") or (method, target) == (b"OPTIONS", b"*"):
        return True
    return method == b"CONNECT" and is_authority(target.decode("latin-1"))


def _without(name: bytes, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(each, value) for each, value in headers if each != name]
