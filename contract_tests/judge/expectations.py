"""The responses that the rules allow to any raw request: its method, path, headers and body.

At the level `strict` the stages come in the order in which errors are reported (REQ-19): path and
method, token, length of the body, content type, JSON, and then what `expect_fields` says about the
fields and the image, with what Accept allows in between. At `documented` any of several errors may
be the one that is reported, since that order is our own choice.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn

from contract_tests.failures import failure
from contract_tests.oracle import accept, values
from contract_tests.oracle.limits import MAX_ASYNC_BYTES, MAX_BODY_BYTES
from contract_tests.oracle.oracle import (
    IMAGE_FIELDS,
    REFUSALS,
    SIZE_FIELDS,
    Expectation,
    ImageFacts,
    Level,
    Loc,
    expect_fields,
)
from contract_tests.requests.images import COMMON_KINDS
from contract_tests.requests.recorded_image import RecordedImage
from contract_tests.requests.request import TOKEN_PLACEHOLDER, UPSCALING, Request

MAX_COMMAS: Final = 10_000
"""At the level `strict` a body with more is refused without reading its values (REQ-11)."""

KNOWN_HEADERS: Final = (
    *("authorization", "content-type", "accept", "x-octoai-async", "x-user-request-id"),
    "transfer-encoding",
)
"""The headers that have a meaning; all others are ignored (REQ-18)."""
SUCCESS: Final = frozenset(range(200, 300))
CLIENT_ERRORS: Final = frozenset(range(400, 429)) | frozenset(range(430, 500))
"""Every status that says that the client made a mistake; 429 does not."""
ELSEWHERE: Final = frozenset(range(200, 500)) | {501}
"""At the level `documented` the statuses of other paths and methods, of which no source speaks."""
BODY: Final[frozenset[frozenset[Loc]]] = frozenset({frozenset({("body",)})})
ANYWHERE: Final[frozenset[frozenset[Loc]]] = frozenset()
CONTENT_TYPE: Final[frozenset[frozenset[Loc]]] = frozenset(
    {frozenset({("header", "content-type")})}
)


@dataclass(frozen=True)
class Policy:
    """What an implementation is judged by."""

    level: Level
    default_encoding: str = values.ENCODINGS[0]
    """The encoding of an image if the request names none, at the level `strict` (REQ-9)."""

    skipped: frozenset[str] = frozenset()
    """The ids of rules that are not judged."""

    @property
    def strict(self) -> bool:
        return self.level is Level.STRICT

    def fail(self, rule: str, sentence: str) -> None:
        """Raise a Failure of `rule`, unless it is skipped."""
        if rule not in self.skipped:
            raise failure(rule, sentence)


@dataclass(frozen=True)
class ExpectedResponse:
    """The allowed responses to a request."""

    statuses: frozenset[int]
    rules: tuple[str, ...]
    """The rules that allow only these statuses; the first one is broken by any other."""
    refusals: frozenset[frozenset[Loc]] = ANYWHERE
    """A 422 names the locations of one of these sets, headers in lower case; empty: any will do."""
    media_type: str | None = accept.JSON
    """Of a 200; None if any will do."""
    image: Expectation | None = None
    """The image in a 200; None if there can be none."""
    asynchronous: bool = False
    if_refused: Mapping[str, str] = field(default_factory=dict)
    """By the name of a field, the rule that is broken if that is refused although it is valid."""

    @property
    def billable(self) -> bool:
        """Whether an image may be made, which costs money."""
        return self.image is not None and bool(SUCCESS & self.statuses)


def expect_response(request: Request, policy: Policy) -> ExpectedResponse:
    """The allowed responses to a request under this policy.

    Requests to a poll_url or a response_url are not covered: what they return depends on requests
    before them.
    """
    if request.path != UPSCALING or request.method != "POST":
        return _elsewhere(request, policy)
    expected = _by_stages(request, policy) if policy.strict else _by_sources(request, policy)
    return replace(expected, asynchronous=request.asynchronous)


def _elsewhere(request: Request, policy: Policy) -> ExpectedResponse:
    """Another path or method (REQ-1, RES-7, RES-9)."""
    if request.path == "/healthcheck" and request.method == "GET":
        return ExpectedResponse(frozenset({200}), ("RES-9",))
    known = request.path in (UPSCALING, "/healthcheck")
    if not policy.strict:
        return ExpectedResponse(ELSEWHERE, ("REQ-1",))
    return ExpectedResponse(frozenset({405 if known else 404}), ("REQ-1", "RES-7"))


def _by_stages(request: Request, policy: Policy) -> ExpectedResponse:
    """At the level `strict` the first stage at which there is an error decides (REQ-19)."""
    asynchronous = request.asynchronous and len(request.body) > MAX_ASYNC_BYTES
    if not has_token(request):
        return ExpectedResponse(frozenset({401}), ("REQ-2",))
    if asynchronous or len(request.body) > MAX_BODY_BYTES:
        return ExpectedResponse(frozenset({413}), ("ASY-4" if asynchronous else "RES-7",))
    if not _is_declared_json(request):
        return ExpectedResponse(frozenset({422}), ("REQ-3",), CONTENT_TYPE)
    if request.body.count(b",") > MAX_COMMAS:
        return ExpectedResponse(frozenset({422}), ("REQ-11",), BODY)
    if not _is_object(request):
        return ExpectedResponse(frozenset({422}), ("REQ-1",), BODY)
    return _upscaling(request, policy)


def _by_sources(request: Request, policy: Policy) -> ExpectedResponse:
    """At the level `documented` any error may be reported, in any order."""
    if not has_token(request):
        # The page requires a token, but names no status for the lack of it.
        return ExpectedResponse(CLIENT_ERRORS, ("REQ-2",))
    if _is_object(request):
        expected = _upscaling(request, policy)
    else:
        expected = ExpectedResponse(REFUSALS, ("REQ-1",))
    if request.asynchronous and len(request.body) > MAX_ASYNC_BYTES:
        return ExpectedResponse(expected.statuses - SUCCESS | {413}, ("ASY-4",))
    if len(request.body) > MAX_BODY_BYTES or not _is_declared_json(request):
        # No source has a limit for other bodies, or says what becomes of another type.
        return replace(expected, statuses=expected.statuses | REFUSALS)
    return expected


def has_token(request: Request) -> bool:
    """Whether it has the valid token. The scheme's case does not matter (RFC 9110, 11.1)."""
    scheme, _, credentials = (request.header("Authorization") or "").partition(" ")
    return scheme.lower() == "bearer" and credentials.strip() == TOKEN_PLACEHOLDER


