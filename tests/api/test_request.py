"""The fields of a request: what is taken, what is refused, and how it is told."""

import base64
import json
from decimal import Decimal
from itertools import product
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.request_literals import (
    IMAGE_GROUP,
    SIZE_GROUP,
    VALID,
    asking,
    body,
    json_object,
    refusal,
    told,
)
from tests.test_models import NAMES
from upscaler.api.request import parse_request, validate_request
from upscaler.errors import InvalidRequest

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
    NAMES,
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


@given(st.integers(1000, 9000), st.integers(0), st.sampled_from("*-_ =\t\0.é"))
def test_one_wrong_character_in_a_long_text_is_found_wherever_it_is(
    size: int, at: int, wrong: str
) -> None:
    """Decoders take many characters at once, and the last ones by themselves."""
    text = base64.b64encode(bytes(3 * size)).decode()
    at %= len(text) - 2  # where = would be right
    literal = json.dumps(text[:at] + wrong + text[at + 1 :])
    assert refusal(body("init_image", literal)) == [("init_image", "base64_invalid")]


@given(st.binary(min_size=1, max_size=9000))
def test_what_is_base64_is_decoded_as_pythons_own_decoder_does(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert asking("init_image", f'"{text}"').init_image == data


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
