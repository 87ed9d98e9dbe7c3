"""Whether an answer is one of those that may be given; raises a Failure if it is none."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from contract_tests.failures import Inconclusive
from contract_tests.judge import decoding, image_comparison
from contract_tests.judge.expectations import (
    CLIENTS_FAULT,
    SUCCESS,
    ExpectedResponse,
    Policy,
    fields,
)
from contract_tests.oracle import accept
from contract_tests.oracle.oracle import Loc, Output
from contract_tests.oracle.values import ENCODINGS, MODELS
from contract_tests.requests.request import AUTHORIZATION, Request
from contract_tests.target.response import Response, encoding_of

BASE64: Final = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
REQUEST_ID: Final = "x-user-request-id"
MODEL: Final = "x-upscaler-model"
ECHO_CHARACTERS: Final = 8
"""A shorter value may stand in a message by chance."""
ECHOED_BASE64: Final = 40
"""So many of a picture's first characters are looked for: no message has them by chance."""


def check(request: Request, response: Response, expected: ExpectedResponse, policy: Policy) -> None:
    """Raise a Failure if `response` is not as expected, Inconclusive if it says nothing."""
    if response.status not in expected.statuses:
        _tell_status(request, response, expected, policy)
    elif request.method == "HEAD":
        return
    elif response.status not in SUCCESS:
        check_refusal(request, response, expected, policy)
    elif expected.asynchronous:
        check_acceptance(response, policy)
    elif expected.image is not None:
        check_image(request, response, expected, policy)
        _check_vary(response, policy)


def _tell_status(
    request: Request, response: Response, expected: ExpectedResponse, policy: Policy
) -> None:
    """Say which rule is broken by another status than those that may be given (and RES-5)."""
    wanted = " or ".join(map(str, sorted(expected.statuses)[:4]))
    if response.status < 500:
        sentence = f"the status is {response.status}, and not {wanted}"
        refused = (
            response.status in (401, 403) and request.header("Authorization") == AUTHORIZATION[1]
        )
        policy.fail("REQ-2" if refused else _blamed(response, expected, policy), sentence)
        # There is nothing in which the other rules could be seen.
        if refused or SUCCESS & expected.statuses:
            raise Inconclusive(f"{sentence}, by a rule that is not judged: {response.shown}")
        return
    if SUCCESS & expected.statuses:
        raise Inconclusive(f"the target failed: {response.shown}")
    policy.fail("RES-5", f"a fault of the client's is answered {response.status}, and not {wanted}")


def _blamed(response: Response, expected: ExpectedResponse, policy: Policy) -> str:
    """The rule that a wrong status breaks: by the field that is refused although it is right."""
    if not SUCCESS & expected.statuses:
        return _rule_of_refusal(response, expected, policy)
    try:
        told = [str(each["loc"][-1]) for each in response.json["detail"]]
    except (ValueError, TypeError, KeyError, IndexError):
        return expected.rules[0]
    rules = [expected.if_refused[name] for name in told if name in expected.if_refused]
    return (rules or list(expected.rules))[0]


def _rule_of_refusal(response: Response, expected: ExpectedResponse, policy: Policy) -> str:
    """The rule that is broken where something should have been refused, or with another status.

    Of several the first that is judged.
    """
    if expected.asynchronous and response.status in SUCCESS:
        return "ASY-1"
    rules = expected.rules
    if response.status in CLIENTS_FAULT:
        if expected.statuses == {422} and rules[0] != "REQ-3":
            return "RES-4"
        rules = rules[::-1]  # it is refused, as REQ-1 has it, and not as RES-7 says
    return next((rule for rule in rules if rule not in policy.skipped), rules[0])


def check_id(request: Request, response: Response, policy: Policy) -> None:
    """Raise a Failure unless the answer has the request's id, or one of its own (RES-6).

    It says nothing of all else in the answer, which is to be judged as well.
    """
    told = response.headers.get(REQUEST_ID, "")
    own = request.header(REQUEST_ID)
    if not told:
        policy.fail("RES-6", "the answer has no header X-User-Request-ID")
    elif policy.strict and own and told != own:
        policy.fail("RES-6", f"the request's id was {own}, and the answer's is {told}")


# Errors


