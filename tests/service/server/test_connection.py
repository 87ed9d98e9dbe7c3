"""What a connection may do before, between and after its requests, on real sockets."""

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest

from tests.service.test_operations import eventually, metrics
from tests.support.raw_http import (
    CLOSE,
    END,
    HEAD,
    answers,
    connected,
    exchange,
    request,
    rest,
    send,
)
from tests.support.service import GOOD, SETTINGS, Resizer, serving
from upscaler.models import UpscalingModel
from upscaler.service import logs
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.service.server import connection as server
from upscaler.service.server import lingering
from upscaler.service.server import listener as listening
from upscaler.service.server.connection import MAX_HEAD_BYTES, MAX_HEADERS, PART_BYTES

LARGE = {**GOOD, "scale": 26}
"""Asks for a picture of so many bytes that no socket takes them unread."""
WRONG = HEAD.replace(b"first-token", b"wrong-token")
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
HEALTH = b"GET /healthcheck HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    with serving(Resizer()) as client:
        yield client


@pytest.fixture(autouse=True)
def no_fault_of_ours(api: httpx.Client, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert api.get("/livez").status_code == 200
    assert [r for r in caplog.get_records("call") if r.levelno >= logging.ERROR] == []


# What is no request


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a greeting in TLS
        b"GET /livez HTTP/1.1\r\n\r\n",  # no Host
        b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /li vez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1, 2\r\n\r\n",
        HEAD + b"Content-Length: 1e3\r\n\r\n",
        HEAD + b"Content-Length: %s\r\n\r\n" % (b"9" * 30),
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        HEAD + CHUNKED + b"xyz\r\n",
    ],
)
def test_what_is_no_http_is_told_so_in_the_shape_of_all_errors(
    api: httpx.Client, data: bytes
) -> None:
    (answer,) = answers(exchange(api, data))
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["connection"] == "close"
    assert len(answer.headers["x-user-request-id"]) == 32
    assert answer.detail


def test_what_is_no_http_is_logged_under_the_id_that_its_sender_was_told(
    api: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    ids = []
    factory = logging.getLogRecordFactory()

    def noting(*args: object, **kwargs: object) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        if record.name == server.__name__:
            ids.append(logs.request_id.get())
        return record

    logging.setLogRecordFactory(noting)
    try:
        with caplog.at_level(logging.INFO, server.__name__):
            (answer,) = answers(exchange(api, b"hello\r\n\r\n"))
    finally:
        logging.setLogRecordFactory(factory)
    assert ids == [answer.headers["x-user-request-id"]]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_head_may_have_so_many_bytes(api: httpx.Client, *, at_once: bool) -> None:
    """Ten thousand headers among them."""
    start = HEALTH + CLOSE
    most = start + b"X: ".ljust(MAX_HEAD_BYTES - len(start) - len(END), b"x") + END
    headers = b"".join(b"X-%d:\r\n" % number for number in range(10_000))
    assert len(headers) > MAX_HEAD_BYTES + PART_BYTES
    for data, status in ((most, 200), (start + headers, 431), (start + headers + END, 431)):
        with connected(api) as connection, suppress(OSError):
            pieces = [data] if at_once else [data[i : i + 9000] for i in range(0, len(data), 9000)]
            for piece in pieces:
                connection.sendall(piece)
            (answer,) = answers(rest(connection))
            assert answer.status == status
            assert status == 200 or "65536 bytes" in answer.detail


@pytest.mark.parametrize(
    ("before", "statuses"),
    [(b"", []), (HEALTH + b"\r\n", [200]), (request({}, HEAD), [422])],
    ids=["alone", "behind a request", "behind a body"],
)
def test_a_head_that_comes_at_one_go_may_have_no_more(
    api: httpx.Client, before: bytes, statuses: list[int]
) -> None:
    start = HEALTH + CLOSE
    for more, status in ((-100, 200), (100, 431)):
        head = start + b"X: ".ljust(MAX_HEAD_BYTES + more - len(start) - len(END), b"x") + END
        told = answers(exchange(api, before + head))
        assert [answer.status for answer in told] == [*statuses, status]


def test_a_refusal_ends_at_once_for_who_reads_it(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lingering, "LINGER_S", 60)
    began_s = time.monotonic()
    assert answers(exchange(api, b"hello\r\n\r\n"))
    assert time.monotonic() - began_s < 30


@pytest.mark.parametrize(
    "pieces",
    [[b"hello\r\n\r\n"], [HEAD + CHUNKED + b"xyz\r\n"], [HEAD + CHUNKED, b"xyz\r\n"]],
    ids=["no request", "with a request", "into a request"],
)
def test_who_goes_on_after_a_refusal_is_cut_off(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]
) -> None:
    monkeypatch.setattr(lingering, "LINGER_S", 0.3)
    began_s = time.monotonic()
    with connected(api) as connection, suppress(OSError):
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.1)
        while time.monotonic() - began_s < 10:
            connection.sendall(b"x")
            time.sleep(0.02)
    assert time.monotonic() - began_s < 10


