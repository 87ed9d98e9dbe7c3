"""Networks for faces that say what tests want: one face in the middle, which comes out inverted."""

import torch
from torch import Tensor, nn

from upscaler.engine.faces.alignment import TEMPLATE
from upscaler.engine.faces.detection import CENTRE_VARIANCE, prior_boxes
from upscaler.engine.faces.restoration import FaceNets
from upscaler.engine.faces.retinaface import Predictions

SIDE = 32
"""The side in pixels of a face, and of its prior box."""


class OneFace(nn.Module):
    """A detector that sees a face in the middle of each picture."""

    def forward(self, x: Tensor) -> Predictions:
        height, width = x.shape[2:]
        priors = prior_boxes(width, height)
        offsets = (priors[:, :2] - 0.5).abs().sum(1) + (priors[:, 2] - SIDE / width).abs() * 10
        best = int(offsets.argmin())
        scores = torch.zeros(1, len(priors), 2)
        scores[0, best, 1] = 0.99
        # As the template has them, in a square of twice the box.
        points = torch.from_numpy((TEMPLATE / 256 - 1).ravel() / CENTRE_VARIANCE).float()
        return Predictions(
            torch.zeros(1, len(priors), 4), scores, points.expand(1, len(priors), 10).clone()
        )


class Inverting(nn.Module):
    """A restorer whose faces are negatives."""

    def forward(self, x: Tensor) -> Tensor:
        return -x


class Disc(nn.Module):
    """A parser for which a face is a disc in the middle of the square."""

    def forward(self, x: Tensor) -> Tensor:
        row, column = torch.meshgrid(torch.arange(512), torch.arange(512), indexing="ij")
        skin = ((column - 256) ** 2 + (row - 256) ** 2 < 150**2).float()
        classes = torch.zeros(len(x), 19, 512, 512)
        classes[:, 0], classes[:, 1] = 1, 2 * skin
        return classes


def nets() -> FaceNets:
    return FaceNets(OneFace(), Inverting(), Disc())
