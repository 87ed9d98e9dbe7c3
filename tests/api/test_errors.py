"""What is told of a broken rule, and what is never; the body as JSON."""

import json
from decimal import Decimal
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.request_literals import (
    ANY_FIELDS,
    ANY_JSON,
    SIZE_GROUP,
    VALID,
    asking,
    body,
    check_shape,
    json_object,
    refusal,
)
from upscaler.api.limits import MAX_BODY_BYTES, MAX_COMMAS, MAX_FIELDS, check_body_size
from upscaler.api.request import UpscalingRequest, parse_request
from upscaler.api.sizes import output_size
from upscaler.errors import BodyTooLarge, InvalidRequest

# What is told


FAULTS: Final = {
    "init_image": ('"?"', ["base64_invalid"]),
    "init_image_url": ("1", ["conflicting", "string_type"]),
    "scale": ('"abc"', ["float_parsing"]),
    "output_image_height": ("0.5", ["conflicting", "int_from_float"]),
    "output_image_width": ("512", ["conflicting"]),
    "model": ('"x8"', ["enum"]),
    "output_image_encoding": ('"gif"', ["enum"]),
    "face_enhance": ('"maybe"', ["bool_parsing"]),
    "surplus": ("1", ["extra_forbidden"]),
}
"""What is wrong with each of these in a request that gives an image and a scale."""


@given(st.sets(st.sampled_from(sorted(FAULTS)), min_size=1))
@example({"init_image_url", "scale", "surplus"})
@example(set(FAULTS))
def test_all_faults_of_the_fields_are_told_together(fields: set[str]) -> None:
    """REQ-19."""
    members = {key: VALID[key] for key in ("init_image", "scale")}
    members |= {field: FAULTS[field][0] for field in fields}
    wanted = [(field, kind) for field in fields for kind in FAULTS[field][1]]
    assert refusal(json_object(members)) == sorted(wanted)


def test_what_is_missing_is_told_beside_what_is_wrong() -> None:
    """REQ-19."""
    assert refusal(b'{"model": "x8", "surplus": 1}') == [
        ("init_image", "missing"),
        ("model", "enum"),
        ("scale", "missing"),
        ("surplus", "extra_forbidden"),
    ]


def accepted_or_refused(raw: bytes) -> None:
    """Parse `raw`: no error but a well-formed InvalidRequest may come out."""
    try:
        parsed = parse_request(raw)
    except InvalidRequest as error:
        check_shape(error)
    else:
        assert isinstance(parsed, UpscalingRequest)


@given(ANY_FIELDS | ANY_JSON)
def test_any_json_is_accepted_or_refused_in_the_published_shape(value: object) -> None:
    """RES-4."""
    accepted_or_refused(json.dumps(value).encode())


@given(st.binary())
def test_any_bytes_are_accepted_or_refused_in_the_published_shape(raw: bytes) -> None:
    """RES-4."""
    accepted_or_refused(raw)


@given(st.integers(0, 300), st.binary(max_size=3))
def test_a_damaged_request_is_accepted_or_refused_in_the_published_shape(
    at: int, damage: bytes
) -> None:
    """RES-4."""
    whole = json_object(VALID)
    accepted_or_refused(whole[:at] + damage + whole[at + 1 :])


WORD: Final = "kiwi7391"
NUMBER: Final = "7391739173917"


def check_no_echo(error: InvalidRequest) -> None:
    """RES-4: neither the answer nor what a log would say repeats what the client sent."""
    check_shape(error)
    for text in (json.dumps(error.detail), str(error), str(error.__cause__)):
        assert "7391" not in text


@pytest.mark.parametrize("field", [*VALID, "surplus"])
@pytest.mark.parametrize(
    "literal",
    [
        f'"{WORD}"',
        f'["{WORD}"]',
        f'{{"{WORD}": "{WORD}"}}',
        f'"{NUMBER}"',
        NUMBER,
        f"-{NUMBER}",
        f"{NUMBER}.5",
    ],
)
def test_an_offending_value_is_not_echoed(field: str, literal: str) -> None:
    """RES-4."""
    members = {"init_image": '"QUJD"', "scale": "2", field: literal, "unknown": literal}
    with pytest.raises(InvalidRequest) as caught:
        parse_request(json_object(members))
    check_no_echo(caught.value)


@pytest.mark.parametrize("raw", [f'"{WORD}"', f'["{WORD}"]', NUMBER, WORD, f'{{"scale": {WORD}}}'])
def test_a_body_that_is_no_request_is_not_echoed(raw: str) -> None:
    """RES-4."""
    with pytest.raises(InvalidRequest) as caught:
        parse_request(raw.encode())
    check_no_echo(caught.value)


@pytest.mark.parametrize("field", SIZE_GROUP)
def test_a_size_that_is_too_large_is_not_echoed(field: str) -> None:
    """RES-4."""
    with pytest.raises(InvalidRequest) as caught:
        output_size(asking(field, NUMBER), (300, 300))
    check_no_echo(caught.value)


