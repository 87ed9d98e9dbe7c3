"""Hostile images: the outcome that each must have, and how they are sent."""

import base64
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import httpx
import numpy as np
from PIL import Image

from tests.support.image_files import Samples, noise, off_by, saved
from tests.support.processes import HEADERS, Child

MIB = 2**20
LARGEST = 24 * MIB - 4096
"""About as long is the longest file whose base64 is a body of at most 32 MiB (RES-7)."""

SECONDS = 15
"""A request's time on all cores at most. The slowest takes 3 s, and more where others are busy."""
PATIENCE = 60
"""How long an answer is waited for: on a machine that does much else, too, this is a hang."""
MEMORY = 400 * MIB
"""A request's memory at most, over the resting service. The largest body takes 150 MiB before its
picture is looked at: itself, its text, and the file in it. The most that was seen of others is 220
alone, and 270 after many, of which the allocator has kept some."""
WEBP_MEMORY = 1200 * MIB
"""The same where libwebp makes all the tables that its format allows: see `images._WEBP`."""

SMALL: Samples = noise(32, 33, 3).repeat(8, axis=0).repeat(8, axis=1)
"""256x264 pixels, in squares on JPEG's grid, of which a JPEG is exact but for rounding."""
FLAT: Samples = np.zeros((2048, 2048, 3), np.uint8)
"""As large as an input may be, and black."""


@dataclass(frozen=True)
class Case:
    """A file by name, and either the type of its refusal or its pixels."""

    name: str
    make: Callable[[], bytes]
    error: str = ""
    pixels: Samples | None = None
    within: float = 0
    """How far the pixels may be from those, in levels."""
    prefix: str = ""
    """What comes before the base64."""
    memory: int = MEMORY


def refused(name: str, make: Callable[[], bytes], error: str) -> Case:
    return Case(name, make, error)


def right(name: str, make: Callable[[], bytes], pixels: Samples, within: float = 0) -> Case:
    return Case(name, make, pixels=pixels, within=within)


@dataclass(frozen=True)
class Sent:
    """The response to a request, with its time and memory."""

    answer: httpx.Response
    file_bytes: int
    seconds: float
    """How long the service kept cores busy."""
    memory: int
    """What the service held at most, over what it holds at rest."""


def warmed(server: Child) -> int:
    """The resident memory of `server` at rest in bytes, after everything is loaded once."""
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        send(Case(kind, partial(saved, SMALL, kind)), server, 0)
    return server.memory_bytes()


def send(case: Case, server: Child, resting: int) -> Sent:
    """Ask `server` for the file's picture at its own size."""
    data = case.make()
    text = (case.prefix.encode() + base64.b64encode(data)).decode()
    body = f'{{"scale": 1, "init_image": "{text}"}}'.encode()
    headers = {**HEADERS, "Content-Type": "application/json", "Accept": "image/png"}
    server.forget_peak()
    before = server.processor_seconds()
    url = f"{server.url}/upscaling"
    answer = httpx.post(url, content=body, headers=headers, timeout=PATIENCE)
    seconds = server.processor_seconds() - before
    return Sent(answer, len(data), seconds, server.peak_bytes() - resting)


def told(sent: Sent) -> str:
    """The outcome: the type of a refusal, the size of an image, or another status."""
    if sent.answer.status_code == 422:
        (error,) = sent.answer.json()["detail"]
        assert error["loc"] == ["body", "init_image"]
        return str(error["type"])
    if sent.answer.status_code == 200:
        return str(sent.answer.headers["X-Upscaler-Output-Size"])
    return str(sent.answer.status_code)


def check(case: Case, sent: Sent) -> None:
    """Fail unless the outcome is the expected one."""
    if case.pixels is None:
        assert told(sent) == case.error
        return
    assert sent.answer.status_code == 200, sent.answer.text
    pixels = np.array(Image.open(io.BytesIO(sent.answer.content)))
    assert off_by(pixels, case.pixels) <= case.within


# EXIF: directories of TIFF 6.0


def numbers_as_orientation(kind: int, unit: int) -> bytes:
    """EXIF that has millions of numbers where one should say which side is up."""
    count = (LARGEST - 300_000) // unit
    entry = struct.pack("<HHHII", 1, 0x0112, kind, count, 26)
    return b"II*\0\x08\0\0\0" + entry + bytes(4) + b"\1" * (count * unit)


def many_entries() -> bytes:
    """EXIF with as many entries as can be, none of which says which side is up."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, 0) for tag in range(300, 65_835 - 400))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries) // 12) + entries + bytes(4)


CIRCLE = b"II*\0\x08\0\0\0" + struct.pack("<H", 2)
CIRCLE += struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<HHII", 0x014A, 4, 1, 8)
CIRCLE += struct.pack("<I", 8)
"""EXIF whose directory is its own sub-directory, and the next one, too."""


# Bits, as deflate and lossless WebP have them: each byte from its lowest bit to its highest.


def number(value: int, bits: int) -> str:
    """A number of so many bits, the lowest first."""
    return format(value, f"0{bits}b")[::-1]


def in_bits(text: str) -> Samples:
    return np.frombuffer(text.encode(), np.uint8) - ord("0")


def in_bytes(bits: Samples) -> bytes:
    return np.packbits(bits, bitorder="little").tobytes()
