"""The representation of images in memory."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""uint8 of shape (height, width, 3) for RGB or (height, width, 4) for RGBA with straight alpha.
Always upright, in sRGB, and C-contiguous."""

_COMPARED_ROWS: Final = 64
"""How many rows `is_gray` compares at a time: a picture with colours has some in the first ones."""


def keep_neutral(pixels: Pixels, samples: NDArray[np.unsignedinteger]) -> Pixels:
    """Make pixels grey that are off by no more than rounding and were grey before a conversion.

    Both are of shape (rows, columns, 3). Returns `pixels`, changed in place.
    """
    red, green, blue = (samples[:, :, i] for i in range(3))
    was_grey = (red == green) & (blue == green)
    if was_grey.any():
        middle = pixels[:, :, 1]
        for i in (0, 2):
            # In uint8, -1 is 255: so this is whether they differ by at most one level.
            was_grey &= pixels[:, :, i] - middle + np.uint8(1) <= 2
        for i in (0, 2):
            np.copyto(pixels[:, :, i], middle, where=was_grey)
    return pixels


def is_gray(pixels: Pixels) -> bool:
    """Whether red, green and blue are equal in every pixel, even of a transparent one."""
    red, green, blue = pixels[:, :, 0], pixels[:, :, 1], pixels[:, :, 2]
    return all(
        np.array_equal(red[rows], green[rows]) and np.array_equal(red[rows], blue[rows])
        for top in range(0, len(pixels), _COMPARED_ROWS)
        for rows in [slice(top, top + _COMPARED_ROWS)]
    )
