"""Turn faces upright at 512x512 pixels, and back. All positions are x and y in pixels.

As OpenCV does it for facexlib: `estimateAffinePartial2D` with LMEDS, `warpAffine` with bilinear
interpolation, and `invertAffineTransform`. A matrix has the shape (2, 3) and leads from a position
in one image to one in another, where the centres of pixels are at whole numbers.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so

Matrix = NDArray[np.float64]
Points = NDArray[np.float64]

FACE_PX: Final = 512
"""The side of the square that faces are restored in."""
TEMPLATE: Final = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
"""Where the five landmarks are in such a square: those of the data set FFHQ, as in facexlib."""
PAIRS: Final = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4))
"""The pairs of landmarks that a transform is tried for: those with an eye, which are all that
OpenCV's fixed random numbers draw."""
INLIER: Final = 2.5 * 1.4826 * (1 + 5 / (5 - 2))
"""How many medians a landmark may be off and count: OpenCV's for pairs of five points, after
Rousseeuw and Leroy, Robust Regression and Outlier Detection."""


def similarity(landmarks: Points) -> Matrix:
    """The rotation, scale and shift that lead from five landmarks, of shape (5, 2), to TEMPLATE.

    By the least median of squares: the transform of two landmarks that brings the third best of all
    nearest to its place tells which ones are out of place, and least squares fit the others. As
    OpenCV does it, within 0.02 pixels in the square: its iterations end a little earlier.
    """
    tried = [_fit(landmarks[list(pair)], TEMPLATE[list(pair)]) for pair in PAIRS]
    errors = [np.square(landmarks @ m[:, :2].T + m[:, 2] - TEMPLATE).sum(axis=1) for m in tried]
    medians = [np.median(each) for each in errors]
    best = int(np.argmin(medians))
    limit = max(INLIER * np.sqrt(medians[best]), 0.001)
    fitting = errors[best] <= limit**2
    return _fit(landmarks[fitting], TEMPLATE[fitting])


def _fit(points: Points, targets: Points) -> Matrix:
    """The similarity with the least squares of distances between `points`, moved, and `targets`."""
    centre, target = points.mean(axis=0), targets.mean(axis=0)
    x, y = (points - centre).T
    u, v = (targets - target).T
    # Never zero: landmarks that lie upon each other have too small an eye distance.
    size = max(float(x @ x + y @ y), 1e-12)
    cosine, sine = (x @ u + y @ v) / size, (x @ v - y @ u) / size
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack((turn, target - turn @ centre))


def invert(matrix: Matrix) -> Matrix:
    """The matrix that leads back."""
    inverse = np.linalg.inv(matrix[:, :2])
    return np.column_stack((inverse, -inverse @ matrix[:, 2]))


def warp(
    image: Tensor, back: Matrix, columns: range, rows: range, border: Tensor | float = 0.0
) -> Tensor:
    """A part of `image` as seen through a matrix: float32 of shape (channels, rows, columns).

    `image` is float32 of shape (channels, height, width), and `back` leads from positions in the
    result to those in it. `columns` and `rows` are the positions that are computed. Between pixels
    it is interpolated, and all around is `border`, a value or one for each channel.
    """
    around = torch.as_tensor(border, dtype=torch.float32).reshape(-1, 1, 1)
    # In float64 up to here: positions in a large picture need more than float32 has.
    x, y = np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop)[:, None]
    at = [row[0] * x + row[1] * y + row[2] for row in back]
    # To -1..1 from the first pixel's centre to the last one's. There must be two, so a pixel is
    # added on each side.
    framed = F.pad(image - around, (1, 1, 1, 1))
    sides = framed.shape[2], framed.shape[1]
    scaled = [(each + 1) * (2 / (side - 1)) - 1 for each, side in zip(at, sides, strict=True)]
    grid = torch.from_numpy(np.stack(scaled, axis=-1).astype(np.float32))
    return F.grid_sample(framed[None], grid[None], align_corners=True)[0] + around
