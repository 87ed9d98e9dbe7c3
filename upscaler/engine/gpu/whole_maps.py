"""The networks on a GPU: the body on the whole map at once, and the tail in strips of rows.

A GPU has the memory for the body's maps, and only whole maps keep all of it busy. The maps after
the upsampling are larger, so they are computed a strip at a time, and a strip is copied and encoded
while the next one is computed. The result equals that of the whole image to rounding. How maps lie
in memory, `kernels` says.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import torch
import triton
from torch import Tensor, nn

from upscaler.engine.gpu import kernels
from upscaler.engine.gpu.launches import launcher
from upscaler.engine.layers import Resolution
from upscaler.engine.networks import (
    NUM_FEAT,
    NUM_GROW_CH,
    RESIDUAL,
    Net,
    RRDBBlock,
    RRDBNet,
    SRVGGNetCompact,
)
from upscaler.engine.streams import in_pixel_order
from upscaler.engine.whole_maps import WholeMapStream

DENSE: Final = NUM_FEAT + 4 * NUM_GROW_CH
"""The channels of a dense block's map: its input, and what four convolutions add."""
SPARE_ROWS: Final = 1
"""Rows behind a map and its border, since kernels compute two rows at a time. The second one of an
odd height is not stored, nor is what lies beyond the last column."""
HALO: Final = 2
"""The rows above and below a strip of the body's map that the tail reads: its last row needs one
row of each of the last two maps, of which four are a row of the body's, and one of each upsampled
map."""
NONE, LEAKY, PRELU = 0, 1, 2
"""The activations, as kernels know them."""


class Tile(NamedTuple):
    """How a kernel divides its work: the pixels and channels of a step, and what Triton asks."""

    columns: int
    depth: int
    warps: int
    stages: int


class Tiles(NamedTuple):
    """The tiles of a generation of cards: of convolutions by their numbers of channels, and others.

    `image` is that of a convolution to an image with more than a pixel for each of the map's.
    """

    by_channels: dict[tuple[int, int], Tile]
    usual: Tile
    image: Tile
    doubling: Tile


IMAGE_COLUMNS: Final = 64
"""The columns that are computed at a time of the first convolution, which takes a hundredth."""
MOST_COLUMNS: Final = 128
"""The largest number of columns of all tiles."""
HOPPER: Final = Tiles(
    by_channels={
        (64, 32): Tile(columns=64, depth=32, warps=4, stages=2),
        (192, 64): Tile(columns=64, depth=32, warps=4, stages=2),
        (64, 64): Tile(columns=128, depth=32, warps=8, stages=2),
        (64, 16): Tile(columns=128, depth=32, warps=4, stages=2),
    },
    usual=Tile(columns=64, depth=32, warps=4, stages=3),
    image=Tile(columns=64, depth=32, warps=4, stages=3),
    doubling=Tile(columns=128, depth=64, warps=4, stages=2),
)
"""The fastest on an H200 of those that spill no registers; benchmarks/gpu_tiles.py times them."""
EARLIER: Final = Tiles(
    by_channels={
        (64, 64): Tile(columns=64, depth=32, warps=8, stages=3),
        (64, 16): Tile(columns=128, depth=32, warps=4, stages=2),
    },
    usual=Tile(columns=64, depth=32, warps=4, stages=3),
    image=Tile(columns=64, depth=32, warps=8, stages=3),
    doubling=Tile(columns=128, depth=64, warps=4, stages=2),
)
"""For Ampere and Ada: the nearest to Hopper's that spill none there. Nobody has measured them."""


def tiles(capability: int) -> Tiles:
    """The tiles for a card by its compute capability, such as 89."""
    return HOPPER if capability >= 90 else EARLIER


