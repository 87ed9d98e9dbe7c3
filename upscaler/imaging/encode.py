"""Pixels to image files, and those to answers, strip by strip.

A picture is cut into strips of rows, which are encoded on several cores at once, and every piece
of the file is given out as soon as it is known: neither the file nor a second copy of the picture
is ever in memory as a whole. How the rows were handed in makes no difference to the file.

A PNG is one zlib stream of strips that were deflated apart: each ends with a flush, which fills its
last byte, and none refers to what came before it (RFC 1951; pigz does the same). A JPEG is one scan
of strips that were encoded apart, with the restart markers between them for which the standard
provides (ITU-T T.81, B.2.1 and E.1.4). Both are what any decoder reads.
"""

import io
import math
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain
from struct import pack
from typing import BinaryIO, Final, Literal, NamedTuple

import numpy as np
import pybase64
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from upscaler.api.responses import ImageResponse
from upscaler.api.sizes import Size
from upscaler.formats import ImageEncoding
from upscaler.imaging._zlib import zlib
from upscaler.imaging.decode import Pixels, flatten
from upscaler.imaging.parallel import ordered_map
from upscaler.imaging.png_filters import LAST_BLOCK, SIGNATURE, ZLIB_HEADER, chunk

STRIP_BYTES: Final = 3 * 2**19
"""About how many bytes of pixels a strip has: 64 rows of the widest RGB picture. Smaller strips
are handed around too often, and larger ones take longer until the first byte."""

DEFLATE_LEVEL: Final = 1
ADLER_BASE: Final = 65521
"""Adler-32 counts modulo this prime (RFC 1950, 8.2)."""
FILTER_SUB, FILTER_UP, FILTER_AVERAGE = 1, 2, 3
"""Filters of rows (PNG, third edition, 9.2): each sample less the one on its left, the one above
it, or the mean of both. On enlarged photos and drawings the mean makes smaller files than any other
single filter. A row that is the same as the one above it is all 0 by FILTER_UP."""
COLOUR_TYPES: Final = {3: 2, 4: 6}
"""PNG's numbers for RGB and RGBA, by how many samples a pixel has."""

BLOCK_PX: Final = 8
"""A block of JPEG's has this many samples on each side."""
JPEG_MAX_PX: Final = 65_500
"""The longest side that libjpeg writes."""
SOF0, DRI, SOS, RST0 = 0xC0, 0xDD, 0xDA, 0xD0
"""JPEG's markers for the frame, the restart interval, the scan and the first of eight restarts."""
EOI: Final = b"\xff\xd9"


Pieces = Generator[bytes, None, None]
"""Of a file or an answer. Closing it ends the threads that are at work on the next ones."""
Shape = tuple[int, int, int]
"""Of a whole picture: height, width, and 3 or 4 samples."""


class JpegOptions(NamedTuple):
    """How a JPEG is encoded: with libjpeg's quality, 1 to 100, and chroma at which resolution.

    `fast` is by libjpeg's cosine transform of that name, whose rounding is seen at high quality.
    """

    quality: int
    sampling: Literal["4:4:4", "4:2:0"]
    fast: bool

    @property
    def unit_px(self) -> int:
        """How many pixels a side its smallest unit has (T.81, A.2.4)."""
        return BLOCK_PX if self.sampling == "4:4:4" else 2 * BLOCK_PX


DEFAULT_JPEG: Final = JpegOptions(95, "4:4:4", fast=False)
SMALL: Final = JpegOptions(75, "4:2:0", fast=True)
"""Sooner done than the best, and a far smaller file: most programs' default."""


class Deflated(NamedTuple):
    """A part of a zlib stream: an IDAT chunk, and what it holds: its checksum and length."""

    chunk: bytes
    adler: int
    length: int


def encode(pixels: Pixels, encoding: ImageEncoding) -> bytes:
    """A file of `pixels`, uint8 of shape (height, width, 3 or 4), as `encode_strips` makes it."""
    return b"".join(encode_strips([pixels], len(pixels), encoding))


