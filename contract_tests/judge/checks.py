"""Whether a response is one of those that the rules allow; raises a Failure if it is not.

A policy skips rules, so `policy.fail` may return, and the code after it has to handle that.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from contract_tests.failures import Inconclusive
from contract_tests.judge import decoding, image_comparison, recorded_comparison
from contract_tests.judge.expectations import (
    CLIENT_ERRORS,
    SUCCESS,
    ExpectedResponse,
    Policy,
    has_token,
    parse_fields,
)
from contract_tests.oracle import accept
from contract_tests.oracle.oracle import REFUSALS, Loc, OutputSize
from contract_tests.oracle.values import ENCODINGS, FILES, MODELS
from contract_tests.requests.recorded_image import RecordedImage
from contract_tests.requests.request import Request
from contract_tests.target.response import Response, encoding_of

BASE64: Final = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
REQUEST_ID: Final = "x-user-request-id"
MODEL: Final = "x-upscaler-model"
ORIENTATION: Final = 0x0112
"""The tag of EXIF that has viewers turn an image; 1 leaves it as it is."""
ECHO_CHARACTERS: Final = 8
"""A shorter value may be part of a message by coincidence."""
ECHOED_BASE64: Final = 40
"""The length of an image's base64 that is searched for: no message has it by coincidence."""


def check_response(
    request: Request, response: Response, expected: ExpectedResponse, policy: Policy
) -> None:
    """Raise a Failure if `response` is not as expected, Inconclusive if that is undecidable."""
    if response.status not in expected.statuses:
        _fail_status(request, response, expected, policy)
        return
    if request.method == "HEAD":
        return  # such a response has no body (RFC 9110, 9.3.2)
    if policy.strict and response.media_type == accept.JSON:
        _check_json_text(response, policy)
    if response.status not in SUCCESS:
        _check_error(request, response, expected, policy)
    elif expected.asynchronous:
        _check_acceptance(response, policy)
    elif expected.image is not None:
        _check_image(request, response, expected, policy)
        # Last, as every response of a target may lack it, which would hide all other failures.
        if policy.strict and "accept" not in response.headers.get("vary", "").lower():
            policy.fail("RES-8", "the response depends on Accept, but has no Vary header naming it")


def check_request_id(request: Request, response: Response, policy: Policy) -> None:
    """Raise a Failure unless the response has the request's id, or one of its own (RES-6).

    At the level `documented` it needs none: OctoAI's clients read it only if it is there.
    """
    if not policy.strict:
        return
    received = response.headers.get(REQUEST_ID, "")
    sent = request.header(REQUEST_ID)
    if not received:
        policy.fail("RES-6", "the response has no X-User-Request-ID header")
    elif sent and received != sent:
        policy.fail("RES-6", f"the request's id was {sent}, and the response's is {received}")


# Statuses


def _fail_status(
    request: Request, response: Response, expected: ExpectedResponse, policy: Policy
) -> None:
    """Fail with the rule that is broken by another status than the expected ones."""
    wanted = _names_of_statuses(expected.statuses)
    if response.status >= 500:
        if SUCCESS & expected.statuses:
            raise Inconclusive(f"the target failed: {response.summary}")
        # Clients retry a 5xx, so it must not be the response to their own mistake.
        policy.fail("RES-5", f"a client error got status {response.status}, not {wanted}")
        return
    sentence = f"the status is {response.status}, not {wanted}"
    token_refused = response.status in (401, 403) and has_token(request)
    policy.fail("REQ-2" if token_refused else _rule_of_status(response, expected, policy), sentence)
    if token_refused or SUCCESS & expected.statuses:
        # The rule is skipped, and there is no image in which others could be checked.
        raise Inconclusive(f"{sentence}, by a rule that is not judged: {response.summary}")


def _names_of_statuses(statuses: frozenset[int]) -> str:
    """Such as "401 or 403", or "any 4xx" for a whole class but for what is about no request."""
    names: list[str] = []
    redirects = frozenset(range(300, 400))
    classes = (
        *((SUCCESS, "any 2xx"), (redirects, "any 3xx")),
        *((CLIENT_ERRORS, "any 4xx"), (REFUSALS, "any 4xx")),
    )
    for allowed, name in classes:
        if allowed <= statuses:
            statuses, names = statuses - allowed, [*names, name]
    return " or ".join((*map(str, sorted(statuses)), *names))


