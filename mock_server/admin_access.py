"""Who may steer the mock over a socket: what runs on the machine, and no page in a browser there.

The routes below /_mock need no token. A page of any site can send a POST to an address of this
machine, whatever it may read of the answer; and under a name of its own, which its DNS first says
is its server and then this machine (DNS rebinding), it can read it, too. So `Origin` and
`Sec-Fetch-Site`, which browsers alone send and no page can change, must be those of a page of the
mock's own, and `Host` must be none that somebody elsewhere could own.
"""

import re
from collections.abc import Collection, Iterable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

PRIVATE_NAMES: Final = ("host.docker.internal", "host.containers.internal")
"""What containers of Docker and Podman call the machine that they run on. The internet's DNS has
nothing below .internal (resolution 2024.07.29.06 of ICANN's board)."""
NAME: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII | re.IGNORECASE)
AUTHORITY: Final = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^:]*))(?::[0-9]{0,5})?", re.ASCII)
"""A host, and a port or none (RFC 9110, 7.2, and RFC 3986, 3.2.2)."""
OWN_SITES: Final = ("same-origin", "none")
"""What `Sec-Fetch-Site` says of requests of a page of the mock's own, and of its user's own."""
SHOWN: Final = 60
"""How many characters of what a client sent are told again."""


def hosts_of(names: Iterable[str]) -> frozenset[str]:
    """The names that are taken besides those that always are; raises ValueError for no name."""
    given = frozenset(name.lower() for name in names)
    for name in given:
        if not is_name(name):
            raise ValueError(f"{name[:SHOWN]!r} is no name of a host, such as mock.example")
    return given


def is_name(text: str) -> bool:
    """Whether this can be the name of a host in a URL, or an IPv4 address."""
    return NAME.fullmatch(text) is not None


def refusal(scope: Scope, hosts: Collection[str]) -> str | None:
    """Why a request may not steer the mock, which is taken under `hosts`; None if it may."""
    headers = Headers(scope=scope)
    given = headers.getlist("Host")
    host = given[0].lower() if len(given) == 1 else ""
    if in_process(scope, host):
        return None
    if not _is_taken(host, hosts):
        return (
            f"what is below /_mock is not for the host {', '.join(given)[:SHOWN]!r}, which a page "
            "of another site could have: it is for IP addresses, localhost and what is below it, "
            f"names without a dot, {', '.join(sorted({*PRIVATE_NAMES, *hosts}))}, and what "
            "upscaler-mock --admin-host NAME or Mock(admin_hosts=[NAME]) adds"
        )
    for origin in headers.getlist("Origin"):
        scheme, _, authority = origin.lower().partition("://")
        if scheme not in ("http", "https") or authority != host:
            return f"what is below /_mock is not for pages of {origin[:SHOWN]!r} (Origin)"
    for site in headers.getlist("Sec-Fetch-Site"):
        if site.lower() not in OWN_SITES:
            return f"what is below /_mock is not for other pages: {site[:SHOWN]!r} (Sec-Fetch-Site)"
    return None


def in_process(scope: Scope, host: str) -> bool:
    """Whether a request came without a socket, from a client in this process.

    Servers say where they listen: an IP address, or the path of a Unix socket. Such clients have
    neither and say the name in their URL, whichever it is.
    """
    name, port = scope.get("server") or ("", None)
    return port is not None and not _is_address(name) and _name_of(host) == name.lower()


def _is_taken(host: str, hosts: Collection[str]) -> bool:
    name = _name_of(host)
    if name is None:
        return False
    if _is_address(name) or name in hosts or name in PRIVATE_NAMES:
        return True
    return "." not in name or name.endswith(".localhost")


def _name_of(host: str) -> str | None:
    """The name or the address in a `Host`; None if that is malformed."""
    match = AUTHORITY.fullmatch(host)
    if match is None:
        return None
    if match["host"] is None:
        return match["v6"] if _is_v6(match["v6"]) else None
    return match["host"] if is_name(match["host"]) else None


def _is_address(name: str) -> bool:
    try:
        IPv4Address(name)
    except AddressValueError:
        return _is_v6(name)
    return True


def _is_v6(name: str) -> bool:
    try:
        return not IPv6Address(name).scope_id  # no URL in a browser can have one
    except AddressValueError:
        return False
