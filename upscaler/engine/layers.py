"""The layers of a network as streams: rows of one feature map go in, rows of the next come out.

`push` gives a layer some rows of its input, in the folded layout of its method, and returns the
rows of its output that can be computed by now, or None if there are none. `push(None)` gives no
rows and asks for those that are still due; callers repeat it until all rows are out. A push has at
most `Resolution.rows` rows. Every row is computed once, from the same values as in the whole map.
Between two pushes a layer keeps only the few rows that its next outputs depend on.
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
    """What the layers at one resolution share.

    `height` and `width` are the size of the whole map in pixels, and `rows` is the most rows per
    push. The buffers are scratch memory for whichever layer is computing: no two layers of a stream
    compute at the same time, so one buffer per shape is enough.
    """

    height: int
    width: int
    rows: int
    buffers: dict[tuple[object, ...], Tensor] = field(default_factory=dict)

    def doubled(self) -> "Resolution":
        """The resolution after upsampling by two. It shares the buffers with this one."""
        return replace(self, height=self.height * 2, width=self.width * 2, rows=self.rows * 2)

    def buffer(self, method: Method, rows: int, channels: int) -> Tensor:
        """Scratch memory for a window, uninitialised; the same tensor for the same shape."""
        shape = method.planes, rows, method.tiles(self.width), channels
        key = (method.products, *shape)
        if key not in self.buffers:
            self.buffers[key] = torch.empty(shape, dtype=method.products, device=method.device)
        return self.buffers[key]


class Layer(Protocol):
    """A step of a network that takes rows and returns rows."""

    def push(self, x: Tensor | None) -> Tensor | None:
        """Take rows of the input, or None; return the output rows that are ready, or None."""


class Convolutions:
    """Convolutions each of which reads the input and the outputs of all those before it.

    With one kernel it is a plain convolution, with five a dense block. The output is that of the
    last kernel. All maps are slices of the channels of one window, so nothing is concatenated. An
    output row depends on the rows above and below it, so each kernel is a row behind the one
    before, until the last row of the image, which is followed by a row of zeros.
    """

    def __init__(self, kernels: Sequence[Kernel], method: Method, level: Resolution) -> None:
        self.kernels = kernels
        self.method = method
        self.level = level
        # The number of rows so far of the input and of each convolution's output.
        self.done = [0] * (len(kernels) + 1)
        # The rows of the window that are still needed, from row `first` on. At first it is row -1,
        # the padding above the image. Allocated here and not at the first push: what lasts comes
        # before anything short-lived, otherwise the heap becomes fragmented.
        self.channels = kernels[-1].in_channels
        shape = method.planes, len(kernels) + 2, method.tiles(level.width), self.channels
        self.kept = torch.zeros(shape, dtype=method.products, device=method.device)
        self.kept_rows = 1
        self.first = -1

    def push(self, x: Tensor | None) -> Tensor | None:
        if x is None and self.done[0] in (0, self.done[-1]):
            return None  # nothing was pushed yet, or everything is out
        # The kept rows, then room for new ones: those pushed now, and the padding below the image.
        window_rows = self.level.rows + len(self.kernels) + 2
        window = self.level.buffer(self.method, window_rows, self.channels)
        window[:, : self.kept_rows] = self.kept[:, : self.kept_rows]
        if x is not None:
            start, stop = self.done[0], self.done[0] + x.shape[1]
            rows = self._rows(window, start, stop)
            self.method.transform(x, rows[..., : self.kernels[0].in_channels])
            if stop == self.level.height:
                self._rows(window, stop, stop + 1).zero_()
            self.done[0] = stop
        result = None
        for number, kernel in enumerate(self.kernels, start=1):
            start = self.done[number]
            result = self._convolve(number, kernel, window)
            if result is not None and number < len(self.kernels):
                # Each kernel's input channels end where its output channels begin.
                channels = slice(kernel.in_channels, kernel.in_channels + kernel.out_channels)
                rows = self._rows(window, start, self.done[number])
                self.method.transform(result, rows[..., channels])
        self._keep(window)
        return result

    def _rows(self, window: Tensor, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of the map, which may begin with row -1, as part of `window`."""
        return window[:, start - self.first : stop - self.first]

    def _convolve(self, number: int, kernel: Kernel, window: Tensor) -> Tensor | None:
        """The rows of a kernel's output that are ready, folded; `number` counts from 1."""
        start, source = self.done[number], self.done[number - 1]
        # The last row that is there lacks the row below it, unless that is the padding.
        ready = source if source == self.level.height else source - 1
        # At the end of the image more rows may be ready than a push may return.
        stop = min(ready, start + self.level.rows)
        if stop <= start:
            return None
        self.done[number] = stop
        rows = self._rows(window, start - 1, stop + 1)[..., : kernel.in_channels]
        return self.method.convolve(rows, kernel, self.level.width)

    def _keep(self, window: Tensor) -> None:
        """Copy what later rows depend on, since the next layer overwrites the buffer."""
        ended = self.done[0] == self.level.height
        first = self.done[-1] - 1
        rows = self._rows(window, first, self.done[0] + ended)
        self.kept_rows = rows.shape[1]
        self.kept[:, : self.kept_rows] = rows
        self.first = first


