"""Which URLs, hosts, redirects and certificates are good, on real sockets and the real resolver."""

import asyncio
import socket
from contextlib import ExitStack, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

import httpcore2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.http_hosts import (
    AUTHORITY,
    BODY,
    HERE,
    KNOWN,
    NEAR,
    NO_TLS,
    Names,
    answer,
    certificate,
    fetcher,
    needs_many_loopbacks,
    outcome,
    raw,
    redirect,
    refusal,
    run,
    serving,
    silent,
    trusting,
    unvisited,
)
from upscaler.errors import InvalidRequest
from upscaler.service.download import MAX_REDIRECTS, MAX_URL_BYTES, Downloader
from upscaler.service.ip_ranges import Address

pytestmark = needs_many_loopbacks

# Which URLs are downloaded

INVALID = r"""
    / x x.png //near.example/ /etc/passwd http http: http:/ http:// http:/// http:///x http://?x
    http://#x http://:80/ http:near.example ftp://near.example/ file:///etc/passwd
    file://near.example/x gopher://near.example/ data:image/png;base64,AA== ws://near.example/
    ftp://near.example:80/ wss://near.example:443/ file://near.example:80/x
    javascript:1 http+unix://%2Ftmp%2Fx/ httpx://near.example/ ://near.example
    http://user@near.example/ http://user:pass@near.example/ http://:@near.example/
    http://near.example:81/ http://near.example:0/ http://near.example:-80/
    http://near.example:65616/ http://near.example:99999999999999999999/ http://near.example:8x/
    https://near.example:443x/ http://near.example:443:80/
    http://near..example/ http://.near.example/ http://near.example../ http://near!example/
    http://near%2Eexample/ http://near.example%00/ http://near.example%0d%0aX:y/
    http://near\example/ http://[near.example]/ http://[/ http://]/ http://[]/ http://::1/
    http://[::1%25lo]/ http://[::1%lo]/ http://[fe80::1%25eth0]/ http://[v1.x]/ http://[::1]x/
    http://①②⑦.⓪.⓪.①/ http://127.0.0.①/
"""
LONG = [
    f"{NEAR}/{'x' * MAX_URL_BYTES}",
    f"{NEAR}/{'ü' * (MAX_URL_BYTES // 2)}",
    f"http://{'x' * 64}.example/",
    f"http://{'x.' * 127}x/",
    f"http://{'x' * 70_000}/",
    f"http://{'ü' * 3000}/",
    f"http://near.example:{'8' * 5000}/",
]
CONTROL = [
    "",
    " ",
    f" {NEAR}/",
    "http:// near.example/",
    "http://near.example /",
    f"{NEAR}/\r\nX: y",
    f"{NEAR}/\n",
    "http://near\t.example/",
    "http://\u0000",
    f"{NEAR}/\0",
    "http://\ud800/",
    f"{NEAR}/\udfff",
    "http://near\u2028example/",
    "http://near\u200d.example/",
    "http://\u0301near.example/",
]


@pytest.mark.parametrize("url", INVALID.split() + LONG + CONTROL, ids=lambda url: repr(url)[:40])
def test_what_is_not_a_url_of_a_picture_is_not_even_resolved(url: str) -> None:
    names = Names(KNOWN)
    download = Downloader(resolve=names, tls=NO_TLS).fetch(url)
    assert refusal(download).type == "url_invalid"
    assert names.asked == []


@given(st.text("http:/@[]?#\\.a1%é。℀\uff1a\uff0f", max_size=20).map("http://{}".format))
@example("http://[::1]/")
@example("https://BÜCHER.example:443/a?b#c")
@example("http://a℀b/")
@example("http://127。0。0。1/")
def test_what_may_be_fetched_has_a_host_that_can_be_logged(url: str) -> None:
    """The service takes it out of the URL by the standard library, which must not raise."""

    async def somewhere(host: str, port: int) -> list[Address]:
        return [ip_address("1.1.1.1")]

    with suppress(InvalidRequest):
        asyncio.run(Downloader(resolve=somewhere, tls=NO_TLS).check(url))
        assert urlsplit(url).hostname


