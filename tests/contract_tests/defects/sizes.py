"""Mistakes with how large the output is."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from tests.contract_tests.defects.planting import Defect, Planting, changed_size, patched
from tests.contract_tests.defects.probes import Probe, asking, checking, file, text, turned
from upscaler.api import sizes
from upscaler.api.request import UpscalingRequest
from upscaler.api.sizes import Size
from upscaler.imaging import decode


def given(width: int, height: int, **fields: object) -> Probe:
    """Ask what would come of a picture of that size."""
    return checking(init_image=text(file(width, height)), **fields)


def rounded(to_int: Callable[[Fraction], int], least: int = 1) -> Planting:
    """Round computed sides in another way."""
    return patched(sizes, "_half_up", lambda side: max(least, to_int(side)))


def of_scale(change: Callable[[float], Any]) -> Planting:
    """Compute with something else than the scale that was written."""

    def size(request: UpscalingRequest, size: Size, right: Size) -> Size:
        if request.scale is None:
            return right
        width, height = (int(side * change(request.scale) + Fraction(1, 2)) for side in size)
        return max(1, width), max(1, height)

    return changed_size(size)


def made_of(change: Callable[[int, int], Size]) -> Planting:
    """Make something of the size that would be right."""
    return changed_size(lambda _request, _size, right: change(*right))


def of_sides(change: Callable[[UpscalingRequest, Size, Size], Size]) -> Planting:
    """Make another size where a height or a width is asked for."""
    return changed_size(
        lambda request, size, right: right if request.scale else change(request, size, right)
    )


def half_up(value: Fraction) -> int:
    """As it should be rounded."""
    return max(1, math.floor(value + Fraction(1, 2)))


def by_float_scale(request: UpscalingRequest, size: Size, right: Size) -> Size:
    """Both sides by the quotient of the side that is asked for, in binary, and cut off."""
    if request.output_image_height:
        scale = request.output_image_height / size[1]
    else:
        assert request.output_image_width, "a side is asked for"
        scale = request.output_image_width / size[0]
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def turned_round(request: UpscalingRequest, size: Size, right: Size) -> Size:
    """The other side by the aspect ratio upside down."""
    width, height = size
    if request.output_image_height:
        return half_up(Fraction(height * request.output_image_height, width)), right[1]
    assert request.output_image_width, "a side is asked for"
    return right[0], half_up(Fraction(width * request.output_image_width, height))


def swapped(request: UpscalingRequest, size: Size, right: Size) -> Size:
    """A height for a width, and the other way round."""
    width, height = size
    if request.output_image_height:
        asked = request.output_image_height
        return asked, half_up(Fraction(height * asked, width))
    asked = request.output_image_width or 1
    return half_up(Fraction(width * asked, height)), asked


def longer(request: UpscalingRequest, size: Size, right: Size) -> Size:
    """The side that is asked for is that of the square into which the picture shall fit."""
    asked = request.output_image_height or request.output_image_width or 1
    factor = Fraction(asked, max(size))
    return half_up(size[0] * factor), half_up(size[1] * factor)


def lacks_a_column(request: UpscalingRequest, size: Size, right: Size) -> Size:
    """The width without its last pixel where the scale is a whole number above 1."""
    whole = request.scale is not None and right[0] > size[0] and right[0] % size[0] == 0
    return right[0] - whole, right[1]


FLAT: Final = text(file(2048, 256))

ROUNDING: Final = (
    Defect(
        "rounded-down",
        "Cuts off what a computed side has behind the point.",
        ("REQ-16",),
        rounded(math.floor),
        asking(scale=1.005),
    ),
    Defect(
        "rounded-up",
        "Rounds computed sides up.",
        ("REQ-16",),
        rounded(math.ceil),
        asking(scale=1.001),
    ),
    Defect(
        "rounded-half-even",
        "Rounds a half to the even number, as Python's round does.",
        ("REQ-16",),
        rounded(round),
        asking(scale=1.025),
    ),
    Defect(
        "rounded-half-down",
        "Rounds a half down.",
        ("REQ-16",),
        rounded(lambda side: math.ceil(side - Fraction(1, 2))),
        asking(scale=1.025),
    ),
    Defect(
        "scale-in-floats",
        "Multiplies in binary, so that 300 times 1.005 is less than 301.5.",
        ("REQ-16",),
        of_scale(lambda scale: scale),
        given(300, 260, scale=1.005),
    ),
    Defect(
        "scale-of-binary-value",
        "Computes exactly, but with the binary number next to the scale that was written.",
        ("REQ-16",),
        of_scale(Fraction),
        given(290, 260, scale=0.35),
    ),
    Defect(
        "scale-of-two-places",
        "Keeps the scale to two places.",
        ("REQ-16",),
        of_scale(lambda scale: Fraction(round(scale * 100), 100)),
        asking(scale=1.005),
    ),
    Defect(
        "side-of-0",
        "Rounds a side down to nothing, and cannot make such a picture.",
        ("RES-5", "REQ-16"),
        rounded(lambda side: math.floor(side + Fraction(1, 2)), least=0),
        asking(init_image=FLAT, output_image_width=1),
    ),
    Defect(
        "side-is-even",
        "Makes both sides even, as videos need it.",
        ("REQ-16",),
        made_of(lambda width, height: (width + width % 2, height + height % 2)),
        given(301, 261, scale=1),
    ),
    Defect(
        "scale-ignored",
        "Makes four times as much, whatever the scale.",
        ("REQ-16",),
        of_scale(lambda _: 4),
        asking(scale=2),
    ),
    Defect(
        "whole-width-minus-1",
        "Makes the picture a pixel too narrow where the scale is a whole number.",
        ("REQ-16",),
        changed_size(lacks_a_column),
        asking(scale=2),
    ),
    Defect(
        "scale-of-one-side",
        "Applies the scale to the width, and keeps the height.",
        ("REQ-16",),
        changed_size(lambda request, size, right: (right[0], size[1]) if request.scale else right),
        asking(scale=2),
    ),
    Defect(
        "scale-of-area",
        "Takes the scale for that of the area.",
        ("REQ-16",),
        of_scale(lambda scale: scale**0.5),
        asking(scale=2),
    ),
    Defect(
        "sides-swapped",
        "Makes the height of what should be the width.",
        ("REQ-16",),
        made_of(lambda width, height: (height, width)),
        asking(scale=1),
    ),
    Defect(
        "asked-sides-swapped",
        "Takes output_image_height for the width, and the other way round.",
        ("REQ-7", "REQ-16"),
        of_sides(swapped),
        asking(output_image_height=300),
    ),
    Defect(
        "aspect-ratio-ignored",
        "Stretches the picture: the side that is not asked for stays as it is.",
        ("REQ-7", "REQ-16"),
        of_sides(
            lambda request, size, right: (
                (size[0], right[1]) if request.output_image_height else (right[0], size[1])
            )
        ),
        asking(output_image_height=520),
    ),
    Defect(
        "aspect-ratio-upside-down",
        "Multiplies by the aspect ratio where it should divide.",
        ("REQ-7", "REQ-16"),
        of_sides(turned_round),
        asking(output_image_width=600),
    ),
    Defect(
        "asked-side-is-longer",
        "Takes the height for that of a square into which the picture shall fit.",
        ("REQ-7", "REQ-16"),
        of_sides(longer),
        asking(output_image_height=400),
    ),
    Defect(
        "asked-side-by-quotient",
        "Computes even the side that is asked for, in binary, and loses a pixel of it.",
        ("REQ-16", "REQ-7"),
        of_sides(by_float_scale),
        given(300, 259, output_image_height=446),
    ),
    Defect(
        "width-is-ignored",
        "Makes twice as much, whatever the width.",
        ("REQ-7", "REQ-16"),
        changed_size(
            lambda request, size, right: (
                (2 * size[0], 2 * size[1]) if request.output_image_width else right
            )
        ),
        asking(output_image_width=450),
    ),
    Defect(
        "size-before-turning",
        "Computes the output's size before it turns the picture upright.",
        ("REQ-16", "RES-2"),
        patched(decode, "SIDEWAYS", ()),
        asking(init_image=text(turned(6))),
    ),
)
