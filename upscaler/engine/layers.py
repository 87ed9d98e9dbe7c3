"""The layers of a network as streams: rows of a map go in at the top, rows of the next come out.

A layer is pushed some rows of its input, folded as its method folds them, or None for no more than
it has already, and answers with what rows of its result can be had by now, or None. It is pushed
no more rows at once than its level allows, and the pushing goes on until all rows have come out.
Every row is computed once, from the same values as on the whole map; what a layer keeps between
two pushes is the few rows that its next results depend on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from upscaler.engine.convolution import Kernel, Method
from upscaler.engine.networks import NUM_FEAT


@dataclass(frozen=True)
class Resolution:
    """What the layers at one resolution have in common.

    The size of the whole map, how many of its rows go through at once, and buffers that belong to
    whichever layer is at work.
    """

    height: int
    width: int
    rows: int
    buffers: dict[tuple[object, ...], Tensor] = field(default_factory=dict)

    def doubled(self) -> "Resolution":
        return replace(self, height=self.height * 2, width=self.width * 2, rows=self.rows * 2)

    def buffer(self, method: Method, rows: int, channels: int) -> Tensor:
        """Uninitialised memory for a window, the same one for the same shape."""
        shape = method.planes, rows, method.tiles(self.width), channels
        key = (method.products, *shape)
        if key not in self.buffers:
            self.buffers[key] = torch.empty(shape, dtype=method.products, device=method.device)
        return self.buffers[key]


class Layer(Protocol):
    """What rows are pushed into."""

    def push(self, x: Tensor | None) -> Tensor | None:
        """Some rows more, or none, to the rows that can be had by now, or none."""


class Convolutions:
    """Convolutions of which each sees the input and the results of all those before it.

    One of them is a plain convolution, five are a dense block. The answer is the last one's result.
    """

    def __init__(self, kernels: Sequence[Kernel], method: Method, level: Resolution) -> None:
        self.kernels = kernels
        self.method = method
        self.level = level
        # How many rows there have been of the input and of each convolution's result.
        self.done = [0] * (len(kernels) + 1)
        # The rows of the window that are still needed, from `first` on; row -1 is the padding.
        # What lasts is allocated before anything that does not, or the heap would fill with holes.
        self.channels = kernels[-1].in_channels
        shape = method.planes, len(kernels) + 2, method.tiles(level.width), self.channels
        self.kept = torch.zeros(shape, dtype=method.products, device=method.device)
        self.kept_rows = 1
        self.first = -1

    def push(self, x: Tensor | None) -> Tensor | None:
        if x is None and self.done[0] in (0, self.done[-1]):
            return None
        window = self._window()
        if x is not None:
            self._enter(x, window)
        result = None
        for number, kernel in enumerate(self.kernels, start=1):
            start = self.done[number]
            result = self._convolve(number, kernel, window)
            if result is not None and number < len(self.kernels):
                channels = slice(kernel.in_channels, kernel.in_channels + kernel.out_channels)
                rows = self._rows(window, start, self.done[number])
                self.method.transform(result, rows[..., channels])
        self._keep(window)
        return result

    def _window(self) -> Tensor:
        """The rows that were kept, and room for those to come, the padding below among them."""
        rows = self.level.rows + len(self.kernels) + 2
        window = self.level.buffer(self.method, rows, self.channels)
        window[:, : self.kept_rows] = self.kept[:, : self.kept_rows]
        return window

    def _rows(self, window: Tensor, start: int, stop: int) -> Tensor:
        return window[:, start - self.first : stop - self.first]

    def _enter(self, x: Tensor, window: Tensor) -> None:
        start, stop = self.done[0], self.done[0] + x.shape[1]
        rows = self._rows(window, start, stop)
        self.method.transform(x, rows[..., : self.kernels[0].in_channels])
        if stop == self.level.height:
            self._rows(window, stop, stop + 1).zero_()
        self.done[0] = stop

    def _convolve(self, number: int, kernel: Kernel, window: Tensor) -> Tensor | None:
        start, source = self.done[number], self.done[number - 1]
        ready = source if source == self.level.height else source - 1
        stop = min(ready, start + self.level.rows)
        if stop <= start:
            return None
        self.done[number] = stop
        rows = self._rows(window, start - 1, stop + 1)[..., : kernel.in_channels]
        return self.method.convolve(rows, kernel, self.level.width)

    def _keep(self, window: Tensor) -> None:
        """Copy what later rows depend on: the buffer is another layer's from here on."""
        ended = self.done[0] == self.level.height
        first = self.done[-1] - 1
        rows = self._rows(window, first, self.done[0] + ended)
        self.kept_rows = rows.shape[1]
        self.kept[:, : self.kept_rows] = rows
        self.first = first


