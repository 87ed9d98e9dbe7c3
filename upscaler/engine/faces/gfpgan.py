"""GFPGAN, which restores a face: the clean architecture of v1.2 to v1.4 (arXiv:2101.04061).

As in `gfpgan.archs.gfpganv1_clean_arch`, with the arguments that `GFPGANer` gives it. Its attribute
names are those of the checkpoint.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so

from upscaler.engine.faces.stylegan import StyleGAN2GeneratorCSFT, channels


class ResBlock(nn.Module):
    """Two convolutions with a change of resolution by `factor` between them, and a residual."""

    def __init__(self, inputs: int, outputs: int, factor: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        out = _leaky(self.conv2(self._resized(_leaky(self.conv1(x)))))
        skip: Tensor = self.skip(self._resized(x))
        return out + skip

    def _resized(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False)


class GFPGANv1Clean(nn.Module):
    """A U-Net whose features steer StyleGAN2's generator.

    Takes and returns faces of shape (batch, 3, out_size, out_size): RGB in -1..1, unclamped.
    `out_size` is a power of two, 512 in the checkpoint. Tests make smaller ones, with shorter style
    vectors and, by `narrow`, fewer channels.
    """

    def __init__(self, out_size: int = 512, num_style_feat: int = 512, narrow: float = 1.0) -> None:
        super().__init__()
        sides = [4 << step for step in range(out_size.bit_length() - 2)]  # 4, 8 .. out_size
        widths = [channels(side, narrow / 2) for side in sides]
        self.conv_body_first = nn.Conv2d(3, widths[-1], 1)
        steps = list(pairwise(widths))
        self.conv_body_down = nn.ModuleList(ResBlock(big, small, 0.5) for small, big in steps[::-1])
        self.final_conv = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        self.conv_body_up = nn.ModuleList(ResBlock(small, big, 2.0) for small, big in steps)
        self.toRGB = nn.ModuleList(nn.Conv2d(width, 3, 1) for width in widths[1:])  # for training
        self.stylegan_decoder = StyleGAN2GeneratorCSFT(out_size, num_style_feat, narrow)
        layers = self.stylegan_decoder.layers
        self.final_linear = nn.Linear(widths[0] * 4 * 4, layers * num_style_feat)
        self.condition_scale = nn.ModuleList(_condition(width) for width in widths[1:])
        self.condition_shift = nn.ModuleList(_condition(width) for width in widths[1:])

    def forward(self, x: Tensor) -> Tensor:
        x = _leaky(self.conv_body_first(x))
        skips = []
        for down in self.conv_body_down:
            x = down(x)
            skips.append(x)
        x = _leaky(self.final_conv(x))
        styles = self.final_linear(x.flatten(1)).unflatten(1, (self.stylegan_decoder.layers, -1))
        conditions = []
        for up, scale, shift in zip(
            self.conv_body_up, self.condition_scale, self.condition_shift, strict=True
        ):
            x = up(x + skips.pop())
            conditions.append((scale(x), shift(x)))
        restored: Tensor = self.stylegan_decoder(styles, conditions)
        return restored


def _condition(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, width, 3, padding=1),
    )


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, negative_slope=0.2, inplace=True)
