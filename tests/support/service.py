"""A real server on a real socket, and a backend that upscales without a network."""

import base64
import hashlib
import io
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from PIL import Image

from tests.support.paths import PHOTO
from upscaler.api.sizes import Size
from upscaler.errors import WeightsUnavailable
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.resize import resize
from upscaler.models import UpscalingModel
from upscaler.service import logs
from upscaler.service.app import create_app
from upscaler.service.backend import FaceBox, LocalBackend, Progress, Upscaler
from upscaler.service.jobs.store import JobStore
from upscaler.service.server.connection import Connection, server
from upscaler.settings import KernelUse, Settings

TOKENS = ("first-token", "zweites-schlüsselwort")
SETTINGS = Settings(tokens=TOKENS)
PHOTO_B64 = base64.b64encode(PHOTO.read_bytes()).decode()
GOOD = {"init_image": PHOTO_B64, "scale": 2}


class Resizer:
    """A backend for tests of the service: Lanczos in place of a network."""

    face_enhance = False

    def load(self, model: UpscalingModel) -> str:
        return hashlib.sha256(model.encode()).hexdigest()

    def kernels(self) -> Iterable[KernelUse]:
        return ()

    def bands(self, model: UpscalingModel, size: Size, channels: int) -> int:
        return channels

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        return [resize(pixels, size)]

    def load_faces(self) -> None:
        pass

    def find_faces(self, pixels: Pixels) -> list[FaceBox]:
        return [(1, 2, 30, 40), (50, 60, 70, 80)]

    def enhance_faces(
        self, pixels: Pixels, size: Size, strips: Iterable[Pixels], check: Callable[[], object]
    ) -> tuple[int, Iterable[Pixels]]:
        """Every picture has two faces, which come out inverted and cover all of it."""
        return 2, (255 - strip for strip in strips)


class Faces(Resizer):
    """A backend that restores faces."""

    face_enhance = True


class Moody(Resizer):
    """A backend with a model without weights, and a model that raises an unexpected error."""

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        if model is UpscalingModel.X4_V3:
            raise WeightsUnavailable("/home/operator/secret/path is damaged")
        if model is UpscalingModel.X2_PLUS:
            raise ZeroDivisionError
        return super().upscale(pixels, model, size, progress)


class Slow(Resizer):
    """A slow backend, which stops when the job is cancelled."""

    def __init__(self, seconds: float, error: Exception | None = None) -> None:
        self.seconds = seconds
        self.error = error
        self.began = threading.Event()
        self.given_up = threading.Event()

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        self.began.set()
        began_s = time.monotonic()
        while time.monotonic() < began_s + self.seconds:
            time.sleep(0.01)
            try:
                progress(0, 1)
            except Exception:
                self.given_up.set()
                raise
        if self.error:
            raise self.error
        return super().upscale(pixels, model, size, progress)


class Stepwise(Resizer):
    """A backend that yields rows as far as each number in `ends` says, until all are there."""

    def __init__(self) -> None:
        self.ends: queue.Queue[int] = queue.Queue()

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        result, top = resize(pixels, size), 0
        while top < size[1]:
            try:
                end = self.ends.get(timeout=0.01)
            except queue.Empty:
                progress(top, size[1])
                continue
            yield result[top:end]
            top = min(end, size[1])


@contextmanager
def running(app: FastAPI, connection: type[Connection] | None = None) -> Iterator[str]:
    """Serve `app` on a free port of this machine, and yield the URL."""
    served = server(app, "127.0.0.1", 0, connection)
    thread = threading.Thread(target=served.run)
    thread.start()
    try:
        while not served.started:
            assert thread.is_alive(), "the server ended before it started"
            time.sleep(0.01)
        port = served.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        served.should_exit = True
        thread.join()


@contextmanager
def logged_without(*secrets: str) -> Iterator[None]:
    """Send log records only to the handlers of a service."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        logs.to_stderr(secrets)
        yield
    finally:
        logs.flush()
        logging.captureWarnings(capture=False)
        root.handlers[:] = before
        root.setLevel(level)


@contextmanager
def serving(
    upscaler: Upscaler, settings: Settings = SETTINGS, jobs: JobStore | None = None
) -> Iterator[httpx.Client]:
    """A client, with a valid token, of a service on top of `upscaler`."""
    with (
        running(create_app(LocalBackend(upscaler), settings, jobs)) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKENS[0]}"}) as client,
    ):
        yield client


def upscale(api: httpx.Client, **fields: object) -> httpx.Response:
    return api.post("/upscaling", json=fields, timeout=60)


def decoded(response: httpx.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    body = response.json()
    assert body.keys() == {"image_b64", "removed_for_safety"}
    assert body["removed_for_safety"] is False
    return Image.open(io.BytesIO(base64.b64decode(body["image_b64"], validate=True)))


def png(width: int, height: int) -> str:
    out = io.BytesIO()
    Image.new("L", (width, height), 127).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def only_error(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 422, response.text
    (error,) = response.json()["detail"]
    assert error.keys() == {"loc", "msg", "type"}
    found: dict[str, Any] = error
    return found
