"""REQ-4: a picture by its URL, through the service; what a download may be is in test_fetch."""

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network

import httpx
import pytest

from tests.support.paths import PHOTO
from tests.support.service import GOOD, SETTINGS, Resizer, decoded, only_error, serving, upscale
from upscaler.api.headers import REQUEST_ID_HEADER
from upscaler.service import intake, logs
from upscaler.service.download import MAX_FETCH_BYTES

FILES = {
    "/cat.png": PHOTO.read_bytes(),
    "/slow.png": PHOTO.read_bytes(),
    "/small.png": PHOTO.read_bytes()[:1000],
    "/cut.png": PHOTO.read_bytes()[:50_000],
    "/page.html": b"<html>the secret of an internal host</html>",
    "/empty": b"",
    "/huge": b"",
}


class Host(BaseHTTPRequestHandler):
    """Another host, on an address of its own on this machine; it counts whom it serves at once."""

    inside = 0
    most = 0
    counting = threading.Lock()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1/cat.png")
            self.end_headers()
        elif path in FILES:
            with self.counting:
                Host.inside += 1
                Host.most = max(Host.most, Host.inside)
            time.sleep(0.1 if path == "/slow.png" else 0)
            with self.counting:
                Host.inside -= 1
            self.send_response(200)
            size = MAX_FETCH_BYTES + 1 if path == "/huge" else len(FILES[path])
            self.send_header("Content-Length", str(size))
            self.end_headers()
            self.wfile.write(FILES[path])
        else:
            self.send_error(404, explain="the secret of an internal host")

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def host() -> Iterator[int]:
    """The port of such a host on 127.0.0.2."""
    server = ThreadingHTTPServer(("127.0.0.2", 0), Host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with host() as port:
        yield port


def service(port: int) -> AbstractContextManager[httpx.Client]:
    """A service that may download from `host`."""
    networks = (ip_network("127.0.0.2/32"),)
    return serving(Resizer(), replace(SETTINGS, fetch_ports=(80, port), fetch_networks=networks))


@pytest.fixture(scope="module")
def api(port: int) -> Iterator[httpx.Client]:
    with service(port) as client:
        yield client


def test_a_picture_by_its_url_is_the_one_that_is_sent_otherwise(
    api: httpx.Client, port: int
) -> None:
    by_url = upscale(api, init_image_url=f"http://127.0.0.2:{port}/cat.png?key=1", scale=2)
    assert decoded(by_url).size == (608, 512)
    assert by_url.json() == upscale(api, **GOOD).json()
    stages = dict(part.split(";dur=") for part in by_url.headers["Server-Timing"].split(", "))
    assert float(stages["fetch"]) > 0


class OfRequest(logging.Filter):
    """Lets pass what is logged of the request with the id `name`.

    A service logs a request when it has answered it, so a line of the test before may be late.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return logs.request_id.get() == self.name


def test_of_a_url_the_host_alone_is_logged(port: int, caplog: pytest.LogCaptureFixture) -> None:
    url = f"http://127.0.0.2:{port}/cat.png?key=confidential"
    with (
        caplog.at_level(logging.DEBUG, "upscaler"),
        caplog.filtering(OfRequest("this")),
        service(port) as api,  # of its own, which has logged all when it ends
    ):
        api.headers[REQUEST_ID_HEADER] = "this"
        assert decoded(upscale(api, init_image_url=url, scale=1)).size == (304, 256)
    (line,) = [record for record in caplog.records if record.message == "POST /upscaling"]
    assert vars(line)["source"] == "127.0.0.2"
    assert "confidential" not in "".join(str(vars(each)) for each in caplog.records)


def test_null_is_absent(api: httpx.Client, port: int) -> None:
    url = f"http://127.0.0.2:{port}/cat.png"
    assert decoded(upscale(api, init_image=None, init_image_url=url, scale=1)).size == (304, 256)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/nowhere", "url_status"),
        ("/huge", "url_too_large"),
        ("/away", "url_refused"),
        ("/page.html", "image_unreadable"),
        ("/empty", "image_unreadable"),
        ("/small.png", "image_damaged"),
        ("/cut.png", "image_damaged"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"X-OctoAI-Async": "1"}])
def test_what_is_wrong_with_it_is_told_on_its_field(
    api: httpx.Client, port: int, path: str, kind: str, headers: dict[str, str]
) -> None:
    fields = {"init_image_url": f"http://127.0.0.2:{port}{path}", "scale": 2}
    answer = api.post("/upscaling", json=fields, headers=headers)
    error = only_error(answer)
    assert (error["loc"], error["type"]) == (["body", "init_image_url"], kind)
    assert "secret" not in answer.text
    assert "127.0.0" not in answer.text


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://127.0.0.1/cat.png", "url_refused"),
        ("http://localhost:80/cat.png", "url_refused"),
        ("http://[::1]/cat.png", "url_refused"),
        ("http://169.254.169.254/latest/meta-data/", "url_refused"),
        ("http://127.0.0.2:81/cat.png", "url_invalid"),
        ("ftp://127.0.0.2/cat.png", "url_invalid"),
        ("file:///etc/passwd", "url_invalid"),
        ("", "url_invalid"),
        ("cat.png", "url_invalid"),
    ],
)
def test_what_may_not_be_asked_for_is_refused(api: httpx.Client, url: str, kind: str) -> None:
    error = only_error(upscale(api, init_image_url=url, scale=2))
    assert (error["loc"], error["type"]) == (["body", "init_image_url"], kind)


def test_a_dry_run_downloads_the_picture_too(api: httpx.Client, port: int) -> None:
    fields = {"init_image_url": f"http://127.0.0.2:{port}/cat.png", "output_image_width": 1000}
    answer = api.post("/upscaling", json=fields, headers={"X-Upscaler-Dry-Run": "1"})
    assert (answer.json()["output_width"], answer.json()["output_height"]) == (1000, 842)


def test_so_many_are_downloaded_at_once(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(intake, "MAX_DOWNLOADS", 2)
    Host.most = 0
    fields = {"init_image_url": f"http://127.0.0.2:{port}/slow.png", "scale": 1}
    with service(port) as client, ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(upscale, client, **fields) for _ in range(6)]
        assert all(decoded(answer.result()).size == (304, 256) for answer in answers)
    assert Host.most == 2


def test_by_default_only_the_public_internet_is_asked(port: int) -> None:
    with serving(Resizer()) as client:
        for url in (f"http://127.0.0.2:{port}/cat.png", "http://127.0.0.2/cat.png"):
            error = only_error(upscale(client, init_image_url=url, scale=2))
            assert error["type"] in ("url_invalid", "url_refused")
