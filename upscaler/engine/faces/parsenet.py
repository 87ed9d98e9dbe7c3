"""ParseNet, which tells what each pixel of a face is: skin, eye, hair .. (facexlib; PSFR-GAN).

Attribute names are those of the checkpoint.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so

CLASSES = 19
"""What a pixel can be: see `paste.FACE_CLASSES`."""
WIDEST = 256


class ConvLayer(nn.Module):
    """A convolution of 3x3 with mirrored borders, with a normalisation or with a bias.

    It halves the resolution with `factor` 0.5, and doubles it with 2.
    """

    def __init__(self, inputs: int, outputs: int, factor: float = 1, *, norm: bool = False) -> None:
        super().__init__()
        self.factor = factor
        self.conv2d = nn.Conv2d(inputs, outputs, 3, 2 if factor < 1 else 1, bias=not norm)
        self.norm = _Norm(outputs) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.factor > 1:
            x = F.interpolate(x, scale_factor=self.factor, mode="nearest")
        out: Tensor = self.norm(self.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect")))
        return out


class _Norm(nn.Module):
    """A batch normalisation, a level deeper as in the checkpoint."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x)
        return out


class ResidualBlock(nn.Module):
    """Two convolutions and a residual; the resolution changes by `factor`."""

    def __init__(self, inputs: int, outputs: int, factor: float = 1) -> None:
        super().__init__()
        plain = factor == 1 and inputs == outputs
        self.shortcut_func = nn.Identity() if plain else ConvLayer(inputs, outputs, factor)
        up, down = max(factor, 1), min(factor, 1)
        self.conv1 = ConvLayer(inputs, outputs, up, norm=True)
        self.conv2 = ConvLayer(outputs, outputs, down, norm=True)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv2(F.leaky_relu(self.conv1(x), 0.2, inplace=True))
        out: Tensor = self.shortcut_func(x) + residual
        return out


class ParseNet(nn.Module):
    """Takes faces of shape (batch, 3, 512, 512), RGB in -1..1; returns (batch, 19, 512, 512).

    The largest of the 19 values of a pixel tells its class. Any other sides must be divisible by
    16, and at least 32.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = [64, 128, WIDEST, WIDEST, WIDEST]  # from the face's resolution to a 16th of it
        steps = list(pairwise(widths))
        self.encoder = nn.Sequential(
            ConvLayer(3, widths[0]), *(ResidualBlock(big, small, 0.5) for big, small in steps)
        )
        self.body = nn.Sequential(*(ResidualBlock(WIDEST, WIDEST) for _ in range(10)))
        self.decoder = nn.Sequential(
            *(ResidualBlock(small, big, 2) for big, small in reversed(steps))
        )
        self.out_img_conv = ConvLayer(widths[0], 3)  # in the checkpoint; for training
        self.out_mask_conv = ConvLayer(widths[0], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        classes: Tensor = self.out_mask_conv(self.decoder(x + self.body(x)))
        return classes
