"""Pixels to image files, strip by strip.

An image is cut into strips of rows, which are encoded on several cores at once, and every piece of
the file is given out as soon as it is known: neither the file nor a second copy of the image is
ever in memory as a whole. How the rows were handed in makes no difference to the file.
"""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final

from upscaler.api.sizes import Size
from upscaler.formats import ImageEncoding
from upscaler.imaging.jpeg_writer import BLOCK_PX, DEFAULT_JPEG, JpegOptions, write_jpeg
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.png_writer import write_png
from upscaler.imaging.strips import Pieces, Shape

Writer = Callable[[Iterable[Pixels], Shape, JpegOptions], Pieces]

WRITERS: Final[dict[ImageEncoding, Writer]] = {
    ImageEncoding.JPEG: write_jpeg,
    ImageEncoding.PNG: lambda strips, shape, _: write_png(strips, shape),
}
"""What writes each format. The options are those of JPEGs; other writers may ignore them."""
if missing := set(ImageEncoding) - set(WRITERS):  # at import: or a file would be of another format
    raise NotImplementedError(f"formats without a writer in {__name__}: {', '.join(missing)}")


def encode(pixels: Pixels, encoding: ImageEncoding) -> bytes:
    """A file of `pixels`, uint8 of shape (height, width, 3 or 4), as `encode_strips` makes it."""
    return b"".join(encode_strips([pixels], len(pixels), encoding))


def encode_strips(
    strips: Iterable[Pixels], height: int, encoding: ImageEncoding, jpeg: JpegOptions = DEFAULT_JPEG
) -> Pieces:
    """The pieces of a file of a picture whose rows come in `strips`, from top to bottom.

    Each strip is uint8 of shape (any number of rows, width, 3 for RGB or 4 for RGBA), all of them
    of the same width and samples, with `height` rows in all. It is read before the next is asked
    for, so its memory may be used again then. PNG keeps alpha; JPEG, encoded as `jpeg` says, is put
    on white. Raises ValueError for other strips, for more or fewer rows, and for
    a side that is too long for the format; and unchanged whatever `strips` raises. No thread
    outlives the iterator.
    """
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
    return WRITERS[encoding](chain([first], strips), (height, width, channels), jpeg)


def most_bytes(size: Size, channels: int) -> int:
    """What a file of a picture of that size (width, height) takes at most, even of noise.

    A PNG's strips are stored as they are at worst, with a byte for each row's filter and a few for
    each strip. The best JPEG comes close to that, and consists of whole blocks.
    """
    width, height = (side + -side % BLOCK_PX for side in size)
    return (width * channels + 1) * height * 129 // 128 + 4096
