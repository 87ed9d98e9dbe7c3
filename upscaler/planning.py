"""How to upscale an image within a memory budget: integer arithmetic only, without torch.

A network reads an image a few rows at a time and needs memory in proportion to the image's width
(see `engine.streams`). Most images are upscaled whole. An image whose rows are too long for the
memory is cut into bands, which are tiles of the image's full height. Each tile has a core, the
part of the image that it produces, and a surround: the core plus a halo of context on both sides.
The cores partition the image: each pixel is in exactly one. At the image's border the halo ends
with the image, so that the network pads there exactly as it does for the whole image.

All positions are in pixels of the network's input. `python benchmarks/footprints.py` measures the
memory figures.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, pairwise
from math import ceil
from pathlib import Path
from typing import Final

from upscaler.api.sizes import Size
from upscaler.errors import OutOfMemory
from upscaler.models import RRDB, Compact, Model
from upscaler.settings import Device, Precision

MIB: Final = 2**20
MIN_ROWS: Final = 4
"""The fewest rows per step. Fewer would take longer and save hardly any memory."""
MIN_BAND_PX: Final = 64
STEP_COST_PX: Final = 2048
"""The fixed cost of one step of a network, in pixels that could be computed in the same time."""
SPOOL_COST: Final = 16
"""One in so many pixels is what it costs to write an image's result to a file and read it again: 48
bytes for each pixel of the input, where the fastest network takes microseconds for a pixel."""
SPOOL_BYTES: Final = 2**24
"""About how much memory is taken to read a result from a file."""


@dataclass(frozen=True)
class Footprint:
    """The working memory of a network in bytes, without its weights and the two images.

    Pixels are counted on the network's smallest feature map, that of the body. `fixed` is needed
    for any image, `column` per pixel of width, `flow` per pixel in one step of the body, and `tail`
    per pixel in one step of the tail. `step_px` is the best number of pixels per step of the body:
    enough to keep the processor busy, and few enough to stay in its cache. `tail_px` is the same
    for the tail. With `whole` the body takes all rows of a band in one step. `cost` is how many
    times as long a pixel takes as by the fastest way on that device.
    """

    fixed: int
    column: int
    flow: int
    tail: int
    step_px: int
    tail_px: int
    whole: bool = False
    cost: int = 1

    def bytes(self, width: int, rows: int, tail_rows: int) -> int:
        """The memory for a map of `width` pixels in steps of `rows` and `tail_rows` rows."""
        return self.fixed + width * (self.column + self.flow * rows + self.tail * tail_rows)


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
        """The rows and columns as slices of an array of shape (height, width, ...)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def scaled(self, scale: int) -> "Box":
        """The same rectangle in an image that is `scale` times as large on each side."""
        return Box(self.left * scale, self.top * scale, self.right * scale, self.bottom * scale)

    def within(self, outer: "Box") -> "Box":
        """The same rectangle relative to the top left corner of `outer`."""
        return Box(
            self.left - outer.left,
            self.top - outer.top,
            self.right - outer.left,
            self.bottom - outer.top,
        )


@dataclass(frozen=True)
class Tile:
    """The part of the image to produce (`core`) and the part the network reads (`surround`)."""

    core: Box
    surround: Box


