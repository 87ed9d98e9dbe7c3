"""Hypothesis strategies for values, fields, images and whole requests, close to the limits.

Images are small files whatever their size. Requests that cost money ask for small images, unless
they are about the size.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from hypothesis import strategies as st

from contract_tests.oracle.limits import MAX_INPUT_PX, MAX_OUTPUT_PX, MIN_INPUT_PX
from contract_tests.oracle.oracle import IMAGE_FIELDS, SIZE_FIELDS
from contract_tests.oracle.values import ENCODINGS, MODELS
from contract_tests.requests.images import COMMON_KINDS, DAMAGES, MODES, SampleImage
from contract_tests.requests.request import Request, upscaling_request

Fields = dict[str, Any]

# Values

NUMBERS: Final = (
    *(0, 1, 2, 4, -1, 512, 10**40, -(10**40), 2**31, 2**63, 2**53 + 1, 10**310),
    *(0.0, -0.0, 0.5, 1.5, 2.5, -0.5, 512.0, 512.5, 1e-9, 5e-324, 2.0**63, 1e300),
)
NUMERALS: Final = (
    *("2", "2.5", " 2 ", "\t2\n", "+2", "-2", "0", "02", "2.", ".5", "512", "512.0", "512.5"),
    *("1e3", "1E+3", "1e400", "-1e400", "nan", "inf", "-INF", "Infinity", "1_000", "1__0", "_1"),
    *("", " ", "--2", "+ 2", "0x10", "1,5", "2x", "x2", "1 2", "2\x00", "\u0662", "\u00bd"),
    *("\u30002\u2003", "\xa02", "2\x1c", "9" * 40, "two"),
)
WORDS: Final = (
    *("true", "False", "yes", "No", "on", "oFF", "t", "F", "y", "n", "maybe", " true", "2"),
    *("png", "jpeg", "jpg", "PNG", "webp", "image/png", "gif", "", " png", "jpeg "),
    *(*MODELS, "REAL-ESRGAN-X4-PLUS", "real_esrgan_x4_plus", "x4-plus", "real-esrgan-x4-plus "),
    *("real-esrgan-x4", "real-esrgan-x8-plus", "null", "\u00e9", "\U0001f600"),
)
REPEATABLE: Final = st.integers(10**9, 10**12).map(lambda number: f"do-not-repeat-{number}")
"""Texts that no message has by coincidence: one that contains it repeats the value (RES-4)."""
_SIDE_MISTAKES: Final[tuple[Any, ...]] = (
    *(0, -1, -512, "0", "-1", 512.5, "512.5", "", "512px", "1e3", [512], {}, 1e300, "1" * 5000),
)
_MISTAKES: Final[dict[str, tuple[Any, ...]]] = {
    "scale": (
        *(0, -1, -0.0, 10**400, "0", "-1", "1e400", "nan", "-inf", "", " ", "two", "2,5", "2x"),
        *("x2", "2 2", [], [2], {}, [[2]]),
    ),
    "output_image_height": _SIDE_MISTAKES,
    "output_image_width": _SIDE_MISTAKES,
    "model": (
        *(None, "", " ", 4, True, [], {}, ["real-esrgan-x4-plus"], "REAL-ESRGAN-X4-PLUS"),
        *("real_esrgan_x4_plus", "x4-plus", "real-esrgan-x4-plus ", "real-esrgan-x8-plus"),
        "default",
    ),
    "output_image_encoding": (
        *(None, "", "jpg", "JPEG", "PNG", "webp", "gif", "image/png", ".png", "png ", 1, True),
        ["png"],
    ),
    "face_enhance": (None, "", "maybe", "truee", 2, -1, 0.5, [], [True], {}),
    "init_image": (1, True, [], {}, ["QUJD"]),
    "init_image_url": (1, True, [], {}, ["https://images.example/512x512.png"]),
}
LIKELY_MISTAKES: Final[tuple[tuple[str, Any], ...]] = tuple(
    (name, value) for name, mistakes in _MISTAKES.items() for value in mistakes
)
"""Values that a field must refuse, and that a careless parser accepts."""
OTHERS: Final[tuple[Any, ...]] = (
    *(None, True, False, [], {}, [2], [[]], {"scale": 2}, ["do-not-repeat-0"]),
    {"value": "do-not-repeat-0"},
)
values: Final[st.SearchStrategy[Any]] = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(NUMERALS),
    st.sampled_from(WORDS),
    st.sampled_from(OTHERS),
    REPEATABLE,
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**12), 10**12),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)
"""Any JSON value, most of them close to what some field accepts."""

# Images

EDGES: Final = (MIN_INPUT_PX, MIN_INPUT_PX + 1, MAX_INPUT_PX - 1, MAX_INPUT_PX)
OUT_OF_RANGE: Final = (MIN_INPUT_PX - 1, MAX_INPUT_PX + 1)
seeds: Final = st.integers(0, 2**32 - 1)
small_sides: Final = st.sampled_from((256, 257, 300)) | st.integers(256, 320)
small_images: Final = st.builds(
    lambda width, height, kind, seed: SampleImage(width, height, kind[0], seed, kind[1]),
    small_sides,
    small_sides,
    st.sampled_from(COMMON_KINDS),
    seeds,
)
"""Images that are quick to upscale."""
KINDS: Final = tuple((name, mode) for name, modes in MODES.items() for mode in modes)
"""Every format, in every mode."""
unusual_images: Final = st.builds(
    lambda width, height, kind, seed, orientation: SampleImage(
        width, height, kind[0], seed, kind[1], orientation
    ),
    small_sides,
    small_sides,
    st.sampled_from(KINDS),
    seeds,
    st.integers(1, 8),
)
"""The same of every kind, rotated by EXIF."""
damaged_images: Final = st.builds(
    lambda image, damage: SampleImage(
        image.width, image.height, image.format, image.seed, image.mode, 1, damage
    ),
    small_images,
    st.sampled_from(DAMAGES),
)


def _out_of_range(
    inside: int, beyond: int, swapped: bool, kind: tuple[str, str], seed: int
) -> SampleImage:
    width, height = (beyond, inside) if swapped else (inside, beyond)
    return SampleImage(width, height, kind[0], seed, kind[1])


out_of_range_images: Final = st.builds(
    _out_of_range,
    st.sampled_from((*EDGES, *OUT_OF_RANGE, 1, 20_000)) | st.integers(MIN_INPUT_PX, MAX_INPUT_PX),
    st.sampled_from(OUT_OF_RANGE)
    | st.integers(1, MIN_INPUT_PX - 1)
    | st.integers(MAX_INPUT_PX + 1, MAX_OUTPUT_PX)
    | st.just(20_000),
    st.booleans(),
    st.sampled_from(COMMON_KINDS),
    seeds,
)
"""Images with one side or both outside of the limits (REQ-13)."""

# Fields

scales: Final = st.one_of(
    st.sampled_from((1, 2, 1.5, 0.5, 0.35, 1.0025)),
    st.integers(5, 250).map(lambda hundredths: hundredths / 100),
)
sides: Final = st.sampled_from((1, 255, 256, 257, 512)) | st.integers(1, 640)
VALID: Final[dict[str, st.SearchStrategy[Any]]] = {
    "scale": scales,
    "output_image_height": sides,
    "output_image_width": sides,
    "model": st.sampled_from(MODELS),
    "output_image_encoding": st.sampled_from(ENCODINGS),
    "face_enhance": st.just(False),
    "init_image_url": st.sampled_from(("https://images.example/512x512.png", "x", "")),
}
OPTIONAL_FIELDS: Final = ("model", "output_image_encoding", "face_enhance")
size_fields: Final[st.SearchStrategy[Fields]] = st.one_of(
    *(st.fixed_dictionaries({name: VALID[name]}) for name in SIZE_FIELDS)
)
"""One of the three fields that request a size (REQ-5), for a small image."""


def any_of_fields(names: tuple[str, ...], drawn: Mapping[str, st.SearchStrategy[Any]]) -> Any:  # noqa: ANN401  a strategy
    """Any of these fields, none to all."""
    return st.fixed_dictionaries({}, optional={name: drawn[name] for name in names})


unknown_names: Final = st.one_of(
    st.sampled_from(
        ("surplus", "Scale", "scale ", "", "image", "init-image", "n" * 100, "n" * 200)
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
)
nulls: Final = st.lists(st.sampled_from((*IMAGE_FIELDS, *SIZE_FIELDS)), unique=True)


def _with_nulls(fields: Fields, names: list[str]) -> Fields:
    return {**{name: None for name in names if name not in fields}, **fields}


# Requests

valid_requests: Final = st.builds(
    lambda image, size, more: upscaling_request({**more, **size}, image),
    small_images,
    size_fields,
    any_of_fields(OPTIONAL_FIELDS, VALID),
)
"""Valid requests for small images."""
one_arbitrary_value: Final = st.builds(
    lambda name, value, image, size: upscaling_request(
        {**({} if name in SIZE_FIELDS else size), name: value},
        image if name not in IMAGE_FIELDS else None,
    ),
    st.sampled_from((*IMAGE_FIELDS, *SIZE_FIELDS, *OPTIONAL_FIELDS)),
    values,
    small_images,
    size_fields,
)
"""Requests with one field of any value: some of them are valid."""
many_errors: Final = st.builds(
    lambda drawn, more, image: upscaling_request(
        {**more, **drawn}, image if "init_image" not in drawn else None
    ),
    any_of_fields((*SIZE_FIELDS, *OPTIONAL_FIELDS, "init_image_url"), dict.fromkeys(VALID, values)),
    st.dictionaries(unknown_names, values, max_size=2),
    small_images | out_of_range_images | damaged_images,
)
"""Requests with several errors."""
exclusive_groups: Final = st.builds(
    lambda given, size, names, image: upscaling_request(
        _with_nulls({**size, **given}, names), image
    ),
    any_of_fields(("init_image_url",), VALID),
    any_of_fields(SIZE_FIELDS, VALID),
    nulls,
    small_images | st.none(),
)
"""Requests with any number of images and sizes, nulls among them (REQ-4, REQ-5)."""


def _oversized_output(name: str, width: int, height: int, past: int, seed: int) -> Request:
    """A request whose output is `past` pixels too long on its longer side."""
    image = SampleImage(width, height, "png", seed, "palette")
    longest = max(width, height)
    # The smallest values for which that side is rounded up to the size wanted (REQ-16); a scale has
    # four decimals.
    if name == "scale":
        scale = math.ceil((MAX_OUTPUT_PX + past - 0.5) / longest * 10_000) / 10_000
        return upscaling_request({name: scale}, image)
    given = height if name == "output_image_height" else width
    least = math.ceil(((MAX_OUTPUT_PX + past) * 2 - 1) * given / (2 * longest))
    return upscaling_request({name: max(1, least)}, image)


input_sides: Final = st.sampled_from(EDGES) | st.integers(MIN_INPUT_PX, MAX_INPUT_PX)
oversized_outputs: Final = st.builds(
    _oversized_output,
    st.sampled_from(SIZE_FIELDS),
    input_sides,
    input_sides,
    st.sampled_from((1, 1, 1, 2, 100)),
    seeds,
)
"""Requests whose output is a little too large, on a requested or a computed side (REQ-14)."""

INVALID_JSON: Final = (
    *(b"", b" ", b"{", b"}", b"[]", b'""', b"null", b"2", b"true", b"{]", b"nonsense", b"\0"),
    *(b'{"scale": 2,}', b"{'scale': 2}", b'{"scale": 2} x', b'{"scale": 02}', b'{"scale": +2}'),
    *(b'{"scale": .5}', b'{"scale": 2.}', b"{scale: 2}", b'{"scale"; 2}', b'{"scale": 2 "a": 1}'),
    *(b'[{"scale": 2}]', b'{"model": "\xff"}', b'{"model": "\xed\xa0\x80"}', b'{"a": "\n"}'),
    *(
        b"\xff\xfe{\0}\0",
        b'{"scale": 1e}',
        b'{"scale": 2} {"scale": 2}',
        b"[" * 2000,
        b'{"a":' * 2000,
    ),
)
NON_NUMBERS: Final = ("NaN", "Infinity", "-Infinity")
SURROGATES: Final = (r'"\ud800"', r'"\udfff"', r'"\udc00\ud800"')
"""Halves of pairs, which UTF-8 cannot encode: repeating one in an error fails to encode it."""
invalid_bodies: Final = st.one_of(
    st.sampled_from(INVALID_JSON),
    st.builds(
        lambda name, number: f'{{"init_image": "QUJD", "{name}": {number}}}'.encode(),
        st.sampled_from((*SIZE_FIELDS, *OPTIONAL_FIELDS, "surplus")),
        st.sampled_from((*NON_NUMBERS, *SURROGATES)),
    ),
    st.binary(max_size=40).filter(lambda body: b"\0" not in body),
)
"""Bodies that are not a JSON object (REQ-1)."""
INVALID_CONTENT_TYPES: Final = (
    *(None, "", "text/plain", "text/json", "application/x-www-form-urlencoded", "application/jso"),
    *("multipart/form-data; boundary=x", "application/octet-stream", "image/png", "json"),
    *("application/jsonp", "application/json, text/plain"),
)
VALID_CONTENT_TYPES: Final = (
    *("application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON"),
    "application/json; version=1",
)
INVALID_BASE64: Final = (
    *("", "\n", "=", "====", "Q", "QQ", "QQ=", "QUI", "QUJDR", "QQ===", "=QUJ", "Q=Q=", "QQ==QUJD"),
    *("data:image/png;base64,", "data:text/plain;base64,QUJD", "data:image/png,QUJD", "QUJD QUJD"),
)
TO_URL_SAFE: Final = str.maketrans("+/", "-_")
invalid_base64: Final = st.one_of(
    st.sampled_from(INVALID_BASE64),
    st.builds(
        lambda text, at, character: f"{text[:at]}{character}{text[at:]}",
        small_images.map(SampleImage.base64),
        st.integers(0, 400),
        st.sampled_from((" ", "\t", "-", "_", "*", "=", "\u00e9", "%2B", ".", "\u200b")),
    ),
    small_images.map(lambda image: image.base64().translate(TO_URL_SAFE)).filter(
        lambda text: "-" in text or "_" in text
    ),
    small_images.map(lambda image: image.base64().rstrip("=")[:-1]),
    small_images.map(lambda image: f"data:text/plain;base64,{image.base64()}"),
    small_images.map(lambda image: f" {image.base64()}"),
)
"""Texts that are not standard base64, most of them close to it (REQ-17)."""


PREFIXES: Final = (
    "",
    "data:image/png;base64,",
    "data:image/jpeg;base64,",
    "DATA:image/svg+xml;BASE64,",
)
tolerated_base64: Final = st.builds(
    lambda image, prefix, width, ending: (
        image,
        prefix + _in_lines(image.base64(), width, ending),
    ),
    small_images,
    st.sampled_from(PREFIXES),
    st.sampled_from((0, 64, 76)),
    st.sampled_from(("\n", "\r\n")),
)
"""An image, and its base64 with a prefix and line breaks that are tolerated (REQ-17)."""


def _in_lines(text: str, width: int, ending: str) -> str:
    if not width:
        return text
    return "".join(text[at : at + width] + ending for at in range(0, len(text), width))
