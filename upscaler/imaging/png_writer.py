"""PNG files, strip by strip.

A PNG is one zlib stream of strips that were deflated apart: each ends with a flush, which fills its
last byte, and none refers to what came before it (RFC 1951; pigz does the same).
"""

import math
from collections.abc import Iterable
from contextlib import closing
from struct import pack
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upscaler.imaging._zlib import zlib
from upscaler.imaging.parallel import ordered_map
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.png_chunks import SIGNATURE, chunk
from upscaler.imaging.png_filters import LAST_BLOCK, ZLIB_HEADER
from upscaler.imaging.strips import Pieces, Shape, rechunk, rows_in_strip

DEFLATE_LEVEL: Final = 1
ADLER_BASE: Final = 65521
"""Adler-32 counts modulo this prime (RFC 1950, 8.2)."""
FILTER_SUB, FILTER_UP, FILTER_AVERAGE = 1, 2, 3
"""Filters of rows (PNG, third edition, 9.2): each sample less the one on its left, the one above
it, or the mean of both. On enlarged photos and drawings the mean makes smaller files than any other
single filter. A row that is the same as the one above it is all 0 by FILTER_UP."""
COLOUR_TYPES: Final = {3: 2, 4: 6}
"""PNG's numbers for RGB and RGBA, by how many samples a pixel has."""


class Deflated(NamedTuple):
    """A part of a zlib stream: an IDAT chunk, and what it holds: its checksum and length."""

    chunk: bytes
    adler: int
    length: int


def write_png(strips: Iterable[Pixels], shape: Shape) -> Pieces:
    """The pieces of a PNG of `shape`, whose rows come in `strips`; see `encode.encode_strips`."""
    height, width, channels = shape
    rows = rows_in_strip(width * channels)
    header = pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    yield SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", ZLIB_HEADER)
    adler = 1
    with closing(ordered_map(_deflated, rechunk(strips, shape, rows))) as parts:
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
