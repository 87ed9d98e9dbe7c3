"""Cut an image into strips of rows that can be encoded independently, on several cores."""

from collections.abc import Generator, Iterable, Iterator
from typing import Final

import numpy as np

from upscaler.imaging.pixels import Pixels

STRIP_BYTES: Final = 3 * 2**19
"""The approximate size of a strip: 64 rows of the widest RGB image that the API returns. Smaller
strips cost more overhead for threads, and larger ones delay the first byte of the file."""
Pieces = Generator[bytes, None, None]
"""Pieces of a file or a response. Closing it ends the threads that work on the next pieces."""
Shape = tuple[int, int, int]
"""The shape of a whole image: height, width, and 3 or 4 channels."""


def rows_in_strip(row_bytes: int) -> int:
    """How many rows of `row_bytes` a strip has: at least one."""
    return max(1, STRIP_BYTES // row_bytes)


def rechunk(strips: Iterable[Pixels], shape: Shape, rows: int) -> Iterator[Pixels]:
    """Copy the rows of `strips` into arrays of 1 + `rows` rows; the last may have fewer.

    The first row of each array is the row of the image above the others, for PNG's filters, and
    black above the top of the image. Raises ValueError for strips that are not uint8, have another
    width or number of channels, or do not add up to the height.
    """
    height, *rest = shape
    chunk = np.zeros((1 + rows, *rest), np.uint8)
    filled, total = 1, 0
    for strip in strips:
        total += len(strip)
        if strip.dtype != np.uint8 or strip.shape[1:] != shape[1:] or total > height:
            raise ValueError(f"strips must be uint8 and make up an image of shape {shape}")
        top = 0
        while top < len(strip):
            part = strip[top : top + len(chunk) - filled]
            chunk[filled : filled + len(part)] = part
            top, filled = top + len(part), filled + len(part)
            if filled == len(chunk):
                yield chunk
                # A new array each time: threads may still be encoding the one that was yielded.
                chunk, full = np.empty_like(chunk), chunk
                chunk[0], filled = full[-1], 1
    if total < height:
        raise ValueError(f"strips of {total} rows in all, not {height}")
    if filled > 1:
        yield chunk[:filled]