def encode_strips(
    strips: Iterable[Pixels], height: int, encoding: ImageEncoding, jpeg: JpegOptions = DEFAULT_JPEG
) -> Pieces:
    """The pieces of a file of a picture whose rows come in `strips`, from top to bottom.

    Each strip is uint8 of shape (any number of rows, width, 3 for RGB or 4 for RGBA), all of them
    of the same width and samples, with `height` rows in all. It is read before the next is asked
    for, so its memory may be used again then. PNG keeps alpha; JPEG, encoded as `jpeg` says, is put
    on white. Raises ValueError for other strips, for more or fewer rows, and for a JPEG with a side
    of more than JPEG_MAX_PX; and unchanged whatever `strips` raises. No thread outlives the
    iterator.
    """
    strips = iter(strips)
    first = next(strips, None)
    if first is None or first.ndim != 3 or first.shape[2] not in COLOUR_TYPES:
        raise ValueError("strips must be of shape (rows, width, 3 or 4)")
    width, channels = first.shape[1:]
    if not width or not height:
        raise ValueError("a picture has at least one pixel")
    if encoding is ImageEncoding.JPEG and max(width, height) > JPEG_MAX_PX:
        raise ValueError(f"a JPEG has at most {JPEG_MAX_PX} pixels on each side")
    strips, shape = chain([first], strips), (height, width, channels)
    return _png(strips, shape) if encoding is ImageEncoding.PNG else _jpeg(strips, shape, jpeg)


def most_bytes(size: Size, channels: int) -> int:
    """What a file of a picture of that size (width, height) takes at most, even of noise.

    A PNG's strips are stored as they are at worst, with a byte for each row's filter and a few for
    each strip. The best JPEG comes close to that, and consists of whole blocks.
    """
    width, height = (side + -side % BLOCK_PX for side in size)
    return (width * channels + 1) * height * 129 // 128 + 4096


def in_json(file: Iterable[bytes]) -> Pieces:
    """The pieces of the answer (RES-1 to RES-3) that holds `file`; nothing is ever withheld."""
    before, after = _around()
    ready, rest = before, b""
    for piece in file:
        data = rest + piece
        whole = len(data) - len(data) % 3  # three bytes are four characters; padding ends a text
        yield ready + pybase64.b64encode(memoryview(data)[:whole])
        ready, rest = b"", data[whole:]
    yield ready + pybase64.b64encode(rest) + after


