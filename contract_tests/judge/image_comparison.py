"""Whether an image in a response shows the sample that was sent, whatever resized it.

A filter or a network decides how an edge looks. But a pixel far from any edge has the colour of its
block, and a pixel near one has something between the colours of the blocks that meet there. How far
a pixel lies outside of that range is its error. So nothing has to be known of what resized it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from math import ceil, floor
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract_tests.judge.decoding import to_eight_bits
from contract_tests.requests.images import SampleImage

Colours = NDArray[np.floating[Any]]
"""Straight RGBA of shape (rows, columns, 4), 0 to 255. NaN stands for any value."""

GRID: Final = 64
"""A received image is averaged to this many cells a side; if it has fewer pixels, to none."""
TILES: Final = 16
"""A mistake counts if it fills one of this many tiles a side."""


def compare_images(
    sent: SampleImage, image: Image.Image, background: Literal["white"] | None = "white"
) -> str:
    """The mistake in `image` as a response to `sent`, or an empty string.

    `image` is from `decode_image` and of any size; of smaller ones less can be said. With the
    background "white" a PNG keeps transparency and a JPEG is put on white, which is our choice.
    With None, since no source mentions it, transparency may be kept, put on white or black, or
    dropped.
    """
    received = _Received(sent, image)
    candidates = list(_candidates(_block_colours(sent), image, background))
    if any(received.shows(colours) for colours in candidates):
        return ""
    mistakes = (name for colours in candidates for name in received.mistakes(colours))
    return next(mistakes, "") or received.guess(candidates[0])


# What was sent


def _block_colours(sent: SampleImage) -> Colours:
    """The colours of its blocks, NaN (any colour) where alpha is 0."""
    colours = sent.upright().astype(np.float32)
    colours[colours[..., 3] == 0, :3] = np.nan
    return colours


def _candidates(colours: Colours, image: Image.Image, background: str | None) -> Iterator[Colours]:
    """The blocks as the image may show them, the most likely first."""
    keeps = image.has_transparency_data or image.format != "JPEG"
    if keeps or (colours[..., 3] == 255).all():
        yield colours
    if background == "white" and not keeps:
        yield _flatten(255, colours)
    if background is None:
        yield _flatten(255, colours)
        yield _flatten(0, colours)
        yield _with_alpha(colours, 255)


def _flatten(level: int | Colours, colours: Colours) -> Colours:
    """The colours on a background of this grey level, or of this RGBA."""
    share = colours[..., 3:] / 255
    return _with_alpha(np.where(share == 0, level, colours * share + level * (1 - share)), 255)


def _with_alpha(colours: Colours, alpha: float | Colours) -> Colours:
    return np.concatenate((colours[..., :3], np.full_like(colours[..., 3:], alpha)), axis=-1)


# What was received

_REACH_PX: Final = 1.0
"""How far beyond its own area a pixel may be influenced, as bicubic and Lanczos filters do."""
_REACH_OF_JPEG_PX: Final = 1.0
"""How much further in a JPEG, where two by two pixels share a colour."""
_REACH_OF_INPUT_PX: Final = 2.0
"""How much further in pixels of the input, which may be a JPEG, or smoothed by a network."""
_SMALL_PX: Final = 100
_TINY_PX: Final = 16
"""Below this side mistakes can be detected, but not named."""
_ALIKE: Final = 0.5
"""The correlation above which an image shows what was sent in some way."""


@dataclass(frozen=True)
class _Limits:
    """The largest errors of correct images in their worst channel, 0 to 255.

    `mean` is the mean error of the whole image, and `worst` that of its worst tile.
    """

    mean: float
    worst: float


# Measured with thousands of images of all modes, with each of Pillow's filters, from 1/256 to 4
# times the size, as PNG and as JPEG down to quality 60 with 4:2:0: at most 3.7 and 17.2 from 100
# pixels a side up, and 5.8 and 60 from 16 up. With three trained networks: 3.5 and 10.2.
_LIMITS: Final = _Limits(6, 24)
_LIMITS_SMALL: Final = _Limits(8, 80)
# Of a few pixels each may lie at an edge, where a JPEG or WebP of either side mixes the colour of
# one block with the light of another. The lightest colour of ours is 39 from white, and the darkest
# 40 from black: those can still be told, if the input has lost nothing.
_LIMITS_TINY: Final = _Limits(36, 144)
_LIMITS_TINY_OF_LOSSY: Final = _Limits(72, 144)
# A decoder with a profile for inks that have none makes far duller colours of them: libvips 23, 89.
_LIMITS_CMYK: Final = _Limits(32, 128)


class _Received:
    """A received image, averaged to at most GRID x GRID cells, and the errors that it may have."""

    def __init__(self, sent: SampleImage, image: Image.Image) -> None:
        self.sent = sent
        self.cells = _average(image)
        own = _REACH_PX + (_REACH_OF_JPEG_PX if image.format == "JPEG" else 0)
        sides = zip(image.size, sent.size, strict=True)
        across, down = (own / side + _REACH_OF_INPUT_PX / before for side, before in sides)
        self.reach = (down, across)
        self.tiny = min(image.size) < _TINY_PX
        self.limits = _LIMITS if min(image.size) >= _SMALL_PX else _LIMITS_SMALL
        if self.tiny:
            lossy = sent.format == "jpeg" or "lossy" in sent.mode
            self.limits = _LIMITS_TINY_OF_LOSSY if lossy else _LIMITS_TINY
        if sent.mode == "cmyk":
            self.limits = _LIMITS_CMYK
        self.blank = not self.tiny and _contrast(self.cells) < 8

    def shows(self, colours: Colours) -> bool:
        """Whether it shows these blocks."""
        if self.blank and _contrast(colours) > 64:
            return False
        errors = self._errors(colours)
        worst = _tile_means(errors).max()
        return bool(errors.mean((0, 1)).max() <= self.limits.mean and worst <= self.limits.worst)

    def mistakes(self, colours: Colours) -> Iterator[str]:
        """Known mistakes that have been made with these blocks."""
        if self.tiny:
            return
        if self.blank:
            yield "the image is blank"
            return
        if self.sent.transparent and (colours[..., 3] == 255).all():
            yield from self._other_backgrounds()
        for name, changed in _known_mistakes(self.sent, colours):
            if self.shows(changed):
                yield name
        if (colours[..., 3] < 255).any() and self.cells[..., 3].min() > 250:
            yield "the image's transparency is lost"
        if _saturation(self.cells) < 4 and _saturation(colours) > 24:
            yield "the image's colours are lost"

    def _other_backgrounds(self) -> Iterator[str]:
        """What became of transparency that should have been put on white."""
        sent = _block_colours(self.sent)
        if self.shows(_with_alpha(sent, 255)):
            yield "the image's transparency is dropped, not put on white"
        clear = np.argwhere(sent[..., 3] == 0)
        if len(clear) == 0:
            return
        # What shines through where nothing was drawn: of most such blocks, as one may be damaged.
        places = (2 * clear + 1) * self.cells.shape[:2] // (2 * np.array(sent.shape[:2]))
        background = np.median(self.cells[places[:, 0], places[:, 1]], axis=0)
        if self.shows(_flatten(background, sent)):
            yield f"the image's transparency is put on {_colour_name(background)}, not on white"

    def guess(self, colours: Colours) -> str:
        """What may be wrong if it is no known mistake."""
        if self.tiny:
            return "the image's colours are not those that were sent"
        darkest, lightest = self._extremes(colours)
        correlation = _correlation((darkest + lightest)[..., :3] / 2, self.cells[..., :3])
        if correlation <= _ALIKE:
            return f"the image shows nothing that was sent (correlation {correlation:.2f})"
        if np.median(_tile_means(self._errors(colours))) <= self.limits.mean:
            return "a part of the image is wrong"
        return f"the image is moved, cropped or distorted (correlation {correlation:.2f})"

    def _errors(self, colours: Colours) -> Colours:
        """How far each cell lies outside of its range: of the same shape as `cells`."""
        darkest, lightest = self._extremes(colours)
        return np.maximum(np.maximum(darkest - self.cells, self.cells - lightest), 0)

    def _extremes(self, colours: Colours) -> tuple[Colours, Colours]:
        """The least and the greatest value within the reach of each cell."""
        least, greatest = np.nan_to_num(colours, nan=0), np.nan_to_num(colours, nan=255)
        for axis in (0, 1):
            edges = _edges(colours.shape[axis], self.cells.shape[axis], self.reach[axis])
            least = _extreme_within(np.minimum, least, edges, axis)
            greatest = _extreme_within(np.maximum, greatest, edges, axis)
        return least, greatest


def _average(image: Image.Image) -> Colours:
    """The means of at most GRID x GRID areas.

    Made strip by strip, as an RGBA copy of the largest image would take 268 MB.
    """
    width, height = image.size
    columns, rows = min(width, GRID), min(height, GRID)
    strips = []
    for row in range(rows):
        top, bottom = row * height / rows, (row + 1) * height / rows
        strip = to_eight_bits(image.crop((0, floor(top), width, ceil(bottom)))).convert("RGBA")
        area = (0, top - floor(top), width, bottom - floor(top))
        strips.append(np.asarray(strip.resize((columns, 1), Image.Resampling.BOX, area)))
    return np.concatenate(strips).astype(np.float32)


def _edges(blocks: int, cells: int, reach: float) -> NDArray[np.intp]:
    """The first block within the reach of each cell of a side, and the one behind the last."""
    starts = np.floor((np.arange(cells) / cells - reach) * blocks)
    stops = np.ceil((np.arange(1, cells + 1) / cells + reach) * blocks)
    return np.stack((starts, stops), axis=-1).clip(0, blocks).astype(np.intp)


def _extreme_within(
    extreme: np.ufunc, values: Colours, edges: NDArray[np.intp], axis: int
) -> Colours:
    """The minima or maxima between each pair of edges along one axis."""
    # reduceat takes the edges as one list, so every second result, from the end of one cell to the
    # start of the next, is dropped; it also allows no edge at the end, hence the added value.
    behind = values.take([-1], axis)
    both: Colours = extreme.reduceat(np.concatenate((values, behind), axis), edges.ravel(), axis)
    return both.take(range(0, edges.size, 2), axis)


def _tile_means(errors: Colours) -> Colours:
    """The means of TILES x TILES tiles."""
    for axis in (0, 1):
        count = errors.shape[axis]
        edges = np.linspace(0, count, min(count, TILES) + 1).astype(int)
        each = np.diff(edges).reshape((-1, 1, 1) if axis == 0 else (-1, 1))
        errors = np.add.reduceat(errors, edges[:-1], axis) / each
    return errors


def _known_mistakes(sent: SampleImage, colours: Colours) -> Iterator[tuple[str, Colours]]:
    """Names of known mistakes, and what the blocks would be if each had been made."""
    if sent.orientation != 1:
        unturned = _block_colours(replace(sent, orientation=1))
        yield "the image's EXIF orientation is not followed", unturned
    yield "the image is mirrored", colours[:, ::-1]
    yield "the image is upside down", colours[::-1]
    for quarters in (1, 2, 3):
        yield f"the image is rotated by {90 * quarters} degrees", np.rot90(colours, -quarters)
    yield "the image is transposed", colours.swapaxes(0, 1)
    yield "the image is transposed", colours[::-1, ::-1].swapaxes(0, 1)
    for order in permutations(range(3)):
        if order != (0, 1, 2):
            yield "the image's colour channels are swapped", colours[..., [*order, 3]]
    alpha = colours[..., 3:]
    for share in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3):
        yield "the image is too dark", _with_alpha(colours * share, alpha)
        yield "the image is too light", _with_alpha(255 - (255 - colours) * share, alpha)
    yield "the image is a negative", _with_alpha(255 - colours, alpha)
    premultiplied = _with_alpha(colours * alpha / 255, alpha)
    yield "the image's colours are multiplied by its transparency", premultiplied
    yield (
        "the image's transparency is inverted",
        _with_alpha(np.full_like(colours, np.nan), 255 - alpha),
    )


_NAMED: Final = {"black": 0, "grey": 128, "white": 255}
_NEAR: Final = 12
"""How far a colour may be from one with a name in each channel: a JPEG is not exact."""


def _colour_name(rgba: Colours) -> str:
    for name, level in _NAMED.items():
        if np.abs(rgba[:3] - level).max() <= _NEAR:
            return name
    return "#" + "".join(f"{round(float(level)):02x}" for level in rgba[:3])


def _contrast(colours: Colours) -> float:
    """The largest difference between two cells in any channel, 0 to 255."""
    return float(np.nan_to_num(np.ptp(colours, axis=(0, 1)), nan=0).max())


def _saturation(colours: Colours) -> float:
    """The mean difference between a cell's lowest and highest colour channel, 0 to 255."""
    return float(np.nanmean(np.ptp(colours[..., :3], axis=-1)))


def _correlation(these: Colours, those: Colours) -> float:
    """The correlation over all channels, -1 to 1; 0 if either image is constant."""
    # Each channel without its mean, so that a common tint does not count as likeness.
    one, other = (each - each.mean((0, 1)) for each in (these, those))
    power = float((one**2).sum() * (other**2).sum()) ** 0.5
    return float((one * other).sum()) / power if power else 0.0