@dataclass(frozen=True)
class Plan:
    """The bands of an image, and the rows of the body's map that are computed per step.

    `bytes` is the expected peak of memory beyond the loaded model. `cost` ranks plans: the input
    pixels that they compute, including overlaps, plus STEP_COST_PX for every step.

    With `spool`, a folder, nothing of the result's size is held in memory: alpha is computed along
    with the colours, and bands wait in temporary files there, of `disk` bytes in all. With `whole`
    it is for whole maps.
    """

    tiles: tuple[Tile, ...]
    rows: int
    tail_rows: int
    bytes: int
    cost: int
    spool: Path | None = None
    disk: int = 0
    whole: bool = False

    @property
    def overhead(self) -> float:
        """The share of pixels that are computed twice because bands overlap; 0 for one band."""
        computed = sum(tile.surround.width for tile in self.tiles)
        return computed / sum(tile.core.width for tile in self.tiles) - 1

    def __str__(self) -> str:
        widest = max(self.tiles, key=lambda tile: tile.surround.width).surround
        bands = "whole" if len(self.tiles) == 1 else f"in {len(self.tiles)} bands"
        return (
            f"{bands}, {widest.width}x{widest.height} px, {self.rows} rows at once and "
            f"{self.tail_rows} in the tail, {self.overhead:.1%} computed twice, "
            f"{self.bytes / MIB:,.0f} MiB"
            + (f", {self.disk / MIB:,.0f} MiB on disk" if self.disk else "")
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
"""A Footprint's `fixed`, `column`, `flow` and `tail` in bytes on a CPU, by the kind of network, its
number of blocks or convolutions, and the precision. Printed by benchmarks/footprints.py, which fits
them to the peak memory of processes."""
HEAP_BYTES: Final = 8 * MIB
"""Added to `fixed`: by about this much the memory for the same image varies between runs."""
WHOLE_TAIL_PX: Final = 2**17
"""`tail_px` of whole maps: two strips for an input of 512x512, so that a half of the result is
copied and encoded while the other is computed, and few enough rows are computed twice in others."""
COMPILED_TAIL_PX: Final = 2**13
"""`tail_px` of whole maps on a CPU: 16 rows for a width of 512 pixels, and four computed twice."""
COMPILED_SCRATCH_BYTES: Final = 9 * MIB
"""What each thread needs to compute on whole maps: 8.5 MB of `engine.cpu.whole_maps.Scratch`."""
STREAMS_COST: Final = 3
"""How many times as long a network takes by streams as on whole maps, in fp32 on a CPU: 2 to 3."""
CUDA_SLACK_BYTES: Final = 64 * MIB
"""What torch's allocator for CUDA takes more than tensors hold: it rounds large ones up to 2 MiB,
and divides blocks of 20 MiB among smaller ones."""
AT_ONCE_PX: Final = {Device.CPU: (2**15, 2**11), Device.CUDA: (2**20, 2**16)}
"""The pixels per step of the body and of the tail. On two cores of a CPU half or twice as many
change the time by a few percent. The values for GPUs are estimates to keep thousands of cores busy;
they have not been measured."""


def footprint(network: RRDB | Compact, precision: Precision, device: str) -> Footprint:
    """The working memory of `network` in that precision on `device`, the `type` of a torch device.

    On a GPU it is an upper bound: convolutions there sum in the precision of their products and are
    never transformed (Winograd), so they need no more than on a CPU.
    """
    depth = network.num_block if isinstance(network, RRDB) else network.num_conv
    # fp16 was not measured, since CPUs do not support it: a number has two bytes, as in bf16.
    measured_as = Precision.BF16 if precision is Precision.FP16 else precision
    fixed, column, flow, tail = _figures(type(network), depth, measured_as)
    # Every other device than a CPU (mps, for example) is taken for a GPU like those of CUDA.
    steps = AT_ONCE_PX[Device.CPU if device == Device.CPU else Device.CUDA]
    return Footprint(fixed + HEAP_BYTES, column, flow, tail, *steps)


def whole_footprint(network: RRDB | Compact) -> Footprint:
    """The working memory of `network` in fp16 on whole maps: of `engine.gpu.whole_maps`.

    A pixel of the body's map has 3 * 192 + 64 channels of two bytes in an RRDB network, 2 * 64 in a
    compact one, and the input's pixels in fp32. In the tail it is 4 pixels of 64 channels, twice 16
    of them, and 16 of the result: twice in fp32, and in bytes. Around a map are a border of a pixel
    and a spare row, and a strip of the tail is computed with two rows more on each side.
    """
    if isinstance(network, RRDB):
        pixels = (4 // network.scale) ** 2
        body, tail, results = (3 * 192 + 64) * 2, (4 * 64 + 2 * 16 * 64) * 2, 16
    else:
        pixels, body, tail, results = 1, 2 * 64 * 2, 0, network.scale**2
    return Footprint(
        fixed=CUDA_SLACK_BYTES,
        column=3 * body + 4 * tail,
        flow=body + pixels * 3 * 4,
        tail=tail + results * 3 * (4 + 4 + 1),
        step_px=0,
        tail_px=WHOLE_TAIL_PX,
        whole=True,
    )


def compiled_footprint(network: RRDB | Compact, threads: int) -> Footprint:
    """The working memory of `network` in fp32 on whole maps on a CPU: of `engine.cpu.whole_maps`.

    A pixel of the body's map has four times 64 channels of four bytes in an RRDB network, twice as
    many and 16 of the image's in a compact one, and the input's pixels in fp32, twice while they
    are collected. In the tail it is 4 pixels of 64 channels, twice 16 of them, 16 of 32 channels,
    and 16 of the result in fp32, twice, and in bytes. Around a map are a border of a pixel and up
    to three more; a strip of the tail is computed with a row more on each side.
    """
    if isinstance(network, RRDB):
        pixels = (4 // network.scale) ** 2
        body, halo, results = 4 * 64 * 4, (4 + 2 * 16) * 64 * 4, 16
        tail = halo + 16 * 32 * 4
    else:
        pixels, results = 1, network.scale**2
        body, halo, tail = (2 * 64 + 16) * 4, 0, 64 * 4
    return Footprint(
        fixed=HEAP_BYTES + threads * COMPILED_SCRATCH_BYTES,
        column=5 * body + 2 * halo,
        flow=body + pixels * 3 * 4 * 2,
        tail=tail + results * 3 * (4 + 4 + 1),
        step_px=0,
        tail_px=COMPILED_TAIL_PX,
        whole=True,
    )


def _figures(kind: type, depth: int, precision: Precision) -> tuple[int, ...]:
    """The figures in MEASURED for a network of that depth.

    Other depths than those measured are interpolated linearly: each block or convolution keeps the
    same number of rows.
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
    """Cut an image of `width` x `height` pixels into `count` tiles of its full height.

    The widths of the cores differ by at most `multiple` pixels, so that no tile is a sliver. Every
    core and surround starts and ends at a multiple of `multiple`, which must divide both sides of
    the image. Raises ValueError for arguments that cannot be satisfied.
    """
    if width < 1 or height < 1 or width % multiple or height % multiple:
        raise ValueError(f"an image of {width}x{height} cannot be cut at multiples of {multiple}")
    if halo < 0 or not 1 <= count <= width // multiple:
        raise ValueError(f"cannot cut {width} pixels into {count} tiles with a halo of {halo}")
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


def plans(
    model: Model,
    size: Size,
    channels: int,
    footprint: Footprint,
    *,
    spool: Path | None = None,
    after: int = 0,
) -> list[Plan]:
    """Every plan for an image of that size (width, height) in pixels, the cheapest first.

    `channels` is 3 for RGB or 4 for RGBA. Both sides are rounded up to the model's `multiple`, as
    the engine pads the image. With `spool`, a folder for temporary files, there are plans that hold
    nothing of the result's size, for a caller who keeps none of the strips. `after` is how many
    bytes are needed once the result is there, beside it.
    """
    width, height = (side + -side % model.multiple for side in size)
    output_px = width * height * model.scale**2
    found = []
    for count in range(1, max(1, width // max(MIN_BAND_PX, model.multiple)) + 1):
        tiles = tuple(bands(width, height, count, model.halo, model.multiple))
        widest = max(tile.surround.width for tile in tiles) // model.multiple
        # Bytes held per output pixel: 3 for RGB. With alpha, which is upscaled first and kept (1),
        # the result has 4. Bands are assembled to a whole RGB image (3) before alpha is added.
        held = output_px * (3 if channels == 3 else 5 if count == 1 else 8)
        # A stream for the alpha beside that for the colours, if neither waits in a file.
        streams = channels - 2 if count == 1 else 1
        disk = 0 if count == 1 else output_px * channels
        computed = sum(tile.surround.width for tile in tiles) * height
        for rows, tail_rows in _steps(height // model.multiple, footprint, widest):
            step = tail_rows if footprint.whole else rows
            steps = count * -(-height // (step * model.multiple))
            working = footprint.bytes(widest, rows, tail_rows)
            cost = (computed + steps * STEP_COST_PX) * footprint.cost
            whole = footprint.whole
            most = max(working, after) + held
            found.append(Plan(tiles, rows, tail_rows, most, cost, whole=whole))
            if spool is not None:
                needed = working * streams + (SPOOL_BYTES if disk else 0)
                more = width * height // SPOOL_COST if disk else 0
                found.append(Plan(tiles, rows, tail_rows, needed, cost + more, spool, disk, whole))
    return sorted(found, key=_best)


def plans_by(
    model: Model,
    size: Size,
    channels: int,
    footprints: Iterable[Footprint],
    *,
    spool: Path | None = None,
    after: int = 0,
) -> list[Plan]:
    """Every plan by every way that a device has, whose footprints these are, the cheapest first."""
    found = (plans(model, size, channels, each, spool=spool, after=after) for each in footprints)
    return sorted(chain.from_iterable(found), key=_best)


def cheapest(choices: list[Plan], memory: int | None, free: int) -> Plan:
    """The first of `choices` that fits into `memory` bytes, by default half of the `free` bytes.

    If no plan fits into that default, the smallest is returned. Raises OutOfMemory if `memory` is
    given and no plan fits into it.
    """
    fitting = fits(choices, memory, free)
    if fitting:
        return fitting[0]
    smallest = min(choices, key=lambda plan: plan.bytes)
    if memory is None:
        return smallest
    raise OutOfMemory(f"this image needs {smallest.bytes / MIB:,.0f} MiB at least: allow it more")


def fits(choices: list[Plan], memory: int | None, free: int) -> list[Plan]:
    """Those of `choices` that fit into `memory` bytes, by default half of the `free` bytes."""
    budget = free // 2 if memory is None else memory
    return [plan for plan in choices if plan.bytes <= budget]


def _best(plan: Plan) -> tuple[int, int]:
    return plan.cost, plan.bytes


def _steps(height: int, footprint: Footprint, width: int) -> list[tuple[int, int]]:
    """The rows per step of the body and of the tail to choose from, the most first.

    The body's are the best number (at most `height`), halved down to MIN_ROWS. On whole maps they
    are all rows, and the tail's are halved.
    """
    wanted = footprint.tail_px if footprint.whole else footprint.step_px
    counts = [max(MIN_ROWS, min(height, wanted // width))]
    while counts[-1] > MIN_ROWS:
        counts.append(max(MIN_ROWS, counts[-1] // 2))
    if footprint.whole:
        return [(height, tail_rows) for tail_rows in counts]
    return [(rows, min(rows, max(1, footprint.tail_px // width))) for rows in counts]
