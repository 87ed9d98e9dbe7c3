"""Undo the filters of PNG scanlines, by libspng.

libspng only reads whole files, so each group of scanlines is wrapped into a new uncompressed PNG.
It never sees any other part of an untrusted file. Filters are those of the W3C's PNG specification,
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
"""An empty block with the flag of the last one (RFC 1951, 3.2.6), so that no other needs it."""
MAX_STORED_BYTES: Final = 65_535
"""The maximum size of an uncompressed block (RFC 1951, 3.2.4)."""
NO_FILTER: Final = b"\0"
COLOUR_TYPES: Final = {1: 0, 3: 2, 4: 6}
"""The 8-bit colour types by the bytes of a pixel: grey, RGB and RGBA (11.2.1)."""

Rows = NDArray[np.uint8]
"""Rows of shape (rows, bytes in a row)."""


def unfiltered(lines: bytes, above: bytes, pixel_bytes: int) -> Rows:
    """Undo the filters of `lines`, each of which is a filter's number and a filtered row.

    `above` is the row above the first one. `pixel_bytes` (1, 2, 3, 4, 6 or 8) is the distance from
    a byte to the one on its left by which it was filtered. Raises RuntimeError for an undefined
    filter.

    Unlike simplejpeg's, the memory of pyspng cannot be filled beforehand. So a known row is added
    at the end, which depends on the others: if it comes out, libspng has processed all of them.
    """
    if pixel_bytes not in COLOUR_TYPES:
        return _in_halves(lines, above, pixel_bytes)
    # `above` becomes the first row of the file, and the known row the last.
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
        raise RuntimeError("libspng has not reached the last row")
    return rows[1:-1]


def _in_halves(lines: bytes, above: bytes, pixel_bytes: int) -> Rows:
    """The same for pixels of twice as many bytes, such as those of 16-bit samples.

    A filter relates each byte to the byte at the same place in neighbouring pixels. So the two
    halves of all pixels are like two images, whose filters are undone separately.
    """
    scanlines = np.frombuffer(lines, np.uint8).reshape(-1, 1 + len(above))
    height, half = len(scanlines), pixel_bytes // 2
    filtered = scanlines[:, 1:].reshape(height, -1, 2, half)
    row_above = np.frombuffer(above, np.uint8).reshape(-1, 2, half)
    halves = (
        unfiltered(
            np.hstack((scanlines[:, :1], filtered[:, :, i].reshape(height, -1))).tobytes(),
            row_above[:, i].tobytes(),
            half,
        ).reshape(height, -1, 1, half)
        for i in range(2)
    )
    return np.concatenate(list(halves), axis=2).reshape(height, -1)


def _stored(*contents: bytes) -> Iterator[Piece]:
    """The pieces of a zlib stream with `contents` in sequence, uncompressed.

    zlib could write it as well, but takes several times as long.
    """
    checksum = zlib.adler32(b"")
    yield ZLIB_HEADER
    for content in contents:
        checksum = zlib.adler32(content, checksum)
        for at in range(0, len(content), MAX_STORED_BYTES):
            block = memoryview(content)[at : at + MAX_STORED_BYTES]
            # "Not the last block, stored", the length, and its complement (RFC 1951, 3.2.4).
            yield pack("<BHH", 0, len(block), len(block) ^ 0xFFFF)
            yield block
    yield LAST_BLOCK + pack(">I", checksum)
