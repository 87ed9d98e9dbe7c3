"""The limits of input and output, and which size a request asks for."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.request_literals import (
    IMAGE_GROUP,
    SIZE_GROUP,
    VALID,
    advice,
    asking,
    half_up,
    input_sizes,
    scales,
    size_refusal,
    told,
)
from upscaler.api.sizes import Size, check_input_size, output_size, scaled_size
from upscaler.errors import InvalidRequest


@given(st.integers(-1, 5000), st.integers(-1, 5000))
def test_an_input_has_256_to_2048_pixels_on_each_side(width: int, height: int) -> None:
    """REQ-13."""
    if width in range(256, 2049) and height in range(256, 2049):
        check_input_size((width, height), "init_image")
    else:
        with pytest.raises(InvalidRequest) as caught:
            check_input_size((width, height), "init_image")
        assert told(caught.value)[0][0] == "init_image"


@pytest.mark.parametrize("field", IMAGE_GROUP)
@pytest.mark.parametrize("other", [256, 1000, 2048])
def test_an_input_of_255_is_too_small_and_of_2049_too_large(field: str, other: int) -> None:
    """REQ-13: told on the field that gave the image."""
    asked = asking(field, VALID[field])
    for side in (256, 2048):
        assert output_size(asked, (side, other)) == (2 * side, 2 * other)
        assert output_size(asked, (other, side)) == (2 * other, 2 * side)
    for side, kind in ((255, "image_too_small"), (2049, "image_too_large")):
        assert size_refusal(asked, (side, other)) == [(field, kind)]
        assert size_refusal(asked, (other, side)) == [(field, kind)]


@pytest.mark.parametrize(
    ("field", "literal", "size", "output"),
    [
        ("scale", "4", (2048, 256), (8192, 1024)),
        ("scale", "4.0002", (256, 2048), (1024, 8192)),  # 8192.4096
        ("output_image_height", "8192", (256, 2048), (1024, 8192)),
        ("output_image_height", "8188", (2048, 2047), (8192, 8188)),  # 8192.0000
        ("output_image_width", "8192", (2048, 300), (8192, 1200)),
        ("output_image_width", "8188", (2047, 2048), (8188, 8192)),
    ],
)
def test_an_output_of_8192_is_accepted(field: str, literal: str, size: Size, output: Size) -> None:
    """REQ-14, with the side requested and with the side computed."""
    assert output_size(asking(field, literal), size) == output


@pytest.mark.parametrize(
    ("field", "literal", "size"),
    [
        ("scale", "4.0003", (2048, 256)),  # 8192.6144
        ("scale", "4.0003", (256, 2048)),
        ("output_image_height", "8193", (256, 2048)),
        ("output_image_height", "8189", (2048, 2047)),  # 8193.0005
        ("output_image_width", "8193", (2048, 256)),
        ("output_image_width", "8189", (2047, 2048)),
        ("scale", "1e308", (256, 256)),
        ("output_image_height", "9" * 4000, (256, 256)),
    ],
)
def test_an_output_of_8193_is_refused(field: str, literal: str, size: Size) -> None:
    """REQ-14: told on the field that asked for the size."""
    assert size_refusal(asking(field, literal), size) == [(field, "output_too_large")]


def test_the_input_size_is_told_before_the_output_size() -> None:
    """REQ-19."""
    assert size_refusal(asking("scale", "100"), (255, 300)) == [("init_image", "image_too_small")]


@given(input_sizes, scales)
@example((290, 256), Decimal("0.35"))  # 101.5, which binary floating point puts below
@example((256, 2048), Decimal("0.0001"))
def test_a_scaled_side_is_rounded_half_up(size: Size, scale: Decimal) -> None:
    """REQ-16."""
    output = half_up(size[0] * scale), half_up(size[1] * scale)
    asked = asking("scale", f"{scale}")
    if max(output) > 8192:
        assert size_refusal(asked, size) == [("scale", "output_too_large")]
    else:
        assert output_size(asked, size) == output


def test_290_pixels_times_035_are_102() -> None:
    """REQ-16."""
    assert output_size(asking("scale", "0.35"), (290, 1000)) == (102, 350)


def test_every_tie_of_a_scale_in_hundredths_goes_up() -> None:
    """REQ-16."""
    hundredths = range(1, 401)
    ties = [(side, n) for side in range(256, 1025) for n in hundredths if side * n % 100 == 50]
    assert len(ties) > 1000
    for side, n in ties:
        up = side * n // 100 + 1
        assert scaled_size((side, side), float(f"{n // 100}.{n % 100:02}")) == (up, up)


@given(input_sizes, st.integers(1, 9000))
@example((257, 2048), 4)  # 0.50
@example((256, 2048), 3)  # 0.375
def test_the_side_that_follows_from_a_requested_height_is_rounded_half_up(
    size: Size, height: int
) -> None:
    """REQ-16."""
    width = half_up(Decimal(size[0]) * height / size[1])
    asked = asking("output_image_height", str(height))
    if max(width, height) > 8192:
        assert size_refusal(asked, size) == [("output_image_height", "output_too_large")]
    else:
        assert output_size(asked, size) == (width, height)


@given(input_sizes, st.integers(1, 9000))
@example((2048, 257), 4)
@example((2048, 256), 3)
def test_the_side_that_follows_from_a_requested_width_is_rounded_half_up(
    size: Size, width: int
) -> None:
    """REQ-16."""
    height = half_up(Decimal(size[1]) * width / size[0])
    asked = asking("output_image_width", str(width))
    if max(width, height) > 8192:
        assert size_refusal(asked, size) == [("output_image_width", "output_too_large")]
    else:
        assert output_size(asked, size) == (width, height)


@pytest.mark.parametrize(
    ("field", "literal", "output"),
    [
        ("scale", "1e-9", (1, 1)),
        ("output_image_height", "1", (1, 1)),
        ("output_image_width", "1", (1, 8)),
    ],
)
def test_no_side_is_below_1(field: str, literal: str, output: Size) -> None:
    """REQ-16."""
    assert output_size(asking(field, literal), (256, 2048)) == output


@given(input_sizes, st.sampled_from(SIZE_GROUP))
def test_the_advice_after_too_large_an_output_is_accepted(size: Size, field: str) -> None:
    asked = asking(field, str(advice(size, field)))
    assert max(output_size(asked, size)) <= 8192


@given(input_sizes, st.sampled_from(SIZE_GROUP))
@example((300, 299), "output_image_height")
@example((299, 300), "output_image_width")
@example((257, 256), "scale")
def test_no_more_than_the_advice_after_too_large_an_output_is_accepted(
    size: Size, field: str
) -> None:
    step = Decimal("0.001") if field == "scale" else 1
    more = asking(field, str(advice(size, field) + step))
    assert size_refusal(more, size) == [(field, "output_too_large")]
