"""Alpha bleed: give pixels that nobody can see the colours of the visible ones around them.

What a file has beneath its transparency is arbitrary: black, white, or what an eraser left. A
network would see it, and pictures that look alike would be upscaled differently. So before the
network, colours are spread into transparent regions, by a pyramid of averages weighted by alpha
(pull-push: Gortler et al., The Lumigraph, SIGGRAPH 1996, section 3.4.2). It costs a fixed number of
operations per pixel, whatever the shape of the regions, and reaches across all of them.

Pixels that can hardly be seen are treated alike. At a low alpha many colours look the same, because
a pixel shows its colour times alpha, in 256 levels. Here only that premultiplied colour counts, and
the pixel gets the colour most like its neighbours' that nobody can tell from its own. So a picture
gives the same as one that went through a program that works with premultiplied colours.
"""

from collections.abc import Iterator
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from upscaler.imaging.pixels import Pixels

CLEAR_ALPHA: Final = 128
"""Pixels of this alpha and above keep their premultiplied colour, which determines their own to
about a level. Below, that may change by a level, too, which nobody can see."""
STRIP_PX: Final = 2**16
"""How many pixels of the image are worked on at a time, so that they stay in the cache."""

Planes = TypeVar("Planes", NDArray[np.uint16], NDArray[np.float32])
Level = NDArray[np.float32]
"""One level of the pyramid, of shape (4, height, width): red, green and blue (0..255) times the
weight, and the weight (0..1), which is 1 where enough is visible to determine a colour."""


def bleed_colours(pixels: Pixels) -> Pixels:
    """RGBA `pixels` with colours spread beneath their transparency; alpha is unchanged.

    Shape (height, width, 4), uint8. The result depends only on alpha and on the colours times alpha
    as 8 bits: pictures that look alike give the same. Where alpha is 255, and everywhere if it is
    the same above 0 for all pixels, colours are unchanged; where it is 0, they are a smooth
    continuation of the visible ones, and black if there are none. In between no pixel changes by
    more than one level on any background. The input is not changed; without anything to do it is
    returned itself.
    """
    alpha = pixels[:, :, 3]
    lowest = alpha.min()
    if lowest == alpha.max() > 0:
        return pixels
    levels = [_first_level(pixels)]
    while levels[-1].shape[1:] != (1, 1):
        levels.append(_pull(levels[-1]))
    colours = _known(levels.pop())
    while levels:
        colours = _push(colours, levels.pop())
    return _fill(pixels, np.rint(colours, out=colours).astype(np.uint16))


