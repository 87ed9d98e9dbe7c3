"""Who may control the mock: programs on this machine, and no web page of another site.

The routes below /_mock need no token. A page of any site can send a POST to an address of this
machine, although it cannot read the response. With DNS rebinding, where a name of the attacker's
first resolves to its server and then to this machine, it can read that, too. So `Origin` and
`Sec-Fetch-Site`, which only browsers send and no page can change, must be those of the mock's own
pages, and `Host` must be a name that nobody elsewhere could own.
"""

import re
from collections.abc import Collection, Iterable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

PRIVATE_NAMES: Final = ("host.docker.internal", "host.containers.internal")
"""The names of the host in containers of Docker and Podman. Nobody can own a name below .internal:
it is reserved for private use (resolution 2024.07.29.06 of ICANN's board)."""
NAME: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII | re.IGNORECASE)
AUTHORITY: Final = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^:]*))(?::[0-9]{0,5})?", re.ASCII)
"""A host with or without a port (RFC 9110, 7.2, and RFC 3986, 3.2.2)."""
OWN_SITES: Final = ("same-origin", "none")
"""The `Sec-Fetch-Site` of requests by the mock's own pages, and by its user (the address bar)."""
WAY_OUT: Final = "ask from the test itself or another program, which has no such header"
MAX_QUOTED: Final = 60
"""How many characters of what a client sent are repeated in a message."""


def parse_hosts(names: Iterable[str]) -> frozenset[str]:
    """Return the names in lower case; raises ValueError for one that is not a host name."""
    hosts = frozenset(name.lower() for name in names)
    for name in hosts:
        if not is_name(name):
            raise ValueError(f"{name[:MAX_QUOTED]!r} is not a host name such as mock.example")
    return hosts


def is_name(text: str) -> bool:
    """Return whether this is a host name as URLs have it, or an IPv4 address."""
    return NAME.fullmatch(text) is not None


def refusal(scope: Scope, hosts: Collection[str]) -> str | None:
    """Return why a request may not control the mock; None if it may. `hosts` are allowed names."""
    headers = Headers(scope=scope)
    given = headers.getlist("Host")
    host = given[0].lower() if len(given) == 1 else ""  # exactly one is valid (RFC 9112, 3.2)
    # Its host may be any, such as OctoAI's, but no page in a browser can be such a client.
    if _is_in_process(scope, host):
        return None
    if not _is_allowed(host, hosts):
        return (
            f"the routes below /_mock refuse the host {', '.join(given)[:MAX_QUOTED]!r}, which a "
            "page of another site could have; allowed are IP addresses, localhost and names below "
            f"it, names without a dot, {', '.join(sorted({*PRIVATE_NAMES, *hosts}))}, and those "
            "added by upscaler-mock --admin-host NAME or Mock(admin_hosts=[NAME])"
        )
    for origin in headers.getlist("Origin"):
        scheme, _, authority = origin.lower().partition("://")
        # Both schemes: a proxy in front of the mock may add TLS.
        if scheme not in ("http", "https") or authority != host:
            page = repr(origin[:MAX_QUOTED])
            return f"the routes below /_mock refuse pages of {page} (Origin): {WAY_OUT}"
    for site in headers.getlist("Sec-Fetch-Site"):
        if site.lower() not in OWN_SITES:
            return (
                f"the routes below /_mock refuse {site[:MAX_QUOTED]!r} pages (Sec-Fetch-Site): "
                f"{WAY_OUT}"
            )
    return None


def _is_in_process(scope: Scope, host: str) -> bool:
    """Return whether a request came from a client in this process, without a socket.

    ASGI servers put the address that they listen on into `server`: an IP address, or the path of a
    Unix socket. Such clients have neither, and put the host of their URL there.
    """
    name, port = scope.get("server") or ("", None)
    return port is not None and not _is_address(name) and _name_of(host) == name.lower()


def _is_allowed(host: str, hosts: Collection[str]) -> bool:
    name = _name_of(host)
    if name is None:
        return False
    if _is_address(name) or name in hosts or name in PRIVATE_NAMES:
        return True
    # A name without a dot cannot be registered, and .localhost is reserved (RFC 6761, 6.3).
    return "." not in name or name.endswith(".localhost")


def _name_of(host: str) -> str | None:
    """Return the name or the address in a `Host`; None if it is malformed."""
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
