"""Decode the pixels of a PNG file.

Pillow makes pixels black where the pixel stream is too short, and supports 16-bit samples only in
part. So pixels are decoded here, a few rows at a time, which stay in the processor's cache. Chunks
are those of the W3C's PNG specification, third edition.

A file is whole if each chunk of its pixels has its checksum (5.3), if the pixel stream has all
rows, and if it ends with its own checksum, which libpng requires as well (13.2).

Pixels are converted to sRGB in the same step, at the file's own depth: the dark colours of 16 bits
would be banded if they were cut to 8 bits before.

No library does all of that. pyspng (libspng) reads whole files into memory of its own, of which it
cannot be shown that all is written; it has had no release since 2023, and converts transparent
colours of grey and palette images differently. Pillow takes 2.6 times as long. So libspng is only
trusted to undo the filters (`png_filters`), which takes most of the time.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upscaler.errors import ImageError
from upscaler.imaging._zlib import ZlibError, zlib
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.png_chunks import (
    INDEXED,
    WITH_ALPHA,
    Header,
    chunks,
    has_checksum,
    is_whole,
    read_header,
)
from upscaler.imaging.png_colour import Conversion, conversion_to_srgb
from upscaler.imaging.png_filters import unfiltered

LOT_BYTES: Final = 2**17
"""The approximate size of the scanlines that are inflated and converted in one step."""
SLICE_BYTES: Final = 2**15
"""The part of an IDAT chunk that is inflated at a time: some encoders write only one such chunk."""

MAX_SURPLUS_BYTES: Final = 2**20
"""The most inflated bytes that may follow the last row. The streams of some encoders are longer
than their rows, which libpng ignores; none is longer by this much."""
Samples = NDArray[np.unsignedinteger]
"""Samples in the file's own bit depth, of shape (height, width, samples in a pixel)."""


class Damaged(ValueError):
    """What is wrong with the pixels, in words for whoever sent the file."""


class CutOff(Damaged):
    """The file, or the stream of its pixels, ends before the last row or the checksum behind it."""


class InflatedChunk(NamedTuple):
    """Some scanlines, the part of the image they belong to, and whether they begin a pass."""

    lines: bytes
    target: NDArray[np.uint8]
    first: bool


class InflateReader:
    """Reads a zlib stream and inflates no more of it than is read, so that memory is bounded.

    It comes in parts, of which an empty one says that those before it are known to be sound.
    """

    def __init__(self, parts: Iterator[memoryview]) -> None:
        self._parts = parts
        self._stream = zlib.decompressobj()
        self.total_bytes = 0
        """All that was inflated so far."""

    def read(self, size_bytes: int) -> bytes:
        """Read exactly `size_bytes`; CutOff if the stream is shorter, zlib.error if damaged."""
        pieces = []
        while size_bytes:
            more, ended = self._next(size_bytes)
            if ended and not more:
                raise CutOff("rows are missing")
            size_bytes -= len(more)
            pieces.append(more)
        return b"".join(pieces)

    def finish(self) -> None:
        """Read to the end: zlib.error for a wrong checksum there, CutOff for a missing one."""
        surplus_bytes, ended = 0, False
        while not self._stream.eof:
            if ended:
                raise CutOff("the checksum of the stream is missing")
            if surplus_bytes > MAX_SURPLUS_BYTES:
                raise Damaged("far more rows follow than it has")
            more, ended = self._next(SLICE_BYTES)
            surplus_bytes += len(more)
        for part in self._parts:
            if not part:  # the chunk is whole; those behind it are not needed
                break

    def _next(self, most_bytes: int) -> tuple[bytes, bool]:
        """Some bytes, perhaps none, and whether the input or the stream has ended."""
        if (
            self._stream.eof
        ):  # after its end a stream only stores its input, and copies it each time
            return b"", True
        given = self._stream.unconsumed_tail or next(self._parts, None)
        more = self._stream.decompress(given or b"", most_bytes)
        self.total_bytes += len(more)
        return more, given is None


def decode(data: bytes) -> Pixels:
    """Decode a `strip_chunks` file to pixels in sRGB, RGBA if the file has transparency.

    Of 16 bits the upper eight are kept; colours that need a conversion are rounded behind it.
    Indices beyond the palette are opaque black. Raises ImageError, with the row that the fault is
    behind, if rows are missing, or a checksum is wrong or missing.
    """
    header = read_header(data)
    if not any(content for kind, content, _ in chunks(data) if kind == b"IDAT"):
        raise ImageError("this PNG ends before its pixels (IDAT)", "image_damaged")
    stream = InflateReader(_idat_slices(data))
    try:
        return _decode_rows(data, header, stream)
    except (ValueError, RuntimeError, ZlibError) as error:
        where = _progress(header, stream.total_bytes)
        if isinstance(error, CutOff):
            msg = f"this PNG is cut off {where}"
        else:
            reason = error if isinstance(error, Damaged) else "its compressed pixels are wrong"
            msg = f"this PNG is damaged {where}: {reason}"
        raise ImageError(msg, "image_damaged") from error


