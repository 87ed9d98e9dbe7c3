"""Requests by the letter of RFC 9112, as bytes on a connection."""

import json
import logging
from collections.abc import Iterator

import httpx
import pytest

from tests.support.both_servers import SERVERS, api_of
from tests.support.raw_http import CLOSE, HEAD, answers, connected, exchange, request, rest
from tests.support.service import GOOD
from upscaler.service import middleware
from upscaler.service.server.http1 import MAX_EMPTY_LINES

LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BODY = json.dumps({**GOOD, "scale": 0.5}).encode()
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.fixture(scope="module", params=SERVERS)
def api(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with api_of(request.param) as client:
        yield client


def statuses(api: httpx.Client, data: bytes) -> list[int]:
    return [answer.status for answer in answers(exchange(api, data))]


# 6.1


def test_chunked_overrides_content_length_and_closes_the_connection(
    api: httpx.Client,
) -> None:
    """What comes behind it is no request: by the other length it would be part of the body."""
    for length in (0, 5, len(BODY), 10**9, 10**15):
        head = HEAD + b"Content-Length: %d\r\n" % length + CHUNKED + b"\r\n"
        (answer,) = answers(exchange(api, head + CHUNKS + LIVE + b"\r\n"))
        assert answer.status == 200
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        (b"1.0", CHUNKED),
        (b"1.1", b"Transfer-Encoding: chunked, gzip\r\n"),
        (b"1.1", b"Transfer-Encoding: chunked, chunked\r\n"),
        (b"1.1", b"Transfer-Encoding: identity\r\n"),
        (b"1.1", b"Transfer-Encoding: xchunked\r\n"),
        (b"1.1", CHUNKED + CHUNKED),
        (b"1.1", b"Transfer-Encoding : chunked\r\n"),
        (b"1.1", b"Transfer-Encoding:\x0bchunked\r\n"),
        (b"1.1", b"Content-Length: 5\r\nContent-Length: 6\r\n"),
        (b"1.1", b"Content-Length: +5\r\n"),
        (b"1.1", b"Content-Length: 0x5\r\n"),
        (b"1.1", b"Content-Length: 5\r\n 6\r\n"),
    ],
)
def test_a_body_whose_end_is_in_doubt_is_refused(
    api: httpx.Client, version: bytes, headers: bytes
) -> None:
    head = HEAD.replace(b"HTTP/1.1", b"HTTP/" + version) + headers + b"\r\n"
    assert statuses(api, head + CHUNKS + LIVE + b"\r\n") == [400]


@pytest.mark.parametrize(
    "chunk",
    [b"+5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"5_0\r\nhello\r\n", b"-1\r\nhello\r\n",
     b" 5\r\nhello\r\n", b"5\nhello\r\n", b"5\rhello\r\n", b"5;\n\r\nhello\r\n",
     b"5;a=b\nhello\r\n", b"5\r\nhelloX\r\n", b"5\r\nhello\n", b"f" * 30 + b"\r\n", b"\r\n"],
)  # fmt: skip
def test_a_chunk_that_could_be_read_in_two_ways_is_refused(api: httpx.Client, chunk: bytes) -> None:
    assert statuses(api, HEAD + CHUNKED + b"\r\n" + chunk + LIVE + b"\r\n") == [400]


# 2.2, 5.1, 5.2


@pytest.mark.parametrize(
    "line",
    [b"A : b", b"A\t: b", b" A: b", b": b", b"A: b\rC: d", b"A: b\x00", b"A\x00: b", b"A: b\r",
     b"A\xe9: b", b"A"],
)  # fmt: skip
def test_a_header_that_could_be_read_in_two_ways_is_refused(api: httpx.Client, line: bytes) -> None:
    assert statuses(api, b"GET /livez HTTP/1.1\r\n" + line + b"\r\nHost: x\r\n\r\n") == [400]


def test_a_folded_header_is_one_line(api: httpx.Client) -> None:
    head = LIVE + b"X-User-Request-ID:\r\n \tmine\r\n" + CLOSE + b"\r\n"
    (answer,) = answers(exchange(api, head))
    assert (answer.status, answer.headers["x-user-request-id"]) == (200, "mine")


@pytest.mark.parametrize("empty", [b"\r\n", b"\n", b"\r\n\n\r\n"])
def test_empty_lines_before_a_request_are_passed_over(api: httpx.Client, empty: bytes) -> None:
    posted = request({**GOOD, "scale": 0.5}, HEAD)
    last = LIVE + CLOSE + b"\r\n"
    data = empty + LIVE + b"\r\n" + empty + posted + empty + last
    assert statuses(api, data + empty) == [200, 200, 200]


def test_an_empty_line_may_come_in_two_parts(api: httpx.Client) -> None:
    with connected(api) as connection:
        for _ in range(2):
            connection.sendall(b"\r")
            assert api.get("/livez").status_code == 200  # by then it has been read
            connection.sendall(b"\n" + LIVE + b"\r\n")
            found = b""
            while not found.endswith(b'"ok"}'):
                found += connection.recv(2**16)
            assert found.startswith(b"HTTP/1.1 200 OK")
        connection.sendall(b"\r\n" + LIVE + CLOSE + b"\r\n")
        assert [answer.status for answer in answers(rest(connection))] == [200]


