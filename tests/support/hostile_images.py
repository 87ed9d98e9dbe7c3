"""All hostile files: in the supported formats, in others, in two at once, and rotated by EXIF."""

import io
import zipfile
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tests.support import hostile_jpegs, hostile_pngs, hostile_webps
from tests.support.hostile_profiles import largest_table
from tests.support.image_cases import SMALL, Case, right
from tests.support.image_files import (
    FIRST_SIDES,
    RGB,
    as_seen,
    chunk,
    iccp,
    png,
    saved,
    tiff,
    with_segment,
)

OTHERS = ("GIF", "TIFF", "BMP", "ICO", "PPM", "TGA", "JPEG2000", "AVIF", "PDF", "EPS")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="300" height="300"><rect/></svg>'


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("picture.png", saved(SMALL, "PNG"))
    return file.getvalue()


def behind(start: bytes, kind: str) -> bytes:
    return start + saved(SMALL, kind)


def turned(kind: str, orientation: int) -> bytes:
    """EXIF says which way up it is."""
    exif = tiff(orientation)
    if kind == "JPEG":
        return with_segment(saved(SMALL, kind), 0xE1, b"Exif\0\0" + exif)
    if kind == "PNG":
        return png(SMALL, 8, RGB, before=chunk(b"eXIf", exif))
    return saved(SMALL, kind, lossless=True, exif=exif)


def unreadable(name: str, make: Callable[[], bytes], prefix: str = "") -> Case:
    return Case(name, make, "image_unreadable", prefix=prefix)


def others() -> Iterator[Case]:
    for kind in OTHERS:
        yield unreadable(kind, partial(saved, SMALL, kind))
    yield unreadable("SVG", lambda: SVG)
    yield unreadable("ZIP with a PNG in it", zipped)
    yield unreadable("PDF with a JPEG in it", partial(behind, b"%PDF-1.4\n", "JPEG"))
    yield unreadable("HTML with a PNG behind it", partial(behind, b"<html>", "PNG"))
    yield unreadable("GIF with JavaScript", lambda: saved(SMALL, "GIF") + b"=1;alert(1)")
    yield unreadable(
        "GIF, said to be a PNG", partial(saved, SMALL, "GIF"), "data:image/png;base64,"
    )


def with_largest_profile() -> bytes:
    return png(SMALL, 8, RGB, before=iccp(largest_table()))


def said_to_be_others() -> Iterator[Case]:
    for kind, said, within in (("PNG", "jpeg", 0), ("JPEG", "svg+xml", 2)):
        yield Case(
            f"{kind}, said to be {said}",
            partial(saved, SMALL, kind),
            pixels=SMALL,
            within=within,
            prefix=f"data:image/{said};base64,",
        )


def sideways() -> Iterator[Case]:
    for kind in ("JPEG", "PNG", "WEBP"):
        for orientation in FIRST_SIDES:
            name = f"{kind}, EXIF orientation {orientation}"
            within = 2 if kind == "JPEG" else 0
            yield right(
                name, partial(turned, kind, orientation), as_seen(SMALL, orientation), within
            )


CASES = (
    *hostile_pngs.CASES,
    *hostile_jpegs.CASES,
    *hostile_webps.CASES,
    right("PNG, profile of 16 MiB", with_largest_profile, np.zeros_like(SMALL), 1),
    *others(),
    *said_to_be_others(),
    *sideways(),
)