def test_a_url_may_be_as_long_as_any_recipient_takes_it() -> None:
    with serving(answer(BODY)) as host:
        url = f"{host.url}/".ljust(MAX_URL_BYTES, "x")
        assert run(fetcher(host.port).fetch(url)) == BODY


def test_the_ports_of_the_web_are_the_default() -> None:
    for url in ("http://h.example/", "https://h.example:80/", "http://h.example:443/"):
        assert refusal(Downloader(resolve=Names(), tls=NO_TLS).fetch(url)).type == "url_refused"
    error = refusal(Downloader(resolve=Names(), tls=NO_TLS).fetch("http://h.example:8080/"))
    assert error.msg.endswith("80, 443")


def test_without_the_port_of_its_scheme_a_url_must_tell_one() -> None:
    assert refusal(fetcher(8080).fetch("http://h.example/")).type == "url_invalid"


# Which hosts are connected to

LOOPBACK = r"""
    127.0.0.1 127.1 127.0.1 127.0.0.1. 127.255.255.255 2130706433 0x7f000001 0x7f.1 0X7F.0.0.1
    017700000001 0177.0.0.1 0177.1 127.0.0.01 127.0.0.0x1 127。0。0。1 ①②⑦.⓪.⓪.① 0x7f.0x0.0x0.0x1
    00000177.0.0.1 4294967296 0 0.0.0.0 00 0x0 localhost LOCALHOST LocalHost localhost.
    localhost.localdomain ip6-localhost ⓛocalhost %31%32%37.0.0.1 127.0.0.1%2e 127%2E0%2E0%2E1
    %6c%6f%63alhost [::1] [0:0:0:0:0:0:0:1] [::] [::ffff:127.0.0.1] [::FFFF:7F00:1] [::127.0.0.1]
    [0:0:0:0:0:ffff:7f00:1] [64:ff9b::7f00:1] [64:ff9b::127.0.0.1] [2002:7f00:1::] [::1%25lo]
    [::1%lo] [::ffff:0:127.0.0.1] [2001:0:7f00:1::] [::0.0.0.0] [127.0.0.1] ::1
    near.example@127.0.0.1 near.example%40127.0.0.1 near.example:80@127.0.0.1 @127.0.0.1
    127.0.0.1\@near.example near.example\@127.0.0.1 127.0.0.1#@near.example 127.0.0.1?@near.example
    127.0.0.1%00.near.example 127.0.0.1\.near.example 127.0.0.1%23.near.example
"""


def wide(text: str) -> str:
    """The full-width forms of ASCII characters, which some take for the characters themselves."""
    return "".join(chr(ord(letter) + 0xFEE0) for letter in text)


WIDE = [wide("127.0.0.1"), wide("127") + ".0.0.1", f"127{wide('.')}1", wide("localhost")]


@pytest.mark.parametrize("host", LOOPBACK.split() + WIDE)
def test_no_notation_leads_to_this_host(host: str) -> None:
    """By the system's own resolver."""
    with unvisited() as port:
        for url in (f"http://{host}:{port}/x", f"https://{host}:{port}", f"http://{host}/"):
            assert refusal(fetcher(80, port).fetch(url)).type in (
                "url_invalid",
                "url_refused",
                "url_unreachable",
            )


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "127.1", "[::ffff:7f00:1]"])
def test_a_notation_that_the_system_understands_is_refused(host: str) -> None:
    with unvisited() as port:
        assert refusal(fetcher(port).fetch(f"http://{host}:{port}/")).type == "url_refused"


@pytest.mark.parametrize("bad", [HERE, "10.0.0.1", "169.254.169.254", "::1", "fe80::1%lo"])
@pytest.mark.parametrize("first", [0, 1, 5])
def test_one_address_that_is_not_public_spoils_all(bad: str, first: int) -> None:
    addresses = [*["127.0.0.2", "127.0.0.3"] * 4]
    addresses.insert(first, bad)
    names = Names({"mixed.example": addresses})
    with serving(answer(BODY)) as host, unvisited() as port:
        for number in (host.port, port):
            download = fetcher(number, resolve=names).fetch(f"http://mixed.example:{number}/")
            assert refusal(download).type == "url_refused"
    assert host.requests == []


