"""The networks as streams: rows of an image go in, upscaled rows come out.

A network keeps only a few rows per layer, so its memory grows with the width of an image and hardly
with its height, and each layer works on data that is still in the processor's cache. No row of any
map is computed twice and no seams arise: the result equals that of the whole image, to rounding.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so

from upscaler.engine.convolution import LEAK, Kernel, Method
from upscaler.engine.layers import (
    Chain,
    Chunked,
    ConvertLayout,
    Convolutions,
    Layer,
    NearestUpsample2x,
    Queue,
    Residual,
    Resolution,
)
from upscaler.engine.networks import (
    RESIDUAL,
    Net,
    ResidualDenseBlock,
    RRDBBlock,
    RRDBNet,
    SRVGGNetCompact,
)


class Methods(NamedTuple):
    """The convolution methods of a network's first convolution, its body and its tail."""

    first: Method
    body: Method
    tail: Method


class Stream(Protocol):
    """A network that is processing one image. `share` is how much of the work is done, of 1."""

    share: float

    def push(self, image: Tensor | None) -> Tensor | None:
        """Take rows of the image, float of shape (rows, width, 3) in 0..1; return upscaled rows.

        None as the argument asks for the rows that are still due. Returns None if no rows are ready
        yet, otherwise float rows of shape (rows, width * scale, 3), unclamped.
        """


class Streamed(Protocol):
    """A network prepared for streaming. Any number of streams may be open, in several threads."""

    def open(self, level: Resolution, tail_rows: int) -> Stream:
        """Open a stream for one image, whose map in the body has the resolution `level`.

        The tail, whose maps are the largest, processes `tail_rows` of the body's rows at a time.
        """


class StreamedRRDB:
    """An RRDBNet prepared for streaming."""

    def __init__(self, net: RRDBNet, methods: Methods) -> None:
        self.methods = methods
        self.unshuffle = net.unshuffle
        first, body, tail = methods
        self.first = first.prepare(net.conv_first)
        self.blocks = [
            [_dense_kernels(dense, body) for dense in (block.rdb1, block.rdb2, block.rdb3)]
            for block in net.body
            if isinstance(block, RRDBBlock)  # they all are: this is for mypy
        ]
        self.last = body.prepare(net.conv_body)
        self.up = [tail.prepare(conv, LEAK) for conv in (net.conv_up1, net.conv_up2)]
        self.tail = [tail.prepare(net.conv_hr, LEAK), tail.prepare(net.conv_last)]

    def open(self, level: Resolution, tail_rows: int) -> Stream:
        first, body, tail = self.methods
        blocks = (self._block(kernels, level) for kernels in self.blocks)
        last = Convolutions([self.last], body, level)
        # The lag of the body's residual is the number of its convolutions, 15 per block and one.
        layer = Chain(
            Convolutions([self.first], first, level),
            ConvertLayout(first, body, level),
            Residual(Chain(*blocks, last), 1, len(self.blocks) * 15 + 1, level, body),
            ConvertLayout(body, tail, level),
            self._tail(level, tail_rows),
        )
        return RRDBStream(self, layer, level)

    def _block(self, kernels: list[list[Kernel]], level: Resolution) -> Layer:
        """A residual-in-residual dense block: three dense blocks, each with its own residual.

        Each of the five convolutions of a dense block lags a row behind the one before it, so a
        dense block lags 5 rows and the whole block 15.
        """
        body = self.methods.body
        dense = (Convolutions(each, body, level) for each in kernels)
        residuals = (Residual(each, RESIDUAL, 5, level, body) for each in dense)
        return Residual(Chain(*residuals), RESIDUAL, 15, level, body)

    def _tail(self, level: Resolution, rows: int) -> Layer:
        """Two upsamplings by two, each with a convolution, and the last two convolutions.

        `rows` is how many rows of the body go through at a time.
        """
        tail = self.methods.tail
        layers: list[Layer] = []
        level = Resolution(level.height, level.width, rows)
        for kernel in self.up:
            level = level.doubled()
            layers += [NearestUpsample2x(tail, level), Convolutions([kernel], tail, level)]
        layers += [Convolutions([kernel], tail, level) for kernel in self.tail]
        return Chunked(Chain(*layers), rows)


