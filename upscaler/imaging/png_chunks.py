"""Reduce PNG files to the chunks that make up their image, before anything reads them.

This is for security. Pillow, which reads the header, takes a text called "transparency" for
transparency, processes each of millions of empty chunks, uses the last of several headers, and lets
an animation's control chunk shrink the still image. Chunks are those of the W3C's PNG
specification, third edition. Pixels are decoded in `png` and `png_filters`.

A fault in a chunk without which there is no image is fatal. Any other chunk with a fault is ignored
as if it were not there (13.1), as in other decoders: one with a wrong checksum, one that comes too
late, and one that is there already.
"""

from collections.abc import Iterator
from itertools import chain
from struct import pack, unpack_from
from typing import Final, NamedTuple

from upscaler.errors import ImageError
from upscaler.imaging._zlib import zlib

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
FRAMES: Final = range(2, 2**31)
"""How many frames an animation may have. With another number it is a still image."""
NO_PIXELS: Final = b"\0\0\0\0IDAT\x35\xaf\x06\x1e"
"""An IDAT chunk without content."""
MAX_CHUNKS: Final = 65_536
"""A 2048x2048 image has about 2,000 chunks if its encoder makes them 8 KiB long, as most do."""

HEADER: Final = b"\0\0\0\x0dIHDR"
"""The start of the first chunk, whose content has 13 bytes (11.2.1)."""
COLOUR_CHUNKS: Final = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
"""The chunks that say what colours the samples mean, which is found out in `png_colour`."""
MOST_KEPT: Final = {
    **dict.fromkeys((b"IHDR", b"PLTE", b"tRNS", b"eXIf"), 1),
    **dict.fromkeys(COLOUR_CHUNKS, 8),
}
"""So many chunks of each type are kept, in this order. The first colour chunks may turn out to be
invalid; but a file may have thousands, and a profile takes a while."""
TIFF_SIGNATURES: Final = (b"II*\0", b"MM\0*", b"Exif\0\0")
"""What EXIF begins with (11.3.4.5). The last one is put before it in a JPEG, and by some
programs in a PNG as well."""

DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""The bits of a sample that there may be, by colour type (11.2.1)."""
SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples in a pixel, by colour type (11.2.1)."""
INDEXED: Final = 3
"""The colour type of images with a palette."""
GREYS: Final = (0, 4)
"""The colour types without colours."""
WITH_ALPHA: Final = (4, 6)
"""The colour types with an alpha sample in each pixel."""
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

    @property
    def colours(self) -> int:
        """1 if the pixels are grey, and 3 if they are RGB, by way of a palette or not."""
        return 1 if self.colour_type in GREYS else 3

    @property
    def scaled_depth(self) -> int:
        """The bits of a sample once fewer than 8 are scaled to 8."""
        return max(8, self.depth)

    def row_bytes(self, columns: int) -> int:
        """The bytes of a row of `columns` pixels, without the one for its filter."""
        return -(-columns * self.pixel_bits // 8)


def strip_chunks(data: bytes) -> bytes:
    """Remove all chunks that the image does not need, and all but the first valid one of a type.

    Those that remain are IHDR, PLTE if the image is indexed, tRNS, eXIf, some of each of
    COLOUR_CHUNKS, of which only the checksum is known to be right, and the pixels, whose
    checksums are verified when they are decoded. Raises ImageError, with the reason, for an
    animation, for a fault in IHDR or PLTE, for unknown chunks that may not be ignored (5.4), and
    for more than MAX_CHUNKS chunks.
    """
    header = _checked_header(data)
    kept: dict[bytes, list[memoryview]] = {kind: [] for kind in MOST_KEPT}
    pixels: list[memoryview] = []
    # A large file may have more of them, if they are as long as most encoders make them.
    most = max(MAX_CHUNKS, len(data) // 4096)
    for count, (kind, content, chunk) in enumerate(chunks(data)):
        if count == most:
            raise _unreadable(f"has more than {most} chunks")
        if kind in (b"IDAT", b"IEND"):
            pixels.append(chunk)
        elif kind == b"acTL" and not pixels:  # behind them it has no meaning (5.6)
            if int.from_bytes(content[:4], "big") in FRAMES and has_checksum(chunk):
                raise ImageError("this image is animated: send a still one", "image_animated")
        elif not kind[:1].islower():  # an upper-case letter marks a critical chunk (5.4)
            if _is_needed(kind, header, is_late=bool(pixels)):
                _check_critical(kind, content, chunk, is_first=not kept[kind])
                kept[kind].append(chunk)
        elif not pixels and _is_valid(kind, content, chunk, header, kept):
            kept[kind].append(chunk)
    if header.colour_type == INDEXED and not kept[b"PLTE"]:
        raise _unreadable("has no palette (PLTE) before its pixels, which its colours are in")
    # Pillow reads a header as far as the pixels. Behind the first of them, which is empty here, it
    # does not see the profile, which it would inflate as well.
    colours = [kept.pop(kind) for kind in COLOUR_CHUNKS]
    return b"".join((SIGNATURE, *chain(*kept.values()), NO_PIXELS, *chain(*colours), *pixels))


def _unreadable(reason: str) -> ImageError:
    return ImageError(f"this PNG {reason}", "image_unreadable")


def _checked_header(data: bytes) -> Header:
    """The header of a file, if there is one that the specification defines (11.2.1)."""
    if data[12:16] == b"CgBI":
        raise _unreadable(
            "is of Apple's kind CgBI, made for apps of iPhones: save it as a standard PNG, for"
            " example with `pngcrush -revert-iphone-optimizations`"
        )
    if data[8:16] != HEADER:
        raise _unreadable("does not begin with its header (IHDR): it is damaged")
    whole = memoryview(data)[8:33]
    if len(whole) < 25:
        raise _unreadable("is cut off in its header (IHDR)")
    header = read_header(data)
    if header.depth not in DEPTHS.get(header.colour_type, ()):
        raise _unreadable(
            f"has the colour type {header.colour_type} with {header.depth} bits, which do not exist"
        )
    # Compression, filter and interlace methods: no others are defined.
    if header.compression or header.filtering or data[28] > 1:
        raise _unreadable("is compressed, filtered or interlaced by a method that does not exist")
    if not (header.width and header.height):
        raise _unreadable("has a width or height of 0")
    return header


def _is_needed(kind: bytes, header: Header, *, is_late: bool) -> bool:
    """Whether a critical chunk counts; ImageError if it does and is not known.

    RGB images may have a palette as a suggestion for displays of few colours (11.2.2).
    """
    if kind not in (b"IHDR", b"PLTE"):
        if not kind.isalpha():
            if is_late:
                return False  # a trailer without the end before it; the rows are counted later
            raise _unreadable("is damaged: it has a chunk whose type is not of letters")
        raise _unreadable(f"needs its chunk {kind.decode()}, which is not known")
    return kind == b"IHDR" or (header.colour_type == INDEXED and not is_late)


def _check_critical(kind: bytes, content: memoryview, chunk: memoryview, *, is_first: bool) -> None:
    """Raise ImageError unless this header or palette is the only one, and sound (11.2)."""
    if not is_first:
        raise _unreadable(f"has two chunks {kind.decode()}, of which there may be one")
    if not has_checksum(chunk):
        raise _unreadable(f"is damaged: the checksum of {kind.decode()} is wrong")
    if kind == b"PLTE" and (len(content) % 3 or not 0 < len(content) <= 3 * 256):
        raise _unreadable(f"has a palette (PLTE) of {len(content)} bytes, not of 1 to 256 colours")


def _is_valid(
    kind: bytes,
    content: memoryview,
    chunk: memoryview,
    header: Header,
    kept: dict[bytes, list[memoryview]],
) -> bool:
    """Whether an ancillary chunk is kept: it counts, is not there yet, and its content may be used.

    That of colour chunks is looked at later. In tRNS it is alphas, behind a palette, or one colour
    (11.3.1.1). Of more alphas than colours and of a colour that is too long the rest is not used,
    which is how browsers have it; libpng ignores such a chunk.
    """
    if len(kept.get(kind, ())) >= MOST_KEPT.get(kind, 0) or not has_checksum(chunk):
        return False
    if kind == b"eXIf":
        return bytes(content[:6]).startswith(TIFF_SIGNATURES)
    if kind != b"tRNS":
        return True
    if header.colour_type == INDEXED:
        return bool(kept[b"PLTE"]) and 0 < len(content) <= 256
    return header.colour_type not in WITH_ALPHA and len(content) >= 2 * header.colours


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


def is_whole(chunk: memoryview) -> bool:
    """Whether a chunk has all of its bytes, and does not end with the file."""
    return len(chunk) == int.from_bytes(chunk[:4], "big") + 12


def has_checksum(chunk: memoryview) -> bool:
    """Whether a chunk is whole and ends with its checksum (5.3)."""
    return is_whole(chunk) and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def read_header(data: bytes) -> Header:
    """The header of a file, whose first chunk must begin with HEADER."""
    return Header(*unpack_from(">IIBBBB?", data, 16))
