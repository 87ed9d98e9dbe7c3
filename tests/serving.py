"""A real server on a real socket, and a backend that enlarges without a network."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from upscaler.contract import Size
from upscaler.images import Pixels, resize
from upscaler.models import UpscalingModel


class Resizer:
    """A backend for tests of the service: Lanczos in place of a network."""

    face_enhance = False

    def load(self, model: UpscalingModel) -> None:
        """Nothing has to be loaded."""

    def upscale(self, pixels: Pixels, model: UpscalingModel, size: Size) -> Iterable[Pixels]:
        return [resize(pixels, size)]


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve `app` on a free port of this machine, and give the URL."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended before it started"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
