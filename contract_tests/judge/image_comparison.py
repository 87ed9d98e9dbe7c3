"""Whether a picture that came back shows what was sent, whatever enlarged or shrank it.

A filter or a network decides how an edge looks. But a pixel far from any edge has the colour of its
block, and a pixel near one has something between the colours of the blocks that meet there. How
far an answer lies outside of that is its error. So nothing has to be known of what made it.
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
"""Straight RGBA of shape (rows, columns, 4), 0 to 255. Where it is not a number, any will do."""

GRID: Final = 64
"""An answer is averaged to so many parts a side; one of fewer pixels is taken as it is."""
PARTS: Final = 16
"""A fault counts that fills one of so many parts of each side."""


def compare_images(
    sent: SampleImage, image: Image.Image, background: Literal["white"] | None = "white"
) -> str:
    """What is wrong with an answer to `sent`, or nothing if it looks like it.

    `image` is from `decoding.opened`, of any size: the smaller, the less can be told. What becomes
    of transparency is said by `background`. With "white" a PNG keeps it, and a JPEG lies on white:
    our choice. With None, as no source speaks of it, it may be kept, or put on white or black, or
    just left out.
    """
    seen = _Seen(sent, image)
    wanted = list(_wanted(_block_colours(sent), image, background))
    if any(seen.shows(colours) for colours in wanted):
        return ""
    faults = (name for colours in wanted for name in seen.faults(colours))
    return next(faults, "") or seen.guess(wanted[0])


# What is to be seen


def _block_colours(sent: SampleImage) -> Colours:
    """Its blocks. Any colour will do where nothing is to be seen."""
    colours = sent.upright().astype(np.float32)
    colours[colours[..., 3] == 0, :3] = np.nan
    return colours


def _wanted(colours: Colours, image: Image.Image, background: str | None) -> Iterator[Colours]:
    """The blocks as the answer may show them, the most likely first."""
    keeps = image.has_transparency_data or image.format != "JPEG"
    if keeps or (colours[..., 3] == 255).all():
        yield colours
    if background == "white" and not keeps:
        yield _laid_on(255, colours)
    if background is None:
        yield _laid_on(255, colours)
        yield _laid_on(0, colours)
        yield _opaque(colours)


def _laid_on(level: int, colours: Colours) -> Colours:
    share = colours[..., 3:] / 255
    return _opaque(np.where(share == 0, level, colours * share + level * (1 - share)))


def _opaque(colours: Colours) -> Colours:
    return _with_alpha(colours, 255)


def _with_alpha(colours: Colours, alpha: float | Colours) -> Colours:
    return np.concatenate((colours[..., :3], np.full_like(colours[..., 3:], alpha)), axis=-1)


# What is seen

_REACH_PX: Final = 1.0
"""How far beyond its own area an answer's pixel may see, as bicubic filters do and Lanczos."""
_REACH_OF_JPEG_PX: Final = 1.0
"""How much further where two by two pixels share a colour."""
_REACH_OF_INPUT_PX: Final = 2.0
"""The same in pixels of the input, which may be a JPEG itself, or be smoothed by a network."""
_SMALL_PX: Final = 100
_NAMED_PX: Final = 16


@dataclass(frozen=True)
class _Limits:
    """The largest errors of what shows the picture, in levels of 255, of its worst channel.

    `mean` is over all of it, and `worst` over the worst of PARTS x PARTS parts.
    """

    mean: float
    worst: float


