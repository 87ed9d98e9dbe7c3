"""Triton kernels for convolutions of whole maps: nothing here is called except by `whole_maps`.

A map is a matrix with one row per pixel, in fp16: (height + 2) * (width + 2) pixels, with a border
of zeros on all four sides, by any number of channels. `pitch` is width + 2, so the pixel above
another is `pitch` rows before it. A convolution reads the first channels of one matrix and writes
some channels of any other, so a dense block needs no concatenation, and the border makes masks
needless where it reads. Products are of fp16 and sums of fp32. Bias, activation and residuals are
part of the kernel that computes the sums.
"""

import triton
import triton.language as tl

# Arguments that differ between images. A kernel is compiled once, whatever their values.
SIZES = ["height", "pitch", "blocks"]


@triton.jit
def _activated(acc, slopes, channels, ACTIVATION: tl.constexpr):
    """`acc` after no activation (0), leaky ReLU (1) or PReLU (2), whose slopes are by channel."""
    if ACTIVATION == 1:
        acc = tl.where(acc > 0, acc, acc * 0.2)
    if ACTIVATION == 2:
        acc = tl.where(acc > 0, acc, acc * tl.load(slopes + channels)[None, :])
    return acc


@triton.jit
def _store(
    acc, bias, slopes, out, residual, outer, row, column, height, pitch,
    out_stride, residual_stride, outer_stride,
    OUT: tl.constexpr, COLUMNS: tl.constexpr, ACTIVATION: tl.constexpr, RESIDUALS: tl.constexpr,
    ALPHA: tl.constexpr, IMAGE: tl.constexpr,
):  # fmt: skip
    """Finish a row of sums, of shape (COLUMNS, OUT), and store what is within the map."""
    channels = tl.arange(0, OUT)
    columns = column + tl.arange(0, COLUMNS)
    acc = _activated(acc + tl.load(bias + channels)[None, :], slopes, channels, ACTIVATION)
    inside = (columns < pitch - 1) & (row <= height)
    if IMAGE == 0:
        mask = inside[:, None]
        first = (row * pitch + column).to(tl.int64)
        at = tl.arange(0, COLUMNS)[:, None]
        if RESIDUALS > 0:
            old = tl.load(
                residual + first * residual_stride + at * residual_stride + channels[None, :], mask
            )
            acc = old.to(tl.float32) + acc * ALPHA
        if RESIDUALS > 1:
            old = tl.load(
                outer + first * outer_stride + at * outer_stride + channels[None, :], mask
            )
            acc = old.to(tl.float32) + acc * ALPHA
        place = out + first * out_stride + at * out_stride + channels[None, :]
        tl.store(place, acc.to(out.dtype.element_ty), mask)
    else:
        # A pixel of the map is IMAGE x IMAGE pixels of an image of three colours, in fp32.
        width = pitch - 2
        if IMAGE > 1:
            # The network's input is added, upscaled by repeating pixels.
            near = residual + ((row - 1) * width + column - 1).to(tl.int64) * 3
            near += tl.arange(0, COLUMNS)[:, None] * 3 + (channels % 3)[None, :]
            acc += tl.load(near, inside[:, None])
        line = channels // (IMAGE * 3)
        top = ((row - 1) * IMAGE).to(tl.int64) * width * IMAGE * 3
        place = (line * (width * IMAGE * 3) + channels % (IMAGE * 3))[None, :]
        place += (columns - 1)[:, None] * (IMAGE * 3)
        mask = inside[:, None] & (channels < IMAGE * IMAGE * 3)[None, :]
        tl.store(out + top + place, acc, mask)


