"""The API from a page of another origin, in the browser: CORS of the service and of the mock."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page

from mock_server import Mock
from mock_server.serving.connection import MockConnection
from tests.service.playground.actions import ASCII_TOKEN, InvertingUpscaler
from tests.support.mock_servers import SMALL
from tests.support.requirements import needs_browser
from tests.support.service import running
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.settings import Settings

pytestmark = needs_browser

CALLS: Final = """async ([api, token, body, fault]) => {
    const authorization = {Authorization: `Bearer ${token}`};
    const json = {"Content-Type": "application/json", "X-User-Request-ID": "of-the-page"};
    const headers = {...authorization, ...json, ...fault};
    const seen = {};
    const call = async (name, path, options) => {
        try {
            const answer = await fetch(new URL(path, api), options);
            const kind = answer.headers.get("Content-Type") || "";
            const content = kind === "application/json" ? await answer.json() : null;
            seen[name] = {status: answer.status, headers: [...answer.headers.keys()], content,
                          id: answer.headers.get("X-User-Request-ID")};
        } catch (error) {
            seen[name] = {status: 0, headers: [], content: null, id: null};
        }
        return seen[name].content;
    };
    const post = (more) => ({method: "POST", body, headers: {...headers, ...more}});
    await call("json", "/upscaling", post({}));
    await call("file", "/upscaling", post({Accept: "image/png"}));
    await call("unauthorized", "/upscaling", {...post({}), headers: json});
    await call("refused", "/upscaling", {...post({}), body: "{}"});
    await call("gone", "/v1/requests/gone", {headers: authorization});
    await call("health", "/healthcheck", {});
    const started = await call("async", "/upscaling", post({"X-OctoAI-Async": "1"}));
    if (!started) return seen;
    let polled = {status: "pending"};
    while (["pending", "running"].includes(polled?.status))
        polled = await call("poll", started.poll_url, {headers: authorization});
    await call("result", polled?.response_url, {headers: authorization});
    return seen;
}"""
STATUSES: Final = {
    "json": 200,
    "file": 200,
    "unauthorized": 401,
    "refused": 422,
    "gone": 404,
    "health": 200,
    "async": 200,
    "poll": 200,
    "result": 200,
}


@contextmanager
def served(
    server: str, origins: tuple[str, ...], *, cors: bool = True
) -> Iterator[tuple[str, Any]]:
    """The URL of the service or the mock, and the mock."""
    settings = Settings(tokens=(ASCII_TOKEN,), cors_origins=origins)
    if server == "mock":
        mock = Mock(settings=settings, cors=cors)
        with running(mock.app, MockConnection) as url:
            yield url, mock
        return
    upscaler = InvertingUpscaler()
    upscaler.open.set()
    with running(create_app(LocalBackend(upscaler), settings)) as url:
        yield url, None


@pytest.fixture
def page(browser: Browser, other_site: str) -> Iterator[Page]:
    """A page of another origin than the API's."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(other_site)
        yield page


def calls(page: Page, url: str, fault: str = "ok") -> dict[str, dict[str, Any]]:
    header = {} if fault == "ok" else {"X-Mock-Fault": fault}
    seen: dict[str, dict[str, Any]] = page.evaluate(
        CALLS, [url, ASCII_TOKEN, json.dumps(SMALL), header]
    )
    return seen


def statuses(seen: dict[str, dict[str, Any]]) -> dict[str, int]:
    return {name: call["status"] for name, call in seen.items()}


@pytest.mark.every(2)
@pytest.mark.parametrize(
    ("server", "origins"),
    [("service", ("*",)), ("service", ("{}",)), ("mock", ()), ("mock", ("{}",))],
)
def test_a_page_of_an_allowed_origin_uses_the_api(
    page: Page, other_site: str, server: str, origins: tuple[str, ...]
) -> None:
    """All of it, with a token; and it can read the headers that are ours."""
    with served(server, tuple(each.format(other_site) for each in origins)) as (url, _):
        seen = calls(page, url)
    assert statuses(seen) == STATUSES
    assert {call["id"] for call in seen.values()} >= {"of-the-page"}
    assert all(call["id"] for call in seen.values())
    about_the_image = {
        *("server-timing", "x-upscaler-model", "x-upscaler-weights-sha256"),
        *("x-upscaler-input-size", "x-upscaler-output-size"),
    }
    for name in ("json", "file", "result"):
        assert about_the_image <= {*seen[name]["headers"]}, name
    assert "www-authenticate" in seen["unauthorized"]["headers"]
    assert seen["json"]["content"]["image_b64"] == seen["result"]["content"]["image_b64"]


@pytest.mark.every(2)
@pytest.mark.parametrize(
    ("server", "origins", "cors"),
    [
        ("service", (), True),
        ("service", ("https://other.example",), True),
        ("mock", (), False),
        ("mock", ("https://other.example",), True),
    ],
)
def test_a_page_of_any_other_origin_reads_nothing(
    page: Page, server: str, origins: tuple[str, ...], cors: bool
) -> None:
    with served(server, origins, cors=cors) as (url, mock):
        seen = calls(page, url)
        if mock:
            mock.assert_not_called()
    assert set(statuses(seen).values()) == {0}


def test_a_page_of_another_origin_sees_the_mocks_faults(page: Page) -> None:
    """And cannot steer it: that is for pages of its own."""
    with served("mock", ()) as (url, mock):
        mock.faults.set("503", "healthcheck")
        seen = calls(page, url, "429:retry-after=7")
        steered = page.evaluate(
            "(url) => fetch(url, {method: 'POST', body: '{}'}).then(() => 'read', () => 'not')",
            f"{url}/_mock/reset",
        )
        assert len(mock.journal.find(fault="429:retry-after=7")) == 4
    assert statuses(seen)["json"] == 429
    assert statuses(seen)["health"] == 503
    assert {"retry-after", "x-mock-rule"} <= {*seen["json"]["headers"]}
    assert steered == "not"
