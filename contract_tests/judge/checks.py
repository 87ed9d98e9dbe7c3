"""Whether an answer is one of those that may be given; raises a Violation if it is none."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from contract_tests.failures import Inconclusive
from contract_tests.judge import decoding, image_comparison
from contract_tests.judge.expectations import CLIENTS_FAULT, SUCCESS, Expected, Terms, fields
from contract_tests.oracle import accept
from contract_tests.oracle.oracle import Loc, Output
from contract_tests.oracle.values import ENCODINGS, MODELS
from contract_tests.requests.request import AUTHORIZATION, Request
from contract_tests.target.response import Answer, encoding_of

BASE64: Final = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
REQUEST_ID: Final = "x-user-request-id"
MODEL: Final = "x-upscaler-model"
ECHO_CHARACTERS: Final = 8
"""A shorter value may stand in a message by chance."""
ECHOED_BASE64: Final = 40
"""So many of a picture's first characters are looked for: no message has them by chance."""


def check(request: Request, answer: Answer, expected: Expected, terms: Terms) -> None:
    """Raise a Violation if `answer` is not as expected, Inconclusive if it says nothing."""
    if answer.status not in expected.statuses:
        _tell_status(request, answer, expected, terms)
    elif request.method == "HEAD":
        return
    elif answer.status not in SUCCESS:
        check_refusal(request, answer, expected, terms)
    elif expected.asynchronous:
        check_promise(answer, terms)
    elif expected.verdict is not None:
        check_picture(request, answer, expected, terms)
        _check_vary(answer, terms)


def _tell_status(request: Request, answer: Answer, expected: Expected, terms: Terms) -> None:
    """Say which rule is broken by another status than those that may be given (and RES-5)."""
    wanted = " or ".join(map(str, sorted(expected.statuses)[:4]))
    if answer.status < 500:
        sentence = f"the status is {answer.status}, and not {wanted}"
        refused = (
            answer.status in (401, 403) and request.header("Authorization") == AUTHORIZATION[1]
        )
        terms.tell("REQ-2" if refused else _blamed(answer, expected, terms), sentence)
        # There is nothing in which the other rules could be seen.
        if refused or SUCCESS & expected.statuses:
            raise Inconclusive(f"{sentence}, by a rule that is not judged: {answer.shown}")
        return
    if SUCCESS & expected.statuses:
        raise Inconclusive(f"the target failed: {answer.shown}")
    terms.tell("RES-5", f"a fault of the client's is answered {answer.status}, and not {wanted}")


def _blamed(answer: Answer, expected: Expected, terms: Terms) -> str:
    """The rule that a wrong status breaks: by the field that is refused although it is right."""
    if not SUCCESS & expected.statuses:
        return _rule_of_refusal(answer, expected, terms)
    try:
        told = [str(each["loc"][-1]) for each in answer.json["detail"]]
    except (ValueError, TypeError, KeyError, IndexError):
        return expected.rules[0]
    rules = [expected.if_refused[name] for name in told if name in expected.if_refused]
    return (rules or list(expected.rules))[0]


def _rule_of_refusal(answer: Answer, expected: Expected, terms: Terms) -> str:
    """The rule that is broken where something should have been refused, or with another status.

    Of several the first that is judged.
    """
    if expected.asynchronous and answer.status in SUCCESS:
        return "ASY-1"
    rules = expected.rules
    if answer.status in CLIENTS_FAULT:
        if expected.statuses == {422} and rules[0] != "REQ-3":
            return "RES-4"
        rules = rules[::-1]  # it is refused, as REQ-1 has it, and not as RES-7 says
    return next((rule for rule in rules if rule not in terms.skipped), rules[0])


def check_id(request: Request, answer: Answer, terms: Terms) -> None:
    """Raise a Violation unless the answer has the request's id, or one of its own (RES-6).

    It says nothing of all else in the answer, which is to be judged as well.
    """
    told = answer.headers.get(REQUEST_ID, "")
    own = request.header(REQUEST_ID)
    if not told:
        terms.tell("RES-6", "the answer has no header X-User-Request-ID")
    elif terms.strict and own and told != own:
        terms.tell("RES-6", f"the request's id was {own}, and the answer's is {told}")


# Errors


def check_refusal(request: Request, answer: Answer, expected: Expected, terms: Terms) -> None:
    """The shape of an error, and the places that a 422 tells (RES-4, RES-7)."""
    if answer.status == 401 and terms.strict:
        challenge = answer.headers.get("www-authenticate", "")
        if not challenge.lower().startswith("bearer"):
            terms.tell("REQ-2", "a 401 has the header WWW-Authenticate: Bearer")
    if answer.status == 422:
        _check_list(request, answer, expected, terms)
    elif terms.strict:
        detail = _detail(answer, "RES-7", terms)
        if not (isinstance(detail, str) and detail.strip()):
            terms.tell("RES-7", f"detail is {_short(detail)}, and not a sentence")


def _detail(answer: Answer, rule: str, terms: Terms) -> Any:  # noqa: ANN401  whatever came
    """What stands in `detail`."""
    if answer.media_type != accept.JSON:
        terms.tell(rule, f"an error is {answer.media_type or 'of no type'}, and not JSON")
    try:
        return answer.json["detail"]
    except (ValueError, TypeError, KeyError):
        terms.tell(rule, "the body of an error is no object with a detail")
        return None


