"""Mistakes with what all answers have, and with refusals that are not of a field."""

from typing import Final

from tests.contract_tests.defects.headers import read_as
from tests.contract_tests.defects.planting import (
    Answer,
    Defect,
    Planting,
    changed_answer,
    patched,
    replaced,
)
from tests.contract_tests.defects.probes import asking, getting, ids_differ, request_id, sending
from tests.contract_tests.defects.responses import HTML, at, of_status
from upscaler.api import limits
from upscaler.errors import BodyTooLarge
from upscaler.service import middleware

LARGE: Final = b" " * (32 * 2**20 - 2) + b"{}"
"""A body of as many bytes as there may be."""


def one_request_id() -> Planting:
    """Use the id of the process for all requests."""
    return changed_answer(
        lambda _, answer: Answer(
            answer.status, answer.headers | {"x-user-request-id": "6f1c1f2a"}, answer.body
        )
    )


REFUSALS: Final = (
    Defect(
        "request-id-missing",
        "Does not say X-User-Request-ID.",
        ("RES-6",),
        changed_answer(lambda _, answer: answer.without("x-user-request-id")),
        request_id({}),
    ),
    Defect(
        "request-id-missing-of-errors",
        "Does not say X-User-Request-ID with an error.",
        ("RES-6",),
        changed_answer(
            lambda _, answer: answer if answer.status < 400 else answer.without("x-user-request-id")
        ),
        request_id({}, "/nothing"),
    ),
    Defect(
        "request-id-the-same",
        "Gives the same id to all requests.",
        ("RES-6",),
        one_request_id(),
        ids_differ,
    ),
    Defect(
        "request-id-not-kept",
        "Gives an id of its own to requests that have one.",
        ("RES-6",),
        read_as(lambda headers: {k: v for k, v in headers.items() if k != "x-user-request-id"}),
        request_id({"X-User-Request-ID": "of-my-own:1"}),
    ),
    Defect(
        "request-id-kept-whatever-it-is",
        "Keeps an id of any length and of any characters.",
        ("RES-6",),
        replaced(middleware, "SANE_ID", lambda _: _Anything()),
        request_id({"X-User-Request-ID": "x y" * 100}),
    ),
    Defect(
        "not-found-in-html",
        "Says 404 on a page for people.",
        ("RES-7",),
        of_status(404, lambda answer: answer.being(HTML, "text/html")),
        getting("/nothing/here"),
    ),
    Defect(
        "not-found-under-error",
        "Tells a 404 under error, and not under detail.",
        ("RES-7",),
        of_status(404, lambda answer: answer.saying({"error": {"code": 404}})),
        getting("/nothing/here"),
    ),
    Defect(
        "not-found-200",
        "Gives its page, with 200, at whatever path is not there.",
        ("RES-7",),
        of_status(404, lambda answer: answer.being(HTML, "text/html", 200)),
        getting("/nothing/here"),
    ),
    Defect(
        "method-404",
        "Says 404, and not 405, to a wrong method.",
        ("RES-7", "REQ-1"),
        of_status(405, lambda answer: answer.saying({"detail": "Not Found"}, 404)),
        getting("/upscaling"),
    ),
    Defect(
        "method-in-plain-text",
        "Says 405 in plain text.",
        ("RES-7",),
        of_status(405, lambda answer: answer.being(b"Method Not Allowed", "text/plain")),
        getting("/upscaling"),
    ),
    Defect(
        "unauthorized-as-a-list",
        "Tells a 401 in a list, as a 422.",
        ("RES-7", "REQ-2"),
        of_status(401, lambda answer: answer.saying({"detail": [{"msg": "no token"}]})),
        asking({"Authorization": "Bearer wrong"}),
    ),
    Defect(
        "body-without-limit",
        "Reads bodies of any length.",
        ("RES-7",),
        patched(limits, "MAX_BODY_BYTES", 2**40),
        sending(b" " + LARGE),
    ),
    Defect(
        "body-of-32-mib-refused",
        "Refuses a body of as many bytes as there may be.",
        ("RES-7",),
        replaced(limits, "MAX_BODY_BYTES", lambda most: most - 1),
        sending(LARGE),
    ),
    Defect(
        "body-of-10-mib-at-most",
        "Allows no request more than an asynchronous one.",
        ("RES-7",),
        patched(limits, "MAX_BODY_BYTES", 10 * 2**20),
        sending(LARGE[-11 * 2**20 :]),
    ),
    Defect(
        "body-too-large-422",
        "Says 422 to too long a body.",
        ("RES-7",),
        patched(BodyTooLarge, "status", 422),
        sending(b" " + LARGE),
    ),
)

HEALTH: Final = (
    Defect(
        "healthcheck-missing",
        "Knows no /healthcheck, but /health.",
        ("RES-9",),
        at("/healthcheck", lambda answer: answer.saying({"detail": "Not Found"}, 404)),
        getting("/healthcheck"),
    ),
    Defect(
        "healthcheck-503",
        "Says at /healthcheck that it cannot work, though it can.",
        ("RES-9",),
        at("/healthcheck", lambda answer: answer.saying({"detail": "loading"}, 503)),
        getting("/healthcheck"),
    ),
)


class _Anything:
    """A pattern for everything."""

    def fullmatch(self, _: str) -> bool:
        return True
