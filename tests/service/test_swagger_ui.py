"""The description's page over HTTP; in a browser: playground/test_swagger_ui.py."""

import asyncio
import re
import subprocess
import sys

import httpx
import pytest
from starlette.types import Message

from tests.support.service import Resizer
from upscaler.service import playground, swagger_ui
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend
from upscaler.service.static_files import PART_BYTES
from upscaler.settings import Settings

PATHS = ["/docs", "/docs/start.js", *(f"/docs/{name}" for name in swagger_ui.FILES)]
BUNDLE = "/docs/swagger-ui-bundle.js"


@pytest.mark.parametrize("path", PATHS)
def test_each_file_is_under_the_pages_policy_but_for_what_it_needs(
    anonymous: httpx.Client, path: str
) -> None:
    answer, of_page = anonymous.get(path), anonymous.get("/")
    assert answer.status_code == 200
    policy = dict(
        line.split(" ", 1) for line in answer.headers["Content-Security-Policy"].split("; ")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    for name in playground.HEADERS:
        if name != "Content-Security-Policy":
            assert answer.headers[name] == of_page.headers[name]


@pytest.mark.parametrize("path", PATHS)
def test_a_browser_that_has_a_file_is_not_sent_it_again(anonymous: httpx.Client, path: str) -> None:
    whole, head = anonymous.get(path), anonymous.head(path)
    assert head.content == b""
    for name in ("Content-Length", "Content-Type", "ETag", "Content-Security-Policy"):
        assert head.headers[name] == whole.headers[name]
    assert int(head.headers["Content-Length"]) == len(whole.content)
    again = anonymous.get(path, headers={"If-None-Match": whole.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_nothing_of_the_page_is_elsewhere_or_within_it(anonymous: httpx.Client) -> None:
    markup = anonymous.get("/docs").text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|//", markup)
    assert re.findall(r"<script[^>]*>(.*?)</script>", markup) == ["", ""]
    assert not re.search(r'(src|href)="(/|http)', markup), "every address is relative"
    for address in re.findall(r'(?:src|href)="([^"]+)"', markup):
        assert anonymous.get(f"/{address}").status_code == 200


def test_there_is_no_other_page_of_the_description(anonymous: httpx.Client) -> None:
    for path in ("/redoc", "/docs/oauth2-redirect", "/docs/", "/docs/../docs/x"):
        assert anonymous.get(path).status_code == 404


def test_files_are_read_on_demand_and_the_package_is_not_imported() -> None:
    program = """
import builtins, io, sys
opened = []
def noting(event, args):
    if event == "open":
        opened.append(str(args[0]))
sys.addaudithook(noting)
from starlette.testclient import TestClient
from mock_server import Mock
app = Mock().app
assert not [path for path in opened if "swagger-ui" in path], opened
assert "bundle" in TestClient(app).get("/docs").text
assert len(TestClient(app).get("/docs/swagger-ui-bundle.js").content) > 10**6
assert [path for path in opened if path.endswith("swagger-ui-bundle.js")]
assert "fastapi_swagger" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_file_is_handed_on_part_by_part() -> None:
    """Of a connection that takes nothing, a server may copy all that it was given at once."""
    app = create_app(LocalBackend(Resizer()), Settings(tokens=("secret",)))
    parts: list[bytes] = []

    async def receive() -> Message:
        await asyncio.sleep(30)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        parts.append(message.get("body", b""))

    scope = {"type": "http", "method": "GET", "path": BUNDLE, "query_string": b"", "headers": []}
    asyncio.run(app(scope, receive, send))
    assert len(b"".join(parts)) > 10**6
    assert max(map(len, parts)) <= PART_BYTES
