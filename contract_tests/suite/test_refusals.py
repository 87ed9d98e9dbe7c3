"""Invalid requests are refused, with the error at the right location, and cost nothing.

None of these requests may get an image, so none is paid for; they are sent before all that may.
"""

import json
import math

import pytest
from hypothesis import example, given, target

from contract_tests.judge.expectations import parse_fields
from contract_tests.judge.run import Run
from contract_tests.oracle.limits import MAX_FIELDS, MAX_INPUT_PX, MAX_OUTPUT_PX, MIN_INPUT_PX
from contract_tests.oracle.oracle import IMAGE_FIELDS, SIZE_FIELDS
from contract_tests.requests import strategies as draw
from contract_tests.requests.images import COMMON_KINDS, SampleImage
from contract_tests.requests.request import ASYNC_HEADER, Request, upscaling_request

rule = pytest.mark.rule
IMAGE = SampleImage(256, 256, "png", 1, "palette")


def short_id(value: object) -> str:
    return repr(value)[:30]


@rule("REQ-6", "REQ-7", "REQ-8", "REQ-9", "REQ-10", "REQ-12", "REQ-17", "RES-4", "RES-5")
@given(request=draw.one_arbitrary_value)
def test_an_invalid_value_is_refused_at_its_field(run: Run, request: Request) -> None:
    run.check_refused(request)


@rule("REQ-4", "REQ-6", "REQ-7", "REQ-8", "REQ-9", "REQ-10", "REQ-12", "RES-5")
@pytest.mark.parametrize(("name", "value"), draw.LIKELY_MISTAKES, ids=short_id)
def test_a_nearly_valid_value_is_refused(run: Run, name: str, value: object) -> None:
    others = {} if name in SIZE_FIELDS else {"scale": 2}
    run.check_refused(
        upscaling_request({**others, name: value}, None if name in IMAGE_FIELDS else IMAGE)
    )


@rule("REQ-6", "REQ-7", "RES-5")
@pytest.mark.parametrize("name", SIZE_FIELDS)
@pytest.mark.parametrize("digits", [400, 5000])
def test_a_number_of_very_many_digits_is_refused(run: Run, name: str, digits: int) -> None:
    run.check_refused(Request(f'{{"init_image": "QUJD", "{name}": {"9" * digits}}}'.encode()))


@rule("REQ-4", "REQ-17")
@pytest.mark.parametrize("text", ["", "\n", "data:image/png;base64,"])
def test_an_empty_image_is_invalid_and_not_absent(run: Run, text: str) -> None:
    url = "https://images.example/512x512.png"
    run.check_refused(upscaling_request({"init_image": text, "init_image_url": url, "scale": 2}))


@rule("REQ-4")
@pytest.mark.parametrize("given", [{}, dict.fromkeys(IMAGE_FIELDS)], ids=["absent", "null"])
def test_a_request_without_an_image_is_refused(run: Run, given: dict[str, object]) -> None:
    run.check(upscaling_request({**given, "scale": 2}))


@rule("REQ-4")
def test_two_images_are_refused(run: Run) -> None:
    run.check(
        upscaling_request({"init_image_url": "https://images.example/a.png", "scale": 2}, IMAGE)
    )


@rule("REQ-5")
@pytest.mark.parametrize("given", [{}, dict.fromkeys(SIZE_FIELDS)], ids=["absent", "null"])
def test_a_request_without_a_size_is_refused(run: Run, given: dict[str, object]) -> None:
    run.check(upscaling_request(given, IMAGE))


@rule("REQ-5")
@pytest.mark.parametrize("left_out", [None, *SIZE_FIELDS])
def test_two_or_three_sizes_are_refused(run: Run, left_out: str | None) -> None:
    given = {name: 2 if name == "scale" else 512 for name in SIZE_FIELDS if name != left_out}
    run.check(upscaling_request(given, IMAGE))


@rule("REQ-4", "REQ-5", "REQ-19")
@given(request=draw.exclusive_groups)
def test_exactly_one_image_and_one_size_are_required(run: Run, request: Request) -> None:
    run.check_refused(request)


@rule("REQ-11")
@given(name=draw.unknown_names, value=draw.values)
@example(name="strength", value=None)  # whose field is absent, were it known
def test_an_unknown_field_is_refused(run: Run, name: str, value: object) -> None:
    run.check_refused(upscaling_request({"scale": 2, name: value}, IMAGE))


