"""Mistakes with which inputs are taken, how large outputs may be, and where that is told."""

from collections.abc import Callable
from typing import Any, Final

from tests.contract_tests.defects.planting import (
    Defect,
    Fields,
    Planting,
    changed_error,
    input_limits,
    output_limits,
    patched,
    replaced,
)
from tests.contract_tests.defects.probes import checking, file, text
from tests.contract_tests.defects.sizes import FLAT, given
from upscaler.api import request as contract
from upscaler.api import sizes
from upscaler.api.request import UpscalingRequest
from upscaler.api.sizes import Size
from upscaler.errors import FieldError, ImageError, InvalidRequest
from upscaler.imaging import decode
from upscaler.imaging.decode import EncodedImage
from upscaler.service import intake

SMALL: Final = 256

LARGE: Final = 2048

MOST: Final = 8192


def clamped() -> Planting:
    """Make as much as there may be of what would be too large."""

    def output_size(request: UpscalingRequest, size: Size) -> Size:
        sizes.check_input_size(size, request.image_field)
        width, height = sizes.requested_size(request, size)
        return min(width, MOST), min(height, MOST)

    return patched(intake, "output_size", output_size)


def output_first() -> Planting:
    """Look at the output's size before the input's."""

    def around(output_size: Callable[[UpscalingRequest, Size], Size]) -> Any:
        def other(request: UpscalingRequest, size: Size) -> Size:
            if max(sizes.requested_size(request, size)) > MOST:
                msg = "the output may be at most 8192 pixels on each side"
                error = FieldError(("body", request.size_field), msg, "output_too_large")
                raise InvalidRequest(error)
            return output_size(request, size)

        return other

    return replaced(intake, "output_size", around)


def decoded_first() -> Planting:
    """Decode a picture of nearly any size before its size is looked at."""

    def around(read_header: Callable[..., EncodedImage]) -> Any:
        def read(data: bytes) -> EncodedImage:
            picture = read_header(data)
            if max(picture.size) <= 2 * LARGE:
                picture.pixels()
            return read_header(data)

        return read

    return replaced(decode, "read_header", around)


def picture_first() -> Planting:
    """Tell what is wrong with the picture before what is wrong with the fields."""

    def around(validate: Callable[[Any], UpscalingRequest]) -> Any:
        def validated(fields: Fields) -> UpscalingRequest:
            alone = contract.UpscalingRequest(init_image=fields["init_image"], scale=1)
            try:
                size = decode.read_header(alone.init_image or b"").size
            except ImageError as error:
                raise error.of_field("init_image") from error
            sizes.check_input_size(size, "init_image")
            return validate(fields)

        def either(fields: Any) -> UpscalingRequest:
            is_there = isinstance(fields, dict) and isinstance(fields.get("init_image"), str)
            try:
                return validated(fields) if is_there else validate(fields)
            except ValueError:  # pydantic's
                return validate(fields)

        return either

    return replaced(contract, "validate_request", around)


def blamed(kinds: tuple[str, ...], field: str) -> Planting:
    """Tell some errors of another field."""
    return changed_error(
        lambda error: error | {"loc": ["body", field]} if error["type"] in kinds else error
    )


