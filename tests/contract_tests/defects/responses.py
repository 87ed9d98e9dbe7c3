"""Mistakes with the JSON of a picture, and with that of a broken rule."""

import hashlib
import json
from collections.abc import Callable
from typing import Any, Final

from tests.contract_tests.defects.planting import (
    Answer,
    Asked,
    Defect,
    Fields,
    Planting,
    changed_answer,
    changed_detail,
    changed_error,
    changed_result,
    patched,
    replaced,
)
from tests.contract_tests.defects.probes import asking, twice
from upscaler.api.request import UpscalingRequest
from upscaler.errors import InvalidRequest, NotHTTP
from upscaler.service import app

JSON: Final = "application/json"

HTML: Final = b"<html><body><h1>Not Found</h1></body></html>"


def pictures(change: Callable[[Asked, Answer], Answer]) -> Planting:
    """Let the answers be others that hold a picture in JSON."""

    def changed(asked: Asked, answer: Answer) -> Answer:
        document = answer.document
        is_picture = isinstance(document, dict) and "image_b64" in document
        return change(asked, answer) if is_picture else answer

    return changed_answer(changed)


def of_status(status: int, change: Callable[[Answer], Answer]) -> Planting:
    """Let the answers of one status be others."""
    return changed_answer(lambda _, answer: change(answer) if answer.status == status else answer)


def at(path: str, change: Callable[[Answer], Answer]) -> Planting:
    """Let the answers at one path be others."""
    return changed_answer(lambda asked, answer: change(answer) if asked.path == path else answer)


def loc(change: Callable[[list[str]], object]) -> Planting:
    """Tell in another way where an error is."""
    return changed_error(lambda error: error | {"loc": change(error["loc"])})


def echoing(change: Callable[[Fields, object], Fields]) -> Planting:
    """Tell with each error the value that was sent."""

    def around(parse: Callable[[bytes], UpscalingRequest]) -> Any:
        def parsed(body: bytes) -> UpscalingRequest:
            try:
                return parse(body)
            except InvalidRequest as error:
                raise _Echo(error, bytes(body), change) from None

        return parsed

    return replaced(app, "parse_request", around)


class _Echo(InvalidRequest):
    """Errors that repeat what was sent."""

    def __init__(
        self, error: InvalidRequest, body: bytes, change: Callable[[Fields, object], Fields]
    ) -> None:
        super().__init__(*error.errors)
        try:
            sent = json.loads(body)
        except ValueError:
            sent = body.decode(errors="replace")
        self._sent = sent
        self._change = change

    @property
    def detail(self) -> list[dict[str, object]]:
        return [self._change(error, self._value(error["loc"])) for error in super().detail]

    def _value(self, where: object) -> object:
        name = where[-1] if isinstance(where, list) else None
        return self._sent.get(name) if isinstance(self._sent, dict) else self._sent


def impatient() -> Planting:
    """Do not like to be sent the same mistake twice."""

    def around(parse: Callable[[bytes], UpscalingRequest]) -> Any:
        refused: set[bytes] = set()

        def parsed(body: bytes) -> UpscalingRequest:
            try:
                return parse(body)
            except InvalidRequest as error:
                digest = hashlib.sha256(body).digest()
                if digest in refused:
                    raise NotHTTP("this was refused before") from error
                refused.add(digest)
                raise

        return parsed

    return replaced(app, "parse_request", around)


RESULTS: Final = (
    Defect(
        "result-field-renamed",
        "Calls the picture image, and not image_b64.",
        ("RES-1",),
        changed_result(lambda told: {"image": told["image_b64"], "removed_for_safety": False}),
        asking(),
    ),
    Defect(
        "result-without-removed",
        "Leaves removed_for_safety out where nothing was removed.",
        ("RES-1",),
        changed_result(lambda told: {"image_b64": told["image_b64"]}),
        asking(),
    ),
    Defect(
        "result-in-a-list",
        "Gives a list of one picture.",
        ("RES-1",),
        changed_result(lambda told: {"images": [told]}),
        asking(),
    ),
    Defect(
        "result-in-json-twice",
        "Writes the JSON into a string of JSON.",
        ("RES-1",),
        changed_result(json.dumps),
        asking(),
    ),
    Defect(
        "removed-as-text",
        'Says "false", in a string, in removed_for_safety.',
        ("RES-1",),
        changed_result(lambda told: told | {"removed_for_safety": "false"}),
        asking(),
    ),
    Defect(
        "removed-null",
        "Says null in removed_for_safety.",
        ("RES-1",),
        changed_result(lambda told: told | {"removed_for_safety": None}),
        asking(),
    ),
    Defect(
        "removed-with-picture",
        "Says that the picture was removed, and gives it.",
        ("RES-3",),
        changed_result(lambda told: told | {"removed_for_safety": True}),
        asking(),
    ),
    Defect(
        "picture-null",
        "Gives no picture, and says that none was removed.",
        ("RES-2", "RES-3", "RES-1"),
        changed_result(lambda told: told | {"image_b64": None}),
        asking(),
    ),
    Defect(
        "result-201",
        "Says 201 to a picture.",
        ("RES-1",),
        pictures(lambda _, answer: answer.saying(answer.document, 201)),
        asking(),
    ),
    Defect(
        "result-text-html",
        "Says text/html of its JSON.",
        ("RES-1",),
        pictures(lambda _, answer: answer.being(answer.body, "text/html; charset=utf-8")),
        asking(),
    ),
)

