"""Write image files in any format of the command line: the API's, WebP, AVIF and TIFF."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from struct import pack
from tempfile import TemporaryFile
from typing import BinaryIO, Final, NamedTuple

import numpy as np
from PIL import Image

from upscaler.formats import FileFormat, ImageEncoding, OtherFormat
from upscaler.imaging._zlib import zlib
from upscaler.imaging.encode import encode_strips
from upscaler.imaging.metadata import NO_METADATA, Metadata
from upscaler.imaging.parallel import ordered_map
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.strips import Shape, rechunk, rows_in_strip

SAVE_OPTIONS: Final[dict[OtherFormat, dict[str, object]]] = {
    OtherFormat.WEBP: {"quality": 95, "method": 4},
    OtherFormat.AVIF: {"quality": 90, "subsampling": "4:4:4", "speed": 6},
}
"""Lossy like our JPEGs, with about their quality. A lossy WebP has half the chroma in any case."""
WHOLE_BYTES: Final[dict[FileFormat, int]] = {OtherFormat.WEBP: 28, OtherFormat.AVIF: 50}
"""The most bytes per pixel, measured, that writing a format takes which needs the whole image: that
itself, Pillow's copy, and the planes that libwebp or libavif encodes."""
CLASSIC_BYTES: Final = 2**32 - 2**16
"""The most bytes of a TIFF with offsets of 32 bits."""
DEFLATE_LEVEL: Final = 1


class TiffLayout(NamedTuple):
    """The parts of a TIFF that differ between the classic one, with 32 bits, and BigTIFF with 64.

    `header` is all before the offset of the directory. `entries`, `entry` and `offset` are formats
    of `struct`: for the number of entries, for an entry without its value, and for an offset. The
    field type of an offset is `kind` (TIFF 6.0, section 2; BigTIFF: LONG8 is 16).
    """

    header: bytes
    entries: str
    entry: str
    offset: str
    kind: int


CLASSIC: Final = TiffLayout(b"II*\0", "<H", "<HHI", "<I", 4)
BIG: Final = TiffLayout(b"II+\0\x08\0\0\0", "<Q", "<HHQ", "<Q", 16)
_SIZES: Final = {3: "H", 4: "I", 16: "Q"}


def write_image(
    file: BinaryIO,
    strips: Iterable[Pixels],
    height: int,
    encoding: FileFormat,
    metadata: Metadata = NO_METADATA,
) -> None:
    """Write an image of `height` rows, which come in `strips`, to `file`; see `encode_strips`.

    PNG and TIFF are lossless; WebP has quality 95, AVIF 90 without chroma subsampling, and JPEG 95.
    All but JPEG keep alpha, and PNG and JPEG get `metadata`. Raises what `encode_strips` raises,
    and what `file.write` does.
    """
    if isinstance(encoding, ImageEncoding):
        file.writelines(encode_strips(strips, height, encoding, metadata=metadata))
        return
    strips = iter(strips)
    first = next(strips)
    shape = (height, *first.shape[1:])
    if max(shape[:2]) > encoding.row.max_side_px:
        most = encoding.row.max_side_px
        raise ValueError(f"a {encoding.upper()} has at most {most} pixels on each side")
    strips = chain([first], strips)
    if encoding is OtherFormat.TIFF:
        with _seekable(file) as target:
            write_tiff(target, strips, shape)
        return
    whole = np.zeros(shape, np.uint8)
    row = 0
    for strip in strips:
        whole[row : row + len(strip)] = strip
        row += len(strip)
    if row != height:
        raise ValueError(f"strips of {row} rows in all, not {height}")
    Image.fromarray(whole).save(file, encoding.upper(), **SAVE_OPTIONS[encoding])


@contextmanager
def _seekable(file: BinaryIO) -> Iterator[BinaryIO]:
    """`file`, or a temporary file that is copied to it at the end if it is a pipe."""
    if file.seekable():
        yield file
        return
    with TemporaryFile() as other:
        yield other
        other.seek(0)
        shutil.copyfileobj(other, file)


def write_tiff(file: BinaryIO, strips: Iterable[Pixels], shape: Shape) -> None:
    """Write a TIFF of `shape`, with strips that are deflated on several cores.

    Samples are differences to the pixel on the left (predictor 2). The directory is behind the
    strips, since only then their lengths are known. A file that may have 4 GiB is a BigTIFF.
    """
    height, width, channels = shape
    rows = rows_in_strip(width * channels)
    most_bytes = (width * channels * 129 // 128 + 64) * height
    layout = CLASSIC if most_bytes < CLASSIC_BYTES else BIG
    start = file.tell()
    file.write(layout.header + pack(layout.offset, 0))
    offsets, lengths = [], []
    with closing(ordered_map(_deflate, rechunk(strips, shape, rows))) as parts:
        for part in parts:
            offsets.append(file.tell() - start)
            lengths.append(len(part))
            file.write(part)
    alpha = [(338, 3, [2])] if channels == 4 else []  # ExtraSamples: unassociated alpha
    fields = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [8] * channels),
        (259, 3, [8]),  # Adobe's deflate (TIFF Technical Note 2, "Adobe Photoshop TIFF")
        (262, 3, [2]),  # RGB
        (273, layout.kind, offsets),
        (277, 3, [channels]),
        (278, 4, [rows]),
        (279, layout.kind, lengths),
        (284, 3, [1]),
        (317, 3, [2]),
        *alpha,
    ]
    file.write(bytes((file.tell() - start) % 2))  # a directory begins on a word (section 2)
    directory_at = file.tell() - start
    file.write(_directory(fields, layout, directory_at))
    end = file.tell()
    file.seek(start + len(layout.header))
    file.write(pack(layout.offset, directory_at))
    file.seek(end)


def _directory(
    fields: list[tuple[int, int, list[int]]], layout: TiffLayout, directory_at: int
) -> bytes:
    """An image file directory, and behind it the values that do not fit into its entries."""
    pointer_bytes = len(pack(layout.offset, 0))
    entry_bytes = len(pack(layout.entry, 0, 0, 0)) + pointer_bytes
    count = pack(layout.entries, len(fields))
    behind_at = directory_at + len(count) + entry_bytes * len(fields) + pointer_bytes
    entries, behind = [count], b""
    for tag, kind, values in fields:
        content = pack(f"<{len(values)}{_SIZES[kind]}", *values)
        if len(content) > pointer_bytes:
            content, more = pack(layout.offset, behind_at + len(behind)), content
            behind += more + bytes(len(more) % 2)
        entries.append(
            pack(layout.entry, tag, kind, len(values)) + content.ljust(pointer_bytes, b"\0")
        )
    return b"".join(entries) + pack(layout.offset, 0) + behind


def _deflate(chunk_of_rows: Pixels) -> bytes:
    """All rows of a chunk but the first as a strip: deflated differences (TIFF 6.0, section 14)."""
    rows = chunk_of_rows[1:].copy()
    np.subtract(chunk_of_rows[1:, 1:], chunk_of_rows[1:, :-1], out=rows[:, 1:])
    stream = zlib.compressobj(DEFLATE_LEVEL)
    return bytes(stream.compress(rows) + stream.flush())
