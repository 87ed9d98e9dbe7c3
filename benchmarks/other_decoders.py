"""The decoders that `benchmarks.decoders` compares, each in a process of its own.

All of them give the pixels of the first frame, upright, as uint8 of shape (height, width, 3), in 8
bits and on white. They are used as by people who set no options: what a decoder shows of a damaged
file, it shows.
"""

import base64
import contextlib
import io
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageCms

from tests.support.requirements import CHROMIUM
from upscaler.errors import ImageError
from upscaler.imaging.colour import flatten
from upscaler.imaging.decode import read_header
from upscaler.imaging.pixels import Pixels

if TYPE_CHECKING:
    from playwright.sync_api import Page

OURS: Final = "ours"
FORMATS: Final = {"PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8\xff", "WEBP": b"RIFF"}
"""The first bytes of the files. Names do not matter."""
TOO_LARGE: Final = "too many pixels"
MAX_MEMORY_BYTES: Final = 8 << 30
START_S: Final = 60.0
"""How long a process may take to start, and a browser in it."""

SCRIPT: Final = """
async ([file, most]) => {
    const image = new Image();
    await new Promise((loaded, fail) => {
        image.onload = loaded;
        image.onerror = () => fail("no picture");
        image.src = file;
    });
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    if (width * height > most) throw "too many pixels";
    await image.decode();
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.drawImage(image, 0, 0);
    const samples = context.getImageData(0, 0, width, height).data;
    return await new Promise(resolve => {
        const reader = new FileReader();
        reader.onload = () => resolve([width, height, reader.result.split(",")[1]]);
        reader.readAsDataURL(new Blob([samples]));
    });
}
"""
"""Gives the width, the height, and the RGBA samples in base64."""


@dataclass(frozen=True)
class Limits:
    """What a decoder may take for a file; `magick` is ImageMagick's path, or empty without it."""

    pixels: int
    seconds: float
    magick: str

    def check(self, width: int, height: int) -> None:
        if width * height > self.pixels:
            raise ValueError(TOO_LARGE)


@dataclass(frozen=True)
class Outcome:
    """The pixels that a decoder makes of a file, or the reason why there are none."""

    pixels: Pixels | None
    reason: str = ""
    failed: bool = False
    """Whether the decoder crashed or took too long."""


def format_of(data: bytes) -> str | None:
    """The name in FORMATS, or None for another file."""
    return next((name for name, start in FORMATS.items() if data.startswith(start)), None)


def by_us(limits: Limits, data: bytes) -> Pixels:
    try:
        image = read_header(data)
        limits.check(*image.size)
        return np.array(flatten(Image.fromarray(image.pixels())))
    except ImageError as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise ValueError(f"{error}{cause}") from error


def by_libvips(limits: Limits, data: bytes) -> Pixels:
    """By the profile; CMYK without one by a profile of libvips' own."""
    import pyvips

    image = pyvips.Image.new_from_buffer(data, "")
    limits.check(image.width, image.height)
    image = image.autorot()
    if image.get_typeof("icc-profile-data") or image.interpretation == "cmyk":
        # It fails if the profile is damaged, or is for other samples.
        with contextlib.suppress(pyvips.Error):
            image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=8)
    image = image.colourspace("srgb")
    if image.hasalpha():
        image = image.flatten(background=255)
    return np.asarray(image.cast("uchar").numpy(), np.uint8)


def by_imagemagick(limits: Limits, data: bytes) -> Pixels:
    """By the profile, or by what a PNG says of its gamma."""
    # The area counts the copies that it makes as well.
    bounds = f"-limit area {2 * limits.pixels} -limit disk 0 -limit thread 1"
    convert = f"-auto-orient -profile {_srgb_profile()} -colorspace sRGB"
    flat = "-background white -alpha remove -alpha off -depth 8 ppm:-"
    done = subprocess.run(
        [limits.magick, *bounds.split(), f"{format_of(data)}:-[0]", *f"{convert} {flat}".split()],
        input=data,
        capture_output=True,
        timeout=limits.seconds,
        check=False,
    )
    if not done.stdout:
        raise ValueError(done.stderr.decode(errors="replace"))
    image = Image.open(io.BytesIO(done.stdout), formats=["PPM"])
    limits.check(*image.size)
    return np.array(image)