# Measured with thousands of pictures of all modes, with each of Pillow's filters, from 1/256 to 4
# times the size, as PNG and as JPEG down to quality 60 with 4:2:0: at most 3.7 and 17.2 from 100
# pixels a side up, and 5.8 and 60 from 16 up. With three trained networks: 3.5 and 10.2.
_LIMITS: Final = _Limits(6, 24)
_LIMITS_SMALL: Final = _Limits(8, 80)
# Of a few pixels each may lie at an edge, where a JPEG or WebP of either side mixes the colour of
# one block with the light of another. The lightest colour of ours is 39 from white, and the darkest
# 40 from black: those can still be told, if the input has lost nothing.
_LIMITS_TINY: Final = _Limits(36, 144)
_LIMITS_TINY_OF_LOSSY: Final = _Limits(72, 144)
# Whoever has a profile for inks without one makes far duller colours of them: libvips 23 and 89.
_LIMITS_CMYK: Final = _Limits(32, 128)


class _Seen:
    """An answer, averaged to at most GRID x GRID parts, and how exactly it has to be right."""

    def __init__(self, sent: SampleImage, image: Image.Image) -> None:
        self.sent = sent
        self.shown = _reduced(image)
        own = _REACH_PX + (_REACH_OF_JPEG_PX if image.format == "JPEG" else 0)
        sides = zip(image.size, sent.size, strict=True)
        across, down = (own / side + _REACH_OF_INPUT_PX / before for side, before in sides)
        self.reach = (down, across)
        self.named = min(image.size) >= _NAMED_PX
        self.limits = _LIMITS if min(image.size) >= _SMALL_PX else _LIMITS_SMALL
        if not self.named:
            lossy = sent.format == "jpeg" or "lossy" in sent.mode
            self.limits = _LIMITS_TINY_OF_LOSSY if lossy else _LIMITS_TINY
        if sent.mode == "cmyk":
            self.limits = _LIMITS_CMYK
        self.blank = self.named and _contrast(self.shown) < 8

    def shows(self, colours: Colours) -> bool:
        """Whether it is a picture of these blocks."""
        if self.blank and _contrast(colours) > 64:
            return False
        errors = self._errors(colours)
        worst = _parts(errors).max()
        return bool(errors.mean((0, 1)).max() <= self.limits.mean and worst <= self.limits.worst)

    def faults(self, colours: Colours) -> Iterator[str]:
        """By name, what has been done to these blocks."""
        if not self.named:
            return
        if self.blank:
            yield "it is blank"
            return
        for name, other in _known_mistakes(self.sent, colours):
            if self.shows(other):
                yield name
        if (colours[..., 3] < 255).any() and self.shown[..., 3].min() > 250:
            yield "its transparency is lost"
        if _saturation(self.shown) < 4 and _saturation(colours) > 24:
            yield "its colours are lost"

    def guess(self, colours: Colours) -> str:
        """What may be wrong where nothing has been recognised."""
        darkest, lightest = self._extremes(colours)
        middle = (darkest + lightest)[..., :3] / 2
        alike = _correlation(middle, self.shown[..., :3])
        if not self.named:
            return "its colours are not those that were sent"
        if alike > 0.5 and np.median(_parts(self._errors(colours))) <= self.limits.mean:
            return "a part of it is wrong"
        if alike > 0.5:
            return f"it is moved, cropped or distorted (correlation {alike:.2f})"
        return f"it looks like nothing that was sent (correlation {alike:.2f})"

    def _errors(self, colours: Colours) -> Colours:
        """How far each part lies outside of what it may be: of the same shape as `shown`."""
        darkest, lightest = self._extremes(colours)
        return np.maximum(np.maximum(darkest - self.shown, self.shown - lightest), 0)

    def _extremes(self, colours: Colours) -> tuple[Colours, Colours]:
        """The least and the greatest value within the reach of each part."""
        least, greatest = np.nan_to_num(colours, nan=0), np.nan_to_num(colours, nan=255)
        for axis in (0, 1):
            edges = _edges(colours.shape[axis], self.shown.shape[axis], self.reach[axis])
            least = _within(np.minimum, least, edges, axis)
            greatest = _within(np.maximum, greatest, edges, axis)
        return least, greatest


