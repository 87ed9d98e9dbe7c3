"""What the mock makes of pictures: no network, but the input's own pixels, each repeated."""

import hashlib
from collections.abc import Iterator
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from upscaler.contract import Size
from upscaler.images import Pixels
from upscaler.models import UpscalingModel
from upscaler.orders import Progress

STRIP_ROWS: Final = 64
"""So many rows are handed to the encoder at a time, which then works while the next are made."""
WEIGHTS: Final = "upscaler-mock has no weights of {}"
"""What stands in for a model's file of weights: no file that any network is in has its SHA-256."""


class MockEnlarger:
    """An `Enlarger` that goes by the nearest neighbour, whichever model is asked for.

    That takes a tenth of the time of a smooth resize, and one can tell beforehand what comes of
    it: each pixel is that of the input which its centre lies in, alpha and all. What is made is
    the same on every machine.
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
        columns = (_nearest(width, size[0])[:, None] * channels + np.arange(channels)).ravel()
        rows = _nearest(height, size[1])
        for top in range(0, size[1], STRIP_ROWS):
            which = rows[top : top + STRIP_ROWS]
            first, last = which[0], which[-1]
            strip = _widened(pixels[first : last + 1], columns).take(which - first, axis=0)
            progress(top + len(strip), size[1])
            yield strip


def _widened(pixels: Pixels, columns: NDArray[np.intp]) -> Pixels:
    """The rows of `pixels` with those of their samples that `columns` names.

    Samples are copied one by one: whole pixels would be so in parts of three bytes, which is slow.
    """
    rows, width, channels = pixels.shape
    times, rest = divmod(len(columns), width * channels)
    if rest:
        return pixels.reshape(rows, -1).take(columns, axis=1).reshape(rows, -1, channels)
    wide = np.empty((rows, width * times, channels), np.uint8)
    for first, channel in product(range(times), range(channels)):  # the same, and sooner
        wide[:, first::times, channel] = pixels[:, :, channel]
    return wide


def _nearest(before: int, after: int) -> NDArray[np.intp]:
    """Which of `before` pixels in a row each of `after` lies on with its centre."""
    centres = 2 * np.arange(after, dtype=np.intp) + 1  # in halves of a pixel
    return centres * before // (2 * after)
