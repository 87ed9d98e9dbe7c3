"""The scanlines of a PNG: rows of a picture as its filters made them, and libspng unmakes them.

libspng reads nothing but whole files, so some scanlines become one, which is not even compressed:
it never sees anything else of what was sent. Filters are those of the W3C's PNG specification,
third edition, 9.
"""

from collections.abc import Iterator
from itertools import chain
from struct import pack
from typing import Final

import numpy as np
import pyspng
from numpy.typing import NDArray

from upscaler.imaging._zlib import zlib
from upscaler.imaging.png_chunks import SIGNATURE, Piece, pieces_of_chunk

ZLIB_HEADER: Final = b"\x78\x01"
"""Deflate with a window of 32 KiB, the fastest level (RFC 1950, 2.2)."""
LAST_BLOCK: Final = b"\x03\x00"
"""An empty block that is marked as the last (RFC 1951, 3.2.6), so that no other needs to be."""
MAX_STORED_BYTES: Final = 65_535
"""The most that a block holds which is not compressed (RFC 1951, 3.2.4)."""
NO_FILTER: Final = b"\0"
COLOUR_TYPES: Final = {1: 0, 3: 2, 4: 6}
"""Those whose pixels have so many bytes: grey, RGB, and RGB with alpha, of eight bits (11.2.1)."""

Rows = NDArray[np.uint8]
"""Of shape (rows, bytes in a row)."""


def unfiltered(lines: bytes, above: bytes, pixel_bytes: int) -> Rows:
    """The rows in `lines`, each of which is the number of a filter and a filtered row.

    `above` is the row over the first, and `pixel_bytes` (1, 2, 3, 4, 6 or 8) how far a byte is from
    that on its left by which it was filtered. Raises RuntimeError for a filter that is not defined.

    pyspng's memory cannot be filled beforehand. So behind the rows comes one that is known, another
    for other rows: where it comes out, libspng has been through all that is above it.
    """
    if pixel_bytes not in COLOUR_TYPES:
        return _in_halves(lines, above, pixel_bytes)
    width, height = len(above) // pixel_bytes, 2 + len(lines) // (1 + len(above))
    header = pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[pixel_bytes], 0, 0, 0)
    last = (pack(">I", zlib.crc32(lines)) * (len(above) // 4 + 1))[: len(above)]
    stream = _stored(NO_FILTER + above, lines, NO_FILTER + last)
    chunks = (
        pieces_of_chunk(b"IHDR", header),
        pieces_of_chunk(b"IDAT", *stream),
        pieces_of_chunk(b"IEND"),
    )
    rows: Rows = pyspng.load(b"".join((SIGNATURE, *chain(*chunks)))).reshape(height, -1)
    if rows[-1].tobytes() != last:
        raise RuntimeError("libspng has not come to the last row")
    return rows[1:-1]


def _in_halves(lines: bytes, above: bytes, pixel_bytes: int) -> Rows:
    """The same for pixels of twice as many bytes: to a filter their halves are two pictures."""
    lot = np.frombuffer(lines, np.uint8).reshape(-1, 1 + len(above))
    height, half = len(lot), pixel_bytes // 2
    filtered = lot[:, 1:].reshape(height, -1, 2, half)
    over = np.frombuffer(above, np.uint8).reshape(-1, 2, half)
    halves = (
        unfiltered(
            np.hstack((lot[:, :1], filtered[:, :, i].reshape(height, -1))).tobytes(),
            over[:, i].tobytes(),
            half,
        ).reshape(height, -1, 1, half)
        for i in range(2)
    )
    return np.concatenate(list(halves), axis=2).reshape(height, -1)


def _stored(*contents: bytes) -> Iterator[Piece]:
    """The pieces of a zlib stream of `contents`, one behind the other, as they are.

    zlib could write it as well, and takes several times as long.
    """
    checksum = zlib.adler32(b"")
    yield ZLIB_HEADER
    for content in contents:
        checksum = zlib.adler32(content, checksum)
        for at in range(0, len(content), MAX_STORED_BYTES):
            block = memoryview(content)[at : at + MAX_STORED_BYTES]
            yield pack("<BHH", 0, len(block), len(block) ^ 0xFFFF)
            yield block
    yield LAST_BLOCK + pack(">I", checksum)
