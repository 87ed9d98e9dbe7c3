"""Untrusted files to pixels and back: every expectation is derived here from a format's own rules.

Odd files are written byte by byte, because no library writes them: PNG by its chunks, ICC profiles
by their tags, lossless WebP by its bits.
"""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, WebPImagePlugin

from upscaler.contract import ImageEncoding, Size, check_input_size
from upscaler.errors import FieldError, InvalidRequest
from upscaler.images import Pixels, before_after, encode, read_header, resize

Samples = NDArray[Any]
"""Unsigned integers of shape (height, width, channels), as a file stores them."""

GREY, RGB, INDEXED, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
"""The colour types of PNG."""

ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
"""The passes of an interlaced PNG: first column, first row, and the steps between them."""

FORMATS = (
    pytest.param("PNG", {}, id="png"),
    pytest.param("JPEG", {"quality": 90}, id="jpeg"),
    pytest.param("JPEG", {"quality": 90, "progressive": True}, id="progressive-jpeg"),
    pytest.param("WEBP", {"quality": 90}, id="webp"),
    pytest.param("WEBP", {"lossless": True}, id="lossless-webp"),
)
formats = pytest.mark.parametrize(("kind", "options"), FORMATS)


def noise(*shape: int, bits: int = 8, low: int = 0) -> Samples:
    """Samples of every kind, the same at each call; uint8 for 8 bits or fewer."""
    samples = np.random.default_rng(7).integers(low, 2**bits - low, shape)
    return samples.astype(np.uint8 if bits <= 8 else np.uint16)


NOISE: Pixels = noise(24, 40, 3)
BLOCKS: Pixels = NOISE[:6, :10].repeat(8, axis=0).repeat(8, axis=1)
"""Squares of one colour each, on JPEG's grid: a JPEG of them is exact but for rounding."""


