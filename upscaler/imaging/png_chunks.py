"""Reduce PNG files to the chunks that make up their image, before anything reads them.

This is for security. Pillow, which reads the header, takes a text called "transparency" for
transparency, processes each of millions of empty chunks, uses the last of several headers, and lets
an animation's control chunk shrink the still image. Chunks are those of the W3C's PNG
specification, third edition. Pixels are decoded in `png` and `png_filters`.
"""

from collections.abc import Iterator
from struct import pack, unpack_from
from typing import Final, NamedTuple

from upscaler.imaging._zlib import zlib

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
ONE_FRAME: Final = b"\0\0\0\1"
"""The start of the acTL chunk of an animation with one frame, which is a still image."""
MAX_CHUNKS: Final = 65_536
"""A 2048x2048 image has about 2,000 chunks if its encoder makes them 8 KiB long, as most do."""

HEADER: Final = b"\0\0\0\x0dIHDR"
"""The start of the first chunk, whose content has 13 bytes (11.2.1)."""
BEFORE_PIXELS: Final = (b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf")
"""The chunks that say how to interpret the pixels. Each may occur once (5.6)."""
PALETTE_BYTES: Final = range(12 + 3, 12 + 3 * 256 + 1, 3)
"""The valid sizes of a palette chunk, with its length, type and checksum (11.2.2)."""
ANYWHERE: Final = (b"eXIf", b"acTL")
"""Chunks that may also come after the pixels."""
PASSED_OVER: Final = frozenset(
    (
        *(b"bKGD", b"cHRM", b"cICP", b"cLLI", b"eXIf", b"gAMA", b"hIST", b"iTXt", b"mDCV", b"pHYs"),
        *(b"sBIT", b"sPLT", b"sRGB", b"tEXt", b"tIME", b"zTXt", b"fcTL", b"fdAT", b"acTL"),
    )
)
"""Chunk types that the pixels do not depend on (11.3), so their checksums do not matter. A chunk of
another type with a wrong checksum is refused even if the type is unknown: it may be a needed chunk,
such as tRNS, whose type was damaged."""

SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples in a pixel, by colour type (11.2.1)."""
INDEXED: Final = 3
"""The colour type of images with a palette."""
ADAM7: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""The passes of an interlaced image (8.2): first column, first row, and the steps of both."""
ONE_PASS: Final = ((0, 0, 1, 1),)

Piece = bytes | memoryview


class Header(NamedTuple):
    """The content of the first chunk, IHDR (11.2.1)."""

    width: int
    height: int
    depth: int
    colour_type: int
    compression: int
    filtering: int
    interlaced: bool

    @property
    def passes(self) -> tuple[tuple[int, int, int, int], ...]:
        return ADAM7 if self.interlaced else ONE_PASS

    @property
    def pixel_bits(self) -> int:
        return self.depth * SAMPLES[self.colour_type]

    def row_bytes(self, columns: int) -> int:
        """The bytes of a row of `columns` pixels, without the one for its filter."""
        return -(-columns * self.pixel_bits // 8)


def strip_chunks(data: bytes) -> bytes:
    """Remove all chunks that the image does not need, and move its EXIF before its pixels.

    Raises ValueError for a header that does not come first, chunks of BEFORE_PIXELS that occur
    twice or too late, unknown chunks that may not be ignored (5.4), a palette that is missing, more
    than MAX_CHUNKS chunks, and a wrong checksum of a chunk before the pixels.
    """
    # Compression, filter and interlace methods: no others are defined (11.2.1).
    if data[8:16] != HEADER or data[26:28] != b"\0\0" or data[28] > 1:
        raise ValueError("this does not begin with a header")
    header: dict[bytes, memoryview] = {}
    pixels: list[memoryview] = []
    # A large file may have more of them, if they are as long as most encoders make them.
    most = max(MAX_CHUNKS, len(data) // 4096)
    for count, (kind, content, chunk) in enumerate(chunks(data)):
        if count == most:
            raise ValueError(f"more than {MAX_CHUNKS} chunks")
        # acTL is kept for an animation, so that Pillow recognises it and it is refused as one.
        if kind in BEFORE_PIXELS or (kind == b"acTL" and bytes(content[:4]) > ONE_FRAME):
            if kind in header or (pixels and kind not in ANYWHERE):
                raise ValueError(f"{kind!r} is there twice or too late")
            header[kind] = chunk
        elif kind in (b"IDAT", b"IEND"):
            pixels.append(chunk)
        elif not kind[:1].islower():  # an upper-case letter marks a critical chunk (5.4)
            raise ValueError(f"{kind!r} is not known, and needed for the image")
        # The checksums of the pixels are verified when they are decoded.
        if not pixels and kind not in PASSED_OVER:
            check_sum(chunk)
    if (
        read_header(data).colour_type == INDEXED
        and len(header.get(b"PLTE", b"")) not in PALETTE_BYTES
    ):
        raise ValueError("a palette is missing, or not of whole colours")
    return b"".join((SIGNATURE, *header.values(), *pixels))


def chunk(kind: bytes, content: bytes) -> bytes:
    """Make a PNG chunk with its length and checksum (5.3)."""
    return b"".join(pieces_of_chunk(kind, content))


def pieces_of_chunk(kind: bytes, *content: Piece) -> tuple[Piece, ...]:
    """A chunk in pieces, so that large contents are copied only once, into the file."""
    length, checksum = 0, zlib.crc32(kind)
    for piece in content:
        length, checksum = length + len(piece), zlib.crc32(piece, checksum)
    return pack(">I", length), kind, *content, pack(">I", checksum)


def chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Each chunk up to IEND: its type, its content, and the whole chunk with length and checksum.

    A truncated last chunk is yielded as far as it goes.
    """
    view, at = memoryview(data), len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = unpack_from(">I4s", data, at)
        yield kind, view[at + 8 : at + 8 + length], view[at : at + 12 + length]
        if kind == b"IEND":
            return
        at += 12 + length


def check_sum(chunk: memoryview) -> None:
    """Raise ValueError unless a chunk ends with its checksum (5.3)."""
    length = int.from_bytes(chunk[:4], "big")
    if len(chunk) != length + 12 or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        raise ValueError(f"the checksum of {bytes(chunk[4:8])!r} is wrong")


def read_header(data: bytes) -> Header:
    """The header of a file, whose first chunk must begin with HEADER."""
    return Header(*unpack_from(">IIBBBB?", data, 16))