def _check_list(request: Request, answer: Answer, expected: Expected, terms: Terms) -> None:
    """The errors of a 422: what the schema has of them, and at `strict` where they point."""
    detail = _detail(answer, "RES-4", terms)
    if not isinstance(detail, list) or not detail:
        terms.tell("RES-4", f"detail of a 422 is {_short(detail)}, and not a list of errors")
        return
    faults = [fault for each in detail for fault in _faults(each)]
    if faults:
        terms.tell("RES-4", faults[0])
    elif terms.strict:
        told = frozenset(_place(each["loc"]) for each in detail)
        if expected.refusals and told not in expected.refusals:
            wanted = " or ".join(sorted(map(_names, expected.refusals)))
            sentence = f"what is blamed is {_names(told)}, and not {wanted}"
            terms.tell(_rule_of_places(told, expected), sentence)
        _check_nothing_repeated(request, answer, terms)


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


def _rule_of_places(told: frozenset[Loc], expected: Expected) -> str:
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


def _check_nothing_repeated(request: Request, answer: Answer, terms: Terms) -> None:
    """No value of the request stands in the answer (RES-4)."""
    try:
        given = fields(request)
    except ValueError:
        return
    text = json.dumps(answer.json, ensure_ascii=False)
    names = " ".join(given)  # which may stand in it
    for name, value in given.items():
        for marker in _markers(value):
            if marker in text and marker not in names:
                terms.tell("RES-4", f"the value of {name} is repeated: {_short(marker)}")


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


def check_promise(answer: Answer, terms: Terms) -> None:
    """An asynchronous answer says where the picture will be (ASY-1)."""
    told = read_object(answer, "ASY-1", terms)
    for name in ("response_id", "poll_url"):
        if not (isinstance(told.get(name), str) and told[name]):
            terms.tell("ASY-1", f"{name} is {_short(told.get(name))}, and not a text")


def check_picture(request: Request, answer: Answer, expected: Expected, terms: Terms) -> None:
    """The picture is as it was asked for: its form, encoding and size, and what it shows."""
    verdict = expected.verdict
    assert verdict is not None, "only those that may bring a picture are checked for one"
    if expected.media_type is not None and answer.media_type != expected.media_type:
        rule = "RES-1" if request.header("Accept") is None else "RES-8"
        sentence = f"the answer is {answer.media_type or 'of no type'}, not {expected.media_type}"
        terms.tell(rule, sentence)
    model = answer.headers.get(MODEL)
    if terms.strict and model is not None and model != verdict.model:
        terms.tell("REQ-8", f"the model was {model}, and not {verdict.model}")
    named = next((name for name, each in accept.FILES.items() if each == answer.media_type), None)
    file = answer.body if named else _file(answer, terms)
    if file is None:
        return
    encoding = encoding_of(file)
    if encoding not in ({named} if named else verdict.encodings):
        wanted = named or " or ".join(sorted(verdict.encodings))
        sentence = f"the picture is {encoding or 'neither PNG nor JPEG'}, and not {wanted}"
        terms.tell("RES-8" if named else "REQ-9", sentence)
    if encoding:
        _check_content(request, file, encoding, verdict.size, terms)


def _check_vary(answer: Answer, terms: Terms) -> None:
    """Caches are told that Accept chooses the form (RES-8); last, as all pictures may lack it."""
    if terms.strict and "accept" not in answer.headers.get("vary", "").lower():
        terms.tell("RES-8", "the answer goes by Accept, and has no header Vary that says so")


def _check_content(
    request: Request, file: bytes, encoding: str, size: Output | None, terms: Terms
) -> None:
    """What is in the picture's file: it decodes, has its size, and shows what was sent."""
    try:
        image = decoding.opened(file, encoding)
    except ValueError as error:
        terms.tell("RES-2", str(error))
        return
    if size is None:
        return
    if not size.allows(image.width, image.height):
        wanted = f"{size.width}x{size.height}"
        terms.tell("REQ-16", f"the picture has {image.width}x{image.height} pixels, not {wanted}")
    elif request.picture is not None:
        sentence = image_comparison.unlike(
            request.picture, image, "white" if terms.strict else None
        )
        if sentence:
            terms.tell("RES-2", sentence)


def _file(answer: Answer, terms: Terms) -> bytes | None:
    """The file in a JSON answer (RES-1, RES-2), or None where there is none (RES-3)."""
    told = read_object(answer, "RES-1", terms)
    if set(told) != {"image_b64", "removed_for_safety"}:
        sentence = f"the answer has {', '.join(sorted(told)) or 'no fields'}"
        terms.tell("RES-1", f"{sentence}, and not image_b64 and removed_for_safety")
    removed, text = told.get("removed_for_safety"), told.get("image_b64")
    if not isinstance(removed, bool):
        terms.tell("RES-1", f"removed_for_safety is {_short(removed)}, and neither true nor false")
    if removed is True:
        if text is not None:
            terms.tell("RES-3", "the picture was removed for safety, and yet is there")
        raise Inconclusive("the target removed a harmless picture for safety")
    if not isinstance(text, str):
        terms.tell("RES-1", f"image_b64 is {_short(text)}, and nothing was removed")
        return None
    data = text.encode(errors="replace")
    if not data or len(data) % 4 or not BASE64.fullmatch(data):
        terms.tell("RES-2", "image_b64 is not standard base64 on one line")
        return None
    return answer.file


def read_object(answer: Answer, rule: str, terms: Terms) -> dict[str, Any]:
    """The object in a JSON answer; an empty one if there is none, and `rule` is not judged by."""
    if answer.media_type != accept.JSON:
        terms.tell(rule, f"the answer is {answer.media_type or 'of no type'}, and not JSON")
    try:
        told = answer.json
    except ValueError:
        told = None
    if isinstance(told, dict):
        return told
    terms.tell(rule, "the answer is no JSON object")
    return {}


def _short(value: object) -> str:
    """A value as JSON, cut off."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
