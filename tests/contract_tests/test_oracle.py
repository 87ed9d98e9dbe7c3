"""The oracle of the contract tests, and that it agrees with the contract of the service."""

import ast
import itertools
import json
import re
import sys
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract_tests.oracle import oracle, rules
from contract_tests.oracle import values as readings
from contract_tests.oracle.oracle import Expectation, ImageFacts, Level, Loc, expect_fields
from contract_tests.oracle.rules import RULES, Source
from contract_tests.requests.strategies import values
from tests.support.paths import ROOT
from tests.support.properties import examples
from upscaler.api.request import parse_request
from upscaler.api.sizes import output_size
from upscaler.errors import InvalidRequest

MANY: Final = settings(
    max_examples=examples(5_000, quick=600),
    suppress_health_check=[HealthCheck.too_slow],
)

# Requests

PNG: Final = {"init_image": "QUJD"}
NUMBERS: Final = (
    *(0, 1, 2, 4, -1, 255, 256, 512, 8191, 8192, 8193, 2**53 + 1, 2**63, 10**400, -(10**400)),
    *(0.0, -0.0, 1.0, 0.5, 1.5, 2.5, -0.5, 4.0002, 4.0003, 512.0, 8192.0, 8192.5, 0.35, 1e-9),
    *(5e-324, 9.2e18, 2.0**63, 1e300),
)
TEXTS: Final = (
    *("", " ", "0", "1", "-1", "+2", " 2 ", "2.5", "\t2\n", "\xa02", "\u30002\u2003", "2\x1c"),
    *(
        "\u200b2",
        "\u0662",
        "\u00bd",
        "1_000",
        "1__0",
        "_1",
        "1_",
        " 1_0 ",
        "1_.5",
        "+_1",
        "0__1",
        "_",
        "02",
        "2.",
        ".5",
        "+.5",
        "-.5",
    ),
    *("1.0", "1.00", "512.0", "512.5", "1e3", "1E+3", "1e-3", "1e400", "1e-400", "5.e1", "1.e"),
    *("e5", ".", "+", "-", "--2", "+-2", "+ 2", "0x10", "1,5", "2f", "1 2", "nan", "inf", "-INF"),
    *("Infinity", "abc", "8192", "8193", "9" * 40, "9" * 4301, "2\x00"),
    *("true", "True", "tRuE", "false", "FALSE", "t", "f", "y", "N", "yes", "no", "on", "oFf"),
    *(" true", "true ", "maybe", "null", "\u00e9", "\U0001f600"),
)
OTHERS: Final[tuple[object, ...]] = (None, True, False, [], {}, [1], {"scale": 2})
BASE64: Final = (
    *("QUJD", "QQ==", "QUI=", "", "\n", "\r\n", "QUJD\n", "QU\r\nJD\n", "\nQUJD", "Q", "QQ="),
    *(
        "QQ",
        "QUJDR",
        "=",
        "==",
        "===",
        "====",
        "=QUJ",
        "Q=Q=",
        "QQ==QUJD",
        "QQ===",
        "QUJD====",
        "QU JD",
    ),
    *("QUJ-", "_UJD", "QUJD ", "QUJ\t", "QUJ\u00e9", "+/+/", "Q\u0661JD", "QQ=\n=", "A" * 4000),
    *("data:image/png;base64,QUJD", "Data:image/svg+xml;Base64,QU\nJD", "data:image/png;base64,"),
    *("data:text/plain;base64,QUJD", "data:image/png,QUJD", "data:image/;base64,QUJD"),
    *("\ndata:image/png;base64,QUJD", "data:image/png;base64,data:image/png;base64,QUJD"),
    *("data:image/png;charset=x;base64,QUJD", "image/png;base64,QUJD", "*" * 4000),
)
NAMES: Final = (
    *("real-esrgan-x4-plus", "real-esrgan-x4-v3", "real-esrgan-x4-v3-wdn", "png", "jpeg", "jpg"),
    *("real-esrgan-animevideo-v3", "real-esrgan-x4-plus-anime", "real-esrgan-x2-plus"),
    *("real-esrgan-x4-plus ", "REAL-ESRGAN-X4-PLUS", "X4_PLUS", "x4", "PNG", "webp", "JPEG"),
)
UNKNOWN: Final = (
    *("surplus", "Scale", "scale ", "", "image", "x{y}", "\u00e9", "\U0001f600", "\u00df"),
    *("n" * 99, "n" * 100, "n" * 101, "n" * 1000, "body", "init-image"),
)

