"""The bands of a result in a temporary file, for results that are too large for the memory."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from upscaler.planning import SPOOL_BYTES


class BandSpool:
    """A temporary file with the bands of an image, one after the other.

    The file has no name: it ends with this object or with the process. Bands are written from left
    to right, each from top to bottom, and then read as rows of the whole image. `widths` are those
    of the bands in pixels, `height` is that of all.
    """

    def __init__(self, folder: Path, widths: Sequence[int], height: int) -> None:
        """Create the file in `folder`. Raises OSError where that is not possible."""
        self._widths = widths
        self._height = height
        # Unbuffered: strips are large, and an error belongs to the strip that is written.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  see `close`
        self._channels = 0

    def write(self, strip: Tensor) -> None:
        """Add rows to the current band: uint8 of shape (rows, the band's width, channels).

        Raises OSError, such as for a disk that is full.
        """
        self._channels = strip.shape[2]
        left = strip.cpu().contiguous().numpy().reshape(-1).data
        while left:
            left = left[self._file.write(left) :]

    def strips(self) -> Iterator[Tensor]:
        """The whole image in strips of rows, uint8 in the host's memory; then close the file.

        Raises OSError if the file is shorter than the image.
        """
        # As many rows for alpha as for colours, so that the two can be read side by side. The parts
        # of both, the joined ones and those of RGBA together are about 16 bytes per pixel.
        at_once = max(1, SPOOL_BYTES // (16 * sum(self._widths)))
        with self._file:
            for top in range(0, self._height, at_once):
                rows = min(at_once, self._height - top)
                yield torch.cat([*self._parts(top, rows)], dim=1)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def _parts(self, top: int, rows: int) -> Iterator[Tensor]:
        """Those rows of each band."""
        start = 0
        for width in self._widths:
            part = np.zeros((rows, width, self._channels), np.uint8)
            self._file.seek(start + top * width * self._channels)
            left = part.reshape(-1).data
            while left:
                count = self._file.readinto(left)
                if not count:
                    raise OSError("the temporary file of the result is shorter than it was")
                left = left[count:]
            yield torch.from_numpy(part)
            start += self._height * width * self._channels
