"""Requests as they are sent, and the curl commands that send the same."""

import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract_tests.cli import main
from contract_tests.report.outcomes import SHORT_BYTES
from contract_tests.requests.images import SampleImage
from contract_tests.requests.request import (
    AUTHORIZATION,
    LONGER_TOKEN,
    MAX_INLINE_BYTES,
    SHORTER_TOKEN,
    SWAPPED_CASE_TOKEN,
    Request,
    upscaling_request,
)
from contract_tests.target.client import Target
from tests.support.properties import examples

TOKEN = "s3cret $HOME `id` \"'\\".replace(" ", "-")
Seen = list[tuple[str, str, list[tuple[str, str]], bytes]]

needs_curl = pytest.mark.skipif(
    shutil.which("curl") is None and not os.environ.get("CI"), reason="there is no curl"
)


class Listener(http.server.BaseHTTPRequestHandler):
    """Records what it receives."""

    protocol_version = "HTTP/1.1"

    def response(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        seen: Seen = self.server.seen  # type: ignore[attr-defined]
        seen.append((self.command, self.path, self.headers.items(), self.rfile.read(length)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = do_PATCH = response  # noqa: N815  its names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name
        """Say nothing."""


@pytest.fixture(scope="module")
def listener() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        server.seen = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def what_is_sent(server: http.server.ThreadingHTTPServer, request: Request) -> object:
    """What arrives of it, as the client sends it, without the headers of the connection."""
    url = f"http://127.0.0.1:{server.server_port}"
    target = Target(url, TOKEN)
    target.send(request)
    target.close()
    return last(server)


def what_curl_sends(
    server: http.server.ThreadingHTTPServer, request: Request, longest: int = MAX_INLINE_BYTES
) -> object:
    line = request.curl(f"http://127.0.0.1:{server.server_port}", max_inline_bytes=longest)
    assert TOKEN not in line
    assert line.isprintable()
    assert longest == MAX_INLINE_BYTES or len(line) < 2500
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", line], env={**os.environ, "TOKEN": TOKEN, "PATH": path}, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, (line, done.stderr)
    return last(server)


def last(server: http.server.ThreadingHTTPServer) -> object:
    method, path, headers, body = server.seen[-1]  # type: ignore[attr-defined]
    ignored = ("host", "connection", "user-agent", "expect", "content-length")
    kept = [(name.lower(), value) for name, value in headers if name.lower() not in ignored]
    return method, path, sorted(kept), body


IMAGE = SampleImage(256, 300)
REQUESTS = [
    upscaling_request({"scale": 2}, IMAGE),
    upscaling_request({"scale": 2}, SampleImage(2048, 2048, "jpeg", 1)),
    upscaling_request({"model": "'quoted' \"twice\" $TOKEN `id` \\ \n é \U0001f600"}),
    Request(b"\xff\0 not text"),
    Request(b"'; echo $HOME; '"),
    Request(b" " * 3_000_000),
    Request(b"x" * 5000 + b"'"),
    Request(b"@/etc/passwd"),
    Request(b"", headers=()),
    Request(method="GET", path="/healthcheck", headers=()),
    Request(method="GET", path="/v1/requests/x", headers=(AUTHORIZATION,)),
    Request(method="HEAD", headers=(AUTHORIZATION,)),
    Request(b"{}", method="PUT"),
    Request(b"{}").without_headers("Content-Type"),
    Request(b"{}").with_headers(("Content-Type", "")),
    Request(b"{}").with_headers(("Accept", "image/png, */*;q=0.1"), ("X-Note", 'a "b" \\ `c`')),
    Request(b"{}").with_headers(("Authorization", f"Bearer {LONGER_TOKEN}")),
    Request(b"{}").with_headers(("Authorization", f"Bearer {SHORTER_TOKEN}")),
    Request(b"{}").with_headers(("Authorization", f"Bearer {SWAPPED_CASE_TOKEN}")),
]


@pytest.mark.every(3)
@needs_curl
@pytest.mark.parametrize("request_", REQUESTS, ids=range(len(REQUESTS)))
def test_a_curl_command_sends_the_same(
    listener: http.server.ThreadingHTTPServer, request_: Request
) -> None:
    assert what_curl_sends(listener, request_) == what_is_sent(listener, request_)


LONG = [
    upscaling_request({"scale": 2}, IMAGE),
    upscaling_request({"scale": 2}, SampleImage(2048, 2048, "jpeg", 1)),
    upscaling_request({"note": "it's"}, SampleImage(300, 256, "png", 3, "grey alpha", 6)),
    upscaling_request({"scale": 2}, SampleImage(256, 256, "png", 3, "palette", 1, "truncated")),
    upscaling_request({"scale": 2, "name": "(base64)"}, SampleImage(256, 256, "png", 3, "palette")),
    upscaling_request({"scale": [0] * 20_000}),
    Request(b"[" * 100_000),
    Request(b"\xff\0" * 5000),
]


@pytest.mark.every(4)
@needs_curl
@pytest.mark.parametrize("request_", [*LONG, *REQUESTS[2:]], ids=range(len(LONG) + 17))
def test_a_short_curl_command_sends_the_same(
    listener: http.server.ThreadingHTTPServer, request_: Request
) -> None:
    assert what_curl_sends(listener, request_, SHORT_BYTES) == what_is_sent(listener, request_)


def test_a_body_with_an_unknown_image_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    for image in ("", "a,b,png,1,palette,1,", "256,256,gif,1,palette,1,", "256,256"):
        assert main(["--sample-body", "(base64)", image]) == 2
        assert capsys.readouterr().err.startswith("upscaler-contract: ")


@needs_curl
@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.encode))
def test_a_curl_command_sends_any_text(
    listener: http.server.ThreadingHTTPServer, body: bytes
) -> None:
    request = Request(body)
    assert what_curl_sends(listener, request) == what_is_sent(listener, request)


def test_the_token_is_a_variable_in_headers() -> None:
    request = upscaling_request({"scale": 2}, IMAGE)
    assert "$TOKEN" in request.curl("http://x")
    assert request.header("authorization") == "Bearer $TOKEN"


def test_the_repr_of_a_request_has_no_long_runs_of_blanks() -> None:
    shown = repr(Request(b'{"scale": 2}' + b" " * 10_000))
    assert '| {"scale": 2}(10000 spaces)>' in shown


def test_the_repr_of_a_request_has_no_base64() -> None:
    shown = repr(upscaling_request({"scale": 2}, IMAGE).with_headers(("Accept", "image/png")))
    assert shown == (
        '<POST /upscaling | Accept: image/png | {"scale": 2, "init_image": "(base64)"} | '
        "SampleImage(256x300 png, colour, seed 0)>"
    )


def test_a_request_names_one_of_the_models() -> None:
    request = upscaling_request({"scale": 2})
    assert request.with_model(["m", "n"]).body == b'{"scale": 2, "model": "m"}'
    assert upscaling_request({"model": "x"}).with_model(["m"]).body == b'{"model": "m"}'
    for other in (upscaling_request({"model": "n"}), Request(b"[]"), Request(b"{")):
        assert other.with_model(["m", "n"]) == other
    assert request.with_model([]) == request
