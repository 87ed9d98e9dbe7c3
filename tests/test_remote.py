"""`upscaler image --remote`, which needs no torch; the rest of the command is in cli/."""

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.paths import ROOT
from tests.support.raw_http import PATIENCE_S
from tests.support.service import SETTINGS, TOKENS, Resizer, Stepwise, running
from upscaler.api.sizes import Size
from upscaler.cli import main, remote_service
from upscaler.imaging.pixels import Pixels
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend


class Counting(Resizer):
    """Notes what it makes, once it may."""

    def __init__(self) -> None:
        self.made: list[Size] = []
        self.may = threading.Event()
        self.may.set()

    def upscale(self, pixels: Pixels, *args: Any) -> Any:
        assert self.may.wait(PATIENCE_S)
        self.made.append(pixels.shape[1::-1])
        return super().upscale(pixels, *args)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with two images, one too small, and a text."""
    for name, size in (("a.png", (300, 280)), ("b.jpg", (280, 300)), ("c.png", (90, 90))):
        Image.new("RGB", size, (200, 40, 40)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UPSCALER_TOKEN", f"{TOKENS[1]},other")
    monkeypatch.setattr(remote_service, "LONGEST_PAUSE_S", 0.01)
    return tmp_path


def image(url: str, *args: str) -> int:
    return main.main(["image", "--remote", url, "--quiet", *args])


def sizes(folder: str = "upscaled") -> dict[str, Size]:
    found = {}
    for path in sorted(Path(folder).iterdir()):
        with Image.open(path) as image:
            found[path.name] = image.size
    return found


def jobs(url: str) -> list[Any]:
    headers = {b"Authorization": f"Bearer {TOKENS[1]}".encode()}
    found: list[Any] = httpx.get(f"{url}/v1/requests", headers=headers).json()["requests"]
    return found


def test_a_folder_is_upscaled_as_by_the_local_command(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = Counting()
    with running(create_app(LocalBackend(backend), SETTINGS)) as url:
        assert image(f"{url}/", ".", "--scale", "2", "--json") == 1
        assert sizes() == {"a.png": (600, 560), "b.png": (560, 600)}
        out, err = capsys.readouterr()
        assert {each["input"] for each in map(json.loads, out.splitlines())} == {
            "a.png", "b.jpg", "c.png",
        }  # fmt: skip
        assert "passed over 1 file" in err
        assert "1 of 3 failed:\n  c.png: each side" in err
        assert sorted(backend.made) == [(280, 300), (300, 280)], "c.png is not even sent"
        assert image(url, ".", "--scale", "2") == 1
        assert "left 2 of 3" in capsys.readouterr().err
        assert len(backend.made) == 2
        assert image(url, "a.png", "--width", "500", "-o", "wide.jpg") == 0
        with Image.open("wide.jpg") as wide:
            assert (wide.format, wide.size) == ("JPEG", (500, 467))
        assert jobs(url) == [], "the service is left with nothing"


class Cutting:
    """Ends responses early: for each of `ends` a response, after so many messages; -1 is a 503.

    After all of them the backend may make something. Then the first response with a result ends.
    """

    def __init__(self, app: ASGIApp, ends: list[int], seen: list[str], backend: Counting) -> None:
        self.app, self.ends, self.seen, self.backend = app, ends, seen, backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        end, sent = sys.maxsize, 0
        if scope["type"] == "http" and scope["method"] != "DELETE":
            last_id = dict(scope["headers"]).get(b"last-event-id", b"").decode()
            call = scope["path"].split("/")[1 if scope["method"] == "POST" else 2]
            if self.ends:
                end = self.ends.pop(0)
            elif call == "responses" and call not in self.seen:
                end = 1
            self.seen.append(f"{call} {last_id}".strip())
            if not self.ends:
                self.backend.may.set()
        if end == -1:
            headers = [(b"retry-after", b"0")]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": b"{}"})
            return

        async def cutting(message: Message) -> None:
            nonlocal sent
            await send(message)
            sent += 1
            if sent == end:
                raise ConnectionResetError

        await self.app(scope, receive, cutting)


def test_what_is_lost_on_the_way_is_asked_for_again_and_made_once(folder: Path) -> None:
    backend, seen = Counting(), list[str]()
    backend.may.clear()
    # Busy; no event; after one event; a busy proxy; no event again.
    cut = Middleware(Cutting, [-1, 1, 2, -1, 1], seen, backend)
    with running(create_app(LocalBackend(backend), SETTINGS, middleware=[cut])) as url:
        assert image(url, "a.png", "--scale", "2") == 0
    assert sizes() == {"a.png": (600, 560)}
    assert backend.made == [(300, 280)]
    assert seen[:3] == ["upscaling"] * 3
    assert {re.sub("(queued|progress)-.*", "EVENT", call) for call in seen[3:5]} == {
        "requests EVENT"
    }
    assert seen[-2:] == ["responses", "responses"]


class Original(BaseHTTPRequestHandler):
    """The published API alone: JSON, and an image from the list, or a status."""

    answers: list[tuple[int, dict[str, Any]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert json.loads(body).keys() == {"init_image", "scale", "model", "output_image_encoding"}
        assert self.headers["Authorization"] == f"Bearer {TOKENS[0]}"
        status, answer = self.answers.pop(0)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Log nothing: a test's output is for failures."""