# Files


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(size: Size, bits: int, colour: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND")


def scanlines(samples: Samples, bits: int) -> bytes:
    """The rows of a PNG before compression, each with filter 0."""
    flat = samples.reshape(len(samples), -1)
    if bits == 16:
        return b"".join(b"\0" + row.astype(">u2").tobytes() for row in flat)
    each = np.unpackbits(flat.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    return b"".join(b"\0" + np.packbits(row).tobytes() for row in each)


def idat(samples: Samples, bits: int) -> bytes:
    return chunk(b"IDAT", zlib.compress(scanlines(samples, bits)))


def png(
    samples: Samples, bits: int, colour: int, *, before: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG of `samples`, with chunks before and after those of the pixels."""
    size = (samples.shape[1], samples.shape[0])
    return png_file(size, bits, colour, before, idat(samples, bits), after)


def png_chunks(data: bytes) -> Iterator[bytes]:
    at = 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind
        at += 12 + length


def jpeg_segments(data: bytes) -> dict[int, bytes]:
    """What comes before the pixels of a JPEG, by marker."""
    segments, at = {}, 2
    while data[at + 1] != 0xDA:
        _, marker, length = struct.unpack_from(">BBH", data, at)
        segments[marker] = data[at + 4 : at + 2 + length]
        at += 2 + length
    return segments


def with_segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    segment = struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
    return jpeg[:2] + segment + jpeg[2:]


def jpeg_of_size(size: Size) -> bytes:
    """A JPEG whose header claims `size` and whose pixels are those of a far smaller one."""
    small = saved(NOISE, "JPEG")
    at = small.index(b"\xff\xc0") + 5
    return small[:at] + struct.pack(">HH", size[1], size[0]) + small[at + 4 :]


def webp_of_size(size: Size) -> bytes:
    """A lossless WebP of one opaque colour: red 200, green 10, blue 30."""
    fields = [(0x2F, 8), (size[0] - 1, 14), (size[1] - 1, 14), (0, 4)]  # no alpha, version 0
    fields += [(0, 3)]  # no transform, no colour cache, no groups of prefix codes
    for symbol in (10, 200, 30, 255, 0):  # green, red, blue, alpha, distance
        fields += [(1, 1), (0, 1), (1, 1), (symbol, 8)]  # a code of one symbol, given in 8 bits
    bits = [value >> i & 1 for value, length in fields for i in range(length)]
    stream = np.packbits(bits, bitorder="little").tobytes()
    return riff(b"VP8L" + struct.pack("<I", len(stream)) + stream + b"\0" * (len(stream) % 2))


def riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def saved(pixels: Samples, kind: str, mode: str | None = None, **options: Any) -> bytes:
    """What Pillow writes, at its best quality unless told otherwise."""
    if kind == "JPEG":
        options = {"quality": 100, "subsampling": 0, **options}
    image = Image.fromarray(pixels)
    if mode:
        image = Image.frombytes(mode, image.size, pixels.tobytes())
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def animation(kind: str) -> bytes:
    frames = [Image.fromarray(NOISE), Image.fromarray(NOISE[::-1])]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], quality=100, subsampling=0)
    return out.getvalue()


def tiff(orientation: int) -> bytes:
    """EXIF with nothing in it but an orientation."""
    return entry(3, 1, struct.pack("<HH", orientation, 0))


def entry(kind: int, count: int, value: bytes) -> bytes:
    """EXIF with one entry for the orientation, of any type."""
    tag = struct.pack("<HHHI", 1, 0x0112, kind, count)
    return b"II*\0\x08\0\0\0" + tag + value + b"\0\0\0\0"


# What is expected of every reading


def decode(data: bytes) -> Pixels:
    """The pixels of a file, after a look at what holds for those of any file."""
    picture = read_header(data)
    pixels = picture.pixels()
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert pixels.ndim == 3
    assert pixels.shape[2] in (3, 4)
    assert (pixels.shape[1], pixels.shape[0]) == picture.size
    return pixels


def refusal(data: bytes, field: str = "init_image") -> FieldError:
    """The one error that a file is refused with."""
    with pytest.raises(InvalidRequest) as caught:
        read_header(data, field).pixels()
    (error,) = caught.value.errors
    assert error.loc == ("body", field)
    return error


def outcome(data: bytes) -> Pixels | str:
    """The pixels of a file or the type of its refusal; anything else that is raised goes on."""
    try:
        return decode(data)
    except InvalidRequest as error:
        return error.errors[0].type


def off_by(pixels: Pixels, expected: Samples) -> float:
    """The largest difference between two pictures, in levels."""
    assert pixels.shape == expected.shape
    return float(np.abs(pixels.astype(float) - expected).max())


def three(grey: Samples) -> Samples:
    return np.repeat(grey.reshape(*grey.shape[:2], 1), 3, axis=2)


def eight_bits(samples: Samples, bits: int) -> Samples:
    """Samples of fewer bits spread over 0 to 255; of 16, their upper eight."""
    return samples >> 8 if bits == 16 else samples * (255 // (2**bits - 1))


@contextmanager
def no_decoding() -> Iterator[None]:
    """Whoever decodes pixels in here fails the test, past any `except Exception`."""

    def fail(*_: object) -> NoReturn:
        pytest.fail("pixels were decoded")

    with pytest.MonkeyPatch.context() as patch:
        for kind in (Image.Image, ImageFile.ImageFile, WebPImagePlugin.WebPImageFile):
            patch.setattr(kind, "load", fail)
        yield


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
    """Of a WebP the size comes first, and nonsense may well claim to be large."""
    assert refusal(start + rest).type in ("image_unreadable", "image_too_large")


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
def test_a_refusal_names_the_field_that_the_file_came_in(
    field: str, data: bytes, kind: str
) -> None:
    assert refusal(data, field).type == kind


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
    with pytest.raises(InvalidRequest) as caught:
        picture.pixels()
    assert caught.value.errors[0].type == "image_damaged"


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
        except InvalidRequest as error:
            return error.errors[0].type
    pytest.fail("nothing was refused")


@pytest.mark.parametrize("warned", ["error", "ignore"])
@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("size", [(30000, 30000), (16383, 16383), (12000, 12000), (3000, 256)])
def test_a_picture_beyond_the_contract_is_refused_without_decoding(
    bomb: Callable[[Size], bytes], size: Size, warned: Any
) -> None:
    """However Pillow's own warning of large pictures is taken. A WebP side has 14 bits."""
    data = bomb(min(size, (16383, 16383)) if bomb is webp_of_size else size)
    with warnings.catch_warnings():
        warnings.simplefilter(warned)
        assert refused_by_its_header(data) == "image_too_large"


def test_a_picture_below_the_contract_is_refused_without_decoding() -> None:
    for bomb in BOMBS:
        assert refused_by_its_header(bomb((3000, 100))) == "image_too_small"


def test_the_header_of_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    assert resource.RUSAGE_SELF == 0
    files = [tmp_path / bomb.__name__ for bomb in BOMBS]
    for bomb, file in zip(BOMBS, files, strict=True):
        file.write_bytes(bomb((12000, 12000)))
    script = (
        "import pathlib, resource, sys, upscaler.images\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "files = [pathlib.Path(name).read_bytes() for name in sys.argv[1:]]\n"
        "before = peak()\n"
        "print([upscaler.images.read_header(file).size for file in files], peak() < 1.5 * before)"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, files)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.split("] ") == [str([(12000, 12000)] * 3)[:-1], "True\n"]


# Damage


@formats
def test_a_truncated_file_gives_all_its_pixels_or_none(
    kind: str, options: dict[str, Any], photo: Pixels
) -> None:
    data = saved(photo[:96, :128], kind, **options)
    whole = decode(data)
    for kept in {*range(0, len(data), len(data) // 60), *range(len(data) - 60, len(data))}:
        result = outcome(data[:kept])
        if isinstance(result, str):
            assert result in ("image_unreadable", "image_damaged"), kept
        else:
            assert np.array_equal(result, whole), kept


# A PNG ends in an empty IEND chunk of 12 bytes, behind 4 of checksum and 4 more of another one.
@pytest.mark.parametrize(
    ("kind", "options", "spare"),
    [pytest.param(*case.values, 24 if case.id == "png" else 0, id=case.id) for case in FORMATS],
)
def test_a_file_that_lacks_more_than_checksums_is_refused(
    kind: str, options: dict[str, Any], spare: int, photo: Pixels
) -> None:
    data = saved(photo[:96, :128], kind, **options)
    cuts = range(spare + 1, len(data), len(data) // 40)
    assert {type(outcome(data[:-missing])) for missing in cuts} == {str}


@pytest.mark.parametrize("missing", range(1, 21))
def test_a_png_may_lack_its_end_and_its_checksums(missing: int) -> None:
    assert off_by(decode(png(NOISE, 8, RGB)[:-missing]), NOISE) == 0


@pytest.mark.parametrize("rows", [1, 12, 23])
def test_a_png_whose_stream_ends_before_its_last_row_is_damaged(rows: int) -> None:
    data = png_file((40, 24), 8, RGB, idat(NOISE[:rows], 8))
    assert refusal(data).type == "image_damaged"


def test_a_png_with_a_frame_smaller_than_itself_is_refused() -> None:
    """The frame control of an animation may not shrink the picture in IDAT: none may be left out.

    APNG: the first frame's has x and y offsets of 0 and the width and height of the header.
    """
    control = struct.pack(">IIIIIHHBB", 0, 2, 2, 1, 1, 1, 1, 0, 0)
    pixels = chunk(b"fcTL", control) + idat(NOISE[:2, :2], 8)
    assert refusal(png_file((40, 24), 8, RGB, pixels)).type in ("image_unreadable", "image_damaged")


def test_a_png_without_pixels_is_damaged() -> None:
    assert refusal(png_file((40, 24), 8, RGB)).type == "image_damaged"


def test_an_indexed_png_without_a_palette_is_refused() -> None:
    data = png(NOISE[..., :1], 8, INDEXED)
    assert refusal(data).type in ("image_unreadable", "image_damaged")


def test_a_png_whose_stream_was_altered_is_damaged() -> None:
    data = bytearray(png(NOISE, 8, RGB))
    for at in range(60, len(data) - 30, 97):
        data[at] ^= 0x10
        assert refusal(bytes(data)).type == "image_damaged", at
        data[at] ^= 0x10


@pytest.mark.filterwarnings("ignore")
@formats
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_an_altered_file_gives_pixels_or_a_refusal(
    kind: str, options: dict[str, Any], seed: int
) -> None:
    """With its warnings ignored, as outside of tests, so that more of a decoder is reached."""
    options = {**options, "exif": tiff(6), "icc_profile": matrix_profile(DISPLAY_P3, 2.2)}
    data = bytearray(saved(BLOCKS, kind, **options))
    chosen = np.random.default_rng(seed)
    for at in chosen.integers(8, len(data), chosen.integers(1, 6)):
        data[at] = chosen.integers(256)
    result = outcome(bytes(data))
    assert not isinstance(result, str) or result.startswith("image_")


@pytest.mark.parametrize("key", [b"transparency", b"icc_profile", b"interlace", b"bbox", b"exif"])
def test_no_keyword_of_a_text_changes_how_a_png_is_read(key: bytes) -> None:
    text = chunk(b"tEXt", key + b"\0hello")
    assert off_by(decode(png(NOISE, 8, RGB, before=text)), NOISE) == 0


# More than one picture


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_refused_without_decoding(kind: str) -> None:
    data = animation(kind)
    with no_decoding():
        assert refusal(data).type == "image_animated"


def test_the_still_picture_of_a_png_counts_and_not_the_one_frame_behind_it() -> None:
    control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 40, 24, 0, 0, 1, 1, 0, 0))
    frame = chunk(b"fdAT", struct.pack(">I", 1) + zlib.compress(scanlines(NOISE[::-1], 8)))
    count = chunk(b"acTL", struct.pack(">II", 1, 0))
    assert off_by(decode(png(NOISE, 8, RGB, before=count, after=control + frame)), NOISE) == 0


def test_an_animation_of_one_frame_is_a_still_picture() -> None:
    control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 40, 24, 0, 0, 1, 1, 0, 0))
    count = chunk(b"acTL", struct.pack(">II", 1, 0))
    assert off_by(decode(png(NOISE, 8, RGB, before=count + control)), NOISE) == 0


def test_a_jpeg_with_another_behind_it_is_its_first_picture() -> None:
    data = animation("MPO")
    assert read_header(data).image.format == "MPO"
    assert off_by(decode(data), decode(saved(NOISE, "JPEG"))) == 0


def test_a_jpeg_may_lack_what_is_behind_its_first_picture() -> None:
    data = animation("MPO")
    second = data.index(b"\xff\xd8\xff", 2)
    assert off_by(decode(data[: second + 100]), decode(data)) == 0
    assert refusal(data[: second - 100]).type == "image_damaged"


# Orientation

FIRST_SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
"""EXIF: which sides of the picture, as it is seen, the file's first row and first column are."""

CARRIERS: dict[str, Callable[[Pixels, bytes], bytes]] = {
    "jpeg": lambda pixels, exif: with_segment(saved(pixels, "JPEG"), 0xE1, b"Exif\0\0" + exif),
    "png-before-pixels": lambda pixels, exif: png(pixels, 8, RGB, before=chunk(b"eXIf", exif)),
    "png-after-pixels": lambda pixels, exif: png(pixels, 8, RGB, after=chunk(b"eXIf", exif)),
    "webp": lambda pixels, exif: saved(pixels, "WEBP", lossless=True, exif=exif),
}
carriers = pytest.mark.parametrize("carrier", CARRIERS.values(), ids=CARRIERS)


def as_seen(stored: Pixels, orientation: int) -> Pixels:
    sides = FIRST_SIDES[orientation]
    seen = stored.swapaxes(0, 1) if sides[0] in ("left", "right") else stored
    seen = seen[::-1] if "bottom" in sides else seen
    return seen[:, ::-1] if "right" in sides else seen


@carriers
@pytest.mark.parametrize("orientation", FIRST_SIDES)
def test_a_picture_is_turned_upright(
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
    data = png(NOISE, 8, RGB, after=chunk(b"eXIf", marked + tiff(6)))
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


# Samples and transparency


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_any_depth_becomes_rgb(bits: int) -> None:
    samples = noise(9, 13, 1, bits=bits)
    assert off_by(decode(png(samples, bits, GREY)), three(eight_bits(samples, bits))) == 0


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("share", [0, 0.4, 1])
def test_the_transparent_grey_of_any_depth_is_transparent_alone(bits: int, share: float) -> None:
    chosen = round(share * (2**bits - 1))
    samples = np.arange(max(0, chosen - 300), min(2**bits, chosen + 300)).reshape(1, -1, 1)
    pixels = decode(png(samples, bits, GREY, before=chunk(b"tRNS", struct.pack(">H", chosen))))
    alpha = np.where(samples == chosen, 0, 255)
    assert off_by(pixels, np.dstack([three(eight_bits(samples, bits)), alpha])) == 0


@pytest.mark.parametrize("bits", [8, 16])
def test_rgb_keeps_its_upper_eight_bits(bits: int) -> None:
    samples = noise(9, 13, 3, bits=bits)
    assert off_by(decode(png(samples, bits, RGB)), eight_bits(samples, bits)) == 0


TRANSPARENT = np.array([0x1234, 0x0256, 0x9A78])


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_rgb_is_transparent_alone(bits: int) -> None:
    chosen = TRANSPARENT >> (16 - bits)
    changes = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [-1, -1, -1]])
    others = [chosen >> 8, chosen & 0xFF, np.zeros(3, int)]
    samples = np.vstack([chosen + changes, *others])[None]
    before = chunk(b"tRNS", struct.pack(">HHH", *chosen))
    alpha = np.where((samples == chosen).all(axis=2), 0, 255)
    expected = np.dstack([eight_bits(samples, bits), alpha])
    assert off_by(decode(png(samples, bits, RGB, before=before)), expected) == 0


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_of_grey_is_kept(bits: int) -> None:
    samples = noise(9, 13, 2, bits=bits)
    grey, alpha = np.moveaxis(eight_bits(samples, bits), 2, 0)
    assert off_by(decode(png(samples, bits, GREY_ALPHA)), np.dstack([three(grey), alpha])) == 0


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_of_rgb_is_kept(bits: int) -> None:
    samples = noise(9, 13, 4, bits=bits)
    assert off_by(decode(png(samples, bits, RGB_ALPHA)), eight_bits(samples, bits)) == 0


def palette_of(bits: int) -> Samples:
    return noise(2**bits, 3)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "alphas",
    [b"", b"\0", b"\xff\0", b"\x80", b"\0\x80"],
    ids=["none", "first", "one", "half", "two"],
)
def test_a_palette_gives_its_colours_and_their_alpha(bits: int, alphas: bytes) -> None:
    """Entries without an alpha of their own are opaque."""
    samples = noise(9, 13, 1, bits=bits)
    colours = palette_of(bits)
    before = chunk(b"PLTE", colours.tobytes()) + (chunk(b"tRNS", alphas) if alphas else b"")
    if alphas:
        opaque = np.array([*alphas, *[255] * (2**bits - len(alphas))])
        colours = np.column_stack([colours, opaque])
    pixels = decode(png(samples, bits, INDEXED, before=before))
    assert off_by(pixels, colours[samples[..., 0]]) == 0