def check_refusal(
    request: Request, response: Response, expected: ExpectedResponse, policy: Policy
) -> None:
    """The shape of an error, and the places that a 422 tells (RES-4, RES-7)."""
    if response.status == 401 and policy.strict:
        challenge = response.headers.get("www-authenticate", "")
        if not challenge.lower().startswith("bearer"):
            policy.fail("REQ-2", "a 401 has the header WWW-Authenticate: Bearer")
    if response.status == 422:
        _check_list(request, response, expected, policy)
    elif policy.strict:
        detail = _detail(response, "RES-7", policy)
        if not (isinstance(detail, str) and detail.strip()):
            policy.fail("RES-7", f"detail is {_short(detail)}, and not a sentence")


def _detail(response: Response, rule: str, policy: Policy) -> Any:  # noqa: ANN401  whatever came
    """What stands in `detail`."""
    if response.media_type != accept.JSON:
        policy.fail(rule, f"an error is {response.media_type or 'of no type'}, and not JSON")
    try:
        return response.json["detail"]
    except (ValueError, TypeError, KeyError):
        policy.fail(rule, "the body of an error is no object with a detail")
        return None


def _check_list(
    request: Request, response: Response, expected: ExpectedResponse, policy: Policy
) -> None:
    """The errors of a 422: what the schema has of them, and at `strict` where they point."""
    detail = _detail(response, "RES-4", policy)
    if not isinstance(detail, list) or not detail:
        policy.fail("RES-4", f"detail of a 422 is {_short(detail)}, and not a list of errors")
        return
    faults = [fault for each in detail for fault in _faults(each)]
    if faults:
        policy.fail("RES-4", faults[0])
    elif policy.strict:
        told = frozenset(_place(each["loc"]) for each in detail)
        if expected.refusals and told not in expected.refusals:
            wanted = " or ".join(sorted(map(_names, expected.refusals)))
            sentence = f"what is blamed is {_names(told)}, and not {wanted}"
            policy.fail(_rule_of_places(told, expected), sentence)
        _check_nothing_repeated(request, response, policy)


def _faults(error: object) -> Iterator[str]:
    """What is wrong with the shape of an error."""
    told = error if isinstance(error, dict) else {}
    loc = told.get("loc")
    if not isinstance(loc, list) or not all(isinstance(part, str | int) for part in loc):
        yield f"an error's loc is {_short(loc)}, and not a list of names"
    elif not loc or loc[0] not in ("body", "header"):
        yield f"an error's loc begins with neither body nor header: {_short(loc)}"
    for name in ("msg", "type"):
        if not (isinstance(told.get(name), str) and told[name]):
            yield f"an error's {name} is {_short(told.get(name))}, and not a text"


def _rule_of_places(told: frozenset[Loc], expected: ExpectedResponse) -> str:
    """Which rule it breaks to blame these places.

    Some of the right ones are not all of them (REQ-19). Where it is the picture or its size that is
    wrong, REQ-15 says where to tell it, and anywhere else RES-4.
    """
    right = frozenset().union(*expected.refusals)
    if told & right:
        return "REQ-19"
    at_the_limits = any(rule in ("REQ-13", "REQ-14") for rule in expected.rules)
    return "REQ-15" if at_the_limits else "RES-4"


def _place(loc: list[str | int]) -> Loc:
    """A place as the oracle has it: headers' names are the same in all cases."""
    parts = tuple(map(str, loc))
    return tuple(part.lower() for part in parts) if parts[0] == "header" else parts


def _names(places: frozenset[Loc]) -> str:
    return " and ".join(sorted(".".join(place) for place in places))


def _check_nothing_repeated(request: Request, response: Response, policy: Policy) -> None:
    """No value of the request stands in the answer (RES-4)."""
    try:
        given = fields(request)
    except ValueError:
        return
    text = json.dumps(response.json, ensure_ascii=False)
    names = " ".join(given)  # which may stand in it
    for name, value in given.items():
        for marker in _markers(value):
            if marker in text and marker not in names:
                policy.fail("RES-4", f"the value of {name} is repeated: {_short(marker)}")


