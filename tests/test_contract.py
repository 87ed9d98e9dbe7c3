"""Requests are written as JSON literals, and sizes expected in decimal or integer arithmetic."""

import base64
import json
import re
from decimal import ROUND_HALF_UP, Decimal
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from upscaler.contract import (
    MAX_BODY_BYTES,
    ImageResponse,
    Size,
    UpscalingRequest,
    check_body_size,
    check_input_size,
    output_size,
    parse_request,
    scaled_size,
    validate_request,
)
from upscaler.errors import BodyTooLarge, InvalidRequest

IMAGE_GROUP: Final = ("init_image", "init_image_url")
SIZE_GROUP: Final = ("scale", "output_image_height", "output_image_width")
VALID: Final = {
    "init_image": '"QUJD"',
    "init_image_url": '"https://example.org/a.png"',
    "scale": "2",
    "output_image_height": "512",
    "output_image_width": "512",
    "model": '"real-esrgan-x4-v3"',
    "output_image_encoding": '"jpeg"',
    "face_enhance": "true",
}
"""A valid literal for every field there is."""

ANY_TEXT = st.text(st.characters(exclude_categories=()))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
    max_leaves=6,
)
ANY_FIELDS = st.dictionaries(st.sampled_from(sorted(VALID)) | ANY_TEXT, ANY_JSON)

input_sides = st.integers(256, 2048)
input_sizes = st.tuples(input_sides, input_sides)
scales = st.decimals("0.0001", "40", places=4) | st.decimals("0.01", "8", places=2)


def json_object(members: dict[str, str]) -> bytes:
    return "{{{}}}".format(
        ", ".join(f'"{key}": {literal}' for key, literal in members.items())
    ).encode()


def body(field: str, literal: str) -> bytes:
    """A request that gives `field` as this JSON literal, and is right in everything else."""
    siblings = next((group for group in (IMAGE_GROUP, SIZE_GROUP) if field in group), ())
    others = {key: VALID[key] for key in ("init_image", "scale") if key not in siblings}
    return json_object(others | {field: literal})


def asking(field: str, literal: str) -> UpscalingRequest:
    return parse_request(body(field, literal))


def check_shape(error: InvalidRequest) -> None:
    """RES-4: what goes into the answer has the published shape and can be written as UTF-8."""
    assert error.status == 422
    assert error.detail
    for entry in error.detail:
        assert sorted(entry) == ["loc", "msg", "type"]
        loc = entry["loc"]
        assert isinstance(loc, list)
        assert loc[0] == "body"
        assert all(type(step) in {str, int} for step in loc)
        assert isinstance(entry["msg"], str)
        assert isinstance(entry["type"], str)
    json.dumps(error.detail, ensure_ascii=False).encode()


def told(error: InvalidRequest) -> list[tuple[str, str]]:
    """Field and type of every error, in alphabetical order; "body" is no field but all of it."""
    check_shape(error)
    return sorted(("/".join(map(str, e.loc)).removeprefix("body/"), e.type) for e in error.errors)


def refusal(raw: bytes) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(raw)
    return told(caught.value)


def size_refusal(asked: UpscalingRequest, size: Size) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        output_size(asked, size)
    return told(caught.value)


def advice(size: Size, field: str) -> Decimal:
    """The most that an output_too_large message on `field` says may be asked for."""
    with pytest.raises(InvalidRequest) as caught:
        output_size(asking(field, "9000"), size)
    match = re.search(r"ask for at most ([0-9.]+)$", caught.value.errors[0].msg)
    assert match, caught.value.errors
    return Decimal(match[1])


def half_up(side: Decimal) -> int:
    return max(1, int(side.quantize(Decimal(1), ROUND_HALF_UP)))


# The exclusive groups


@pytest.mark.parametrize("group", [IMAGE_GROUP, SIZE_GROUP], ids=["image", "size"])
def test_exactly_one_field_of_a_group_is_given_and_null_is_absent(group: tuple[str, ...]) -> None:
    """REQ-4 and REQ-5, with each field absent, null or given."""
    other = {"scale": "2"} if group is IMAGE_GROUP else {"init_image": '"QUJD"'}
    for literals in product((None, "null", "valid"), repeat=len(group)):
        chosen = dict(zip(group, literals, strict=True))
        given = [key for key in group if chosen[key] == "valid"]
        nulls = {key: "null" for key in group if chosen[key] == "null"}
        raw = json_object(other | nulls | {key: VALID[key] for key in given})
        if len(given) == 1:
            parsed = parse_request(raw)
            assert [key for key in group if getattr(parsed, key) is not None] == given
        else:
            surplus = [(key, "conflicting") for key in given[1:]]
            assert refusal(raw) == sorted(surplus or [(group[0], "missing")])