@rule("REQ-11")
@pytest.mark.strict
@pytest.mark.parametrize("count", [MAX_FIELDS - 1, MAX_FIELDS, 10 * MAX_FIELDS])
def test_very_many_fields_are_refused(run: Run, count: int) -> None:
    run.check(
        upscaling_request({"scale": 2, **{f"x{number}": 0 for number in range(count)}}, IMAGE)
    )


@rule("REQ-11", "RES-5")
@pytest.mark.strict
def test_very_many_values_are_refused(run: Run) -> None:
    run.check(upscaling_request({"scale": [0] * 20_000}, IMAGE))


@rule("REQ-13", "REQ-15", "REQ-19")
@given(image=draw.out_of_range_images, size=draw.size_fields)
def test_an_input_beyond_the_limits_is_refused(
    run: Run, image: SampleImage, size: draw.Fields
) -> None:
    beyond = max(MIN_INPUT_PX - min(image.size), max(image.size) - MAX_INPUT_PX)
    target(-float(beyond), label="near the limit")
    run.check(upscaling_request(size, image))


@rule("REQ-13", "REQ-15")
@pytest.mark.parametrize(
    "size",
    [
        *((MIN_INPUT_PX - 1, MIN_INPUT_PX), (MIN_INPUT_PX, MIN_INPUT_PX - 1)),
        *((MAX_INPUT_PX + 1, MIN_INPUT_PX), (MIN_INPUT_PX, MAX_INPUT_PX + 1)),
        (MAX_INPUT_PX + 1, MAX_INPUT_PX + 1),
    ],
)
@pytest.mark.parametrize("kind", COMMON_KINDS, ids="-".join)
def test_an_input_one_pixel_beyond_a_limit_is_refused(
    run: Run, size: tuple[int, int], kind: tuple[str, str]
) -> None:
    run.check(upscaling_request({"scale": 0.5}, SampleImage(*size, kind[0], 2, kind[1])))


@rule("REQ-14", "REQ-15", "REQ-16")
@given(request=draw.oversized_outputs)
def test_an_output_beyond_the_limit_is_refused(run: Run, request: Request) -> None:
    asked = max(value for name, value in parse_fields(request).items() if name in SIZE_FIELDS)
    target(-abs(float(asked) - MAX_OUTPUT_PX), label="near the limit")
    run.check_refused(request)


WIDEST, TALLEST = (MAX_INPUT_PX, MIN_INPUT_PX), (MIN_INPUT_PX, MAX_INPUT_PX)
LARGEST_SCALE = MAX_OUTPUT_PX / MAX_INPUT_PX
"""Of the widest and the tallest input."""
SHORT_SIDE = MIN_INPUT_PX * MAX_OUTPUT_PX // MAX_INPUT_PX
"""Of the largest output that they can have."""
SIDE_OF_2011 = math.ceil(MIN_INPUT_PX * (MAX_OUTPUT_PX + 0.5) / 2011)
"""The least short side of an output that is too long, if the input's longer side is 2011."""


@rule("REQ-14", "REQ-15")
@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({"output_image_height": MAX_OUTPUT_PX + 1}, TALLEST),
        ({"output_image_width": MAX_OUTPUT_PX + 1}, WIDEST),
        ({"output_image_height": SHORT_SIDE + 1}, WIDEST),  # 8 pixels too wide
        ({"output_image_width": SHORT_SIDE + 1}, TALLEST),
        ({"output_image_height": SIDE_OF_2011}, (2011, MIN_INPUT_PX)),
        ({"output_image_width": SIDE_OF_2011}, (MIN_INPUT_PX, 2011)),
        ({"scale": LARGEST_SCALE + 0.1}, WIDEST),
        ({"scale": LARGEST_SCALE + 0.1}, TALLEST),
        ({"scale": LARGEST_SCALE + 0.0003}, WIDEST),  # 0.6 pixels too wide
        ({"scale": LARGEST_SCALE + 0.0003}, TALLEST),
        ({"output_image_height": MAX_OUTPUT_PX}, (MIN_INPUT_PX + 1, MIN_INPUT_PX)),
        ({"output_image_width": MAX_OUTPUT_PX}, (MIN_INPUT_PX, MIN_INPUT_PX + 1)),
    ],
)
def test_an_output_a_little_beyond_the_limit_is_refused(
    run: Run, given: dict[str, float], size: tuple[int, int]
) -> None:
    run.check_refused(upscaling_request(given, SampleImage(*size, "png", 3, "palette")))


@rule("REQ-17", "RES-4")
@given(text=draw.invalid_base64)
def test_invalid_base64_is_refused(run: Run, text: str) -> None:
    run.check_refused(upscaling_request({"init_image": text, "scale": 2}))


