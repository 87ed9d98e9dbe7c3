"""Which IP addresses belong to the public internet.

The registries of special-purpose addresses are IANA's, for IPv4 and IPv6 (RFC 6890, RFC 8190).
Python's `ipaddress.is_global` follows them only in part: it accepts multicast, the metadata
services of two clouds, and 127.0.0.1 embedded in IPv6. So the lists are kept here.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

Address = IPv4Address | IPv6Address

NOT_PUBLIC_V4: Final = (
    IPv4Network("0.0.0.0/8"),  # this network, and with it this host: RFC 791 section 3.2
    IPv4Network("10.0.0.0/8"),  # private: RFC 1918
    IPv4Network("100.64.0.0/10"),  # behind a carrier's NAT: RFC 6598; Alibaba's 100.100.100.200
    IPv4Network("127.0.0.0/8"),  # loopback: RFC 1122 section 3.2.1.3
    IPv4Network("168.63.129.16/32"),  # Azure's own services, on each of its virtual machines
    IPv4Network("169.254.0.0/16"),  # link-local: RFC 3927; the clouds' metadata at 169.254.169.254
    IPv4Network("172.16.0.0/12"),  # private: RFC 1918
    IPv4Network("192.0.0.0/24"),  # IETF protocols: RFC 6890; Oracle's metadata, 192.0.0.192
    IPv4Network("192.0.2.0/24"),  # documentation: RFC 5737
    IPv4Network("192.88.99.0/24"),  # 6to4 relays, deprecated: RFC 7526
    IPv4Network("192.168.0.0/16"),  # private: RFC 1918
    IPv4Network("198.18.0.0/15"),  # benchmarks: RFC 2544
    IPv4Network("198.51.100.0/24"),  # documentation: RFC 5737
    IPv4Network("203.0.113.0/24"),  # documentation: RFC 5737
    IPv4Network("224.0.0.0/4"),  # multicast: RFC 5771
    IPv4Network("240.0.0.0/4"),  # reserved: RFC 1112 section 4; the broadcast address: RFC 919
)
"""All other IPv4 addresses are public."""

PUBLIC_V6: Final = IPv6Network("2000::/3")
"""The only range that IANA allocates global unicast addresses from (RFC 4291 section 2.4). Outside
are loopback, IPv4-compatible addresses such as ::127.0.0.1, unique local addresses (fd00:ec2::254
is Amazon's metadata service), link-local, site-local and multicast."""

NOT_PUBLIC_V6: Final = (
    IPv6Network("2001::/23"),  # IETF protocols: RFC 2928; Teredo, RFC 4380, is one of them
    IPv6Network("2001:db8::/32"),  # documentation: RFC 3849
    IPv6Network("2002::/16"),  # 6to4, which leads to the IPv4 address inside: RFC 3056
    IPv6Network("3fff::/20"),  # documentation: RFC 9637
)
"""What is not public inside PUBLIC_V6. Tunnels that embed an IPv4 address, 6to4 and Teredo, are
excluded as a whole: no server of images has only such an address."""

EMBEDDING: Final = (
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped: RFC 4291 section 2.5.5.2
    IPv6Network("64:ff9b::/96"),  # NAT64: RFC 6052, all that a host without IPv4 sees of IPv4
)
"""Ranges whose last 32 bits are the IPv4 address that is reached, which is checked instead.
Local-use NAT64 (64:ff9b:1::/48, RFC 8215) is not public, since it lies outside PUBLIC_V6."""

ISATAP: Final = 0x5EFE
"""Bits 64 to 95 of an address whose last 32 bits are the IPv4 address of a tunnel endpoint (RFC
5214 section 6.1), apart from bit 0x2000000, which says only whether that address is unique."""


def is_public(address: Address) -> bool:
    """Whether `address` is on the public internet, as far as the address alone shows.

    The zone id of an IPv6 address makes no difference. NAT64 with a prefix of the operator's own
    public addresses cannot be recognised.
    """
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_V4)
    if any(address in network for network in EMBEDDING):
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    is_isatap = int(address) >> 32 & 0xFDFFFFFF == ISATAP
    is_listed = any(address in network for network in NOT_PUBLIC_V6)
    return address in PUBLIC_V6 and not is_listed and not is_isatap