anything = st.one_of(*map(st.sampled_from, (NUMBERS, TEXTS, OTHERS, BASE64[:4] + NAMES)), values)
scales = st.sampled_from((2, 0.35, 1.5, "2.5", 4, 4.0002)) | st.integers(1, 45_000).map(
    lambda thousandths: thousandths / 10_000
)
sides = st.sampled_from((512, 512.0, "512", 8191, 8192, 8193, 1)) | st.integers(1, 8200)
GOOD: Final[dict[str, st.SearchStrategy[Any]]] = {
    "init_image": st.sampled_from(BASE64),
    "init_image_url": st.sampled_from(("https://a.example/a.png", "", "x")),
    "scale": scales,
    "output_image_height": sides,
    "output_image_width": sides,
    "model": st.sampled_from(NAMES),
    "output_image_encoding": st.sampled_from(("png", "jpeg")),
    "face_enhance": st.sampled_from((True, False, "yes", 0)),
}
"""Values of each field that are right, for the most part."""


def some(names: tuple[str, ...], values: Mapping[str, st.SearchStrategy[Any]]) -> Any:
    """A dictionary of some of these fields."""
    return st.fixed_dictionaries({}, optional={name: values[name] for name in names})


def one(*names: str) -> Any:
    """A dictionary of one of these fields, with a value that may be right."""
    return st.one_of(*(st.fixed_dictionaries({name: GOOD[name]}) for name in names))


def together(*parts: Any) -> Any:
    """The fields of all parts, in one dictionary."""
    return st.tuples(*parts).map(lambda drawn: {k: v for part in drawn for k, v in part.items()})


ANY: Final = dict.fromkeys(GOOD, anything)
EXTRAS: Final = ("model", "output_image_encoding", "face_enhance")
IMAGES: Final = ("init_image", "init_image_url")
SIZES: Final = ("scale", "output_image_height", "output_image_width")
surplus = st.dictionaries(st.sampled_from(UNKNOWN), anything, max_size=2) | st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])), st.none(), max_size=1
)
crowds = st.integers(95, 105).map(lambda count: {f"x{number}": 0 for number in range(count)})
requests = st.one_of(
    together(one(*IMAGES), one(*SIZES), some(EXTRAS, GOOD)),
    together(one(*IMAGES), one(*SIZES)),
    together(one(*IMAGES), one(*SIZES), some(EXTRAS, ANY)),
    together(one(*IMAGES), some(SIZES, ANY)),
    together(some(IMAGES, ANY), one(*SIZES)),
    together(some(IMAGES, GOOD), some(SIZES, GOOD), surplus),
    some(tuple(GOOD), ANY),
    together(one(*IMAGES), one(*SIZES), crowds),
)
EDGES: Final = (255, 256, 257, 300, 1000, 2047, 2048, 2049)
OUTPUT_EDGES: Final = (1, 8191, 8192, 8193)
edges = st.sampled_from(EDGES)
images = st.tuples(edges | st.integers(250, 2055), edges)


class Case(NamedTuple):
    fields: dict[str, Any]
    width: int
    height: int