@triton.jit(do_not_specialize=SIZES)
def convolve(
    source, weights, bias, slopes, out, residual, outer, height, pitch, blocks,
    source_stride, out_stride, residual_stride, outer_stride,
    IN: tl.constexpr, OUT: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    ACTIVATION: tl.constexpr, RESIDUALS: tl.constexpr, ALPHA: tl.constexpr, IMAGE: tl.constexpr,
):  # fmt: skip
    """A 3x3 convolution of a map: each program makes COLUMNS pixels of two rows.

    Each of the four rows that it reads serves both rows of the result. `weights` is (3 * 3 * IN,
    OUT) by row, column and channel. With one of the RESIDUALS the result is residual + ALPHA *
    convolution, with two it is outer + ALPHA * that. If IMAGE is not 0, `out` is an image of three
    colours, IMAGE times as large as the map, in fp32; above 1 `residual` is an image of the map's
    size that is added to it.
    """
    program = tl.program_id(0)
    row = 1 + program // blocks * 2
    column = 1 + program % blocks * COLUMNS
    outputs = tl.arange(0, OUT)[None, :]
    upper = tl.zeros((COLUMNS, OUT), tl.float32)
    lower = tl.zeros((COLUMNS, OUT), tl.float32)
    # The pixel above and left of the first one.
    source += ((row - 1) * pitch + column - 1).to(tl.int64) * source_stride
    for step in range(3 * (IN // DEPTH)):
        across = step % 3
        channel = step // 3 * DEPTH
        read = source + (tl.arange(0, COLUMNS)[:, None] + across) * source_stride
        read += channel + tl.arange(0, DEPTH)[None, :]
        taps = weights + (across * IN + channel + tl.arange(0, DEPTH)[:, None]) * OUT + outputs
        above = tl.load(taps)
        level = tl.load(taps + 3 * IN * OUT)
        below = tl.load(taps + 6 * IN * OUT)
        pixels = tl.load(read)
        upper = tl.dot(pixels, above, upper)
        pixels = tl.load(read + pitch * source_stride)
        upper = tl.dot(pixels, level, upper)
        lower = tl.dot(pixels, above, lower)
        pixels = tl.load(read + 2 * pitch * source_stride)
        upper = tl.dot(pixels, below, upper)
        lower = tl.dot(pixels, level, lower)
        pixels = tl.load(read + 3 * pitch * source_stride)
        lower = tl.dot(pixels, below, lower)
    _store(
        upper, bias, slopes, out, residual, outer, row, column, height, pitch,
        out_stride, residual_stride, outer_stride,
        OUT, COLUMNS, ACTIVATION, RESIDUALS, ALPHA, IMAGE,
    )  # fmt: skip
    _store(
        lower, bias, slopes, out, residual, outer, row + 1, column, height, pitch,
        out_stride, residual_stride, outer_stride,
        OUT, COLUMNS, ACTIVATION, RESIDUALS, ALPHA, IMAGE,
    )  # fmt: skip


@triton.jit(do_not_specialize=SIZES)
def double_and_convolve(
    source, weights, bias, out, pitch, blocks, source_stride, out_stride,
    CHANNELS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Double a map by repeating pixels, then a 3x3 convolution and leaky ReLU.

    Of the nine pixels that a result reads, several are the same pixel of `source`. So each of the
    result's four phases, by whether its row and its column are odd, is a convolution of 2x2 pixels
    of `source` with the sums of the weights: `weights` is (4 phases * 4 taps * CHANNELS, CHANNELS).
    """
    program = tl.program_id(0)
    phase = tl.program_id(1)
    down = phase // 2
    right = phase % 2
    row = 1 + program // blocks
    column = 1 + program % blocks * COLUMNS
    outputs = tl.arange(0, CHANNELS)
    acc = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    source += ((row - 1 + down) * pitch + column - 1 + right).to(tl.int64) * source_stride
    for step in range(4 * (CHANNELS // DEPTH)):
        tap = step % 4
        channel = step // 4 * DEPTH
        pixel = tl.arange(0, COLUMNS)[:, None] + tap // 2 * pitch + tap % 2
        pixels = tl.load(source + pixel * source_stride + channel + tl.arange(0, DEPTH)[None, :])
        place = (phase * 4 + tap) * CHANNELS + channel + tl.arange(0, DEPTH)[:, None]
        acc = tl.dot(pixels, tl.load(weights + place * CHANNELS + outputs[None, :]), acc)
    acc = _activated(acc + tl.load(bias + outputs)[None, :], bias, outputs, 1)
    first = (2 * row - 1 + down) * (2 * pitch - 2) + 2 * column - 1 + right
    out += first.to(tl.int64) * out_stride
    columns = tl.arange(0, COLUMNS)[:, None]
    place = out + 2 * columns * out_stride + outputs[None, :]
    tl.store(place, acc.to(out.dtype.element_ty), column + columns < pitch - 1)


@triton.jit(do_not_specialize=SIZES)
def convolve_image(
    image, weights, bias, slopes, out, copy, height, pitch, blocks, out_stride, copy_stride,
    FOLD: tl.constexpr, OUT: tl.constexpr, COLUMNS: tl.constexpr, ACTIVATION: tl.constexpr,
    COPY: tl.constexpr,
):  # fmt: skip
    """The first convolution, of an image of three colours, all in fp32: samples are not rounded.

    Blocks of FOLD x FOLD pixels of the image are the pixels of the map. `weights` is (3 * 3 * 3 *
    FOLD * FOLD, OUT). With COPY the result is stored twice.
    """
    program = tl.program_id(0)
    row = program // blocks
    columns = program % blocks * COLUMNS + tl.arange(0, COLUMNS)
    width = pitch - 2
    outputs = tl.arange(0, OUT)
    acc = tl.zeros((COLUMNS, OUT), tl.float32)
    INPUTS: tl.constexpr = 3 * FOLD * FOLD
    for step in range(9 * INPUTS):
        source_row = row + step // INPUTS // 3 - 1
        source_columns = columns + step // INPUTS % 3 - 1
        colour = step % INPUTS // (FOLD * FOLD)
        inner = step % (FOLD * FOLD)
        there = (source_row >= 0) & (source_row < height)
        there &= (source_columns >= 0) & (source_columns < width)
        line = (source_row * FOLD + inner // FOLD).to(tl.int64) * (width * FOLD * 3)
        place = (source_columns * FOLD + inner % FOLD) * 3 + colour
        samples = tl.load(image + line + place, there, 0.0)
        acc += samples[:, None] * tl.load(weights + step * OUT + outputs)[None, :]
    acc = _activated(acc + tl.load(bias + outputs)[None, :], slopes, outputs, ACTIVATION)
    pixel = ((row + 1) * pitch + 1).to(tl.int64) + columns[:, None]
    inside = (columns < width)[:, None]
    value = acc.to(out.dtype.element_ty)
    tl.store(out + pixel * out_stride + outputs[None, :], value, inside)
    if COPY:
        tl.store(copy + pixel * copy_stride + outputs[None, :], value, inside)
