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
from contract_tests.oracle.limits import (
    MAX_FIELDS,
    MAX_INPUT_PX,
    MAX_NAME,
    MAX_OUTPUT_PX,
    MIN_INPUT_PX,
)
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
    """How much is required of an implementation."""

    DOCUMENTED = "only what a source supports, as for the real API"
    STRICT = "our choices, too, as for the mock and our deployments"


Loc = tuple[str, ...]
"""Where an error is: `("body", "scale")`, or `("body",)` for all of it (RES-4)."""

IMAGE_FIELDS: Final = ("init_image", "init_image_url")
SIZE_FIELDS: Final = ("scale", "output_image_height", "output_image_width")


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an input image: its size in pixels, and what is wrong with the file.

    A damaged file has a size if its header still has one; otherwise both are 0.
    """

    width: int = 0
    height: int = 0
    fault: str = ""


class OutputSize(NamedTuple):
    """The size of the output in pixels, and by how many pixels each side may differ."""

    width: int
    height: int
    width_slack: int = 0
    height_slack: int = 0

    def allows(self, width: int, height: int) -> bool:
        """Whether an image may have this size: never a side of 0, or one beyond REQ-14."""
        if not (1 <= width <= MAX_OUTPUT_PX and 1 <= height <= MAX_OUTPUT_PX):
            return False
        return (
            abs(width - self.width) <= self.width_slack
            and abs(height - self.height) <= self.height_slack
        )


class BrokenRule(NamedTuple):
    """A rule that the request breaks, or may break, and where the error is."""

    loc: Loc
    rule: str
    support: Support


@dataclass(frozen=True)
class Expectation:
    """The allowed responses to some fields."""

    statuses: frozenset[int]
    broken: tuple[BrokenRule, ...]
    """What allows only a refusal at this level."""
    refusals: frozenset[frozenset[Loc]]
    """A 422 must name exactly the locations of one of these sets. Empty at the level `documented`,
    and where nothing is to be refused."""
    size: OutputSize | None
    """None if any size will do, or there can be no image."""
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
REFUSALS: Final = frozenset(range(400, 500)) - {401, 403, 429}
"""The statuses of a refusal, where no source names one. The others say that the token is not valid,
and that there were too many requests."""
_DOCUMENTED: Final = {
    ALLOWED: frozenset({200}),
    TOLERATED: frozenset({200}) | REFUSALS,
    OPTIONAL: frozenset({200}) | REFUSALS,
    DISALLOWED: frozenset({200}) | REFUSALS,
    FORBIDDEN: REFUSALS,
    INVALID: frozenset({422}),
}
"""Where only our choice speaks, accepting and refusing are both right. The schema has a 422 for
what it does not allow; for what only the page forbids, no source names a status."""
_STATUSES: Final = {Level.STRICT: _STRICT, Level.DOCUMENTED: _DOCUMENTED}


def expect_fields(
    fields: Mapping[str, object],
    image: ImageFacts | None,
    level: Level,
    default_encoding: str = values.ENCODINGS[0],
) -> Expectation:
    """The allowed responses to these fields, as `json.loads` returns them.

    `image` is the one in `init_image` or behind `init_image_url`; with None nothing is known of
    it, and then both an image and a refusal are right. `default_encoding` is the implementation's
    own, since the sources disagree (REQ-9).
    """
    parsed = {name: values.FIELDS[name](fields[name]) for name in _present(fields)}
    field_errors = list(_check_fields(fields, parsed))
    size, image_errors = _check_image_and_size(parsed, image, level)
    statuses_of = _STATUSES[level]
    statuses = frozenset({200}).union(*(statuses_of[each.support] for each in field_errors))
    refused = any(error.support.refused for error in field_errors)
    # At `strict` the errors of the fields come first (REQ-19). No source has such an order, so at
    # `documented` any error may decide on the status.
    if not refused or level is Level.DOCUMENTED:
        statuses = statuses.union(*(statuses_of[each.support] for each in image_errors))
    if refused:
        size, image_errors = None, []
    errors = [*field_errors, *image_errors]
    broken = tuple(error for error in errors if 200 not in statuses_of[error.support])
    statuses -= {200} if broken else set()
    return Expectation(
        statuses,
        broken,
        _refusals(field_errors, image_errors) if level is Level.STRICT else frozenset(),
        size if 200 in statuses else None,
        _encodings(parsed, level, default_encoding),
        _model(parsed),
    )


def _present(fields: Mapping[str, object]) -> Iterator[str]:
    """The known fields with a value: where the schema allows null, that means absent."""
    for name, value in fields.items():
        absent = value is None and name in IMAGE_FIELDS + SIZE_FIELDS
        if name in values.FIELDS and not absent:
            yield name


def _check_fields(
    fields: Mapping[str, object], parsed: Mapping[str, Parsed]
) -> Iterator[BrokenRule]:
    """The fields, each on its own and together (REQ-4 to REQ-12)."""
    if len(fields) > MAX_FIELDS:
        yield BrokenRule(("body",), "REQ-11", INVALID)
        return
    for name in fields:
        if name not in values.FIELDS:
            yield BrokenRule(("body", name[:MAX_NAME]), "REQ-11", INVALID)
    # No source says whether an empty text beside another image is one, or is absent.
    unclear = all(name in parsed for name in IMAGE_FIELDS) and any(
        fields[name] == "" for name in IMAGE_FIELDS
    )
    for name, value in parsed.items():
        if value.support is not ALLOWED:
            empty = unclear and fields[name] == ""
            yield BrokenRule(("body", name), value.rule, DISALLOWED if empty else value.support)
    for rule, group in (("REQ-4", IMAGE_FIELDS), ("REQ-5", SIZE_FIELDS)):
        given = [name for name in group if name in parsed]
        # No rule says where the error is: at each field but the first, or the first if all lack.
        located = given[1:] if given else group[:1]
        # The page has exactly one of each. The schema requires none, so that it has no 422 either.
        support = DISALLOWED if unclear and group is IMAGE_FIELDS else FORBIDDEN
        yield from (BrokenRule(("body", name), rule, support) for name in located)


def _check_image_and_size(
    parsed: Mapping[str, Parsed], image: ImageFacts | None, level: Level
) -> tuple[OutputSize | None, list[BrokenRule]]:
    """The size of the output if it is known, and the errors of the image and that size.

    There are none if the fields have no valid image, no size, or several.
    """
    images = [name for name in IMAGE_FIELDS if name in parsed]
    asked = [name for name in SIZE_FIELDS if name in parsed]
    if len(images) != 1 or parsed[images[0]].value is None or len(asked) != 1:
        return None, []
    (image_field,), (size_field,) = images, asked
    image_loc, size_loc = ("body", image_field), ("body", size_field)
    if image is None:
        unknown = [
            BrokenRule(image_loc, "REQ-13", OPTIONAL),
            BrokenRule(size_loc, "REQ-14", OPTIONAL),
        ]
        return None, unknown
    errors = []
    in_range = all(MIN_INPUT_PX <= side <= MAX_INPUT_PX for side in (image.width, image.height))
    if image.fault:
        # What is behind a URL is the matter of REQ-4, what base64 encodes of REQ-17. Many decoders
        # make an image of a file that is cut off, which no source forbids.
        rule = "REQ-17" if image_field == "init_image" else "REQ-4"
        errors.append(BrokenRule(image_loc, rule, DISALLOWED if in_range else FORBIDDEN))
    elif not in_range:
        errors.append(BrokenRule(image_loc, "REQ-13", FORBIDDEN))
    if not in_range or parsed[size_field].value is None:
        return None, errors
    # No rule says whether a header is believed before the whole file was decoded: of a damaged
    # file in range, the size of the output may be the error, too.
    size = _output_size(size_field, parsed[size_field].value, image, level)
    if size.width < image.width or size.height < image.height:
        errors.append(BrokenRule(size_loc, parsed[size_field].rule, TOLERATED))
    if max(size.width - size.width_slack, size.height - size.height_slack) > MAX_OUTPUT_PX:
        errors.append(BrokenRule(size_loc, "REQ-14", FORBIDDEN))
    elif max(size.width + size.width_slack, size.height + size.height_slack) > MAX_OUTPUT_PX:
        # It depends on the rounding, on which no source speaks.
        errors.append(BrokenRule(size_loc, "REQ-16", OPTIONAL))
    return size, errors


def _output_size(field: str, value: object, image: ImageFacts, level: Level) -> OutputSize:
    """The requested size (REQ-16). No source says how a computed side is rounded.

    Where that has no fraction nothing is rounded, and any other size is wrong at each level.
    """
    width, height = image.width, image.height
    strict = level is Level.STRICT

    def slack(dividend: int, divisor: int) -> int:
        return 0 if strict or dividend % divisor == 0 else 1

    if field == "scale":
        assert isinstance(value, float), "parsed as a scale"
        # The decimal that was written, not the binary number next to it: 290 x 0.35 is 101.5.
        dividend, divisor = Decimal(repr(value)).as_integer_ratio()
        return OutputSize(
            _round_half_up(width * dividend, divisor),
            _round_half_up(height * dividend, divisor),
            slack(width * dividend, divisor),
            slack(height * dividend, divisor),
        )
    assert isinstance(value, int), "parsed as a side"
    if field == "output_image_height":
        computed = width * value, height
        return OutputSize(_round_half_up(*computed), value, slack(*computed), 0)
    computed = height * value, width
    return OutputSize(value, _round_half_up(*computed), 0, slack(*computed))


def _round_half_up(dividend: int, divisor: int) -> int:
    """The rounded quotient, at least 1; in integers, so that it is exact."""
    return max(1, (2 * dividend + divisor) // (2 * divisor))


def _refusals(
    field_errors: list[BrokenRule], image_errors: list[BrokenRule]
) -> frozenset[frozenset[Loc]]:
    """The sets of locations that a refusal may name (REQ-19).

    The errors of the fields come first, all together; any of those that an implementation may
    accept can be among them. Of the image and the output only one error is reported.
    """
    certain = frozenset(error.loc for error in field_errors if error.support.refused)
    optional = {error.loc for error in field_errors if error.support is OPTIONAL} - certain
    counts = range(len(optional) + 1)
    some = chain.from_iterable(combinations(sorted(optional), count) for count in counts)
    refusals = {certain | frozenset(each) for each in some}
    refusals |= {frozenset({each.loc}) for each in image_errors if each.support is not TOLERATED}
    return frozenset(refusals - {frozenset()})


def _encodings(parsed: Mapping[str, Parsed], level: Level, default: str) -> frozenset[str]:
    """The named encoding. If none is, the page and the schema disagree (REQ-9)."""
    if "output_image_encoding" in parsed:
        named = parsed["output_image_encoding"]
        return frozenset() if named.support is INVALID else frozenset({str(named.value)})
    return frozenset(values.ENCODINGS if level is Level.DOCUMENTED else {default})


def _model(parsed: Mapping[str, Parsed]) -> str | None:
    """The named model or the default (REQ-8), or None if there is none of that name."""
    if "model" not in parsed:
        return values.MODELS[0]
    named = parsed["model"]
    return None if named.support is INVALID else str(named.value)