class Queue:
    """Rows that wait for others to be ready, in a ring: as many as dimension `dim` of it has."""

    def __init__(self, ring: Tensor, dim: int) -> None:
        self.ring = ring
        self.dim = dim
        self.taken = 0
        self.waiting = 0

    def put(self, rows: Tensor) -> None:
        count = rows.shape[self.dim]
        if self.waiting + count > self.ring.shape[self.dim]:
            raise RuntimeError("the ring is too small")
        start = 0
        for part in self._parts(self.taken + self.waiting, count):
            length = part.shape[self.dim]
            part.copy_(rows.narrow(self.dim, start, length))
            start += length
        self.waiting += count

    def take(self, count: int) -> list[Tensor]:
        """The `count` rows that have waited longest, one part after the other.

        They are good until the next rows are put.
        """
        if count > self.waiting:
            raise RuntimeError("a row is answered before it was pushed")
        parts = self._parts(self.taken, count)
        self.taken += count
        self.waiting -= count
        return parts

    def _parts(self, start: int, count: int) -> list[Tensor]:
        """Rows `start` to `start + count` of all, which may reach over the end of the ring."""
        size = self.ring.shape[self.dim]
        start %= size
        first = min(count, size - start)
        parts = (
            self.ring.narrow(self.dim, start, first),
            self.ring.narrow(self.dim, 0, count - first),
        )
        return [part for part in parts if part.shape[self.dim]]


class Residual:
    """The input, and `scale` times what `inner` makes of it, which is at most `lag` rows behind."""

    def __init__(
        self, inner: Layer, scale: float, lag: int, level: Resolution, method: Method
    ) -> None:
        self.inner = inner
        self.scale = scale
        self.dtype = method.sums
        ring = method.empty(min(lag, level.height), level.width, NUM_FEAT)
        self.queue = Queue(ring, dim=1)

    def push(self, x: Tensor | None) -> Tensor | None:
        y = self.inner.push(x)
        count = 0 if y is None else y.shape[1]
        waited = min(count, self.queue.waiting)
        parts = self.queue.take(waited)
        if x is not None:
            parts.append(x[:, : count - waited])
        if y is not None:
            total = y if y.dtype == self.dtype else torch.empty_like(y, dtype=self.dtype)
            start = 0
            for part in parts:
                rows = slice(start, start + part.shape[1])
                torch.add(part, y[:, rows], alpha=self.scale, out=total[:, rows])
                start = rows.stop
            y = total
        if x is not None:
            self.queue.put(x[:, count - waited :])
        return y


class Chain:
    """One layer after the other."""

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers

    def push(self, x: Tensor | None) -> Tensor | None:
        for layer in self.layers:
            x = layer.push(x)
        return x


class NearestUpsample2x:
    """Every row and every column twice."""

    def __init__(self, method: Method, level: Resolution) -> None:
        self.method = method
        self.width = level.width

    def push(self, x: Tensor | None) -> Tensor | None:
        return None if x is None else self.method.double(x, self.width)


class ConvertLayout:
    """A map from one method's layout to another's."""

    def __init__(self, source: Method, target: Method, level: Resolution) -> None:
        self.source = source
        self.target = target
        self.width = level.width

    def push(self, x: Tensor | None) -> Tensor | None:
        if x is None or self.source is self.target:
            return x
        return self.target.fold(self.source.unfold(x, self.width))


class Chunked:
    """A layer that gets its input so many rows at a time, and whose answers are put together."""

    def __init__(self, inner: Layer, rows: int) -> None:
        self.inner = inner
        self.rows = rows

    def push(self, x: Tensor | None) -> Tensor | None:
        pieces = (None,) if x is None else torch.split(x, self.rows, dim=1)
        answers = [y for y in map(self.inner.push, pieces) if y is not None]
        return torch.cat(answers, dim=1) if answers else None
