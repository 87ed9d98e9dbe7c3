"""Downloading, from real servers that do whatever they like."""

import asyncio
import gzip
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpcore2
import pytest

from tests.support.http_hosts import (
    BODY,
    HERE,
    NEAR,
    PATIENCE_S,
    Answer,
    Host,
    answer,
    certificate,
    chunked,
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
from upscaler.errors import FieldError, InvalidRequest
from upscaler.service import download as module
from upscaler.service.download import FETCH_DEADLINE_S, MAX_FETCH_BYTES

pytestmark = needs_many_loopbacks

# What is asked for, and what comes of it


def test_the_bytes_are_those_that_were_sent() -> None:
    with serving(answer(BODY)) as host:
        assert run(fetcher(host.port).fetch(f"{host.url}/a b/ü.png?q=1#part")) == BODY
    (head,) = host.requests
    first, *headers = head.decode().rstrip().split("\r\n")
    assert first == "GET /a%20b/%C3%BC.png?q=1 HTTP/1.1"
    assert headers == [
        f"Host: 127.0.0.2:{host.port}",
        "Accept: image/png, image/jpeg, image/webp",
        "Accept-Encoding: identity",
        "Connection: close",
        "User-Agent: octo-upscaler",
    ]


def test_every_picture_takes_one_connection_which_ends_with_it() -> None:
    with serving(answer(BODY)) as host:
        for _ in range(3):
            run(fetcher(host.port).fetch(host.url))
            assert host.hung_up.acquire(timeout=PATIENCE_S)
    assert len(host.requests) == 3


def to_the_end(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)
    connection.shutdown(socket.SHUT_WR)


def in_chunks(connection: socket.socket) -> None:
    chunked(connection)
    for at in range(0, len(BODY), 1000):
        part = BODY[at : at + 1000]
        connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
    connection.sendall(b"0\r\n\r\n")


def after_hints(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5)
    answer(BODY)(connection)


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("send", [to_the_end, in_chunks, after_hints])
def test_a_body_may_be_sent_in_any_way(send: Answer, encrypted: bool) -> None:
    with serving(send, tls=certificate("127.0.0.2") if encrypted else None) as host:
        assert run(fetcher(host.port, tls=trusting()).fetch(host.url)) == BODY


def test_an_empty_body_is_left_to_whoever_reads_pictures() -> None:
    with serving(answer(b"")) as host:
        assert run(fetcher(host.port).fetch(host.url)) == b""


def test_nothing_is_decompressed() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    held: list[int] = []
    with serving(answer(bomb, Content_Encoding="gzip")) as host:
        assert run(fetcher(host.port).fetch(host.url, held.append)) == bomb
    assert held[-1] == len(bomb)


def test_the_environment_cannot_name_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answer(BODY)) as host, unvisited() as port:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://{HERE}:{port}")
            monkeypatch.setenv(name.upper(), f"http://{HERE}:{port}")
        monkeypatch.setenv("no_proxy", "")
        assert run(fetcher(host.port).fetch(host.url)) == BODY


def test_many_downloads_at_once_do_not_mix() -> None:
    def echo(connection: socket.socket) -> None:
        time.sleep(0.01)
        head = host.requests[-1]
        answer(head.split()[1])(connection)

    async def main(fetch: Callable[[str], Awaitable[bytes]]) -> list[bytes]:
        return await asyncio.gather(*(fetch(f"{host.url}/{number}") for number in range(20)))

    with serving(answer(b"x" * 10), answer(b"y" * 20)) as host:
        found = asyncio.run(main(fetcher(host.port).fetch))
    assert sorted(map(len, found)) == [10] + [20] * 19


@pytest.mark.parametrize(
    "status", [100, 101, 199, 201, 204, 206, 300, 304, 305, 400, 401, 404, 418, 500, 503, 999]
)
def test_any_other_status_is_told(status: int) -> None:
    sent = raw(b"HTTP/1.1 %d SECRET\r\nX: SECRET\r\nContent-Length: 6\r\n\r\nSECRET" % status)
    with serving(sent) as host:
        error = refusal(fetcher(host.port).fetch(host.url))
    if status < 200:  # these announce an answer, which then is missing
        assert error.type == "url_unreachable"
    else:
        assert error.type == "url_status"
        assert f"HTTP status {status} " in error.msg


