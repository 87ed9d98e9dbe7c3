"""What must be known of a PNG file before it is left to a decoder.

Pillow takes a text called "transparency" for transparency, looks at each of millions of empty
chunks, lets an animation's control chunk shrink the still picture, and paints black what a short
stream of pixels leaves out. So a file is first reduced to the chunks that make up its picture, and
asked whether all its rows are there. Chunks and filters are those of the W3C's PNG specification.
"""

import zlib
from collections.abc import Iterator
from struct import unpack_from
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
ONE_FRAME: Final = b"\0\0\0\1"
"""How an animation's acTL chunk begins if it is a still picture after all."""
MAX_CHUNKS: Final = 65_536
"""A 2048x2048 picture has about 2,000 if its encoder makes them of 8 KiB, as most do."""

BEFORE_PIXELS: Final = (b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf")
"""The chunks that say how to read the pixels."""
SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples in a pixel, by colour type."""
INDEXED: Final = 3
GREY_ALPHA: Final = 4
"""The colour types of pictures with a palette, and of grey ones with alpha."""
ADAM7: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""The passes of an interlaced picture: first column, first row, and steps between them."""


def reduced(data: bytes) -> bytes:
    """The same picture without any other chunk, and its EXIF, wherever it was, before its pixels.

    Raises ValueError for a palette that is missing, and for more than MAX_CHUNKS chunks.
    """
    header, pixels = [], []
    for count, (kind, content, chunk) in enumerate(_chunks(data)):
        if count == MAX_CHUNKS:
            raise ValueError(f"more than {MAX_CHUNKS} chunks")
        if kind in BEFORE_PIXELS or (kind == b"acTL" and content[:4] > ONE_FRAME):
            header.append(chunk)
        elif kind in (b"IDAT", b"IEND"):
            pixels.append(chunk)
    if colour_type(data) == INDEXED and not any(chunk[4:8] == b"PLTE" for chunk in header):
        raise ValueError("a palette is missing")
    return b"".join((SIGNATURE, *header, *pixels))


def check_complete(data: bytes) -> None:
    """Raise ValueError unless the stream of pixels holds every row of the picture."""
    missing = _stream_bytes(data)
    stream = zlib.decompressobj()
    for kind, content, _ in _chunks(data):
        if kind == b"IDAT" and missing > 0:
            missing -= len(stream.decompress(content, missing))
    if missing > 0:
        raise ValueError("rows are missing")


def bit_depth(data: bytes) -> int:
    """How many bits a sample has: 1, 2, 4, 8 or 16."""
    return data[24]


def colour_type(data: bytes) -> int:
    """What a pixel is made of: a key of SAMPLES."""
    return data[25]


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Each chunk's type, its content, and the whole of it with length and checksum."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + length], data[at : at + 12 + length]
        at += 12 + length


def _stream_bytes(data: bytes) -> int:
    """How many bytes the filtered rows of the picture have: one for the filter, then samples."""
    width, height, depth, colour_type, _, _, interlaced = unpack_from(">IIBBBBB", data, 16)
    bits = depth * SAMPLES[colour_type]
    total = 0
    for left, top, step_x, step_y in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total
