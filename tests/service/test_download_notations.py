"""Every way to write an address that is not public leads nowhere.

The notations are those of public lists of ways around such filters (PayloadsAllTheThings, "Server
Side Request Forgery", and OWASP's cheat sheet on its prevention), applied to an address of each
kind; the system's own resolver says what a number means. Nothing may even be connected to.
"""

import asyncio
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import quote

import httpcore2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.test_download_hosts import wide
from tests.support.http_hosts import NO_TLS, only_error, refusal
from upscaler.errors import InvalidRequest
from upscaler.service.download import Downloader
from upscaler.service.ip_ranges import NOT_PUBLIC_V4, Address, is_public

KINDS_V4 = """
    0.0.0.0 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.127.127.127 168.63.129.16
    169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1
    192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1
    255.255.255.255
"""
KINDS_V6 = """
    :: ::1 fc00::1 fd00:ec2::254 fd20:ce::254 fe80::1 fec0::1 ff02::1 ff0e::1 100::1 2001::1
    2001:2::1 2001:db8::1 2002:a9fe:a9fe:: 3fff::1 4000::1 5f00::1 64:ff9b:1::1
"""
SCHEMES = """
    file dict ftp gopher jar:http ldap netdoc php phar sftp ssh tftp ws wss data javascript blob
    view-source unix http+unix HTTPX 0
"""
CIRCLED = {**{str(n): chr(0x245F + n) for n in range(1, 10)}, "0": "⓪"}
REFUSALS = ("url_invalid", "url_refused", "url_unreachable")


async def resolve(host: str, port: int) -> list[Address]:
    """What the system takes a number for; names are not looked up, and so unknown."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [ip_address(address[0]) for *_, address in found]


def numbers(address: IPv4Address) -> Iterator[str]:
    """IPv4 in the notations of inet_aton, which most resolvers read, and some that only few do."""
    value, parts = int(address), list(address.packed)
    forms = ("{}", "{:#x}", "{:#X}", "0{:o}", "00000{:o}", "{:#010x}", "0o{:o}", "o{:o}", "{:03}")
    for form in forms:
        text = [form.format(part) for part in parts]
        yield ".".join(text)
        yield ".".join([form.format(value >> 24), form.format(value & 0xFFFFFF)])
        yield ".".join([*text[:2], form.format(value & 0xFFFF)])
        yield form.format(value)
        yield form.format(value + 2**32)
        yield ".".join([text[0], *map(str, parts[1:])])
    yield ".".join(str(part + 256) for part in parts)
    yield f"0x41414141{value:08X}"


def disguised(text: str) -> Iterator[str]:
    """A host as text, in what a normalisation or another parser may take for it."""
    yield text
    yield f"{text}."
    yield text.replace(".", "。")
    yield text.replace(".", "%2e")
    yield wide(text)
    yield "".join(CIRCLED.get(letter, letter) for letter in text)
    yield "".join(f"%{ord(letter):02x}" for letter in text)
    yield quote("".join(f"%{ord(letter):02x}" for letter in text))
    yield f"{text}%00"
    yield f"{text}%00.near.example"
    yield f"\u200b{text}"
    yield f"{text}\u00ad"


def embedded(address: IPv4Address) -> Iterator[str]:
    """IPv6 addresses that hold the IPv4 one, in all their spellings."""
    value, dotted = int(address), str(address)
    high, low = f"{value >> 16:x}", f"{value & 0xFFFF:x}"
    for prefix in ("::ffff:", "::FFFF:", "0:0:0:0:0:ffff:", "::", "64:ff9b::", "::ffff:0:"):
        yield f"[{prefix}{dotted}]"
        yield f"[{prefix}{high}:{low}]"
    yield f"[64:ff9b:1::{dotted}]"
    yield f"[2002:{high}:{low}::]"
    yield f"[2001:0:{high}:{low}::]"
    yield f"[2001::{value ^ 0xFFFFFFFF:x}]"
    yield f"[2001:4860::5efe:{high}:{low}]"
    yield f"[fe80::5efe:{dotted}]"


def spelled(address: IPv6Address) -> Iterator[str]:
    for text in (address.compressed, address.exploded, address.compressed.upper()):
        yield f"[{text}]"
        yield f"[{text}%25lo]"
        yield f"[{text}%lo]"
        yield text


def hidden(host: str) -> Iterator[str]:
    """URLs that lead to `host` for some parser or other."""
    yield f"http://{host}/"
    yield f"https://{host}/"
    yield f"http://{host}:80/"
    yield f"http://near.example@{host}/"
    yield f"http://near.example:80@{host}/"
    yield f"http://{host}\\@near.example/"
    yield f"http://{host}:80\\@@near.example/"
    yield f"http://near.example\\@{host}/"
    yield f"http://{host}#@near.example/"
    yield f"http://near.example &@{host}# @near.example/"
    yield f"http:/{host}/"
    yield f"http:\\\\{host}\\"
    yield f"http:///{host}/"
    yield f"//{host}/"
    yield f"http://{host}:00080/"
    yield f"http://{host}:+80/"
    yield f" http://{host}/"
    yield f"http://{host}\t/"
    yield f"url:http://{host}/"


@pytest.fixture(autouse=True)
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which hosts would have been connected to: nothing leaves this machine."""
    hosts: list[str] = []

    async def connect(self: object, host: str, *args: Any, **kwargs: Any) -> Any:
        hosts.append(host)
        raise httpcore2.ConnectError

    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", connect)
    return hosts