def _reduced(image: Image.Image) -> Colours:
    """The means of GRID x GRID areas, made strip by strip: an RGBA copy of all takes 268 MB."""
    width, height = image.size
    columns, rows = min(width, GRID), min(height, GRID)
    strips = []
    for row in range(rows):
        top, bottom = row * height / rows, (row + 1) * height / rows
        strip = to_eight_bits(image.crop((0, floor(top), width, ceil(bottom)))).convert("RGBA")
        area = (0, top - floor(top), width, bottom - floor(top))
        strips.append(np.asarray(strip.resize((columns, 1), Image.Resampling.BOX, area)))
    return np.concatenate(strips).astype(np.float32)


def _edges(blocks: int, parts: int, reach: float) -> NDArray[np.intp]:
    """The first block within the reach of each part of a side, and the one behind the last."""
    starts = np.floor((np.arange(parts) / parts - reach) * blocks)
    stops = np.ceil((np.arange(1, parts + 1) / parts + reach) * blocks)
    return np.stack((starts, stops), axis=-1).clip(0, blocks).astype(np.intp)


def _within(extreme: np.ufunc, values: Colours, edges: NDArray[np.intp], axis: int) -> Colours:
    """The extremes between all edges along one axis."""
    # What reduceat gives between one part and the next is left out, and no edge may be its end.
    behind = values.take([-1], axis)
    both: Colours = extreme.reduceat(np.concatenate((values, behind), axis), edges.ravel(), axis)
    return both.take(range(0, edges.size, 2), axis)


def _parts(errors: Colours) -> Colours:
    """The means over PARTS x PARTS parts."""
    for axis in (0, 1):
        count = errors.shape[axis]
        edges = np.linspace(0, count, min(count, PARTS) + 1).astype(int)
        each = np.diff(edges).reshape((-1, 1, 1) if axis == 0 else (-1, 1))
        errors = np.add.reduceat(errors, edges[:-1], axis) / each
    return errors


def _known_mistakes(sent: SampleImage, colours: Colours) -> Iterator[tuple[str, Colours]]:
    """What the blocks would be if a known mistake had been made, and how to say that."""
    if sent.orientation != 1:
        yield "its EXIF orientation is not followed", _block_colours(replace(sent, orientation=1))
    yield "it is mirrored", colours[:, ::-1]
    yield "it is upside down", colours[::-1]
    for quarters in (1, 2, 3):
        yield f"it is rotated by {90 * quarters} degrees", np.rot90(colours, -quarters)
    yield "it is transposed", colours.swapaxes(0, 1)
    yield "it is transposed", colours[::-1, ::-1].swapaxes(0, 1)
    for order in permutations(range(3)):
        if order != (0, 1, 2):
            yield "its colours are exchanged", colours[..., [*order, 3]]
    alpha = colours[..., 3:]
    for share in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3):
        yield "it is too dark", _with_alpha(colours * share, alpha)
        yield "it is too light", _with_alpha(255 - (255 - colours) * share, alpha)
    yield "it is a negative", _with_alpha(255 - colours, alpha)
    yield (
        "its colours are multiplied by its transparency",
        _with_alpha(colours * alpha / 255, alpha),
    )
    yield "its transparency is inverted", _with_alpha(np.full_like(colours, np.nan), 255 - alpha)


def _contrast(colours: Colours) -> float:
    """How far the darkest and the lightest part are apart, in the channel that has most of it."""
    return float(np.nan_to_num(np.ptp(colours, axis=(0, 1)), nan=0).max())


def _saturation(colours: Colours) -> float:
    """How far the channels are apart, on average, in levels of 255."""
    return float(np.nanmean(np.ptp(colours[..., :3], axis=-1)))


def _correlation(these: Colours, those: Colours) -> float:
    """Over all channels, each less its own mean: from -1 to 1, and 0 for what is constant."""
    one, other = (each - each.mean((0, 1)) for each in (these, those))
    power = float((one**2).sum() * (other**2).sum()) ** 0.5
    return float((one * other).sum()) / power if power else 0.0