def _rule_of_status(response: Response, expected: ExpectedResponse, policy: Policy) -> str:
    """The rule that a wrong status breaks."""
    if not SUCCESS & expected.statuses:
        return _rule_of_refusal(response, expected, policy)
    # A valid request was refused: the error names the field that was misjudged.
    try:
        named = [str(error["loc"][-1]) for error in response.json["detail"]]
    except (ValueError, TypeError, KeyError, IndexError):
        return expected.rules[0]
    rules = [expected.if_refused[name] for name in named if name in expected.if_refused]
    return (rules or list(expected.rules))[0]


def _rule_of_refusal(response: Response, expected: ExpectedResponse, policy: Policy) -> str:
    """The rule that is broken where an invalid request was accepted, or got another status."""
    rules = expected.rules
    if expected.asynchronous and response.status in SUCCESS and rules[0] != "ASY-4":
        return "ASY-1"  # errors are reported in the first response, not at the poll_url
    if response.status in CLIENT_ERRORS:
        if expected.statuses == {422} and rules[0] != "REQ-3":
            return "RES-4"
        # It is refused as REQ-1 demands; the status is the matter of the later rule, RES-7.
        rules = rules[::-1]
    return next((rule for rule in rules if rule not in policy.skipped), rules[0])


# Errors


def _check_error(
    request: Request, response: Response, expected: ExpectedResponse, policy: Policy
) -> None:
    """The shape of an error, and the locations that a 422 names (RES-4, RES-7)."""
    if response.status == 401 and policy.strict:
        # RFC 9110, 15.5.2: a 401 has a challenge.
        challenge = response.headers.get("www-authenticate", "")
        if not challenge.lower().startswith("bearer"):
            policy.fail("REQ-2", "a 401 has no WWW-Authenticate: Bearer header")
    if response.status == 422:
        _check_422(request, response, expected, policy)
    elif policy.strict:
        detail = _detail(response, "RES-7", policy)
        if not (isinstance(detail, str) and detail.strip()):
            policy.fail("RES-7", f"detail is {_short(detail)}, not a sentence")


def _detail(response: Response, rule: str, policy: Policy) -> Any:  # noqa: ANN401  whatever came
    if response.media_type != accept.JSON:
        policy.fail(rule, f"an error is {response.media_type or 'of no type'}, not JSON")
    try:
        return response.json["detail"]
    except (ValueError, TypeError, KeyError):
        policy.fail(rule, "the body of an error is not an object with a detail")
        return None


def _check_422(
    request: Request, response: Response, expected: ExpectedResponse, policy: Policy
) -> None:
    """The errors of a 422: the shape that the schema gives them, and at `strict` their locations.

    Of several wrong shapes the first is reported.
    """
    if policy.strict:
        detail = _detail(response, "RES-4", policy)
    else:  # the schema requires no detail
        detail = read_json_object(response, "RES-4", policy).get("detail", [])
    if not isinstance(detail, list) or (policy.strict and not detail):
        policy.fail("RES-4", f"detail of a 422 is {_short(detail)}, not a list of errors")
        return
    # Only what has a query can be wrong there (EXT-3).
    roots = ("body", "header", *(["query"] if "?" in request.path else []))
    problems = [each for error in detail for each in _shape_problems(error, roots, policy)]
    if problems:
        policy.fail("RES-4", problems[0])
    elif policy.strict:
        locations = frozenset(_location(error["loc"]) for error in detail)
        if expected.refusals and locations not in expected.refusals:
            wanted = " or ".join(sorted(map(_names, expected.refusals)))
            sentence = f"the errors are located at {_names(locations)}, not {wanted}"
            policy.fail(_rule_of_locations(locations, expected), sentence)
        _check_no_echo(request, response, policy)


