"""What must be known of a PNG file before it is left to a decoder.

Pillow takes a text called "transparency" for transparency, looks at each of millions of empty
chunks, believes the last of several headers, lets an animation's control chunk shrink the still
picture, and paints black what a short stream of pixels leaves out. So a file is first reduced to
the chunks that make up its picture, and its rows are inflated here, as far as they go, and all of
them. Pillow is given those part by part, and undoes their filters while the next are inflated.
Chunks and filters are those of the W3C's PNG specification, third edition.
"""

from collections.abc import Iterator
from struct import iter_unpack, pack, unpack_from
from typing import Final

try:
    from isal import isal_zlib as deflate
except ModuleNotFoundError:  # it has no build for Windows on ARM; zlib takes several times as long
    import zlib as deflate  # type: ignore[no-redef]

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
ONE_FRAME: Final = b"\0\0\0\1"
"""How an animation's acTL chunk begins if it is a still picture after all."""
MAX_CHUNKS: Final = 65_536
"""A 2048x2048 picture has about 2,000 if its encoder makes them of 8 KiB, as most do."""

ZLIB_HEADER: Final = b"\x78\x01"
"""Deflate with a window of 32 KiB, the fastest level (RFC 1950, 2.2)."""
PART_BYTES: Final = 2**17
"""About how many bytes of rows are given out at a time."""
SLICE_BYTES: Final = 2**15
"""So much of a chunk is inflated at a time: some encoders make a single one of all pixels."""
MAX_STORED_BYTES: Final = 65_535
"""The most that a block holds which is not compressed (RFC 1951, 3.2.4)."""

HEADER: Final = b"\0\0\0\x0dIHDR"
"""How the first chunk begins (11.2.1)."""
BEFORE_PIXELS: Final = (b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf")
"""The chunks that say how to read the pixels. Each may be there once (5.6)."""
PALETTE_BYTES: Final = range(12 + 3, 12 + 3 * 256 + 1, 3)
"""How long the chunk of a palette may be, with its length, type and checksum (11.2.2)."""
ANYWHERE: Final = (b"eXIf", b"acTL")
"""Those that are looked for behind the pixels, too."""
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

    Raises ValueError for a header that does not come first, chunks of BEFORE_PIXELS that are
    there twice or too late, those that may not be passed over (5.4), a palette that is missing,
    and more than MAX_CHUNKS chunks.
    """
    if data[8:16] != HEADER or data[26:28] != b"\0\0" or data[28] > 1:
        raise ValueError("this does not begin with a header")
    header: dict[bytes, memoryview] = {}
    pixels: list[memoryview] = []
    for count, (kind, content, chunk) in enumerate(_chunks(data)):
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
    if colour_type(data) == INDEXED and len(header.get(b"PLTE", b"")) not in PALETTE_BYTES:
        raise ValueError("a palette is missing, or not of whole colours")
    return b"".join((SIGNATURE, *header.values(), *pixels))


def without_pixels(data: bytes) -> bytes:
    """The same file with an empty chunk in place of its pixels."""
    others = (chunk for kind, _, chunk in _chunks(data) if kind not in (b"IDAT", b"IEND"))
    return b"".join((SIGNATURE, *others, *_chunk(b"IDAT", b""), *_chunk(b"IEND", b"")))


def pixels(data: bytes) -> Iterator[bytes]:
    """The parts of a zlib stream that has the picture's rows uncompressed, and nothing behind them.

    Not even a checksum: the file's own stream has one. Raises ValueError unless all rows are there,
    and the inflater's own error if they are damaged, in place of the last part.
    """
    room = _stream_bytes(data) + 1  # one byte more, so that the stream comes to its checksum
    rows, stream = bytearray(), deflate.decompressobj()
    yield ZLIB_HEADER
    for compressed in _compressed(data):
        if not room or stream.eof:  # what it is given behind its end is kept, and copied each time
            break
        more = stream.decompress(compressed, room)
        room -= len(more)
        if more and len(rows) >= PART_BYTES:
            yield b"".join(_stored(memoryview(rows)))
            rows = bytearray()
        rows += more
    if room > 1:
        raise ValueError("rows are missing")
    yield b"".join(_stored(memoryview(rows)[: len(rows) + room - 1]))


def transparent(data: bytes) -> tuple[int, ...] | None:
    """The samples of the one colour that stands for transparent, at their own depth (11.3.1.1)."""
    for kind, content, _ in _chunks(data):
        if kind == b"tRNS":
            samples = content[: 2 * SAMPLES[colour_type(data)]]
            return tuple(sample % 2 ** bit_depth(data) for (sample,) in iter_unpack(">H", samples))
    return None


def palette_size(data: bytes) -> int:
    """How many colours the palette has."""
    return sum(len(content) // 3 for kind, content, _ in _chunks(data) if kind == b"PLTE")


def bit_depth(data: bytes) -> int:
    """How many bits a sample has: 1, 2, 4, 8 or 16."""
    return data[24]


def colour_type(data: bytes) -> int:
    """What a pixel is made of: a key of SAMPLES."""
    return data[25]


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Each chunk's type, its content, and the whole of it with length and checksum, to the last."""
    view, at = memoryview(data), len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = unpack_from(">I4s", data, at)
        yield kind, view[at + 8 : at + 8 + length], view[at : at + 12 + length]
        if kind == b"IEND":
            return
        at += 12 + length


def _chunk(kind: bytes, content: bytes) -> tuple[bytes, bytes, bytes]:
    """The parts of a chunk."""
    checksum = deflate.crc32(content, deflate.crc32(kind))
    return pack(">I4s", len(content), kind), content, pack(">I", checksum)


def _compressed(data: bytes) -> Iterator[memoryview]:
    """The stream of the pixels, in parts of at most SLICE_BYTES."""
    for kind, content, _ in _chunks(data):
        if kind == b"IDAT":
            for at in range(0, len(content), SLICE_BYTES):
                yield content[at : at + SLICE_BYTES]


def _stored(rows: memoryview) -> Iterator[bytes | memoryview]:
    """The parts of blocks that hold `rows` as they are, none of them the last (RFC 1951, 3.2.4).

    zlib could write them as well, and takes several times as long.
    """
    for at in range(0, len(rows), MAX_STORED_BYTES):
        block = rows[at : at + MAX_STORED_BYTES]
        yield pack("<BHH", 0, len(block), len(block) ^ 0xFFFF)
        yield block


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
