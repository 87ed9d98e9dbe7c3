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
"""A host that is not empty, as http and https want one (RFC 9110, 4.2.1), and perhaps a port. IPv4
addresses are names like others to it, and no user stands before either."""
MAX_PORT: Final = 65535


def is_authority(text: str) -> bool:
    """Whether a URL of http can have this as its host and port."""
    match = AUTHORITY.fullmatch(text)
    if not match or int(match["port"] or 0) > MAX_PORT:
        return False
    return match["ipv6"] is None or _is_ipv6(match["ipv6"])


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True