def assert_refused(urls: Iterator[str], connected: list[str]) -> set[str]:
    """The kinds of refusals."""
    kinds = set()
    fetcher = Downloader(resolve=resolve, tls=NO_TLS)

    async def fetch_all() -> None:
        """In one loop: making one takes longer than to refuse a URL."""
        for url in urls:
            with pytest.raises(InvalidRequest) as caught:
                await fetcher.fetch(url)
            error = only_error(caught.value)
            assert error.type in REFUSALS, url
            # A number may be another one's that is public: few read 0100 as the system does.
            assert all(is_public(ip_address(host)) for host in connected), url
            kinds.add(error.type)

    asyncio.run(fetch_all())
    return kinds


@pytest.mark.first(4)
@pytest.mark.parametrize("text", KINDS_V4.split())
def test_no_notation_of_an_ipv4_address_leads_to_it(text: str, connected: list[str]) -> None:
    address = IPv4Address(text)
    kinds = assert_refused((f"http://{host}/" for host in numbers(address)), connected)
    assert "url_refused" in kinds, "some of them are what the system takes for the address"
    hosts = (form for number in numbers(address) for form in disguised(number))
    assert_refused((f"http://{host}/" for host in hosts), connected)
    assert_refused((f"http://{host}/" for host in embedded(address)), connected)
    assert_refused(hidden(text), connected)
    assert_refused(hidden(str(int(address))), connected)


@pytest.mark.first(6)
@pytest.mark.parametrize("text", KINDS_V6.split())
def test_no_notation_of_an_ipv6_address_leads_to_it(text: str, connected: list[str]) -> None:
    hosts = list(spelled(IPv6Address(text)))
    kinds = assert_refused((f"http://{host}/" for host in hosts), connected)
    assert "url_refused" in kinds
    assert_refused((url for host in hosts for url in hidden(host)), connected)


def test_a_public_address_in_each_notation_is_connected_to(connected: list[str]) -> None:
    """So that what is refused above is refused for its address."""
    fetcher = Downloader(resolve=resolve, tls=NO_TLS)
    address, mapped = IPv4Address("8.8.4.4"), IPv6Address("::ffff:8.8.4.4")
    for host in ("8.8.4.4", str(int(address)), "0x8.8.1028", "0x8.0x8.0x4.0x4", "[::ffff:8.8.4.4]"):
        assert refusal(fetcher.fetch(f"http://{host}/")).type == "url_unreachable"
    assert [ip_address(host) for host in connected] == [*[address] * 4, mapped]


@pytest.mark.parametrize("scheme", SCHEMES.split())
def test_no_other_scheme_is_followed(scheme: str, connected: list[str]) -> None:
    for rest in ("//8.8.4.4/", "//8.8.4.4:80/x", "///etc/passwd", "8.8.4.4", "//"):
        download = Downloader(resolve=resolve, tls=NO_TLS).fetch(f"{scheme}:{rest}")
        assert refusal(download).type == "url_invalid"
    assert connected == []


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(NOT_PUBLIC_V4), st.data())
def test_no_address_of_a_network_that_is_not_public_is_connected_to(
    connected: list[str], network: Any, data: st.DataObject
) -> None:
    address = data.draw(st.ip_addresses(v=4, network=network))
    assert isinstance(address, IPv4Address)
    hosts = [*numbers(address), *embedded(address)]
    assert_refused((f"http://{host}/" for host in hosts), connected)
