"""Resize images, on all cores."""

from collections import deque
from typing import Final

import numpy as np
from PIL import Image

from upscaler.api.sizes import Size
from upscaler.imaging.parallel import ordered_map
from upscaler.imaging.pixels import Pixels

LANCZOS: Final = Image.Resampling.LANCZOS
RESIZE_PX: Final = 64
"""How many rows, or columns, are resized in one piece of work."""


def resize(pixels: Pixels, size: Size) -> Pixels:
    """Resize `pixels` to `size` (width, height) by antialiased Lanczos: uint8, the same channels.

    The colour of transparent pixels does not bleed into others. The result equals that of Pillow
    for the whole image: Pillow first resizes the rows and then the columns, so groups of rows, and
    then groups of columns, can be resized independently on several cores.
    """
    height, width, channels = pixels.shape
    if (width, height) == size:
        return pixels
    wide = np.empty((height, size[0], channels), np.uint8)
    result = np.empty((size[1], size[0], channels), np.uint8)

    def resize_rows(top: int) -> None:
        strip = Image.fromarray(pixels[top : top + RESIZE_PX])
        # "RGBa" is premultiplied alpha: a transparent pixel then has no colour to contribute.
        strip = strip.convert("RGBa") if channels == 4 else strip
        wide[top : top + RESIZE_PX] = np.asarray(strip.resize((size[0], strip.height), LANCZOS))

    def resize_columns(left: int) -> None:
        part = wide[:, left : left + RESIZE_PX]
        strip = Image.fromarray(part, "RGBa" if channels == 4 else "RGB")
        strip = strip.resize((strip.width, size[1]), LANCZOS)
        strip = strip.convert("RGBA") if channels == 4 else strip
        result[:, left : left + RESIZE_PX] = np.asarray(strip)

    # A deque of length 0 runs the iterator and keeps nothing. All rows come before any column.
    deque(ordered_map(resize_rows, range(0, height, RESIZE_PX)), maxlen=0)
    deque(ordered_map(resize_columns, range(0, size[0], RESIZE_PX)), maxlen=0)
    return result