def zeros(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """A map of zeros: fp16 of shape (pixels, channels)."""
    pixels = (height + 2 + SPARE_ROWS) * (width + 2) + MOST_COLUMNS
    return torch.zeros(pixels, channels, dtype=torch.float16, device=device)


class Convolution:
    """A prepared 3x3 convolution from one map to another, or to an image."""

    def __init__(
        self,
        conv: nn.Conv2d,
        tiles: Tiles,
        activation: int = NONE,
        slopes: Tensor | None = None,
        image: int = 0,
    ) -> None:
        """`image` is how many pixels of an image on each side a pixel becomes; 0 is for a map."""
        weight = conv.weight.detach()
        outputs, self.inputs = weight.shape[:2]
        # Triton's blocks are powers of two, of 16 at least.
        self.outputs = max(16, triton.next_power_of_2(outputs))
        padded = weight.new_zeros(self.outputs, *weight.shape[1:])
        padded[:outputs] = weight
        taps = padded.permute(2, 3, 1, 0).reshape(-1, self.outputs)
        self.weights = taps.to(torch.float16).contiguous()
        self.bias = torch.zeros(self.outputs, device=weight.device)
        self.bias[:outputs] = _bias(conv)
        self.slopes = self.bias if slopes is None else slopes.detach().float().contiguous()
        self.activation = activation
        self.image = image
        channels = self.inputs, self.outputs
        self.tile = tiles.image if image > 1 else tiles.by_channels.get(channels, tiles.usual)

    def __call__(
        self,
        source: Tensor,
        out: Tensor,
        height: int,
        width: int,
        *,
        residual: Tensor | None = None,
        outer: Tensor | None = None,
        alpha: float = RESIDUAL,
    ) -> None:
        """Convolve the map `source` of that size to `out`, with the residuals of `kernels`."""
        tile = self.tile
        blocks = -(-width // tile.columns)
        first = out if residual is None else residual
        second = out if outer is None else outer
        # An image's follow from the map's width. Any number here would be compiled for: if it is a
        # multiple of 16, which depends on the width, there is another kernel.
        strides = [0 if self.image else each.stride(0) for each in (out, first, second)]
        launcher.get()(
            kernels.convolve, (blocks * -(-height // 2),),
            source, self.weights, self.bias, self.slopes, out, first, second,
            height, width + 2, blocks,
            source.stride(0), *strides,
            IN=self.inputs, OUT=self.outputs, COLUMNS=tile.columns, DEPTH=tile.depth,
            ACTIVATION=self.activation, RESIDUALS=(residual is not None) + (outer is not None),
            ALPHA=alpha, IMAGE=self.image, num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip


class DoublingConvolution:
    """A prepared upsampling by two with its convolution and leaky ReLU."""

    def __init__(self, conv: nn.Conv2d, tiles: Tiles) -> None:
        self.tile = tiles.doubling
        weight = conv.weight.detach().float()
        self.channels = weight.shape[0]
        taps = [
            tap.T
            for rows in _halves(weight, dim=2)
            for right in (0, 1)
            for row in rows
            for tap in _halves(row, dim=2)[right]
        ]
        self.weights = torch.cat(taps).to(torch.float16).contiguous()
        self.bias = _bias(conv)

    def __call__(self, source: Tensor, out: Tensor, height: int, width: int) -> None:
        """Double the map `source` of that size, and convolve it to `out`."""
        tile = self.tile
        blocks = -(-width // tile.columns)
        launcher.get()(
            kernels.double_and_convolve, (blocks * height, 4),
            source, self.weights, self.bias, out, width + 2, blocks,
            source.stride(0), out.stride(0), CHANNELS=self.channels, COLUMNS=tile.columns,
            DEPTH=tile.depth, num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip


class ImageConvolution:
    """The prepared first convolution, which reads an image whose blocks of pixels it folds."""

    def __init__(self, conv: nn.Conv2d, fold: int = 1, slopes: Tensor | None = None) -> None:
        weight = conv.weight.detach().float()
        self.weights = weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0]).contiguous()
        self.outputs = weight.shape[0]
        self.bias = _bias(conv)
        self.slopes = self.bias if slopes is None else slopes.detach().float().contiguous()
        self.activation = NONE if slopes is None else PRELU
        self.fold = fold

    def __call__(
        self, image: Tensor, out: Tensor, height: int, width: int, copy: Tensor | None = None
    ) -> None:
        """Convolve `image`, fp32 of shape (rows, columns, 3), to the map `out` of that size."""
        blocks = -(-width // IMAGE_COLUMNS)
        other = out if copy is None else copy
        launcher.get()(
            kernels.convolve_image, (blocks * height,),
            image, self.weights, self.bias, self.slopes, out, other, height, width + 2, blocks,
            out.stride(0), other.stride(0), FOLD=self.fold, OUT=self.outputs,
            COLUMNS=IMAGE_COLUMNS, ACTIVATION=self.activation, COPY=copy is not None,
        )  # fmt: skip


class WholeMapRRDB:
    """An RRDBNet prepared for whole maps. Any number of images may be under way."""

    def __init__(self, net: RRDBNet, tiles: Tiles) -> None:
        self.fold = net.unshuffle
        self.scale = 4 // net.unshuffle
        self.first = ImageConvolution(net.conv_first, net.unshuffle)
        self.blocks = [
            [
                *(Convolution(c, tiles, LEAKY) for c in (dense.conv1, dense.conv2, dense.conv3)),
                Convolution(dense.conv4, tiles, LEAKY),
                Convolution(dense.conv5, tiles),
            ]
            for block in net.body
            if isinstance(block, RRDBBlock)  # they all are: this is for mypy
            for dense in (block.rdb1, block.rdb2, block.rdb3)
        ]
        self.last = Convolution(net.conv_body, tiles)
        self.ups = [DoublingConvolution(conv, tiles) for conv in (net.conv_up1, net.conv_up2)]
        self.tail = (
            Convolution(net.conv_hr, tiles, LEAKY),
            Convolution(net.conv_last, tiles, image=1),
        )

    def open(self, level: Resolution, tail_rows: int) -> WholeMapStream:
        """Open a stream for one image, as `streams.Streamed` does."""
        return WholeMapStream(self, level, tail_rows)

    def strips(self, image: Tensor, height: int, width: int, rows: int) -> Iterator[Tensor]:
        """Upscale an image, as `whole_maps.WholeMapNetwork` does."""
        features = self._features(image, height, width)
        device = image.device
        most = min(height, rows + 2 * HALO)
        doubled = zeros(2 * most, 2 * width, NUM_FEAT, device)
        large = [zeros(4 * most, 4 * width, NUM_FEAT, device) for _ in range(2)]
        filled = 0
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            start, end = max(0, top - HALO), min(height, bottom + HALO)
            # The strip is a small map of its own. Above and below it `features` has the rows beside
            # it, or the border; the other maps have a border there, and what is wrong because of
            # that does not reach beyond the halo.
            count = end - start
            if filled > count:
                for part, factor in ((doubled, 2), (large[0], 4), (large[1], 4)):
                    pitch = factor * width + 2
                    part[(factor * count + 1) * pitch :][:pitch] = 0
            filled = count
            self.ups[0](features[start * (width + 2) :], doubled, count, width)
            self.ups[1](doubled, large[0], 2 * count, 2 * width)
            self.tail[0](large[0], large[1], 4 * count, 4 * width)
            # Only the strip's own rows become an image: the map begins a row above the first.
            visible = large[1][4 * (top - start) * (4 * width + 2) :]
            strip = torch.empty(4 * (bottom - top), 4 * width, 3, device=device)
            self.tail[1](visible, strip, 4 * (bottom - top), 4 * width)
            yield strip

    def _features(self, image: Tensor, height: int, width: int) -> Tensor:
        """The last map at the body's resolution."""
        device = image.device
        source, middle, third = (zeros(height, width, DENSE, device) for _ in range(3))
        shallow = zeros(height, width, NUM_FEAT, device)
        self.first(image, source, height, width, copy=shallow)
        for first in range(0, len(self.blocks), 3):
            # The third dense block's result goes where the second one's input was.
            chain = (source, middle, third, middle)
            for index in range(3):
                block, outer = self.blocks[first + index], source if index == 2 else None
                dense_block(block, chain[index], chain[index + 1], height, width, outer=outer)
            source, middle = middle, source
        features = middle[:, :NUM_FEAT]
        self.last(source, features, height, width, residual=shallow, alpha=1.0)
        return features


class WholeMapCompact:
    """An SRVGGNetCompact prepared for whole maps. Any number of images may be under way."""

    fold = 1

    def __init__(self, net: SRVGGNetCompact, tiles: Tiles) -> None:
        self.scale = net.scale
        *chain, last = net.body  # convolutions and activations in turn, and a last convolution
        assert isinstance(last, nn.Conv2d)
        pairs = [
            (conv, activation.weight)
            for conv, activation in zip(chain[::2], chain[1::2], strict=True)
            if isinstance(conv, nn.Conv2d) and isinstance(activation, nn.PReLU)
        ]
        self.first = ImageConvolution(pairs[0][0], slopes=pairs[0][1])
        self.body = [Convolution(conv, tiles, PRELU, slopes) for conv, slopes in pairs[1:]]
        self.last = Convolution(in_pixel_order(last, net.scale), tiles, image=net.scale)

    def open(self, level: Resolution, tail_rows: int) -> WholeMapStream:
        """Open a stream for one image, as `streams.Streamed` does."""
        return WholeMapStream(self, level, tail_rows)

    def strips(self, image: Tensor, height: int, width: int, rows: int) -> Iterator[Tensor]:
        """Upscale an image, as `whole_maps.WholeMapNetwork` does."""
        device = image.device
        source, target = (zeros(height, width, NUM_FEAT, device) for _ in range(2))
        self.first(image, source, height, width)
        for conv in self.body:
            conv(source, target, height, width)
            source, target = target, source
        for top in range(0, height, rows):
            count = min(rows, height - top)
            strip = torch.empty(count * self.scale, width * self.scale, 3, device=device)
            self.last(source[top * (width + 2) :], strip, count, width, residual=image[top:])
            yield strip


def dense_block(
    block: list[Convolution],
    dense: Tensor,
    result: Tensor,
    height: int,
    width: int,
    *,
    outer: Tensor | None,
) -> None:
    """Five convolutions: the map `dense` gets what they add, and `result` the last one's."""
    *growing, last = block
    for number, conv in enumerate(growing):
        conv(dense, dense[:, NUM_FEAT + number * NUM_GROW_CH :], height, width)
    last(dense, result, height, width, residual=dense, outer=outer)


def whole_maps(net: Net, capability: int) -> WholeMapRRDB | WholeMapCompact:
    """Prepare `net`, which is on a GPU of that compute capability, such as 89. Copies weights."""
    best = tiles(capability)
    return WholeMapRRDB(net, best) if isinstance(net, RRDBNet) else WholeMapCompact(net, best)


def _halves(weight: Tensor, dim: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The weights for doubled pixels, of the even results and of the odd ones, along `dim`.

    Of the three neighbours that an even result reads, the last two are the same pixel; of those of
    an odd one the first two.
    """
    one, two, three = weight.unbind(dim)
    return (one, two + three), (one + two, three)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None, "every convolution of these networks has one"
    return conv.bias.detach().float().contiguous()
