"""The networks' convolutions on a CPU: Winograd's F(4x4, 3x3) in two dimensions, in fp32.

A tile of 4x4 results takes 36 products in place of 144 (Lavin and Gray, arXiv:1509.09308): its 6x6
inputs are transformed to 36 planes, each plane is multiplied by that of the filters, and the sums
are transformed to the tile.

    map      (rows, columns, channels), fp32: an image's rows and columns in whole tiles, with a
             border of a pixel; what lies outside the image is zero, which is how networks pad
    planes   (36, tiles, channels): those of a row of tiles
    filters  (36, groups, channels of the input, WIDTH): a group is WIDTH channels of the output

The last two functions compute a box of a map's tiles. They hold no lock of Python's, so that
several threads compute boxes of one map at the same time.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import config
from numba.extending import intrinsic

from upscaler.engine.cpu.vectors import BYTES, Code, Vector
from upscaler.engine.networks import NUM_FEAT, NUM_GROW_CH

RING_ROWS: Final = 3
"""The rows of tiles that a dense block keeps of each map that it adds: a tile reads its own and the
nearest pixels of the two beside it."""
SLOTS: Final = 5
"""The rows of tiles whose planes a dense block keeps: each convolution is one behind the one
before, and the last reads what the first has read."""


def _registers() -> tuple[int, int, int]:
    """The lanes of a vector; the rows of a product in registers, and the vectors of each."""
    names = str(config.CPU_FEATURES or llvm.get_host_cpu_features().flatten()).split(",")
    if "+avx512f" in names:
        return 16, 12, 2
    if "+avx2" in names:
        return 8, 6, 2
    return (4, 6, 4) if "+neon" in names else (4, 6, 2)


LANES, ROWS, VECTORS = _registers()
WIDTH: Final = LANES * VECTORS
"""The channels of the output that are computed together."""

Address = types.intp
"""An address, or an offset in bytes."""
MAP: Final = types.float32[:, :, ::1]
FILTERS: Final = types.float32[:, :, :, ::1]
VECTOR: Final = types.float32[::1]
SIZE: Final = types.UniTuple(types.int64, 2)
BOX: Final = types.UniTuple(types.int64, 4)


@intrinsic
def _load_tile(_, r0, r1, r2, r3, r4, r5, column, planes, plane):
    """Transform a tile whose rows of pixels are at those addresses to planes."""

    def write(context: Any, builder: ir.IRBuilder, _: Any, values: Any) -> Any:
        *rows, column, planes, plane = values
        _write_planes(Code(builder, LANES), rows, (0, 1, 2, 3, 4, 5), column, planes, plane)
        return context.get_dummy_value()

    return types.void(*[Address] * 9), write


@intrinsic
def _load_doubled_tile(_, r0, r1, r2, r3, column, planes, plane):
    """The same of a map of half the size, whose pixels are repeated."""

    def write(context: Any, builder: ir.IRBuilder, _: Any, values: Any) -> Any:
        r0, r1, r2, r3, column, planes, plane = values
        rows = r0, r1, r1, r2, r2, r3
        _write_planes(Code(builder, LANES), rows, (0, 1, 1, 2, 2, 3), column, planes, plane)
        return context.get_dummy_value()

    return types.void(*[Address] * 7), write


@intrinsic
def _multiply(_, planes, pitch, filters, end, sums, sum_pitch):
    """ROWS tiles of one plane, `pitch` apart, times a group of filters of `end` bytes a tile."""

    def write(context: Any, builder: ir.IRBuilder, _: Any, values: Any) -> Any:
        planes, pitch, filters, end, sums, sum_pitch = values
        code = Code(builder, LANES)
        tiles = [planes]
        for _ in range(ROWS - 1):
            tiles.append(code.offset(tiles[-1], pitch))
        before, loop = builder.block, builder.append_basic_block("channel")
        after = builder.append_basic_block("after")
        builder.branch(loop)
        builder.position_at_end(loop)
        done, weights = builder.phi(end.type), builder.phi(end.type)
        total = [[builder.phi(code.type) for _ in range(VECTORS)] for _ in range(ROWS)]
        right = [code.load(code.offset(weights, v * LANES * BYTES)) for v in range(VECTORS)]
        sums_now = []
        for tile, row in zip(tiles, total, strict=True):
            left = code.load_spread(code.offset(tile, done))
            sums_now.append(
                [Vector(code, t).plus(left, r) for t, r in zip(row, right, strict=True)]
            )
        next_done, next_weights = code.offset(done, BYTES), code.offset(weights, WIDTH * BYTES)
        done.add_incoming(ir.Constant(end.type, 0), before)
        done.add_incoming(next_done, loop)
        weights.add_incoming(filters, before)
        weights.add_incoming(next_weights, loop)
        for row, row_now in zip(total, sums_now, strict=True):
            for t, now in zip(row, row_now, strict=True):
                t.add_incoming(code.constant(0).value, before)
                t.add_incoming(now.value, loop)
        builder.cbranch(builder.icmp_signed("<", next_done, end), loop, after)
        builder.position_at_end(after)
        for row_now in sums_now:
            for v, now in enumerate(row_now):
                code.store(now, code.offset(sums, v * LANES * BYTES))
            sums = code.offset(sums, sum_pitch)
        return context.get_dummy_value()

    return types.void(*[Address] * 6), write


@intrinsic
def _store_tile(_, sums, plane, bias, slopes, out, row, column):
    """Transform sums to a tile, with the bias and an activation."""

    def write(context: Any, builder: ir.IRBuilder, _: Any, values: Any) -> Any:
        sums, plane, bias, slopes, out, row, column = values
        code = Code(builder, LANES)
        leaks = code.load(slopes)
        for i, j, result in _read_sums(code, sums, plane, bias):
            address = code.offset(out, code.times(row, i), code.times(column, j))
            code.store(result.leaky(leaks), address)
        return context.get_dummy_value()

    return types.void(*[Address] * 7), write


@intrinsic
def _add_tile(_, sums, plane, bias, alpha, first, out, row, column):
    """Transform sums to a tile, with the bias, and write `first + alpha * tile`."""

    def write(context: Any, builder: ir.IRBuilder, _: Any, values: Any) -> Any:
        sums, plane, bias, alpha, first, out, row, column = values
        code = Code(builder, LANES)
        factor = code.spread(alpha)
        for i, j, result in _read_sums(code, sums, plane, bias):
            offset = code.offset(code.times(row, i), code.times(column, j))
            total = code.load(code.offset(first, offset)).plus(factor, result)
            code.store(total, code.offset(out, offset))
        return context.get_dummy_value()

    return types.void(*[Address] * 3, types.float32, *[Address] * 4), write


@intrinsic
def _add_tile_twice(_, sums, plane, bias, alpha, second, first, out, row, column):
    """The same, and write `second + alpha * (first + alpha * tile)`."""

    def write(context: Any, builder: ir.IRBuilder, _: Any, values: Any) -> Any:
        sums, plane, bias, alpha, second, first, out, row, column = values
        code = Code(builder, LANES)
        factor = code.spread(alpha)
        for i, j, result in _read_sums(code, sums, plane, bias):
            offset = code.offset(code.times(row, i), code.times(column, j))
            inner = code.load(code.offset(first, offset)).plus(factor, result)
            total = code.load(code.offset(second, offset)).plus(factor, inner)
            code.store(total, code.offset(out, offset))
        return context.get_dummy_value()

    return types.void(*[Address] * 3, types.float32, *[Address] * 5), write


def _write_planes(
    code: Code,
    rows: Sequence[ir.Value],
    columns: Sequence[int],
    column: ir.Value,
    planes: ir.Value,
    plane: ir.Value,
) -> None:
    """Write the transform of 6x6 pixels, in both directions, to planes that are `plane` apart."""
    offsets = [code.times(column, count) for count in columns]
    down = [
        _transform_inputs([code.load(code.offset(row, offset)) for row in rows])
        for offset in offsets
    ]
    for i, line in enumerate(zip(*down, strict=True)):
        for j, vector in enumerate(_transform_inputs(line)):
            code.store(vector, code.offset(planes, code.times(plane, 6 * i + j)))


def _read_sums(
    code: Code, sums: ir.Value, plane: ir.Value, bias: ir.Value
) -> Iterator[tuple[int, int, Vector]]:
    """The rows, columns and values of the 4x4 results of 36 sums, plus the bias."""
    down = [
        _transform_sums(
            [code.load(code.offset(sums, code.times(plane, 6 * i + j))) for i in range(6)]
        )
        for j in range(6)
    ]
    added = code.load(bias)
    for i, line in enumerate(zip(*down, strict=True)):
        for j, vector in enumerate(_transform_sums(line)):
            yield i, j, vector + added


def _transform_inputs(inputs: Sequence[Vector]) -> list[Vector]:
    """Six numbers times the matrix B of F(4, 3)."""
    d0, d1, d2, d3, d4, d5 = inputs
    even, odd, outer, inner = d4.plus(-4, d2), d3.plus(-4, d1), d4 - d2, d3 - d1
    return [
        outer.plus(4, d0 - d2),
        even + odd,
        even - odd,
        outer.plus(2, inner),
        outer.plus(-2, inner),
        (d5 - d3).plus(-4, inner),
    ]


def _transform_sums(sums: Sequence[Vector]) -> list[Vector]:
    """Six numbers times the matrix A of F(4, 3), which makes four."""
    m0, m1, m2, m3, m4, m5 = sums
    near, near_odd, far, far_odd = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return [
        m0 + near + far,
        near_odd.plus(2, far_odd),
        near.plus(4, far),
        (m5 + near_odd).plus(8, far_odd),
    ]


def _compiled(*types_: Any) -> Any:
    """Compile a function; at once if the types of its arguments are given.

    The machine code is kept in a file, if there is a folder that may be written: beside this file,
    or in the user's cache. numba compiles anew for another processor and if this file has changed,
    but does not notice other files: who edits `vectors` removes `__pycache__`.
    """
    signature = [types.void(*types_)] if types_ else []

    def decorate(function: Callable[..., None]) -> Any:
        try:
            return njit(*signature, nogil=True, error_model="numpy", cache=bool(types_))(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return njit(*signature, nogil=True, error_model="numpy")(function)

    return decorate


@_compiled()
def load_row(source, rows, left, tiles, planes, first):
    """Write the planes of a row of tiles, from column `left` of the map and its six `rows` on.

    They become the planes' channels from `first` on.
    """
    row, column = source.strides[0], source.strides[1]
    base = source.ctypes.data + left * column
    r0, r1, r2, r3, r4, r5 = rows
    for tile in range(tiles):
        for channel in range(0, source.shape[2], LANES):
            at = base + 4 * tile * column + channel * BYTES
            _load_tile(
                at + r0 * row, at + r1 * row, at + r2 * row, at + r3 * row, at + r4 * row,
                at + r5 * row, column, planes[0, tile, first + channel :].ctypes.data,
                planes.strides[0],
            )  # fmt: skip


@_compiled()
def _load_source_row(source, y, left, tiles, planes):
    """The same of a whole map: its row of tiles `y`, from the column of tiles `left` on."""
    rows = (4 * y, 4 * y + 1, 4 * y + 2, 4 * y + 3, 4 * y + 4, 4 * y + 5)
    load_row(source, rows, 4 * left, tiles, planes, 0)


@_compiled()
def _load_kept_row(kept, y, tiles, planes, first):
    """The same of a map of which RING_ROWS rows of tiles are kept, to the channels from `first`."""
    lines = kept.reshape(RING_ROWS * 4, kept.shape[2], kept.shape[3])
    above, here, below = (y - 1) % RING_ROWS * 4, y % RING_ROWS * 4, (y + 1) % RING_ROWS * 4
    rows = (above + 3, here, here + 1, here + 2, here + 3, below)
    load_row(lines, rows, 0, tiles, planes, first)


@_compiled()
def _load_doubled_row(source, top, left, tiles, planes):
    """The same of a map whose pixels are repeated, from its row `top` and column `left` on."""
    row, column = source.strides[0], source.strides[1]
    base = source.ctypes.data + top * row + left * column
    for tile in range(tiles):
        for channel in range(0, source.shape[2], LANES):
            at = base + 2 * tile * column + channel * BYTES
            _load_doubled_tile(
                at, at + row, at + 2 * row, at + 3 * row, column,
                planes[0, tile, channel:].ctypes.data, planes.strides[0],
            )  # fmt: skip


@_compiled()
def multiply_row(planes, start, tiles, filters, sums):
    """Multiply the planes of `tiles` tiles from `start` on by the filters; write the sums.

    ROWS tiles are computed at a time: there must be room for as many as that makes.
    """
    count, groups, channels, _ = filters.shape
    for plane in range(count):
        for group in range(groups):
            for tile in range(0, tiles, ROWS):
                _multiply(
                    planes[plane, start + tile].ctypes.data, planes.strides[1],
                    filters[plane, group].ctypes.data, channels * BYTES,
                    sums[plane, tile, group * WIDTH :].ctypes.data, sums.strides[1],
                )  # fmt: skip


@_compiled()
def store_row(sums, bias, slopes, out, top, left, tiles):
    """Write a row of tiles, with an activation, to a map from that row and column on."""
    row, column = out.strides[0], out.strides[1]
    for tile in range(tiles):
        for channel in range(0, out.shape[2], LANES):
            _store_tile(
                sums[0, tile, channel:].ctypes.data, sums.strides[0], bias[channel:].ctypes.data,
                slopes[channel:].ctypes.data, out[top, left + 4 * tile, channel:].ctypes.data,
                row, column,
            )  # fmt: skip


@_compiled()
def _clear_outside(out, top, left, tiles, rows, columns):
    """Set to zero what of a row of tiles lies behind the first `rows` and `columns` of it."""
    right = left + 4 * tiles
    for row in range(4):
        begin = left if row >= rows else left + columns
        if begin < right:
            out[top + row, begin:right] = 0


@_compiled(MAP, types.float64[:, ::1], FILTERS)
def transform_filters(weights, transform, filters):
    """Write `filters`: `transform`, of shape (36, 9), times weights (channels out, in, 9).

    They are summed in fp64, since sixths and twelfths are not exact, and rounded once. Channels
    that are missing to whole groups are zero.
    """
    outputs, inputs, _ = weights.shape
    taps, line = np.zeros((9, WIDTH)), np.zeros(WIDTH)
    for group in range(filters.shape[1]):
        for channel in range(inputs):
            for lane in range(WIDTH):
                output = group * WIDTH + lane
                for tap in range(9):
                    inside = output < outputs
                    taps[tap, lane] = weights[output, channel, tap] if inside else 0.0
            for plane in range(36):
                line[:] = 0
                for tap in range(9):
                    for lane in range(WIDTH):
                        line[lane] += transform[plane, tap] * taps[tap, lane]
                filters[plane, group, channel] = line


@_compiled(
    MAP, types.boolean, MAP, FILTERS, VECTOR, VECTOR, MAP, types.float32, SIZE, BOX, MAP, MAP
)
def convolve(source, doubled, out, filters, bias, slopes, first, alpha, size, box, planes, sums):
    """Convolve the map `source` to the map `out`, of which the image has the size (rows, columns).

    Of the channels of `source` the first ones are read, as many as `filters` has.

    `box` is the part to compute: the first row and column of tiles, and those behind the last.
    `slopes` are those of the activation for negative values, one for each channel: 1 for none. With
    an `alpha` other than 0 there is no activation: it becomes `first + alpha * result`. With
    `doubled` the pixels of `source` are repeated in both directions. `planes` and `sums` are
    scratch memory, each with room for a row of tiles of the box in whole ROWS.
    """
    height, width = size
    top, left, bottom, right = box
    tiles = right - left
    row, column = out.strides[0], out.strides[1]
    for y in range(top, bottom):
        if doubled:
            _load_doubled_row(source, 2 * y, 2 * left, tiles, planes)
        else:
            _load_source_row(source, y, left, tiles, planes)
        multiply_row(planes, 0, tiles, filters, sums)
        if alpha == 0:
            store_row(sums, bias, slopes, out, 4 * y + 1, 4 * left + 1, tiles)
        else:
            for tile in range(tiles):
                for channel in range(0, out.shape[2], LANES):
                    at = (4 * y + 1) * row + (4 * (left + tile) + 1) * column + channel * BYTES
                    _add_tile(
                        sums[0, tile, channel:].ctypes.data, sums.strides[0],
                        bias[channel:].ctypes.data, alpha, first.ctypes.data + at,
                        out.ctypes.data + at, row, column,
                    )  # fmt: skip
        _clear_outside(out, 4 * y + 1, 4 * left + 1, tiles, height - 4 * y, width - 4 * left)


@_compiled(
    MAP, MAP, MAP, types.float32, types.boolean, types.UniTuple(FILTERS, 5),
    types.UniTuple(VECTOR, 5), VECTOR, SIZE, BOX, types.float32[:, :, :, ::1], MAP,
    types.float32[:, :, :, :, ::1],
)  # fmt: skip
def dense_block(
    source, out, outer, alpha, twice, filters, biases, slopes, size, box, planes, sums, ring
):
    """Write `source + alpha * convolutions` to `out`; with `twice`, `outer + alpha * that`.

    Each of the five convolutions reads `source` and the results of those before it, which are kept
    in `ring`, a few rows of four maps. A result's tile reads a pixel more on each side, so the
    first four compute a tile more on each side of the box than the last: of that at least the
    nearest pixels are right, and the fourth's need no more. `planes` has SLOTS rows of tiles.
    """
    height, width = size
    top, left, bottom, right = box
    begin, end = max(0, top - 1), min(-(-height // 4), bottom + 1)
    first, last = max(0, left - 1), min(-(-width // 4), right + 1)
    tiles = last - first
    row, column = out.strides[0], out.strides[1]
    # Above the first row of tiles and beside the columns is the border, or what does not matter;
    # but results must not depend on what was there before.
    ring[:] = 0
    for step in range(begin, end + 4):
        for number in range(5):
            y = step - number
            if y == end and number < 4:
                ring[number, y % RING_ROWS] = 0
            if not begin <= y < end or (number == 4 and not top <= y < bottom):
                continue
            slot = planes[y % SLOTS]
            if number == 0:
                _load_source_row(source, y, first, tiles, slot)
            else:
                channel = NUM_FEAT + (number - 1) * NUM_GROW_CH
                _load_kept_row(ring[number - 1], y, tiles, slot, channel)
            if number < 4:
                multiply_row(slot, 0, tiles, filters[number], sums)
                lines = ring[number, y % RING_ROWS]
                store_row(sums, biases[number], slopes, lines, 0, 1, tiles)
                _clear_outside(lines, 0, 1, tiles, height - 4 * y, width - 4 * first)
                continue
            multiply_row(slot, left - first, right - left, filters[4], sums)
            for tile in range(right - left):
                for channel in range(0, NUM_FEAT, LANES):
                    at = (4 * y + 1) * row + (4 * (left + tile) + 1) * column + channel * BYTES
                    sum_, bias = (
                        sums[0, tile, channel:].ctypes.data,
                        biases[4][channel:].ctypes.data,
                    )
                    if twice:
                        _add_tile_twice(
                            sum_, sums.strides[0], bias, alpha, outer.ctypes.data + at,
                            source.ctypes.data + at, out.ctypes.data + at, row, column,
                        )  # fmt: skip
                    else:
                        _add_tile(
                            sum_, sums.strides[0], bias, alpha, source.ctypes.data + at,
                            out.ctypes.data + at, row, column,
                        )  # fmt: skip
            _clear_outside(
                out, 4 * y + 1, 4 * left + 1, right - left, height - 4 * y, width - 4 * left
            )


@_compiled(
    MAP, MAP, types.float32[:, :, :, :, ::1], types.float32[:, ::1], types.float32[:, ::1], SIZE,
    BOX, MAP, MAP, types.float32[:, :, :, :, ::1],
)  # fmt: skip
def chain(source, out, filters, biases, slopes, size, box, planes, sums, ring):
    """Convolve `source` to `out` several times, at most five, each time with an activation.

    What lies between is kept in `ring`, a few rows of each map, as in `dense_block`.
    """
    height, width = size
    top, left, bottom, right = box
    begin, end = max(0, top - 1), min(-(-height // 4), bottom + 1)
    first, last = max(0, left - 1), min(-(-width // 4), right + 1)
    tiles = last - first
    count = filters.shape[0]
    ring[:] = 0
    for step in range(begin, end + count - 1):
        for number in range(count):
            y = step - number
            inner = number < count - 1
            if y == end and inner:
                ring[number, y % RING_ROWS] = 0
            if not begin <= y < end or not (inner or top <= y < bottom):
                continue
            if number == 0:
                _load_source_row(source, y, first, tiles, planes)
            else:
                _load_kept_row(ring[number - 1], y, tiles, planes, 0)
            if inner:
                multiply_row(planes, 0, tiles, filters[number], sums)
                lines = ring[number, y % RING_ROWS]
                store_row(sums, biases[number], slopes[number], lines, 0, 1, tiles)
                _clear_outside(lines, 0, 1, tiles, height - 4 * y, width - 4 * first)
            else:
                inside = right - left
                multiply_row(planes, left - first, inside, filters[number], sums)
                store_row(
                    sums, biases[number], slopes[number], out, 4 * y + 1, 4 * left + 1, inside
                )
                _clear_outside(
                    out, 4 * y + 1, 4 * left + 1, inside, height - 4 * y, width - 4 * left
                )


def room(tiles: int) -> int:
    """How many tiles scratch memory for that many must have: the next multiple of ROWS."""
    return -(-tiles // ROWS) * ROWS
