"""Names the rules that an error response is about, in its header X-Mock-Rule."""

import json
from collections.abc import Iterable, Iterator
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mock_server.endpoints import PREFIX
from mock_server.rules.catalogue import ORDER
from upscaler.api.headers import ASYNC_HEADER
from upscaler.api.request import IMAGE_FIELDS, TOO_MANY_VALUES
from upscaler.service.jobs.store import NOT_COMPLETED

RULE_HEADER: Final = "X-Mock-Rule"
"""On every error response: the IDs of its rules, in their order, such as `REQ-4, REQ-5`."""

STATUSES: Final = {401: "REQ-2", 404: "REQ-1", 406: "RES-8", 415: "OWN-6", 429: "RES-5"}
"""The rule of a status. Any other status is RES-7, which lists them."""
RULES_OF_PATHS: Final = {
    "/v1/requests/": "ASY-2",
    "/v1/responses/": "ASY-3",
    "/healthcheck": "RES-9",
    "/livez": "OWN-5",
    "/metrics": "OWN-5",
}
"""The rule of an endpoint, by the prefix of its path. Any other path is REQ-1."""
TYPES: Final = {
    "content_type": "REQ-3",
    "content_encoding": "OWN-6",
    "too_many_fields": "REQ-11",
    "extra_forbidden": "REQ-11",
    "image_too_small": "REQ-13",
    "image_too_large": "REQ-13",
    "output_too_large": "REQ-14",
}
"""The rule of an error whose type alone decides."""
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
"""The rule of any other error on a field."""
COERCIONS: Final = ("_type", "_parsing", "_parsing_size", "_from_float")
"""The suffixes of pydantic's error types for values that cannot be coerced (REQ-12)."""


class RuleHeaderMiddleware:
    """Middleware that adds X-Mock-Rule to the error responses of the API.

    The routes below /_mock/ are not part of the API, and their errors have no rule.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start: Message | None = None

        async def add_header_and_send(message: Message) -> None:
            nonlocal start
            is_start = message["type"] == "http.response.start"
            # By now, a path before the API's has been taken away.
            if is_start and message["status"] >= 400 and not scope["path"].startswith(PREFIX):
                start = message  # held back, since the body says what the error is
                return
            if start is not None:
                held, start = start, None
                rules = _rules_of_response(held, message.get("body", b""), scope)
                # A header that is there already stays.
                MutableHeaders(raw=held["headers"]).setdefault(RULE_HEADER, rules)
                await send(held)
            await send(message)

        await self.app(scope, receive, add_header_and_send)


def _rules_of_response(start: Message, body: bytes, scope: Scope) -> str:
    """Return the rules of an error response, as the header has them."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    detail = document.get("detail") if isinstance(document, dict) else None
    if start["status"] == 422:
        # A 422 without a list of errors breaks the shape itself (RES-4).
        rules = {rule for error in _errors(detail) for rule in rules_of_error(*error)} or {"RES-4"}
        return ", ".join(sorted(rules, key=ORDER.__getitem__))
    return rule_of_status(
        start["status"],
        path=scope["path"],
        is_async=Headers(scope=scope).get(ASYNC_HEADER) == "1",
        has_retry_after="Retry-After" in Headers(raw=start["headers"]),
        is_completed=detail != NOT_COMPLETED,
    )


def _errors(detail: object) -> Iterator[tuple[str, str, str]]:
    """Yield the field, type and message of each error in the list of a 422."""
    for error in detail if isinstance(detail, list) else ():
        if isinstance(error, dict):
            loc = error.get("loc") or [""]
            yield str(loc[min(1, len(loc) - 1)]), str(error.get("type")), str(error.get("msg"))


def rules_of_error(field: str, error_type: str, msg: str) -> Iterable[str]:
    """Return the rules that one error of a 422 is about."""
    if error_type in TYPES:
        return (TYPES[error_type],)
    if field not in FIELDS:
        return ("REQ-11" if msg == TOO_MANY_VALUES else "REQ-1",)
    if error_type in ("missing", "conflicting"):
        return ("REQ-4" if field in IMAGE_FIELDS else "REQ-5",)
    if error_type.endswith(COERCIONS):
        return ("REQ-4" if field == "init_image_url" else FIELDS[field], "REQ-12")
    return (FIELDS[field],)


def rule_of_status(
    status: int,
    *,
    path: str = "",
    is_async: bool = False,
    has_retry_after: bool = False,
    is_completed: bool = True,
) -> str:
    """Return the rule that an error without fields is about.

    `path` and `is_async` are the request's. `is_completed` is false if the only reason for a 404 is
    that the inference is not completed yet.
    """
    endpoint = next(
        (rule for prefix, rule in RULES_OF_PATHS.items() if path.startswith(prefix)), "REQ-1"
    )
    # An unknown ID is ASY-4 on either URL, and a result that is not completed ASY-3.
    if status == 404 and endpoint in ("ASY-2", "ASY-3"):
        return "ASY-4" if is_completed else "ASY-3"
    if status == 405:
        return endpoint
    if status == 413 and is_async:  # 10 MiB; the limit of synchronous bodies is in RES-7
        return "ASY-4"
    if status == 503 and has_retry_after:  # busy; without it the service cannot do it (RES-7)
        return "RES-9" if endpoint == "RES-9" else "OWN-4"
    return STATUSES.get(status, "RES-7")
