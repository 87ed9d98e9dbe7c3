"""PNG files: what must be known of one before anything reads it, and its pixels.

Pillow, which reads the header, takes a text called "transparency" for transparency, looks at each
of millions of empty chunks, believes the last of several headers, and lets an animation's control
chunk shrink the still picture. So a file is first reduced to the chunks that make up its picture.
Its pixels Pillow would paint black where the stream of them is too short, and those of 16 bits it
knows in part. So they are read here, some rows at a time, which stay in the processor's cache.
Chunks are those of the W3C's PNG specification, third edition.

A file is whole if every chunk that its pixels depend on has its checksum (5.3), if the stream of
the pixels has all rows, and if it ends with its own checksum, as to libpng (13.2).
"""

from collections.abc import Iterator
from struct import unpack_from
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upscaler.imaging._zlib import zlib
from upscaler.imaging.png_filters import SIGNATURE, unfiltered

ONE_FRAME: Final = b"\0\0\0\1"
"""How an animation's acTL chunk begins if it is a still picture after all."""
MAX_CHUNKS: Final = 65_536
"""A 2048x2048 picture has about 2,000 if its encoder makes them of 8 KiB, as most do."""

LOT_BYTES: Final = 2**17
"""About how many bytes of scanlines are inflated before pixels are made of them."""
SLICE_BYTES: Final = 2**15
"""So much of a chunk is inflated at a time: some encoders make a single one of all pixels."""

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
MAX_SURPLUS_BYTES: Final = 2**20
"""How much there may be between the last row and the end of the stream. Some encoders inflate to
more than the rows that there are, which libpng passes over; none to as much as this."""
SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples in a pixel, by colour type."""
INDEXED: Final = 3
"""The colour type of pictures with a palette."""
WITH_ALPHA: Final = (4, 6)
"""Those with alpha in each pixel."""
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

Samples = NDArray[np.unsignedinteger]
"""Of shape (height, width, samples in a pixel), as the file counts them."""


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


class InflatedChunk(NamedTuple):
    """Some scanlines: where their pixels belong, and whether they are a pass's first."""

    lines: bytes
    target: NDArray[np.uint8]
    first: bool


class InflateReader:
    """A zlib stream, inflated no further than it is read."""

    def __init__(self, parts: Iterator[memoryview]) -> None:
        self._parts = parts
        self._stream = zlib.decompressobj()

    def read(self, size_bytes: int) -> bytes:
        """So many bytes. Raises ValueError if there are not so many, and zlib.error."""
        pieces = []
        while size_bytes:
            more, ended = self._next(size_bytes)
            if ended and not more:
                raise ValueError("rows are missing")
            size_bytes -= len(more)
            pieces.append(more)
        return b"".join(pieces)

    def finish(self) -> None:
        """Raise zlib.error for a wrong checksum at the end, and ValueError for none."""
        surplus_bytes, ended = 0, False
        while not self._stream.eof:
            if ended or surplus_bytes > MAX_SURPLUS_BYTES:
                raise ValueError("the stream of the pixels does not end")
            more, ended = self._next(SLICE_BYTES)
            surplus_bytes += len(more)

    def _next(self, most_bytes: int) -> tuple[bytes, bool]:
        """Some bytes, or none, and whether there is nothing that they could come from any more."""
        if self._stream.eof:  # what it is given behind its end is kept, and copied each time
            return b"", True
        given = self._stream.unconsumed_tail or next(self._parts, b"")
        return self._stream.decompress(given, most_bytes), not given


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
        if not pixels and kind not in PASSED_OVER:
            _check(chunk)
    if _header(data).colour_type == INDEXED and len(header.get(b"PLTE", b"")) not in PALETTE_BYTES:
        raise ValueError("a palette is missing, or not of whole colours")
    return b"".join((SIGNATURE, *header.values(), *pixels))


