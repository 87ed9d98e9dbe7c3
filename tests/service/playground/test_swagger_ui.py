"""The API docs: Swagger UI shows and tries the operations, and loads nothing from elsewhere."""

import json
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, Route, expect

from mock_server import Mock, MockServer
from tests.support.requirements import needs_browser
from tests.support.service import GOOD, running

pytestmark = needs_browser

OPERATIONS = ["/livez", "/healthcheck", "/metrics", "/upscaling"]
UPSCALING = "#operations-default-upscaling_upscaling_post"


@pytest.fixture(scope="module")
def mock() -> Iterator[MockServer]:
    with MockServer() as mock:
        yield mock


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page. Fails the test if it sent a request to another host or logged anything."""
    logged: list[str] = []
    requested: list[str] = []
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("console", lambda message: logged.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: logged.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        yield page
        here = urlsplit(page.url).netloc
    assert logged == []
    fetched = [url.removeprefix("blob:") for url in requested if not url.startswith("data:")]
    assert {urlsplit(url).netloc for url in fetched} == {here}


def described() -> int:
    """How many operations the description has."""
    return sum(map(len, Mock().app.openapi()["paths"].values()))


def authorize(page: Page) -> None:
    page.click("button.authorize")
    page.fill(".auth-container input", "mock-token")
    page.click(".auth-btn-wrapper button.authorize")
    page.click(".auth-btn-wrapper button.btn-done")


def upscale(page: Page) -> None:
    page.click(f"{UPSCALING} .opblock-summary-control")
    page.click("button.try-out__btn")
    page.fill(".body-param__text", json.dumps(GOOD))
    page.click("button.execute")
    status = page.locator(".live-responses-table tbody .response-col_status")
    expect(status).to_have_text(re.compile("^200"))


@pytest.mark.slow
def test_the_operations_are_shown_and_tried_with_a_token(page: Page, mock: MockServer) -> None:
    mock.reset()
    page.goto(f"{mock.url}/docs")
    expect(page.locator("h1, h2").first).to_contain_text("Upscaling API")
    expect(page.locator(".opblock")).to_have_count(described())
    assert page.locator(".opblock-summary-path").all_inner_texts()[:4] == OPERATIONS
    authorize(page)
    upscale(page)
    mock.assert_called_with(scale=2, status=200, times=1)
    page.select_option(f"{UPSCALING} .responses-table select.content-type", "image/png")
    page.click("button.execute")
    image = page.locator(".live-responses-table img")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 608
    mock.assert_called_with(scale=2, headers={"Accept": "image/png"}, times=1)
    page.goto(f"{mock.url}/docs")
    expect(page.locator("button.authorize.unlocked")).to_be_visible()
    stored = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
    assert stored == [0, 0, ""], "the token is stored nowhere"


@pytest.mark.slow
def test_it_works_under_a_path_prefix(page: Page, mock: MockServer) -> None:
    mock.reset()

    def strip(route: Route) -> None:
        route.continue_(url=route.request.url.replace("/below/", "/"))

    page.route("**/below/**", strip)
    with page.expect_request("**/below/upscaling"):
        page.goto(f"{mock.url}/below/docs")
        expect(page.locator(".opblock")).to_have_count(described())
        authorize(page)
        upscale(page)
    mock.assert_called_with(scale=2, status=200, times=1)


@pytest.mark.slow
def test_it_works_where_the_app_is_mounted(page: Page) -> None:
    outer = FastAPI()
    outer.mount("/below", Mock().app)
    with running(outer) as url, page.expect_request("**/below/upscaling"):
        page.goto(f"{url}/below/docs")
        expect(page.locator(".opblock")).to_have_count(described())
        authorize(page)
        upscale(page)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/docs", "/"])
def test_no_page_can_frame_it(
    browser: Browser, mock: MockServer, other_site: str, path: str
) -> None:
    logged: list[str] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("console", lambda message: logged.append(message.text))
        page.goto(other_site)
        page.set_content(f'<iframe src="{mock.url}{path}"></iframe>')
        page.wait_for_timeout(500)
        assert page.frames[1].locator("button").count() == 0
    assert any("frame-ancestors" in text for text in logged)