def _decode_rows(data: bytes, header: Header, stream: InflateReader) -> Pixels:
    convert = conversion_to_srgb(data, header)
    palette = _palette(data, convert) if header.colour_type == INDEXED else None
    key = None if header.colour_type == INDEXED else _colour_key(data, header)
    has_alpha = header.colour_type in WITH_ALPHA or _content(data, b"tRNS") is not None
    result = np.empty((header.height, header.width, 4 if has_alpha else 3), np.uint8)
    above = b""
    for lines, target, first in _scanlines(header, stream, result):
        columns = target.shape[1]
        if first:
            above = bytes(header.row_bytes(columns))  # zeros above the first row of a pass (9.2)
        rows = unfiltered(lines, above, max(1, header.pixel_bits // 8))
        above = rows[-1].tobytes()
        samples = _unpack_samples(rows, columns, header)
        if palette is not None:
            target[:] = palette[samples[:, :, 0]]
            continue
        _write_pixels(target, samples, header, convert)
        # Compared in the file's own depth: two colours may be equal in their upper eight bits.
        if key is not None:
            target[:, :, 3] = np.where((samples == key).all(axis=2), 0, 255)
    return result


def _progress(header: Header, inflated_bytes: int) -> str:
    """Behind which row, or in which pass, the stream is after so many bytes."""
    passes = header.passes
    for number, (left, top, step_x, step_y) in enumerate(passes, start=1):
        columns, rows = -(-(header.width - left) // step_x), -(-(header.height - top) // step_y)
        if columns <= 0 or rows <= 0:
            continue  # a small interlaced image has no pixels in some passes
        line_bytes = 1 + header.row_bytes(columns)
        if inflated_bytes < rows * line_bytes:
            where = f"after row {inflated_bytes // line_bytes} of {rows}"
            return where if len(passes) == 1 else f"{where} in pass {number} of {len(passes)}"
        inflated_bytes -= rows * line_bytes
    return "behind its last row"


def _write_pixels(
    target: Pixels, samples: Samples, header: Header, convert: Conversion | None
) -> None:
    """Put grey or RGB samples, and their alpha if they have one, into the pixels that they are."""
    eight = _to_eight_bits(samples, header.depth)
    if convert is None and header.colours == 3:
        target[:, :, : eight.shape[2]] = eight
        return
    colours = slice(header.colours)
    if convert is None:
        target[:, :, :3] = eight[:, :, colours]
    else:
        target[:, :, :3] = convert((samples if header.depth == 16 else eight)[:, :, colours])
    if header.colour_type in WITH_ALPHA:
        target[:, :, 3] = eight[:, :, -1]


def _idat_slices(data: bytes) -> Iterator[memoryview]:
    """The compressed pixel stream, in slices of at most SLICE_BYTES, and an empty one per chunk.

    That comes behind it. The checksum of a chunk is verified before. If the end of the file cuts a
    chunk off, what there is of it comes before the error: so it is known how many rows there are.
    """
    for kind, content, chunk in chunks(data):
        if kind == b"IDAT":
            if is_whole(chunk) and not has_checksum(chunk):
                raise Damaged("the checksum of its pixels (IDAT) is wrong")
            for at in range(0, len(content), SLICE_BYTES):
                yield content[at : at + SLICE_BYTES]
            if not is_whole(chunk):
                raise CutOff("the file ends in its pixels")
            yield content[:0]


def _scanlines(header: Header, stream: InflateReader, image: Pixels) -> Iterator[InflatedChunk]:
    """All scanlines, pass by pass, with the part of `image` that each group belongs to.

    Raises CutOff if some are missing, and zlib.error if they are damaged. The checksum at the
    end is verified last, so no scanline is known to be intact before the iterator ends.
    """
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


def _palette(data: bytes, convert: Conversion | None) -> Pixels:
    """The colours in sRGB by their index, of shape (256, 3), or (256, 4) with alpha.

    Indices beyond the palette are opaque black (13.1).
    """
    colours = np.frombuffer(_content(data, b"PLTE") or b"", np.uint8).reshape(1, -1, 3)
    colours = colours if convert is None else convert(colours)
    palette = np.zeros((256, 3), np.uint8)
    palette[: colours.shape[1]] = colours[0]
    opacities = _content(data, b"tRNS")
    if opacities is None:
        return palette
    # Colours without an entry in tRNS are opaque (11.3.1.1).
    alpha = bytes(opacities[: colours.shape[1]]).ljust(256, b"\xff")
    return np.hstack((palette, np.frombuffer(alpha, np.uint8)[:, np.newaxis]))


def _colour_key(data: bytes, header: Header) -> NDArray[np.uint16] | None:
    """The samples of the single colour that is transparent (11.3.1.1), or None."""
    content = _content(data, b"tRNS")
    if content is None:
        return None
    samples = np.frombuffer(content[: 2 * header.colours], ">u2")
    # Each is stored in two bytes; below 16 bits only the low bits count (11.3.1.1).
    return samples & np.uint16(2**header.depth - 1)


def _content(data: bytes, wanted: bytes) -> memoryview | None:
    """The content of the first chunk of that type, or None if there is none."""
    return next((content for kind, content, _ in chunks(data) if kind == wanted), None)
