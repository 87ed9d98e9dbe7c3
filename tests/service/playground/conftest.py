"""Chromium, and the page of a running service in it.

pytest imports this file even where playwright is missing, if it is given this folder's path.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from tests.service.playground.actions import CHROMIUM, DESKTOP, TOKEN, Darkroom
from tests.support.paths import PHOTO
from tests.support.service import running
from upscaler.models import UpscalingModel
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nothing: the test's output is for failures."""


class Blank(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>another site</title><body>")

    def log_message(self, *args: object) -> None:
        """Nothing: the test's output is for failures."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Another site on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Blank) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """Another server, with the photo."""
    handler = partial(Quiet, directory=str(PHOTO.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/photo.png"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def darkroom() -> Darkroom:
    return Darkroom()


@pytest.fixture(scope="module")
def service(darkroom: Darkroom, elsewhere: str) -> Iterator[str]:
    settings = Settings(
        tokens=("first", TOKEN),
        fetch_ports=(int(re.split("[:/]", elsewhere)[4]),),
        fetch_networks=(ip_network("127.0.0.0/8"),),
    )
    with running(create_app(LocalBackend(darkroom), settings)) as url:
        yield url
        darkroom.open.set()


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    with launched(playwright) as chromium:
        yield chromium


def launched(playwright: Playwright, *more: str) -> Browser:
    """Chromium, with more options than it always has."""
    quiet = ["gpu", "quic", "background-networking", "component-update", "sync"]
    options = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    return playwright.chromium.launch(executable_path=CHROMIUM, args=[*options, *more])


@pytest.fixture
def options() -> dict[str, Any]:
    """How the browser is set up; a test may ask for others by its parameters."""
    return {}


@pytest.fixture
def context(
    browser: Browser, service: str, darkroom: Darkroom, options: dict[str, Any]
) -> Iterator[BrowserContext]:
    darkroom.reset()
    context = browser.new_context(**{"base_url": service, "viewport": DESKTOP} | options)
    context.set_default_timeout(10_000)
    yield context
    darkroom.open.set()
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """The page, ready; at the end of the test it must not have complained of anything."""
    from playwright.sync_api import expect

    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        # A status of 4xx or 5xx is a complaint of the browser's, not of the page's.
        if message.type in {"error", "warning"} and "Failed to load" not in message.text:
            complaints.append(message.text)

    page = context.new_page()
    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto("/")
    expect(page.locator("#model")).to_have_value(UpscalingModel.X4_PLUS)
    yield page
    assert complaints == []
