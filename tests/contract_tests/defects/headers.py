"""Mistakes with what comes before the fields: the headers, and the body as such."""

import json
import re
from collections.abc import Callable
from typing import Any, Final

from fastapi import Request

from tests.contract_tests.defects.planting import (
    Answer,
    Asked,
    Defect,
    Planting,
    changed_answer,
    changed_headers,
    failing_at_body,
    patched,
    replaced,
    together,
)
from tests.contract_tests.defects.probes import asking, fields_of, seen, sending
from upscaler.api import request as contract
from upscaler.api.request import UpscalingRequest
from upscaler.errors import FieldError, InvalidRequest
from upscaler.formats import ImageEncoding
from upscaler.service import app
from upscaler.service.negotiation import negotiate

JSON: Final = "application/json"

NAN: Final = re.compile(rb"[:,\[]\s*-?(NaN|Infinity)")
"""What Python's json reads as numbers."""

BODY: Final = json.dumps(fields_of({})).encode()


def read_as(change: Callable[[dict[str, str]], dict[str, str]]) -> Planting:
    """Read other headers than were sent."""
    return changed_headers(lambda asked: change(asked.headers))


def as_json(when: Callable[[str], bool]) -> Planting:
    """Take a body for JSON if its type is such."""
    return read_as(
        lambda headers: (
            headers | {"content-type": JSON} if when(headers.get("content-type", "")) else headers
        )
    )


def refused(when: Callable[[dict[str, str]], bool], status: int) -> Planting:
    """Refuse an upscaling for its headers."""

    def changed(asked: Asked, answer: Answer) -> Answer:
        if answer.status != 200 or not when(asked.headers):
            return answer
        return answer.saying({"detail": "this header is not taken here"}, status)

    return changed_answer(changed)


def unread() -> Planting:
    """Tell what is wrong with the JSON before what is wrong with its type."""

    def reading(read: Any) -> Any:
        async def read_json(
            request: Request, memory: Any, limiter: Any, *, asynchronous: bool
        ) -> bytearray:
            try:
                body: bytearray = await read(request, memory, limiter, asynchronous=asynchronous)
            except InvalidRequest as error:
                body = bytearray(request.scope["planted.body"])
                contract.parse_request(body)
                raise error from None
            return body

        return read_json

    return together(replaced(app, "read_json_body", reading), _keeping_bodies())


def _keeping_bodies() -> Planting:
    """Keep the body of each request where `unread` finds it."""

    def streaming(stream: Any) -> Any:
        async def streamed(request: Request) -> Any:
            request.scope["planted.body"] = b""
            async for chunk in stream(request):
                request.scope["planted.body"] += chunk
                yield chunk

        return streamed

    return replaced(Request, "stream", streaming)


def accept_first() -> Planting:
    """Tell that nothing can be accepted before the body is looked at."""

    def reading(read: Any) -> Any:
        async def read_json(
            request: Request, memory: Any, limiter: Any, *, asynchronous: bool
        ) -> bytearray:
            body: bytearray = await read(request, memory, limiter, asynchronous=asynchronous)
            negotiate(request.headers.get("Accept", ""), ImageEncoding.PNG)
            return body

        return read_json

    return replaced(app, "read_json_body", reading)


def parsed(change: Callable[[bytes], bytes]) -> Planting:
    """Read another body than was sent."""

    def around(parse: Callable[[bytes], UpscalingRequest]) -> Any:
        return lambda body: parse(change(bytes(body)))

    return replaced(app, "parse_request", around)


