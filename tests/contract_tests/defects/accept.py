"""Mistakes with what Accept asks for."""

import base64
from collections.abc import Callable
from typing import Final

from tests.contract_tests.defects.headers import read_as
from tests.contract_tests.defects.planting import (
    Answer,
    Asked,
    Defect,
    Planting,
    changed_answer,
    patched,
)
from tests.contract_tests.defects.probes import asking
from upscaler.errors import NotAcceptable

PNG, JPEG = {"Accept": "image/png"}, {"Accept": "image/jpeg"}


def files(change: Callable[[Asked, Answer], Answer]) -> Planting:
    """Let the answers be others that are a picture's file."""
    return changed_answer(
        lambda asked, answer: (
            change(asked, answer)
            if answer.headers.get("content-type", "").startswith("image/")
            else answer
        )
    )


def accepting(change: Callable[[str | None], str | None]) -> Planting:
    """Read another Accept than was sent."""

    def changed(headers: dict[str, str]) -> dict[str, str]:
        accept = change(headers.get("accept"))
        rest = {name: value for name, value in headers.items() if name != "accept"}
        return rest if accept is None else rest | {"accept": accept}

    return read_as(changed)


def not_acceptable(when: Callable[[str | None], bool]) -> Planting:
    """Say 406 to what can be given."""

    def changed(asked: Asked, answer: Answer) -> Answer:
        if (
            asked.path != "/upscaling"
            or answer.status != 200
            or not when(asked.headers.get("accept"))
        ):
            return answer
        return answer.saying({"detail": "Not Acceptable"}, 406)

    return changed_answer(changed)


def as_file_in_base64(_: Asked, answer: Answer) -> Answer:
    """The file as text."""
    kind = answer.headers["content-type"]
    return answer.being(base64.b64encode(answer.body), kind)


ACCEPT: Final = (
    Defect(
        "accept-ignored",
        "Gives JSON whatever Accept asks for.",
        ("RES-8",),
        accepting(lambda _: None),
        asking(PNG),
    ),
    Defect(
        "accept-jpeg-gets-png",
        "Gives a PNG to who accepts only JPEG.",
        ("RES-8",),
        accepting(lambda accept: "image/png" if accept == "image/jpeg" else accept),
        asking(JPEG),
    ),
    Defect(
        "accept-jpeg-says-png",
        "Says image/png of a JPEG.",
        ("RES-8",),
        files(lambda _, answer: answer.being(answer.body, "image/png")),
        asking(JPEG),
    ),
    Defect(
        "accept-encoding-goes-first",
        "Gives a file as output_image_encoding says, whatever Accept says.",
        ("RES-8",),
        accepting(lambda accept: "image/*" if (accept or "").startswith("image/") else accept),
        asking(JPEG, output_image_encoding="png"),
    ),
    Defect(
        "accept-file-without-type",
        "Says application/octet-stream of a file.",
        ("RES-8",),
        files(lambda _, answer: answer.being(answer.body, "application/octet-stream")),
        asking(PNG),
    ),
    Defect(
        "accept-file-in-base64",
        "Gives a file in base64.",
        ("RES-8",),
        files(as_file_in_base64),
        asking(PNG),
    ),
    Defect(
        "accept-406-missing",
        "Gives JSON to who accepts none of what there is.",
        ("RES-8",),
        accepting(lambda accept: None if accept == "text/html" else accept),
        asking({"Accept": "text/html"}),
    ),
    Defect(
        "accept-406-is-422",
        "Says 422 to who accepts none of what there is.",
        ("RES-8",),
        patched(NotAcceptable, "status", 422),
        asking({"Accept": "text/html"}),
    ),
    Defect(
        "accept-anything-refused",
        "Says 406 to who accepts anything.",
        ("RES-8",),
        not_acceptable(lambda accept: accept == "*/*"),
        asking({"Accept": "*/*"}),
    ),
    Defect(
        "accept-anything-gets-a-file",
        "Gives a file to who accepts anything.",
        ("RES-8",),
        accepting(lambda accept: "image/png" if accept in (None, "*/*") else accept),
        asking({"Accept": "*/*"}),
    ),
    Defect(
        "accept-empty-refused",
        "Says 406 where Accept is empty.",
        ("RES-8",),
        not_acceptable(lambda accept: accept == ""),
        asking({"Accept": ""}),
    ),
    Defect(
        "accept-weights-ignored",
        "Takes the first of what Accept names, whatever the q-values are.",
        ("RES-8",),
        accepting(lambda accept: accept.split(",")[0].split(";")[0] if accept else accept),
        asking({"Accept": "image/png;q=0.1, application/json"}),
    ),
    Defect(
        "accept-list-refused",
        "Says 406 where Accept names several types.",
        ("RES-8",),
        not_acceptable(lambda accept: "," in (accept or "")),
        asking({"Accept": "application/json, text/html"}),
    ),
    Defect(
        "accept-image-refused",
        "Says 406 to image/*.",
        ("RES-8",),
        not_acceptable(lambda accept: accept == "image/*"),
        asking({"Accept": "image/*"}),
    ),
    Defect(
        "accept-unreadable-refused",
        "Says 406 where it cannot read Accept.",
        ("RES-8",),
        not_acceptable(lambda accept: accept is not None and accept != "" and "/" not in accept),
        asking({"Accept": "nonsense"}),
    ),
    Defect(
        "vary-missing",
        "Does not say that its answers go by Accept.",
        ("RES-8",),
        changed_answer(lambda _, answer: answer.without("vary")),
        asking(),
    ),
)
