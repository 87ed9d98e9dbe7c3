"""The responses that the rules allow to the fields of a request.

`expect_fields` takes the fields and what is known of the input image. It returns the allowed
statuses, the locations that a refusal must name, and the size, encoding and model of the output
image. It is derived from `rules.py` and shares no code with any implementation.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from itertools import chain, combinations
from typing import Final, NamedTuple

from contract_tests.oracle import values
from contract_tests.oracle.values import (
    ALLOWED,
    DISALLOWED,
    FORBIDDEN,
    INVALID,
    OPTIONAL,
    TOLERATED,
    Parsed,
    Support,
)


class Level(Enum):
    """How much is asked of an implementation."""

    DOCUMENTED = "only what a source supports, as for the real API"
    STRICT = "our choices, too, as for the mock and our deployments"


Loc = tuple[str, ...]
"""Where an error is told: `("body", "scale")`, or `("body",)` for all of it (RES-4)."""

IMAGE_FIELDS: Final = ("init_image", "init_image_url")
SIZE_FIELDS: Final = ("scale", "output_image_height", "output_image_width")
MIN_INPUT_PX: Final = 256
MAX_INPUT_PX: Final = 2048
MAX_OUTPUT_PX: Final = 8192
MAX_FIELDS: Final = 100
MAX_NAME: Final = 100


@dataclass(frozen=True)
class ImageFacts:
    """What is known of the picture that a request gives: its size in pixels, or why it is none.

    A file that is damaged has a size if its header still tells it.
    """

    width: int = 0
    height: int = 0
    fault: str = ""


class Output(NamedTuple):
    """The size of the output in pixels, and by how many pixels each side may miss it."""

    width: int
    height: int
    width_slack: int = 0
    height_slack: int = 0

    def allows(self, width: int, height: int) -> bool:
        """Whether a picture of this size will do: never one with a side of 0, or beyond REQ-14."""
        if not (1 <= width <= MAX_OUTPUT_PX and 1 <= height <= MAX_OUTPUT_PX):
            return False
        return (
            abs(width - self.width) <= self.width_slack
            and abs(height - self.height) <= self.height_slack
        )


class BrokenRule(NamedTuple):
    """A rule that the request breaks, or may break, and where that is told."""

    loc: Loc
    rule: str
    support: Support


@dataclass(frozen=True)
class Expectation:
    """What may be answered.

    `broken` is what leaves only a refusal at this level. `refusals` has sets of places, and a 422
    must name exactly those of one set; it is empty at the level `documented`, and where there is
    nothing to refuse. The others are of the picture that a 200 may bring: `size` is None where
    any will do, or none may come.
    """

    statuses: frozenset[int]
    broken: tuple[BrokenRule, ...]
    refusals: frozenset[frozenset[Loc]]
    size: Output | None
    encodings: frozenset[str]
    model: str | None


_STRICT: Final = {
    ALLOWED: frozenset({200}),
    TOLERATED: frozenset({200}),
    OPTIONAL: frozenset({200, 422}),
    DISALLOWED: frozenset({422}),
    FORBIDDEN: frozenset({422}),
    INVALID: frozenset({422}),
}
"""Our choices bind, and the status of every refusal is 422 (RES-4, REQ-15)."""
_DOCUMENTED: Final = {
    ALLOWED: frozenset({200}),
    TOLERATED: frozenset({200, 400, 422}),
    OPTIONAL: frozenset({200, 400, 422}),
    DISALLOWED: frozenset({200, 400, 422}),
    FORBIDDEN: frozenset({400, 422}),
    INVALID: frozenset({422}),
}
"""Where our choice alone speaks, taking and refusing are both right. The schema has 422 for what
does not fit it; for what only the page forbids, no source names a status."""
_ALLOWED: Final = {Level.STRICT: _STRICT, Level.DOCUMENTED: _DOCUMENTED}


def expect_fields(
    fields: Mapping[str, object],
    image: ImageFacts | None,
    level: Level,
    default_encoding: str = values.ENCODINGS[0],
) -> Expectation:
    """What may be answered to these fields, as `json.loads` gives them.

    `image` tells of the picture in `init_image`, or of the one behind `init_image_url`; None if
    nothing is known of it, and then both a picture and a refusal are right. `default_encoding` is
    the implementation's own, where the sources disagree (REQ-9).
    """
    parsed = {name: values.FIELDS[name](fields[name]) for name in _given(fields)}
    findings = list(_fields(fields, parsed))
    size: Output | None = None
    later: list[BrokenRule] = []
    if not any(found.support.refused for found in findings):
        size, later = _check_image_and_size(parsed, image, level)
    told = [*findings, *later]
    statuses = _statuses(told, level)
    return Expectation(
        statuses,
        tuple(each for each in told if 200 not in _ALLOWED[level][each.support]),
        _refusals(findings, later) if level is Level.STRICT else frozenset(),
        size if 200 in statuses else None,
        _encodings(parsed, level, default_encoding),
        _model(parsed),
    )


def _given(fields: Mapping[str, object]) -> Iterator[str]:
    """The fields that there are and that have a value: null is none where the schema allows it."""
    for name, value in fields.items():
        absent = value is None and name in IMAGE_FIELDS + SIZE_FIELDS
        if name in values.FIELDS and not absent:
            yield name


def _fields(fields: Mapping[str, object], parsed: Mapping[str, Parsed]) -> Iterator[BrokenRule]:
    """What is to be said of the fields, each on its own and together (REQ-4 to REQ-12)."""
    if len(fields) > MAX_FIELDS:
        yield BrokenRule(("body",), "REQ-11", INVALID)
        return
    for name in fields:
        if name not in values.FIELDS:
            yield BrokenRule(("body", name[:MAX_NAME]), "REQ-11", INVALID)
    for name, reading in parsed.items():
        if reading.support is not ALLOWED:
            yield BrokenRule(("body", name), reading.rule, reading.support)
    for rule, group in (("REQ-4", IMAGE_FIELDS), ("REQ-5", SIZE_FIELDS)):
        given = [name for name in group if name in parsed]
        # No rule says where: we blame each but the first, and the first if there is none.
        blamed = given[1:] if given else group[:1]
        yield from (BrokenRule(("body", name), rule, INVALID) for name in blamed)


def _check_image_and_size(
    parsed: Mapping[str, Parsed], image: ImageFacts | None, level: Level
) -> tuple[Output | None, list[BrokenRule]]:
    """The size of the output, if it is known, and what is to be said of the picture and of it."""
    (gave,) = (name for name in IMAGE_FIELDS if name in parsed)
    (asked,) = (name for name in SIZE_FIELDS if name in parsed)
    if image is None:
        unknown = [
            BrokenRule(("body", gave), "REQ-13", OPTIONAL),
            BrokenRule(("body", asked), "REQ-14", OPTIONAL),
        ]
        return None, unknown
    fits = all(MIN_INPUT_PX <= side <= MAX_INPUT_PX for side in (image.width, image.height))
    broken = _check_image(gave, image, fits=fits)
    if not fits:
        return None, broken
    # Whether a header is believed before all of the file was decoded, no rule says.
    size = _output(asked, parsed[asked].value, image, level)
    return size, [*broken, *_limits(asked, size)]


def _check_image(field: str, image: ImageFacts, *, fits: bool) -> list[BrokenRule]:
    """What is to be said of the picture that `field` gave (REQ-13, REQ-15, REQ-17)."""
    if image.fault:
        rule = "REQ-17" if field == "init_image" else "REQ-4"
        return [BrokenRule(("body", field), rule, FORBIDDEN)]
    return [] if fits else [BrokenRule(("body", field), "REQ-13", FORBIDDEN)]


def _output(field: str, asked: object, image: ImageFacts, level: Level) -> Output:
    """The size that is asked for (REQ-16). No source says how a computed side is rounded."""
    width, height = image.width, image.height
    slack = 0 if level is Level.STRICT else 1
    if field == "scale":
        assert isinstance(asked, float), "the reading of a scale"
        # The decimal that was written, not the binary number next to it: 290 x 0.35 is 101.5.
        times, per = Decimal(repr(asked)).as_integer_ratio()
        return Output(_half_up(width * times, per), _half_up(height * times, per), slack, slack)
    assert isinstance(asked, int), "the reading of a side"
    if field == "output_image_height":
        return Output(_half_up(width * asked, height), asked, slack, 0)
    return Output(asked, _half_up(height * asked, width), 0, slack)


def _half_up(dividend: int, divisor: int) -> int:
    """Their quotient and a half, without its fraction, and at least 1."""
    return max(1, (2 * dividend + divisor) // (2 * divisor))


def _limits(field: str, size: Output) -> list[BrokenRule]:
    """What is to be said of an output of this size (REQ-14)."""
    if max(size.width - size.width_slack, size.height - size.height_slack) > MAX_OUTPUT_PX:
        return [BrokenRule(("body", field), "REQ-14", FORBIDDEN)]
    if max(size.width + size.width_slack, size.height + size.height_slack) > MAX_OUTPUT_PX:
        # Whether it is too large depends on the rounding, of which no source speaks.
        return [BrokenRule(("body", field), "REQ-16", OPTIONAL)]
    return []


def _statuses(findings: list[BrokenRule], level: Level) -> frozenset[int]:
    """What all findings allow. Those that leave only a refusal say with which status."""
    allowed = [_ALLOWED[level][found.support] for found in findings] or [frozenset({200})]
    refusing = [statuses for statuses in allowed if 200 not in statuses]
    return frozenset.intersection(*refusing) if refusing else frozenset.union(*allowed)


def _refusals(findings: list[BrokenRule], later: list[BrokenRule]) -> frozenset[frozenset[Loc]]:
    """The sets of places that a refusal may name (REQ-19).

    The errors of the fields go first, all together; any of what one implementation refuses and
    another takes may be among them. Of the picture and the output one thing is told at most.
    """
    certain = frozenset(found.loc for found in findings if found.support.refused)
    optional = {found.loc for found in findings if found.support is OPTIONAL} - certain
    counts = range(len(optional) + 1)
    some = chain.from_iterable(combinations(sorted(optional), count) for count in counts)
    told = {certain | frozenset(each) for each in some} | {frozenset({x.loc}) for x in later}
    return frozenset(told - {frozenset()})


def _encodings(parsed: Mapping[str, Parsed], level: Level, default: str) -> frozenset[str]:
    """The named one. If none is, the page and the schema disagree, and an implementation chose."""
    if "output_image_encoding" in parsed:
        named = parsed["output_image_encoding"]
        return frozenset() if named.support is INVALID else frozenset({str(named.value)})
    return frozenset(values.ENCODINGS if level is Level.DOCUMENTED else {default})


def _model(parsed: Mapping[str, Parsed]) -> str | None:
    """The named one or the default (REQ-8), or None if the name is none."""
    if "model" not in parsed:
        return values.MODELS[0]
    named = parsed["model"]
    return None if named.support is INVALID else str(named.value)
