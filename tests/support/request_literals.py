"""Requests that break rules, and checks of every response."""

import json
import re
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

import pytest
from hypothesis import strategies as st

from upscaler.api.request import UpscalingRequest, parse_request
from upscaler.api.sizes import Size, output_size
from upscaler.errors import InvalidRequest

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
    """A request with `field` as this JSON literal, and valid in everything else."""
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
