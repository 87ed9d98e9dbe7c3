"""The chunks of a PNG: what must be known of a file before anything reads it.

Pillow, which reads the header, takes a text called "transparency" for transparency, looks at each
of millions of empty chunks, believes the last of several headers, and lets an animation's control
chunk shrink the still picture. So a file is first reduced to the chunks that make up its picture.
Chunks are those of the W3C's PNG specification, third edition. All of this is for security; what
reads the pixels is in `png` and `png_filters`.
"""

from collections.abc import Iterator
from struct import pack, unpack_from
from typing import Final, NamedTuple

from upscaler.imaging._zlib import zlib

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
ONE_FRAME: Final = b"\0\0\0\1"
"""How an animation's acTL chunk begins if it is a still picture after all."""
MAX_CHUNKS: Final = 65_536
"""A 2048x2048 picture has about 2,000 if its encoder makes them of 8 KiB, as most do."""

HEADER: Final = b"\0\0\0\x0dIHDR"
"""How the first chunk begins (11.2.1)."""
BEFORE_PIXELS: Final = (b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf")
"""The chunks that say how to read the pixels. Each may be there once (5.6)."""
PALETTE_BYTES: Final = range(12 + 3, 12 + 3 * 256 + 1, 3)
"""How long the chunk of a palette may be, with its length, type and checksum (11.2.2)."""
ANYWHERE: Final = (b"eXIf", b"acTL")
"""Those that are looked for behind the pixels, too."""
PASSED_OVER: Final = frozenset(
    (
        *(b"bKGD", b"cHRM", b"cICP", b"cLLI", b"eXIf", b"gAMA", b"hIST", b"iTXt", b"mDCV", b"pHYs"),
        *(b"sBIT", b"sPLT", b"sRGB", b"tEXt", b"tIME", b"zTXt", b"fcTL", b"fdAT", b"acTL"),
    )
)
"""Kinds of which nothing is needed for the pixels (11.3), even if their content is damaged. Of
another kind whose checksum is wrong nobody can say what it was: a colour that is transparent,
say, by another name."""

SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples in a pixel, by colour type."""
INDEXED: Final = 3
"""The colour type of pictures with a palette."""
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
ONE_PASS: Final = ((0, 0, 1, 1),)

Piece = bytes | memoryview


class Header(NamedTuple):
    """What the first chunk says (11.2.1)."""

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
        """How many bytes a row of so many pixels has."""
        return -(-columns * self.pixel_bits // 8)


def strip_chunks(data: bytes) -> bytes:
    """The same picture without any other chunk, and its EXIF, wherever it was, before its pixels.

    Raises ValueError for a header that does not come first, chunks of BEFORE_PIXELS that are
    there twice or too late, those that may not be passed over (5.4), a palette that is missing,
    more than MAX_CHUNKS chunks, and a wrong checksum of what comes before the pixels.
    """
    if data[8:16] != HEADER or data[26:28] != b"\0\0" or data[28] > 1:
        raise ValueError("this does not begin with a header")
    header: dict[bytes, memoryview] = {}
    pixels: list[memoryview] = []
    for count, (kind, content, chunk) in enumerate(chunks(data)):
        if count == MAX_CHUNKS:
            raise ValueError(f"more than {MAX_CHUNKS} chunks")
        if kind in BEFORE_PIXELS or (kind == b"acTL" and bytes(content[:4]) > ONE_FRAME):
            if kind in header or (pixels and kind not in ANYWHERE):
                raise ValueError(f"{kind!r} is there twice or too late")
            header[kind] = chunk
        elif kind in (b"IDAT", b"IEND"):
            pixels.append(chunk)
        elif not kind[:1].islower():
            raise ValueError(f"{kind!r} is not known, and needed for the picture")
        if not pixels and kind not in PASSED_OVER:
            check_sum(chunk)
    if (
        read_header(data).colour_type == INDEXED
        and len(header.get(b"PLTE", b"")) not in PALETTE_BYTES
    ):
        raise ValueError("a palette is missing, or not of whole colours")
    return b"".join((SIGNATURE, *header.values(), *pixels))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG with its length and checksum (5.3)."""
    return b"".join(pieces_of_chunk(kind, content))


def pieces_of_chunk(kind: bytes, *content: Piece) -> tuple[Piece, ...]:
    """The pieces of a chunk, so that those of a file are copied together and not before."""
    length, checksum = 0, zlib.crc32(kind)
    for piece in content:
        length, checksum = length + len(piece), zlib.crc32(piece, checksum)
    return pack(">I", length), kind, *content, pack(">I", checksum)


def chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Each chunk's type, its content, and the whole of it with length and checksum, to the last."""
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
    """What the first chunk says; the file must begin with HEADER."""
    return Header(*unpack_from(">IIBBBB?", data, 16))