@contextmanager
def original(*answers: tuple[int, dict[str, Any]]) -> Iterator[str]:
    Original.answers = [*answers]
    with ThreadingHTTPServer(("127.0.0.1", 0), Original) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def good(size: Size) -> tuple[int, dict[str, Any]]:
    out = io.BytesIO()
    Image.new("RGB", size).save(out, "PNG")
    encoded = base64.b64encode(out.getvalue()).decode()
    return 200, {"image_b64": encoded, "removed_for_safety": False}


def test_a_service_with_the_published_api_alone_will_do(folder: Path) -> None:
    with original((429, {}), (502, {}), good((600, 560))) as url:
        assert image(url, "a.png", "--scale", "2", "--token", TOKENS[0]) == 0
    assert sizes() == {"a.png": (600, 560)}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (good((300, 280)), "an image of 300x280 pixels"),
        ((200, {"image_b64": None, "removed_for_safety": True}), "withheld the result"),
        ((200, {"hello": "world"}), "no service with the Upscaling API"),
        ((200, {"image_b64": "aGVsbG8="}), "returned no PNG"),
        ((500, {"detail": "a bug"}), "returned 500: a bug"),
        ((404, {}), "returned 404: Not Found"),
        ((422, {"detail": [{"loc": ["body", "scale"], "msg": "no", "type": "x"}]}), "--scale: no"),
    ],
)
def test_an_answer_without_the_image_is_a_failure(
    folder: Path, capsys: pytest.CaptureFixture[str], answer: Any, text: str
) -> None:
    with original(answer) as url:
        assert image(url, "a.png", "--scale", "2", "--token", TOKENS[0]) == 1
    assert text in capsys.readouterr().err
    assert not Path("upscaled/a.png").exists()


def test_a_wrong_token_or_no_service_stops_the_batch(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "c.png").unlink()
    for number in range(4):
        (folder / f"d{number}.png").write_bytes((folder / "a.png").read_bytes())
    with running(create_app(LocalBackend(Counting()), SETTINGS)) as url:
        assert image(url, ".", "--token", "wrong") == 1
        err = capsys.readouterr().err
        assert "does not accept the token" in err
        assert "stopped there, and 4 of 6 not done" in err
    assert image(url, ".") == 1
    assert "the service cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--device", "cpu", "--memory", "2G"], "does not take --device, --memory"),
        (["--before-after"], "--before-after"),
        (["--face-strength", "0.5"], "--face-strength"),
        (["--encoding", "webp"], "writes jpeg and png, not webp"),
    ],
)
def test_what_a_service_does_not_take_is_refused_in_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], args: list[str], text: str
) -> None:
    assert image("http://127.0.0.1:1", "a.png", *args) == 2
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


def test_without_a_token_or_a_url_it_says_what_is_missing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UPSCALER_TOKEN")
    assert image("http://127.0.0.1:1", "a.png") == 2
    assert "set UPSCALER_TOKEN, or --token" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        image("127.0.0.1:8000", "a.png")
    assert "must start with http:// or https://" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_cancels_the_work(folder: Path) -> None:
    backend = Stepwise()
    with running(create_app(LocalBackend(backend), SETTINGS)) as url:
        command = [sys.executable, "-m", "upscaler", "image", "a.png", "b.jpg", "--remote", url]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as made:
            until_s = time.monotonic() + PATIENCE_S
            while len(jobs(url)) < 2:  # both are on their way
                assert time.monotonic() < until_s
                time.sleep(0.05)
            made.send_signal(signal.SIGINT)
            _, err = made.communicate(timeout=PATIENCE_S)
        assert made.returncode == 130
        assert "interrupted: 0 of 2 are done; run the same command again to continue" in err
        assert jobs(url) == []
