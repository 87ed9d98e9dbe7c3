"""What the client sends, and how it waits."""

import contextlib
import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.metadata import version
from urllib.parse import urlsplit

import pytest

from contract_tests.failures import Inconclusive, TimeUp, Unreachable
from contract_tests.requests.images import SampleImage
from contract_tests.requests.request import AUTHORIZATION, Request, upscaling_request
from contract_tests.target.client import ClientOptions, Target, is_url
from contract_tests.target.run_clock import RunClock
from tests.support.contract_cli import TOKEN
from tests.support.raw_http import PATIENCE_S
from tests.support.stub_servers import (
    OK,
    ReceivedRequest,
    Reply,
    in_turn,
    status_only,
    stub_server,
    unused_url,
)

OpenTarget = Callable[..., Target]
INVALID_REQUEST = upscaling_request({"scale": "two"})
VALID_REQUEST = upscaling_request({"scale": 1}, SampleImage(256, 256, "png", 1, "palette"))


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, without sleeping."""
    slept: list[float] = []
    monkeypatch.setattr(RunClock, "pause", lambda _, seconds: slept.append(seconds))
    return slept


# What is sent


def test_only_the_headers_of_the_request_are_sent(open_target: OpenTarget) -> None:
    with stub_server(in_turn(OK)) as server:
        open_target(server.url).send(Request(b"{}", headers=(AUTHORIZATION, ("X-One", "1"))))
    (received,) = server.seen
    assert received.headers == [
        ("Host", server.url.removeprefix("http://")),
        ("User-Agent", f"upscaler-contract/{version('octo-upscaler')}"),
        ("Authorization", f"Bearer {TOKEN}"),
        ("X-One", "1"),
        ("Content-Length", "2"),
    ]


def test_a_request_may_name_a_user_agent_of_its_own(open_target: OpenTarget) -> None:
    with stub_server(in_turn(OK)) as server:
        open_target(server.url).send(INVALID_REQUEST.with_headers(("user-agent", "mine")))
    assert server.seen[0].header("user-agent") == "mine"


def test_a_request_without_a_token_has_none(open_target: OpenTarget) -> None:
    with stub_server(in_turn(OK)) as server:
        open_target(server.url).send(INVALID_REQUEST.without_headers("Authorization"))
    assert server.seen[0].header("authorization") is None


def test_a_post_without_a_body_has_content_length_0(open_target: OpenTarget) -> None:
    with stub_server(in_turn(OK)) as server:
        open_target(server.url).send(Request())
        open_target(server.url).send(Request(method="GET", headers=()))
    assert [received.header("content-length") for received in server.seen] == ["0", None]


def test_a_redirect_of_modals_proxy_is_followed(open_target: OpenTarget) -> None:
    replies = status_only(303, location="/behind"), status_only(303, location="?a=1"), OK
    with stub_server(in_turn(*replies)) as server:
        response = open_target(server.url).send(VALID_REQUEST)
    assert response.status == 200
    assert [(received.method, received.path) for received in server.seen] == [
        ("POST", "/upscaling"),
        ("GET", "/behind"),
        ("GET", "/behind?a=1"),
    ]


NO_URLS = (
    "file:///etc/passwd",
    "http://[",
    "http://x:99999/",
    "http://a b/",
    "ftp://x/",
    "http://",
)


@pytest.mark.parametrize("location", NO_URLS[:-1])  # the last one is joined to what it came from
def test_a_redirect_to_an_invalid_url_is_not_followed(
    location: str, open_target: OpenTarget
) -> None:
    with (
        stub_server(in_turn(status_only(303, location=location))) as server,
        pytest.raises(Inconclusive, match=r"invalid URL|not a valid"),
    ):
        open_target(server.url).send(VALID_REQUEST)


@pytest.mark.parametrize("text", [*NO_URLS, "/x", "", None, 3, ["http://x"]])
def test_invalid_urls(text: object) -> None:
    assert not is_url(text)


@pytest.mark.parametrize("text", ["http://x", "https://x/y?z=1", "http://[::1]:80/", "HTTP://X"])
def test_valid_urls(text: object) -> None:
    assert is_url(text)


# How it waits


def test_a_busy_target_is_retried_after_retry_after(
    naps: list[float], open_target: OpenTarget
) -> None:
    with stub_server(in_turn(status_only(429, retry_after="2"), OK)) as server:
        assert open_target(server.url).send(INVALID_REQUEST).status == 200
    assert naps == [2]
    assert len(server.posts) == 2


@pytest.mark.parametrize("zone", ["GMT", "+0000", "-0000", ""])
def test_retry_after_may_be_a_date(naps: list[float], zone: str, open_target: OpenTarget) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    date = date.replace("GMT", zone)
    with stub_server(in_turn(status_only(503, retry_after=date), OK)) as server:
        assert (
            open_target(server.url, ClientOptions(patience_s=90)).send(INVALID_REQUEST).status
            == 200
        )
    assert naps == [pytest.approx(60, abs=2)]


@pytest.mark.parametrize("value", ["soon", "-1", "", "\u0663", "1.5"])
def test_an_invalid_retry_after_is_ignored(
    naps: list[float], value: str, open_target: OpenTarget
) -> None:
    header = value.encode().decode("latin-1")
    with stub_server(in_turn(status_only(429, retry_after=header), OK)) as server:
        assert open_target(server.url).send(INVALID_REQUEST).status == 200
    assert naps == [0.5]


@pytest.mark.parametrize("status", [501, 505])
def test_what_a_target_does_not_implement_is_its_response(
    naps: list[float], status: int, open_target: OpenTarget
) -> None:
    with stub_server(in_turn(status_only(status), OK)) as server:
        assert open_target(server.url).send(INVALID_REQUEST).status == status
    assert naps == []


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_without_retry_after_a_5xx_is_retried_after_a_pause(
    naps: list[float], status: int, open_target: OpenTarget
) -> None:
    last = OK if status == 500 else status_only(422)
    with stub_server(in_turn(status_only(status), last)) as server:
        assert last is not None
        assert open_target(server.url).send(INVALID_REQUEST).status == last[0]
    assert naps == [0.5]
    assert len(server.posts) == 2


def test_a_retry_after_beyond_the_patience_is_inconclusive(
    naps: list[float], open_target: OpenTarget
) -> None:
    with stub_server(in_turn(status_only(429, retry_after="3600"))) as server:
        with pytest.raises(Inconclusive, match="429") as raised:
            open_target(server.url).send(INVALID_REQUEST)
        assert "3600 s" in raised.value.sentence
    assert naps == []
    assert len(server.posts) == 1


def test_a_target_that_is_always_busy_gets_six_attempts(
    naps: list[float], open_target: OpenTarget
) -> None:
    with (
        stub_server(in_turn(status_only(503))) as server,
        pytest.raises(Inconclusive, match=r"^the target responded with 503 6 times$"),
    ):
        open_target(server.url, ClientOptions(patience_s=100)).send(INVALID_REQUEST)
    assert naps == [0.5, 1, 2, 4, 8]
    assert len(server.posts) == 6


def test_a_repeated_500_counts_as_the_response(naps: list[float], open_target: OpenTarget) -> None:
    with stub_server(in_turn(status_only(500))) as server:
        asking = open_target(server.url)
        assert asking.send(INVALID_REQUEST).status == 500
        assert asking.send(INVALID_REQUEST).status == 500
    assert len(server.posts) == 3


def test_a_closed_connection_is_retried(naps: list[float], open_target: OpenTarget) -> None:
    with stub_server(in_turn(None, OK)) as server:
        assert open_target(server.url).send(INVALID_REQUEST).status == 200
    assert naps == [0.5]


def test_connections_that_are_always_closed_are_inconclusive(
    naps: list[float], open_target: OpenTarget
) -> None:
    with (
        stub_server(in_turn(None)) as server,
        pytest.raises(Inconclusive, match="closed the connection"),
    ):
        open_target(server.url).send(INVALID_REQUEST)
    assert len(server.posts) == 6


def test_a_timeout_is_inconclusive(open_target: OpenTarget) -> None:
    given_up = threading.Event()

    def slow(_: ReceivedRequest) -> Reply:
        given_up.wait(30)
        return OK

    with stub_server(slow) as server:
        with pytest.raises(Inconclusive, match=r"not respond within 0\.2 s"):
            open_target(server.url, ClientOptions(timeout_s=0.2)).send(INVALID_REQUEST)
        given_up.set()


def dripping(head: bytes) -> Callable[[socket.socket], None]:
    """What sends this, and then a byte now and then for as long as somebody listens."""

    def drip(client: socket.socket) -> None:
        client.recv(2**16)
        client.sendall(head)
        with contextlib.suppress(OSError):
            while True:
                client.sendall(b"H")
                time.sleep(0.02)

    return drip


@contextlib.contextmanager
def raw_server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that serves each connection in a thread of its own; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=served, args=[client], daemon=True).start()

        def served(client: socket.socket) -> None:
            with client:
                serve(client)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    "head",
    [b"", b"HTTP/1.1 200 OK\r\nX:", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["nothing", "headers", "body", "interim"],
)
def test_a_response_that_drips_has_a_limit_in_total(head: bytes, open_target: OpenTarget) -> None:
    began_s = time.monotonic()
    with (
        raw_server(dripping(head)) as url,
        pytest.raises(Inconclusive, match=r"did not respond within 0\.4 s"),
    ):
        open_target(url, ClientOptions(timeout_s=0.4)).send(INVALID_REQUEST)
    assert time.monotonic() - began_s < PATIENCE_S


def test_redirects_have_one_limit_together(open_target: OpenTarget) -> None:
    def slow(_: ReceivedRequest) -> Reply:
        time.sleep(0.1)
        return status_only(303, location="/again")

    with stub_server(slow) as server, pytest.raises(Inconclusive, match="did not respond within"):
        open_target(server.url, ClientOptions(timeout_s=0.5)).send(INVALID_REQUEST)
    assert len(server.seen) < 10


def test_the_time_of_the_run_ends_a_request(open_target: OpenTarget) -> None:
    with raw_server(dripping(b"")) as url, contextlib.ExitStack() as stack:
        asking = Target(url, TOKEN, ClientOptions(), RunClock(0.3))
        stack.callback(asking.close)
        with pytest.raises(TimeUp, match=r"0\.3 s of --max-time"):
            asking.send(INVALID_REQUEST)
        with pytest.raises(TimeUp):
            asking.probe()


def test_a_pause_beyond_the_time_of_the_run_ends_it_at_once() -> None:
    with stub_server(in_turn(status_only(429, retry_after="100"))) as server:
        asking = Target(server.url, TOKEN, ClientOptions(), RunClock(PATIENCE_S))
        began_s = time.monotonic()
        with contextlib.closing(asking), pytest.raises(TimeUp, match="a pause of 100 s"):
            asking.send(INVALID_REQUEST)
    assert time.monotonic() - began_s < PATIENCE_S


def test_an_interrupted_run_leaves_a_request_alone(open_target: OpenTarget) -> None:
    clock = RunClock()
    asking = Target("http://127.0.0.1:9", TOKEN, ClientOptions(), clock)
    clock.interrupted = True
    with contextlib.closing(asking), pytest.raises(KeyboardInterrupt):
        asking.send(INVALID_REQUEST)


def test_an_unreachable_target_has_its_url_in_the_message(open_target: OpenTarget) -> None:
    url = unused_url()
    asking = open_target(url)
    with pytest.raises(Unreachable, match=f"^nothing responds at {url}: "):
        asking.probe()
    with pytest.raises(Unreachable):
        asking.send(INVALID_REQUEST)


def test_a_target_without_tls_is_told_by_what_to_give(open_target: OpenTarget) -> None:
    with stub_server(in_turn(OK)) as server:
        address = server.url.removeprefix("http:")
        with pytest.raises(Unreachable) as told:
            open_target(f"https:{address}").probe()
    assert str(told.value) == f"https:{address} does not speak TLS: give --base-url http:{address}"


def test_a_target_that_is_starting_is_waited_for(open_target: OpenTarget) -> None:
    url = unused_url()

    def start_late() -> None:
        time.sleep(0.5)
        with socket.create_server(("127.0.0.1", urlsplit(url).port)) as server:
            server.settimeout(30)
            client, _ = server.accept()
            with client:
                client.recv(2**16)
                client.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with ThreadPoolExecutor() as pool:
        started = pool.submit(start_late)
        open_target(url, ClientOptions(wait_s=30)).wait()
        started.result()  # raises if there was no connection


def test_a_target_that_does_not_start_is_unreachable(open_target: OpenTarget) -> None:
    began_s = time.monotonic()
    with pytest.raises(Unreachable):
        open_target(unused_url(), ClientOptions(wait_s=0.5)).wait()
    assert 0.5 <= time.monotonic() - began_s < 20


def test_a_target_that_accepts_no_connection_is_unreachable(open_target: OpenTarget) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, ExitStack() as stack:
        host, port = deaf.getsockname()
        for _ in range(4):  # fills the queue of those that wait to be accepted
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        asking = open_target(f"http://{host}:{port}", ClientOptions(timeout_s=1))
        began_s = time.monotonic()
        with pytest.raises(Unreachable):
            asking.send(INVALID_REQUEST)
        assert time.monotonic() - began_s < 30


def test_any_response_shows_that_the_target_is_reachable(open_target: OpenTarget) -> None:
    with stub_server(lambda _: status_only(503)) as server:
        open_target(server.url).probe()
    assert [(received.method, received.path) for received in server.seen] == [
        ("GET", "/healthcheck")
    ]
    assert server.seen[0].header("authorization") is None


def test_requests_are_evenly_spaced(open_target: OpenTarget) -> None:
    with stub_server(in_turn(status_only(422))) as server:
        asking = open_target(server.url, ClientOptions(per_minute=600))
        began_s = time.monotonic()
        for _ in range(4):
            asking.send(INVALID_REQUEST)
    assert 0.29 <= time.monotonic() - began_s < 20


def test_a_body_in_chunks_has_no_length(open_target: OpenTarget) -> None:
    received = bytearray()

    def answered(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while not received.endswith(b"0\r\n\r\n"):
                received.extend(connection.recv(2**16))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    body = b"x" * 1000
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor() as pool,
    ):
        serving = pool.submit(answered, listener)
        target = open_target(f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert target.send(Request(body).with_headers(("Transfer-Encoding", "chunked"))).json == {}
        serving.result()
    head, _, chunks = bytes(received).partition(b"\r\n\r\n")
    assert b"content-length" not in head.lower()
    assert head.lower().count(b"transfer-encoding: chunked") == 1
    assert chunks.count(b"x") == 1000
    assert chunks.startswith(b"64\r\nx"), "the first part is a short one"


# Codings: none is asked for, and then any is right (RFC 9110, 12.5.3)


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
        ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
    ],
)
def test_a_coded_response_is_read(
    open_target: OpenTarget, coding: str, encode: Callable[[bytes], bytes]
) -> None:
    reply = (200, {"Content-Encoding": coding}, encode(b'{"a": 1}'))
    with stub_server(lambda _: reply) as server:
        assert open_target(server.url).send(Request(b"{}")).json == {"a": 1}


def test_a_body_that_is_not_coded_as_it_says_is_judged(open_target: OpenTarget) -> None:
    with stub_server(lambda _: (200, {"Content-Encoding": "gzip"}, b'{"a": 1}')) as server:
        response = open_target(server.url).send(Request(b"{}"))
    assert response.body.startswith(b"(not gzip: ")


def test_a_coding_that_cannot_be_read_is_no_fault(open_target: OpenTarget) -> None:
    with (
        stub_server(lambda _: (200, {"Content-Encoding": "x-own"}, b"?")) as server,
        pytest.raises(Inconclusive, match="has the content coding x-own"),
    ):
        open_target(server.url).send(Request(b"{}"))
