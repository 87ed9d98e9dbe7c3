"""The mock's pages say that they are a mock's; the service's look as ever."""

import re

import httpx
import pytest
from playwright.sync_api import Browser, expect

from mock_server import MockServer
from mock_server.mock import NOTICE
from tests.support.requirements import needs_browser
from tests.support.service import Resizer, serving

PAGES = ("/", "/docs")


def test_only_the_mock_has_a_notice() -> None:
    with MockServer() as mock, serving(Resizer()) as service:
        for path in PAGES:
            told = httpx.get(mock.url + path).text
            plain = service.get(path).text
            assert NOTICE in told
            assert "mock" not in plain
            assert re.sub("<link[^>]*notice.css.*\n", "", told) == plain
        assert httpx.get(f"{mock.url}/page/notice.css").status_code == 200


@needs_browser
@pytest.mark.parametrize("path", PAGES)
def test_the_notice_is_the_first_that_is_seen(browser: Browser, path: str) -> None:
    logged: list[str] = []
    with MockServer() as mock, browser.new_context() as context:
        page = context.new_page()
        page.on("console", lambda message: logged.append(message.text))
        page.goto(mock.url + path)
        note = page.get_by_role("note").first
        expect(note).to_have_text(NOTICE)
        expect(note).to_have_css("background-color", "rgb(122, 59, 0)")
        box = note.bounding_box()
        assert box
        assert box["y"] < 20, "above all else"
        if path == "/docs":
            expect(page.get_by_role("heading", name="Upscaling API")).to_be_visible(timeout=60_000)
    assert not [text for text in logged if "Content Security Policy" in text]
