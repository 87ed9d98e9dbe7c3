"""Image files for tests, and checks that apply to the decoding of any file.

Odd files are written byte by byte, because no library writes them. Expectations are derived from
a format's own rules.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import pyspng
import pytest
import simplejpeg
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile, WebPImagePlugin

from upscaler.api.sizes import Size
from upscaler.errors import ImageError
from upscaler.imaging.decode import read_header
from upscaler.imaging.pixels import Pixels

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
    """The file that Pillow writes, by default at its best quality."""
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
    """The pixels of a file, after checks that apply to any file."""
    picture = read_header(data)
    told = picture.channels
    pixels = picture.pixels()
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert pixels.ndim == 3
    assert pixels.shape[2] == told == picture.channels
    assert told in (3, 4)
    assert (pixels.shape[1], pixels.shape[0]) == picture.size
    return pixels


def refusal(data: bytes) -> ImageError:
    """The error that a file is refused with."""
    with pytest.raises(ImageError) as caught:
        read_header(data).pixels()
    return caught.value


def outcome(data: bytes) -> Pixels | str:
    """The pixels of a file or the type of its refusal; anything else that is raised goes on."""
    try:
        return decode(data)
    except ImageError as error:
        return error.type


def off_by(pixels: Pixels, expected: Samples) -> float:
    """The largest difference between two images, 0 to 255."""
    assert pixels.shape == expected.shape
    return float(np.abs(pixels.astype(float) - expected).max())


def three(grey: Samples) -> Samples:
    return np.repeat(grey.reshape(*grey.shape[:2], 1), 3, axis=2)


def eight_bits(samples: Samples, bits: int) -> Samples:
    """Samples of fewer bits spread over 0 to 255; of 16, their upper eight."""
    return samples >> 8 if bits == 16 else samples * (255 // (2**bits - 1))


@contextmanager
def no_decoding() -> Iterator[None]:
    """Fail the test if pixels are decoded in the block, also within an `except Exception`."""

    def fail(*_: object, **__: object) -> NoReturn:
        pytest.fail("pixels were decoded")

    with pytest.MonkeyPatch.context() as patch:
        for kind in (Image.Image, ImageFile.ImageFile, WebPImagePlugin.WebPImageFile):
            patch.setattr(kind, "load", fail)
        patch.setattr(pyspng, "load", fail)
        patch.setattr(simplejpeg, "decode_jpeg", fail)
        yield


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


def as_seen(stored: Pixels, orientation: int) -> Pixels:
    """The upright image of the pixels that a file stores with that orientation."""
    sides = FIRST_SIDES[orientation]
    seen = stored.swapaxes(0, 1) if sides[0] in ("left", "right") else stored
    seen = seen[::-1] if "bottom" in sides else seen
    return seen[:, ::-1] if "right" in sides else seen


DISPLAY_P3 = np.array(
    [
        [0.515102, 0.291965, 0.157153],
        [0.241182, 0.692236, 0.066582],
        [-0.001050, 0.041882, 0.784378],
    ]
)
"""Its primaries as columns of XYZ, adapted to D50."""


D50 = (0.9642, 1.0, 0.8249)
"""The white of every profile's connection space."""


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


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + fixed(*values)


def matrix_profile(primaries: Samples, gamma: float) -> bytes:
    tags = {b"rgb"[i : i + 1] + b"XYZ": xyz(*primaries[:, i]) for i in range(3)}
    return profile(
        b"RGB ", {**tags, **{name + b"TRC": curve(gamma) for name in (b"r", b"g", b"b")}}
    )


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def iccp(icc: bytes) -> bytes:
    return chunk(b"iCCP", b"name\0\0" + zlib.compress(icc))


P3 = matrix_profile(DISPLAY_P3, 2.2)


byte = st.integers(0, 255)
