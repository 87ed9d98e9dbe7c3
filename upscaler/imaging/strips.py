"""Strips of rows: how an image is cut up so that its parts are encoded on several cores at once."""

from collections.abc import Generator, Iterable, Iterator
from typing import Final

import numpy as np

from upscaler.imaging.pixels import Pixels

STRIP_BYTES: Final = 3 * 2**19
"""About how many bytes of pixels a strip has: 64 rows of the widest RGB picture. Smaller strips
are handed around too often, and larger ones take longer until the first byte."""
Pieces = Generator[bytes, None, None]
"""Of a file or an answer. Closing it ends the threads that are at work on the next ones."""
Shape = tuple[int, int, int]
"""Of a whole picture: height, width, and 3 or 4 samples."""


def rows_in_strip(row_bytes: int) -> int:
    """How many rows a strip has, at least one."""
    return max(1, STRIP_BYTES // row_bytes)


def rechunk(strips: Iterable[Pixels], shape: Shape, rows: int) -> Iterator[Pixels]:
    """The same rows in copies of `rows` rows, the last of them perhaps fewer.

    Above its rows each copy has the one that comes before them, at first a black one.
    """
    height, *rest = shape
    lot = np.zeros((1 + rows, *rest), np.uint8)
    filled, total = 1, 0
    for strip in strips:
        total += len(strip)
        if strip.dtype != np.uint8 or strip.shape[1:] != shape[1:] or total > height:
            raise ValueError(f"strips must be uint8 and make up an image of shape {shape}")
        top = 0
        while top < len(strip):
            part = strip[top : top + len(lot) - filled]
            lot[filled : filled + len(part)] = part
            top, filled = top + len(part), filled + len(part)
            if filled == len(lot):
                yield lot
                lot, full = np.empty_like(lot), lot
                lot[0], filled = full[-1], 1
    if total < height:
        raise ValueError(f"strips of {total} rows in all, not {height}")
    if filled > 1:
        yield lot[:filled]
