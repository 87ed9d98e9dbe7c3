"""Which rules a refusal stands for: they are named in its header X-Mock-Rule."""

import json
from collections.abc import Iterable, Iterator
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mock_server.admin import PREFIX
from mock_server.rules.catalogue import ORDER
from upscaler.api.headers import ASYNC_HEADER
from upscaler.api.request import IMAGE_FIELDS, TOO_MANY_VALUES
from upscaler.errors import UpscalerError
from upscaler.service.jobs import NOT_COMPLETED
from upscaler.service.server.connection import Connection

RULE_HEADER: Final = "X-Mock-Rule"
"""On every refusal: the ids of its rules, in their order, such as `REQ-4, REQ-5`."""

STATUSES: Final = {401: "REQ-2", 404: "REQ-1", 406: "RES-8", 429: "RES-5"}
"""What a status stands for. One that is not here stands for RES-7, which lists the others."""
PLACES: Final = {
    "/v1/requests/": "ASY-2",
    "/v1/responses/": "ASY-3",
    "/healthcheck": "RES-9",
    "/livez": "OWN-5",
    "/metrics": "OWN-5",
}
"""The rules of the other routes, by how their paths begin."""
TYPES: Final = {
    "content_type": "REQ-3",
    "too_many_fields": "REQ-11",
    "extra_forbidden": "REQ-11",
    "image_too_small": "REQ-13",
    "image_too_large": "REQ-13",
    "output_too_large": "REQ-14",
}
"""What an error stands for whose type alone says it."""
FIELDS: Final = {
    "init_image": "REQ-17",
    "init_image_url": "OWN-3",
    "scale": "REQ-6",
    "output_image_height": "REQ-7",
    "output_image_width": "REQ-7",
    "model": "REQ-8",
    "output_image_encoding": "REQ-9",
    "face_enhance": "REQ-10",
}
"""What any other error on a field stands for."""
COERCIONS: Final = ("_type", "_parsing", "_parsing_size", "_from_float")
"""How pydantic's types end of values that cannot be read as what they should be (REQ-12)."""


class Naming:
    """Middleware that names the rules of whatever is refused below it.

    The routes below /_mock/ are none of the API's, and what they refuse breaks no rule of it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(PREFIX):
            await self.app(scope, receive, send)
            return
        held: Message | None = None

        async def naming(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and message["status"] >= 400:
                held = message  # until it can be read what is refused
                return
            if held is not None:
                head, held = held, None
                _name(head, message.get("body", b""), scope)
                await send(head)
            await send(message)

        await self.app(scope, receive, naming)


class NamingConnection(Connection):
    """A connection that names the rules of what is refused before the app is asked."""

    def headers_of(self, error: UpscalerError) -> dict[str, str]:
        headers = super().headers_of(error)
        return headers | {RULE_HEADER: of_status(error.status, again="Retry-After" in headers)}


def _name(head: Message, body: bytes, scope: Scope) -> None:
    """Put the rules into the head of a refusal, unless some are there already."""
    headers, status = MutableHeaders(raw=head["headers"]), head["status"]
    detail = _detail(body)
    if status == 422:
        rules = {rule for error in _errors(detail) for rule in of_error(*error)} or {"RES-4"}
        named = ", ".join(sorted(rules, key=ORDER.__getitem__))
    else:
        named = of_status(
            status,
            path=scope["path"],
            asynchronous=Headers(scope=scope).get(ASYNC_HEADER) == "1",
            again="Retry-After" in headers,
            completed=detail != NOT_COMPLETED,
        )
    headers.setdefault(RULE_HEADER, named)


def of_error(field: str, kind: str, msg: str) -> Iterable[str]:
    """The rules that one error of a 422 stands for, by its field, type and words."""
    if kind in TYPES:
        return (TYPES[kind],)
    if field not in FIELDS:
        return ("REQ-11" if msg == TOO_MANY_VALUES else "REQ-1",)
    if kind in ("missing", "conflicting"):
        return ("REQ-4" if field in IMAGE_FIELDS else "REQ-5",)
    if kind.endswith(COERCIONS):
        return ("REQ-4" if field == "init_image_url" else FIELDS[field], "REQ-12")
    return (FIELDS[field],)


def of_status(
    status: int,
    *,
    path: str = "",
    asynchronous: bool = False,
    again: bool = False,
    completed: bool = True,
) -> str:
    """The rule that a refusal without fields stands for.

    `path` and `asynchronous` are the request's; `again` says that the answer has Retry-After, and
    `completed` is false if there is no result only because it is not there yet.
    """
    place = next((rule for start, rule in PLACES.items() if path.startswith(start)), "REQ-1")
    if status == 404 and place in ("ASY-2", "ASY-3"):
        return "ASY-4" if completed else "ASY-3"
    if status == 405:
        return place
    if status == 413 and asynchronous:
        return "ASY-4"
    if status == 503 and again:
        return "RES-9" if place == "RES-9" else "OWN-4"
    return STATUSES.get(status, "RES-7")


def _detail(body: bytes) -> object:
    """What is in the JSON of an error under `detail`; None of any other body."""
    try:
        told = json.loads(body)
    except ValueError:
        return None
    return told.get("detail") if isinstance(told, dict) else None


def _errors(detail: object) -> Iterator[tuple[str, str, str]]:
    """The field, type and words of each error in the list of a 422."""
    for error in detail if isinstance(detail, list) else ():
        if isinstance(error, dict):
            loc = error.get("loc") or [""]
            yield str(loc[min(1, len(loc) - 1)]), str(error.get("type")), str(error.get("msg"))
