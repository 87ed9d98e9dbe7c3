"""The upscaler of the mock: nearest neighbour, without a network."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mock_server.backend.faces import FaceCount
from upscaler.api.sizes import Size
from upscaler.imaging.pixels import Pixels
from upscaler.models import UpscalingModel
from upscaler.service.backend import FaceBox, Progress
from upscaler.settings import KernelUse

STRIP_ROWS: Final = 128
"""How many rows the encoder gets at a time; it works while the next ones are computed."""
SAMPLED_PX: Final = 256
"""Of a large input, about as many pixels are used as a square with this side has: enough to
recognise it by, and fewer different pixels are faster to encode."""
WEIGHTS: Final = "upscaler-mock has no weights of {}"
"""Hashed in place of a model's weights: the SHA-256 is that of no real file of weights."""


class NearestUpscaler:
    """An `Upscaler` that uses nearest-neighbour interpolation, whichever model is asked for.

    That is much faster than a smooth resize, and the result can be predicted: each output pixel is
    the input pixel that its centre lies in, alpha included, and is the same on every machine. From
    twice SAMPLED_PX a side, the input is divided into squares of two or more pixels a side, and
    only the middle pixel of each square is used.
    """

    def __init__(self, faces: FaceCount | None = None) -> None:
        """Say of every picture that it has so many faces; None is a service that restores none."""
        self._faces = faces or FaceCount(None)
        self.face_enhance = self._faces.count is not None

    def load(self, model: UpscalingModel) -> str:
        """Load nothing. The SHA-256 differs between models, as that of real weights does."""
        return hashlib.sha256(WEIGHTS.format(model).encode()).hexdigest()

    def kernels(self) -> Iterable[KernelUse]:
        """Nothing: there are no networks."""
        return ()

    def bands(self, model: UpscalingModel, size: Size, channels: int) -> int:  # noqa: ARG002  the same for all
        return 1

    def upscale(
        self,
        pixels: Pixels,
        model: UpscalingModel,  # noqa: ARG002  the same for all
        size: Size,
        progress: Progress,
    ) -> Iterator[Pixels]:
        """Yield strips of the upscaled image, of exactly `size` (width, height) in all.

        `pixels` and the strips are uint8 of shape (rows, columns, channels).
        """
        height, width, channels = pixels.shape
        square_px = max(1, math.isqrt(width * height) // SAMPLED_PX)
        columns = _nearest(width, size[0], square_px)[:, np.newaxis] * channels
        samples = (columns + np.arange(channels)).ravel()
        rows = _nearest(height, size[1], square_px)
        for top in range(0, size[1], STRIP_ROWS):
            sources = rows[top : top + STRIP_ROWS]
            # Each input row is widened once, and then repeated as often as it is needed.
            first = np.flatnonzero(np.diff(sources, prepend=-1))
            distinct = pixels[sources[first]].reshape(len(first), -1).take(samples, axis=1)
            strip = distinct.repeat(np.diff(first, append=len(sources)), axis=0)
            progress(top + len(strip), size[1])
            yield strip.reshape(len(strip), size[0], channels)

    def load_faces(self) -> None:
        """Load nothing."""

    def find_faces(self, pixels: Pixels) -> list[FaceBox]:
        """As many faces as it was told, each of which is the whole picture."""
        height, width, _ = pixels.shape
        return [(0, 0, width, height)] * (self._faces.count or 0)

    def enhance_faces(
        self,
        pixels: Pixels,  # noqa: ARG002  nobody looks for faces
        size: Size,  # noqa: ARG002
        strips: Iterable[Pixels],
        check: Callable[[], object],  # noqa: ARG002
    ) -> tuple[int, Iterable[Pixels]]:
        """The number of faces that it was told, and the same strips."""
        return self._faces.count or 0, strips


def _nearest(before: int, after: int, square_px: int) -> NDArray[np.intp]:
    """Return the index of the input pixel for each of `after` output pixels in a row.

    It is the middle one of the square that the centre of the output pixel lies in.
    """
    centres = 2 * np.arange(after, dtype=np.intp) + 1  # in half pixels, so that all is integers
    squares = centres * before // (2 * after) // square_px
    return np.minimum(squares * square_px + square_px // 2, before - 1)
