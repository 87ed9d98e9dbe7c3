"""Write PNG files, strip by strip.

The strips are compressed independently and joined to a single zlib stream: each ends with a flush,
which fills up its last byte, and none refers to data before it (RFC 1951; pigz does the same).
"""

import math
from collections.abc import Iterable
from contextlib import closing
from struct import pack
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upscaler.imaging._zlib import zlib
from upscaler.imaging.metadata import NO_METADATA, Metadata
from upscaler.imaging.parallel import ordered_map
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.png_chunks import SIGNATURE, chunk
from upscaler.imaging.png_filters import LAST_BLOCK, ZLIB_HEADER
from upscaler.imaging.strips import Pieces, Shape, rechunk, rows_in_strip

DEFLATE_LEVEL: Final = 1
ADLER_BASE: Final = 65521
"""The prime modulus of Adler-32 (RFC 1950, 8.2)."""
FILTER_SUB, FILTER_UP, FILTER_AVERAGE = 1, 2, 3
"""Row filters (PNG, third edition, 9.2) that subtract from each sample the one on its left, the one
above it, or the mean of both. On upscaled photos and drawings FILTER_AVERAGE makes smaller files
than any other single filter. With FILTER_UP a row that equals the one above becomes all zeros."""
COLOUR_TYPES: Final = {3: 2, 4: 6}
"""PNG's colour types of RGB and RGBA, by the number of channels."""


class Deflated(NamedTuple):
    """A strip as an IDAT chunk, and the Adler-32 and the length of its uncompressed data."""

    chunk: bytes
    adler: int
    length: int


def write_png(strips: Iterable[Pixels], shape: Shape, metadata: Metadata = NO_METADATA) -> Pieces:
    """Yield the pieces of a PNG of `shape`, whose rows come in `strips`; see `encode_strips`."""
    height, width, channels = shape
    rows = rows_in_strip(width * channels)
    header = pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    before = SIGNATURE + chunk(b"IHDR", header) + metadata.png_chunks()
    yield before + chunk(b"IDAT", ZLIB_HEADER)
    adler = 1
    with closing(ordered_map(_deflate, rechunk(strips, shape, rows))) as parts:
        for part in parts:
            yield part.chunk
            adler = _adler32_combine(adler, part.adler, part.length)
    yield chunk(b"IDAT", LAST_BLOCK + pack(">I", adler)) + chunk(b"IEND", b"")


def _deflate(chunk_of_rows: Pixels) -> Deflated:
    """Filter and compress all rows of a chunk but the first, which is the row above them."""
    filtered = _filter(chunk_of_rows)
    # Raw deflate (negative window bits): the zlib header and checksum are those of the whole file.
    stream = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    content = stream.compress(filtered) + stream.flush(zlib.Z_SYNC_FLUSH)
    return Deflated(chunk(b"IDAT", content), zlib.adler32(filtered), filtered.size)


def _filter(chunk_of_rows: Pixels) -> Pixels:
    """The scanlines of all rows but the first: a filter's number and the filtered samples."""
    channels = chunk_of_rows.shape[2]
    samples = chunk_of_rows.reshape(len(chunk_of_rows), -1)
    above, rows = samples[:-1], samples[1:]
    result = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    differences = result[:, 1:]
    repeated = _equal_row_above(samples)
    # Where a quarter of the rows are repeated, so are many pixels along the rows (an image that was
    # upscaled by repeating pixels). FILTER_SUB makes those zero.
    if 4 * np.count_nonzero(repeated) >= len(rows):
        result[:, 0] = FILTER_SUB
        differences[:, :channels] = rows[:, :channels]
        np.subtract(rows[:, channels:], rows[:, :-channels], out=differences[:, channels:])
    else:
        result[:, 0] = FILTER_AVERAGE
        differences[:, :channels] = rows[:, :channels] - (above[:, :channels] >> 1)
        # The mean, rounded down, without overflowing uint8: a + b == 2 * (a & b) + (a ^ b).
        left, above = rows[:, :-channels], above[:, channels:]
        mean = left ^ above
        mean >>= 1
        mean += left & above
        np.subtract(rows[:, channels:], mean, out=differences[:, channels:])
    result[repeated] = 0
    result[repeated, 0] = FILTER_UP
    return result


def _equal_row_above(rows: Pixels) -> NDArray[np.bool_]:
    """For each row but the first, whether it equals the row above it.

    Rows are compared as the widest integers that divide them, which is the fastest.
    """
    number_bytes = math.gcd(rows.shape[1], 8)
    numbers = rows.view(f"u{number_bytes}")
    same: NDArray[np.bool_] = (numbers[1:] == numbers[:-1]).all(axis=1)
    return same


def _adler32_combine(first: int, second: int, length: int) -> int:
    """The Adler-32 of two texts in sequence, of which the second has `length` bytes.

    As zlib's function of that name, which Python does not offer. By RFC 1950, 8.2, the low half is
    1 plus the sum of all bytes, and the high half is the sum of the low halves after each byte. In
    the joined text each low half of the second is larger by the low half of the first, minus the 1
    with which it began.
    """
    low, high = first & 0xFFFF, first >> 16
    total_low = low + (second & 0xFFFF) - 1
    total_high = high + (second >> 16) + length * (low - 1)
    return total_high % ADLER_BASE << 16 | total_low % ADLER_BASE
