"""Run a network over an image, band by band as a plan says."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from upscaler.engine.layers import Resolution
from upscaler.engine.spool import BandSpool
from upscaler.engine.streams import Streamed
from upscaler.engine.tensors import to_network
from upscaler.errors import Overflow
from upscaler.models import Model
from upscaler.planning import Plan, Tile
from upscaler.settings import Precision

Convert = Callable[[Tensor], Tensor]
"""Converts a network's float rows to uint8 samples of the same height and width."""
Advance = Callable[[float], None]
"""Called with the number of bands that are done, such as 1.5."""


class BandedNetwork(NamedTuple):
    """The network of `model`, ready to run in `precision`. It keeps no state of any image."""

    model: Model
    network: Streamed
    precision: Precision

    def upscale(
        self, source: Tensor, plan: Plan, convert: Convert, advance: Advance = lambda _: None
    ) -> Iterator[Tensor]:
        """Upscale `source`, uint8 of shape (height, width, 3); yield strips of rows, top to bottom.

        With one band each strip is yielded as soon as it is computed. With several bands there is
        one strip, the whole image, because no row is complete before the last band is; or, if the
        plan has a folder `spool`, the bands wait in a file there, and there are strips in the
        host's memory. Raises Overflow if the network's output is not finite, and OSError if the
        file cannot be written.
        """
        if len(plan.tiles) == 1:
            yield from self._upscale_band(source, plan.tiles[0], plan, convert, advance)
            return
        if plan.spool is not None:
            yield from self._spooled(source, plan, convert, advance, plan.spool)
            return
        scale = self.model.scale
        whole: Tensor | None = None  # allocated once `convert` has shown its number of channels
        for number, tile in enumerate(plan.tiles):
            columns = tile.core.scaled(scale).slices[1]
            row = 0
            for strip in self._upscale_band(source, tile, plan, convert, _from(number, advance)):
                if whole is None:
                    height, width, _ = source.shape
                    whole = strip.new_empty(height * scale, width * scale, strip.shape[2])
                whole[row : row + len(strip), columns] = strip
                row += len(strip)
        assert whole is not None
        yield whole

    def _spooled(
        self, source: Tensor, plan: Plan, convert: Convert, advance: Advance, folder: Path
    ) -> Iterator[Tensor]:
        """Upscale all bands to a file in `folder`, then yield strips of the whole image."""
        scale = self.model.scale
        widths = [tile.core.width * scale for tile in plan.tiles]
        with closing(BandSpool(folder, widths, len(source) * scale)) as spool:
            for number, tile in enumerate(plan.tiles):
                advance_band = _from(number, advance)
                for strip in self._upscale_band(source, tile, plan, convert, advance_band):
                    spool.write(strip)
            yield from spool.strips()

    def _upscale_band(
        self, source: Tensor, tile: Tile, plan: Plan, convert: Convert, advance: Advance
    ) -> Iterator[Tensor]:
        """Upscale a tile's core; yield strips. Raises Overflow instead of the last strip."""
        multiple, scale = self.model.multiple, self.model.scale
        region = source[tile.surround.slices]
        height, width, _ = region.shape
        level = Resolution(height // multiple, width // multiple, plan.rows)
        columns = tile.core.within(tile.surround).scaled(scale).slices[1]
        stream = self.network.open(level, plan.tail_rows)
        pushed, left = 0, height * scale  # rows of the input, and rows of the output
        total = torch.zeros((), device=source.device)
        while left:
            with torch.inference_mode():
                rows = region[pushed : pushed + plan.rows * multiple]
                pushed += len(rows)
                result = stream.push(to_network(rows) if len(rows) else None)
                advance(1.0 if result is not None and len(result) == left else stream.share)
                if result is None:
                    continue  # the network lags behind its input and has no rows yet
                core = result[:, columns]
                total += core.sum(dtype=torch.float32)
                samples = convert(core)
            left -= len(samples)
            # A single value that is not finite makes the sum infinite or NaN. The sum is read only
            # once, at the end, because reading it waits for the GPU.
            if not left and not total.isfinite():
                raise Overflow(
                    f"{self.model.name} overflows on this image in {self.precision}: "
                    "use fp32, or other weights"
                )
            yield samples


def _from(number: int, advance: Advance) -> Advance:
    """What a band calls, before which `number` others were done."""
    return lambda share: advance(number + share)