def test_a_name_is_resolved_once_and_what_was_checked_is_connected_to() -> None:
    names = Names(KNOWN, {"near.example": [HERE]})
    with serving(answer(BODY)) as host:
        found = run(fetcher(host.port, resolve=names).fetch(f"{NEAR}:{host.port}/"))
    assert found == BODY
    assert names.asked == ["near.example"]
    assert f"Host: near.example:{host.port}".encode() in host.requests[0]


def test_each_redirect_is_resolved_and_checked_anew() -> None:
    names = Names(KNOWN, {"near.example": [HERE]})
    with serving(redirect("/again")) as host:
        download = fetcher(host.port, resolve=names).fetch(f"{NEAR}:{host.port}/")
        assert refusal(download).type == "url_refused"
    assert names.asked == ["near.example"] * 2
    assert len(host.requests) == 1


def test_a_name_in_any_script_is_resolved_as_the_net_has_it() -> None:
    names = Names({"xn--bcher-kva.example": ["127.0.0.2"]})
    with serving(answer(BODY)) as host:
        assert run(fetcher(host.port, resolve=names).fetch(f"http://Bücher.example:{host.port}"))
    assert names.asked == ["xn--bcher-kva.example"]


def test_the_next_address_is_tried_if_one_is_dead() -> None:
    names = Names({"near.example": ["127.0.0.3", "127.0.0.3", "127.0.0.2"]})
    with serving(answer(BODY)) as host:
        assert run(fetcher(host.port, resolve=names).fetch(f"{NEAR}:{host.port}/")) == BODY


def test_the_next_address_is_tried_if_one_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = httpcore2.AnyIOBackend.connect_tcp

    async def lossy(self: httpcore2.AnyIOBackend, host: str, port: int, timeout: float, *_: object):  # type: ignore[no-untyped-def]  # noqa: ASYNC109
        if host == "127.0.0.3":
            await asyncio.sleep(timeout)
            raise httpcore2.ConnectTimeout
        return await connect(self, host, port, timeout)

    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", lossy)
    names = Names({"near.example": ["127.0.0.3", "127.0.0.2"]}, {"near.example": ["127.0.0.3"]})
    with serving(answer(BODY)) as host:
        some = fetcher(host.port, resolve=names, deadline_s=2)
        assert run(some.fetch(f"{NEAR}:{host.port}/")) == BODY
        assert refusal(some.fetch(f"{NEAR}:{host.port}/")).type == "url_timeout"


def test_only_a_few_addresses_are_tried() -> None:
    dead = [f"127.0.1.{number}" for number in range(1, 4)]
    names = Names({"near.example": [*dead, "127.0.0.2"]})
    networks = [ip_network("127.0.0.2"), ip_network("127.0.1.0/24")]
    with serving(answer(BODY)) as host:
        some = Downloader(ports=[host.port], networks=networks, resolve=names, tls=NO_TLS)
        assert refusal(some.fetch(f"{NEAR}:{host.port}/")).type == "url_unreachable"
    assert host.requests == []


def test_a_name_without_an_address_is_unreachable() -> None:
    names = Names({"near.example": []})
    assert refusal(fetcher(80, resolve=names).fetch(NEAR)).type == "url_unreachable"
    assert refusal(fetcher(80).fetch("http://near.invalid")).type == "url_unreachable"


def test_a_port_that_nobody_listens_at_is_unreachable() -> None:
    with socket.create_server(("127.0.0.2", 0)) as unused:
        port = unused.getsockname()[1]
    download = fetcher(port).fetch(f"http://127.0.0.2:{port}/")
    assert refusal(download).type == "url_unreachable"


@pytest.mark.parametrize("encrypted", [False, True])
def test_an_address_of_ipv6_is_a_host_like_others(encrypted: bool) -> None:
    tls = certificate("::1") if encrypted else None
    with ExitStack() as stack:
        try:
            host = stack.enter_context(serving(answer(BODY), address="::1", tls=tls))
        except OSError:
            pytest.skip("no IPv6 here")
        networks = [ip_network("::1")]
        some = Downloader(ports=[host.port], networks=networks, tls=trusting())
        assert run(some.fetch(host.url)) == BODY
        assert f"Host: [::1]:{host.port}\r\n".encode() in host.requests[0]


