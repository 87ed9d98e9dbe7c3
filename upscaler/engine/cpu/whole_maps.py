"""The networks on a CPU: the body on the whole map, and what is larger in strips of rows.

A map is computed in boxes, each by one thread. The five convolutions of a dense block are computed
for a box at once, so that what lies between them stays in the processor's cache. How maps lie in
memory, and how they are computed, `kernels` says.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so

from upscaler.engine.convolution import FILTER_TRANSFORM, LEAK
from upscaler.engine.cpu import kernels
from upscaler.engine.layers import Resolution
from upscaler.engine.networks import (
    NUM_FEAT,
    NUM_GROW_CH,
    RESIDUAL,
    Net,
    ResidualDenseBlock,
    RRDBBlock,
    RRDBNet,
    SRVGGNetCompact,
)
from upscaler.engine.streams import in_pixel_order
from upscaler.engine.whole_maps import WholeMapStream

Map = np.ndarray[tuple[int, int, int], np.dtype[np.float32]]
Size = tuple[int, int]
"""The rows and columns of the image that a map is of."""
Box = tuple[int, int, int, int]
"""The first row and column of tiles, and those behind the last."""

TRANSFORM: Final = np.kron(FILTER_TRANSFORM, FILTER_TRANSFORM)
"""The transform of a filter in both directions: (36 planes, 9 weights)."""
MOST_TILES: Final = 48
"""The most tiles of a row of a box, with those that are computed twice: of a dense block, their
planes take 7 MB."""
SHARES: Final = 4
"""The least boxes for each thread, so that none waits long for another."""
LEAST_ROWS: Final = 8
"""The least rows of tiles of a box: of two more, four of five convolutions are computed twice."""
HALO: Final = 1
"""The rows above and below a strip of the body's map that the tail computes: its last row needs one
row of each of the last three maps, of which four are a row of the body's. The first upsampled map
is right throughout, since it is made of rows that are there beyond these."""
TOGETHER: Final = 5
"""The convolutions of a compact network that are computed together: of a tile more on each side of
a box, four may be wrong by a pixel each. More would have two tiles more."""
LEAKS: Final = np.full(NUM_GROW_CH, LEAK, np.float32)
NOTHING: Final = np.zeros((1, 1, 1), np.float32)
"""In place of a map that is not read."""


def empty_map(size: Size, channels: int = NUM_FEAT) -> Map:
    """A map of zeros for an image of that size."""
    rows, columns = (side + -side % 4 + 2 for side in size)
    return np.zeros((rows, columns, channels), np.float32)


def part_of(buffer: Map, size: Size) -> Map:
    """The beginning of a map as one for an image of fewer rows and the same columns."""
    part = buffer[: size[0] + -size[0] % 4 + 2]
    part[-1] = 0
    return part


class Convolution:
    """A prepared 3x3 convolution: transformed filters, the bias, and an activation's slopes.

    Channels are added to the output, all zero, to a multiple of `kernels.WIDTH`.
    """

    def __init__(self, conv: nn.Conv2d, slopes: float | Tensor = 1.0) -> None:
        """`slopes` are those for negative values: one for each channel, or for all; 1 for none."""
        assert conv.bias is not None, "every convolution of these networks has one"
        weight = conv.weight.detach().numpy()
        outputs, inputs = weight.shape[:2]
        groups = -(-outputs // kernels.WIDTH)
        self.outputs = groups * kernels.WIDTH
        self.filters = np.empty((36, groups, inputs, kernels.WIDTH), np.float32)
        # Not by NumPy or torch, whose threads wait for each other at each of hundreds of layers: on
        # a busy machine that took seconds.
        kernels.transform_filters(weight.reshape(outputs, inputs, 9), TRANSFORM, self.filters)
        self.bias = np.zeros(self.outputs, np.float32)
        self.bias[:outputs] = conv.bias.detach().numpy()
        self.slopes = np.ones(self.outputs, np.float32)
        self.slopes[:outputs] = slopes.detach().numpy() if isinstance(slopes, Tensor) else slopes


class DenseBlock:
    """A prepared dense block: its five convolutions."""

    def __init__(self, block: ResidualDenseBlock) -> None:
        convs = block.conv1, block.conv2, block.conv3, block.conv4, block.conv5
        prepared = [Convolution(conv) for conv in convs]
        self.filters = tuple(each.filters for each in prepared)
        self.biases = tuple(each.bias for each in prepared)


class Several:
    """Some convolutions one after another, which are computed together."""

    def __init__(self, convs: Sequence[Convolution]) -> None:
        self.filters = np.stack([each.filters for each in convs])
        self.biases = np.stack([each.bias for each in convs])
        self.slopes = np.stack([each.slopes for each in convs])


class Scratch:
    """What a thread needs to compute a box."""

    def __init__(self) -> None:
        # One more than are computed, so that the planes of a tile lie in different sets of the
        # processor's cache.
        tiles = kernels.room(MOST_TILES) + 1
        dense = NUM_FEAT + 4 * NUM_GROW_CH
        self.planes = np.zeros((kernels.SLOTS, 36, tiles, dense), np.float32)
        self.sums = np.zeros((36, tiles, max(NUM_FEAT, kernels.WIDTH)), np.float32)
        # Either map that is kept takes pages of the memory only where it is used.
        self.ring = np.zeros((4, kernels.RING_ROWS, 4, 4 * tiles + 2, NUM_GROW_CH), np.float32)
        self.rings = np.zeros((4, kernels.RING_ROWS, 4, 4 * tiles + 2, NUM_FEAT), np.float32)


class Workers:
    """Threads that compute the boxes of a map. They end with the context that this is."""

    def __init__(self) -> None:
        self.count = torch.get_num_threads()
        self.pool = ThreadPoolExecutor(self.count)
        self.local = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Waits for the threads, so that what they have for themselves is free for the next ones.
        self.pool.shutdown()
        del self.local

    def convolve(
        self,
        conv: Convolution,
        source: Map,
        out: Map,
        size: Size,
        *,
        doubled: bool = False,
        residual: Map | None = None,
    ) -> None:
        """Convolve `source` to `out`, the map of an image of that size.

        With `doubled`, `source` is that of one of half the size, whose pixels are repeated. With
        `residual` there is no activation: that map is added.
        """
        first = NOTHING if residual is None else residual
        alpha = np.float32(0 if residual is None else 1)

        def compute(box: Box, scratch: Scratch) -> None:
            kernels.convolve(
                source, doubled, out, conv.filters, conv.bias, conv.slopes, first, alpha, size, box,
                scratch.planes[0], scratch.sums,
            )  # fmt: skip

        self._each(size, compute)

    def add_dense(
        self, block: DenseBlock, source: Map, out: Map, size: Size, outer: Map | None = None
    ) -> None:
        """Write `source` plus a dense block's result to `out`; with `outer`, that plus all this.

        What is added is added RESIDUAL times.
        """
        second = source if outer is None else outer
        alpha = np.float32(RESIDUAL)

        def compute(box: Box, scratch: Scratch) -> None:
            kernels.dense_block(
                source, out, second, alpha, outer is not None, block.filters, block.biases, LEAKS,
                size, box, scratch.planes, scratch.sums, scratch.ring,
            )  # fmt: skip

        self._each(size, compute)

    def chain(self, several: Several, source: Map, out: Map, size: Size) -> None:
        """Convolve `source` to `out`, the map of an image of that size, several times."""

        def compute(box: Box, scratch: Scratch) -> None:
            kernels.chain(
                source, out, several.filters, several.biases, several.slopes, size, box,
                scratch.planes[0], scratch.sums, scratch.rings,
            )  # fmt: skip

        self._each(size, compute)

    def _each(self, size: Size, compute: Callable[[Box, Scratch], None]) -> None:
        def in_a_thread(box: Box) -> None:
            if not hasattr(self.local, "scratch"):
                self.local.scratch = Scratch()
            compute(box, self.local.scratch)

        for _ in self.pool.map(in_a_thread, boxes(size, self.count)):
            pass


def boxes(size: Size, threads: int) -> list[Box]:
    """Cut the map of an image of that size into boxes for so many threads."""
    rows, columns = (-(-side // 4) for side in size)
    least = -(-columns // (MOST_TILES - 2)) if columns > MOST_TILES else 1
    # The number that takes the fewest products, since a row of tiles is computed in whole ROWS.
    across = min(
        range(least, min(columns, least + 4) + 1), key=lambda count: _tiles(columns, count)
    )
    down = max(1, min(-(-SHARES * threads // across), rows // LEAST_ROWS))
    return [
        (rows * y // down, left, rows * (y + 1) // down, right)
        for y in range(down)
        for left, right in _cut(columns, across)
    ]


def _cut(length: int, count: int) -> list[tuple[int, int]]:
    return [(length * part // count, length * (part + 1) // count) for part in range(count)]


def _tiles(columns: int, count: int) -> int:
    """How many tiles are computed of a row that is cut into `count` boxes."""
    cut = _cut(columns, count)
    return sum(kernels.room(min(columns, right + 1) - max(0, left - 1)) for left, right in cut)


class WholeMaps(ABC):
    """A network prepared for whole maps, as `whole_maps.WholeMapNetwork`.

    `body_share` is the body's share of all products.
    """

    fold: int
    scale: int
    body_share: float

    def open(self, level: Resolution, tail_rows: int) -> WholeMapStream:
        """Open a stream for one image, as `streams.Streamed` does."""
        return WholeMapStream(self, level, tail_rows)

    def strips(self, image: Tensor, height: int, width: int, rows: int) -> Iterator[Tensor | float]:
        with Workers() as workers:
            yield from self._strips(workers, image, (height, width), rows)

    @abstractmethod
    def _strips(
        self, workers: Workers, image: Tensor, size: Size, rows: int
    ) -> Iterator[Tensor | float]:
        """What `strips` returns, for a body's map of an image of that size."""