class RRDBStream:
    """An RRDBNet that is processing one image."""

    def __init__(self, network: StreamedRRDB, layer: Layer, level: Resolution) -> None:
        self.network = network
        self.layer = layer
        self.height, self.width = level.height * 4, level.width * 4
        self.share = 0.0

    def push(self, image: Tensor | None) -> Tensor | None:
        first, _, tail = self.network.methods
        factor = self.network.unshuffle
        if image is not None and factor > 1:
            # Scale 2: blocks of 2x2 pixels become channels, and the network upscales four times.
            image = F.pixel_unshuffle(image.permute(2, 0, 1), factor).permute(1, 2, 0)
        y = self.layer.push(None if image is None else first.fold(image))
        if y is None:
            return None
        rows = tail.unfold(y, self.width)
        self.share += len(rows) / self.height
        return rows


class StreamedCompact:
    """An SRVGGNetCompact prepared for streaming. It has no tail, only a first layer and a body."""

    def __init__(self, net: SRVGGNetCompact, methods: Methods) -> None:
        self.methods = methods
        self.scale = net.scale
        *chain, last = net.body  # convolutions and activations in turn, and a last convolution
        assert isinstance(last, nn.Conv2d)
        pairs = zip(chain[::2], chain[1::2], strict=True)
        (first, first_slopes), *others = (
            (conv, activation.weight.detach())
            for conv, activation in pairs
            if isinstance(conv, nn.Conv2d) and isinstance(activation, nn.PReLU)
        )
        self.first = methods.first.prepare(first, first_slopes)
        self.body = [methods.body.prepare(conv, slopes) for conv, slopes in others]
        self.body.append(methods.body.prepare(in_pixel_order(last, net.scale)))

    def open(self, level: Resolution, tail_rows: int) -> Stream:  # noqa: ARG002
        first, body, _ = self.methods
        layer = Chain(
            Convolutions([self.first], first, level),
            ConvertLayout(first, body, level),
            *(Convolutions([kernel], body, level) for kernel in self.body),
        )
        return CompactStream(self, layer, level)


class CompactStream:
    """An SRVGGNetCompact that is processing one image.

    Each convolution lags a row behind the one before it. Meanwhile the input rows wait in a queue,
    since the network adds the input, upscaled by repeating pixels, to its output.
    """

    def __init__(self, network: StreamedCompact, layer: Layer, level: Resolution) -> None:
        self.network = network
        self.layer = layer
        self.height, self.width = level.height, level.width
        self.share = 0.0
        rows = min(1 + len(network.body), level.height) + level.rows
        ring = torch.empty(rows, level.width, 3, device=network.methods.first.device)
        self.queue = Queue(ring, dim=0)

    def push(self, image: Tensor | None) -> Tensor | None:
        methods, scale = self.network.methods, self.network.scale
        if image is not None:
            self.queue.put(image)
        y = self.layer.push(None if image is None else methods.first.fold(image))
        if y is None:
            return None
        rows = methods.body.unfold(y, self.width)
        height, width, _ = rows.shape
        self.share += height / self.height
        # The channels of a pixel are its block of scale x scale output pixels: (row, column,
        # colour). So `blocks` is (height, scale, width, scale * 3), which is the upscaled image in
        # memory order, and `nearest` is (height, width, scale * 3).
        blocks = rows.view(height, width, scale, -1).transpose(1, 2)
        nearest = torch.cat(self.queue.take(height)).repeat(1, 1, scale)
        # fp32 even if `rows` are bf16, so that the image itself is not rounded to bf16.
        upscaled = torch.empty(blocks.shape, device=rows.device)
        torch.add(blocks, nearest[:, None], out=upscaled)
        return upscaled.view(height * scale, width * scale, 3)


def streamed(net: Net, methods: Methods) -> Streamed:
    """Prepare `net` for streaming. The weights are copied, so `net` is not needed afterwards."""
    if isinstance(net, RRDBNet):
        return StreamedRRDB(net, methods)
    return StreamedCompact(net, methods)


def _dense_kernels(block: ResidualDenseBlock, method: Method) -> list[Kernel]:
    growing = (block.conv1, block.conv2, block.conv3, block.conv4)
    return [*(method.prepare(conv, LEAK) for conv in growing), method.prepare(block.conv5)]


def in_pixel_order(conv: nn.Conv2d, scale: int) -> nn.Conv2d:
    """The same convolution with its output channels in the order (row, column, colour).

    That is the order of pixels in memory, so that pixel-shuffle becomes a plain view. The network's
    own order, which pixel-shuffle expects, is (colour, row, column).
    """
    assert conv.bias is not None, "every convolution of these networks has one"
    reordered = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1)
    order = torch.arange(conv.out_channels).view(3, scale, scale).permute(1, 2, 0).flatten()
    reordered.weight = nn.Parameter(conv.weight[order], requires_grad=False)
    reordered.bias = nn.Parameter(conv.bias[order], requires_grad=False)
    return reordered