def test_not_any_number_of_empty_lines_is_passed_over(api: httpx.Client) -> None:
    head = LIVE + CLOSE + b"\r\n"
    assert statuses(api, b"\r\n" * MAX_EMPTY_LINES + head) == [200]
    assert statuses(api, b"\r\n" * (MAX_EMPTY_LINES + 1) + head) == [400]
    assert statuses(api, b"\n" * 100_000 + head) == [400]


def test_what_comes_behind_the_last_request_takes_nothing_of_its_answer(api: httpx.Client) -> None:
    posted = request({**GOOD, "scale": 0.5}, HEAD + CLOSE)
    for behind in (b"\r\n", b"nonsense\r\n\r\n", LIVE + b"\r\n", b"x" * 2**20):
        assert statuses(api, posted + behind) == [200]
        with connected(api) as connection:
            connection.sendall(posted)
            connection.sendall(behind)
            assert [answer.status for answer in answers(rest(connection))] == [200]


# 3.2


def test_a_target_may_have_its_host(api: httpx.Client) -> None:
    for target in (
        b"http://a.example/livez",
        b"HTTP://a.example:80/livez?a",
        b"https://[::1]/livez",
    ):
        head = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n"
        assert statuses(api, head) == [200]
    for target in (b"http://a.example", b"http://a.example?a=b"):
        head = b"HEAD " + target + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n"
        assert exchange(api, head).startswith((b"HTTP/1.1 200", b"HTTP/1.1 405"))


def test_the_host_of_a_target_goes_before_that_of_the_header(api: httpx.Client) -> None:
    head = HEAD.replace(b" /", b" http://a.example:81/") + b"X-OctoAI-Async: 1\r\n" + CLOSE
    (answer,) = answers(exchange(api, request({**GOOD, "scale": 0.5}, head)))
    assert json.loads(answer.body)["poll_url"].startswith("http://a.example:81/v1/requests/")


@pytest.mark.parametrize(
    "target",
    [b"http:///livez", b"http://user@a/livez", b"http://a:b/livez", b"ftp://a/livez", b"livez",
     b"*", b"a.example:80", b"http:/livez", b"http://a/livez#b", b"?"],
)  # fmt: skip
def test_another_target_is_refused(api: httpx.Client, target: bytes) -> None:
    assert statuses(api, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n") == [400]


def test_a_server_can_be_asked_for_itself(api: httpx.Client) -> None:
    for line in (b"OPTIONS * HTTP/1.1\r\n", b"CONNECT a.example:443 HTTP/1.1\r\n"):
        (status,) = statuses(api, line + b"Host: x\r\n" + CLOSE + b"\r\n")
        assert status in (404, 405)


@pytest.mark.parametrize(
    "host",
    [b"a.example", b"A-1_b.example.", b"a:80", b"a:", b"127.0.0.1:8000", b"[::1]", b"[::1]:80",
     b"[::ffff:192.0.2.1]", b"[v1.a:b]", b"%41", b"a'b"],
)  # fmt: skip
def test_a_host_may_be_what_a_url_may_have(api: httpx.Client, host: bytes) -> None:
    assert statuses(api, b"GET /livez HTTP/1.1\r\nHost: " + host + b"\r\n" + CLOSE + b"\r\n") == [
        200
    ]


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"Host: x\r\nHost: x\r\n",
        *(
            b"Host: %s\r\n" % host
            for host in (
                b"",
                b"a b",
                b"a/b",
                b"u@a",
                b"a:b",
                b"a:99999",
                b"a:80:80",
                b":80",
                b"::1",
                b"[::1",
                b"[::g]",
                b"[fe80::1%eth0]",
                b"[1.2.3.4]",
                b"%4",
                b"a,b c",
                b"a\\b",
                b"<b>",
                b"\xe9",
                b"a?b",
                b"a#b",
                b"http://a",
            )
        ),
    ],
)
def test_any_other_host_is_refused(api: httpx.Client, headers: bytes) -> None:
    assert statuses(api, b"GET /livez HTTP/1.1\r\n" + headers + b"\r\n") == [400]


def test_only_a_request_of_http_1_0_needs_no_host(api: httpx.Client) -> None:
    assert statuses(api, b"GET /livez HTTP/1.0\r\n\r\n") == [200]
    assert statuses(api, b"GET /livez HTTP/1.0\r\nHost: a b\r\n\r\n") == [400]


def test_a_method_of_any_length_is_logged_in_short_and_counted_nowhere(
    api: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    method = b"BREW" * 15_000
    with caplog.at_level(logging.INFO):
        head = method + b" /livez HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n"
        assert statuses(api, head) == [405]
    logged = [r.getMessage() for r in caplog.records if r.name == middleware.__name__]
    assert logged == ["(60000 characters) /livez"]
    assert "BREW" not in api.get("/metrics").text


@pytest.mark.parametrize(("count", "status"), [(990, 200), (1001, 431), (16_000, 431)])
def test_a_request_has_so_many_headers_and_no_more(
    api: httpx.Client, count: int, status: int
) -> None:
    """Each takes far more memory than it has bytes."""
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"a:\r\n" * count
    assert statuses(api, head + b"\r\n") == [status]


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"3.1"])
def test_another_major_version_of_http_is_none(api: httpx.Client, version: bytes) -> None:
    head = b"GET /livez HTTP/" + version + b"\r\nHost: x\r\n" + CLOSE + b"\r\n"
    assert statuses(api, head) == [400]