class WholeMapRRDB(WholeMaps):
    """An RRDBNet prepared for whole maps."""

    def __init__(self, net: RRDBNet) -> None:
        self.fold = net.unshuffle
        self.scale = 4 // net.unshuffle
        self.first = Convolution(net.conv_first)
        self.blocks = [
            DenseBlock(dense)
            for block in net.body
            if isinstance(block, RRDBBlock)  # they all are: this is for mypy
            for dense in (block.rdb1, block.rdb2, block.rdb3)
        ]
        self.last = Convolution(net.conv_body)
        self.ups = [Convolution(conv, LEAK) for conv in (net.conv_up1, net.conv_up2)]
        self.tail = Convolution(net.conv_hr, LEAK), Convolution(net.conv_last)
        # The tail's maps have 4 times the pixels of the body's, then 16 times.
        large = sum(conv.weight.numel() for conv in (net.conv_up2, net.conv_hr, net.conv_last))
        tail = 4 * net.conv_up1.weight.numel() + 16 * large
        body = sum(weight.numel() for weight in net.body.parameters())
        self.body_share = body / (body + tail)

    def _strips(
        self, workers: Workers, image: Tensor, size: Size, rows: int
    ) -> Iterator[Tensor | float]:
        height, width = size
        folded = F.pixel_unshuffle(image.permute(2, 0, 1), self.fold).permute(1, 2, 0)
        shallow = empty_map(size)
        workers.convolve(self.first, _image_map(folded), shallow, size)
        source, middle, third = shallow.copy(), empty_map(size), empty_map(size)
        for first in range(0, len(self.blocks), 3):
            # The third dense block's result goes where the second one's input was.
            chain = (source, middle, third, middle)
            for index in range(3):
                outer = source if index == 2 else None
                block = self.blocks[first + index]
                workers.add_dense(block, chain[index], chain[index + 1], size, outer)
                yield self.body_share * (first + index + 1) / len(self.blocks)
            source, middle = middle, source
        workers.convolve(self.last, source, middle, size, residual=shallow)
        del source, third, shallow
        most = min(height, rows + 2 * HALO)
        doubled, large = ((factor * most, factor * width) for factor in (2, 4))
        # Made once, since the operating system takes long to give out so much memory.
        buffers = [empty_map(doubled), empty_map(large), empty_map(large)]
        buffers.append(empty_map((4 * min(height, rows), 4 * width), self.tail[1].outputs))
        for top in range(0, height, rows):
            strip = range(top, min(top + rows, height))
            yield self._tail(workers, middle, buffers, size, strip)

    def _tail(
        self,
        workers: Workers,
        features: Map,
        buffers: list[Map],
        size: Size,
        strip: range,
    ) -> Tensor:
        """The image of the rows `strip` of the body's last map, of an image of that size."""
        height, width = size
        start, end = max(0, strip.start - HALO), min(height, strip.stop + HALO)
        if (end - start) % 2:
            # A tile is two rows of `features`, and reads one more: behind an odd number of them,
            # that of the last strip would be a row behind the map.
            start = max(0, start - 1)
        # The strip is a small map of its own. Above and below it are rows of `features`; the other
        # maps have a border there, and what is wrong because of that does not reach beyond HALO.
        doubled, large = ((factor * (end - start), factor * width) for factor in (2, 4))
        visible = 4 * len(strip), 4 * width
        sizes = doubled, large, large, visible
        one, two, three, image = map(part_of, buffers, sizes)
        workers.convolve(self.ups[0], features[start:], one, doubled, doubled=True)
        workers.convolve(self.ups[1], one, two, large, doubled=True)
        workers.convolve(self.tail[0], two, three, large)
        workers.convolve(self.tail[1], three[4 * (strip.start - start) :], image, visible)
        return torch.from_numpy(image[1 : visible[0] + 1, 1 : visible[1] + 1, :3]).clone()


