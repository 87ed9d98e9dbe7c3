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

from tests.service.playground.actions import (
    ASCII_TOKEN,
    DESKTOP,
    TOKEN,
    InvertingUpscaler,
)
from tests.support.paths import PHOTO
from tests.support.requirements import CHROMIUM
from tests.support.service import running
from upscaler.models import UpscalingModel
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Log nothing: a test's output is for failures."""


class BlankPageHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>another site</title><body>")

    def log_message(self, *args: object) -> None:
        """Log nothing: a test's output is for failures."""


@pytest.fixture(scope="package")
def other_site() -> Iterator[str]:
    """The URL of another site on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BlankPageHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="package")
def photo_url() -> Iterator[str]:
    """The URL of the photo on another server."""
    handler = partial(QuietHandler, directory=str(PHOTO.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/photo.png"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="package")
def stub() -> InvertingUpscaler:
    return InvertingUpscaler()


@pytest.fixture(scope="package")
def service(stub: InvertingUpscaler, photo_url: str) -> Iterator[str]:
    settings = Settings(
        tokens=(ASCII_TOKEN, TOKEN),
        fetch_ports=(int(re.split("[:/]", photo_url)[4]),),
        fetch_networks=(ip_network("127.0.0.0/8"),),
    )
    with running(create_app(LocalBackend(stub), settings)) as url:
        yield url
        stub.open.set()


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    with launched(playwright) as chromium:
        yield chromium


def launched(playwright: Playwright, *more: str) -> Browser:
    """Chromium, with `more` command-line options."""
    quiet = ["gpu", "quic", "background-networking", "component-update", "sync"]
    options = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    return playwright.chromium.launch(executable_path=CHROMIUM, args=[*options, *more])


@pytest.fixture
def options() -> dict[str, Any]:
    """Options of the browser context, for tests to parametrize."""
    return {}


@pytest.fixture
def context(
    browser: Browser, service: str, stub: InvertingUpscaler, options: dict[str, Any]
) -> Iterator[BrowserContext]:
    stub.reset()
    context = browser.new_context(**{"base_url": service, "viewport": DESKTOP} | options)
    context.set_default_timeout(10_000)
    yield context
    stub.open.set()
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """The page, ready to use. Fails the test if the browser logged an error or a warning."""
    from playwright.sync_api import expect

    logged: list[str] = []

    def record(message: ConsoleMessage) -> None:
        # Chromium itself logs each 4xx and 5xx response as an error.
        if message.type in {"error", "warning"} and "Failed to load" not in message.text:
            logged.append(message.text)

    page = context.new_page()
    page.on("console", record)
    page.on("pageerror", lambda error: logged.append(str(error)))
    page.goto("/")
    expect(page.locator("#model")).to_have_value(UpscalingModel.X4_PLUS)
    yield page
    assert logged == []