# Limits


def test_the_limits() -> None:
    assert MAX_FETCH_BYTES == 32 * 2**20
    assert FETCH_DEADLINE_S == 20


def test_a_file_that_is_said_to_be_too_large_is_not_read() -> None:
    held: list[int] = []

    def large(connection: socket.socket) -> None:
        answer(b"SECRET", size=MAX_FETCH_BYTES + 1)(connection)
        silent(connection)

    with serving(large) as host:
        download = fetcher(host.port).fetch(host.url, held.append)
        assert refusal(download).type == "url_too_large"
    assert held == []


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("announced", [True, False])
def test_the_largest_file_is_known_to_the_byte(
    over: int, announced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FETCH_BYTES", len(BODY) - over)
    with serving(answer(BODY) if announced else in_chunks) as host:
        download = fetcher(host.port).fetch(host.url)
        if over:
            assert refusal(download).type == "url_too_large"
        else:
            assert run(download) == BODY


def test_a_body_without_end_is_cut_off() -> None:
    sent = 0

    def endless(connection: socket.socket) -> None:
        nonlocal sent
        chunked(connection)
        while True:
            connection.sendall(b"100000\r\n%b\r\n" % bytes(0x100000))
            sent += 0x100000

    held: list[int] = []
    with serving(endless) as host:
        download = fetcher(host.port).fetch(host.url, held.append)
        assert refusal(download).type == "url_too_large"
    assert MAX_FETCH_BYTES - 2**20 <= max(held) <= MAX_FETCH_BYTES
    assert sent < 2 * MAX_FETCH_BYTES, "far more was read than a file may have"


def test_a_file_that_is_longer_than_it_said_is_what_it_said() -> None:
    with serving(answer(BODY + b"SECRET", size=len(BODY))) as host:
        assert run(fetcher(host.port).fetch(host.url)) == BODY


def drip(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x")
        time.sleep(0.02)


def slow_body(connection: socket.socket) -> None:
    answer(size=1_000_000)(connection)
    drip(connection)


def slow_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    drip(connection)


def slow_redirect(connection: socket.socket) -> None:
    time.sleep(0.2)
    redirect("/again")(connection)


@pytest.mark.parametrize("slow", [silent, slow_body, slow_headers])
def test_a_server_that_takes_too_long_is_given_up(slow: Answer) -> None:
    started = time.monotonic()
    assert outcome(slow, deadline_s=0.5) == "url_timeout"
    assert time.monotonic() - started < PATIENCE_S / 4


def test_there_is_one_deadline_for_all_redirects() -> None:
    assert outcome(*[slow_redirect] * 3, answer(BODY), deadline_s=0.5) == "url_timeout"


def test_a_server_that_never_shakes_hands_is_given_up() -> None:
    with socket.create_server(("127.0.0.2", 0)) as mute:
        port = mute.getsockname()[1]
        download = fetcher(port, tls=trusting(), deadline_s=1).fetch(f"https://127.0.0.2:{port}/")
        assert refusal(download).type == "url_timeout"


def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, done = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        asked.set()
        done.wait(PATIENCE_S)
        return []

    async def main() -> bytes:
        try:
            return await fetcher(80, deadline_s=0.5).fetch(NEAR)
        finally:
            done.set()  # or the loop would wait for the thread as it ends

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    started = time.monotonic()
    assert refusal(main()).type == "url_timeout"
    assert time.monotonic() - started < PATIENCE_S / 4
    assert asked.is_set()


def test_parts_that_arrive_at_once_leave_others_their_turn() -> None:
    turns, held = 0, list[int]()

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> bytes:
        task = asyncio.create_task(others())
        try:
            return await fetcher(host.port).fetch(host.url, lambda _: held.append(turns))
        finally:
            task.cancel()

    with serving(raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + TINY)) as host:
        assert len(asyncio.run(main())) == 5000
    assert len(set(held)) == len(held) == 5000


TINY = b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n"


# Servers that break off or break the rules


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0",
        b"SSH-2.0-SECRET\r\n",
        b"220 SECRET ESMTP\r\n" * 1000,
        b"\r\n" * 1000,
        BODY,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: SECRET\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nSECRET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nSECRET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nSECRET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 100 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2_000_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 200_000,
    ],
    ids=lambda sent: repr(sent[:60]),
)
def test_what_is_not_http_or_breaks_off_is_unreachable(sent: bytes) -> None:
    assert outcome(raw(sent)) == "url_unreachable"


