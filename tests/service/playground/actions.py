"""What the page's tests share: a stub of the upscaler, and the steps of a user."""

from __future__ import annotations

import io
import os
import queue
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tests.support.service import Resizer, Stepwise
from upscaler.api.sizes import Size
from upscaler.errors import UpscalerError

if TYPE_CHECKING:
    from playwright.sync_api import FilePayload, Page

TOKEN = "zweites-schlüsselwort"
ASCII_TOKEN = "first"
RED, CYAN = (200, 40, 40), (55, 215, 215)
PHONE = {"width": 375, "height": 812}
DESKTOP = {"width": 1440, "height": 900}
HOSTILE_NAME = 'it\'s "a" $(touch owned) `cat`; \\n%s <b>&.png'


class InvertingUpscaler(Stepwise):
    """Inverts colours, so that tests can tell before from after; blocks and fails on demand.

    If it is `stepwise`, it yields rows as far as it is allowed.
    Faces are restored by inverting once more.
    """

    face_enhance = True

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.reset()

    def reset(self) -> None:
        self.open.set()
        self.failure: UpscalerError | None = None
        self.stepwise = False
        self.ends = queue.Queue()

    def upscale(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        assert self.open.wait(30)
        if self.failure:
            raise self.failure
        kind = Stepwise if self.stepwise else Resizer
        return (255 - strip for strip in kind.upscale(self, *args, **kwargs))


def png(size: Size = (300, 280), colour: tuple[int, ...] = RED) -> FilePayload:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return {"name": "input.png", "mimeType": "image/png", "buffer": out.getvalue()}


def choose(page: Page, file: FilePayload | Path) -> None:
    from playwright.sync_api import expect

    page.set_input_files("#file", file)
    expect(page.locator("#caption")).to_contain_text("×")


def upscale(page: Page, file: FilePayload | Path | None = None) -> None:
    """Fill in a page that has just loaded, and wait for the result."""
    from playwright.sync_api import expect

    choose(page, file or png())
    page.fill("#token", TOKEN)
    page.click("#start")
    expect(page.locator("#details")).to_be_visible()


def view_box(page: Page) -> tuple[float, float, float, float]:
    """The image's left, top, width and height on the screen, in CSS pixels."""
    found = page.locator("#view").bounding_box()
    assert found
    return found["x"], found["y"], found["width"], found["height"]


def colour_at(page: Page, x: float) -> tuple[int, ...]:
    """The RGB on the screen at `x` of the image's width (0 to 1), clear of the labels and thumb."""
    left, top, width, height = view_box(page)
    left, top = left + x * width, top + 0.8 * height
    shot = page.screenshot(clip={"x": left, "y": top, "width": 1, "height": 1})
    pixel = Image.open(io.BytesIO(shot)).convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return tuple(map(int, pixel))


def natural_size(page: Page, image: str) -> list[int]:
    found: list[int] = page.eval_on_selector(image, "i => [i.naturalWidth, i.naturalHeight]")
    return found


def downloaded(page: Page) -> tuple[str, bytes]:
    with page.expect_download() as download:
        page.click("#download")
    return download.value.suggested_filename, download.value.path().read_bytes()


def text(page: Page, selector: str) -> str:
    """The element's text, its no-break spaces as plain ones."""
    return (page.locator(selector).text_content() or "").replace("\u00a0", " ")


def run_curl(page: Page, folder: Path) -> dict[str, bytes]:
    """Run the page's curl command in `folder`, and return the files that it created."""
    before = set(folder.iterdir())
    command = page.locator("#curl").text_content() or ""
    environment = {"PATH": os.environ["PATH"], "UPSCALER_TOKEN": TOKEN}
    subprocess.run(["bash", "-euc", command], cwd=folder, env=environment, check=True, timeout=60)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path not in before}
