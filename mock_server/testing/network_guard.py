"""Keeps the requests of a test from reaching OctoAI's real hosts.

Python itself tells an audit hook (PEP 578) of each name that is resolved and of each connection,
whatever library it is for. So in a suite that does not use the mock nothing is replaced. In one
that does, `replace` adds what Python does not tell of: see `replacements`.
"""

import re
import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

from mock_server.testing.hosts import is_guarded, name_of

if TYPE_CHECKING:
    from mock_server.testing.replacements import Replacements

ADVICE: Final = (
    "was matched by no route, and was kept from leaving this machine. The fixture upscaling_api "
    "answers clients that use httpx or httpx2; any client can be given the URL of the fixture "
    "upscaling_mock. Set upscaling_guard = false in pytest's configuration to allow such requests"
)
URL: Final = re.compile(r"(?:CONNECT |[A-Z]+ +https?://|https?://)(?:[^/@\s]*@)?([^/:?#\s]+)")
"""A URL, or a line of HTTP that asks a proxy for one; its host is the group."""


class UnmockedRequest(AssertionError):
    """A test sent a request to a real host; the message says to which, and what to do."""


class NetworkGuard:
    """Blocks requests to the guarded hosts from `start` to `stop`, and records them."""

    def __init__(self) -> None:
        self._blocked: dict[str, None] = {}  # a set that keeps its order
        self._replacements: Replacements | None = None

    def start(self) -> None:
        """Guard this process."""
        _guards.append(self)
        _listen_once()

    def stop(self) -> None:
        """Allow all requests again."""
        _guards.remove(self)
        if self._replacements:
            self._replacements.undo()

    def replace(self) -> None:
        """Guard as well what Python does not tell of, from now on."""
        if self._replacements is None:
            from mock_server.testing.replacements import Replacements  # noqa: PLC0415  imports ssl

            self._replacements = Replacements(self.check, self.record)

    def replace_imported(self) -> None:
        """Do so in libraries that were imported since the last call."""
        if self._replacements:
            self._replacements.update()

    def take_report(self) -> str:
        """Return what was blocked since the last call in a sentence, or an empty text."""
        hosts, self._blocked = list(self._blocked), {}
        return f"a request to {', '.join(hosts)} {ADVICE}." if hosts else ""

    def check(self, host: object) -> None:
        """Record a guarded host and raise UnmockedRequest; do nothing for any other."""
        if self.record(host):
            raise UnmockedRequest(f"a request to {name_of(host)} {ADVICE}.")

    def record(self, host: object) -> bool:
        """Record a guarded host; return whether it is one."""
        if not is_guarded(host):
            return False
        self._blocked[name_of(host)] = None
        return True

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Check the hosts in an event of Python's."""
        for host in EVENTS[event](*arguments):
            self.check(host)
        if self._replacements and event.startswith("socket."):
            self.check(self._replacements.asked.get())


def _hosts_of_address(_socket: object, address: object, *_: object) -> tuple[object, ...]:
    return address[:1] if isinstance(address, tuple) else ()


def _hosts_of_connection(connection: object, host: object, *_: object) -> tuple[object, ...]:
    # Through a proxy the host is the proxy's, and the real one is that of the tunnel.
    return host, getattr(connection, "_tunnel_host", None)


def _hosts_of_data(_connection: object, data: object) -> tuple[object, ...]:
    if not isinstance(data, bytes | bytearray):
        return ()
    found = URL.match(data[:2048].decode("latin-1"))
    return found.groups() if found else ()


def _hosts_of_url(url: object, *_: object) -> tuple[object, ...]:
    found = URL.match(str(url))
    return found.groups() if found else ()


def _hosts_of_lookup(host: object, *_: object) -> tuple[object, ...]:
    return (host,)


EVENTS: Final[dict[str, Callable[..., tuple[object, ...]]]] = {
    "socket.connect": _hosts_of_address,
    "socket.getaddrinfo": _hosts_of_lookup,
    "socket.gethostbyaddr": _hosts_of_lookup,
    "socket.gethostbyname": _hosts_of_lookup,
    # By these the proxy of http.client's users is asked: urllib, urllib3 and requests.
    "http.client.connect": _hosts_of_connection,
    "http.client.send": _hosts_of_data,
    "urllib.Request": _hosts_of_url,
}
"""The events of Python in which hosts are, and these by what an event brings."""

_guards: Final[list[NetworkGuard]] = []
_listening: Final[list[Callable[..., None]]] = []


def _hear(
    event: str,
    arguments: tuple[Any, ...],
    # Held here, since Python goes on calling this while it takes modules apart at its end.
    events: Collection[str] = EVENTS,
    guards: list[NetworkGuard] = _guards,
) -> None:
    # Python calls this for everything that it tells of, and most of it is something else.
    if event in events:
        for guard in reversed(guards):  # the one of an inner run first
            guard.hear(event, arguments)


def _listen_once() -> None:
    """Add the audit hook: only once, since none can be removed."""
    if not _listening:
        _listening.append(_hear)
        sys.addaudithook(_hear)