def _shape_problems(error: object, roots: Sequence[str], policy: Policy) -> Iterator[str]:
    """What is wrong with an error by the schema, which does not say that a loc has a root."""
    fields = error if isinstance(error, dict) else {}
    loc = fields.get("loc")
    if not isinstance(loc, list) or not all(type(part) in (str, int) for part in loc):
        yield f"an error's {_member(fields, 'loc')}, not a list of names"
    elif policy.strict and (not loc or loc[0] not in roots):
        yield f"an error's loc does not begin with {' or '.join(roots)}: {_short(loc)}"
    for name in ("msg", "type"):
        text = fields.get(name)
        if not isinstance(text, str) or (policy.strict and not text):
            yield f"an error's {_member(fields, name)}, not a string"


def _rule_of_locations(locations: frozenset[Loc], expected: ExpectedResponse) -> str:
    """The rule that is broken by errors at these locations."""
    if locations & frozenset().union(*expected.refusals):
        return "REQ-19"  # some of the right ones, but not all of them at once
    # REQ-15 says where errors of the image and its size are located, RES-4 all others.
    at_the_limits = any(rule in ("REQ-13", "REQ-14") for rule in expected.rules)
    return "REQ-15" if at_the_limits else "RES-4"


def _location(loc: list[str | int]) -> Loc:
    """A location as the oracle writes it: names of headers are in lower case (RFC 9110, 5.1)."""
    parts = tuple(map(str, loc))
    return tuple(part.lower() for part in parts) if parts[0] == "header" else parts


def _names(locations: frozenset[Loc]) -> str:
    return " and ".join(sorted(".".join(map(_part, location)) for location in locations))


def _part(name: str) -> str:
    """A part of a location, in quotes where it would not be seen."""
    return name if name.strip() else json.dumps(name)


def _check_no_echo(request: Request, response: Response, policy: Policy) -> None:
    """No value of the request is repeated in the response (RES-4)."""
    try:
        fields = parse_fields(request)
    except ValueError:
        return
    text = json.dumps(response.json, ensure_ascii=False)
    names = " ".join(fields)  # these may be repeated
    for name, value in fields.items():
        for marker in _markers(value):
            if marker in text and marker not in names:
                policy.fail("RES-4", f"the value of {name} is repeated: {_short(marker)}")


