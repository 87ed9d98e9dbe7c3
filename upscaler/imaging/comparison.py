"""The before/after image: what upscaling made better, side by side."""

from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from upscaler.imaging.colour import flatten
from upscaler.imaging.pixels import Pixels

PANEL_PX: Final = 768
PANEL_GAP_PX: Final = 8
"""Of a before/after picture: the longest side of each half, and what lies between them."""


def before_after(before: Pixels, after: Pixels) -> Pixels:
    """The middle of `after`, and beside it the same of `before` enlarged by bicubic: uint8 RGB.

    Both halves show one pixel of `after` per pixel, at most PANEL_PX on a side, so that what is
    seen is the difference and not a reduction of it.
    """
    height, width = after.shape[:2]
    panel_width, panel_height = min(width, PANEL_PX), min(height, PANEL_PX)
    left, top = (width - panel_width) // 2, (height - panel_height) // 2
    box = (left, top, left + panel_width, top + panel_height)
    plain = Image.fromarray(before).resize((width, height), Image.Resampling.BICUBIC)
    sheet = Image.new("RGB", (2 * panel_width + PANEL_GAP_PX, panel_height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=20)
    for x, image, title in (
        (0, plain, "bicubic"),
        (panel_width + PANEL_GAP_PX, Image.fromarray(after), "upscaled"),
    ):
        sheet.paste(flatten(image.crop(box)), (x, 0))
        draw.text((x + 12, 8), title, "white", font, stroke_width=2, stroke_fill="black")
    return np.array(sheet)