def test_an_exception_is_for_its_network_alone() -> None:
    some = Downloader(networks=[ip_network("10.1.0.0/16"), ip_network("fd00::/8")], tls=NO_TLS)
    for host in (HERE, "10.2.0.1", "10.0.255.255", "[fc00::1]", "[::ffff:10.1.0.1]"):
        assert refusal(some.fetch(f"http://{host}/")).type == "url_refused"


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_to_another_host(status: int) -> None:
    with (
        serving(answer(BODY), address="127.0.0.3") as far,
        serving(redirect(f"{far.url}/there?a=b", status)) as near,
    ):
        assert run(fetcher(near.port, far.port).fetch(near.url)) == BODY
    assert far.requests[0].startswith(b"GET /there?a=b HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("location", "path"),
    [("d", b"/a/d"), ("/d", b"/d"), ("../d", b"/d"), ("?d", b"/a/b?d"), ("", b"/a/b?c")],
)
def test_a_redirect_may_be_relative(location: str, path: bytes) -> None:
    with serving(redirect(location), answer(BODY)) as host:
        assert run(fetcher(host.port).fetch(f"{host.url}/a/b?c")) == BODY
    assert host.requests[1].split()[1] == path


def test_three_redirects_are_followed_and_four_are_not() -> None:
    hops = [redirect(f"/{number}") for number in range(MAX_REDIRECTS + 1)]
    assert len(hops) == 4
    with serving(*hops[:3], answer(BODY)) as host:
        assert run(fetcher(host.port).fetch(host.url)) == BODY
    with serving(*hops, answer(BODY)) as host:
        assert refusal(fetcher(host.port).fetch(host.url)).type == "url_redirects"
    assert len(host.requests) == 4


@pytest.mark.parametrize("there", [HERE, "127.1", "localhost", "near.invalid@127.0.0.1", "[::1]"])
def test_no_redirect_leads_to_this_host(there: str) -> None:
    with unvisited() as port, serving(redirect(f"http://{there}:{port}/")) as host:
        kind = refusal(fetcher(host.port, port).fetch(host.url)).type
    assert kind == ("url_invalid" if "@" in there else "url_refused")


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.2/",
        "gopher://127.0.0.2/",
        "ftp://127.0.0.2:PORT/",
        "data:image/png;base64,AA==",
        "http://127.0.0.2:22/",
        "//127.0.0.2/",
        "http://user@127.0.0.2/",
        "http://[",
        "http://:x",
        "//[::1%25lo]/",
        "http://%/",
        "/" + "x" * 8000,
    ],
)
def test_a_redirect_goes_only_where_a_url_may_go(location: str) -> None:
    def somewhere(connection: socket.socket) -> None:
        redirect(location.replace("PORT", str(connection.getsockname()[1])))(connection)

    assert outcome(somewhere) == "url_invalid"


def test_a_redirect_in_another_encoding_is_invalid() -> None:
    sent = raw(b"HTTP/1.1 302 Found\r\nLocation: /\xff\r\nContent-Length: 0\r\n\r\n")
    assert outcome(sent) == "url_invalid"


def test_a_redirect_without_location_is_an_error() -> None:
    assert outcome(answer(b"SECRET", 302)) == "url_redirects"


def test_the_body_of_a_redirect_is_not_waited_for() -> None:
    def endless(connection: socket.socket) -> None:
        answer(size=10**9, status=302, Location="/there")(connection)
        silent(connection)

    with serving(endless, answer(BODY)) as host:
        assert run(fetcher(host.port).fetch(host.url)) == BODY


# Encryption


@pytest.mark.parametrize("name", ["near.example", "NEAR.example", "near.example.", "127.0.0.2"])
def test_the_certificate_is_judged_by_the_name_in_the_url(name: str) -> None:
    names = Names({host: ["127.0.0.2"] for host in ("near.example", "near.example.", "127.0.0.2")})
    asked: list[str | None] = []
    tls = certificate("near.example", "127.0.0.2")
    tls.sni_callback = lambda _socket, name, _context: asked.append(name)
    with serving(answer(BODY), tls=tls) as host:
        some = fetcher(host.port, resolve=names, tls=trusting())
        assert run(some.fetch(f"https://{name}:{host.port}/")) == BODY
    assert asked == [None if name == "127.0.0.2" else "near.example"]