def decode(data: bytes) -> NDArray[np.uint8]:
    """The pixels of a `strip_chunks` file, of shape (height, width, samples in a pixel).

    Those are grey, or RGB, and behind them alpha if the file has transparency, of eight bits: of 16
    the upper ones. Raises ValueError if rows are missing, a checksum is wrong or missing, or a
    colour is not in the palette, and what the inflater and `unfiltered` raise for damaged ones.
    """
    header = _header(data)
    colours, key = _palette(data), _key(data)
    samples_in_pixel = SAMPLES[header.colour_type] if colours is None else colours.shape[1]
    channels = samples_in_pixel + (key is not None)
    result = np.empty((header.height, header.width, channels), np.uint8)
    above = b""
    for lot in _lots(data, result):
        columns = lot.target.shape[1]
        if lot.first:
            above = bytes(header.row_bytes(columns))
        rows = unfiltered(lot.lines, above, max(1, header.pixel_bits // 8))
        above = rows[-1].tobytes()
        samples = _samples(rows, columns, header)
        if colours is None:
            lot.target[:, :, :samples_in_pixel] = _eight_bits(samples, header.depth)
        else:
            lot.target[:] = _looked_up(samples[:, :, 0], colours)
        if key is not None:  # never where there is a palette
            lot.target[:, :, -1] = np.where((samples == key).all(axis=2), 0, 255)
    return result


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Each chunk's type, its content, and the whole of it with length and checksum, to the last."""
    view, at = memoryview(data), len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = unpack_from(">I4s", data, at)
        yield kind, view[at + 8 : at + 8 + length], view[at : at + 12 + length]
        if kind == b"IEND":
            return
        at += 12 + length


def _check(chunk: memoryview) -> None:
    """Raise ValueError unless a chunk ends with its checksum (5.3)."""
    length = int.from_bytes(chunk[:4], "big")
    if len(chunk) != length + 12 or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        raise ValueError(f"the checksum of {bytes(chunk[4:8])!r} is wrong")


def _compressed(data: bytes) -> Iterator[memoryview]:
    """The stream of the pixels, in parts of at most SLICE_BYTES."""
    for kind, content, chunk in _chunks(data):
        if kind == b"IDAT":
            _check(chunk)
            for at in range(0, len(content), SLICE_BYTES):
                yield content[at : at + SLICE_BYTES]


def _header(data: bytes) -> Header:
    return Header(*unpack_from(">IIBBBB?", data, 16))


def _lots(data: bytes, picture: NDArray[np.uint8]) -> Iterator[InflatedChunk]:
    """All scanlines, pass by pass, and where in `picture` their pixels belong.

    Raises ValueError unless all are there, and the inflater's own error if they are damaged, of
    which the last thing that tells is the checksum behind them: so only then all of them are good.
    """
    header, stream = _header(data), InflateReader(_compressed(data))
    for left, top, step_x, step_y in header.passes:
        part = picture[top::step_y, left::step_x]
        if not part.size:
            continue
        line_bytes = 1 + header.row_bytes(part.shape[1])
        rows = max(1, LOT_BYTES // line_bytes)
        for at in range(0, len(part), rows):
            target = part[at : at + rows]
            yield InflatedChunk(stream.read(len(target) * line_bytes), target, first=at == 0)
    stream.finish()


def _samples(rows: NDArray[np.uint8], columns: int, header: Header) -> Samples:
    """What `rows` consist of."""
    if header.depth == 16:
        return rows.view(">u2").reshape(len(rows), columns, -1)
    if header.depth < 8:
        shifts = np.arange(8 - header.depth, -1, -header.depth, dtype=np.uint8)
        several = rows[:, :, np.newaxis] >> shifts & (2**header.depth - 1)
        rows = several.reshape(len(rows), -1)[:, :columns]
    return rows.reshape(len(rows), columns, -1)


def _eight_bits(samples: Samples, depth: int) -> Samples:
    """The same as grey levels or colours of 0 to 255."""
    if depth == 16:
        return samples >> np.uint16(8)
    return samples if depth == 8 else samples * np.uint8(255 // (2**depth - 1))


def _looked_up(indices: Samples, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if indices.max() >= len(colours):
        raise ValueError("a colour is not in the palette")
    return colours[indices]


def _palette(data: bytes) -> NDArray[np.uint8] | None:
    """The colours that the samples stand for, RGB or with alpha; None if they stand for none.

    A file of RGB may have a palette as well, for those who show few colours (11.2.2).
    """
    if _header(data).colour_type != INDEXED:
        return None
    colours = np.frombuffer(_content(data, b"PLTE") or b"", np.uint8).reshape(-1, 3)
    opacities = _content(data, b"tRNS")
    if opacities is None:
        return colours
    if len(opacities) > 256:
        raise ValueError("more alphas than a palette has colours")
    alpha = bytes(opacities[: len(colours)]).ljust(len(colours), b"\xff")
    return np.hstack((colours, np.frombuffer(alpha, np.uint8)[:, np.newaxis]))


def _key(data: bytes) -> NDArray[np.uint16] | None:
    """The samples of the one colour that stands for transparent (11.3.1.1), if there is one."""
    header = _header(data)
    if header.colour_type in (INDEXED, *WITH_ALPHA):
        return None
    content = _content(data, b"tRNS")
    if content is None:
        return None
    samples = np.frombuffer(content[: 2 * SAMPLES[header.colour_type]], ">u2")
    return samples & np.uint16(2**header.depth - 1)


def _content(data: bytes, wanted: bytes) -> memoryview | None:
    """What is in the chunk of a kind, or None if there is no such chunk."""
    return next((content for kind, content, _ in _chunks(data) if kind == wanted), None)
