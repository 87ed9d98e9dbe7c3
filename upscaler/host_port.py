"""Which host and port a URL or a Host header may name (RFC 3986, 3.2.2 and 3.2.3)."""

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final

AUTHORITY: Final = re.compile(
    r"""(?:
        \[ (?: (?P<ipv6> [0-9A-Fa-f:.]+ ) | v[0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+ ) \]
        | (?: [A-Za-z0-9\-._~!$&'()*+,;=] | %[0-9A-Fa-f]{2} )+
    )
    (?: : (?P<port> [0-9]{0,5} ) )?""",
    re.VERBOSE | re.ASCII,
)
"""A host, which http and https require (RFC 9110, 4.2.1), and an optional port, without userinfo.
IPv4 addresses match as names."""
MAX_PORT: Final = 65535


def is_authority(text: str) -> bool:
    """Whether this is a valid host and optional port of an http URL."""
    match = AUTHORITY.fullmatch(text)
    if not match or int(match["port"] or 0) > MAX_PORT:
        return False
    if match["ipv6"] is not None:
        try:
            IPv6Address(match["ipv6"])
        except AddressValueError:
            return False
    return True