# JSON


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" \n", id="blank"),
        pytest.param(body("scale", "NaN"), id="NaN"),
        pytest.param(body("scale", "Infinity"), id="Infinity"),
        pytest.param(body("scale", "-Infinity"), id="-Infinity"),
        pytest.param(body("surplus", "NaN"), id="NaN in an unknown field"),
        pytest.param(body("scale", "02"), id="leading zero"),
        pytest.param(body("scale", "+2"), id="plus"),
        pytest.param(body("scale", "0x2"), id="hexadecimal"),
        pytest.param(body("scale", "9" * 5000), id="5000 digits"),
        pytest.param(body("surplus", "9" * 5000), id="5000 digits in an unknown field"),
        pytest.param(body("init_image_url", r'"\ud800"'), id="high surrogate"),
        pytest.param(body("init_image_url", r'"\udc00"'), id="low surrogate"),
        pytest.param(body("init_image_url", r'"\ud800\u0041"'), id="half a pair"),
        pytest.param(body(r"\ud800", "1"), id="surrogate in a key"),
        pytest.param(body("surplus", '"_"').replace(b"_", b"\xed\xa0\x80"), id="raw surrogate"),
        pytest.param(body("surplus", '"_"').replace(b"_", b"\xff"), id="not UTF-8"),
        pytest.param(body("surplus", '"_"').replace(b"_", b"\xc0\xaf"), id="overlong UTF-8"),
        pytest.param(body("surplus", '"\n"'), id="control character"),
        pytest.param(b"\xef\xbb\xbf" + body("scale", "2"), id="byte order mark"),
        pytest.param(body("scale", "2").decode().encode("utf-16"), id="UTF-16"),
        pytest.param(body("scale", "2").decode().encode("utf-16-le"), id="UTF-16 without mark"),
        pytest.param(body("scale", "2") + b"x", id="trailing garbage"),
        pytest.param(body("scale", "2") * 2, id="two requests"),
        pytest.param(body("scale", "2")[:-1], id="cut off"),
        pytest.param(body("scale", "2")[:-1] + b",}", id="trailing comma"),
        pytest.param(body("scale", "2").replace(b'"', b"'"), id="single quotes"),
        pytest.param(b"[" * 100_000, id="deep arrays, cut off"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="deep arrays"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="deep objects"),
        pytest.param(body("scale", "[" * 100_000 + "]" * 100_000), id="deep field"),
    ],
)
def test_what_is_not_strict_json_is_refused_as_a_whole(raw: bytes) -> None:
    assert refusal(raw) == [("body", "json_invalid")]


@pytest.mark.parametrize("raw", [b"null", b"true", b"1", b'"x"', b"[]", b"[{}]", b'[["scale", 2]]'])
def test_a_body_that_is_no_object_is_refused_as_a_whole(raw: bytes) -> None:
    """REQ-1."""
    assert refusal(raw) == [("body", "model_type")]


@pytest.mark.parametrize(("last", "wanted"), [("3", 3.0), ('"4"', 4.0)])
def test_of_a_field_given_twice_the_last_counts(last: str, wanted: float) -> None:
    raw = f'{{"init_image": "QUJD", "scale": 2, "scale": {last}}}'
    assert parse_request(raw.encode()).scale == wanted
    assert refusal(raw.replace(last, "null").encode()) == [("scale", "missing")]


@given(st.decimals("0.0000001", "8", places=7))
def test_a_scale_is_read_to_the_last_digit(scale: Decimal) -> None:
    """Python's own reading of a number is the reference."""
    assert asking("scale", f"{scale:f}").scale == float(f"{scale:f}")


@pytest.mark.parametrize("field", [*VALID, "surplus"])
def test_an_integer_of_4000_digits_is_accepted_or_refused(field: str) -> None:
    """RES-4: it is valid JSON, and no float holds it."""
    accepted_or_refused(body(field, "9" * 4000))
    accepted_or_refused(body(field, "-" + "9" * 4000))


# The body as a whole


def test_a_body_of_more_than_the_limit_is_too_large() -> None:
    """RES-7."""
    check_body_size(MAX_BODY_BYTES)
    with pytest.raises(BodyTooLarge) as caught:
        check_body_size(MAX_BODY_BYTES + 1)
    assert caught.value.status == 413


def test_the_largest_picture_fits_into_a_body_even_if_it_is_noise() -> None:
    """RES-7: four channels of 8 bits that no PNG can compress, in base64."""
    check_body_size(2048 * 2048 * 4 * 4 // 3 + 2**20)


# More than anybody would send


def surplus(count: int) -> bytes:
    """A right request with so many fields beside its own."""
    names = ", ".join(f'"x{number}": 0' for number in range(count))
    return f'{{"init_image": "QUJD", "scale": 2, {names}}}'.encode()


def test_of_as_many_fields_as_may_be_each_is_told() -> None:
    count = MAX_FIELDS - 2
    told = sorted((f"x{number}", "extra_forbidden") for number in range(count))
    assert sorted(refusal(surplus(count))) == told


@pytest.mark.parametrize("count", [MAX_FIELDS - 1, MAX_COMMAS - 10])
def test_more_fields_than_may_be_are_refused_as_a_whole(count: int) -> None:
    assert refusal(surplus(count)) == [("body", "too_many_fields")]


@pytest.mark.parametrize("part", ["0", "[]", "{}"])
def test_far_more_values_than_a_request_has_are_not_even_read(part: str) -> None:
    """The largest body would take seconds, and a gigabyte."""
    most = f'{{"init_image": "QUJD", "scale": [{",".join([part] * MAX_COMMAS)}]}}'
    assert refusal(most.encode()) == [("scale", "float_type")]
    assert refusal(f"{most[:-2]},{part}]}}".encode()) == [("body", "json_invalid")]


def test_a_url_may_have_commas_and_brackets() -> None:
    url = "http://near.example/w_100,h_100/" + "{a,b}[c]" * 900
    body = json.dumps({"init_image_url": url, "scale": 2}).encode()
    assert parse_request(body).init_image_url == url


def test_of_a_long_name_only_the_beginning_is_told() -> None:
    name = "x" * 1_000_000
    with pytest.raises(InvalidRequest) as caught:
        parse_request(f'{{"init_image": "QUJD", "scale": 2, "{name}": 0}}'.encode())
    (error,) = caught.value.errors
    assert error.loc == ("body", name[:100])
    assert len(str(caught.value.detail)) < 1000
