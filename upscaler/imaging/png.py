"""Decode the pixels of a PNG file.

Pillow makes pixels black where the pixel stream is too short, and supports 16-bit samples only in
part. So pixels are decoded here, a few rows at a time, which stay in the processor's cache. Chunks
are those of the W3C's PNG specification, third edition.

A file is whole if every chunk that the pixels depend on has its checksum (5.3), if the pixel stream
has all rows, and if it ends with its own checksum, which libpng requires as well (13.2).

No library does all of that. pyspng (libspng) reads whole files into memory of its own, of which it
cannot be shown that all is written; it has had no release since 2023, and converts transparent
colours of grey and palette images differently. Pillow takes 2.6 times as long. So libspng is only
trusted to undo the filters (`png_filters`), which takes most of the time.
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
"""The approximate size of the scanlines that are inflated and converted in one step."""
SLICE_BYTES: Final = 2**15
"""The part of an IDAT chunk that is inflated at a time: some encoders write only one such chunk."""

MAX_SURPLUS_BYTES: Final = 2**20
"""The most inflated bytes that may follow the last row. The streams of some encoders are longer
than their rows, which libpng ignores; none is longer by this much."""
WITH_ALPHA: Final = (4, 6)
"""The colour types with an alpha sample in each pixel."""
Samples = NDArray[np.unsignedinteger]
"""Samples in the file's own bit depth, of shape (height, width, samples in a pixel)."""


class InflatedChunk(NamedTuple):
    """Some scanlines, the part of the image they belong to, and whether they begin a pass."""

    lines: bytes
    target: NDArray[np.uint8]
    first: bool


