"""Hosts of pictures that never come to an end, and what others notice of them."""

import asyncio
import json
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_network

import httpx
import pytest

from tests.support.http_hosts import (
    AUTHORITY,
    BODY,
    PATIENCE_S,
    Answer,
    Host,
    answer,
    certificate,
    chunked,
    fetcher,
    needs_many_loopbacks,
    raw,
    serving,
    silent,
)
from tests.support.processes import child
from tests.support.raw_http import CLOSE, HEAD, answers, connected, request, rest
from tests.support.service import SETTINGS, Resizer, running
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.service.download import Downloader
from upscaler.service.download_streams import MAX_HEAD_BYTES
from upscaler.service.intake import MAX_DOWNLOADS

pytestmark = needs_many_loopbacks

DEADLINE_S = 3.0
LIVE_S = 1.5
"""How long the service may take to say that it lives: half as long as a flood lasts, since the
machine itself may stand still for a moment."""


def without_end(data: bytes, begin: Answer | None = None) -> Answer:
    """`begin`, and then `data` again and again."""

    def flood(connection: socket.socket) -> None:
        if begin:
            begin(connection)
        while True:
            connection.sendall(data)

    return flood


def slow_head(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def long_trailers(connection: socket.socket) -> None:
    chunked(connection)
    connection.sendall(b"0\r\n" + b"a:\r\n" * 24_000 + b"\r\n")
    silent(connection)


def long_extension(connection: socket.socket) -> None:
    chunked(connection)
    connection.sendall(b"1;")


FLOODS: dict[str, tuple[Answer, str]] = {
    "hints": (without_end(b"HTTP/1.1 103\r\n\r\n" * 4000), "url_unreachable"),
    "headers": (without_end(b"a:\r\n" * 16_000, raw(b"HTTP/1.1 200 OK\r\n")), "url_unreachable"),
    "a head that just fits": (
        raw(b"HTTP/1.1 404 No\r\n" + b"a:\r\n" * (MAX_HEAD_BYTES // 4 - 10) + b"\r\n"),
        "url_status",
    ),
    "a byte of a head now and then": (slow_head, "url_timeout"),
    "chunks of a byte": (without_end(b"1\r\nx\r\n" * 10_000, chunked), "url_timeout"),
    "extensions of chunks": (
        without_end(b"1;" + b"x" * 30_000 + b"\r\nx\r\n", chunked),
        "url_timeout",
    ),
    "an extension without end": (without_end(b"x" * 65_536, long_extension), "url_unreachable"),
    "trailers": (long_trailers, "url_unreachable"),
    "redirects to itself": (
        without_end(b"x" * 65_536, answer(size=10**9, status=302, Location="/")),
        "url_redirects",
    ),
    "a key exchange that takes long": (answer(b"", 404), "url_status"),
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service in a process of its own."""
    folder = tmp_path_factory.mktemp("service")
    AUTHORITY.cert_pem.write_to_path(str(folder / "ca.pem"))
    with (
        child(folder, str(folder / "ca.pem"), module=__name__) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        yield client


def watched(api: httpx.Client, host: Host, downloads: int) -> tuple[float, list[bytes]]:
    """The longest that /livez took during so many downloads at once, and what came of them."""
    asked = request({"init_image_url": host.url, "scale": 2}, HEAD + CLOSE)
    waiting = [connected(api) for _ in range(downloads)]
    for connection in waiting:
        connection.sendall(asked)
    slowest_s, ended = 0.0, []
    while waiting:
        began_s = time.monotonic()
        assert api.get("/livez", timeout=PATIENCE_S).status_code == 200
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        for connection in select.select(waiting, [], [], 0.01)[0]:
            waiting.remove(connection)
            with connection:
                ended.append(rest(connection))
    return slowest_s, ended


@pytest.mark.first(1)
@pytest.mark.parametrize("name", FLOODS)
def test_a_service_says_that_it_lives_while_hosts_flood_it(name: str, api: httpx.Client) -> None:
    flood, kind = FLOODS[name]
    with serving(flood, tls=slow_to_agree() if "key" in name else None) as host:
        began_s = time.monotonic()
        slowest_s, ended = watched(api, host, MAX_DOWNLOADS)
        took_s = time.monotonic() - began_s
    kinds = {json.loads(one.body)["detail"][0]["type"] for data in ended for one in answers(data)}
    assert slowest_s < LIVE_S
    assert kinds <= {kind, "url_timeout"}  # which it may come to where the machine is busy
    assert took_s < 3 * DEADLINE_S  # of a machine that has other work, too


def slow_to_agree() -> ssl.SSLContext:
    """TLS whose key exchange takes a sixth of a second: Diffie-Hellman of 8192 bits (RFC 7919)."""
    if ssl.OPENSSL_VERSION_INFO < (3,):
        pytest.skip("OpenSSL knows no such groups")
    tls = certificate("127.0.0.2")
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        tls.set_ecdh_curve("ffdhe8192")
    except ssl.SSLError:  # as with the Python of Debian 12
        pytest.skip("this Python knows no such key exchange")
    return tls


# Names


def test_lookups_that_hang_block_neither_the_loop_nor_other_lookups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = threading.Event()
    look_up = socket.getaddrinfo

    def hang(host: str, *args: object, **options: object) -> object:
        if host.startswith("hung"):
            done.wait(PATIENCE_S)
            raise socket.gaierror
        return look_up(host, *args, **options)  # type: ignore[arg-type]

    async def main(host: Host) -> bytes:
        some = fetcher(host.port, 80)
        hung = [
            asyncio.create_task(some.fetch(f"http://hung{number}.example/"))
            for number in range(MAX_DOWNLOADS)
        ]
        try:
            await asyncio.sleep(0)
            assert await asyncio.wait_for(asyncio.to_thread(lambda: True), PATIENCE_S / 4)
            return await asyncio.wait_for(some.fetch(host.url), PATIENCE_S / 4)
        finally:
            done.set()
            await asyncio.gather(*hung, return_exceptions=True)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with serving(answer(BODY)) as host:
        assert asyncio.run(main(host)) == BODY


def serve(authority: str) -> None:
    """Be a service that downloads from the hosts of tests, until standard input is closed."""
    download = Downloader(
        ports=range(2**16),
        networks=[ip_network("127.0.0.2")],
        tls=ssl.create_default_context(cafile=authority),
        deadline_s=DEADLINE_S,
    ).fetch
    with running(create_app(LocalBackend(Resizer()), SETTINGS, fetch=download)) as url:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1])
