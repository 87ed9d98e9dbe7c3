"""The decoder of GFPGAN: StyleGAN2's generator, with features of a U-Net mixed in.

As in `gfpgan.archs.stylegan2_clean_arch` and `gfpganv1_clean_arch`, whose attribute names are those
of the checkpoint. Only inference with a style vector for each layer is here.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so

CHANNELS = 2**15
"""Channels times resolution, from 64x64 pixels on: StyleGAN2's with its channel multiplier 2."""
MOST_CHANNELS = 512


def channels(resolution: int, narrow: float) -> int:
    """The channels of maps at that resolution, in a network as wide as the original's `narrow`."""
    return int(min(MOST_CHANNELS, CHANNELS // resolution) * narrow)


def twice(x: Tensor) -> Tensor:
    """`x` at twice its resolution, bilinear."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class NormStyleCode(nn.Module):
    """Scale style vectors of shape (batch, features) to a mean square of 1. It has no weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class ModulatedConv2d(nn.Module):
    """A convolution whose input channels are scaled by a style, and normalised if `demodulate`.

    The style scales the input and the norm the output, instead of the weights: the same, and the
    weights are then the same for a whole batch.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, style: int, *, demodulate: bool, upsample: bool
    ) -> None:
        super().__init__()
        self.modulation = nn.Linear(style, inputs)
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, size, size) / size)
        self.demodulate = demodulate
        self.upsample = upsample

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        factors = self.modulation(style)
        x = x * factors[:, :, None, None]
        weight = self.weight[0]
        out = F.conv2d(twice(x) if self.upsample else x, weight, padding=weight.shape[-1] // 2)
        if self.demodulate:
            norms = factors.square() @ weight.square().sum((2, 3)).T
            out = out * torch.rsqrt(norms + 1e-8)[:, :, None, None]
        return out


class StyleConv(nn.Module):
    """A modulated convolution of 3x3 with noise, a bias and a leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, style: int, *, upsample: bool) -> None:
        super().__init__()
        self.modulated_conv = ModulatedConv2d(
            inputs, outputs, 3, style, demodulate=True, upsample=upsample
        )
        self.weight = nn.Parameter(torch.zeros(1))  # of the noise
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        out = self.modulated_conv(x, style) * math.sqrt(2) + self.weight * noise + self.bias
        return F.leaky_relu(out, 0.2, inplace=True)


class ToRGB(nn.Module):
    """The colours of a map of features, added to those of the resolution below."""

    def __init__(self, inputs: int, style: int) -> None:
        super().__init__()
        self.modulated_conv = ModulatedConv2d(inputs, 3, 1, style, demodulate=False, upsample=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, style: Tensor, below: Tensor | None = None) -> Tensor:
        out: Tensor = self.modulated_conv(x, style) + self.bias
        return out if below is None else out + twice(below)


class ConstantInput(nn.Module):
    """The map that the generator begins with, of 4x4."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, features, 4, 4))


class StyleGAN2GeneratorCSFT(nn.Module):
    """StyleGAN2's generator, half of whose channels are scaled and shifted at each resolution.

    `out_size` is the side of the result in pixels, a power of two from 8 on, and `style` the length
    of a style vector.
    """

    def __init__(self, out_size: int, style: int, narrow: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [NormStyleCode()]
        for _ in range(8):
            layers += [nn.Linear(style, style), nn.LeakyReLU(0.2)]
        self.style_mlp = nn.Sequential(*layers)  # in the checkpoint, and of no use to GFPGAN
        width = channels(4, narrow)
        self.constant_input = ConstantInput(width)
        self.style_conv1 = StyleConv(width, width, style, upsample=False)
        self.to_rgb1 = ToRGB(width, style)
        self.style_convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        self.noises = nn.Module()
        self.noises.register_buffer("noise0", torch.randn(1, 1, 4, 4))
        for number in range(out_size.bit_length() - 3):
            side = 8 << number
            before, width = width, channels(side, narrow)
            self.style_convs.append(StyleConv(before, width, style, upsample=True))
            self.style_convs.append(StyleConv(width, width, style, upsample=False))
            self.to_rgbs.append(ToRGB(width, style))
            for layer in (2 * number + 1, 2 * number + 2):
                self.noises.register_buffer(f"noise{layer}", torch.randn(1, 1, side, side))

    @property
    def layers(self) -> int:
        """How many style vectors it takes for an image."""
        return 2 * len(self.to_rgbs) + 2

    def forward(self, styles: Tensor, conditions: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """An image of shape (batch, 3, size, size), RGB in about -1..1.

        `styles` has the shape (batch, layers, features). `conditions` has the scale and the shift
        of each resolution from 8x8 on, for the second half of the channels. The noise is that of
        the checkpoint, so the same face gives the same result; `GFPGANer` draws it anew.
        """
        x = self.constant_input.weight.expand(len(styles), -1, -1, -1)
        x = self.style_conv1(x, styles[:, 0], self.noises.noise0)
        image: Tensor = self.to_rgb1(x, styles[:, 1])
        for number, (scale, shift) in enumerate(conditions):
            first = 2 * number + 1
            x = self.style_convs[first - 1](x, styles[:, first], self._noise(first))
            same, mixed = x.chunk(2, dim=1)
            x = torch.cat((same, mixed * scale + shift), dim=1)
            x = self.style_convs[first](x, styles[:, first + 1], self._noise(first + 1))
            image = self.to_rgbs[number](x, styles[:, first + 2], image)
        return image

    def _noise(self, layer: int) -> Tensor:
        noise: Tensor = getattr(self.noises, f"noise{layer}")
        return noise