def cut_off(header: bytes) -> str:
    """A picture's file with hardly more than its header, in base64."""
    return text(header[: len(header) // 2])


SIDES: Final = ("width", "height")

INPUTS: Final = tuple(
    defect
    for at, side in enumerate(SIDES)
    for defect in (
        Defect(
            f"input-{side}-255-taken",
            f"Takes inputs with a {side} of 255 pixels.",
            ("REQ-13",),
            input_limits(
                lambda *size, at=at: (
                    SMALL - 1 <= size[at] <= LARGE and SMALL <= size[1 - at] <= LARGE
                )
            ),
            given(*((255, 300), (300, 255))[at], scale=1),
        ),
        Defect(
            f"input-{side}-256-refused",
            f"Refuses inputs with a {side} of 256 pixels.",
            ("REQ-13",),
            input_limits(
                lambda *size, at=at: SMALL < size[at] <= LARGE and SMALL <= size[1 - at] <= LARGE
            ),
            given(*((256, 300), (300, 256))[at], scale=1),
        ),
        Defect(
            f"input-{side}-2048-refused",
            f"Refuses inputs with a {side} of 2048 pixels.",
            ("REQ-13",),
            input_limits(
                lambda *size, at=at: SMALL <= size[at] < LARGE and SMALL <= size[1 - at] <= LARGE
            ),
            given(*((2048, 300), (300, 2048))[at], scale=1),
        ),
        Defect(
            f"input-{side}-2049-taken",
            f"Takes inputs with a {side} of 2049 pixels.",
            ("REQ-13",),
            input_limits(
                lambda *size, at=at: (
                    SMALL <= size[at] <= LARGE + 1 and SMALL <= size[1 - at] <= LARGE
                )
            ),
            given(*((2049, 300), (300, 2049))[at], scale=1),
        ),
    )
)

OTHER_INPUTS: Final = (
    Defect(
        "input-area-small",
        "Takes inputs of 65,536 pixels and more, however short a side of them is.",
        ("REQ-13",),
        input_limits(
            lambda width, height: width * height >= SMALL**2 and max(width, height) <= LARGE
        ),
        given(200, 400, scale=1),
    ),
    Defect(
        "input-longer-side-only",
        "Asks for 256 pixels of the longer side only.",
        ("REQ-13",),
        input_limits(lambda *size: SMALL <= max(size) <= LARGE),
        given(100, 300, scale=1),
    ),
    Defect(
        "input-shorter-side-only",
        "Allows 2048 pixels of the shorter side only.",
        ("REQ-13",),
        input_limits(lambda *size: SMALL <= min(size) <= LARGE and max(size) <= 2 * LARGE),
        given(2200, 300, scale=1),
    ),
    Defect(
        "input-below-300",
        "Asks for 300 pixels.",
        ("REQ-13",),
        input_limits(lambda *size: min(size) >= 300 and max(size) <= LARGE),
        given(299, 299, scale=1),
    ),
    Defect(
        "input-blamed-on-scale",
        "Tells of an input of a wrong size on the field that asks for the output's.",
        ("REQ-15", "REQ-13"),
        blamed(("image_too_small", "image_too_large"), "scale"),
        given(100, 300, scale=1),
    ),
    Defect(
        "picture-before-fields",
        "Tells what is wrong with the picture before what is wrong with the fields.",
        ("REQ-19",),
        picture_first(),
        given(100, 300, scale=-1),
    ),
)

TALL: Final = text(file(256, 2048))

TOO_LARGE: Final = 8193 / 2048


def one_less(field: str) -> Planting:
    """Refuse the largest output if this field asks for it."""
    return output_limits(lambda by, *size: max(size) <= MOST - (by == field))


def one_more(field: str) -> Planting:
    """Make one pixel more than there may be if this field asks for it."""
    return output_limits(lambda by, *size: max(size) <= MOST + (by == field))


OUTPUTS: Final = (
    Defect(
        "output-8192-by-scale-refused",
        "Refuses outputs of 8192 pixels by scale.",
        ("REQ-14",),
        one_less("scale"),
        checking(init_image=FLAT, scale=4),
    ),
    Defect(
        "output-8193-by-scale-taken",
        "Makes outputs of 8193 pixels by scale.",
        ("REQ-14",),
        one_more("scale"),
        checking(init_image=FLAT, scale=TOO_LARGE),
    ),
    Defect(
        "output-height-8192-refused",
        "Refuses a height of 8192.",
        ("REQ-14",),
        one_less("output_image_height"),
        checking(init_image=TALL, output_image_height=8192),
    ),
    Defect(
        "output-height-8193-taken",
        "Makes outputs with a height of 8193 if that is asked for.",
        ("REQ-14",),
        one_more("output_image_height"),
        checking(init_image=TALL, output_image_height=8193),
    ),
    Defect(
        "output-width-8192-refused",
        "Refuses a width of 8192.",
        ("REQ-14",),
        one_less("output_image_width"),
        checking(init_image=FLAT, output_image_width=8192),
    ),
    Defect(
        "output-width-8193-taken",
        "Makes outputs with a width of 8193 if that is asked for.",
        ("REQ-14",),
        one_more("output_image_width"),
        checking(init_image=FLAT, output_image_width=8193),
    ),
    Defect(
        "output-computed-width-8193-taken",
        "Makes outputs with a width of 8193 if a height is asked for.",
        ("REQ-14",),
        output_limits(
            lambda by, width, height: (
                height <= MOST and width <= MOST + (by == "output_image_height")
            )
        ),
        given(2047, 373, output_image_height=1493),
    ),
    Defect(
        "output-computed-height-8193-taken",
        "Makes outputs with a height of 8193 if a width is asked for.",
        ("REQ-14",),
        output_limits(
            lambda by, width, height: (
                width <= MOST and height <= MOST + (by == "output_image_width")
            )
        ),
        given(373, 2047, output_image_width=1493),
    ),
    Defect(
        "output-width-roughly",
        "Looks at the height of outputs alone, and at their width only roughly.",
        ("REQ-14",),
        output_limits(lambda _, width, height: width < 8400 and height <= MOST),
        checking(init_image=FLAT, scale=4.05),
    ),
    Defect(
        "output-area",
        "Limits the pixels of outputs in all, and not their sides.",
        ("REQ-14",),
        output_limits(lambda _, width, height: width * height <= 2**25),
        checking(init_image=FLAT, scale=5),
    ),
    Defect(
        "output-clamped",
        "Makes outputs of at most 8192 pixels a side of what would be larger.",
        ("REQ-14", "REQ-16"),
        clamped(),
        checking(init_image=FLAT, scale=4.5),
    ),
    Defect(
        "output-blamed-on-picture",
        "Tells of too large an output on the picture's field.",
        ("REQ-15", "REQ-14"),
        blamed(("output_too_large",), "init_image"),
        checking(init_image=FLAT, scale=5),
    ),
    Defect(
        "output-blamed-on-scale",
        "Tells of too large an output on scale, whichever field asks for it.",
        ("REQ-15", "REQ-14"),
        blamed(("output_too_large",), "scale"),
        checking(init_image=FLAT, output_image_width=9000),
    ),
    Defect(
        "output-before-input",
        "Tells of too large an output before too small an input.",
        ("REQ-19",),
        output_first(),
        given(100, 300, scale=100),
    ),
)
