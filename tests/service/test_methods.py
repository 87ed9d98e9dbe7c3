"""HEAD and OPTIONS, in the service and in the mock."""

import asyncio

import httpx
import pytest
from starlette.types import Message

from mock_server import Mock
from tests.support.mock_servers import SMALL, mocked
from tests.support.raw_http import CLOSE, exchange
from tests.support.service import SETTINGS, TOKENS, Resizer, upscale
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend

OPEN = ("/healthcheck", "/livez", "/", "/docs", "/openapi.json")
"""What needs no token."""
VARYING = ("date", "x-user-request-id", "server-timing")


def head_and_get(api: httpx.Client, path: str) -> None:
    """HEAD has the status and the headers of GET (RFC 9110, 9.3.2), and nothing behind them."""
    asked, got = api.head(path), api.get(path)
    assert got.status_code == 200
    assert asked.status_code == 200
    asked_headers, got_headers = (
        {name: text for name, text in answer.headers.items() if name not in VARYING}
        for answer in (asked, got)
    )
    assert asked_headers == got_headers
    token = TOKENS[0].encode()
    line = b"HEAD " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token
    assert exchange(api, line + b"\r\n" + CLOSE + b"\r\n").endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", [*OPEN, "/page/page.js"])
def test_head_is_get_without_a_body(api: httpx.Client, path: str) -> None:
    head_and_get(api, path)


def test_head_of_an_asynchronous_inference_is_get_without_a_body(api: httpx.Client) -> None:
    started = api.post("/upscaling", json=SMALL, headers={"X-OctoAI-Async": "1"}).json()
    poll_path = httpx.URL(started["poll_url"]).path
    while "response_url" not in (polled := api.get(poll_path).json()):
        pass
    head_and_get(api, poll_path)
    head_and_get(api, httpx.URL(polled["response_url"]).path)


@pytest.mark.parametrize("path", ["/metrics", "/v1/requests/x", "/v1/responses/x"])
def test_head_needs_the_token_that_get_needs(api: httpx.Client, path: str) -> None:
    refused = httpx.head(api.base_url.join(path))
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_the_service_itself_sends_no_body_to_head() -> None:
    """Not every server leaves it out, as ours does."""

    async def bodies() -> list[Message]:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "HEAD", "path": "/livez", "raw_path": b"/livez",
            "query_string": b"", "root_path": "", "headers": [], "http_version": "1.1",
        }  # fmt: skip
        await create_app(LocalBackend(Resizer()), SETTINGS)(scope, receive, send)
        return sent

    start, *rest = asyncio.run(bodies())
    assert dict(start["headers"])[b"content-length"] == b"15"
    assert [message["body"] for message in rest] == [b""]


def test_options_says_the_methods_to_anybody(api: httpx.Client) -> None:
    for path, allowed in (("/upscaling", "OPTIONS, POST"), ("/livez", "GET, HEAD, OPTIONS")):
        answer = httpx.options(api.base_url.join(path))
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["Allow"] == allowed
    assert httpx.options(api.base_url.join("/upscale")).status_code == 404


def test_a_fault_of_the_health_check_is_seen_by_head() -> None:
    """As by a program that waits with HEAD until it is 200."""
    mock = Mock()
    with mocked(mock) as api:
        mock.faults.set("503", "healthcheck")
        statuses = [api.head("/healthcheck").status_code for _ in range(2)]
        assert statuses == [503, 200]
        assert [entry.status for entry in mock.journal.find(route="healthcheck")] == [503, 200]
        assert upscale(api, **SMALL).status_code == 200
