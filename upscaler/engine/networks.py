"""The two networks of Real-ESRGAN, in the layouts of the official checkpoints.

Both take a float tensor of shape (batch, 3, height, width) with RGB in 0..1 and return one of
shape (batch, 3, height * scale, width * scale) in about the same range, unclamped. The attributes
have the names of the checkpoints' keys (BasicSR and Real-ESRGAN), so they cannot be chosen freely.
Each forward pass is split after its last map at the input's resolution: `features` computes that
map, and `upsample` the image.

The engine takes the weights from these modules and computes with `streams`. The forward passes here
define the result: tests compare the engine with them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so

from upscaler.models import RRDB, Compact

NUM_FEAT = 64
"""The channels of the trunk, in every network."""
NUM_GROW_CH = 32
"""The channels that each convolution of a dense block adds ("growth channels")."""
RESIDUAL = 0.2
"""The factor of a block's output when it is added to its input (ESRGAN, arXiv:1809.00219)."""


class ResidualDenseBlock(nn.Module):
    """Five convolutions; each reads the block's input and the outputs of those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv(NUM_FEAT, NUM_GROW_CH)
        self.conv2 = _conv(NUM_FEAT + NUM_GROW_CH, NUM_GROW_CH)
        self.conv3 = _conv(NUM_FEAT + 2 * NUM_GROW_CH, NUM_GROW_CH)
        self.conv4 = _conv(NUM_FEAT + 3 * NUM_GROW_CH, NUM_GROW_CH)
        self.conv5 = _conv(NUM_FEAT + 4 * NUM_GROW_CH, NUM_FEAT)

    def forward(self, x: Tensor) -> Tensor:
        dense = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            dense = torch.cat((dense, _leaky(conv(dense))), 1)
        return torch.add(x, self.conv5(dense), alpha=RESIDUAL)


class RRDBBlock(nn.Module):
    """A residual-in-residual dense block: three dense blocks in sequence, and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock()
        self.rdb2 = ResidualDenseBlock()
        self.rdb3 = ResidualDenseBlock()

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=RESIDUAL)


class RRDBNet(nn.Module):
    """The network of real-esrgan-x4-plus, -x4-plus-anime and -x2-plus.

    It always upscales its first map four times. For scale 2 it first folds blocks of 2x2 pixels
    into channels (pixel-unshuffle), so height and width must be even.
    """

    def __init__(self, *, scale: int, num_block: int) -> None:
        super().__init__()
        self.unshuffle = 4 // scale
        self.conv_first = _conv(3 * self.unshuffle**2, NUM_FEAT)
        self.body = nn.Sequential(*(RRDBBlock() for _ in range(num_block)))
        self.conv_body = _conv(NUM_FEAT, NUM_FEAT)
        self.conv_up1 = _conv(NUM_FEAT, NUM_FEAT)
        self.conv_up2 = _conv(NUM_FEAT, NUM_FEAT)
        self.conv_hr = _conv(NUM_FEAT, NUM_FEAT)
        self.conv_last = _conv(NUM_FEAT, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.upsample(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Features of shape (batch, 64, height, width); for scale 2 both sides are halved."""
        shallow: Tensor = self.conv_first(F.pixel_unshuffle(x, self.unshuffle))
        deep: Tensor = self.conv_body(self.body(shallow))
        return shallow + deep

    def upsample(self, features: Tensor) -> Tensor:
        """The image, whose sides are four times those of `features`."""
        x = _leaky(self.conv_up1(F.interpolate(features, scale_factor=2.0, mode="nearest")))
        x = _leaky(self.conv_up2(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        image: Tensor = self.conv_last(_leaky(self.conv_hr(x)))
        return image


class SRVGGNetCompact(nn.Module):
    """The network of real-esrgan-x4-v3, -x4-v3-wdn and -animevideo-v3.

    A plain chain of convolutions at the input's resolution. Its output is added to the input,
    which is upscaled by repeating pixels.
    """

    def __init__(self, *, scale: int, num_conv: int) -> None:
        super().__init__()
        self.scale = scale
        chain: list[nn.Module] = [_conv(3, NUM_FEAT), nn.PReLU(NUM_FEAT)]
        for _ in range(num_conv):
            chain += [_conv(NUM_FEAT, NUM_FEAT), nn.PReLU(NUM_FEAT)]
        self.body = nn.Sequential(*chain, _conv(NUM_FEAT, 3 * scale**2))

    def forward(self, x: Tensor) -> Tensor:
        return self.upsample(self.features(x), x)

    def features(self, x: Tensor) -> Tensor:
        """Shape (batch, 3 * scale**2, height, width): the output pixels, folded into channels."""
        features: Tensor = self.body(x)
        return features

    def upsample(self, features: Tensor, x: Tensor) -> Tensor:
        """The image: `features` unfolded into pixels, plus the upscaled input `x`."""
        upscaled = F.interpolate(x, scale_factor=float(self.scale), mode="nearest")
        return F.pixel_shuffle(features, self.scale) + upscaled


Net = RRDBNet | SRVGGNetCompact


def build(network: RRDB | Compact) -> Net:
    """Build the network of that shape, with random weights."""
    match network:
        case RRDB():
            return RRDBNet(scale=network.scale, num_block=network.num_block)
        case Compact():
            return SRVGGNetCompact(scale=network.scale, num_conv=network.num_conv)


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, negative_slope=0.2, inplace=True)