def by_opencv(limits: Limits, data: bytes) -> Pixels:
    """Without any profile, and as it lies in the file if it has alpha."""
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(limits.pixels)  # read when it is imported
    import cv2

    file = np.frombuffer(data, np.uint8)
    pixels = cv2.imdecode(file, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("no picture")
    limits.check(pixels.shape[1], pixels.shape[0])
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        eight = pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)
        return np.array(flatten(Image.fromarray(eight[..., [2, 1, 0, 3]])))
    upright = cv2.imdecode(file, cv2.IMREAD_COLOR)
    assert upright is not None, "it was decoded just now"
    return np.asarray(upright[..., ::-1], np.uint8)


def by_chromium(limits: Limits, data: bytes) -> Pixels:
    """Drawn into a canvas, and read back."""
    from playwright.sync_api import Error

    file = f"data:image/png;base64,{base64.b64encode(data).decode()}"  # the type does not matter
    try:
        width, height, samples = _page().evaluate(SCRIPT, [file, limits.pixels])
    except Error as error:
        raise ValueError(error.message) from error
    pixels = np.frombuffer(base64.b64decode(samples), np.uint8)
    return pixels.reshape(height, width, 4)[..., :3]


DECODERS: Final[dict[str, Callable[[Limits, bytes], Pixels]]] = {
    OURS: by_us,
    "libvips": by_libvips,
    "ImageMagick": by_imagemagick,
    "OpenCV": by_opencv,
    "Chromium": by_chromium,
}


@cache
def _srgb_profile() -> str:
    path = Path(tempfile.gettempdir()) / "decoders-srgb.icc"
    path.write_bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    return str(path)


@cache
def _page() -> "Page":
    from playwright.sync_api import sync_playwright

    options = ["--disable-gpu", "--force-color-profile=srgb"]
    chromium = sync_playwright().start().chromium
    return chromium.launch(
        executable_path=CHROMIUM, args=options, chromium_sandbox=False
    ).new_page()


def installed(limits: Limits) -> list[str]:
    """The names of the decoders that are there."""
    there = {
        "libvips": find_spec("pyvips"),
        "ImageMagick": limits.magick,
        "OpenCV": find_spec("cv2"),
        "Chromium": CHROMIUM and find_spec("playwright"),
    }
    return [name for name in DECODERS if there.get(name, True)]


def imagemagick() -> str:
    """The program's path, or an empty text. Other programs are called convert, too."""
    for path in filter(None, map(shutil.which, ("magick", "convert"))):
        told = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
        if "ImageMagick" in told.stdout:
            return path
    return ""


class Worker:
    """A decoder in a process of its own, which is started anew after a crash or a timeout."""

    def __init__(self, name: str, limits: Limits) -> None:
        self._name = name
        self._limits = limits
        self._start()

    def decode(self, data: bytes) -> Outcome:
        try:
            self._connection.send_bytes(data)
            if self._connection.poll(self._limits.seconds):
                outcome: Outcome = self._connection.recv()
                return outcome
            reason = f"took more than {self._limits.seconds:.0f} s"
        except (EOFError, OSError):
            self._process.join(1)
            reason = f"crashed, status {self._process.exitcode}"
        self.stop()
        self._start()
        return Outcome(None, reason, failed=True)

    def stop(self) -> None:
        self._connection.close()  # ends it if it waits for a file
        self._process.join(1)
        self._process.kill()
        self._process.join()

    def _start(self) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, self._name, self._limits)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        if not self._connection.poll(START_S) or not self._connection.recv():
            raise RuntimeError(f"{self._name} does not start")


def _serve(connection: Connection, name: str, limits: Limits) -> None:
    """Decode each file that comes, in the worker's process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if name == "Chromium":  # which asks for far more addresses than it uses
        _page()
    else:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    connection.send(True)
    with contextlib.suppress(EOFError):
        while True:
            connection.send(_outcome(name, limits, connection.recv_bytes()))


def _outcome(name: str, limits: Limits, data: bytes) -> Outcome:
    try:
        return Outcome(np.ascontiguousarray(DECODERS[name](limits, data)))
    except Exception as error:  # whatever a decoder raises, it does not show the file
        return Outcome(None, " ".join(str(error).split()) or type(error).__name__)