def test_falsy_is_not_absent() -> None:
    """REQ-4 and REQ-5: only null stands for a field that is not given."""
    members = VALID | {"init_image": '""', "scale": "0"}
    assert refusal(json_object(members)) == [
        ("init_image", "base64_empty"),
        ("init_image_url", "conflicting"),
        ("output_image_height", "conflicting"),
        ("output_image_width", "conflicting"),
        ("scale", "greater_than"),
    ]


# The fields


@pytest.mark.parametrize("literal", ["0", "-0", "0.0", "-1", "-1e-9", "1e-400", '"0"', '"-2"'])
def test_a_scale_that_is_not_positive_is_refused(literal: str) -> None:
    """REQ-6."""
    assert refusal(body("scale", literal)) == [("scale", "greater_than")]


@pytest.mark.parametrize("literal", ['"nan"', '"inf"', '"-inf"', '"Infinity"', "1e400", '"1e400"'])
def test_a_scale_that_is_not_finite_is_refused(literal: str) -> None:
    """REQ-6."""
    assert refusal(body("scale", literal)) == [("scale", "finite_number")]


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), float("-inf")])
def test_a_caller_in_the_same_process_cannot_give_an_infinite_scale(scale: float) -> None:
    """REQ-6."""
    with pytest.raises(InvalidRequest) as caught:
        validate_request({"init_image": b"ABC", "scale": scale})
    assert told(caught.value) == [("scale", "finite_number")]


@given(st.decimals("0.000001", "0.999999", places=6))
def test_a_scale_below_1_is_accepted(scale: Decimal) -> None:
    """REQ-6."""
    assert asking("scale", f"{scale}").scale == float(str(scale))


@pytest.mark.parametrize("field", SIZE_GROUP[1:])
@pytest.mark.parametrize("literal", ["0", "-1", "-512", "0.0", '"0"', "false"])
def test_a_requested_side_below_1_is_refused(field: str, literal: str) -> None:
    """REQ-7."""
    assert refusal(body(field, literal)) == [(field, "greater_than_equal")]


@given(st.sampled_from(SIZE_GROUP[1:]), st.integers(1, 10**30))
def test_a_requested_side_from_1_up_is_accepted(field: str, side: int) -> None:
    """REQ-7: how large the output may be is another rule (REQ-14)."""
    assert getattr(asking(field, str(side)), field) == side


@pytest.mark.parametrize(
    "name",
    [
        "real-esrgan-x4-plus",
        "real-esrgan-x4-v3",
        "real-esrgan-x4-v3-wdn",
        "real-esrgan-animevideo-v3",
        "real-esrgan-x4-plus-anime",
        "real-esrgan-x2-plus",
    ],
)
def test_each_of_the_six_models_is_accepted(name: str) -> None:
    """REQ-8."""
    assert str(asking("model", f'"{name}"').model) == name


@pytest.mark.parametrize("name", ["", "x4", "REAL-ESRGAN-X4-PLUS", "real-esrgan-x4-plus ", "X4_V3"])
def test_another_model_is_refused(name: str) -> None:
    """REQ-8."""
    assert refusal(body("model", f'"{name}"')) == [("model", "enum")]


@pytest.mark.parametrize("name", ["jpeg", "png"])
def test_each_of_the_two_encodings_is_accepted(name: str) -> None:
    """REQ-9."""
    assert str(asking("output_image_encoding", f'"{name}"').output_image_encoding) == name


@pytest.mark.parametrize("name", ["", "jpg", "PNG", "webp", "image/png"])
def test_another_encoding_is_refused(name: str) -> None:
    """REQ-9."""
    assert refusal(body("output_image_encoding", f'"{name}"')) == [
        ("output_image_encoding", "enum")
    ]


def test_what_is_left_out_has_its_default() -> None:
    """REQ-8, REQ-9 and REQ-10."""
    parsed = parse_request(b'{"init_image": "QUJD", "scale": 2}')
    assert str(parsed.model) == "real-esrgan-x4-plus"
    assert str(parsed.output_image_encoding) == "png"
    assert parsed.face_enhance is False


@pytest.mark.parametrize("field", ["surplus", "Scale", "scale ", "", "image", "x{y}", "\u00e9"])
@pytest.mark.parametrize("literal", ["1", "null"])
def test_an_unknown_field_is_refused_even_if_it_is_null(field: str, literal: str) -> None:
    """REQ-11."""
    assert refusal(body(field, literal)) == [(field, "extra_forbidden")]