def at_the_limit(name: str, width: int, height: int, side: int, surplus: int) -> Case:
    """A request whose output is near a limit, on the side that is asked for or computed."""
    if name == "scale":
        asked: float = round(side / max(width, height) + surplus / 10_000, 4)
    else:
        given, other = (height, width) if name == "output_image_height" else (width, height)
        asked = max(1, side * given // max(given, other) + surplus)
    return Case({**PNG, name: asked}, width, height)


near = st.builds(
    at_the_limit,
    st.sampled_from(SIZES),
    st.integers(256, 2048) | edges,
    edges,
    st.sampled_from(OUTPUT_EDGES),
    st.integers(-1, 1),
)
TIES: Final = tuple(
    (side, hundredths / 100)
    for side in range(256, 800, 2)
    for hundredths in range(1, 400)
    if side * hundredths % 100 == 50
)
"""Sides and scales that make half a pixel, which as binary numbers is often less."""
ties = st.sampled_from(TIES).map(lambda tie: Case({**PNG, "scale": tie[1]}, tie[0], 256))
halves = st.builds(
    lambda name, side: Case({**PNG, name: 150}, *(300, side)[:: 1 if "width" in name else -1]),
    st.sampled_from(SIZES[1:]),
    st.integers(256, 2048),
)
"""Every other one of these makes half a pixel on the side that is computed."""
cases = st.one_of(
    near,
    ties,
    halves,
    *[st.builds(lambda fields, size: Case(fields, *size), requests, images)] * 3,
)


# What the contract says


class Said(NamedTuple):
    """What came of a request in the contract: the places that were blamed, or what is made."""

    blamed: frozenset[Loc]
    size: tuple[int, int] = (0, 0)
    encoding: str = ""
    model: str = ""


def said(body: bytes, size: tuple[int, int]) -> Said:
    try:
        request = parse_request(body)
        made = output_size(request, size)
    except InvalidRequest as error:
        return Said(frozenset(tuple(map(str, each.loc)) for each in error.errors))
    return Said(frozenset(), made, request.output_image_encoding.value, request.model.value)


def expected(body: bytes, size: tuple[int, int], level: Level = Level.STRICT) -> Expectation:
    return expect_fields(json.loads(body), ImageFacts(*size), level)


def check_agreement(body: bytes, size: tuple[int, int]) -> None:
    contract, expectation = said(body, size), expected(body, size)

    def message() -> str:
        return (
            f"of {body[:500]!r} for {size} the contract says {contract}, the oracle {expectation}"
        )

    if contract.blamed:
        assert 422 in expectation.statuses, message()
        assert contract.blamed in expectation.refusals, message()
        return
    assert 200 in expectation.statuses, message()
    assert expectation.size is not None, message()
    assert expectation.size == (*contract.size, 0, 0), message()
    assert expectation.encodings == {contract.encoding}, message()
    assert expectation.model == contract.model, message()


@MANY
@given(cases)
def test_the_oracle_and_the_contract_agree_on_every_request(case: Case) -> None:
    check_agreement(json.dumps(case.fields).encode(), (case.width, case.height))


VALUES: Final = (*NUMBERS, *TEXTS, *OTHERS, *BASE64, *NAMES)


@pytest.mark.parametrize("name", GOOD)
def test_they_agree_on_every_field_with_every_value(name: str) -> None:
    others = {"init_image": "QUJD", "scale": 2}
    for siblings in (IMAGES, SIZES):
        if name in siblings:
            others = {key: value for key, value in others.items() if key not in siblings}
    for value in VALUES:
        body = json.dumps({**others, name: value}).encode()
        check_agreement(body, (256, 256))
        check_agreement(body, (255, 256))


@pytest.mark.parametrize("group", [IMAGES, SIZES], ids=["image", "size"])
def test_they_agree_on_every_way_to_fill_a_group(group: tuple[str, ...]) -> None:
    """Each absent, null, right or wrong: the wrong ones are falsy, which is not absent."""
    right = {"init_image": "QUJD", "init_image_url": "x"}
    wrong = {"init_image": "", "init_image_url": 0}
    for kinds in itertools.product(("absent", "null", "right", "wrong"), repeat=len(group)):
        fields: dict[str, object] = {} if group is IMAGES else {"init_image": "QUJD"}
        if group is IMAGES:
            fields["scale"] = 2
        for name, kind in zip(group, kinds, strict=True):
            values = {"null": None, "right": right.get(name, 512), "wrong": wrong.get(name, 0)}
            if kind != "absent":
                fields[name] = values[kind]
        check_agreement(json.dumps(fields).encode(), (300, 300))


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("value", [None, 0])
def test_they_agree_on_every_unknown_field(name: str, value: object) -> None:
    fields = {"init_image": "QUJD", "scale": 2, name: value}
    check_agreement(json.dumps(fields).encode(), (300, 300))


@pytest.mark.parametrize("field", SIZES)
def test_they_agree_on_every_size_at_the_limits(field: str) -> None:
    for numbers in itertools.product(EDGES, EDGES, OUTPUT_EDGES, (-1, 0, 1)):
        case = at_the_limit(field, *numbers)
        check_agreement(json.dumps(case.fields).encode(), (case.width, case.height))


@pytest.mark.parametrize("count", range(96, 103))
def test_they_agree_on_how_many_fields_there_may_be(count: int) -> None:
    fields = {"init_image": "QUJD", "scale": 2} | {f"x{number}": 0 for number in range(count)}
    check_agreement(json.dumps(fields).encode(), (300, 300))


@pytest.mark.parametrize("scale", ["1e400", "-1e400", "4.00", "2E0", "0.35000000000000000000001"])
def test_they_agree_on_how_a_number_is_written(scale: str) -> None:
    check_agreement(f'{{"init_image": "QUJD", "scale": {scale}}}'.encode(), (290, 2048))


# What the levels have to do with each other


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(cases, st.sampled_from(("known", "broken", "unknown")))
def test_what_strict_allows_documented_allows(case: Case, image: str) -> None:
    known = {
        "known": ImageFacts(case.width, case.height),
        "broken": ImageFacts(fault="damaged"),
        "unknown": None,
    }[image]
    strict, documented = (
        expect_fields(case.fields, known, level) for level in (Level.STRICT, Level.DOCUMENTED)
    )
    assert strict.statuses <= documented.statuses
    assert strict.encodings <= documented.encodings
    assert strict.model == documented.model
    assert {each.rule for each in documented.broken} <= {each.rule for each in strict.broken}
    if strict.size is not None and documented.size is not None:
        assert documented.size.allows(strict.size.width, strict.size.height)
    for expectation in (strict, documented):
        assert expectation.statuses <= ANYHOW
        assert bool(expectation.broken) == (200 not in expectation.statuses)
        assert all(each.rule in RULES for each in expectation.broken)
    assert all(RULES[each.rule].documented for each in documented.broken)
    assert bool(strict.refusals) == (422 in strict.statuses)


# By hand

OK: Final = frozenset({200})
NO: Final = frozenset({422})
UNFIT: Final = oracle.REFUSALS
EITHER: Final = frozenset({200, 422})
ANYHOW: Final = OK | UNFIT
TWICE: Final = {**PNG, "scale": 2}
SQUARE: Final = (300, 300)
Size = tuple[int, int]

BY_HAND: Final[list[tuple[dict[str, Any], Size, frozenset[int], frozenset[int], str]]] = [
    # fields, picture, statuses at strict, at documented, what is blamed at strict
    (TWICE, SQUARE, OK, OK, ""),
    ({"init_image_url": "https://a.example/a.png", "scale": 2}, SQUARE, OK, OK, ""),
    # REQ-4
    ({"scale": 2}, SQUARE, NO, UNFIT, "init_image"),
    ({**TWICE, "init_image_url": "x"}, SQUARE, NO, UNFIT, "init_image_url"),
    ({**TWICE, "init_image_url": ""}, SQUARE, NO, ANYHOW, "init_image_url"),
    ({**TWICE, "init_image_url": None}, SQUARE, OK, OK, ""),
    ({"init_image": None, "init_image_url": None, "scale": 2}, SQUARE, NO, UNFIT, "init_image"),
    # REQ-5
    (PNG, SQUARE, NO, UNFIT, "scale"),
    ({**TWICE, "output_image_width": 512}, SQUARE, NO, UNFIT, "output_image_width"),
    ({**TWICE, "output_image_width": None, "output_image_height": None}, SQUARE, OK, OK, ""),
    ({**PNG, "scale": None, "output_image_height": 600}, SQUARE, OK, OK, ""),
    # REQ-6
    ({**PNG, "scale": 0}, SQUARE, NO, ANYHOW, "scale"),
    ({**PNG, "scale": -1.5}, SQUARE, NO, ANYHOW, "scale"),
    ({**PNG, "scale": 0.5}, SQUARE, OK, ANYHOW, ""),
    ({**PNG, "scale": "two"}, SQUARE, NO, NO, "scale"),
    ({**PNG, "scale": [2]}, SQUARE, NO, NO, "scale"),
    # REQ-7
    ({**PNG, "output_image_height": 0}, SQUARE, NO, ANYHOW, "output_image_height"),
    ({**PNG, "output_image_width": -1}, SQUARE, NO, ANYHOW, "output_image_width"),
    ({**PNG, "output_image_width": 512.5}, SQUARE, NO, NO, "output_image_width"),
    ({**PNG, "output_image_width": 512.0}, SQUARE, OK, OK, ""),
    ({**PNG, "output_image_width": 299}, SQUARE, OK, ANYHOW, ""),
    # REQ-8
    ({**TWICE, "model": "real-esrgan-x2-plus"}, SQUARE, OK, OK, ""),
    ({**TWICE, "model": "real-esrgan-x8"}, SQUARE, NO, NO, "model"),
    ({**TWICE, "model": None}, SQUARE, NO, NO, "model"),
    # REQ-9
    ({**TWICE, "output_image_encoding": "jpeg"}, SQUARE, OK, OK, ""),
    ({**TWICE, "output_image_encoding": "webp"}, SQUARE, NO, NO, "output_image_encoding"),
    ({**TWICE, "output_image_encoding": None}, SQUARE, NO, NO, "output_image_encoding"),
    # REQ-10
    ({**TWICE, "face_enhance": False}, SQUARE, OK, OK, ""),
    ({**TWICE, "face_enhance": True}, SQUARE, EITHER, ANYHOW, "face_enhance"),
    ({**TWICE, "face_enhance": None}, SQUARE, NO, NO, "face_enhance"),
    # REQ-11
    ({**TWICE, "surplus": None}, SQUARE, NO, NO, "surplus"),
    ({**TWICE, "n" * 101: 1}, SQUARE, NO, NO, "n" * 100),
    # REQ-12
    ({**PNG, "scale": "2.5"}, SQUARE, OK, ANYHOW, ""),
    ({**PNG, "scale": True}, SQUARE, OK, ANYHOW, ""),
    ({**PNG, "scale": "1_0"}, SQUARE, EITHER, ANYHOW, "scale"),
    ({**PNG, "output_image_height": "600.0"}, SQUARE, OK, ANYHOW, ""),
    ({**PNG, "output_image_height": "600.5"}, SQUARE, NO, NO, "output_image_height"),
    ({**TWICE, "face_enhance": "off"}, SQUARE, OK, ANYHOW, ""),
    ({**TWICE, "face_enhance": 2}, SQUARE, NO, NO, "face_enhance"),
    ({"init_image_url": 1, "scale": 2}, SQUARE, NO, NO, "init_image_url"),
    # REQ-13
    (TWICE, (256, 2048), OK, OK, ""),
    (TWICE, (255, 300), NO, UNFIT, "init_image"),
    (TWICE, (300, 2049), NO, UNFIT, "init_image"),
    ({"init_image_url": "x", "scale": 2}, (300, 255), NO, UNFIT, "init_image_url"),
    # REQ-14: a computed side may be rounded otherwise, unless it is our own
    ({**PNG, "scale": 3.9}, (2048, 256), OK, OK, ""),
    ({**PNG, "scale": 4}, (2048, 256), OK, OK, ""),  # nothing is rounded
    ({**PNG, "scale": 3.9999}, (2048, 256), OK, ANYHOW, ""),  # 8191.8
    ({**PNG, "scale": 4.0003}, (2048, 256), NO, ANYHOW, "scale"),
    ({**PNG, "scale": 4.1}, (256, 2048), NO, UNFIT, "scale"),
    ({**PNG, "output_image_height": 8192}, (256, 2048), OK, OK, ""),
    ({**PNG, "output_image_height": 8193}, (256, 2048), NO, UNFIT, "output_image_height"),
    ({**PNG, "output_image_width": 8189}, (2047, 2048), NO, ANYHOW, "output_image_width"),
    ({**PNG, "output_image_width": 8192}, (300, 2048), NO, UNFIT, "output_image_width"),
    # REQ-17
    ({"init_image": "data:image/png;base64,QU\r\nJD", "scale": 2}, SQUARE, OK, ANYHOW, ""),
    ({"init_image": "QU JD", "scale": 2}, SQUARE, NO, ANYHOW, "init_image"),
    ({"init_image": "QUI", "scale": 2}, SQUARE, NO, ANYHOW, "init_image"),
    ({"init_image": "", "scale": 2}, SQUARE, NO, UNFIT, "init_image"),
    # REQ-19
    ({"init_image": 1, "scale": "x", "model": 1}, (1, 1), NO, NO, "init_image model scale"),
    ({**PNG, "scale": 100}, (255, 300), NO, UNFIT, "init_image"),
    ({**PNG, "scale": "two"}, (255, 300), NO, UNFIT, "scale"),
    ({**TWICE, "model": 1}, (255, 300), NO, UNFIT, "model"),
    (
        {**TWICE, "model": 1, "output_image_width": 600},
        SQUARE,
        NO,
        UNFIT,
        "model output_image_width",
    ),
    ({"init_image": "QUJD", "scale": 2, "face_enhance": 3}, (1, 1), NO, UNFIT, "face_enhance"),
]


@pytest.mark.parametrize(("fields", "image", "strict", "documented", "blamed"), BY_HAND)
def test_an_expectation_is_what_the_sources_say(
    fields: dict[str, Any],
    image: Size,
    strict: frozenset[int],
    documented: frozenset[int],
    blamed: str,
) -> None:
    expectation = expect_fields(fields, ImageFacts(*image), Level.STRICT)
    assert expectation.statuses == strict
    wanted = frozenset(("body", name) for name in blamed.split())
    assert expectation.refusals == ({wanted} if wanted else frozenset())
    assert expect_fields(fields, ImageFacts(*image), Level.DOCUMENTED).statuses == documented


@pytest.mark.parametrize(
    ("asked", "image", "output"),
    [
        ({"scale": 2}, (300, 400), (600, 800)),
        ({"scale": 0.35}, (290, 1000), (102, 350)),  # 101.5, which binary numbers put below
        ({"scale": "0.35"}, (1000, 290), (350, 102)),
        ({"scale": 1.0025}, (600, 1000), (602, 1003)),  # 601.5, 1002.5
        ({"scale": 1e-9}, (256, 2048), (1, 1)),
        ({"output_image_height": 4}, (257, 2048), (1, 4)),  # 0.502
        ({"output_image_height": 500}, (1001, 1000), (501, 500)),  # 500.5
        ({"output_image_height": 512}, (300, 256), (600, 512)),
        ({"output_image_width": 512}, (256, 300), (512, 600)),
        ({"output_image_width": 1}, (256, 2048), (1, 8)),
        ({"scale": 1.15}, (300, 301), (345, 346)),  # 345, which binary numbers put below; 346.15
        ({"scale": 1.1}, (260, 270), (286, 297)),  # both exact, which binary numbers put above
        ({"output_image_height": 301}, (600, 300), (602, 301)),
    ],
)
def test_a_side_with_a_fraction_may_differ_by_a_pixel_at_documented(
    asked: dict[str, Any], image: Size, output: Size
) -> None:
    """REQ-16."""
    strict = expect_fields({**PNG, **asked}, ImageFacts(*image), Level.STRICT).size
    documented = expect_fields({**PNG, **asked}, ImageFacts(*image), Level.DOCUMENTED).size
    assert strict == (*output, 0, 0)
    assert documented is not None
    ((name, value),) = asked.items()
    by = {"output_image_width": image[0], "output_image_height": image[1]}
    factor = Fraction(str(value)) / by.get(name, 1)
    computed = tuple(int((side * factor).denominator != 1) for side in image)
    assert documented == (*output, *computed)
    for across, down in itertools.product((-2, -1, 0, 1, 2), repeat=2):
        width, height = output[0] + across, output[1] + down
        assert strict.allows(width, height) == (across == down == 0)
        near_enough = abs(across) <= computed[0] and abs(down) <= computed[1]
        assert documented.allows(width, height) == (near_enough and min(width, height) >= 1)


def test_the_default_encoding_is_png_or_at_documented_jpeg() -> None:
    """REQ-9."""
    assert expect_fields(TWICE, None, Level.STRICT).encodings == {"png"}
    assert expect_fields(TWICE, None, Level.DOCUMENTED).encodings == {"png", "jpeg"}
    for level, name in itertools.product(Level, ("png", "jpeg")):
        fields = {**TWICE, "output_image_encoding": name}
        assert expect_fields(fields, None, level).encodings == {name}


def test_the_default_model_is_x4_plus() -> None:
    """REQ-8."""
    for level in Level:
        assert expect_fields(TWICE, None, level).model == "real-esrgan-x4-plus"
        for name in readings.MODELS:
            assert expect_fields({**TWICE, "model": name}, None, level).model == name


def test_more_than_100_fields_are_one_error() -> None:
    """REQ-11."""
    hundred = TWICE | {f"x{number}": 0 for number in range(98)}
    (refusal,) = expect_fields(hundred, ImageFacts(300, 300), Level.STRICT).refusals
    assert len(refusal) == 98
    more = expect_fields({**hundred, "y": 0}, ImageFacts(300, 300), Level.STRICT)
    assert more.refusals == {frozenset({("body",)})}


PICTURE_RULES: Final = [("init_image", "REQ-17"), ("init_image_url", "REQ-4")]


@pytest.mark.parametrize(("field", "rule"), PICTURE_RULES)
def test_an_invalid_image_is_an_error_of_its_field(field: str, rule: str) -> None:
    fields = {field: "QUJD", "scale": 2, "face_enhance": True}
    expectation = expect_fields(fields, ImageFacts(fault="a text"), Level.STRICT)
    assert expectation.statuses == NO
    assert [each.rule for each in expectation.broken] == [rule]
    # Who has no face model may say so before looking at the picture.
    assert expectation.refusals == {frozenset({("body", name)}) for name in (field, "face_enhance")}
    assert expect_fields(fields, ImageFacts(fault="a text"), Level.DOCUMENTED).statuses == UNFIT


@pytest.mark.parametrize(
    ("size", "scale", "blamed"),
    [
        ((257, 300), 2, {"init_image"}),
        ((257, 300), 28, {"init_image", "scale"}),
        ((255, 300), 40, {"init_image"}),
        ((0, 0), 40, {"init_image"}),
    ],
)
def test_of_a_damaged_file_the_header_may_be_believed(
    size: tuple[int, int], scale: int, blamed: set[str]
) -> None:
    fields = {**PNG, "scale": scale}
    expectation = expect_fields(fields, ImageFacts(*size, fault="truncated"), Level.STRICT)
    assert expectation.statuses == NO
    assert expectation.refusals == {frozenset({("body", name)}) for name in blamed}
    documented = expect_fields(fields, ImageFacts(*size, fault="truncated"), Level.DOCUMENTED)
    # Many decoders make an image of a file that is cut off; but its size has to be right.
    assert documented.statuses == (
        ANYHOW if blamed == {"init_image"} and min(size) >= 256 else UNFIT
    )


def test_an_unknown_image_may_be_accepted_or_refused() -> None:
    expectation = expect_fields(TWICE, None, Level.STRICT)
    assert expectation.statuses == EITHER
    assert expectation.size is None
    assert expectation.refusals == {frozenset({("body", name)}) for name in ("init_image", "scale")}
    assert expect_fields({**TWICE, "model": 1}, None, Level.STRICT).statuses == NO


def test_a_refusal_at_the_level_documented_may_point_anywhere() -> None:
    assert expect_fields({}, None, Level.DOCUMENTED).refusals == frozenset()


# The rules, and independence


@pytest.mark.parametrize("module", [oracle, readings, rules])
def test_the_judge_needs_nothing_but_python(module: ModuleType) -> None:
    """So it runs wherever another team has it, and shares no fault with what it judges."""
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    for node in ast.walk(tree):
        names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        for name in names:
            root = name.partition(".")[0]
            assert root == "contract_tests" or root in sys.stdlib_module_names, name


CONTRACT: Final = ROOT / "docs" / "CONTRACT.md"


def test_the_rules_have_the_support_that_the_contract_gives_them() -> None:
    """That document knows no old page, and calls a choice `ours`, as all of the extensions are."""
    text = CONTRACT.read_text("utf-8")
    rows = re.findall(r"^\| ([A-Z]+-\d+) \|.*\| (.+) \|$", text, re.MULTILINE)
    rows += [(name, "ours") for name in re.findall(r"^\| (EXT-\d+) \|", text, re.MULTILINE)]
    support = {
        rule: set(re.findall(r"page|schema|platform|client|ours", text)) for rule, text in rows
    }
    assert [name for name in support if not name.startswith("OWN")] == list(RULES)
    for name, rule in RULES.items():
        words = {"ours" if source is Source.CHOICE else source.value for source in rule.sources}
        # The document says "we follow the page", and of a 503 that no test can bring about.
        wanted = support[name] ^ ({"ours"} if name in ("REQ-9", "RES-9") else set())
        assert words - {"old page"} == wanted, name
        assert rule.id == name
        assert bool(rule.chosen) == (Source.CHOICE in rule.sources and rule.documented), name


@pytest.mark.parametrize(
    ("rule", "contract", "chosen"),
    [
        ("REQ-1", "`/upscaling/`, is a 404 and never a redirect", "other methods and paths"),
        ("REQ-1", "`NaN`", "what is no JSON object"),
        ("REQ-2", "in any case, followed by several spaces", "several spaces behind it"),
        ("REQ-2", "`WWW-Authenticate: Bearer`", "WWW-Authenticate"),
        ("REQ-4", "Without any the error is at `init_image`", "where the error is"),
        ("REQ-5", "Without any the error is at `scale`", "where the error is"),
        ("REQ-13", "WebP", "WebP"),
        ("REQ-17", "`data:image/...;base64,`, in any case", "the prefix in any case"),
        ("RES-2", "put on white in a JPEG", "put on white in a JPEG"),
        ("RES-2", "EXIF orientation of the input is applied", "EXIF orientation is applied"),
        ("RES-8", "`Vary: Accept`", "Vary"),
        ("ASY-3", "the POST's `Accept` applies", "the Accept of the POST counts"),
    ],
)
def test_what_strict_demands_is_in_the_contract_and_a_choice(
    rule: str, contract: str, chosen: str
) -> None:
    """Whoever writes a service by that document conforms, and a failure names its true source."""
    (row,) = re.findall(rf"^\| {rule} \|.*$", CONTRACT.read_text("utf-8"), re.MULTILINE)
    assert contract in row
    assert "ours" in row.rpartition("|")[0].rpartition("|")[2]
    assert chosen in RULES[rule].chosen
