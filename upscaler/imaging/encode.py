"""Encode pixels to image files, strip by strip.

An image is cut into strips of rows, which are encoded on several cores at the same time. Each piece
of the file is yielded as soon as it is ready, so neither the whole file nor a second copy of the
image is ever in memory. The file does not depend on how the caller divided the rows.
"""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final

from upscaler.api.sizes import Size
from upscaler.formats import ImageEncoding
from upscaler.imaging.jpeg_writer import BLOCK_PX, DEFAULT_JPEG, JpegOptions, write_jpeg
from upscaler.imaging.metadata import NO_METADATA, Metadata
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.png_writer import write_png
from upscaler.imaging.strips import Pieces, Shape

Writer = Callable[[Iterable[Pixels], Shape, JpegOptions, Metadata], Pieces]

WRITERS: Final[dict[ImageEncoding, Writer]] = {
    ImageEncoding.JPEG: write_jpeg,
    ImageEncoding.PNG: lambda strips, shape, _, metadata: write_png(strips, shape, metadata),
}
"""The writer of each format. The options are those of JPEG; other writers may ignore them, and
metadata."""
# Checked at import, so that a format without a writer is noticed before it is requested.
if missing := set(ImageEncoding) - set(WRITERS):
    raise NotImplementedError(f"formats without a writer in {__name__}: {', '.join(missing)}")


def encode(pixels: Pixels, encoding: ImageEncoding) -> bytes:
    """Encode `pixels`, uint8 of shape (height, width, 3 or 4), as `encode_strips` does."""
    return b"".join(encode_strips([pixels], len(pixels), encoding))


def encode_strips(
    strips: Iterable[Pixels],
    height: int,
    encoding: ImageEncoding,
    jpeg: JpegOptions = DEFAULT_JPEG,
    metadata: Metadata = NO_METADATA,
) -> Pieces:
    """Encode an image whose rows come in `strips`, from top to bottom; yield pieces of the file.

    Each strip is uint8 of shape (any number of rows, width, 3 for RGB or 4 for RGBA). All have the
    same width and number of samples, and `height` rows in total. A strip is copied before the next
    one is requested, so its memory may be reused then. PNG keeps alpha; JPEG, encoded as `jpeg`
    says, shows it on white. `metadata` is written before the pixels, in a PNG without its IPTC.

    Raises ValueError for other strips, for another number of rows, and for a side that is too long
    for the format. Exceptions of `strips` are passed on unchanged. No thread outlives the iterator.
    """
    # The first strip is read here, so that wrong strips fail before any piece is yielded.
    strips = iter(strips)
    first = next(strips, None)
    if first is None or first.ndim != 3 or first.shape[2] not in (3, 4):
        raise ValueError("strips must be of shape (rows, width, 3 or 4)")
    width, channels = first.shape[1:]
    if not width or not height:
        raise ValueError("an image has at least one pixel")
    if max(width, height) > encoding.row.max_side_px:
        raise ValueError(
            f"a {encoding.upper()} has at most {encoding.row.max_side_px} pixels on each side"
        )
    return WRITERS[encoding](chain([first], strips), (height, width, channels), jpeg, metadata)


def most_bytes(size: Size, channels: int) -> int:
    """The most bytes that a file of that size (width, height) can have, even of noise.

    In the worst case a PNG stores its strips uncompressed, with a byte per row for the filter and a
    few bytes per strip. A JPEG of the highest quality is not larger than that, once its sides are
    rounded up to whole blocks.
    """
    width, height = (side + -side % BLOCK_PX for side in size)
    return (width * channels + 1) * height * 129 // 128 + 4096