def _markers(value: object) -> list[str]:
    """By what a value would be known: not if it is short, or a word that a message may have."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [marker for each in inner for marker in _markers(each)]
    if isinstance(value, bool) or value is None:
        return []
    text = value[:ECHOED_BASE64] if isinstance(value, str) else repr(value)
    known = any(text.strip() in name for name in (*MODELS, *ENCODINGS))
    return [] if known or len(text.strip()) < ECHO_CHARACTERS else [text]


# Pictures


def check_acceptance(response: Response, policy: Policy) -> None:
    """An asynchronous answer says where the picture will be (ASY-1)."""
    told = read_json_object(response, "ASY-1", policy)
    for name in ("response_id", "poll_url"):
        if not (isinstance(told.get(name), str) and told[name]):
            policy.fail("ASY-1", f"{name} is {_short(told.get(name))}, and not a text")


def check_image(
    request: Request, response: Response, expected: ExpectedResponse, policy: Policy
) -> None:
    """The picture is as it was asked for: its form, encoding and size, and what it shows."""
    wanted_image = expected.image
    assert wanted_image is not None, "only those that may bring a picture are checked for one"
    if expected.media_type is not None and response.media_type != expected.media_type:
        rule = "RES-1" if request.header("Accept") is None else "RES-8"
        sentence = f"the answer is {response.media_type or 'of no type'}, not {expected.media_type}"
        policy.fail(rule, sentence)
    model = response.headers.get(MODEL)
    if policy.strict and model is not None and model != wanted_image.model:
        policy.fail("REQ-8", f"the model was {model}, and not {wanted_image.model}")
    named = next((name for name, each in accept.FILES.items() if each == response.media_type), None)
    file = response.body if named else _file(response, policy)
    if file is None:
        return
    encoding = encoding_of(file)
    if encoding not in ({named} if named else wanted_image.encodings):
        wanted = named or " or ".join(sorted(wanted_image.encodings))
        sentence = f"the picture is {encoding or 'neither PNG nor JPEG'}, and not {wanted}"
        policy.fail("RES-8" if named else "REQ-9", sentence)
    if encoding:
        _check_content(request, file, encoding, wanted_image.size, policy)


def _check_vary(response: Response, policy: Policy) -> None:
    """Caches are told that Accept chooses the form (RES-8); last, as all pictures may lack it."""
    if policy.strict and "accept" not in response.headers.get("vary", "").lower():
        policy.fail("RES-8", "the answer goes by Accept, and has no header Vary that says so")


def _check_content(
    request: Request, file: bytes, encoding: str, size: Output | None, policy: Policy
) -> None:
    """What is in the picture's file: it decodes, has its size, and shows what was sent."""
    try:
        image = decoding.decode_image(file, encoding)
    except ValueError as error:
        policy.fail("RES-2", str(error))
        return
    if size is None:
        return
    if not size.allows(image.width, image.height):
        wanted = f"{size.width}x{size.height}"
        policy.fail("REQ-16", f"the picture has {image.width}x{image.height} pixels, not {wanted}")
    elif request.image is not None:
        sentence = image_comparison.compare_images(
            request.image, image, "white" if policy.strict else None
        )
        if sentence:
            policy.fail("RES-2", sentence)


def _file(response: Response, policy: Policy) -> bytes | None:
    """The file in a JSON answer (RES-1, RES-2), or None where there is none (RES-3)."""
    told = read_json_object(response, "RES-1", policy)
    if set(told) != {"image_b64", "removed_for_safety"}:
        sentence = f"the answer has {', '.join(sorted(told)) or 'no fields'}"
        policy.fail("RES-1", f"{sentence}, and not image_b64 and removed_for_safety")
    removed, text = told.get("removed_for_safety"), told.get("image_b64")
    if not isinstance(removed, bool):
        policy.fail("RES-1", f"removed_for_safety is {_short(removed)}, and neither true nor false")
    if removed is True:
        if text is not None:
            policy.fail("RES-3", "the picture was removed for safety, and yet is there")
        raise Inconclusive("the target removed a harmless picture for safety")
    if not isinstance(text, str):
        policy.fail("RES-1", f"image_b64 is {_short(text)}, and nothing was removed")
        return None
    data = text.encode(errors="replace")
    if not data or len(data) % 4 or not BASE64.fullmatch(data):
        policy.fail("RES-2", "image_b64 is not standard base64 on one line")
        return None
    return response.file


def read_json_object(response: Response, rule: str, policy: Policy) -> dict[str, Any]:
    """The object in a JSON answer; an empty one if there is none, and `rule` is not judged by."""
    if response.media_type != accept.JSON:
        policy.fail(rule, f"the answer is {response.media_type or 'of no type'}, and not JSON")
    try:
        told = response.json
    except ValueError:
        told = None
    if isinstance(told, dict):
        return told
    policy.fail(rule, "the answer is no JSON object")
    return {}


def _short(value: object) -> str:
    """A value as JSON, cut off."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