def test_many_short_headers_are_no_burden(api: httpx.Client) -> None:
    """As many as a request may have, and as many as a head can hold, which are refused."""
    headers = b"a:\r\n" * (MAX_HEADERS - 10)
    too_many = b"a:\r\n" * ((MAX_HEAD_BYTES - 1000) // 4)
    began_s = time.monotonic()
    (answer,) = answers(exchange(api, request(GOOD, HEAD + CLOSE + headers)))
    assert answer.status == 200
    (answer,) = answers(exchange(api, request(GOOD, HEAD + CLOSE + too_many)))
    assert answer.status == 431
    assert time.monotonic() - began_s < 20


@pytest.mark.parametrize("together", [True, False])
def test_nonsense_after_an_early_answer_ends_the_connection(
    api: httpx.Client, *, together: bool
) -> None:
    with connected(api) as connection:
        connection.sendall(WRONG + CHUNKED + (b"nonsense\r\n" if together else b""))
        found = b""
        if not together:
            found = connection.recv(2**16)
            connection.sendall(b"nonsense\r\n")
        statuses = [answer.status for answer in answers(found + rest(connection))]
    assert statuses in ([401], [400]), "whichever comes first, and nothing after it"


def test_the_rest_of_a_body_after_an_early_answer_does_no_harm(api: httpx.Client) -> None:
    body = b" " * 300_000
    head = WRONG + b"Content-Length: %d\r\n\r\n" % len(body)
    with connected(api) as connection:
        connection.sendall(head + body + HEALTH + CLOSE + b"\r\n")
        assert [answer.status for answer in answers(rest(connection))] == [401, 200]


# Requests in a row


def test_requests_sent_in_a_row_are_answered_in_that_order(api: httpx.Client) -> None:
    small = {**GOOD, "scale": 0.2}
    heads = [HEAD + b"X-User-Request-ID: number-%d\r\n" % number for number in range(30)]
    heads[-1] += CLOSE
    data = b"".join(
        request(small if number % 3 else {**GOOD, "scale": -1}, head)
        for number, head in enumerate(heads)
    )
    found = answers(exchange(api, data))
    assert [answer.status for answer in found] == [200 if n % 3 else 422 for n in range(30)]
    assert [answer.headers["x-user-request-id"] for answer in found] == [
        f"number-{number}" for number in range(30)
    ]


def test_the_server_does_not_tell_what_it_is(api: httpx.Client) -> None:
    assert "Server" not in api.get("/livez").headers


# Time


@pytest.mark.parametrize("before", [b"", b"GET /livez HTTP/1.1\r\nX: ", HEALTH + b"\r\n"])
def test_a_request_must_come_in_time(monkeypatch: pytest.MonkeyPatch, before: bytes) -> None:
    """Neither a drop now and then nor an answered request before it keeps a connection open."""
    monkeypatch.setattr(server, "HEAD_DEADLINE_S", 0.5)
    with serving(Resizer()) as api, connected(api) as connection:
        connection.sendall(before)
        ended_s = drip_until_the_end(connection)
        assert 0.3 < ended_s < 10


def drip_until_the_end(connection: socket.socket) -> float:
    """Send a byte now and then until the other side hangs up; how many seconds it takes."""
    began_s = time.monotonic()
    connection.settimeout(0.05)
    while time.monotonic() - began_s < 30:
        try:
            connection.sendall(b"x")
            if not connection.recv(2**16):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - began_s


def test_a_body_that_nobody_reads_must_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer was given early, and what is left of the body is waited for no longer."""
    monkeypatch.setattr(lingering, "LINGER_S", 0.5)
    with serving(Resizer()) as api, connected(api) as connection:
        connection.sendall(WRONG + b"Content-Length: 100000\r\n\r\n")
        assert connection.recv(13) == b"HTTP/1.1 401 "
        assert 0.3 < drip_until_the_end(connection) < 10


def test_a_request_at_work_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_DEADLINE_S", 0.2)

    class Slow(Resizer):
        def load(self, model: object) -> str:
            time.sleep(1)
            return super().load(UpscalingModel.X4_PLUS)

    with serving(Slow()) as api:
        (answer,) = answers(exchange(api, request(GOOD, HEAD + CLOSE)))
    assert answer.status == 200


def test_who_does_not_take_an_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "RESPONSE_GRACE_S", 0.5)
    monkeypatch.setattr(server, "RESPONSE_BYTES_PER_S", 10**9)
    with serving(Resizer()) as api, send(api, LARGE) as connection:
        assert connection.recv(15, socket.MSG_PEEK) == b"HTTP/1.1 200 OK"
        assert held(api) > 20e6
        eventually(api, "upscaler_held_bytes", 0)
        (answer,) = answers(rest(connection))
        assert len(answer.body) < int(answer.headers["content-length"])


@pytest.mark.slow
def test_who_takes_a_little_all_the_time_is_cut_off_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "RESPONSE_GRACE_S", 0.5)
    monkeypatch.setattr(server, "RESPONSE_BYTES_PER_S", 10**9)
    with serving(Resizer()) as api, pytest.raises(AssertionError, match="all of it"):
        take_slowly(api)


@pytest.mark.slow
def test_who_takes_an_answer_slowly_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far longer than the time that may pass besides, but fast enough."""
    monkeypatch.setattr(server, "RESPONSE_GRACE_S", 1.0)
    monkeypatch.setattr(server, "RESPONSE_BYTES_PER_S", 4_000_000)
    with serving(Resizer()) as api:
        take_slowly(api)


def take_slowly(api: httpx.Client) -> None:
    """Take a large answer at 8 MB/s, and see that it is whole."""
    data = bytearray()
    with connected(api) as connection:
        connection.sendall(request(LARGE, HEAD + CLOSE))
        connection.recv(1, socket.MSG_PEEK)  # however long the picture takes
        began_s = time.monotonic()
        while part := connection.recv(2**20):
            data += part
            time.sleep(max(0, began_s + len(data) / 8_000_000 - time.monotonic()))
    (answer,) = answers(bytes(data))
    assert len(answer.body) == int(answer.headers["content-length"]), "all of it"
    assert time.monotonic() - began_s > 2


class Roomy(server.Connection):
    """A connection that holds all of an answer, however large, so that the app is done with it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.set_write_buffer_limits(high=2**30)
        super().connection_made(transport)


@pytest.mark.slow
def test_the_end_of_an_answer_may_be_taken_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "Connection", Roomy)
    monkeypatch.setattr(server, "HEAD_DEADLINE_S", 0.5)
    monkeypatch.setattr(server, "RESPONSE_BYTES_PER_S", 4_000_000)
    with serving(Resizer()) as api:
        take_slowly(api)


@pytest.mark.slow
def test_the_end_of_an_answer_must_be_taken_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it was said, and not all is taken: a server that ends would wait for that."""
    monkeypatch.setattr(server, "HEAD_DEADLINE_S", 0.5)
    monkeypatch.setattr(server, "RESPONSE_BYTES_PER_S", 10**9)
    monkeypatch.setattr(server, "Connection", Roomy)
    with ExitStack() as stack:
        with serving(Resizer()) as api:
            connection = stack.enter_context(connected(api))
            connection.sendall(request(LARGE, HEAD + CLOSE))
            assert connection.recv(15, socket.MSG_PEEK) == b"HTTP/1.1 200 OK"
            eventually(api, "upscaler_held_bytes", 0)
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 10
        (answer,) = answers(rest(connection))
        assert len(answer.body) < int(answer.headers["content-length"])


def held(api: httpx.Client) -> float:
    return metrics(api)["upscaler_held_bytes", ()]


# How many


def test_a_connection_too_many_is_refused_with_when_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All others have requests at work, or have just been opened."""
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(listening, "MIN_IDLE_S", 60)
    with serving(Resizer()) as api:
        api.get("/livez")  # which keeps one open
        others = [connected(api) for _ in range(2)]
        deadline_s = time.monotonic() + 60
        while True:
            (answer,) = answers(exchange(api, request(GOOD, HEAD + CLOSE)))
            if answer.status == 503:
                break
            assert time.monotonic() < deadline_s
        assert answer.headers["retry-after"] == "5"
        assert "connections" in json.loads(answer.body)["detail"]
        for connection in others:
            connection.close()
        while answer.status != 200:
            assert time.monotonic() < deadline_s
            (answer,) = answers(exchange(api, request(GOOD, HEAD + CLOSE)))


# The end of an answer


def test_the_end_of_an_answer_does_not_wait_for_the_client() -> None:
    """Whoever has made the socket: asyncio sees to it on its own ones alone."""
    options: list[int] = []

    class Seen(server.Connection):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            made = transport.get_extra_info("socket")
            options.append(made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    app = create_app(LocalBackend(Resizer()), SETTINGS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = server.server(app, "127.0.0.1", 0, Seen)
        served.config.loop = "asyncio"  # uvloop, where it is installed, sees to it on all
        thread = threading.Thread(target=served.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            port = listener.getsockname()[1]
            assert httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200
        finally:
            served.should_exit = True
            thread.join()
    assert options == [1]
