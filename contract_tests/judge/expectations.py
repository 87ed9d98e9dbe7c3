"""What may be answered to any raw request: its method, path, headers and body, to the byte.

The stages come in the order in which errors are told (REQ-19): path and method, token, size of the
body, content type, JSON, and then what `oracle.judge` says of the fields and the picture, with what
is accepted in between.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn

from contract_tests.failures import failure
from contract_tests.oracle import accept, values
from contract_tests.oracle.oracle import (
    IMAGE_FIELDS,
    SIZE_FIELDS,
    Expectation,
    ImageFacts,
    Level,
    Loc,
    expect_fields,
)
from contract_tests.requests.images import COMMON_KINDS, SampleImage
from contract_tests.requests.request import TOKEN_PLACEHOLDER, UPSCALING, Request

MAX_BODY_BYTES: Final = 32 * 2**20
"""The most bytes of a body at the level `strict` (RES-7)."""
MAX_ASYNC_BYTES: Final = 10 * 2**20
"""The most bytes of an asynchronous body: 10 MB, in the larger sense of the word (ASY-4)."""
MAX_COMMAS: Final = 10_000
"""Of a body with more, the level `strict` wants none of the values read (REQ-11)."""

KNOWN_HEADERS: Final = (
    *("authorization", "content-type", "accept", "x-octoai-async", "x-user-request-id"),
)
"""The headers that mean something; all others are ignored (REQ-18)."""
SUCCESS: Final = frozenset(range(200, 300))
CLIENTS_FAULT: Final = frozenset(range(400, 429)) | frozenset(range(430, 500))
"""Every status by which a client is told that it did something wrong. 429 says that it did not."""
BODY: Final[frozenset[frozenset[Loc]]] = frozenset({frozenset({("body",)})})
NOWHERE: Final[frozenset[frozenset[Loc]]] = frozenset()
CONTENT_TYPE: Final[frozenset[frozenset[Loc]]] = frozenset(
    {frozenset({("header", "content-type")})}
)


@dataclass(frozen=True)
class Policy:
    """By what an implementation is judged."""

    level: Level
    default_encoding: str = values.ENCODINGS[0]
    """What a picture is encoded in, at the level `strict`, if the request does not say (REQ-9)."""

    skipped: frozenset[str] = frozenset()
    """The rules that nothing is said about, by their ids."""

    @property
    def strict(self) -> bool:
        return self.level is Level.STRICT

    def fail(self, rule: str, sentence: str) -> None:
        """Raise a Failure of `rule`, unless nothing is said about it."""
        if rule not in self.skipped:
            raise failure(rule, sentence)


@dataclass(frozen=True)
class ExpectedResponse:
    """What may be answered.

    `rules` are those that leave only these statuses, the first being the one to name if there is
    another. A 422 names the places of one of the sets in `refusals`, if there are any; headers are
    in lower case there. `media_type` is a 200's, or None if any will do, and `image` tells of the
    picture in it; it is None where none can come.
    """

    statuses: frozenset[int]
    rules: tuple[str, ...]
    refusals: frozenset[frozenset[Loc]] = frozenset()
    media_type: str | None = accept.JSON
    image: Expectation | None = None
    asynchronous: bool = False
    if_refused: Mapping[str, str] = field(default_factory=dict)
    """By the name of a field, the rule to name if it is refused although it is right."""

    @property
    def billable(self) -> bool:
        """Whether a picture may be made, which costs money."""
        return self.image is not None and bool(SUCCESS & self.statuses)


def expect_response(request: Request, policy: Policy) -> ExpectedResponse:
    """What may be answered to a request at these terms.

    The requests for a poll_url or a response_url are not among them: whether there is anything is
    known only to who asked for it.
    """
    if request.path != UPSCALING or request.method != "POST":
        return _elsewhere(request, policy)
    expected = (
        _without_token(request, policy)
        or _too_large(request, policy)
        or _not_json(request, policy)
        or _upscaling(request, policy)
    )
    return replace(expected, asynchronous=request.asynchronous)


def _elsewhere(request: Request, policy: Policy) -> ExpectedResponse:
    """Of another path or method (REQ-1, RES-7, RES-9)."""
    if request.path == "/healthcheck" and request.method == "GET":
        return ExpectedResponse(frozenset({200}), ("RES-9",))
    known = request.path in (UPSCALING, "/healthcheck")
    if not policy.strict:
        return ExpectedResponse(CLIENTS_FAULT, ("REQ-1",))
    return ExpectedResponse(frozenset({405 if known else 404}), ("REQ-1", "RES-7"))


def _without_token(request: Request, policy: Policy) -> ExpectedResponse | None:
    """Of one that has no valid token (REQ-2)."""
    scheme, _, credentials = (request.header("Authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip() == TOKEN_PLACEHOLDER:
        return None
    return ExpectedResponse(frozenset({401} if policy.strict else {401, 403}), ("REQ-2",))


def _too_large(request: Request, policy: Policy) -> ExpectedResponse | None:
    """Of one with too long a body (ASY-4, RES-7)."""
    if request.asynchronous and len(request.body) > MAX_ASYNC_BYTES:
        return ExpectedResponse(frozenset({413}), ("ASY-4",))
    if len(request.body) <= MAX_BODY_BYTES:
        return None
    return ExpectedResponse(
        frozenset({413}) if policy.strict else SUCCESS | CLIENTS_FAULT, ("RES-7",)
    )


def _not_json(request: Request, policy: Policy) -> ExpectedResponse | None:
    """Of one that is not declared to be a JSON object, or is none (REQ-3, REQ-1)."""
    declared = (request.header("Content-Type") or "").partition(";")[0].strip().lower()
    if declared != accept.JSON:
        statuses = {422} if policy.strict else {400, 415, 422}
        return ExpectedResponse(
            frozenset(statuses), ("REQ-3",), CONTENT_TYPE if policy.strict else NOWHERE
        )
    if policy.strict and request.body.count(b",") > MAX_COMMAS:
        return ExpectedResponse(frozenset({422}), ("REQ-11",), BODY)
    try:
        fields(request)
    except ValueError:
        statuses = {422} if policy.strict else {400, 422}
        return ExpectedResponse(frozenset(statuses), ("REQ-1",), BODY if policy.strict else NOWHERE)
    return None


def fields(request: Request) -> dict[str, Any]:
    """The fields in a body; raises ValueError if it is no JSON object (RFC 8259).

    Nor is it one with an integer of more than 4300 digits, to Python as to pydantic.
    """
    text = request.body.decode()
    if text.startswith("\ufeff"):
        raise ValueError("JSON has no byte order mark")
    try:
        read = json.loads(text, parse_constant=_no_number)
        json.dumps(read, ensure_ascii=False).encode()  # raises for half of a surrogate pair
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(read, dict):
        raise ValueError("no object")  # noqa: TRY004  as for all else that is none
    return read


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


def _upscaling(request: Request, policy: Policy) -> ExpectedResponse:
    """Of one that has fields: what the oracle says, and what it accepts (RES-8)."""
    given = fields(request)
    known = _known(given, request, policy)
    expectation = expect_fields(given, known, policy.level, policy.default_encoding)
    rules = tuple(dict.fromkeys(each.rule for each in expectation.broken))
    anyhow = expect_fields(given, None, policy.level)
    if 200 not in anyhow.statuses:
        return ExpectedResponse(expectation.statuses, rules, expectation.refusals)
    asked = max(expectation.encodings, default=values.ENCODINGS[0])
    media_type = accept.chosen(request.header("Accept"), asked)
    if policy.strict and media_type is None:
        told = frozenset({422}) & anyhow.statuses
        return ExpectedResponse(told | {406}, ("RES-8",), anyhow.refusals)
    statuses = expectation.statuses
    if not policy.strict and request.header("Accept") not in (None, "*/*", accept.JSON):
        # The page speaks of JSON alone. Who accepts anything else may get that, JSON, or nothing.
        media_type, statuses = None, statuses | {406}
    if not policy.strict and request.asynchronous and 200 in statuses:
        statuses |= SUCCESS
    return ExpectedResponse(
        statuses,
        rules or (_at_stake(request),),
        expectation.refusals,
        media_type,
        expectation,
        if_refused=_rules_of(given),
    )


def _known(given: dict[str, Any], request: Request, policy: Policy) -> ImageFacts | None:
    """What is known of the picture: nothing of one behind a URL, and all of what we have made."""
    if given.get("init_image") is None:
        return None
    if request.image is None:
        return ImageFacts(fault="no picture")
    return request.image.facts() if policy.strict or _common(request.image) else None


def _common(image: SampleImage) -> bool:
    """Whether every implementation must know such a file; no source has a list of formats."""
    return image.orientation == 1 and (image.format, image.mode) in COMMON_KINDS


def _at_stake(request: Request) -> str:
    """The rule to name if a right request is refused, and no field is blamed."""
    if request.header("Content-Type") != accept.JSON:
        return "REQ-3"
    if any(name.lower() not in KNOWN_HEADERS for name, _ in request.headers):
        return "REQ-18"
    return "ASY-1" if request.asynchronous else "RES-1"


def _rules_of(given: dict[str, Any]) -> dict[str, str]:
    """The rule to name if a field is refused although it is right."""
    return {name: _rule_of(name, given) for name in given if name in values.FIELDS}


def _rule_of(name: str, given: dict[str, Any]) -> str:
    for rule, group, limits in (
        ("REQ-4", IMAGE_FIELDS, "REQ-13"),
        ("REQ-5", SIZE_FIELDS, "REQ-14"),
    ):
        if name in group and any(given.get(other, ...) is None for other in group):
            return rule
        if name in group and values.FIELDS[name](given[name]).support is values.ALLOWED:
            return limits
    return values.FIELDS[name](given[name]).rule