def test_a_connection_that_is_reset_is_unreachable() -> None:
    def reset(connection: socket.socket) -> None:
        answer(b"SECRET", size=1000)(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    assert outcome(reset) == "url_unreachable"


def test_an_encrypted_connection_that_turns_to_rubbish_is_unreachable() -> None:
    def rubbish(connection: socket.socket) -> None:
        answer(b"SECRET", size=1000)(connection)
        plain = socket.socket(fileno=os.dup(connection.fileno()))
        with plain:
            plain.sendall(b"rubbish" * 1000)
        silent(connection)

    with serving(rubbish, tls=certificate("127.0.0.2")) as host:
        download = fetcher(host.port, tls=trusting()).fetch(host.url)
        assert refusal(download).type == "url_unreachable"


# Whoever downloads


def test_the_bytes_held_are_told_as_they_grow() -> None:
    held: list[int] = []
    with serving(answer(BODY)) as host:
        run(fetcher(host.port).fetch(host.url, held.append))
    assert held == sorted(set(held))
    assert held[-1] == len(BODY)
    assert len(held) > 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        TimeoutError(),
        OSError(),
        InvalidRequest(FieldError(("body",), "full", "full")),
        httpcore2.ReadError(),
        StopAsyncIteration(),
    ],
    ids=repr,
)
def test_whatever_holding_them_raises_ends_the_download(error: Exception) -> None:
    def refuse(held: int) -> None:
        raise error

    def half(connection: socket.socket) -> None:
        answer(BODY, size=2 * len(BODY))(connection)
        silent(connection)

    async def main() -> BaseException:
        try:
            await fetcher(host.port).fetch(host.url, refuse)
        except Exception as caught:  # no StopAsyncIteration could leave this function
            return caught
        raise AssertionError

    with serving(half) as host:
        assert asyncio.run(main()) is error
        assert host.hung_up.acquire(timeout=PATIENCE_S)


def test_whoever_gives_up_hangs_up() -> None:
    async def main() -> None:
        task = asyncio.create_task(fetcher(host.port).fetch(host.url))
        await asyncio.to_thread(asked.acquire, timeout=PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asked = threading.Semaphore(0)

    def silent_once_asked(connection: socket.socket) -> None:
        asked.release()
        silent(connection)

    with serving(silent_once_asked) as host:
        asyncio.run(main())
        assert host.hung_up.acquire(timeout=PATIENCE_S)


ANSWERS = (
    answer(BODY),
    redirect("/again"),
    in_chunks,
    answer(b"SECRET", 500),
    raw(b"rubbish"),
    answer(BODY, size=MAX_FETCH_BYTES + 1),
    silent,
    redirect("http://127.0.0.1/"),
    answer(BODY, size=len(BODY) + 1),
)


async def mixed(host: Host, downloads: int) -> set[str]:
    """The types of the errors of so many downloads, twenty at a time."""
    kinds = set()
    some = fetcher(host.port, 80, 1, deadline_s=0.2)
    urls = [host.url, host.url, "http://127.0.0.2:1/", "http://127.0.0.1/", "http://near.invalid"]
    for start in range(0, downloads, 20):
        several = [some.fetch(urls[number % 5]) for number in range(start, start + 20)]
        results = await asyncio.gather(*several, return_exceptions=True)
        kinds |= {result.errors[0].type for result in results if isinstance(result, InvalidRequest)}
        assert all(isinstance(result, bytes | InvalidRequest) for result in results), results
    return kinds


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors cannot be counted")
def test_no_download_leaves_anything_open() -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def main(host: Host) -> None:
        await mixed(host, 20)
        before = descriptors()
        kinds = await mixed(host, 200)
        assert kinds >= {"url_unreachable", "url_refused", "url_timeout", "url_status"}
        for _ in range(1000):
            if descriptors() <= before and len(asyncio.all_tasks()) == 1:
                break  # generators are closed by tasks, when the collector has come by
            await asyncio.sleep(0.01)
        assert descriptors() <= before
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with serving(*ANSWERS * 200) as host:
        asyncio.run(main(host))
