"""Resize images by antialiased Lanczos, as they come, row by row."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from upscaler.api.sizes import Size
from upscaler.imaging.pixels import Pixels

LANCZOS: Final = Image.Resampling.LANCZOS
LOBES: Final = 3
"""The lobes of the Lanczos window on each side (Pillow's Resample.c: support 3)."""
PRECISION_BITS: Final = 22
"""Pillow's weights are multiples of 2**-22: 32 bits without 8 of a sample and 2 to spare."""
PART: Final = 64
"""How many rows of the image are resized in width in one step."""
AT_ONCE: Final = 16
"""How many rows of the result are computed in one step."""
CHUNK: Final = 2**13
"""How many samples of a row are computed in one step, which then stay in the processor's cache."""


def resize(pixels: Pixels, size: Size) -> Pixels:
    """Resize `pixels` to `size` (width, height) by `resized_strips`: uint8, the same channels."""
    height, width, _ = pixels.shape
    if (width, height) == size:
        return pixels
    return np.concatenate(list(resized_strips([pixels], (width, height), size)))


def resized_strips(strips: Iterable[Pixels], source: Size, size: Size) -> Iterator[Pixels]:
    """Resize an image of size `source`, whose rows come in `strips`, to `size` (width, height).

    Strips are uint8 of shape (any number of rows, width, 3 or 4), from top to bottom, and so are
    those that are yielded. The colour of transparent pixels does not bleed into others. The result
    equals that of Pillow where it resizes first the rows of the whole image and then the columns.
    Of the image only the rows that the next rows of the result depend on are in memory.
    """
    # In parts, since a strip may be the whole image, and each step copies what it needs.
    parts = (strip[top : top + PART] for strip in strips for top in range(0, len(strip), PART))
    rows = (_in_width(part, size[0]) for part in parts)
    resized = rows if source[1] == size[1] else _in_height(rows, source[1], size[1])
    for strip in resized:
        straight = strip.shape[2] == 3
        yield strip if straight else np.array(Image.fromarray(strip, "RGBa").convert("RGBA"))


def _in_width(strip: Pixels, width: int) -> Pixels:
    """`strip` with its rows resized to `width`, and RGBA premultiplied.

    "RGBa" is premultiplied alpha: a transparent pixel then has no colour to contribute.
    """
    image = Image.fromarray(strip)
    image = image.convert("RGBa") if strip.shape[2] == 4 else image
    # A copy, since Pillow's memory may not be written to, which torch warns of.
    return np.array(image.resize((width, image.height), LANCZOS))


def _in_height(strips: Iterator[Pixels], height: int, wanted: int) -> Iterator[Pixels]:
    """The columns resized from `height` to `wanted` rows."""
    window: deque[Pixels] = deque()  # rows of the image from `top` on
    top = bottom = 0
    for start in range(0, wanted, AT_ONCE):
        first, weights = vertical_weights(height, wanted, start, min(start + AT_ONCE, wanted))
        while bottom < first + weights.shape[1]:
            strip = next(strips)
            bottom += len(strip)
            window.append(strip)
        while top + len(window[0]) <= first:
            top += len(window.popleft())
        rows = np.concatenate(window)[first - top :][: weights.shape[1]]
        yield _weighted(rows, weights)


def vertical_weights(
    height: int, wanted: int, start: int, stop: int
) -> tuple[int, NDArray[np.float64]]:
    """The first row that rows `start` to `stop` of the result depend on, and its weights.

    The weights are whole numbers, in units of 2**-PRECISION_BITS, of shape (stop - start, rows).
    They are computed as in Pillow's Resample.c (precompute_coeffs and normalize_coeffs_8bpc).
    """
    step = height / wanted
    stretch = max(step, 1.0)  # when shrinking the window is widened: that is the antialiasing
    reach = LOBES * stretch
    centers = (np.arange(start, stop) + 0.5) * step
    lows = np.maximum(centers - reach + 0.5, 0).astype(int)
    highs = np.minimum((centers + reach + 0.5).astype(int), height)
    places = np.arange(lows[0], highs[-1])
    distances = (places - centers[:, None] + 0.5) / stretch
    values = np.sinc(distances) * np.sinc(distances / LOBES)
    outside = (places < lows[:, None]) | (places >= highs[:, None])
    values[outside | (distances < -LOBES) | (distances >= LOBES)] = 0
    values /= values.sum(axis=1, keepdims=True)
    # Rounded half away from zero.
    units = np.trunc(values * 2**PRECISION_BITS + np.copysign(0.5, values))
    return int(lows[0]), units


def _weighted(rows: Pixels, weights: NDArray[np.float64]) -> Pixels:
    """Rows of the result: sums of `rows` by `weights`, rounded half up and clamped."""
    result = np.empty((len(weights), *rows.shape[1:]), np.uint8)
    flat, samples = rows.reshape(len(rows), -1), result.reshape(len(result), -1)
    for left in range(0, flat.shape[1], CHUNK):
        # Exact: all sums are whole numbers below 2**53, in any order.
        sums = weights @ flat[:, left : left + CHUNK].astype(np.float64)
        sums += 2 ** (PRECISION_BITS - 1)
        sums = np.floor(np.ldexp(sums, -PRECISION_BITS, out=sums), out=sums)
        samples[:, left : left + CHUNK] = np.clip(sums, 0, 255, out=sums)
    return result
