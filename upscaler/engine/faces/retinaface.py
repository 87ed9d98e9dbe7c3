"""RetinaFace, which finds faces and five points in each (arXiv:1905.00641), as in facexlib.

Attribute names are those of the checkpoints, without the prefix `module.`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so

from upscaler.engine.faces.backbones import MobileNetV1, ResNet50

ANCHORS = 2
"""The prior boxes at each place of a map."""


class Predictions(NamedTuple):
    """What the network says of each prior box: shape (batch, boxes, 4, 2 or 10).

    `boxes` and `landmarks` are offsets (see `detection.decode`), and `scores` the probabilities of
    no face and of a face.
    """

    boxes: Tensor
    scores: Tensor
    landmarks: Tensor


class FPN(nn.Module):
    """A feature pyramid: each map gets `width` channels and what the smaller maps know."""

    def __init__(self, inputs: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.output1 = _conv(inputs[0], width, 1, _slope(width))
        self.output2 = _conv(inputs[1], width, 1, _slope(width))
        self.output3 = _conv(inputs[2], width, 1, _slope(width))
        self.merge1 = _conv(width, width, 3, _slope(width))
        self.merge2 = _conv(width, width, 3, _slope(width))

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        eighth, sixteenth = self.output1(maps[0]), self.output2(maps[1])
        last: Tensor = self.output3(maps[2])
        sixteenth = self.merge2(sixteenth + F.interpolate(last, size=sixteenth.shape[2:]))
        eighth = self.merge1(eighth + F.interpolate(sixteenth, size=eighth.shape[2:]))
        return eighth, sixteenth, last


class SSH(nn.Module):
    """Context of three widths beside each other: convolutions of 3x3, two of them and three."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.conv3X3 = _conv(width, half, 3)
        self.conv5X5_1 = _conv(width, quarter, 3, _slope(width))
        self.conv5X5_2 = _conv(quarter, quarter, 3)
        self.conv7X7_2 = _conv(quarter, quarter, 3, _slope(width))
        self.conv7x7_3 = _conv(quarter, quarter, 3)

    def forward(self, x: Tensor) -> Tensor:
        twice = self.conv5X5_1(x)
        parts = self.conv3X3(x), self.conv5X5_2(twice), self.conv7x7_3(self.conv7X7_2(twice))
        return F.relu(torch.cat(parts, dim=1), inplace=True)


class Head(nn.Module):
    """A convolution of 1x1 to `values` for each prior box: shape (batch, boxes, values)."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(width, ANCHORS * values, 1)
        self.values = values

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv1x1(x)
        return found.permute(0, 2, 3, 1).reshape(len(x), -1, self.values)


class RetinaFace(nn.Module):
    """Takes images of shape (batch, 3, height, width): BGR in 0..255, less the mean colour."""

    def __init__(self, body: ResNet50 | MobileNetV1) -> None:
        super().__init__()
        width = 256 if isinstance(body, ResNet50) else 64
        self.body = body
        self.fpn = FPN(body.widths, width)
        self.ssh1 = SSH(width)
        self.ssh2 = SSH(width)
        self.ssh3 = SSH(width)
        self.ClassHead = _heads(width, 2)
        self.BboxHead = _heads(width, 4)
        self.LandmarkHead = _heads(width, 10)

    def forward(self, x: Tensor) -> Predictions:
        maps = self.fpn(self.body(x))
        maps = [
            ssh(each) for ssh, each in zip((self.ssh1, self.ssh2, self.ssh3), maps, strict=True)
        ]
        boxes, scores, landmarks = (
            torch.cat([head(each) for head, each in zip(heads, maps, strict=True)], dim=1)
            for heads in (self.BboxHead, self.ClassHead, self.LandmarkHead)
        )
        return Predictions(boxes, scores.softmax(dim=-1), landmarks)


def _heads(width: int, values: int) -> nn.ModuleList:
    return nn.ModuleList(Head(width, values) for _ in range(3))


def _slope(width: int) -> float:
    """Of the leaky ReLU: none in the wide network."""
    return 0.1 if width <= 64 else 0.0


def _conv(inputs: int, outputs: int, size: int, slope: float | None = None) -> nn.Sequential:
    layers = [
        nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([] if slope is None else [nn.LeakyReLU(slope, inplace=True)]))
