"""What is public: judged by notation, by the edges of each network, and against Python's view."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from upscaler.service.ip_ranges import EMBEDDING, NOT_PUBLIC_V4, NOT_PUBLIC_V6, PUBLIC_V6, is_public

PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0
    168.63.129.15 168.63.129.17 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0
    198.17.255.255 198.20.0.0 223.255.255.255
    2000:: 2001:200:: 2001:4860:4860::8888 2606:4700:4700::1111 2a00:1450:4001:80b::200e
    3fff:1000:: 2001:4860:4860::8888%eth0 2001:4860::5efe 2001:4860::1:5efe:808:808
    ::ffff:8.8.8.8 64:ff9b::8.8.8.8 64:ff9b::808:808
"""
LOCAL = """
    0.0.0.0 0.1.2.3 127.0.0.1 127.255.255.255 10.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1
    169.254.0.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 192.0.2.1 198.51.100.1
    203.0.113.1 198.18.0.1 198.19.255.255 192.88.99.1 192.0.0.8 192.0.0.170 100.64.0.1
    :: ::1 ::2 ::127.0.0.1 ::8.8.8.8 ::ffff:0:127.0.0.1 100::1 fc00::1 fd12:3456:789a::1 fe80::1
    fe80::1%eth0 ::1%lo febf::1 fec0::1 feff::1 ff02::1 ff0e::1 5f00::1 4000:: 1fff:ffff:: 8000::
    2001:db8::1 3fff::1 2001::1 2001:2::1 2001:10::1 2001:20::1 2001:1ff::1
"""
METADATA = """
    169.254.169.254 169.254.170.2 192.0.0.192 168.63.129.16 100.100.100.200 fd00:ec2::254
    fd20:ce::254 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe
"""
HIDDEN = """
    ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:127.0.0.1%lo ::ffff:10.0.0.1 64:ff9b::7f00:1
    64:ff9b::192.168.0.1 64:ff9b:1::8.8.8.8 64:ff9b:0:1::8.8.8.8 2002:7f00:1:: 2002:808:808::1
    2001:0:7f00:1:: 2001:0:4136:e378:8000:63bf:80ff:fffe 2001:4860::5efe:7f00:1
    2001:4860::200:5efe:10.0.0.1 fe80::5efe:127.0.0.1
"""


@pytest.mark.parametrize("text", PUBLIC.split())
def test_what_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", (LOCAL + METADATA + HIDDEN).split())
def test_what_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("network", [*NOT_PUBLIC_V4, *NOT_PUBLIC_V6], ids=str)
def test_a_network_is_not_public_from_its_first_address_to_its_last(network: IPv6Network) -> None:
    assert not is_public(network[0])
    assert not is_public(network[-1])


@given(st.ip_addresses(v=4))
def test_an_embedded_address_decides(inner: IPv4Address) -> None:
    for network in EMBEDDING:
        assert is_public(network[int(inner)]) is is_public(inner)


@given(st.ip_addresses(v=6))
def test_nothing_is_public_that_nobody_is_given(address: IPv6Address) -> None:
    assume(not any(address in network for network in EMBEDDING))
    assert address in PUBLIC_V6 or not is_public(address)


@given(st.ip_addresses())
def test_nothing_is_public_that_python_calls_private(address: IPv4Address | IPv6Address) -> None:
    assume(not any(address in network for network in EMBEDDING))
    assert address.is_global or not is_public(address)