ERRORS: Final = (
    Defect(
        "error-detail-text",
        "Tells a broken rule in a sentence, and not in a list.",
        ("RES-4",),
        changed_detail(lambda errors: "; ".join(each["msg"] for each in errors)),
        asking(scale=-1),
    ),
    Defect(
        "error-detail-object",
        "Tells a single error without a list around it.",
        ("RES-4",),
        changed_detail(lambda errors: errors[0] if len(errors) == 1 else errors),
        asking(scale=-1),
    ),
    Defect(
        "error-under-errors",
        "Tells the errors under errors, and not under detail.",
        ("RES-4",),
        of_status(422, lambda answer: answer.saying({"errors": answer.document["detail"]})),
        asking(scale=-1),
    ),
    Defect(
        "error-400",
        "Says 400 to whatever breaks a rule.",
        ("RES-4",),
        patched(InvalidRequest, "status", 400),
        asking(scale=-1),
    ),
    Defect(
        "error-200",
        "Says 200 to whatever breaks a rule, and tells it in the body.",
        ("RES-4",),
        patched(InvalidRequest, "status", 200),
        asking(scale=-1),
    ),
    Defect(
        "error-500",
        "Does not catch what its reading of the fields raises.",
        ("RES-5", "RES-4"),
        of_status(422, lambda answer: answer.saying({"detail": "Internal Server Error"}, 500)),
        asking(scale=-1),
    ),
    Defect(
        "error-loc-without-body",
        "Leaves body out of where an error is.",
        ("RES-4",),
        loc(lambda where: where[1:]),
        asking(scale=-1),
    ),
    Defect(
        "error-loc-without-field",
        "Tells every error on the body as a whole.",
        ("RES-4",),
        loc(lambda where: where[:1]),
        asking(scale=-1),
    ),
    Defect(
        "error-loc-text",
        "Writes where an error is as body.scale.",
        ("RES-4",),
        loc(".".join),
        asking(scale=-1),
    ),
    Defect(
        "error-loc-query",
        "Tells the errors of the body on the query.",
        ("RES-4",),
        loc(lambda where: ["query", *where[1:]]),
        asking(scale=-1),
    ),
    Defect(
        "error-loc-first-field",
        "Tells errors on the first field of the request, whichever is wrong.",
        ("RES-4", "REQ-15"),
        loc(lambda _: ["body", "init_image"]),
        asking(scale=-1),
    ),
    Defect(
        "error-without-msg",
        "Tells no msg.",
        ("RES-4",),
        changed_error(lambda error: {k: v for k, v in error.items() if k != "msg"}),
        asking(scale=-1),
    ),
    Defect(
        "error-without-type",
        "Tells no type.",
        ("RES-4",),
        changed_error(lambda error: {k: v for k, v in error.items() if k != "type"}),
        asking(scale=-1),
    ),
    Defect(
        "error-with-input",
        "Repeats under input what was sent, as FastAPI does by itself.",
        ("RES-4",),
        echoing(lambda error, value: error | {"input": value}),
        asking(model="a-name-of-my-own"),
    ),
    Defect(
        "error-with-value-in-msg",
        "Repeats in its msg the value that was sent.",
        ("RES-4",),
        echoing(lambda error, value: error | {"msg": f"{value!r}: {error['msg']}"}),
        asking(model="a-name-of-my-own"),
    ),
    Defect(
        "error-in-html",
        "Tells a broken rule on a page for people.",
        ("RES-4",),
        of_status(422, lambda answer: answer.being(HTML, "text/html")),
        asking(scale=-1),
    ),
    Defect(
        "error-another-the-second-time",
        "Says 400 to the same broken request when it comes again.",
        ("RES-4",),
        impatient(),
        twice(asking(scale=-1)),
    ),
)
