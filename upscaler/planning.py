"""How an image goes through a network in a given amount of memory: integers only.

A network takes an image's rows one after the other and needs memory for its width (see
`engine.streams`). Most images go through whole. One whose rows are too long for the memory is cut
into bands, tiles of the image's whole height. A tile has a core, the part of the image it is
responsible for, and a surround: the core and a halo of context on both sides. The cores partition
the image: each pixel is in exactly one. At the image's border the halo ends with the image, so
that a network pads there just as it does when it sees the whole image.

All positions are in pixels of the network's input. `python benchmarks/footprints.py` measures the
memory figures.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Final

from upscaler.api.sizes import Size
from upscaler.errors import OutOfMemory
from upscaler.models import RRDB, Compact, Model
from upscaler.settings import Device, Precision

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
class Box:
    """A rectangle of pixels; `right` and `bottom` are the first column and row outside it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index an array of shape (height, width, ...)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def scaled(self, scale: int) -> "Box":
        """The same rectangle in a picture whose sides are `scale` times as long."""
        return Box(self.left * scale, self.top * scale, self.right * scale, self.bottom * scale)

    def within(self, outer: "Box") -> "Box":
        """The same rectangle, counted from the top left corner of `outer`."""
        return Box(
            self.left - outer.left,
            self.top - outer.top,
            self.right - outer.left,
            self.bottom - outer.top,
        )


@dataclass(frozen=True)
class Tile:
    """A core and what the network is shown to compute it."""

    core: Box
    surround: Box


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


MEASURED: Final = {
    (Compact, 16, Precision.FP32): (0, 21_712, 3_305, 0),
    (Compact, 16, Precision.MIXED): (1_770_389, 5_775, 1_718, 0),
    (Compact, 16, Precision.BF16): (1_550_468, 7_453, 1_487, 0),
    (Compact, 32, Precision.FP32): (0, 42_707, 3_469, 0),
    (Compact, 32, Precision.MIXED): (1_924_781, 12_017, 1_851, 0),
    (Compact, 32, Precision.BF16): (1_566_521, 14_450, 1_618, 0),
    (RRDB, 6, Precision.FP32): (4_396_507, 248_309, 7_619, 30_312),
    (RRDB, 6, Precision.MIXED): (7_824_912, 132_604, 5_109, 21_999),
    (RRDB, 6, Precision.BF16): (3_431_752, 127_329, 5_485, 5_251),
    (RRDB, 23, Precision.FP32): (17_027_351, 789_644, 10_692, 40_995),
    (RRDB, 23, Precision.MIXED): (9_767_465, 415_943, 8_426, 23_625),
    (RRDB, 23, Precision.BF16): (10_490_740, 383_809, 8_484, 10_633),
}
"""The bytes of a Footprint on a CPU: fixed, column, flow and tail, by the kind of network, how many
blocks or convolutions it has, and the precision."""
HEAP_BYTES: Final = 8 * MIB
"""On top of that: by about so much the same picture takes more at one time than at another."""
AT_ONCE_PX: Final = {Device.CPU: (2**15, 2**11), Device.CUDA: (2**20, 2**16)}
"""How many pixels the body and the tail should take at once. On two cores of a CPU times are within
a few percent from half to twice as many. Those for GPUs keep thousands of cores busy and are not
measured yet."""


def footprint(network: RRDB | Compact, precision: Precision, device: str) -> Footprint:
    """What `network` needs in that precision on `device`, a torch device's type.

    Sums are as wide as products on a GPU and nothing is transformed, so what was measured on a CPU
    for bf16, or for fp32, is an upper bound there.
    """
    depth = network.num_block if isinstance(network, RRDB) else network.num_conv
    alike = Precision.BF16 if precision is Precision.FP16 else precision
    fixed, column, flow, tail = _measured(type(network), depth, alike)
    at_once = AT_ONCE_PX[Device.CPU if device == Device.CPU else Device.CUDA]
    return Footprint(fixed + HEAP_BYTES, column, flow, tail, *at_once)


def _measured(kind: type, depth: int, precision: Precision) -> tuple[int, ...]:
    """The figures of MEASURED for a network of that depth.

    One that was not measured is on the line through those that were: each block or convolution
    keeps the same rows.
    """
    known = {key[1]: figures for key, figures in MEASURED.items() if key[::2] == (kind, precision)}
    if depth in known:
        return known[depth]
    low, high = min(known), max(known)
    return tuple(
        max(0, ceil(first + (last - first) * (depth - low) / (high - low)))
        for first, last in zip(known[low], known[high], strict=True)
    )


def bands(width: int, height: int, count: int, halo: int, multiple: int = 1) -> list[Tile]:
    """A picture of `width` x `height` pixels cut into `count` tiles of its whole height.

    The cores differ by at most `multiple` pixels, so that there are no slivers. Every core and
    surround starts and ends at a multiple of `multiple`, which must divide both sides of the
    picture. Raises ValueError for what cannot be met.
    """
    if width < 1 or height < 1 or width % multiple or height % multiple:
        raise ValueError(f"a picture of {width}x{height} cannot be cut at multiples of {multiple}")
    if halo < 0 or not 1 <= count <= width // multiple:
        raise ValueError(f"{width} pixels make no {count} tiles with a halo of {halo}")
    halo += -halo % multiple
    units = width // multiple
    cuts = [multiple * (units * piece // count) for piece in range(count + 1)]
    return [
        Tile(
            core=Box(left, 0, right, height),
            surround=Box(max(left - halo, 0), 0, min(right + halo, width), height),
        )
        for left, right in pairwise(cuts)
    ]


def plans(model: Model, size: Size, channels: int, footprint: Footprint) -> list[Plan]:
    """Every plan for a picture of that size (width, height) in pixels, the cheapest first.

    `channels` is 3 or 4. The sides are counted as the next multiples of what the model's must be.
    """
    width, height = (side + -side % model.multiple for side in size)
    enlarged_px = width * height * model.scale**2
    found = []
    for count in range(1, max(1, width // max(MIN_BAND_PX, model.multiple)) + 1):
        tiles = tuple(bands(width, height, count, model.halo, model.multiple))
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
    raise OutOfMemory(f"this image needs {smallest.bytes / MIB:,.0f} MiB at least: allow it more")


def _row_counts(height: int, wanted: int) -> list[int]:
    """So many rows as are wanted, and by halves down to the fewest."""
    counts = [max(MIN_ROWS, min(height, wanted))]
    while counts[-1] > MIN_ROWS:
        counts.append(max(MIN_ROWS, counts[-1] // 2))
    return counts