@pytest.mark.parametrize("name", ["far.example", "127.0.0.2", "example", "x.near.example"])
def test_a_certificate_of_another_host_is_unreachable(name: str) -> None:
    names = Names({name: ["127.0.0.2"]})
    with serving(answer(BODY), tls=certificate("near.example")) as host:
        some = fetcher(host.port, resolve=names, tls=trusting())
        assert refusal(some.fetch(f"https://{name}:{host.port}/")).type == "url_unreachable"
    assert host.requests == []


def test_a_certificate_of_an_unknown_authority_is_unreachable() -> None:
    networks = [ip_network("127.0.0.2")]
    with serving(answer(BODY), tls=certificate("near.example")) as host:
        some = Downloader(ports=[host.port], networks=networks, resolve=Names(KNOWN))
        download = some.fetch(f"https://near.example:{host.port}/")
        assert refusal(download).type == "url_unreachable"
    assert host.requests == []


def test_an_operator_may_name_authorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    networks = [ip_network("127.0.0.2")]
    with serving(answer(BODY), tls=certificate("near.example")) as host:
        some = Downloader(ports=[host.port], networks=networks, resolve=Names(KNOWN))
        assert run(some.fetch(f"https://near.example:{host.port}/")) == BODY


def test_https_and_http_do_not_understand_each_other() -> None:
    with serving(answer(BODY), tls=certificate("127.0.0.2")) as host:
        plain = fetcher(host.port, tls=trusting()).fetch(f"http://127.0.0.2:{host.port}/")
        assert refusal(plain).type == "url_unreachable"
    with serving(answer(BODY)) as host:
        some = fetcher(host.port, tls=trusting(), deadline_s=2)
        encrypted = some.fetch(f"https://127.0.0.2:{host.port}/")
        assert refusal(encrypted).type in ("url_unreachable", "url_timeout")


def test_a_redirect_may_lead_to_https() -> None:
    with (
        serving(answer(BODY), tls=certificate("127.0.0.2")) as far,
        serving(redirect(far.url)) as near,
    ):
        assert run(fetcher(near.port, far.port, tls=trusting()).fetch(near.url)) == BODY


def test_no_redirect_leads_from_https_to_http() -> None:
    with (
        serving(answer(BODY)) as far,
        serving(redirect(far.url), tls=certificate("127.0.0.2")) as near,
    ):
        download = fetcher(near.port, far.port, tls=trusting()).fetch(near.url)
        assert refusal(download).type == "url_redirects"
    assert far.requests == []


# Anything at all

PIECES = (
    *("http://", "https://", "HTTP:", "//", "/", "\\", "@", ":", "[", "]", "%", "?", "#", ".", "-"),
    *("127.0.0.1", "::1", "localhost", "xn--", "80", "443", "0x7f", "%25", "%00", "\0", "\n", " "),
    *("\ud800", "ß", "İ", "①", "。", "\u200d", "\u0301", "א", "x" * 64, "a.example", "::ffff:"),
)
URLS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=8).map("".join)


@given(st.text() | URLS | URLS.map(lambda rest: f"http://{rest}"))
@example("http://xn--a")
@example("http://xn--\x80")
@example("http://[::1]\u2100/")
def test_no_text_makes_anything_but_a_refusal(url: str) -> None:
    download = Downloader(resolve=Names(), tls=NO_TLS).fetch(url)
    with pytest.raises(InvalidRequest) as caught:
        run(download)
    assert caught.value.errors[0].type in ("url_invalid", "url_refused")


@given(st.binary(max_size=20) | URLS.map(lambda url: url.encode(errors="surrogatepass")))
@example(b"//xn--a")
@example(b"//a\xe2\x84\x80.example")
def test_no_location_makes_anything_but_a_refusal(location: bytes) -> None:
    response = httpcore2.Response(302, headers=[(b"LOCATION", location)])
    some = Downloader(tls=NO_TLS)
    here = some._parsed("http://near.example/x")
    with suppress(InvalidRequest):
        assert some._redirect_target(here, response).scheme in ("http", "https")
