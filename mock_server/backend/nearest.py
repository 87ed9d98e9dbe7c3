"""What the mock makes of pictures: no network, but the input's own pixels, each repeated."""

import hashlib
import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from upscaler.api.sizes import Size
from upscaler.imaging.decode import Pixels
from upscaler.models import UpscalingModel
from upscaler.service.backend import Progress

STRIP_ROWS: Final = 128
"""So many rows are handed to the encoder at a time, which then works while the next are made."""
SHOWN_PX: Final = 256
"""Of an input as many pixels are shown as a square of so many a side has, and of less than twice as
many: they tell what it is of, and what is made of more takes longer, and is larger."""
WEIGHTS: Final = "upscaler-mock has no weights of {}"
"""What stands in for a model's file of weights: no file that any network is in has its SHA-256."""


class MockEnlarger:
    """An `Upscaler` that goes by the nearest neighbour, whichever model is asked for.

    That takes far less time than a smooth resize, and one can tell beforehand what comes of it:
    each pixel is that of the input which its centre lies in, alpha and all. Inputs of as many
    pixels as twice SHOWN_PX a side make, and more, are looked at as squares of two pixels or more,
    of which the middle one is shown. What is made is the same on every machine.
    """

    face_enhance = True

    def load(self, model: UpscalingModel) -> str:
        """Load nothing. The SHA-256 tells models apart, as that of real weights would."""
        return hashlib.sha256(WEIGHTS.format(model).encode()).hexdigest()

    def bands(self, model: UpscalingModel, size: Size, channels: int) -> int:  # noqa: ARG002  the same for all
        return 1

    def upscale(
        self,
        pixels: Pixels,
        model: UpscalingModel,  # noqa: ARG002  the same for all
        size: Size,
        progress: Progress,
    ) -> Iterator[Pixels]:
        """Strips of `pixels` at exactly `size` (width, height)."""
        height, width, channels = pixels.shape
        square_px = max(1, math.isqrt(width * height) // SHOWN_PX)
        columns = _nearest(width, size[0], square_px)[:, np.newaxis] * channels
        samples = (columns + np.arange(channels)).ravel()
        rows = _nearest(height, size[1], square_px)
        for top in range(0, size[1], STRIP_ROWS):
            which = rows[top : top + STRIP_ROWS]
            new = np.flatnonzero(np.diff(which, prepend=-1))
            different = pixels[which[new]].reshape(len(new), -1).take(samples, axis=1)
            strip = different.repeat(np.diff(new, append=len(which)), axis=0)
            progress(top + len(strip), size[1])
            yield strip.reshape(len(strip), size[0], channels)


def _nearest(before: int, after: int, square_px: int) -> NDArray[np.intp]:
    """Which of `before` pixels in a row stands for each of `after`.

    That is the middle one of the square that its centre lies in, or one of two.
    """
    centres = 2 * np.arange(after, dtype=np.intp) + 1  # in halves of a pixel
    squares = centres * before // (2 * after) // square_px
    return np.minimum(squares * square_px + square_px // 2, before - 1)
