"""Which files are read and which refused, when, and the right way up."""

import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.image_files import (
    ADAM7,
    BLOCKS,
    FIRST_SIDES,
    GREY,
    NOISE,
    RGB,
    animation,
    as_seen,
    chunk,
    decode,
    entry,
    formats,
    idat,
    jpeg_of_size,
    no_decoding,
    off_by,
    outcome,
    png,
    png_file,
    refusal,
    saved,
    scanlines,
    tiff,
    webp_of_size,
    with_segment,
)
from upscaler.api.sizes import Size, check_input_size
from upscaler.errors import ImageError, InvalidRequest
from upscaler.imaging.decode import read_header
from upscaler.imaging.pixels import Pixels

# What is read and what is refused


@formats
def test_a_photo_is_read_from_png_jpeg_and_webp(
    kind: str, options: dict[str, Any], photo: Pixels
) -> None:
    pixels = decode(saved(photo, kind, **options))
    lossless = kind == "PNG" or "lossless" in options
    assert off_by(pixels, photo) == 0 if lossless else np.abs(pixels - photo.astype(int)).mean() < 4


def test_an_interlaced_png_is_read() -> None:
    passes = [NOISE[y::dy, x::dx] for x, y, dx, dy in ADAM7]
    stream = zlib.compress(b"".join(scanlines(samples, 8) for samples in passes))
    data = png_file((40, 24), 8, RGB, chunk(b"IDAT", stream), interlaced=True)
    assert off_by(decode(data), NOISE) == 0


def test_the_pixels_of_a_png_may_be_spread_over_many_chunks() -> None:
    stream = zlib.compress(scanlines(NOISE, 8))
    parts = [chunk(b"IDAT", stream[i:j]) for i, j in pairwise(range(0, len(stream) + 97, 97))]
    data = png_file((40, 24), 8, RGB, chunk(b"IDAT"), *parts)
    assert off_by(decode(data), NOISE) == 0


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM", "JPEG2000"])
def test_other_formats_are_unreadable(kind: str) -> None:
    assert refusal(saved(NOISE, kind)).type == "image_unreadable"


@given(st.binary(max_size=200))
def test_what_is_no_image_is_unreadable(data: bytes) -> None:
    assert refusal(data).type == "image_unreadable"


@pytest.mark.parametrize(
    "start", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\xff\0\0\0WEBPVP8X"]
)
@given(rest=st.binary(max_size=200))
def test_a_signature_with_nonsense_behind_it_is_refused(start: bytes, rest: bytes) -> None:
    """Of a WebP the lengths come first: nonsense may well claim to be large, or to be longer."""
    assert refusal(start + rest).type in ("image_unreadable", "image_too_large", "image_damaged")


@pytest.mark.parametrize("field", ["init_image", "init_image_url"])
@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "image_unreadable"),
        (png_file((30000, 30000), 8, RGB, idat(NOISE, 8)), "image_too_large"),
        (animation("PNG"), "image_animated"),
        (png(NOISE, 8, RGB)[:-40], "image_damaged"),
    ],
    ids=["empty", "bomb", "animation", "truncated"],
)
def test_a_refusal_becomes_one_of_the_field_that_the_file_came_in(
    field: str, data: bytes, kind: str
) -> None:
    refused = refusal(data)
    (error,) = refused.of_field(field).errors
    assert (error.loc, error.msg, error.type) == (("body", field), str(refused), kind)


# The header comes first (REQ-15)


@formats
def test_the_size_is_told_without_decoding(
    kind: str, options: dict[str, Any], photo: Pixels
) -> None:
    data = saved(photo, kind, **options)
    with no_decoding():
        assert read_header(data).size == (304, 256)


@formats
def test_the_guard_against_decoding_guards(
    kind: str, options: dict[str, Any], photo: Pixels
) -> None:
    picture = read_header(saved(photo, kind, **options))
    with no_decoding(), pytest.raises(pytest.fail.Exception):
        picture.pixels()


def test_the_size_is_told_of_a_png_whose_pixels_are_garbage() -> None:
    picture = read_header(png_file((300, 260), 8, RGB, chunk(b"IDAT", b"no deflate stream")))
    assert picture.size == (300, 260)
    with pytest.raises(ImageError) as caught:
        picture.pixels()
    assert caught.value.type == "image_damaged"


