"""The pixels of a PNG file.

Pillow would paint pixels black where the stream of them is too short, and those of 16 bits it knows
in part. So they are read here, some rows at a time, which stay in the processor's cache. Chunks are
those of the W3C's PNG specification, third edition.

A file is whole if every chunk that its pixels depend on has its checksum (5.3), if the stream of
the pixels has all rows, and if it ends with its own checksum, as to libpng (13.2).

Nothing simpler does all of that. libspng, by pyspng, reads whole files into memory of its own,
which nobody can show to be written in full; it has had no release since 2023, and it makes other
pixels of transparent colours on grey and palettes. Pillow takes 2.6 times as long. So libspng only
unmakes filters (`png_filters`), which is what takes the time, and cannot be trusted with more.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upscaler.imaging._zlib import zlib
from upscaler.imaging.png_chunks import (
    INDEXED,
    SAMPLES,
    Header,
    check_sum,
    chunks,
    read_header,
)
from upscaler.imaging.png_filters import unfiltered

LOT_BYTES: Final = 2**17
"""About how many bytes of scanlines are inflated before pixels are made of them."""
SLICE_BYTES: Final = 2**15
"""So much of a chunk is inflated at a time: some encoders make a single one of all pixels."""

MAX_SURPLUS_BYTES: Final = 2**20
"""How much there may be between the last row and the end of the stream. Some encoders inflate to
more than the rows that there are, which libpng passes over; none to as much as this."""
WITH_ALPHA: Final = (4, 6)
"""Those with alpha in each pixel."""
Samples = NDArray[np.unsignedinteger]
"""Of shape (height, width, samples in a pixel), as the file counts them."""


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


def decode(data: bytes) -> NDArray[np.uint8]:
    """The pixels of a `strip_chunks` file, of shape (height, width, samples in a pixel).

    Those are grey, or RGB, and behind them alpha if the file has transparency, of eight bits: of 16
    the upper ones. Raises ValueError if rows are missing, a checksum is wrong or missing, or a
    colour is not in the palette, and what the inflater and `unfiltered` raise for damaged ones.
    """
    header = read_header(data)
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


def _compressed(data: bytes) -> Iterator[memoryview]:
    """The stream of the pixels, in parts of at most SLICE_BYTES."""
    for kind, content, chunk in chunks(data):
        if kind == b"IDAT":
            check_sum(chunk)
            for at in range(0, len(content), SLICE_BYTES):
                yield content[at : at + SLICE_BYTES]


def _lots(data: bytes, picture: NDArray[np.uint8]) -> Iterator[InflatedChunk]:
    """All scanlines, pass by pass, and where in `picture` their pixels belong.

    Raises ValueError unless all are there, and the inflater's own error if they are damaged, of
    which the last thing that tells is the checksum behind them: so only then all of them are good.
    """
    header, stream = read_header(data), InflateReader(_compressed(data))
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
    if read_header(data).colour_type != INDEXED:
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
    header = read_header(data)
    if header.colour_type in (INDEXED, *WITH_ALPHA):
        return None
    content = _content(data, b"tRNS")
    if content is None:
        return None
    samples = np.frombuffer(content[: 2 * SAMPLES[header.colour_type]], ">u2")
    return samples & np.uint16(2**header.depth - 1)


def _content(data: bytes, wanted: bytes) -> memoryview | None:
    """What is in the chunk of a kind, or None if there is no such chunk."""
    return next((content for kind, content, _ in chunks(data) if kind == wanted), None)
