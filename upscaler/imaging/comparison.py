"""The before/after image: bicubic and upscaled side by side."""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from upscaler.api.sizes import Size
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
    comparison = BeforeAfter(before, (width, height))
    for _ in comparison.watch([after]):
        pass
    return comparison.sheet()


class BeforeAfter:
    """What `before_after` makes, of a result of `size` that comes in strips.

    Of the result only the middle is kept, and only the middle of `before` is resized.
    """

    def __init__(self, before: Pixels, size: Size) -> None:
        self._before = before
        self._size = size
        width, height = size
        panel_width, panel_height = min(width, PANEL_PX), min(height, PANEL_PX)
        left, top = (width - panel_width) // 2, (height - panel_height) // 2
        self._box = (left, top, left + panel_width, top + panel_height)
        self._after: list[Pixels] = []

    def watch(self, strips: Iterable[Pixels]) -> Iterator[Pixels]:
        """Yield the strips of the result, from top to bottom, and keep its middle."""
        left, top, right, bottom = self._box
        row = 0
        for strip in strips:
            middle = strip[max(0, top - row) : max(0, bottom - row), left:right]
            self._after.append(middle.copy())  # the strip's memory may be used again
            row += len(strip)
            yield strip

    def sheet(self) -> Pixels:
        """Both halves, once all strips have been yielded: uint8 RGB."""
        left, top, right, bottom = self._box
        width, height = right - left, bottom - top
        sheet = Image.new("RGB", (2 * width + PANEL_GAP_PX, height), "white")
        draw = ImageDraw.Draw(sheet)
        font = ImageFont.load_default(size=20)
        after = Image.fromarray(np.concatenate(self._after))
        for x, image, title in (
            (0, self._bicubic(), "bicubic"),
            (width + PANEL_GAP_PX, after, "upscaled"),
        ):
            sheet.paste(flatten(image), (x, 0))
            draw.text((x + 12, 8), title, "white", font, stroke_width=2, stroke_fill="black")
        return np.array(sheet)

    def _bicubic(self) -> Image.Image:
        """The middle of `before` at the size of the result."""
        height, width = self._before.shape[:2]
        across, down = width / self._size[0], height / self._size[1]
        left, top, right, bottom = self._box
        # In whole pixels and with all that the kernel reaches, two pixels of the larger grid.
        reach_x, reach_y = (int(3 * max(step, 1)) + 1 for step in (across, down))
        x, y = max(0, int(left * across) - reach_x), max(0, int(top * down) - reach_y)
        part = self._before[y : int(bottom * down) + reach_y, x : int(right * across) + reach_x]
        return Image.fromarray(np.ascontiguousarray(part)).resize(
            (right - left, bottom - top),
            Image.Resampling.BICUBIC,
            (left * across - x, top * down - y, right * across - x, bottom * down - y),
        )
