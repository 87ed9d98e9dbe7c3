"""The networks as streams: rows of an image go in at the top, upscaled rows come out.

A whole network keeps so few rows that it needs memory for the width of an image and hardly for its
height, and works on what is still in the cache. No row of any map is computed twice, and there is
nothing to be stitched: the result is that of the whole image, to rounding.
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
    """How a network is computed: its first convolution, its body and its tail."""

    first: Method
    body: Method
    tail: Method


class Stream(Protocol):
    """A network at work on one image."""

    def push(self, image: Tensor | None) -> Tensor | None:
        """Rows of the image, float of shape (rows, width, 3) in 0..1, to upscaled rows.

        None asks for those that are still on their way. The answer is None when there are none yet.
        """


class Streamed(Protocol):
    """A network made ready to be streamed, as often and by as many threads at once as you like."""

    def open(self, level: Resolution, tail_rows: int) -> Stream:
        """A stream for one image, of which `level` is the map that the body works on.

        The tail, whose maps are the largest, takes `tail_rows` of the body's rows at once.
        """


class StreamedRRDB:
    """An RRDBNet."""

    def __init__(self, net: RRDBNet, methods: Methods) -> None:
        self.methods = methods
        self.unshuffle = net.unshuffle
        first, body, tail = methods
        self.first = first.prepare(net.conv_first)
        self.blocks = [_kernels(block, body) for block in net.body if isinstance(block, RRDBBlock)]
        self.last = body.prepare(net.conv_body)
        self.up = [tail.prepare(conv, LEAK) for conv in (net.conv_up1, net.conv_up2)]
        self.tail = [tail.prepare(net.conv_hr, LEAK), tail.prepare(net.conv_last)]

    def open(self, level: Resolution, tail_rows: int) -> Stream:
        first, body, tail = self.methods
        blocks = (self._block(kernels, level) for kernels in self.blocks)
        last = Convolutions([self.last], body, level)
        layer = Chain(
            Convolutions([self.first], first, level),
            ConvertLayout(first, body, level),
            Residual(Chain(*blocks, last), 1, len(self.blocks) * 15 + 1, level, body),
            ConvertLayout(body, tail, level),
            self._tail(level, tail_rows),
        )
        return RRDBStream(self, layer, level.width * 4)

    def _block(self, kernels: list[list[Kernel]], level: Resolution) -> Layer:
        """Three dense blocks; each of their five convolutions is a row behind the one before."""
        body = self.methods.body
        dense = (Convolutions(each, body, level) for each in kernels)
        residuals = (Residual(each, RESIDUAL, 5, level, body) for each in dense)
        return Residual(Chain(*residuals), RESIDUAL, 15, level, body)

    def _tail(self, level: Resolution, rows: int) -> Layer:
        tail = self.methods.tail
        layers: list[Layer] = []
        level = Resolution(level.height, level.width, rows)
        for kernel in self.up:
            level = level.doubled()
            layers += [NearestUpsample2x(tail, level), Convolutions([kernel], tail, level)]
        layers += [Convolutions([kernel], tail, level) for kernel in self.tail]
        return Chunked(Chain(*layers), rows)


class RRDBStream:
    """An RRDBNet at work on one image, whose upscaled image is `width` pixels wide."""

    def __init__(self, network: StreamedRRDB, layer: Layer, width: int) -> None:
        self.network = network
        self.layer = layer
        self.width = width

    def push(self, image: Tensor | None) -> Tensor | None:
        first, _, tail = self.network.methods
        x = None if image is None else first.fold(_unshuffled(image, self.network.unshuffle))
        y = self.layer.push(x)
        return None if y is None else tail.unfold(y, self.width)


class StreamedCompact:
    """An SRVGGNetCompact, which has no tail: all but the first convolution are its body."""

    def __init__(self, net: SRVGGNetCompact, methods: Methods) -> None:
        self.methods = methods
        self.scale = net.scale
        *chain, last = net.body
        assert isinstance(last, nn.Conv2d)
        pairs = zip(chain[::2], chain[1::2], strict=True)
        (first, first_slopes), *others = (
            (conv, activation.weight.detach())
            for conv, activation in pairs
            if isinstance(conv, nn.Conv2d) and isinstance(activation, nn.PReLU)
        )
        self.first = methods.first.prepare(first, first_slopes)
        self.body = [methods.body.prepare(conv, slopes) for conv, slopes in others]
        self.body.append(methods.body.prepare(_by_places(last, net.scale)))

    def open(self, level: Resolution, tail_rows: int) -> Stream:  # noqa: ARG002
        first, body, _ = self.methods
        layer = Chain(
            Convolutions([self.first], first, level),
            ConvertLayout(first, body, level),
            *(Convolutions([kernel], body, level) for kernel in self.body),
        )
        return CompactStream(self, layer, level)


class CompactStream:
    """An SRVGGNetCompact at work on one image; each convolution is a row behind."""

    def __init__(self, network: StreamedCompact, layer: Layer, level: Resolution) -> None:
        self.network = network
        self.layer = layer
        self.width = level.width
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
        # Every pixel is `scale` rows of `scale` pixels: the places of its block, in order.
        blocks = rows.view(height, width, scale, -1).transpose(1, 2)
        nearest = torch.cat(self.queue.take(height)).repeat(1, 1, scale)
        upscaled = torch.empty(blocks.shape, device=rows.device)
        torch.add(blocks, nearest[:, None], out=upscaled)
        return upscaled.view(height * scale, width * scale, 3)


def streamed(net: Net, methods: Methods) -> Streamed:
    """`net` made ready. Its weights are copied: it is not needed any longer."""
    if isinstance(net, RRDBNet):
        return StreamedRRDB(net, methods)
    return StreamedCompact(net, methods)


def _kernels(block: RRDBBlock, method: Method) -> list[list[Kernel]]:
    """The kernels of a block's three dense blocks."""
    return [_dense(dense, method) for dense in (block.rdb1, block.rdb2, block.rdb3)]


def _dense(block: ResidualDenseBlock, method: Method) -> list[Kernel]:
    growing = (block.conv1, block.conv2, block.conv3, block.conv4)
    return [*(method.prepare(conv, LEAK) for conv in growing), method.prepare(block.conv5)]


def _unshuffled(image: Tensor, factor: int) -> Tensor:
    """Blocks of `factor` x `factor` pixels folded into channels."""
    if factor == 1:
        return image
    folded: Tensor = F.pixel_unshuffle(image.permute(2, 0, 1), factor)
    return folded.permute(1, 2, 0)


def _by_places(conv: nn.Conv2d, scale: int) -> nn.Conv2d:
    """A convolution whose channels are in the order of a block's rows, columns and colours.

    That is how pixels lie in memory. The network's own order, which pixel-shuffle expects, is that
    of colours, rows and columns.
    """
    assert conv.bias is not None, "every convolution of these networks has one"
    reordered = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1)
    order = torch.arange(conv.out_channels).view(3, scale, scale).permute(1, 2, 0).flatten()
    reordered.weight = nn.Parameter(conv.weight[order], requires_grad=False)
    reordered.bias = nn.Parameter(conv.bias[order], requires_grad=False)
    return reordered
