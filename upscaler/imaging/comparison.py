"""The before/after image: bicubic and upscaled side by side."""

from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from upscaler.imaging.colour import flatten
from upscaler.imaging.pixels import Pixels

PANEL_PX: Final = 768
"""The longest side of each half."""
PANEL_GAP_PX: Final = 8
"""The gap between the halves."""


def before_after(before: Pixels, after: Pixels) -> Pixels:
    """The middle of `before`, resized by bicubic to the size of `after`, next to that of `after`.

    Both are of shape (height, width, 3 or 4); the result is uint8 RGB, with transparency on white.
    Each half is a crop of at most PANEL_PX on each side and not a reduction, so that every pixel of
    `after` is shown as it is.
    """
    height, width = after.shape[:2]
    panel_width, panel_height = min(width, PANEL_PX), min(height, PANEL_PX)
    left, top = (width - panel_width) // 2, (height - panel_height) // 2
    box = (left, top, left + panel_width, top + panel_height)
    bicubic = Image.fromarray(before).resize((width, height), Image.Resampling.BICUBIC)
    sheet = Image.new("RGB", (2 * panel_width + PANEL_GAP_PX, panel_height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=20)
    for x, image, title in (
        (0, bicubic, "bicubic"),
        (panel_width + PANEL_GAP_PX, Image.fromarray(after), "upscaled"),
    ):
        sheet.paste(flatten(image.crop(box)), (x, 0))
        draw.text((x + 12, 8), title, "white", font, stroke_width=2, stroke_fill="black")
    return np.array(sheet)
