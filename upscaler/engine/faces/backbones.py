"""The networks below RetinaFace: ResNet-50 (arXiv:1512.03385) and MobileNet v1 at a quarter width.

Attribute names are those of torchvision and facexlib, and so of the checkpoints. Each returns its
maps at an 8th, a 16th and a 32nd of the image's resolution.
"""

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 with the stride, and 1x1 to four times `width`, and a residual."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        return F.relu(out.add_(x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNet50(nn.Module):
    """ResNet-50 without its classifier. `widths` are the channels of its three results."""

    widths = (512, 1024, 2048)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _layer(64, 64, 3, 1)
        self.layer2 = _layer(256, 128, 4, 2)
        self.layer3 = _layer(512, 256, 6, 2)
        self.layer4 = _layer(1024, 512, 3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer1(F.max_pool2d(x, 3, 2, padding=1))
        eighth = self.layer2(x)
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class MobileNetV1(nn.Module):
    """MobileNet v1 with a quarter of the channels, without its classifier."""

    widths = (64, 128, 256)

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            nn.Sequential(
                nn.Conv2d(3, 8, 3, 2, padding=1, bias=False),
                nn.BatchNorm2d(8),
                nn.LeakyReLU(0.1, inplace=True),
            ),
            *(_depthwise(*step) for step in ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2))),
            _depthwise(64, 64, 1),
        )
        self.stage2 = nn.Sequential(
            _depthwise(64, 128, 2), *(_depthwise(128, 128, 1) for _ in range(5))
        )
        self.stage3 = nn.Sequential(_depthwise(128, 256, 2), _depthwise(256, 256, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        eighth = self.stage1(x)
        sixteenth = self.stage2(eighth)
        return eighth, sixteenth, self.stage3(sixteenth)


def _layer(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(4 * width, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(inputs, width, stride), *rest)


def _depthwise(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A convolution of each channel by itself, and one of 1x1 across them."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1, inplace=True),
    )