class InflateReader:
    """Reads a zlib stream and inflates no more of it than is read, so that memory is bounded."""

    def __init__(self, parts: Iterator[memoryview]) -> None:
        self._parts = parts
        self._stream = zlib.decompressobj()

    def read(self, size_bytes: int) -> bytes:
        """Read exactly `size_bytes`; ValueError if the stream is shorter, zlib.error if damaged."""
        pieces = []
        while size_bytes:
            more, ended = self._next(size_bytes)
            if ended and not more:
                raise ValueError("rows are missing")
            size_bytes -= len(more)
            pieces.append(more)
        return b"".join(pieces)

    def finish(self) -> None:
        """Read to the end: zlib.error for a wrong checksum there, ValueError for a missing one."""
        surplus_bytes, ended = 0, False
        while not self._stream.eof:
            if ended or surplus_bytes > MAX_SURPLUS_BYTES:
                raise ValueError("the stream of the pixels does not end")
            more, ended = self._next(SLICE_BYTES)
            surplus_bytes += len(more)

    def _next(self, most_bytes: int) -> tuple[bytes, bool]:
        """Some bytes, perhaps none, and whether the input or the stream has ended."""
        if (
            self._stream.eof
        ):  # after its end a stream only stores its input, and copies it each time
            return b"", True
        given = self._stream.unconsumed_tail or next(self._parts, b"")
        return self._stream.decompress(given, most_bytes), not given


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode a `strip_chunks` file to uint8 of shape (height, width, samples in a pixel).

    Samples are grey or RGB, followed by alpha if the file has transparency; of 16 bits the upper
    eight are kept. Raises ValueError if rows are missing, a checksum is wrong or missing, or a
    colour is not in the palette; zlib.error and RuntimeError for a damaged stream.
    """
    header = read_header(data)
    colours, key = _palette(data), _colour_key(data)
    samples_in_pixel = SAMPLES[header.colour_type] if colours is None else colours.shape[1]
    channels = samples_in_pixel + (key is not None)
    result = np.empty((header.height, header.width, channels), np.uint8)
    above = b""
    for chunk in _scanlines(data, result):
        columns = chunk.target.shape[1]
        if chunk.first:
            above = bytes(header.row_bytes(columns))  # zeros above the first row of a pass (9.2)
        rows = unfiltered(chunk.lines, above, max(1, header.pixel_bits // 8))
        above = rows[-1].tobytes()
        samples = _unpack_samples(rows, columns, header)
        if colours is None:
            chunk.target[:, :, :samples_in_pixel] = _to_eight_bits(samples, header.depth)
        else:
            indices = samples[:, :, 0]
            if indices.max() >= len(colours):
                raise ValueError("a colour is not in the palette")
            chunk.target[:] = colours[indices]
        # Compared in the file's own depth: two colours may be equal in their upper eight bits.
        if key is not None:  # never if there is a palette
            chunk.target[:, :, -1] = np.where((samples == key).all(axis=2), 0, 255)
    return result


def _idat_slices(data: bytes) -> Iterator[memoryview]:
    """The compressed pixel stream, in slices of at most SLICE_BYTES, its checksums verified."""
    for kind, content, chunk in chunks(data):
        if kind == b"IDAT":
            check_sum(chunk)
            for at in range(0, len(content), SLICE_BYTES):
                yield content[at : at + SLICE_BYTES]


def _scanlines(data: bytes, image: NDArray[np.uint8]) -> Iterator[InflatedChunk]:
    """All scanlines, pass by pass, with the part of `image` that each group belongs to.

    Raises ValueError if some are missing, and zlib.error if they are damaged. The checksum at the
    end is verified last, so no scanline is known to be intact before the iterator ends.
    """
    header, stream = read_header(data), InflateReader(_idat_slices(data))
    for left, top, step_x, step_y in header.passes:
        part = image[top::step_y, left::step_x]
        if not part.size:
            continue  # a small interlaced image has no pixels in some passes
        line_bytes = 1 + header.row_bytes(part.shape[1])
        rows = max(1, LOT_BYTES // line_bytes)
        for at in range(0, len(part), rows):
            target = part[at : at + rows]
            yield InflatedChunk(stream.read(len(target) * line_bytes), target, first=at == 0)
    stream.finish()


def _unpack_samples(rows: NDArray[np.uint8], columns: int, header: Header) -> Samples:
    """The samples in `rows`, which have 1, 2, 4, 8 or 16 bits; leftmost are the high bits (7.2)."""
    if header.depth == 16:
        return rows.view(">u2").reshape(len(rows), columns, -1)
    if header.depth < 8:
        shifts = np.arange(8 - header.depth, -1, -header.depth, dtype=np.uint8)
        unpacked = rows[:, :, np.newaxis] >> shifts & (2**header.depth - 1)
        rows = unpacked.reshape(len(rows), -1)[:, :columns]
    return rows.reshape(len(rows), columns, -1)


def _to_eight_bits(samples: Samples, depth: int) -> Samples:
    """Scale samples of `depth` bits to 0..255."""
    if depth == 16:
        return samples >> np.uint16(8)
    return samples if depth == 8 else samples * np.uint8(255 // (2**depth - 1))


def _palette(data: bytes) -> NDArray[np.uint8] | None:
    """The palette of shape (colours, 3), or (colours, 4) with alpha; None unless it is indexed.

    An RGB file may have a palette as well, a suggestion for displays of few colours (11.2.2).
    """
    if read_header(data).colour_type != INDEXED:
        return None
    colours = np.frombuffer(_content(data, b"PLTE") or b"", np.uint8).reshape(-1, 3)
    opacities = _content(data, b"tRNS")
    if opacities is None:
        return colours
    if len(opacities) > 256:
        raise ValueError("more alphas than a palette has colours")
    # Colours without an entry in tRNS are opaque (11.3.1.1).
    alpha = bytes(opacities[: len(colours)]).ljust(len(colours), b"\xff")
    return np.hstack((colours, np.frombuffer(alpha, np.uint8)[:, np.newaxis]))


def _colour_key(data: bytes) -> NDArray[np.uint16] | None:
    """The samples of the single colour that is transparent (11.3.1.1), or None."""
    header = read_header(data)
    if header.colour_type in (INDEXED, *WITH_ALPHA):
        return None
    content = _content(data, b"tRNS")
    if content is None:
        return None
    samples = np.frombuffer(content[: 2 * SAMPLES[header.colour_type]], ">u2")
    # Each is stored in two bytes; below 16 bits only the low bits count (11.3.1.1).
    return samples & np.uint16(2**header.depth - 1)


def _content(data: bytes, wanted: bytes) -> memoryview | None:
    """The content of the first chunk of that type, or None if there is none."""
    return next((content for kind, content, _ in chunks(data) if kind == wanted), None)
