"""What may be answered to a request, from the rules alone and without asking anybody.

`judge` takes the fields of a request and what is known of its picture, and says which statuses an
answer may have, where a refusal has to point, and of which size, encoding and model the picture
may be. It knows the rules of `rules.py`, and no implementation of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from itertools import chain, combinations
from typing import Final, NamedTuple

from contract_tests.oracle import values
from contract_tests.oracle.values import BOUND, LAX, OPEN, RIGHT, UNFIT, WRONG, Reading, Standing


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
class Facts:
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


class Broken(NamedTuple):
    """A rule that the request breaks, or may break, and where that is told."""

    loc: Loc
    rule: str
    standing: Standing


@dataclass(frozen=True)
class Verdict:
    """What may be answered.

    `broken` is what leaves only a refusal at this level. `refusals` has sets of places, and a 422
    must name exactly those of one set; it is empty at the level `documented`, and where there is
    nothing to refuse. The others are of the picture that a 200 may bring: `size` is None where
    any will do, or none may come.
    """

    statuses: frozenset[int]
    broken: tuple[Broken, ...]
    refusals: frozenset[frozenset[Loc]]
    size: Output | None
    encodings: frozenset[str]
    model: str | None


_STRICT: Final = {
    RIGHT: frozenset({200}),
    LAX: frozenset({200}),
    OPEN: frozenset({200, 422}),
    BOUND: frozenset({422}),
    UNFIT: frozenset({422}),
    WRONG: frozenset({422}),
}
"""Our choices bind, and the status of every refusal is 422 (RES-4, REQ-15)."""
_DOCUMENTED: Final = {
    RIGHT: frozenset({200}),
    LAX: frozenset({200, 400, 422}),
    OPEN: frozenset({200, 400, 422}),
    BOUND: frozenset({200, 400, 422}),
    UNFIT: frozenset({400, 422}),
    WRONG: frozenset({422}),
}
"""Where our choice alone speaks, taking and refusing are both right. The schema has 422 for what
does not fit it; for what only the page forbids, no source names a status."""
_ALLOWED: Final = {Level.STRICT: _STRICT, Level.DOCUMENTED: _DOCUMENTED}


def judge(
    fields: Mapping[str, object],
    image: Facts | None,
    level: Level,
    default_encoding: str = values.ENCODINGS[0],
) -> Verdict:
    """What may be answered to these fields, as `json.loads` gives them.

    `image` tells of the picture in `init_image`, or of the one behind `init_image_url`; None if
    nothing is known of it, and then both a picture and a refusal are right. `default_encoding` is
    the implementation's own, where the sources disagree (REQ-9).
    """
    read = {name: values.FIELDS[name](fields[name]) for name in _given(fields)}
    findings = list(_fields(fields, read))
    size: Output | None = None
    later: list[Broken] = []
    if not any(found.standing.refused for found in findings):
        size, later = _picture_and_size(read, image, level)
    told = [*findings, *later]
    statuses = _statuses(told, level)
    return Verdict(
        statuses,
        tuple(each for each in told if 200 not in _ALLOWED[level][each.standing]),
        _refusals(findings, later) if level is Level.STRICT else frozenset(),
        size if 200 in statuses else None,
        _encodings(read, level, default_encoding),
        _model(read),
    )


def _given(fields: Mapping[str, object]) -> Iterator[str]:
    """The fields that there are and that have a value: null is none where the schema allows it."""
    for name, value in fields.items():
        absent = value is None and name in IMAGE_FIELDS + SIZE_FIELDS
        if name in values.FIELDS and not absent:
            yield name


def _fields(fields: Mapping[str, object], read: Mapping[str, Reading]) -> Iterator[Broken]:
    """What is to be said of the fields, each on its own and together (REQ-4 to REQ-12)."""
    if len(fields) > MAX_FIELDS:
        yield Broken(("body",), "REQ-11", WRONG)
        return
    for name in fields:
        if name not in values.FIELDS:
            yield Broken(("body", name[:MAX_NAME]), "REQ-11", WRONG)
    for name, reading in read.items():
        if reading.standing is not RIGHT:
            yield Broken(("body", name), reading.rule, reading.standing)
    for rule, group in (("REQ-4", IMAGE_FIELDS), ("REQ-5", SIZE_FIELDS)):
        given = [name for name in group if name in read]
        # No rule says where: we blame each but the first, and the first if there is none.
        blamed = given[1:] if given else group[:1]
        yield from (Broken(("body", name), rule, WRONG) for name in blamed)


def _picture_and_size(
    read: Mapping[str, Reading], image: Facts | None, level: Level
) -> tuple[Output | None, list[Broken]]:
    """The size of the output, if it is known, and what is to be said of the picture and of it."""
    (gave,) = (name for name in IMAGE_FIELDS if name in read)
    (asked,) = (name for name in SIZE_FIELDS if name in read)
    if image is None:
        unknown = [Broken(("body", gave), "REQ-13", OPEN), Broken(("body", asked), "REQ-14", OPEN)]
        return None, unknown
    fits = all(MIN_INPUT_PX <= side <= MAX_INPUT_PX for side in (image.width, image.height))
    broken = _picture(gave, image, fits=fits)
    if not fits:
        return None, broken
    # Whether a header is believed before all of the file was decoded, no rule says.
    size = _output(asked, read[asked].value, image, level)
    return size, [*broken, *_limits(asked, size)]


def _picture(field: str, image: Facts, *, fits: bool) -> list[Broken]:
    """What is to be said of the picture that `field` gave (REQ-13, REQ-15, REQ-17)."""
    if image.fault:
        rule = "REQ-17" if field == "init_image" else "REQ-4"
        return [Broken(("body", field), rule, UNFIT)]
    return [] if fits else [Broken(("body", field), "REQ-13", UNFIT)]


def _output(field: str, asked: object, image: Facts, level: Level) -> Output:
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


def _limits(field: str, size: Output) -> list[Broken]:
    """What is to be said of an output of this size (REQ-14)."""
    if max(size.width - size.width_slack, size.height - size.height_slack) > MAX_OUTPUT_PX:
        return [Broken(("body", field), "REQ-14", UNFIT)]
    if max(size.width + size.width_slack, size.height + size.height_slack) > MAX_OUTPUT_PX:
        # Whether it is too large depends on the rounding, of which no source speaks.
        return [Broken(("body", field), "REQ-16", OPEN)]
    return []


def _statuses(findings: list[Broken], level: Level) -> frozenset[int]:
    """What all findings allow. Those that leave only a refusal say with which status."""
    allowed = [_ALLOWED[level][found.standing] for found in findings] or [frozenset({200})]
    refusing = [statuses for statuses in allowed if 200 not in statuses]
    return frozenset.intersection(*refusing) if refusing else frozenset.union(*allowed)


def _refusals(findings: list[Broken], later: list[Broken]) -> frozenset[frozenset[Loc]]:
    """The sets of places that a refusal may name (REQ-19).

    The errors of the fields go first, all together; any of what one implementation refuses and
    another takes may be among them. Of the picture and the output one thing is told at most.
    """
    certain = frozenset(found.loc for found in findings if found.standing.refused)
    optional = {found.loc for found in findings if found.standing is OPEN} - certain
    counts = range(len(optional) + 1)
    some = chain.from_iterable(combinations(sorted(optional), count) for count in counts)
    told = {certain | frozenset(each) for each in some} | {frozenset({x.loc}) for x in later}
    return frozenset(told - {frozenset()})


def _encodings(read: Mapping[str, Reading], level: Level, default: str) -> frozenset[str]:
    """The named one. If none is, the page and the schema disagree, and an implementation chose."""
    if "output_image_encoding" in read:
        named = read["output_image_encoding"]
        return frozenset() if named.standing is WRONG else frozenset({str(named.value)})
    return frozenset(values.ENCODINGS if level is Level.DOCUMENTED else {default})


def _model(read: Mapping[str, Reading]) -> str | None:
    """The named one or the default (REQ-8), or None if the name is none."""
    if "model" not in read:
        return values.MODELS[0]
    named = read["model"]
    return None if named.standing is WRONG else str(named.value)