class Queue:
    """A FIFO queue of rows in a ring buffer, whose capacity is the size of its dimension `dim`."""

    def __init__(self, ring: Tensor, dim: int) -> None:
        self.ring = ring
        self.dim = dim
        self.taken = 0
        self.waiting = 0

    def put(self, rows: Tensor) -> None:
        """Copy `rows` to the end of the queue; RuntimeError if they exceed its capacity."""
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
        """Remove the first `count` rows and return them in one or two parts, in order.

        The parts are views of the ring: they are valid until the next `put`. Raises RuntimeError if
        there are fewer rows.
        """
        if count > self.waiting:
            raise RuntimeError("a row is returned before it was pushed")
        parts = self._parts(self.taken, count)
        self.taken += count
        self.waiting -= count
        return parts

    def _parts(self, start: int, count: int) -> list[Tensor]:
        """Rows `start` to `start + count`, counted from the first `put`, split where they wrap."""
        size = self.ring.shape[self.dim]
        start %= size
        first = min(count, size - start)
        parts = (
            self.ring.narrow(self.dim, start, first),
            self.ring.narrow(self.dim, 0, count - first),
        )
        return [part for part in parts if part.shape[self.dim]]


class Residual:
    """The input plus `scale` times the output of `inner`, which lags at most `lag` rows behind."""

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
        # Rows of x that are added at once skip the queue, so it needs room for the lag alone.
        waited = min(count, self.queue.waiting)
        parts = self.queue.take(waited)
        if x is not None:
            parts.append(x[:, : count - waited])
        if y is not None:
            # `inner` may compute in bf16; the sum is kept in the method's `sums`.
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
    """Layers in sequence: the output rows of each are the input rows of the next."""

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers

    def push(self, x: Tensor | None) -> Tensor | None:
        for layer in self.layers:
            x = layer.push(x)
        return x


class NearestUpsample2x:
    """Nearest-neighbour upsampling by two; `level` is the resolution of the result."""

    def __init__(self, method: Method, level: Resolution) -> None:
        self.method = method
        self.width = level.width

    def push(self, x: Tensor | None) -> Tensor | None:
        return None if x is None else self.method.double(x, self.width)


class ConvertLayout:
    """Convert a map from the layout of one method to that of another."""

    def __init__(self, source: Method, target: Method, level: Resolution) -> None:
        self.source = source
        self.target = target
        self.width = level.width

    def push(self, x: Tensor | None) -> Tensor | None:
        if x is None or self.source is self.target:
            return x
        return self.target.fold(self.source.unfold(x, self.width))


class Chunked:
    """Push the input into `inner` at most `rows` rows at a time, and join the outputs."""

    def __init__(self, inner: Layer, rows: int) -> None:
        self.inner = inner
        self.rows = rows

    def push(self, x: Tensor | None) -> Tensor | None:
        pieces = (None,) if x is None else torch.split(x, self.rows, dim=1)
        outputs = [y for y in map(self.inner.push, pieces) if y is not None]
        return torch.cat(outputs, dim=1) if outputs else None