@pytest.mark.parametrize(
    ("field", "literal", "value"),
    [
        ("scale", "2", 2.0),
        ("scale", '"2.5"', 2.5),
        ("scale", '" 2.5 "', 2.5),
        ("scale", '"25e-1"', 2.5),
        ("scale", "true", 1.0),
        ("output_image_height", "512.0", 512),
        ("output_image_height", "5.12e2", 512),
        ("output_image_height", '"512"', 512),
        ("output_image_height", '"512.0"', 512),
        ("output_image_width", '" 512 "', 512),
        ("output_image_width", "true", 1),
        ("face_enhance", "true", True),
        ("face_enhance", "1", True),
        ("face_enhance", "1.0", True),
        ("face_enhance", '"1"', True),
        ("face_enhance", '"yes"', True),
        ("face_enhance", '"On"', True),
        ("face_enhance", '"t"', True),
        ("face_enhance", '"TRUE"', True),
        ("face_enhance", "false", False),
        ("face_enhance", "0", False),
        ("face_enhance", '"n"', False),
        ("face_enhance", '"off"', False),
        ("face_enhance", '"False"', False),
        ("init_image_url", '""', ""),
    ],
)
def test_a_value_is_coerced_as_in_lax_mode(field: str, literal: str, value: object) -> None:
    """REQ-10 and REQ-12."""
    coerced = getattr(asking(field, literal), field)
    assert coerced == value
    assert type(coerced) is type(value)


@pytest.mark.parametrize(
    ("field", "literal", "kind"),
    [
        ("scale", '"abc"', "float_parsing"),
        ("scale", '""', "float_parsing"),
        ("scale", '"2,5"', "float_parsing"),
        ("scale", '"0x10"', "float_parsing"),
        ("scale", "[2]", "float_type"),
        ("scale", "{}", "float_type"),
        ("output_image_height", "512.5", "int_from_float"),
        ("output_image_height", '"512.5"', "int_parsing"),
        ("output_image_height", '"5e2"', "int_parsing"),
        ("output_image_height", '"tall"', "int_parsing"),
        ("output_image_width", "1e400", "finite_number"),
        ("output_image_width", "[512]", "int_type"),
        ("face_enhance", "2", "bool_parsing"),
        ("face_enhance", "-1", "bool_parsing"),
        ("face_enhance", '"maybe"', "bool_parsing"),
        ("face_enhance", '""', "bool_parsing"),
        ("face_enhance", '" true"', "bool_parsing"),
        ("face_enhance", "0.5", "bool_type"),
        ("face_enhance", "[]", "bool_type"),
        ("face_enhance", "null", "bool_type"),
        ("model", "null", "enum"),
        ("model", "0", "enum"),
        ("model", '["real-esrgan-x4-v3"]', "enum"),
        ("output_image_encoding", "null", "enum"),
        ("output_image_encoding", "{}", "enum"),
        ("init_image", "1", "string_type"),
        ("init_image", "true", "string_type"),
        ("init_image", '["QUJD"]', "string_type"),
        ("init_image_url", "1", "string_type"),
        ("init_image_url", "{}", "string_type"),
    ],
)
def test_a_value_is_refused_as_in_lax_mode(field: str, literal: str, kind: str) -> None:
    """REQ-12; null stands for absence only where the schema says so."""
    assert refusal(body(field, literal)) == [(field, kind)]


# The image in base64: REQ-17 throughout


@given(
    st.binary(min_size=1, max_size=200),
    st.sampled_from(["", "data:image/png;base64,", "Data:image/svg+xml;Base64,"]),
    st.sampled_from(["", "\n", "\r\n"]),
    st.integers(1, 80),
)
def test_base64_is_read_with_a_data_prefix_and_with_line_breaks(
    data: bytes, prefix: str, line_break: str, length: int
) -> None:
    text = base64.b64encode(data).decode()
    lines = [text[start : start + length] for start in range(0, len(text), length)]
    literal = json.dumps(prefix + line_break.join([*lines, ""]))
    assert asking("init_image", literal).init_image == data


ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="


@given(
    st.binary(min_size=1, max_size=60),
    st.characters(exclude_characters=f"{ALPHABET}\r\n", exclude_categories=["Cs"]),
    st.integers(0, 80),
)
@example(b"ABC", " ", 2)
@example(b"ABC", "\t", 4)
@example(b"ABC", "\x00", 4)
@example(b"ABC", "\u0661", 0)
def test_a_character_outside_the_alphabet_is_refused(data: bytes, stray: str, at: int) -> None:
    text = base64.b64encode(data).decode()
    literal = json.dumps(text[:at] + stray + text[at:])
    assert refusal(body("init_image", literal)) == [("init_image", "base64_invalid")]