class WholeMapCompact(WholeMaps):
    """An SRVGGNetCompact prepared for whole maps."""

    def __init__(self, net: SRVGGNetCompact) -> None:
        self.fold = 1
        self.scale = net.scale
        *chain, last = net.body  # convolutions and activations in turn, and a last convolution
        assert isinstance(last, nn.Conv2d)
        pairs = [
            (conv, activation.weight)
            for conv, activation in zip(chain[::2], chain[1::2], strict=True)
            if isinstance(conv, nn.Conv2d) and isinstance(activation, nn.PReLU)
        ]
        self.first, *convs = (Convolution(conv, slopes) for conv, slopes in pairs)
        self.body = [
            Several(convs[start : start + TOGETHER]) for start in range(0, len(convs), TOGETHER)
        ]
        self.last = Convolution(in_pixel_order(last, net.scale))
        whole = sum(weight.numel() for weight in net.body.parameters())
        self.body_share = 1 - last.weight.numel() / whole

    def _strips(
        self, workers: Workers, image: Tensor, size: Size, rows: int
    ) -> Iterator[Tensor | float]:
        height, width = size
        source, target = empty_map(size), empty_map(size)
        workers.convolve(self.first, _image_map(image), source, size)
        for number, several in enumerate(self.body, start=1):
            workers.chain(several, source, target, size)
            source, target = target, source
            yield self.body_share * number / len(self.body)
        del target
        buffer = empty_map((min(height, rows), width), self.last.outputs)
        for top in range(0, height, rows):
            count = min(rows, height - top)
            out = part_of(buffer, (count, width))
            workers.convolve(self.last, source[top:], out, (count, width))
            # The channels of a pixel are its block of scale x scale pixels of the result: (row,
            # column, colour). So `blocks` is (count, scale, width, scale * 3).
            channels = out[1 : count + 1, 1 : width + 1, : 3 * self.scale**2]
            pixels = channels.reshape(count, width, self.scale, -1)
            blocks = torch.from_numpy(pixels).transpose(1, 2)
            nearest = image[top : top + count].repeat(1, 1, self.scale)
            strip = torch.add(blocks, nearest[:, None])
            yield strip.reshape(count * self.scale, width * self.scale, 3)


def whole_maps(net: Net) -> WholeMaps:
    """Prepare `net` for whole maps. Copies its weights."""
    return WholeMapRRDB(net) if isinstance(net, RRDBNet) else WholeMapCompact(net)


def _image_map(image: Tensor) -> Map:
    """The map of an image of shape (rows, columns, channels), with channels for whole vectors."""
    height, width, channels = image.shape
    result = empty_map((height, width), channels + -channels % kernels.LANES)
    result[1 : height + 1, 1 : width + 1, :channels] = image.numpy()
    return result