def _is_declared_json(request: Request) -> bool:
    declared = (request.header("Content-Type") or "").partition(";")[0].strip().lower()
    return declared == accept.JSON


def _is_object(request: Request) -> bool:
    try:
        parse_fields(request)
    except ValueError:
        return False
    return True


def parse_fields(request: Request) -> dict[str, Any]:
    """The fields in a body; raises ValueError if it is not a JSON object (RFC 8259).

    An integer of more than 4300 digits raises it, too: neither Python nor pydantic reads it.
    """
    text = request.body.decode()
    if text.startswith("\ufeff"):
        raise ValueError("JSON has no byte order mark")
    try:
        fields = json.loads(text, parse_constant=_reject_constant)
        json.dumps(fields, ensure_ascii=False).encode()  # raises for half of a surrogate pair
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(fields, dict):
        raise ValueError("not an object")  # noqa: TRY004  like everything else that is not
    return fields


def _reject_constant(name: str) -> NoReturn:
    """Called by json for NaN, Infinity and -Infinity, which RFC 8259 does not have."""
    raise ValueError(f"JSON has no {name}")


def _upscaling(request: Request, policy: Policy) -> ExpectedResponse:
    """A request with fields: what the oracle says about them, and what Accept allows (RES-8)."""
    fields = parse_fields(request)
    facts = _image_facts(fields, request, policy)
    expectation = expect_fields(fields, facts, policy.level, policy.default_encoding)
    rules = tuple(dict.fromkeys(each.rule for each in expectation.broken))
    whatever_the_image = expect_fields(fields, None, policy.level)
    if 200 not in whatever_the_image.statuses:
        return ExpectedResponse(expectation.statuses, rules, expectation.refusals)
    encoding = max(expectation.encodings, default=values.ENCODINGS[0])
    media_type = accept.negotiate(request.header("Accept"), encoding)
    if policy.strict and media_type is None:
        # Accept is checked before the image is read, but an implementation without a face model
        # may refuse that field first.
        statuses = frozenset({422}) & whatever_the_image.statuses
        return ExpectedResponse(statuses | {406}, ("RES-8",), whatever_the_image.refusals)
    statuses = expectation.statuses
    if not policy.strict and request.header("Accept") not in (None, "*/*", accept.JSON):
        # The page only knows JSON: to any other Accept, that, the file or a 406 are right.
        media_type, statuses = None, statuses | {406}
    if not policy.strict and request.asynchronous and 200 in statuses:
        statuses |= SUCCESS
    return ExpectedResponse(
        statuses,
        rules or (_rule_if_refused(request, fields),),
        expectation.refusals,
        media_type,
        expectation,
        if_refused={
            name: _rule_if_field_refused(name, fields) for name in fields if name in values.FIELDS
        },
    )


def _image_facts(fields: dict[str, Any], request: Request, policy: Policy) -> ImageFacts | None:
    """What is known about the image: everything if we made it, nothing if it is behind a URL."""
    if fields.get("init_image") is None:
        return None
    image = request.image
    if image is None:
        return ImageFacts(fault="not an image")
    if isinstance(image, RecordedImage):
        return image.facts()
    # No source lists the formats that must be accepted.
    common = image.orientation == 1 and (image.format, image.mode) in COMMON_KINDS
    return image.facts() if policy.strict or common else None


def _rule_if_refused(request: Request, fields: dict[str, Any]) -> str:
    """The rule that is broken if a valid request is refused, and the error names no field."""
    for group, exclusion in ((IMAGE_FIELDS, "REQ-4"), (SIZE_FIELDS, "REQ-5")):
        if any(fields.get(name, ...) is None for name in group):
            return exclusion  # a null was taken for a second image or size
    if request.header("Content-Type") != accept.JSON:
        return "REQ-3"
    if request.header("Accept") not in (None, "*/*", accept.JSON):
        return "RES-8"
    if any(name.lower() not in KNOWN_HEADERS for name, _ in request.headers):
        return "REQ-18"
    return "ASY-1" if request.asynchronous else "RES-1"


def _rule_if_field_refused(name: str, fields: dict[str, Any]) -> str:
    """The rule that is broken if a valid field is refused."""
    parsed = values.FIELDS[name](fields[name])
    for group, exclusion, limits in (
        (IMAGE_FIELDS, "REQ-4", "REQ-13"),
        (SIZE_FIELDS, "REQ-5", "REQ-14"),
    ):
        # A null beside it was taken for a second image or size.
        if name in group and any(fields.get(other, ...) is None for other in group):
            return exclusion
        if name in group and parsed.support is values.ALLOWED:
            return limits
    return parsed.rule
