"""The networks as streams: rows of a picture go in at the top, rows of its enlargement come out.

A whole network keeps so few rows that it needs memory for the width of a picture and hardly for its
height, and works on what is still in the cache. No row of any map is computed twice, and there is
nothing to be stitched: the result is that of the whole picture, to rounding.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so

from upscaler.convolution import LEAK, Kernel, Method
from upscaler.layers import (
    Chain,
    Convolutions,
    Doubling,
    Layer,
    Level,
    Pieces,
    Queue,
    Refolding,
    Residual,
)
from upscaler.nets import RESIDUAL, Net, ResidualDenseBlock, RRDBBlock, RRDBNet, SRVGGNetCompact


class Stream(Protocol):
    """A network at work on one picture."""

    def push(self, picture: Tensor | None) -> Tensor | None:
        """Rows of the picture, float of shape (rows, width, 3) in 0..1, to rows of its enlargement.

        None asks for those that are still on their way. The answer is None when there are none yet.
        """


class Streamed(Protocol):
    """A network made ready to be streamed, as often and by as many threads at once as you like."""

    def open(self, level: Level, tail_rows: int) -> Stream:
        """A stream for one picture, of which `level` is the map that the body works on.

        The tail, whose maps are the largest, takes `tail_rows` of the body's rows at once.
        """


class StreamedRRDB:
    """An RRDBNet: `body` is the method for its blocks, and `ends` that for what is around them."""

    def __init__(self, net: RRDBNet, ends: Method, body: Method) -> None:
        self.ends = ends
        self.body = body
        self.unshuffle = net.unshuffle
        self.first = ends.prepare(net.conv_first)
        self.blocks = [_kernels(block, body) for block in net.body if isinstance(block, RRDBBlock)]
        self.last = body.prepare(net.conv_body)
        self.up = [ends.prepare(conv, LEAK) for conv in (net.conv_up1, net.conv_up2)]
        self.tail = [ends.prepare(net.conv_hr, LEAK), ends.prepare(net.conv_last)]

    def open(self, level: Level, tail_rows: int) -> Stream:
        blocks = (self._block(kernels, level) for kernels in self.blocks)
        last = Convolutions([self.last], self.body, level)
        layer = Chain(
            Convolutions([self.first], self.ends, level),
            Refolding(self.ends, self.body, level),
            Residual(Chain(*blocks, last), 1, len(self.blocks) * 15 + 1, level, self.body),
            Refolding(self.body, self.ends, level),
            self._tail(level, tail_rows),
        )
        return RRDBStream(self, layer, level.width * 4)

    def _block(self, kernels: list[list[Kernel]], level: Level) -> Layer:
        """Three dense blocks; each of their five convolutions is a row behind the one before."""
        dense = (Convolutions(each, self.body, level) for each in kernels)
        residuals = (Residual(each, RESIDUAL, 5, level, self.body) for each in dense)
        return Residual(Chain(*residuals), RESIDUAL, 15, level, self.body)

    def _tail(self, level: Level, rows: int) -> Layer:
        layers: list[Layer] = []
        level = Level(level.height, level.width, rows)
        for kernel in self.up:
            level = level.doubled()
            layers += [Doubling(self.ends, level), Convolutions([kernel], self.ends, level)]
        layers += [Convolutions([kernel], self.ends, level) for kernel in self.tail]
        return Pieces(Chain(*layers), rows)


class RRDBStream:
    """An RRDBNet at work on one picture, whose enlargement is `width` pixels wide."""

    def __init__(self, network: StreamedRRDB, layer: Layer, width: int) -> None:
        self.network = network
        self.layer = layer
        self.width = width

    def push(self, picture: Tensor | None) -> Tensor | None:
        method = self.network.ends
        x = None if picture is None else method.fold(_unshuffled(picture, self.network.unshuffle))
        y = self.layer.push(x)
        return None if y is None else method.unfold(y, self.width)


class StreamedCompact:
    """An SRVGGNetCompact, all of it by one method."""

    def __init__(self, net: SRVGGNetCompact, method: Method) -> None:
        self.method = method
        self.scale = net.scale
        *chain, last = net.body
        assert isinstance(last, nn.Conv2d)
        pairs = zip(chain[::2], chain[1::2], strict=True)
        self.kernels = [
            method.prepare(conv, activation.weight.detach())
            for conv, activation in pairs
            if isinstance(conv, nn.Conv2d) and isinstance(activation, nn.PReLU)
        ]
        self.kernels.append(method.prepare(last))

    def open(self, level: Level, tail_rows: int) -> Stream:  # noqa: ARG002  there is no tail
        layers = (Convolutions([kernel], self.method, level) for kernel in self.kernels)
        return CompactStream(self, Chain(*layers), level)


class CompactStream:
    """An SRVGGNetCompact at work on one picture; each convolution is a row behind."""

    def __init__(self, network: StreamedCompact, layer: Layer, level: Level) -> None:
        self.network = network
        self.layer = layer
        self.width = level.width
        rows = min(len(network.kernels), level.height) + level.rows
        ring = torch.empty(rows, level.width, 3, device=network.method.device)
        self.queue = Queue(ring, dim=0)

    def push(self, picture: Tensor | None) -> Tensor | None:
        method, scale = self.network.method, self.network.scale
        if picture is not None:
            self.queue.put(picture)
        y = self.layer.push(None if picture is None else method.fold(picture))
        if y is None:
            return None
        rows = method.unfold(y, self.width)
        original = torch.cat(self.queue.take(rows.shape[0]))
        enlarged = F.pixel_shuffle(rows.permute(2, 0, 1), scale).permute(1, 2, 0)
        repeated = original.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        return enlarged + repeated.to(enlarged)


def streamed(net: Net, ends: Method, body: Method) -> Streamed:
    """`net` made ready. Its weights are copied: it is not needed any longer."""
    if isinstance(net, RRDBNet):
        return StreamedRRDB(net, ends, body)
    return StreamedCompact(net, body)


def _kernels(block: RRDBBlock, method: Method) -> list[list[Kernel]]:
    """The kernels of a block's three dense blocks."""
    return [_dense(dense, method) for dense in (block.rdb1, block.rdb2, block.rdb3)]


def _dense(block: ResidualDenseBlock, method: Method) -> list[Kernel]:
    growing = (block.conv1, block.conv2, block.conv3, block.conv4)
    return [*(method.prepare(conv, LEAK) for conv in growing), method.prepare(block.conv5)]


def _unshuffled(picture: Tensor, factor: int) -> Tensor:
    """Blocks of `factor` x `factor` pixels folded into channels."""
    if factor == 1:
        return picture
    folded: Tensor = F.pixel_unshuffle(picture.permute(2, 0, 1), factor)
    return folded.permute(1, 2, 0)
