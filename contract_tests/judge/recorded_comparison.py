"""Whether a response shows the image that a recorded request had."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CELLS: Final = 8
"""Both are compared in so many rows and columns: nothing that an upscaler adds is as large."""
LEAST_CONTRAST: Final = 12.0
"""Below this standard deviation of its cells an image is nearly of one colour."""
LEAST_CORRELATION: Final = 0.9
"""Of an image with itself after any upscaler it is near 1. Of a photo with its mirror image, which
has the same colours in about the same places, it can be above 0.7."""
LARGEST_DIFFERENCE: Final = 40.0
"""Between the mean colours of two images of nearly one colour, 0 to 255."""


def difference(sent: Image.Image, received: Image.Image) -> str:
    """Why `received` cannot show what was `sent` (RGB), or an empty string."""
    ours, theirs = _cells(sent), _cells(received.convert("RGB"))
    if ours.std() < LEAST_CONTRAST:
        apart = float(abs(ours.mean((0, 1)) - theirs.mean((0, 1))).max())
        return "" if apart <= LARGEST_DIFFERENCE else "the image has another colour than the input"
    if theirs.std() < LEAST_CONTRAST / 2:
        return "the image is blank"
    one, two = ours - ours.mean(), theirs - theirs.mean()
    correlation = float((one * two).sum() / np.sqrt((one**2).sum() * (two**2).sum()))
    return "" if correlation >= LEAST_CORRELATION else "the image does not show the input"


def _cells(image: Image.Image) -> NDArray[np.float64]:
    """The mean colours of its parts: float of shape (CELLS, CELLS, 3), 0 to 255."""
    return np.asarray(image.resize((CELLS, CELLS), Image.Resampling.BOX), np.float64)