def _markers(value: object) -> list[str]:
    """Texts by which a value would be recognised; none if a message may have it by coincidence."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [marker for each in inner for marker in _markers(each)]
    if isinstance(value, bool) or value is None:
        return []
    text = value[:ECHOED_BASE64] if isinstance(value, str) else repr(value)
    # A message may list the names that a field takes.
    allowed = any(text.strip() in name for name in (*MODELS, *ENCODINGS))
    return [] if allowed or len(text.strip()) < ECHO_CHARACTERS else [text]


def _check_json_text(response: Response, policy: Policy) -> None:
    """The text is as every parser reads it (RFC 8259, 4 and 8.1), which is our choice."""
    rule = "RES-1" if response.status in SUCCESS else "RES-4" if response.status == 422 else "RES-7"
    if response.body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        policy.fail(rule, "the JSON begins with a byte order mark, which many parsers refuse")
    names = response.repeated_names
    if names:
        policy.fail(rule, f"the JSON has several values of {', '.join(names)}")


# Images


def _check_acceptance(response: Response, policy: Policy) -> None:
    """The response to an asynchronous request says where the result will be (ASY-1)."""
    accepted = read_json_object(response, "ASY-1", policy)
    for name in ("response_id", "poll_url"):
        if not (isinstance(accepted.get(name), str) and accepted[name]):
            policy.fail("ASY-1", f"{_member(accepted, name)}, not a string")


def _check_image(
    request: Request, response: Response, expected: ExpectedResponse, policy: Policy
) -> None:
    """The image is as requested: its media type, model, encoding, size and content."""
    wanted = expected.image
    assert wanted is not None, "only called where an image may come"
    if expected.media_type is not None and response.media_type != expected.media_type:
        rule = "RES-1" if request.header("Accept") is None else "RES-8"
        received = response.media_type or "of no type"
        policy.fail(rule, f"the response is {received}, not {expected.media_type}")
    model = response.headers.get(MODEL)
    if policy.strict and model is not None and model != wanted.model:
        policy.fail("REQ-8", f"the model was {model}, not {wanted.model}")
    kinds = FILES.items()
    declared = next((name for name, kind in kinds if kind == response.media_type), "")
    file = response.body if declared else _file_in_json(response, policy)
    if file is None:
        return
    encoding = encoding_of(file)
    if encoding not in ({declared} if declared else wanted.encodings):
        right = declared or " or ".join(sorted(wanted.encodings))
        sentence = f"the image is {encoding}, not {right}"
        if not encoding:
            sentence = f"the image is neither PNG nor JPEG, and should be {right}"
        policy.fail("RES-8" if declared else "REQ-9", sentence)
    if encoding:
        _check_content(request, file, encoding, wanted.size, policy)


def _file_in_json(response: Response, policy: Policy) -> bytes | None:
    """The file in a JSON response (RES-1, RES-2), or None if it has none and that is skipped."""
    fields = read_json_object(response, "RES-1", policy)
    # The schema requires both, and does not forbid others.
    required = {"image_b64", "removed_for_safety"}
    if required - set(fields) or (policy.strict and set(fields) - required):
        sentence = f"the response has {', '.join(sorted(fields)) or 'no fields'}"
        policy.fail("RES-1", f"{sentence}, not image_b64 and removed_for_safety")
    removed, text = fields.get("removed_for_safety"), fields.get("image_b64")
    if not isinstance(removed, bool):
        policy.fail("RES-1", f"{_member(fields, 'removed_for_safety')}, not true or false")
    if removed is True:
        if text is not None:
            policy.fail("RES-3", "removed_for_safety is true, but there is an image")
        raise Inconclusive("the target removed a harmless image for safety")
    if not isinstance(text, str):
        policy.fail("RES-1", f"{_member(fields, 'image_b64')}, but nothing was removed")
        return None
    data = text.encode(errors="replace")
    if not data or len(data) % 4 or not BASE64.fullmatch(data):
        policy.fail("RES-2", "image_b64 is not standard base64 on one line")
        return None
    return response.image_file


def _check_content(
    request: Request, file: bytes, encoding: str, size: OutputSize | None, policy: Policy
) -> None:
    """The file decodes, has the expected size, and shows what was sent."""
    try:
        image = decoding.decode_image(file, encoding)
    except ValueError as error:
        policy.fail("RES-2", str(error))
        return
    turn = image.getexif().get(ORIENTATION, 1)
    if turn != 1:
        # The pixels are as requested, and every viewer would turn them once more.
        policy.fail("RES-2", f"the {encoding} has the EXIF orientation {turn}")
    if size is None:
        return
    if not size.allows(image.width, image.height):
        wanted = f"{size.width}x{size.height}"
        policy.fail("REQ-16", f"the image has {image.width}x{image.height} pixels, not {wanted}")
    elif isinstance(request.image, RecordedImage):
        sent = request.image.pixels()
        difference = recorded_comparison.difference(sent, image) if sent else ""
        if difference:
            policy.fail("RES-2", difference)
    elif request.image is not None:
        # No source says what becomes of transparency in a JPEG: white is our choice.
        difference = image_comparison.compare_images(
            request.image, image, "white" if policy.strict else None
        )
        if difference:
            policy.fail("RES-2", difference)


def read_json_object(response: Response, rule: str, policy: Policy) -> dict[str, Any]:
    """The object in a JSON response; fails with `rule`, or is empty if that is skipped."""
    if response.media_type != accept.JSON:
        policy.fail(rule, f"the response is {response.media_type or 'of no type'}, not JSON")
    try:
        parsed = response.json
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        return parsed
    policy.fail(rule, "the response is not a JSON object")
    return {}


def _member(fields: Mapping[str, Any], name: str) -> str:
    """What a member of an object is, or that there is none."""
    return f"{name} is {_short(fields[name]) if name in fields else 'missing'}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
