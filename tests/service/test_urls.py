"""Where the URLs in answers lead to, and whom the service believes about that."""

import json
import socket
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.both_servers import SERVERS, api_of
from tests.support.raw_http import CLOSE, answers
from tests.support.service import GOOD, SETTINGS, TOKENS, Resizer, serving
from upscaler.errors import InvalidSetting
from upscaler.host_port import is_authority
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.settings import Settings

PUBLIC = "https://pictures.example.com/v2"
SMALL = json.dumps({**GOOD, "scale": 0.5}).encode()


@pytest.fixture(scope="module", params=SERVERS)
def api(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with api_of(request.param) as client:
        yield client


def promised(api: httpx.Client, **headers: str) -> str:
    sent = {"X-OctoAI-Async": "1", **headers}
    url = api.post("/upscaling", json={**GOOD, "scale": 0.5}, headers=sent).json()["poll_url"]
    assert isinstance(url, str)
    return url


def promised_to(api: httpx.Client, source: str, *headers: bytes) -> str:
    """What a peer at this address is promised."""
    port = api.base_url.port
    assert port
    with socket.create_connection(("127.0.0.1", port), 30, (source, 0)) as connection:
        head = [
            b"POST /upscaling HTTP/1.1\r\nHost: a.example\r\nContent-Type: application/json\r\n",
            b"Authorization: Bearer first-token\r\nX-OctoAI-Async: 1\r\n" + CLOSE,
            *headers,
            b"Content-Length: %d\r\n\r\n" % len(SMALL),
        ]
        connection.sendall(b"".join(head) + SMALL)
        data = b""
        while part := connection.recv(2**16):
            data += part
    (answer,) = answers(data)
    url = json.loads(answer.body)["poll_url"]
    assert isinstance(url, str)
    return url


@pytest.mark.parametrize("server", SERVERS)
def test_urls_begin_as_it_was_set_whatever_host_was_asked(server: str) -> None:
    with api_of(server, replace(SETTINGS, public_url=PUBLIC)) as api:
        url = promised(api, Host="evil.example", **{"X-Forwarded-Proto": "http"})
        assert url.startswith(f"{PUBLIC}/v1/requests/")
        status = {"status": "pending"}
        while status["status"] != "completed":
            path = url.removeprefix(PUBLIC)
            status = api.get(path, headers={"Host": "evil.example"}).json()
        assert status["response_url"].startswith(f"{PUBLIC}/v1/responses/")


def test_urls_have_the_host_that_was_asked_if_nothing_is_set(api: httpx.Client) -> None:
    for host in ("a.example", "a.example:81", "[2001:db8::1]:8000", "192.0.2.1"):
        assert promised(api, Host=host).startswith(f"http://{host}/v1/requests/")


def test_a_trusted_proxy_is_believed_about_the_scheme_alone(api: httpx.Client) -> None:
    headers = b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n"
    assert promised_to(api, "127.0.0.1", headers).startswith("https://a.example/v1/")


def test_nobody_else_is_believed(api: httpx.Client) -> None:
    headers = (
        b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n"
        b"X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1;host=evil.example;proto=https\r\n"
    )
    assert promised_to(api, "127.0.0.2", headers).startswith("http://a.example/v1/")


def test_the_trusted_proxies_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.2")
    header = b"X-Forwarded-Proto: https\r\n"
    with serving(Resizer()) as api:
        assert promised_to(api, "127.0.0.2", header).startswith("https://a.example/v1/")
        assert promised_to(api, "127.0.0.1", header).startswith("http://a.example/v1/")


@pytest.mark.parametrize("host", ["", "a b", "a/b", "user@a", "a:b", "a:99999", "[::1", "<script>"])
@pytest.mark.anyio
async def test_the_app_itself_builds_no_url_from_what_is_no_host(host: str) -> None:
    """Other servers than ours hand it any."""
    transport = httpx.ASGITransport(create_app(LocalBackend(Resizer()), SETTINGS))
    headers = {
        "Authorization": f"Bearer {TOKENS[0]}", "Host": host, "X-OctoAI-Async": "1",
    }  # fmt: skip
    async with httpx.AsyncClient(transport=transport, base_url="http://a", headers=headers) as api:
        for answer in (
            await api.post("/upscaling", json=GOOD),
            await api.get("/v1/requests/some-id"),
        ):
            assert answer.status_code == 400
            assert isinstance(answer.json()["detail"], str)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    "url",
    ["http://a", "https://a.example:8443", "http://[2001:db8::1]:80/api/v1", "https://a/b/"],
)
def test_a_public_url_may_have_a_port_and_a_path(url: str) -> None:
    found = Settings.from_environment({"UPSCALER_PUBLIC_URL": url}).public_url
    assert found == url.removesuffix("/")


@pytest.mark.parametrize(
    "url",
    ["a.example", "ftp://a", "http://", "http:///a", "https://a?b", "https://a/#b", "https://u@a",
     "https://a:99999", "https://a b", "https://a/b c", "https://a//b", "https://a\n"],
)  # fmt: skip
def test_another_public_url_is_refused_when_the_settings_are_read(url: str) -> None:
    if url.endswith("\n"):
        url = f"{url}x"
    with pytest.raises(InvalidSetting, match="UPSCALER_PUBLIC_URL"):
        Settings.from_environment({"UPSCALER_PUBLIC_URL": url})


@given(st.text(max_size=30))
def test_what_passes_for_a_host_can_lead_nowhere_else(text: str) -> None:
    """In a URL it is the host and the port, and ends there."""
    if is_authority(text):
        url = httpx.URL(f"http://{text}/path") if text.isascii() and "%" not in text else None
        assert not set(text) & set('/?#@\\ \r\n\t"<>')
        assert url is None or (url.path, url.userinfo) == ("/path", b"")