def test_alpha_of_a_webp_is_kept() -> None:
    pixels = np.dstack([NOISE, NOISE[..., :1] | 1])
    data = saved(pixels, "WEBP", lossless=True, exact=True)
    assert off_by(decode(data), pixels) == 0


def test_grey_jpeg_becomes_rgb() -> None:
    assert off_by(decode(saved(BLOCKS[..., 0], "JPEG")), three(BLOCKS[..., 0])) <= 1


INKS = np.dstack([BLOCKS, BLOCKS[::-1, :, 0] // 2])


def complement(inks: Samples) -> Samples:
    """Each of cyan, magenta and yellow takes its share of what black leaves."""
    return (255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255


def test_cmyk_with_adobes_mark_is_converted_by_the_complement() -> None:
    data = saved(INKS, "JPEG", "CMYK")
    assert jpeg_segments(data)[0xEE].startswith(b"Adobe")
    assert off_by(decode(data), complement(INKS)) <= 2


def test_cmyk_without_adobes_mark_is_inverted_all_the_same() -> None:
    """As browsers take it: nearly every CMYK JPEG is Adobe's, whatever its marks."""
    data = saved(INKS, "JPEG", "CMYK")
    at = data.index(b"\xff\xee")
    data = data[:at] + data[at + 16 :]
    assert 0xEE not in jpeg_segments(data)
    assert off_by(decode(data), complement(INKS)) <= 2


def test_ycck_is_converted_by_the_complement() -> None:
    """Adobe stores the inks but black as luma and two chromas, and black inverted."""
    cyan, magenta, yellow, black = np.moveaxis(INKS.astype(float), 2, 0)
    luma = 0.299 * cyan + 0.587 * magenta + 0.114 * yellow
    stored = [luma, (yellow - luma) / 1.772 + 128, (cyan - luma) / 1.402 + 128, 255 - black]
    components = np.dstack(stored).round().clip(0, 255).astype(np.uint8)
    data = bytearray(saved(255 - components, "JPEG", "CMYK"))  # which Pillow inverts once more
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    data[transform] = 2
    assert off_by(decode(bytes(data)), complement(INKS)) <= 3


# Colour profiles

D50 = (0.9642, 1.0, 0.8249)
"""The white of every profile's connection space."""
SRGB = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)
DISPLAY_P3 = np.array(
    [
        [0.515102, 0.291965, 0.157153],
        [0.241182, 0.692236, 0.066582],
        [-0.001050, 0.041882, 0.784378],
    ]
)
"""The primaries of each as columns of XYZ, adapted to D50."""


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + fixed(*values)


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def profile(space: bytes, tags: dict[bytes, bytes], *, connection: bytes = b"XYZ ") -> bytes:
    """An ICC profile of version 2."""
    tags = {b"wtpt": xyz(*D50), **tags}
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I4xI4s4s4s", start + len(body), 0x02400000, kind, space, connection)
    return (head + bytes(12) + b"acsp" + bytes(28) + fixed(*D50)).ljust(128, b"\0") + table + body


def matrix_profile(primaries: Samples, gamma: float) -> bytes:
    tags = {b"rgb"[i : i + 1] + b"XYZ": xyz(*primaries[:, i]) for i in range(3)}
    return profile(
        b"RGB ", {**tags, **{name + b"TRC": curve(gamma) for name in (b"r", b"g", b"b")}}
    )


def grey_profile(gamma: float) -> bytes:
    return profile(b"GRAY", {b"kTRC": curve(gamma)})


def black_only_profile() -> bytes:
    """CMYK in which black alone counts: lightness falls with it from 100, bare paper, to 0.

    The paper is yellowish, and white it is to become.
    """
    grid = b"".join(bytes([0 if black else 255, 128, 128]) for _ in range(8) for black in (0, 1))
    straight = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut = table + 4 * straight + grid + 3 * straight
    return profile(b"CMYK", {b"wtpt": xyz(0.75, 0.78, 0.55), b"A2B0": lut}, connection=b"Lab ")


def srgb_of(linear: Samples) -> Samples:
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def by_matrix(pixels: Pixels, primaries: Samples, gamma: float) -> Samples:
    """sRGB by way of XYZ, of pixels in a space of these primaries."""
    linear = (pixels / 255.0) ** gamma
    return srgb_of(linear @ (np.linalg.inv(SRGB) @ primaries).T)


def by_grey(grey: Samples, gamma: float) -> Samples:
    return three(srgb_of((grey / 255.0) ** gamma))


def iccp(icc: bytes) -> bytes:
    return chunk(b"iCCP", b"name\0\0" + zlib.compress(icc))


SPACES = {
    "linear": (SRGB, 1.0),
    "steep": (SRGB, 1.8),
    "display-p3": (DISPLAY_P3, 2.2),
    "swapped": (SRGB[:, [1, 0, 2]], 2.2),
}
spaces = pytest.mark.parametrize(("primaries", "gamma"), SPACES.values(), ids=SPACES)


@spaces
@formats
def test_colours_are_converted_by_the_profile(
    primaries: Samples, gamma: float, kind: str, options: dict[str, Any]
) -> None:
    unconverted = decode(saved(NOISE, kind, **options))
    data = saved(NOISE, kind, **options, icc_profile=matrix_profile(primaries, gamma))
    assert off_by(decode(data), by_matrix(unconverted, primaries, gamma)) <= 2


def test_a_profile_of_srgb_changes_nothing() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert off_by(decode(png(NOISE, 8, RGB, before=iccp(icc))), NOISE) <= 1


@spaces
@pytest.mark.parametrize("bits", [8, 16])
def test_the_profile_of_rgb_with_alpha_leaves_alpha(
    primaries: Samples, gamma: float, bits: int
) -> None:
    samples = noise(9, 13, 4, bits=bits)
    icc = iccp(matrix_profile(primaries, gamma))
    pixels = decode(png(samples, bits, RGB_ALPHA, before=icc))
    plain = eight_bits(samples, bits)
    assert off_by(pixels[..., 3], plain[..., 3]) == 0
    assert off_by(pixels[..., :3], by_matrix(plain[..., :3], primaries, gamma)) <= 2


@spaces
@pytest.mark.parametrize("alphas", [b"", b"\xff\0", b"\x80\x90"], ids=["none", "one", "two"])
def test_the_profile_of_a_palette_converts_its_colours(
    primaries: Samples, gamma: float, alphas: bytes
) -> None:
    samples = noise(9, 13, 1, bits=4)
    before = iccp(matrix_profile(primaries, gamma)) + chunk(b"PLTE", palette_of(4).tobytes())
    before += chunk(b"tRNS", alphas) if alphas else b""
    pixels = decode(png(samples, 4, INDEXED, before=before))
    plain = palette_of(4)[samples[..., 0]]
    assert off_by(pixels[..., :3], by_matrix(plain, primaries, gamma)) <= 2
    assert pixels.shape[2] == (4 if alphas else 3)


@pytest.mark.parametrize("gamma", [1.5, 1.8, 2.5])
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_grey_is_converted_by_a_profile_of_grey(gamma: float, bits: int) -> None:
    samples = noise(9, 13, 1, bits=bits)
    pixels = decode(png(samples, bits, GREY, before=iccp(grey_profile(gamma))))
    assert off_by(pixels, by_grey(eight_bits(samples, bits), gamma)) <= 2


@pytest.mark.parametrize("gamma", [1.5, 1.8, 2.5])
@pytest.mark.parametrize("bits", [8, 16])
def test_grey_with_alpha_is_converted_by_a_profile_of_grey(gamma: float, bits: int) -> None:
    samples = noise(9, 13, 2, bits=bits)
    pixels = decode(png(samples, bits, GREY_ALPHA, before=iccp(grey_profile(gamma))))
    grey, alpha = np.moveaxis(eight_bits(samples, bits), 2, 0)
    assert off_by(pixels[..., 3], alpha) == 0
    assert off_by(pixels[..., :3], by_grey(grey, gamma)) <= 2


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_with_a_transparent_value_is_converted_by_a_profile_of_grey(bits: int) -> None:
    samples = noise(9, 13, 1, bits=bits)
    before = iccp(grey_profile(1.8)) + chunk(b"tRNS", struct.pack(">H", samples[0, 0, 0]))
    pixels = decode(png(samples, bits, GREY, before=before))
    assert pixels[0, 0, 3] == 0
    assert off_by(pixels[..., :3], by_grey(eight_bits(samples, bits), 1.8)) <= 2


def test_cmyk_is_converted_by_its_profile() -> None:
    data = saved(INKS, "JPEG", "CMYK", icc_profile=black_only_profile())
    lightness = 100 * (1 - INKS[..., 3] / 255)
    shifted = (lightness + 16) / 116
    linear = np.where(shifted > 6 / 29, shifted**3, 3 * (6 / 29) ** 2 * (shifted - 4 / 29))
    assert off_by(decode(data), three(srgb_of(linear))) <= 3


def lab_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


P3 = matrix_profile(DISPLAY_P3, 2.2)
UNUSABLE = {
    "one-byte": b"x",
    "garbage": b"garbage" * 50,
    "zeros": bytes(500),
    "header-alone": P3[:128],
    "cut": P3[:300],
    "unsigned": P3[:36] + b"abcd" + P3[40:],
    "no-tags": profile(b"RGB ", {}),
    "grey": grey_profile(1.0),
    "cmyk": black_only_profile(),
    "lab": lab_profile(),
}


@pytest.mark.parametrize("icc", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_profile_leaves_rgb_as_it_is(icc: bytes) -> None:
    assert off_by(decode(png(NOISE, 8, RGB, before=iccp(icc))), NOISE) == 0


@pytest.mark.parametrize("icc", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_profile_leaves_rgb_with_alpha_as_it_is(icc: bytes) -> None:
    pixels = np.dstack([NOISE, NOISE[..., 1]])
    assert off_by(decode(png(pixels, 8, RGB_ALPHA, before=iccp(icc))), pixels) == 0


@pytest.mark.parametrize("icc", [P3, black_only_profile(), lab_profile(), b"x"])
def test_an_unusable_profile_leaves_grey_as_it_is(icc: bytes) -> None:
    pixels = decode(png(NOISE[..., :1], 8, GREY, before=iccp(icc)))
    assert off_by(pixels, three(NOISE[..., :1])) == 0


@pytest.mark.parametrize("icc", [P3, grey_profile(1.0), lab_profile(), b"x"])
def test_an_unusable_profile_leaves_cmyk_to_the_complement(icc: bytes) -> None:
    assert off_by(decode(saved(INKS, "JPEG", "CMYK", icc_profile=icc)), complement(INKS)) <= 2


def test_a_profile_that_is_not_compressed_as_told_leaves_rgb_as_it_is() -> None:
    broken = chunk(b"iCCP", b"name\0\0" + b"no deflate stream")
    assert off_by(decode(png(NOISE, 8, RGB, before=broken)), NOISE) == 0


def test_a_turned_picture_with_a_profile_is_both_turned_and_converted() -> None:
    data = png(NOISE, 8, RGB, before=iccp(P3) + chunk(b"eXIf", tiff(6)))
    assert off_by(decode(data), by_matrix(as_seen(NOISE, 6), DISPLAY_P3, 2.2)) <= 2


# Writing

any_picture = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(3, 4))
)


@given(any_picture)
@settings(max_examples=50)
def test_a_png_holds_every_pixel_and_every_alpha(pixels: Pixels) -> None:
    image = Image.open(io.BytesIO(encode(pixels, ImageEncoding.PNG)), formats=["PNG"])
    assert image.mode == ("RGB", "RGBA")[pixels.shape[2] - 3]
    assert np.array_equal(np.array(image), pixels)


@pytest.mark.parametrize("encoding", ImageEncoding)
def test_what_a_file_says_about_itself_is_not_passed_on(encoding: ImageEncoding) -> None:
    told = iccp(P3) + chunk(b"eXIf", tiff(3)) + chunk(b"tEXt", b"Comment\0where I live")
    data = encode(decode(png(NOISE, 8, RGB, before=told)), encoding)
    if encoding is ImageEncoding.PNG:
        assert set(png_chunks(data)) == {b"IHDR", b"IDAT", b"IEND"}
    else:
        markers = set(jpeg_segments(data))
        assert markers == {0xE0, 0xDB, 0xC0, 0xC4}  # JFIF, and what its decoding takes


@pytest.mark.parametrize("channels", [3, 4])
def test_a_jpeg_has_quality_95(channels: int, photo: Pixels) -> None:
    """Its divisors are a tenth of those for 50, which are the standard's example."""
    pixels = np.dstack([photo, photo])[..., :channels]
    written = Image.open(io.BytesIO(encode(pixels, ImageEncoding.JPEG)), formats=["JPEG"])
    example = Image.open(io.BytesIO(saved(photo, "JPEG", quality=50)), formats=["JPEG"])
    assert isinstance(written, ImageFile.ImageFile)
    assert tables(written) == [[(10 * q + 50) // 100 for q in table] for table in tables(example)]


def tables(image: Image.Image) -> list[list[int]]:
    quantization: dict[int, list[int]] = getattr(image, "quantization")  # noqa: B009
    return list(quantization.values())


def test_a_jpeg_has_full_chroma(photo: Pixels) -> None:
    frame = jpeg_segments(encode(photo, ImageEncoding.JPEG))[0xC0]
    assert struct.unpack(">BHHB", frame[:6]) == (8, 256, 304, 3)
    assert frame[7::3] == b"\x11\x11\x11"


def test_a_jpeg_shows_the_photo(photo: Pixels) -> None:
    image = Image.open(io.BytesIO(encode(photo, ImageEncoding.JPEG)))
    assert np.abs(np.array(image) - photo.astype(int)).mean() < 2


byte = st.integers(0, 255)


@given(st.tuples(byte, byte, byte), byte)
def test_a_jpeg_is_put_on_white(colour: tuple[int, int, int], alpha: int) -> None:
    pixels = np.full((16, 16, 4), (*colour, alpha), dtype=np.uint8)
    written = np.array(Image.open(io.BytesIO(encode(pixels, ImageEncoding.JPEG))))
    share = alpha / 255
    assert off_by(written, np.full((16, 16, 3), np.array(colour) * share + 255 * (1 - share))) <= 2


# Resizing

small = st.integers(1, 60)


@given(any_picture, small, small)
@settings(max_examples=60)
def test_resizing_gives_exactly_the_size_asked_for(pixels: Pixels, width: int, height: int) -> None:
    resized = resize(pixels, (width, height))
    assert resized.shape == (height, width, pixels.shape[2])
    assert resized.dtype == np.uint8
    assert resized.flags.c_contiguous


@given(any_picture)
@settings(max_examples=30)
def test_resizing_to_the_same_size_changes_no_pixel(pixels: Pixels) -> None:
    resized = resize(pixels.copy(), (pixels.shape[1], pixels.shape[0]))
    assert np.array_equal(resized, pixels)


def test_one_colour_stays_one_colour() -> None:
    pixels = np.full((20, 30, 4), (250, 130, 3, 255), dtype=np.uint8)
    assert np.unique(resize(pixels, (47, 11)).reshape(-1, 4), axis=0).tolist() == [
        [250, 130, 3, 255]
    ]


@pytest.mark.parametrize("size", [(32, 32), (21, 17)])
def test_a_fine_checkerboard_shrinks_to_grey(size: Size) -> None:
    board = three((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None])
    inner = resize(board, size)[4:-4, 4:-4]
    assert off_by(inner, np.full(inner.shape, 127.5)) <= 2


Kernel = Callable[[Samples], Samples]
"""How much a pixel counts, by its distance."""


def cubic(x: Samples) -> Samples:
    """Keys' cubic with a = -1/2."""
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def lanczos(x: Samples) -> Samples:
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)


def shares(length: int, wanted: int, kernel: Kernel) -> Samples:
    """What each pixel of a resized line takes of each of the line: a reduction takes of more."""
    centres = (np.arange(wanted) + 0.5) * length / wanted - 0.5
    distances = np.abs(centres[:, None] - np.arange(length))
    weights = kernel(distances / max(1, length / wanted))
    normal: Samples = weights / weights.sum(axis=1, keepdims=True)
    return normal


def resampled(pixels: Pixels, size: Size, kernel: Kernel) -> Samples:
    rows, columns = (shares(pixels.shape[axis], size[1 - axis], kernel) for axis in (0, 1))
    result: Samples = np.einsum("ya,abc,xb->yxc", rows, pixels, columns, optimize=True)
    return result


@pytest.mark.parametrize("size", [(120, 96), (41, 23), (20, 12), (17, 60)])
def test_resizing_is_antialiased_lanczos(size: Size) -> None:
    """The levels keep it from swinging below 0 or above 255."""
    pixels = noise(24, 40, 3, low=64)
    assert off_by(resize(pixels, size), resampled(pixels, size, lanczos)) <= 1.5


def beside(hidden: tuple[int, int, int]) -> Pixels:
    """Opaque red on the left, and invisible pixels of some colour on the right."""
    pixels = np.full((32, 32, 4), (200, 10, 20, 255), dtype=np.uint8)
    pixels[:, 16:] = (*hidden, 0)
    return pixels


@pytest.mark.parametrize("size", [(16, 16), (45, 20), (64, 64)])
def test_transparent_pixels_lend_no_colour_to_their_neighbours(size: Size) -> None:
    """Lanczos may swing a tenth beyond red, but red it stays, whatever is hidden beside it."""
    resized = resize(beside((0, 255, 0)), size).astype(float)
    share = resized[..., 3:] / 255
    assert ((share > 0) & (share < 1)).any()
    assert np.abs(resized[..., :3] * share - share * (200, 10, 20)).max() <= 25
    assert (resized[..., 1] * share[..., 0]).max() <= 12
    other = resize(beside((0, 0, 255)), size)
    assert np.array_equal(np.where(share > 0, resized, 0), np.where(share > 0, other, 0))


# Before and after


def middle(pixels: Samples, size: Size) -> Samples:
    left, top = (pixels.shape[1] - size[0]) // 2, (pixels.shape[0] - size[1]) // 2
    return pixels[top : top + size[1], left : left + size[0]]


TITLE_PX = 40
"""The titles are above this row."""

PANELS = (
    pytest.param((75, 60), (300, 240), (300, 240), id="all-of-it"),
    pytest.param((260, 60), (1040, 240), (768, 240), id="wide"),
    pytest.param((30, 301), (90, 903), (90, 768), id="tall"),
    pytest.param((256, 256), (1023, 897), (768, 768), id="large"),
)


@pytest.mark.parametrize(("small", "large", "panel"), PANELS)
def test_before_and_after_show_the_same_middle(small: Size, large: Size, panel: Size) -> None:
    """The levels keep bicubic from swinging below 0 or above 255."""
    before, after = noise(small[1], small[0], 3, low=64), noise(large[1], large[0], 3)
    sheet = before_after(before, after)
    width, height = panel
    assert sheet.shape == (height, 2 * width + 8, 3)
    assert sheet.dtype == np.uint8
    left, gap, right = np.split(sheet[TITLE_PX:], [width, width + 8], axis=1)
    assert off_by(left, middle(resampled(before, large, cubic), panel)[TITLE_PX:]) <= 1.5
    assert off_by(right, middle(after, panel)[TITLE_PX:]) == 0
    assert gap.min() == 255


def test_each_half_has_a_title() -> None:
    grey = np.full((60, 300, 3), 128, dtype=np.uint8)
    top = before_after(grey, grey)[:TITLE_PX]
    for half in (top[:, :300], top[:, 308:]):
        assert half.min() == 0
        assert half.max() == 255


def test_before_and_after_are_put_on_white() -> None:
    before = np.full((60, 75, 4), (255, 0, 0, 0), dtype=np.uint8)
    after = np.full((240, 300, 4), (0, 100, 255, 51), dtype=np.uint8)
    left, right = np.split(before_after(before, after)[TITLE_PX:], [304], axis=1)
    assert left.min() == 255
    assert off_by(right[:, 4:], np.full((200, 300, 3), (204, 224, 255))) <= 1


def test_a_flood_of_chunks_is_refused_at_once() -> None:
    flood = chunk(b"teSt", b"") * 70_000
    assert refusal(png(NOISE, 8, RGB, before=flood)).type == "image_unreadable"
    assert off_by(decode(png(NOISE, 8, RGB, before=flood[: 12 * 60_000])), NOISE) == 0
