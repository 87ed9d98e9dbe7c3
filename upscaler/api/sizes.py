"""The permitted sizes of images, and the size that a request asks for (REQ-13 to REQ-16)."""

from fractions import Fraction
from math import ceil, floor

from upscaler.api.limits import MAX_INPUT_PX, MAX_OUTPUT_PX, MIN_INPUT_PX
from upscaler.api.request import UpscalingRequest
from upscaler.errors import FieldError, InvalidRequest

Size = tuple[int, int]
"""Width and height in pixels."""


def output_size(request: UpscalingRequest, input_size: Size) -> Size:
    """Return the exact size of the output of `request`, given the size of its input.

    Raises InvalidRequest on the image's field for an input outside REQ-13, and on the field of the
    requested size for an output beyond REQ-14. `input_size` should be from the image's header, so
    that nothing is decoded for a request that is refused (REQ-15).
    """
    check_input_size(input_size, request.image_field)
    size = requested_size(request, input_size)
    if max(size) > MAX_OUTPUT_PX:
        field = request.size_field
        msg = (
            f"the output may be at most {MAX_OUTPUT_PX} pixels on each side: for this input of "
            f"{input_size[0]}x{input_size[1]} pixels, ask for at most {_largest(field, input_size)}"
        )
        raise InvalidRequest(FieldError(("body", field), msg, "output_too_large"))
    return size


def check_input_size(size: Size, field: str) -> None:
    """Raise InvalidRequest on `field` unless both sides are within the limits (REQ-13)."""
    if min(size) >= MIN_INPUT_PX and max(size) <= MAX_INPUT_PX:
        return
    kind = "image_too_small" if min(size) < MIN_INPUT_PX else "image_too_large"
    msg = (
        f"each side must be {MIN_INPUT_PX} to {MAX_INPUT_PX} pixels, "
        f"and this image is {size[0]}x{size[1]}"
    )
    raise InvalidRequest(FieldError(("body", field), msg, kind))


def scaled_size(size: Size, scale: float) -> Size:
    """Return `size` times `scale`, each side rounded half up and at least 1 (REQ-16).

    The arithmetic is exact on the shortest decimal that is parsed as `scale`: 290 pixels times 0.35
    is 101.5, rounded to 102, although the float nearest to 0.35 is smaller than 0.35.
    """
    factor = Fraction(str(scale))
    return _half_up(size[0] * factor), _half_up(size[1] * factor)


def requested_size(request: UpscalingRequest, size: Size) -> Size:
    """Return the size that `request` asks for, given that of its input, without any limit.

    Of a width or height that is given, the other side follows the aspect ratio, rounded half up.
    """
    width, height = size
    if request.output_image_height is not None:
        return _half_up(Fraction(width * request.output_image_height, height)), (
            request.output_image_height
        )
    if request.output_image_width is not None:
        return request.output_image_width, (
            _half_up(Fraction(height * request.output_image_width, width))
        )
    assert request.scale is not None, "the request's validator lets exactly one of the three pass"
    return scaled_size(size, request.scale)


def _half_up(side: Fraction) -> int:
    return max(1, floor(side + Fraction(1, 2)))


def _largest(field: str, size: Size) -> str:
    """The largest value of a size field for which the output of this input meets REQ-14."""
    width, height = size
    reach = MAX_OUTPUT_PX + Fraction(1, 2)  # any smaller side is rounded down to the limit
    if field == "output_image_height":
        return str(min(MAX_OUTPUT_PX, ceil(reach * height / width) - 1))
    if field == "output_image_width":
        return str(min(MAX_OUTPUT_PX, ceil(reach * width / height) - 1))
    thousandths = ceil(1000 * reach / max(size)) - 1
    return f"{thousandths / 1000:g}"