def not_utf8(body: bytes) -> bool:
    """Whether a body is no text."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return True
    return False


def not_an_object(body: bytes) -> bytes:
    """The first of a list, and what a string holds."""
    try:
        document = json.loads(body)
    except ValueError:
        return body
    if isinstance(document, list) and document:
        return json.dumps(document[0]).encode()
    return document.encode(errors="replace") if isinstance(document, str) else body


def blamed_on_body(error: InvalidRequest) -> list[dict[str, object]]:
    """Content-Type is told as if it were a field."""
    told = [FieldError(("body", *each.loc[1:]), each.msg, each.type) for each in error.errors]
    return [{**each._asdict(), "loc": list(each.loc)} for each in told]


HEADERS: Final = (
    Defect(
        "content-type-ignored",
        "Takes a body for JSON whatever its type is.",
        ("REQ-3",),
        as_json(lambda _: True),
        sending(BODY, Content_Type="text/plain"),
    ),
    Defect(
        "content-type-optional",
        "Takes a body without a type for JSON.",
        ("REQ-3",),
        as_json(lambda kind: not kind),
        lambda client: seen(client, client.post("/upscaling", content=BODY)),
    ),
    Defect(
        "content-type-contains-json",
        "Takes every type for JSON in which that word is.",
        ("REQ-3",),
        as_json(lambda kind: "json" in kind),
        sending(BODY, Content_Type="application/json-seq"),
    ),
    Defect(
        "content-type-with-charset",
        "Compares the whole Content-Type, and refuses one with a charset.",
        ("REQ-3",),
        read_as(
            lambda headers: (
                headers | {"content-type": "-"}
                if ";" in headers.get("content-type", "")
                else headers
            )
        ),
        sending(BODY, Content_Type="application/json; charset=utf-8"),
    ),
    Defect(
        "content-type-415",
        "Says 415 to what is not JSON.",
        ("REQ-3",),
        changed_answer(
            lambda _, answer: (
                answer.saying({"detail": "Unsupported Media Type"}, 415)
                if b'"content_type"' in answer.body
                else answer
            )
        ),
        sending(BODY, Content_Type="text/plain"),
    ),
    Defect(
        "content-type-blamed-on-body",
        "Tells of Content-Type as of a field of the body.",
        ("REQ-3", "RES-4"),
        patched(InvalidRequest, "detail", property(blamed_on_body)),
        sending(BODY, Content_Type="text/plain"),
    ),
    Defect(
        "content-type-after-json",
        "Tells what is wrong with the JSON before what is wrong with its type.",
        ("REQ-19", "REQ-3"),
        unread(),
        sending(b"{", Content_Type="text/plain"),
    ),
    Defect(
        "unknown-header-refused",
        "Refuses X-OctoAI-Queue-Dispatch, which it does not know.",
        ("REQ-18",),
        refused(lambda headers: "x-octoai-queue-dispatch" in headers, 400),
        asking({"X-OctoAI-Queue-Dispatch": "1"}),
    ),
    Defect(
        "accept-before-the-fields",
        "Says 406 before it tells what is wrong with the fields.",
        ("REQ-19", "RES-8"),
        accept_first(),
        asking({"Accept": "text/html"}, scale=-1),
    ),
)

BODIES: Final = (
    Defect(
        "not-an-object",
        "Takes a list for its first object, and a string for the JSON in it.",
        ("REQ-1",),
        parsed(not_an_object),
        sending(b"[" + BODY + b"]"),
    ),
    Defect(
        "json-400",
        "Says 400 to what is not JSON.",
        ("REQ-1", "RES-4"),
        changed_answer(
            lambda _, answer: (
                answer.saying({"detail": "There was an error parsing the body"}, 400)
                if b'"json_invalid"' in answer.body
                else answer
            )
        ),
        sending(b"{"),
    ),
    Defect(
        "json-broken-500",
        "Has a fault of its own at JSON that ends too soon.",
        ("RES-5", "REQ-1"),
        failing_at_body(lambda body: body.strip()[-1:] != b"}"),
        sending(b'{"scale": 2'),
    ),
    Defect(
        "json-empty-500",
        "Has a fault of its own at an empty body.",
        ("RES-5", "REQ-1"),
        failing_at_body(lambda body: not body),
        sending(b""),
    ),
    Defect(
        "json-nan-500",
        "Reads NaN, as Python's json does, and cannot compute with it.",
        ("RES-5", "REQ-6"),
        failing_at_body(lambda body: NAN.search(body) is not None),
        sending(b'{"scale": NaN}'),
    ),
    Defect(
        "json-surrogate-500",
        "Reads half of a surrogate pair, and cannot write it into its answer.",
        ("RES-5", "REQ-1"),
        failing_at_body(lambda body: b"\\ud8" in body.lower()),
        sending(b'{"\\ud800": 1}'),
    ),
    Defect(
        "json-latin-1-500",
        "Has a fault of its own at a body that is not UTF-8.",
        ("RES-5", "REQ-1"),
        failing_at_body(not_utf8),
        sending(b'{"model": "\xe9"}'),
    ),
    Defect(
        "json-deep-500",
        "Goes as deep as the JSON does, until there is no stack left.",
        ("RES-5", "REQ-1"),
        failing_at_body(lambda body: b"[" * 100 in body),
        sending(b'{"scale": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    ),
)