@pytest.mark.parametrize("text", ["-_-_", "QUJ-", "_UJD", "\u00e9", "QUJD\U0001f600"])
def test_neither_the_url_safe_alphabet_nor_other_scripts_are_base64(text: str) -> None:
    literal = json.dumps(text)
    assert refusal(body("init_image", literal)) == [("init_image", "base64_invalid")]


@pytest.mark.parametrize(
    "text", ["Q", "QQ", "QQ=", "QUI", "QUJDR", "=", "====", "=QUJ", "Q=Q=", "QQ==QUJD"]
)
def test_padding_that_is_missing_or_misplaced_is_refused(text: str) -> None:
    assert refusal(body("init_image", f'"{text}"')) == [("init_image", "base64_invalid")]


@given(st.binary(min_size=1, max_size=30), st.integers(1, 6))
def test_more_padding_than_is_due_is_refused(data: bytes, surplus: int) -> None:
    text = base64.b64encode(data).decode() + "=" * surplus
    assert refusal(body("init_image", f'"{text}"')) == [("init_image", "base64_invalid")]


@pytest.mark.parametrize("text", ["", "\n", "\r\n\r\n", "data:image/png;base64,"])
def test_an_empty_image_is_refused(text: str) -> None:
    assert refusal(body("init_image", json.dumps(text))) == [("init_image", "base64_empty")]


@pytest.mark.parametrize(
    "text",
    [
        "data:text/plain;base64,QUJD",
        "data:image/png,QUJD",
        "data:image/;base64,QUJD",
        "image/png;base64,QUJD",
        "data:image/png;base64,data:image/png;base64,QUJD",
        "QUJDdata:image/png;base64,QUJD",
    ],
)
def test_no_other_prefix_is_tolerated(text: str) -> None:
    assert refusal(body("init_image", f'"{text}"')) == [("init_image", "base64_invalid")]


def test_the_image_is_not_in_the_representation_of_a_request() -> None:
    image = b"a picture that a log must not hold"
    parsed = asking("init_image", json.dumps(base64.b64encode(image).decode()))
    for text in (repr(parsed), str(parsed)):
        assert "scale=2.0" in text
        assert image.decode() not in text
        assert base64.b64encode(image).decode() not in text


# Sizes


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


# The schema


SENTENCES: Final = {"description", "examples", "title"}
"""What of a schema is wording. OctoAI's wording is not ours to repeat."""


def facts(schema: Any) -> Any:
    """A JSON schema without its sentences; references by name, and not wrapped in an allOf."""
    if isinstance(schema, list):
        return [facts(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if len(schema.get("allOf", ())) == 1:
        schema = {key: schema[key] for key in schema if key != "allOf"} | schema["allOf"][0]
    kept = {key: facts(value) for key, value in schema.items() if key not in SENTENCES}
    if "$ref" in kept:
        kept["$ref"] = kept["$ref"].rpartition("/")[2]
    if "properties" in schema:
        kept["properties"] = {key: facts(value) for key, value in schema["properties"].items()}
    return kept


def published() -> Any:
    return facts(json.loads(Path(__file__).with_name("published_schema.json").read_text("utf-8")))


def ours(model: type[UpscalingRequest | ImageResponse]) -> dict[str, Any]:
    """The schema of a model and of all it refers to, by name."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    return {key: facts(value) for key, value in {model.__name__: schema, **definitions}.items()}


def test_the_schema_of_a_request_is_the_published_one() -> None:
    """All but the bounds of REQ-6 and REQ-7, which are ours, and the default of REQ-9."""
    schemas = ours(UpscalingRequest)
    fields = schemas["UpscalingRequest"]["properties"]
    assert fields["scale"]["anyOf"][0].pop("exclusiveMinimum") == 0
    assert fields["output_image_height"]["anyOf"][0].pop("minimum") == 1
    assert fields["output_image_width"]["anyOf"][0].pop("minimum") == 1
    assert fields["output_image_encoding"].pop("default") == "png"
    wanted = published()
    assert wanted.pop("ImageResponse")
    assert (
        wanted["UpscalingRequest"]["properties"]["output_image_encoding"].pop("default") == "jpeg"
    )
    assert schemas == wanted


def test_the_schema_of_a_response_is_the_published_one() -> None:
    """RES-1."""
    assert ours(ImageResponse) == {"ImageResponse": published()["ImageResponse"]}
