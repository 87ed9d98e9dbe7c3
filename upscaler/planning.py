"""How a picture goes through a network in a given amount of memory: integers only.

A network takes a picture's rows one after the other and needs memory for its width (see `streams`).
Most pictures go through whole. One whose rows are too long for the memory is cut into bands of its
whole height, and these overlap by a halo, so that the fewest bands are the least work.
"""

from dataclasses import dataclass
from typing import Final

from upscaler import tiling
from upscaler.api.request import Size
from upscaler.errors import OutOfMemory
from upscaler.models import Model
from upscaler.tiling import Tile

MIB: Final = 2**20
MIN_ROWS: Final = 4
"""Fewer rows at once would take longer and hardly less memory."""
MIN_BAND_PX: Final = 64
STEP_COST_PX: Final = 2048
"""What it costs to send some rows through a network, in pixels that could be computed meanwhile."""


@dataclass(frozen=True)
class Footprint:
    """The memory that a network works in, in bytes, next to its weights and the two pictures.

    All pixels are those of its smallest map, the body's: `fixed` however large the picture is,
    `column` for each pixel of width, `flow` for each pixel that goes through the body at once, and
    `tail` for each that goes through the tail at once. `step_px` is how many pixels should go
    through at once: enough to keep the processor busy, and not so many as to fall out of its cache.
    `tail_px` is the same for the tail.
    """

    fixed: int
    column: int
    flow: int
    tail: int
    step_px: int
    tail_px: int

    def bytes(self, width: int, rows: int, tail_rows: int) -> int:
        at_once = self.column + self.flow * rows + self.tail * tail_rows
        return self.fixed + width * at_once


@dataclass(frozen=True)
class Plan:
    """The bands of a picture, and how many rows of the body's map go through at once.

    `bytes` is the most memory that this is expected to take over that of the loaded model, and
    `cost` is what the choice between plans goes by, in pixels computed.
    """

    tiles: tuple[Tile, ...]
    rows: int
    tail_rows: int
    bytes: int
    cost: int

    @property
    def overhead(self) -> float:
        """The share of pixels that are computed once more than they would have to be."""
        computed = sum(tile.surround.width for tile in self.tiles)
        return computed / sum(tile.core.width for tile in self.tiles) - 1

    def __str__(self) -> str:
        widest = max(self.tiles, key=lambda tile: tile.surround.width).surround
        bands = "whole" if len(self.tiles) == 1 else f"in {len(self.tiles)} bands"
        return (
            f"{bands}, {widest.width}x{widest.height} px, {self.rows} rows at once and "
            f"{self.tail_rows} in the tail, {self.overhead:.1%} computed twice, "
            f"{self.bytes / MIB:,.0f} MiB"
        )


def plans(model: Model, size: Size, channels: int, footprint: Footprint) -> list[Plan]:
    """Every plan for a picture of that size (width, height) in pixels, the cheapest first.

    `channels` is 3 or 4. The sides are counted as the next multiples of what the model's must be.
    """
    width, height = (side + -side % model.multiple for side in size)
    enlarged_px = width * height * model.scale**2
    found = []
    for count in range(1, max(1, width // max(MIN_BAND_PX, model.multiple)) + 1):
        tiles = tuple(tiling.bands(width, height, count, model.halo, model.multiple))
        widest = max(tile.surround.width for tile in tiles) // model.multiple
        # Alpha is enlarged first and waits, and bands are put together before it joins them.
        held = enlarged_px * (3 if channels == 3 else 5 if count == 1 else 8)
        computed = sum(tile.surround.width for tile in tiles) * height
        for rows in _row_counts(height // model.multiple, footprint.step_px // widest):
            tail_rows = min(rows, max(1, footprint.tail_px // widest))
            steps = count * -(-height // (rows * model.multiple))
            needed = footprint.bytes(widest, rows, tail_rows) + held
            found.append(Plan(tiles, rows, tail_rows, needed, computed + steps * STEP_COST_PX))
    return sorted(found, key=lambda plan: (plan.cost, plan.bytes))


def cheapest(choices: list[Plan], memory: int | None, free: int) -> Plan:
    """The first of `choices` that fits into `memory` bytes, by default half of what is `free`.

    Where not even the smallest fits into half, it is taken all the same. Raises OutOfMemory for a
    `memory` that is too small for any.
    """
    budget = free // 2 if memory is None else memory
    fitting = [plan for plan in choices if plan.bytes <= budget]
    if fitting:
        return fitting[0]
    smallest = min(choices, key=lambda plan: plan.bytes)
    if memory is None:
        return smallest
    raise OutOfMemory(f"this picture needs {smallest.bytes / MIB:,.0f} MiB at least: allow it more")


def _row_counts(height: int, wanted: int) -> list[int]:
    """So many rows as are wanted, and by halves down to the fewest."""
    counts = [max(MIN_ROWS, min(height, wanted))]
    while counts[-1] > MIN_ROWS:
        counts.append(max(MIN_ROWS, counts[-1] // 2))
    return counts