@rule("REQ-17")
@pytest.mark.parametrize("change", ["for URLs", "padding", "no padding", "space", "quoted"])
def test_nonstandard_base64_is_refused(run: Run, change: str) -> None:
    text = SampleImage(257, 300, "png", 6).base64()
    changed = {
        "for URLs": text.translate(draw.TO_URL_SAFE),
        "padding": f"{text.rstrip('=')}====",
        "no padding": text.rstrip("="),
        "space": f"{text[:100]} {text[100:]}",
        "quoted": text.replace("+", "%2B"),
    }[change]
    assert changed != text, "the image's base64 contains what is changed"
    run.check_refused(upscaling_request({"init_image": changed, "scale": 2}))


@rule("REQ-17", "RES-5")
@given(image=draw.damaged_images)
def test_an_invalid_image_is_refused(run: Run, image: SampleImage) -> None:
    run.check_refused(upscaling_request({"scale": 2}, image))


@rule("REQ-19", "RES-4")
@given(request=draw.many_errors)
def test_all_errors_of_the_fields_are_reported_at_once(run: Run, request: Request) -> None:
    run.check_refused(request)


@rule("REQ-1", "RES-4", "RES-5")
@given(body=draw.invalid_bodies)
def test_a_body_that_is_not_a_json_object_is_refused(run: Run, body: bytes) -> None:
    run.check_refused(Request(body))


@rule("REQ-1", "RES-4", "RES-5")
@pytest.mark.parametrize("body", draw.INVALID_JSON, ids=lambda body: repr(body[:30]))
def test_nearly_valid_json_is_refused(run: Run, body: bytes) -> None:
    run.check(Request(body))


@rule("REQ-1")
@pytest.mark.strict
@pytest.mark.parametrize("behind", ["{}", "x", "]", ","])
def test_an_object_with_something_behind_it_is_refused(run: Run, behind: str) -> None:
    """Parsers that read one value of a stream take it."""
    run.check(Request(upscaling_request({"scale": 2}, IMAGE).body + behind.encode()))


@rule("REQ-1")
@pytest.mark.parametrize("form", ["[{}]", "[[{}]]", '"{}"', '{{"body": {}}}'])
def test_an_object_within_another_value_is_refused(run: Run, form: str) -> None:
    right = upscaling_request({"scale": 2}, IMAGE).body.decode()
    body = json.dumps(right) if form == '"{}"' else form.format(right, right)
    run.check(Request(body.encode()))


@rule("REQ-6", "RES-5")
@pytest.mark.parametrize("number", draw.NON_NUMBERS)
@pytest.mark.parametrize("name", SIZE_FIELDS)
def test_nan_and_infinity_are_refused(run: Run, name: str, number: str) -> None:
    run.check(Request(f'{{"init_image": "{IMAGE.base64()}", "{name}": {number}}}'.encode()))


@rule("RES-4", "RES-5")
@pytest.mark.parametrize("text", draw.SURROGATES)
@pytest.mark.parametrize("name", ["model", "init_image", "surplus"])
def test_half_of_a_surrogate_pair_is_refused(run: Run, name: str, text: str) -> None:
    run.check(Request(f'{{"scale": 2, "{name}": {text}}}'.encode()))


@rule("ASY-1")
@given(request=draw.many_errors)
def test_errors_of_asynchronous_requests_are_reported_at_once(run: Run, request: Request) -> None:
    run.check_refused(request.with_headers(ASYNC_HEADER))


@rule("ASY-1", "REQ-13", "REQ-14")
@pytest.mark.parametrize(
    ("size", "scale"),
    [
        ((MIN_INPUT_PX - 1, MIN_INPUT_PX), 2),
        ((MIN_INPUT_PX, MAX_INPUT_PX + 1), 2),
        (WIDEST, 2 * LARGEST_SCALE + 1),
    ],
)
def test_limits_of_asynchronous_requests_are_checked_at_once(
    run: Run, size: tuple[int, int], scale: float
) -> None:
    run.check(
        upscaling_request({"scale": scale}, SampleImage(*size, "png", 4, "palette")).with_headers(
            ASYNC_HEADER
        )
    )


@rule("REQ-19")
@pytest.mark.strict
@given(request=draw.many_errors)
def test_a_repeated_request_is_refused_in_the_same_way(run: Run, request: Request) -> None:
    first, second = run.check_refused(request), run.check_refused(request)
    if first is None or second is None or first.status != 422:
        return
    same = first.status == second.status and first.json == second.json
    run.require(same, "REQ-19", "the same request was refused in another way the second time")