def black_png(size: Size) -> bytes:
    """A sound PNG of one bit a pixel, in a thousandth of the bytes that its pixels take."""
    rows = bytes((1 + -(-size[0] // 8)) * size[1])
    return png_file(size, 1, GREY, chunk(b"IDAT", zlib.compress(rows, 1)))


BOMBS: tuple[Callable[[Size], bytes], ...] = (black_png, jpeg_of_size, webp_of_size)


def test_the_lossless_webp_made_here_is_a_sound_one() -> None:
    colour = np.broadcast_to(np.array([200, 10, 30]), (26, 30, 3))
    assert off_by(decode(webp_of_size((30, 26))), colour) == 0


def refused_by_its_header(data: bytes) -> str:
    """The type of refusal, by the reader or else by the contract, of a file out of bounds."""
    with no_decoding():
        try:
            check_input_size(read_header(data).size, "init_image")
        except ImageError as error:
            return error.type
        except InvalidRequest as error:
            return error.errors[0].type
    pytest.fail("nothing was refused")


@pytest.mark.parametrize("warned", ["error", "ignore"])
@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("size", [(30000, 30000), (16383, 16383), (12000, 12000), (3000, 256)])
def test_an_image_beyond_the_contract_is_refused_without_decoding(
    bomb: Callable[[Size], bytes], size: Size, warned: Any
) -> None:
    """However Pillow's own warning of large images is taken. A WebP side has 14 bits."""
    data = bomb(min(size, (16383, 16383)) if bomb is webp_of_size else size)
    with warnings.catch_warnings():
        warnings.simplefilter(warned)
        assert refused_by_its_header(data) == "image_too_large"


def test_an_image_below_the_contract_is_refused_without_decoding() -> None:
    for bomb in BOMBS:
        assert refused_by_its_header(bomb((3000, 100))) == "image_too_small"


def test_the_header_of_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    assert resource.RUSAGE_SELF == 0
    files = [tmp_path / bomb.__name__ for bomb in BOMBS]
    for bomb, file in zip(BOMBS, files, strict=True):
        file.write_bytes(bomb((12000, 12000)))
    script = (
        "import pathlib, resource, sys, upscaler.imaging.decode\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "files = [pathlib.Path(name).read_bytes() for name in sys.argv[1:]]\n"
        "before = peak()\n"
        "sizes = [upscaler.imaging.decode.read_header(file).size for file in files]\n"
        "print(sizes, peak() < 1.5 * before)"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, files)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.split("] ") == [str([(12000, 12000)] * 3)[:-1], "True\n"]


# Orientation


CARRIERS: dict[str, Callable[[Pixels, bytes], bytes]] = {
    "jpeg": lambda pixels, exif: with_segment(saved(pixels, "JPEG"), 0xE1, b"Exif\0\0" + exif),
    "png": lambda pixels, exif: png(pixels, 8, RGB, before=chunk(b"eXIf", exif)),
    "webp": lambda pixels, exif: saved(pixels, "WEBP", lossless=True, exif=exif),
}
carriers = pytest.mark.parametrize("carrier", CARRIERS.values(), ids=CARRIERS)


@carriers
@pytest.mark.parametrize("orientation", FIRST_SIDES)
def test_an_image_is_turned_upright(
    carrier: Callable[[Pixels, bytes], bytes], orientation: int
) -> None:
    pixels = decode(carrier(BLOCKS, tiff(orientation)))
    assert off_by(pixels, as_seen(BLOCKS, orientation)) <= 2


@carriers
@pytest.mark.parametrize("orientation", FIRST_SIDES)
def test_the_size_told_before_decoding_is_the_upright_one(
    carrier: Callable[[Pixels, bytes], bytes], orientation: int
) -> None:
    size = (48, 80) if FIRST_SIDES[orientation][0] in ("left", "right") else (80, 48)
    data = carrier(BLOCKS, tiff(orientation))
    with no_decoding():
        assert read_header(data).size == size


@pytest.mark.parametrize("marked", [b"", b"Exif\0\0"])
def test_exif_in_a_png_may_begin_as_in_a_jpeg(marked: bytes) -> None:
    data = png(NOISE, 8, RGB, before=chunk(b"eXIf", marked + tiff(6)))
    assert off_by(decode(data), as_seen(NOISE, 6)) == 0


@carriers
@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(
    carrier: Callable[[Pixels, bytes], bytes], orientation: int
) -> None:
    data = carrier(BLOCKS, tiff(orientation))
    assert read_header(data).orientation == 1
    assert off_by(decode(data), BLOCKS) <= 2


ODD_EXIF = {
    "text": entry(2, 2, b"6\0\0\0"),
    "undefined": entry(7, 1, b"\6\0\0\0"),
    "two": entry(3, 2, struct.pack("<HH", 6, 6)),
    "none": entry(3, 0, bytes(4)),
    "not-a-number": entry(11, 1, struct.pack("<f", float("nan"))),
    "divided-by-zero": entry(5, 1, struct.pack("<I", 26)) + bytes(8),
    "unknown-type": entry(99, 1, b"\6\0\0\0"),
    "too-many": entry(3, 0xFFFFFFFF, b"\6\0\0\0"),
    "far-away": b"II*\0\xff\xff\xff\x7f",
    "cut": tiff(6)[:14],
    "short": b"II*\0",
    "garbage": b"garbage" * 9,
    "empty": b"",
}


@carriers
@pytest.mark.parametrize("exif", ODD_EXIF.values(), ids=ODD_EXIF)
@pytest.mark.parametrize("warned", ["error", "ignore"])
def test_odd_exif_is_ignored_or_refused(
    carrier: Callable[[Pixels, bytes], bytes], exif: bytes, warned: Any
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(warned)
        result = outcome(carrier(BLOCKS, exif))
    if isinstance(result, str):
        assert result == "image_unreadable"
    else:
        assert min(off_by(turned, BLOCKS) for turned in both_ways(result)) <= 2


def both_ways(pixels: Pixels) -> list[Pixels]:
    """`pixels`, or what was turned by orientation 6 turned back."""
    return [pixels] if pixels.shape == BLOCKS.shape else [np.rot90(pixels)]
