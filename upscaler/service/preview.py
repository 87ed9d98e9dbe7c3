"""The rows of a result as they come, scaled down, for those who watch a job (EXT-4)."""

from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from upscaler.api.sizes import Size
from upscaler.formats import ImageEncoding
from upscaler.imaging.encode import encode_strips
from upscaler.imaging.jpeg_writer import JpegOptions
from upscaler.imaging.pixels import Pixels

MOST_PX: Final = 512
"""The longest side of a preview."""
STRIP_ROWS: Final = 16
"""The rows of a preview that are sent at once: two blocks of a JPEG, whose headers take as much as
a few rows."""
JPEG: Final = JpegOptions(60, "4:2:0", fast=True)


class PreviewStrip(NamedTuple):
    """`rows` rows of the result from `top` on, as a small JPEG."""

    top: int
    rows: int
    jpeg: bytes


class Preview:
    """The strips of a result of `size`, from top to bottom, on a fraction of its pixels.

    The fraction is the largest 1 / n with which no side is longer than MOST_PX. The working thread
    adds rows, and others read `strips` meanwhile. All together have some 50 kB; of noise, 150 kB.
    """

    def __init__(self, size: Size) -> None:
        self._height = size[1]
        self.strips: list[PreviewStrip] = []
        self._fraction = -(-max(size) // MOST_PX)
        self._band: Pixels | None = None  # the rows of the next strip, as far as they are there
        self._top = self._filled = 0

    def add(self, top: int, rows: Pixels) -> None:
        """Add rows of the result, from `top` on. The first ones need not be its first."""
        if self._band is None:
            # Whole rows of the preview alone: its strips lie beside each other without seams.
            self._top, self._filled = top + -top % self._fraction, 0
            self._band = np.empty((STRIP_ROWS * self._fraction, *rows.shape[1:]), np.uint8)
        rows = rows[max(0, self._top + self._filled - top) :]
        while len(rows):
            taken = rows[: len(self._band) - self._filled]
            self._band[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rows = rows[len(taken) :]
            if self._filled in (len(self._band), self._height - self._top):
                self._end_strip(self._band[: self._filled])

    def after(self, row: int) -> list[PreviewStrip]:
        """The strips with rows from `row` on."""
        return [strip for strip in self.strips if strip.top + strip.rows > row]

    def _end_strip(self, rows: Pixels) -> None:
        small = np.asarray(Image.fromarray(rows).reduce(self._fraction))
        jpeg = b"".join(encode_strips([small], len(small), ImageEncoding.JPEG, JPEG))
        self.strips.append(PreviewStrip(self._top, len(rows), jpeg))
        self._top, self._filled = self._top + len(rows), 0