def _first_level(pixels: Pixels) -> Level:
    """The level of half the size, rounded up."""
    height, width, _ = pixels.shape
    level = np.empty((4, -(-height // 2), -(-width // 2)), np.float32)
    for top, bottom in _strips(height, width):
        # In planes, since NumPy is slow with inner loops of four samples.
        planes = np.ascontiguousarray(pixels[top:bottom].transpose(2, 0, 1)).astype(np.uint16)
        # Colours times alpha, divided by 255 and rounded, exact for all 8-bit samples.
        planes[:3] *= planes[3]
        planes[:3] += 128
        planes[:3] += planes[:3] >> 8
        planes[:3] >>= 8
        level[:, top // 2 : -(-bottom // 2)] = _sum_blocks(planes)
    level[3] /= 255
    return _saturate(level)


def _pull(level: Level) -> Level:
    """The next coarser level."""
    _, height, width = level.shape
    coarser = np.empty((4, -(-height // 2), -(-width // 2)), np.float32)
    for top, bottom in _strips(height, width):
        coarser[:, top // 2 : -(-bottom // 2)] = _sum_blocks(level[:, top:bottom])
    return _saturate(coarser)


def _saturate(level: Level) -> Level:
    """Scale weights above 1, and the colours with them, down to 1; in place."""
    level /= np.maximum(level[3], 1)
    return level


def _known(top: Level) -> NDArray[np.float32]:
    """The colours of a level, black where nothing is visible."""
    colours = np.zeros_like(top[:3])
    np.divide(top[:3], top[3], out=colours, where=top[3] > 0)
    return colours


def _push(coarser: NDArray[np.float32], level: Level) -> NDArray[np.float32]:
    """The colours of `level`, completed from those of the next coarser one; in place."""
    _, height, width = level.shape
    for top, bottom in _strips(height, width):
        strip = level[:, top:bottom]
        strip[:3] += _interpolate(coarser, top, bottom, width) * ((1 - strip[3]) / 16)
    return level[:3]


def _fill(pixels: Pixels, coarser: NDArray[np.uint16]) -> Pixels:
    """`pixels` with what is hidden replaced; `coarser` has colours of half the size, (3, h, w)."""
    height, width, _ = pixels.shape
    result = pixels.copy()
    for top, bottom in _strips(height, width):
        strip = result[top:bottom]
        alpha = strip[:, :, 3]
        if alpha.min() == 255:
            continue
        spread = ((_interpolate(coarser, top, bottom, width) + 8) >> 4).astype(np.uint8)
        row = alpha.astype(np.intp) << 8
        for channel, plane in enumerate(spread):
            own = strip[:, :, channel]
            index = row + own
            np.clip(plane, LEAST.take(index), MOST.take(index), out=own)
    return result


def _strips(height: int, width: int) -> Iterator[tuple[int, int]]:
    """The first row and the end of each strip; all but the last have an even number of rows."""
    rows = 2 * max(1, STRIP_PX // (2 * width))
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _sum_blocks(planes: Planes) -> Planes:
    """The sums of blocks of 2x2 samples; at odd sides the last blocks are smaller."""
    _, height, width = planes.shape
    if height % 2 or width % 2:
        planes = np.pad(planes, ((0, 0), (0, height % 2), (0, width % 2)))
    pairs = planes[:, 0::2] + planes[:, 1::2]
    return pairs[:, :, 0::2] + pairs[:, :, 1::2]


def _interpolate(planes: Planes, top: int, bottom: int, width: int) -> Planes:
    """The rows from `top`, which is even, to `bottom` of `planes` at twice the size; times 16.

    Bilinear: each sample lies between four, which count 9, 3, 3 and 1.
    """
    # With a row above and below; at the border of the image that is the last row again.
    rows = np.arange(top // 2 - 1, -(-bottom // 2) + 1).clip(0, planes.shape[1] - 1)
    near = np.pad(planes[:, rows], ((0, 0), (0, 0), (1, 1)), "edge")
    count, height, columns = near.shape
    tall = np.empty((count, 2 * (height - 2), columns), near.dtype)
    middle = 3 * near[:, 1:-1]
    np.add(middle, near[:, :-2], out=tall[:, 0::2])
    np.add(middle, near[:, 2:], out=tall[:, 1::2])
    wide = np.empty((count, tall.shape[1], 2 * (columns - 2)), near.dtype)
    middle = 3 * tall[:, :, 1:-1]
    np.add(middle, tall[:, :, :-2], out=wide[:, :, 0::2])
    np.add(middle, tall[:, :, 2:], out=wide[:, :, 1::2])
    return wide[:, : bottom - top, :width]


def _lookalikes() -> tuple[Pixels, Pixels]:
    """The least and the most that each sample may become, by its alpha and itself: 256x256.

    Samples of the same premultiplied one have the same bounds, and none of them is more than a
    level away from a bound once both are multiplied by alpha. From CLEAR_ALPHA on it is the same.
    """
    alpha = np.arange(1, 256)[:, None]
    premultiplied = (2 * alpha * np.arange(256) + 255) // 510  # rounded
    # The first and the last sample that round to it.
    first = np.maximum(0, -((255 - 510 * premultiplied) // (2 * alpha)))
    last = np.minimum(255, (510 * premultiplied + 254) // (2 * alpha))
    level, is_clear = 255 // alpha, alpha >= CLEAR_ALPHA
    least = np.where(is_clear, first, np.maximum(0, last - level))
    most = np.where(is_clear, last, np.minimum(255, first + level))
    # At alpha 0 there are no bounds.
    return (
        np.vstack((np.full(256, 0), least)).astype(np.uint8),
        np.vstack((np.full(256, 255), most)).astype(np.uint8),
    )


LEAST, MOST = _lookalikes()