def json_bytes(file_bytes: int) -> int:
    """How long the answer is that holds a file of so many bytes."""
    before, after = _around()
    return len(before) + 4 * -(-file_bytes // 3) + len(after)


def _around() -> tuple[bytes, bytes]:
    """What stands before and behind the file's base64 in an answer."""
    answer = ImageResponse(image_b64="", removed_for_safety=False).model_dump_json()
    before, after = answer.encode().split(b'""')
    return before + b'"', b'"' + after


def _rechunk(strips: Iterable[Pixels], shape: Shape, rows: int) -> Iterator[Pixels]:
    """The same rows in copies of `rows` rows, the last of them perhaps fewer.

    Above its rows each copy has the one that comes before them, at first a black one.
    """
    height, *rest = shape
    lot = np.zeros((1 + rows, *rest), np.uint8)
    filled, total = 1, 0
    for strip in strips:
        total += len(strip)
        if strip.dtype != np.uint8 or strip.shape[1:] != shape[1:] or total > height:
            raise ValueError(f"strips must be uint8 and make up a picture of shape {shape}")
        top = 0
        while top < len(strip):
            part = strip[top : top + len(lot) - filled]
            lot[filled : filled + len(part)] = part
            top, filled = top + len(part), filled + len(part)
            if filled == len(lot):
                yield lot
                lot, full = np.empty_like(lot), lot
                lot[0], filled = full[-1], 1
    if total < height:
        raise ValueError(f"strips of {total} rows in all, not {height}")
    if filled > 1:
        yield lot[:filled]


def _png(strips: Iterable[Pixels], shape: Shape) -> Pieces:
    height, width, channels = shape
    rows = max(1, STRIP_BYTES // (width * channels))
    header = pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    yield SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", ZLIB_HEADER)
    adler = 1
    with closing(ordered_map(_deflated, _rechunk(strips, shape, rows))) as parts:
        for part in parts:
            yield part.chunk
            adler = _adler_combined(adler, part.adler, part.length)
    yield chunk(b"IDAT", LAST_BLOCK + pack(">I", adler)) + chunk(b"IEND", b"")


def _deflated(lot: Pixels) -> Deflated:
    filtered = _filtered(lot)
    stream = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    content = stream.compress(filtered) + stream.flush(zlib.Z_SYNC_FLUSH)
    return Deflated(chunk(b"IDAT", content), zlib.adler32(filtered), filtered.size)


def _filtered(lot: Pixels) -> Pixels:
    """All rows but the first, each with the number of its filter before its filtered samples."""
    channels = lot.shape[2]
    samples = lot.reshape(len(lot), -1)
    above, rows = samples[:-1], samples[1:]
    result = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    differences = result[:, 1:]
    repeated = _repeated(samples)
    if 4 * np.count_nonzero(repeated) >= len(rows):  # then so are many pixels in a row
        result[:, 0] = FILTER_SUB
        differences[:, :channels] = rows[:, :channels]
        np.subtract(rows[:, channels:], rows[:, :-channels], out=differences[:, channels:])
    else:
        result[:, 0] = FILTER_AVERAGE
        differences[:, :channels] = rows[:, :channels] - (above[:, :channels] >> 1)
        # The mean, rounded down and without a ninth bit: what both have, and half of what one has.
        left, above = rows[:, :-channels], above[:, channels:]
        mean = left ^ above
        mean >>= 1
        mean += left & above
        np.subtract(rows[:, channels:], mean, out=differences[:, channels:])
    result[repeated] = 0
    result[repeated, 0] = FILTER_UP
    return result


def _repeated(rows: Pixels) -> NDArray[np.bool_]:
    """Of each row but the first, whether it is the same as the one above it.

    They are compared as the longest numbers that make up a row: that takes the least time.
    """
    number_bytes = math.gcd(rows.shape[1], 8)
    numbers = rows.view(f"u{number_bytes}")
    same: NDArray[np.bool_] = (numbers[1:] == numbers[:-1]).all(axis=1)
    return same


def _adler_combined(first: int, second: int, length: int) -> int:
    """The Adler-32 of two texts in a row, of which the second has `length` bytes.

    By RFC 1950, 8.2: the low half is 1 and the sum of all bytes, the high half the sum of what the
    low half was after each. So behind the first text each of the second's low halves is larger by
    the first's, less the 1 that it began with. zlib's adler32_combine computes the same.
    """
    low, high = first & 0xFFFF, first >> 16
    total_low = low + (second & 0xFFFF) - 1
    total_high = high + (second >> 16) + length * (low - 1)
    return total_high % ADLER_BASE << 16 | total_low % ADLER_BASE


def _jpeg(strips: Iterable[Pixels], shape: Shape, style: JpegOptions) -> Pieces:
    """A scan of lots with a restart after each, so that each is encoded as if it were the first.

    The files that they are taken from have the same tables, and nothing behind the scan.
    """
    height, width, channels = shape
    across = -(-width // style.unit_px)
    down = max(1, STRIP_BYTES // (across * style.unit_px**2 * channels))
    lots = _rechunk(strips, shape, down * style.unit_px)
    with closing(ordered_map(partial(_jpeg_of_lot, style), lots)) as files:
        for index, file in enumerate(files):
            scan = _segment(file, SOS)
            samples = scan + 2 + _length(file, scan)
            before = bytes((0xFF, RST0 + (index - 1) % 8))
            if index == 0:
                frame = _segment(file, SOF0)
                before = file[: frame + 5] + pack(">H", height) + file[frame + 7 : scan]
                if height > down * style.unit_px:
                    before += pack(">BBHH", 0xFF, DRI, 4, across * down)
                before += file[scan:samples]
            yield before + file[samples : -len(EOI)]
    yield EOI


def _jpeg_of_lot(style: JpegOptions, lot: Pixels) -> bytes:
    """A JPEG of all rows but the first."""
    pixels = lot[1:]
    if style.fast:
        pixels = pixels if pixels.shape[2] == 3 else np.asarray(flatten(Image.fromarray(pixels)))
        sampling = style.sampling.replace(":", "")
        return bytes(simplejpeg.encode_jpeg(pixels, style.quality, "RGB", sampling, fastdct=True))
    with _scratch_file() as file:
        image = flatten(Image.fromarray(pixels))
        image.save(file, "JPEG", quality=style.quality, subsampling=style.sampling)
        file.seek(0)
        return file.read()


def _scratch_file() -> BinaryIO:
    """A file in memory; where it can be, one of the system's own.

    While Pillow writes into one of those, it lets go of Python's lock, and other strips can be
    encoded at the same time.
    """
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("strip"), "w+b")
    return io.BytesIO()


def _segment(jpeg: bytes, marker: int) -> int:
    """Where the first segment with `marker` begins (ITU-T T.81, B.1.1.4)."""
    at = 2
    while jpeg[at + 1] != marker:
        at += 2 + _length(jpeg, at)
    return at


def _length(jpeg: bytes, segment: int) -> int:
    return int.from_bytes(jpeg[segment + 2 : segment + 4])
