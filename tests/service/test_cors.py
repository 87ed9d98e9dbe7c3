"""CORS, header by header: which origins, preflights, and what a page may read."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Final

import httpx
import pytest
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from mock_server import Mock
from tests.support.both_servers import SERVERS, api_of
from tests.support.mock_servers import SMALL, mock_child, mocked
from tests.support.service import SETTINGS, Moody, Resizer, running, serving
from upscaler.errors import InvalidSetting
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.settings import Settings

PAGE: Final = "https://app.example"
OPEN: Final = replace(SETTINGS, cors_origins=(PAGE, "http://localhost:3000"))
PREFLIGHT: Final = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-octoai-async,x-anything",
}
READABLE: Final = {
    *("cache-control", "content-language", "content-length", "content-type"),
    *("expires", "last-modified", "pragma"),
}
"""The headers that any page may read (https://fetch.spec.whatwg.org/#cors-safelisted-response-header-name)."""
OF_THE_CONNECTION: Final = {"date", "connection", "vary", "transfer-encoding", "keep-alive"}


def preflight(api: httpx.Client, path: str, origin: str, **headers: str) -> httpx.Response:
    """Without a token, as browsers send it."""
    url = api.base_url.join(path)
    return httpx.options(url, headers={"Origin": origin, **PREFLIGHT, **headers})


@pytest.mark.parametrize("server", SERVERS)
def test_a_preflight_needs_no_token_and_allows_every_header(server: str) -> None:
    with api_of(server, OPEN) as api:
        for path in ("/upscaling", "/v1/requests/x", "/healthcheck"):
            allowed = preflight(api, path, PAGE)
            assert allowed.status_code == 200
            assert allowed.headers["Access-Control-Allow-Origin"] == PAGE
            assert allowed.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST, DELETE"
            granted = allowed.headers["Access-Control-Allow-Headers"]
            assert granted == PREFLIGHT["Access-Control-Request-Headers"]
            assert "Access-Control-Allow-Credentials" not in allowed.headers
            assert allowed.headers["X-User-Request-ID"]
        counted = 'upscaler_requests_total{model="",route="other",status="200"} 3.0'
        assert counted in api.get("/metrics").text


@pytest.mark.parametrize("server", SERVERS)
def test_a_preflight_that_is_refused_says_why_in_the_shape_of_an_error(server: str) -> None:
    with api_of(server, OPEN) as api:
        other = preflight(api, "/upscaling", "https://other.example")
        method = preflight(api, "/upscaling", PAGE, **{"Access-Control-Request-Method": "PUT"})
    for refused, word in ((other, "origin"), (method, "method")):
        assert refused.status_code == 400
        assert word in refused.json()["detail"]
        assert "UPSCALER_CORS_ORIGINS" in refused.json()["detail"]
        assert refused.headers["X-User-Request-ID"]
    assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize("server", SERVERS)
def test_only_allowed_origins_may_read_responses(server: str) -> None:
    with api_of(server, OPEN) as api:
        for origin in (PAGE, "http://localhost:3000", "https://other.example", "null"):
            answer = api.post("/upscaling", json=SMALL, headers={"Origin": origin})
            assert answer.status_code == 200, "whoever has a token may ask"
            allowed = answer.headers.get("Access-Control-Allow-Origin")
            assert allowed == (origin if origin in OPEN.cors_origins else None)
            assert "Origin" in answer.headers["Vary"]
            assert "Accept" in answer.headers["Vary"]


def test_the_service_allows_nobody_by_default_and_the_mock_everybody() -> None:
    with serving(Resizer()) as api:
        assert preflight(api, "/upscaling", PAGE).status_code == 204
        answer = api.get("/livez", headers={"Origin": PAGE})
        assert not [name for name in answer.headers if name.startswith("access-control")]
    with mocked(Mock(settings=SETTINGS)) as api:
        assert preflight(api, "/upscaling", PAGE).headers["Access-Control-Allow-Origin"] == "*"
        answer = api.get("/livez", headers={"Origin": "null"})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
    with mocked(Mock(settings=SETTINGS, cors=False)) as api:
        assert preflight(api, "/upscaling", PAGE).status_code == 204


@pytest.mark.parametrize("server", SERVERS)
def test_a_page_may_read_every_header_that_a_response_has(server: str) -> None:
    settings = replace(OPEN, price_per_second=Decimal(1))
    with api_of(server, settings) as api:
        page = {"Origin": PAGE}
        answers = [
            api.post("/upscaling", json=SMALL, headers=page),
            api.post("/upscaling", json=SMALL, headers=page | {"Accept": "image/png"}),
            api.post("/upscaling", json=SMALL, headers=page | {"X-Upscaler-Dry-Run": "1"}),
            api.post("/upscaling", json=SMALL, headers=page | {"Content-Encoding": "br"}),
            api.post("/upscaling", json=SMALL, headers=page | {"Authorization": ""}),
            api.post("/upscaling", json={}, headers=page | {"X-Mock-Fault": "429"}),
            api.put("/upscaling", headers=page),
            api.get("/", headers=page),
        ]
    for answer in answers:
        listed = answer.headers["Access-Control-Expose-Headers"].lower().split(", ")
        sent = {name for name in answer.headers if not name.startswith("access-control")}
        static = {"content-security-policy", "x-content-type-options", "referrer-policy", "etag"}
        assert sent - READABLE - OF_THE_CONNECTION - static <= {*listed}


def test_a_page_may_read_a_fault_of_ours() -> None:
    with serving(Moody(), OPEN) as api:
        fields = SMALL | {"model": "real-esrgan-x2-plus"}
        answer = api.post("/upscaling", json=fields, headers={"Origin": PAGE})
    assert (answer.status_code, answer.json()) == (500, {"detail": "Internal Server Error"})
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE


class Broken:
    """Middleware that fails."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raise ZeroDivisionError
        await self.app(scope, receive, send)


def test_a_page_may_read_a_fault_of_a_middleware() -> None:
    app = create_app(LocalBackend(Resizer()), OPEN, middleware=[Middleware(Broken)])
    with running(app) as url:
        answer = httpx.get(f"{url}/livez", headers={"Origin": PAGE})
    assert answer.status_code == 500
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert answer.headers["X-User-Request-ID"]


def test_preflights_take_no_step_of_the_mocks_faults_or_rate_limit() -> None:
    mock = Mock(settings=SETTINGS, rate_limit=1)
    with mocked(mock) as api:
        mock.faults.set("503,ok")
        for _ in range(3):
            assert preflight(api, "/upscaling", PAGE).status_code == 200
        statuses = [api.post("/upscaling", json=SMALL).status_code for _ in range(3)]
    assert statuses == [503, 200, 429]
    assert len(mock.journal.find(method="OPTIONS")) == 3


@pytest.mark.parametrize("path", ["/_mock/requests", "/_mock/faults"])
def test_no_page_of_another_origin_may_use_what_steers_the_mock(path: str) -> None:
    with mocked(Mock(settings=SETTINGS)) as api:
        for answer in (preflight(api, path, PAGE), api.get(path, headers={"Origin": PAGE})):
            assert answer.status_code == 403
            assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_command_has_an_option_and_minds_the_variable(tmp_path: Path) -> None:
    def allowed(*options: str, **environment: str) -> list[str]:
        with mock_child(tmp_path, *options, environment=environment) as child:
            answer = httpx.get(f"{child.url}/livez", headers={"Origin": PAGE})
            return answer.headers.get_list("Access-Control-Allow-Origin")

    assert allowed() == ["*"]
    assert allowed("--no-cors") == []
    assert allowed(UPSCALER_CORS_ORIGINS=PAGE) == [PAGE]
    assert allowed(UPSCALER_CORS_ORIGINS="https://other.example") == []


# The setting


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("*", ("*",)),
        ("https://a.example", ("https://a.example",)),
        (
            " https://A.example/ , http://localhost:3000,",
            ("https://a.example", "http://localhost:3000"),
        ),
        ("https://a.example:443,http://a.example:80", ("https://a.example", "http://a.example")),
        ("http://[::1]:8080", ("http://[::1]:8080",)),
        ("capacitor://localhost", ("capacitor://localhost",)),
    ],
)
def test_origins_are_taken_as_browsers_write_them(text: str, origins: tuple[str, ...]) -> None:
    settings = Settings.from_environment({"UPSCALER_CORS_ORIGINS": text})
    assert settings.cors_origins == origins


@pytest.mark.parametrize(
    "text",
    [
        *("a.example", "https://", "https://a.example/path", "https://*.a.example", "null", ","),
        *("*, https://a.example", "https://user@a.example", "https://a.example?x", "https://a b"),
        *("https://a.example:x", "//a.example", "https://bücher.example"),
    ],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting, match=r"UPSCALER_CORS_ORIGINS: .*https://app\.example\.com"):
        Settings.from_environment({"UPSCALER_CORS_ORIGINS": text})
