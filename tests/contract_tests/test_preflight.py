"""What is found out before anything is tested: one sentence, and an exit status of its own."""

import re
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from contract_tests.target.client import Target
from contract_tests.target.preflight import accepts_token
from mock_server.serving.server import MockServer
from tests.support.consumer_suites import outcome
from tests.support.contract_cli import TOKEN, run_cli
from tests.support.http_hosts import AUTHORITY, answer, serving
from tests.support.stub_servers import (
    OK,
    ReceivedRequest,
    Reply,
    status_only,
    stub_server,
    unused_url,
)

HTML: Final = {"Content-Type": "text/html; charset=utf-8"}
REFUSED: Final[Reply] = (422, {"Content-Type": "application/json"}, b'{"detail": []}')


def to_posts(reply: Reply) -> Callable[[ReceivedRequest], Reply]:
    """What answers a GET, and a POST with this."""
    return lambda received: reply if received.method == "POST" else OK


ANSWERS: Final[dict[str, tuple[Reply, int, str]]] = {
    "reset": (None, 6, "answers a GET, but a POST to /upscaling gets no answer"),
    "moved": (
        status_only(301, location="https://api.example/x/upscaling"),
        *(7, "give --base-url https://api.example/x."),
    ),
    "moved for good": (status_only(308, location="/elsewhere"), 7, "the URL of the API itself"),
    "login": (status_only(302, location="https://sso.example/"), 7, "the URL of the API itself"),
    "https": ((400, HTML, b"The plain HTTP request was sent to HTTPS port"), 7, "https://127.0.0"),
    "another server": ((404, HTML, b"not here"), 9, "so correct --base-url"),
    "only files": ((501, HTML, b"Unsupported method ('POST')"), 9, "answers 501 to a POST"),
    "only GET": (status_only(405), 9, "answers 405 to a POST"),
    "firewall": ((403, HTML, b"<h1>Forbidden</h1>"), 10, "let upscaler-contract/"),
    "captive portal": ((200, HTML, b"<h1>Welcome</h1>"), 10, "a page for people (200)"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_is_no_api_is_named_before_anything_is_sent(name: str) -> None:
    reply, status, said = ANSWERS[name]
    with stub_server(to_posts(reply)) as server:
        done = run_cli(server.url, TOKEN)
    assert done.status == status, done.output
    *_, last = done.output.rstrip().splitlines()
    assert last.startswith("Cannot be judged: ")
    assert said in last
    assert "Traceback" not in done.output
    assert "INTERNALERROR" not in done.output
    assert {received.body for received in server.posts} == {b"{}"}
    report = done.report
    assert (report["status"], report["verdict"]) == (status, "cannot be judged")
    assert report["reason"] in last
    assert report["tests"] == []


def test_a_post_that_is_never_answered_is_named() -> None:
    ended = threading.Event()

    def silent(received: ReceivedRequest) -> Reply:
        if received.method == "POST":
            ended.wait(60)
        return OK

    with stub_server(silent) as server:
        done = run_cli(server.url, TOKEN, "--timeout", "0.3")
        ended.set()
    assert done.status == 6, done.output
    assert "gets no answer (within 0.3 s)" in done.output
    assert len(server.posts) == 1


def test_a_url_that_ends_in_the_endpoint_is_named(mock: MockServer) -> None:
    done = run_cli(f"{mock.url}/upscaling", TOKEN)
    assert done.status == 9, done.output
    assert "/upscaling is added to the URL that is given, so leave it out" in done.output


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("socks5://me:secret@127.0.0.1:1080", "HTTP_PROXY is a socks5 proxy"),
        ("ftp://127.0.0.1:1080", "has no URL such as http://127.0.0.1:3128"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(mock: MockServer, variable: str, said: str) -> None:
    done = run_cli(mock.url, TOKEN, HTTP_PROXY=variable, http_proxy=variable)
    assert done.status == 8, done.output
    assert said in done.output
    assert "secret" not in done.output
    assert mock.calls == []


def test_a_dead_proxy_is_named_beside_the_target(mock: MockServer) -> None:
    dead = unused_url()
    done = run_cli(mock.url, TOKEN, HTTP_PROXY=dead, http_proxy=dead, NO_PROXY="", no_proxy="")
    assert done.status == 5, done.output
    assert (
        f"nothing responds at {mock.url}, through the proxy that HTTP_PROXY names: " in done.output
    )
    passed_by = run_cli(mock.url, TOKEN, "--only", "RES-9", HTTP_PROXY=dead, http_proxy=dead,
                        NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")  # fmt: skip
    assert passed_by.status == 0, passed_by.output


def test_a_target_that_offers_no_http2_is_named(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(authority)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(tls)
    with serving(
        answer(b"{}", Content_Type="application/json"), address="127.0.0.1", tls=tls
    ) as host:
        done = run_cli(host.url, TOKEN, "--http2", SSL_CERT_FILE=str(authority))
    assert done.status == 11, done.output
    assert "127.0.0.1 offers no HTTP/2 but HTTP/1.1: leave out --http2" in done.output
    assert len(host.requests) == 1


def test_a_firewall_that_wants_a_user_agent_is_passed(open_target: Callable[..., Target]) -> None:
    def firewall(received: ReceivedRequest) -> Reply:
        known = re.fullmatch(r"upscaler-contract/\S+", received.header("user-agent") or "")
        return REFUSED if known else (403, HTML, b"<h1>Forbidden</h1>")

    with stub_server(firewall) as server:
        assert accepts_token(open_target(server.url))


@pytest.mark.parametrize("reply", [status_only(401), (403, {"Content-Type": "text/plain"}, b"no")])
def test_a_refusal_without_a_page_is_of_the_token(
    reply: Reply, open_target: Callable[..., Target]
) -> None:
    with stub_server(to_posts(reply)) as server:
        assert not accepts_token(open_target(server.url))


def test_a_connection_that_is_closed_once_is_no_reason(open_target: Callable[..., Target]) -> None:
    replies = [None, REFUSED]
    with stub_server(
        lambda received: replies.pop(0) if received.method == "POST" else OK
    ) as server:
        assert accepts_token(open_target(server.url))


@pytest.mark.slow
def test_pytest_ends_with_the_same_status(tmp_path: Path) -> None:
    with stub_server(to_posts(None)) as server:
        options = ("--pyargs", "contract_tests", "-q", "--contract-url", server.url)
        done = outcome(tmp_path, *options, UPSCALER_TOKEN=TOKEN, CI="true")
    assert done.status == 6, done.said
    assert "INTERNALERROR" not in done.said
    assert "a POST to /upscaling gets no answer" in done.said
