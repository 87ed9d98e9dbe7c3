"""Truncated files of every format, also with a valid end added again, are refused."""

import re
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.support.image_files import (
    ADAM7,
    INDEXED,
    RGB,
    Samples,
    animation,
    chunk,
    decode,
    noise,
    outcome,
    png,
    png_file,
    riff,
    saved,
    scanlines,
)

pytestmark = pytest.mark.dev

SIZE = (168, 120)
SQUARES: Samples = noise(15, 21, 4).repeat(8, axis=0).repeat(8, axis=1)
HUES: Samples = (SQUARES // 2 + noise(120, 168, 4) // 2).astype(np.uint8)
"""Squares with noise on them: there is something to decode everywhere."""
COLOURS: Samples = HUES[..., :3].copy()
REFUSALS = {"image_unreadable", "image_damaged"}


def interlaced() -> bytes:
    passes = b"".join(scanlines(COLOURS[y::dy, x::dx], 8) for x, y, dx, dy in ADAM7)
    stream = chunk(b"IDAT", zlib.compress(passes))
    return png_file(SIZE, 8, RGB, stream, interlaced=True)


def indexed() -> bytes:
    palette = chunk(b"PLTE", noise(256, 3).tobytes())
    return png(HUES[..., :1], 8, INDEXED, before=palette)


def in_many_chunks() -> bytes:
    stream = zlib.compress(scanlines(COLOURS, 8))
    parts = [chunk(b"IDAT", stream[at : at + 1000]) for at in range(0, len(stream), 1000)]
    return png_file(SIZE, 8, RGB, *parts)


def jpeg(mode: str | None = None, **options: Any) -> bytes:
    pixels = {"CMYK": HUES, "L": HUES[..., 0].copy()}.get(mode or "", COLOURS)
    return saved(pixels, "JPEG", mode, **{"quality": 85, **options})


PNGS = {
    "png": saved(COLOURS, "PNG"),
    "png-with-alpha": saved(HUES, "PNG"),
    "png-interlaced": interlaced(),
    "png-indexed": indexed(),
    "png-of-16-bits": png(noise(120, 168, 3, bits=16), 16, RGB),
    "png-in-many-chunks": in_many_chunks(),
}
JPEGS = {
    "jpeg": jpeg(),
    "jpeg-subsampled": jpeg(subsampling=2),
    "jpeg-progressive": jpeg(progressive=True),
    "jpeg-grey": jpeg("L"),
    "jpeg-grey-progressive": jpeg("L", progressive=True),
    "jpeg-cmyk": jpeg("CMYK"),
    "jpeg-cmyk-progressive": jpeg("CMYK", progressive=True),
    "jpeg-with-restarts": jpeg(restart_marker_blocks=5),
    "jpeg-of-one-grey": saved(np.full((120, 168), 128, np.uint8), "JPEG"),
}
WEBPS = {
    "webp": saved(COLOURS, "WEBP", quality=85),
    "webp-with-alpha": saved(HUES, "WEBP", quality=85),
    "webp-lossless": saved(COLOURS, "WEBP", lossless=True),
    "webp-lossless-with-alpha": saved(HUES, "WEBP", lossless=True),
}
FILES = {**PNGS, **JPEGS, **WEBPS}


def accepted(data: bytes, cut: Callable[[bytes, int], bytes]) -> list[int]:
    """At which 64ths a file may be cut and is still read."""
    found = {part: outcome(cut(data, len(data) * part // 64)) for part in range(1, 64)}
    assert {result for result in found.values() if isinstance(result, str)} <= REFUSALS
    return [part for part, result in found.items() if not isinstance(result, str)]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_anywhere_is_refused(name: str) -> None:
    assert accepted(FILES[name], lambda data, end: data[:end]) == []


def closed_png(data: bytes, end: int) -> bytes:
    """Its last chunk made shorter, with a checksum of its own, and an end behind it."""
    at, kept = 8, [data[:8]]
    while at + 8 < end:
        length, kind = struct.unpack_from(">I4s", data, at)
        kept.append(chunk(kind, data[at + 8 : min(at + 8 + length, end)]))
        at += 12 + length
    return b"".join(kept) + chunk(b"IEND")


def closed_jpeg(data: bytes, end: int) -> bytes:
    """To libjpeg the rest of it is grey, or blurred, and it says so to nobody."""
    return data[:end].removesuffix(b"\xff") + b"\xff\xd9"


def closed_webp(data: bytes, end: int) -> bytes:
    """Its last chunk made shorter, and so the whole."""
    at, kept = 12, b""
    while at + 8 < end:
        kind, length = struct.unpack_from("<4sI", data, at)
        content = data[at + 8 : min(at + 8 + length, end)]
        kept += kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        at += 8 + length + length % 2
    return riff(kept)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_and_closed_is_refused(name: str) -> None:
    close = closed_png if name in PNGS else closed_jpeg if name in JPEGS else closed_webp
    assert accepted(FILES[name], close) == []


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_closed_where_it_ends_is_read(name: str) -> None:
    close = closed_png if name in PNGS else closed_jpeg if name in JPEGS else closed_webp
    data = FILES[name]
    end = {"png": len(data) - 12, "jpe": len(data) - 2, "web": len(data)}[name[:3]]
    assert np.array_equal(decode(close(data, end)), decode(data))


def test_a_damaged_mpo_is_refused_or_its_first_image() -> None:
    data = animation("MPO")
    second = data.index(b"\xff\xd8\xff", 2)
    whole = [part for part in range(1, 64) if len(data) * part // 64 >= second]
    assert accepted(data, lambda data, end: data[:end]) == whole
    assert 1 < len(whole) < 60
    assert np.array_equal(decode(data[: len(data) * whole[0] // 64]), decode(data))


def scans(name: str) -> list[int]:
    """Where the scans of a JPEG begin, and where the file ends."""
    data = JPEGS[name]
    found = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    return [*found, len(data) - 2]


@pytest.mark.parametrize(
    "name", ["jpeg-progressive", "jpeg-grey-progressive", "jpeg-cmyk-progressive"]
)
def test_a_progressive_jpeg_without_its_last_scans_is_refused(name: str) -> None:
    *starts, end = scans(name)
    assert len(starts) >= 6
    for start in starts[1:]:
        assert outcome(JPEGS[name][:start] + b"\xff\xd9") in REFUSALS, start
    assert decode(JPEGS[name][:end] + b"\xff\xd9").shape[:2] == SIZE[::-1]


@pytest.mark.parametrize("name", ["jpeg-progressive", "jpeg-grey-progressive"])
def test_a_jpeg_with_a_hole_in_any_scan_is_refused(name: str) -> None:
    """The second half of one scan is missing, and the next one follows."""
    data, starts = JPEGS[name], scans(name)
    for start, end in pairwise(starts):
        half = data[: (start + end) // 2].removesuffix(b"\xff")
        tables = data[:end].rfind(b"\xff\xc4", start)
        rest = data[tables if tables > 0 else end :]
        assert outcome(half + rest) in REFUSALS, start


def test_a_jpeg_that_ends_at_any_restart_is_refused() -> None:
    """Where a decoder has all that it needs until then, and the next marker is the last."""
    data = JPEGS["jpeg-with-restarts"]
    restarts = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    assert len(restarts) > 50
    for at in restarts:
        assert outcome(data[:at] + b"\xff\xd9") in REFUSALS, at
        assert outcome(data[: at + 2] + b"\xff\xd9") in REFUSALS, at
