"""What is left of a request, and shows in another one: caches, state, and several workers."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import httpx

from tests.contract_tests.defects.planting import (
    Answer,
    Asked,
    Defect,
    Fields,
    Planting,
    changed_fields,
    remembering,
)
from tests.contract_tests.defects.probes import (
    DRY,
    Probe,
    asking,
    checking,
    promised,
    twice,
    upscaled,
)


def cached_by(key: Callable[[Asked], str]) -> Planting:
    """Give a picture again to whoever asks with the same key; none if that is empty."""

    def make() -> Callable[[Asked, Answer], Answer]:
        known: dict[str, Answer] = {}

        def changed(asked: Asked, answer: Answer) -> Answer:
            is_picture = asked.path == "/upscaling" and b'"image_b64"' in answer.body[:20]
            if not is_picture or not key(asked):
                return answer
            return known.setdefault(key(asked), answer)

        return changed

    return remembering(make)


def remembering_fields(make: Callable[[], Callable[[Fields], Fields]]) -> Planting:
    """Read other fields by what has a memory, and is made when it is planted."""

    def planted() -> AbstractContextManager[object]:
        return changed_fields(make())()

    return planted


def left_over(name: str) -> Planting:
    """Keep a field for the next request, which may leave it out."""

    def make() -> Callable[[Fields], Fields]:
        kept: Fields = {}

        def changed(fields: Fields) -> Fields:
            if name in fields:
                kept[name] = fields[name]
            return kept | fields

        return changed

    return remembering_fields(make)


def after_a_refusal(status: int) -> Planting:
    """Refuse what comes after a refusal, too."""

    def make() -> Callable[[Asked, Answer], Answer]:
        refused = [False]

        def changed(asked: Asked, answer: Answer) -> Answer:
            if asked.path != "/upscaling" or answer.status not in (200, 422):
                return answer
            before, refused[0] = refused[0], answer.status == 422
            if before and answer.status == 200:
                return answer.saying({"detail": "the worker was reset"}, status)
            return answer

        return changed

    return remembering(make)


def two_workers(wrong: Callable[[Asked, Answer], Answer]) -> Planting:
    """Have every other connection served by a worker that is not right."""

    def make() -> Callable[[Asked, Answer], Answer]:
        ports: dict[int, int] = {}

        def changed(asked: Asked, answer: Answer) -> Answer:
            worker = ports.setdefault(asked.port, len(ports)) % 2
            return wrong(asked, answer) if worker else answer

        return changed

    return remembering(make)


def result_unknown(asked: Asked, answer: Answer) -> Answer:
    """What is told by a worker that has not made it."""
    is_a_job = asked.path.startswith(("/v1/requests/", "/v1/responses/"))
    return answer.saying({"detail": "there is no such inference"}, 404) if is_a_job else answer


def without_token(asked: Asked, answer: Answer) -> Answer:
    """What is told by a worker with another token."""
    if asked.path != "/upscaling" or answer.status != 200:
        return answer
    return answer.saying({"detail": "the token is wrong"}, 401)


def busy_once(status: int, **headers: str) -> Planting:
    """Say once that there is too much to do."""

    def make() -> Callable[[Asked, Answer], Answer]:
        told = [False]

        def changed(asked: Asked, answer: Answer) -> Answer:
            if asked.path != "/upscaling" or answer.status != 200 or told[0]:
                return answer
            told[0] = True
            busy = answer.saying({"detail": "there is too much to do"}, status)
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return busy.without("retry-after") if not named else _with(busy, named)

        return changed

    return remembering(make)


def _with(answer: Answer, headers: dict[str, str]) -> Answer:
    return Answer(answer.status, answer.headers | headers, answer.body)


def on_connections(ask: Callable[[httpx.Client], object]) -> Probe:
    """Ask on three connections, one after the other."""

    def probing(client: httpx.Client) -> list[object]:
        told = []
        for _ in range(3):
            with httpx.Client(base_url=client.base_url, headers=client.headers) as other:
                told.append(ask(other))
        return told

    return probing


def promised_elsewhere(client: httpx.Client) -> object:
    """Ask for a picture for later, and about it on other connections."""
    path = f"/v1/responses/{promised(client)}"
    while client.get(path.replace("responses", "requests")).json().get("status") == "pending":
        pass
    return on_connections(lambda other: other.get(path).status_code)(client)


def two(first: dict[str, Any], second: dict[str, Any], **headers: str) -> Probe:
    """Ask for one picture after the other."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return twice(asking(sent, **first), asking(sent, **second))


CACHES: Final = (
    Defect(
        "cached-by-request-id",
        "Takes X-User-Request-ID for the key of a cache.",
        ("RES-2", "REQ-16", "REQ-9"),
        cached_by(lambda asked: asked.headers.get("x-user-request-id", "")),
        two({"scale": 1}, {"scale": 1.5}, X_User_Request_ID="an-id-for-several"),
    ),
    Defect(
        "cached-by-length",
        "Takes the length of the body for the key of a cache.",
        ("RES-2", "REQ-16", "REQ-9"),
        cached_by(lambda asked: asked.headers.get("content-length", "")),
        two({"scale": 1.5}, {"scale": 1.4}),
    ),
)

LEFT: Final = (
    Defect(
        "model-left-over",
        "Goes on with the model of the request before, if none is named.",
        ("REQ-8",),
        left_over("model"),
        twice(checking(model="real-esrgan-x2-plus"), checking()),
    ),
    Defect(
        "encoding-left-over",
        "Goes on with the encoding of the request before, if none is named.",
        ("REQ-9",),
        left_over("output_image_encoding"),
        two({"output_image_encoding": "jpeg"}, {}),
    ),
    Defect(
        "refused-after-a-refusal",
        "Refuses what comes after a refusal, since something is left of that.",
        ("RES-1", "RES-2"),
        after_a_refusal(400),
        twice(asking(scale=-1), asking()),
    ),
)

WORKERS: Final = (
    Defect(
        "results-of-one-worker",
        "Keeps inferences in one of two workers, and does not know them in the other.",
        ("ASY-2", "ASY-3", "ASY-4"),
        two_workers(result_unknown),
        promised_elsewhere,
    ),
    Defect(
        "token-of-one-worker",
        "Has another token in one of two workers.",
        ("REQ-2",),
        two_workers(without_token),
        on_connections(lambda client: upscaled(client, DRY).status_code),
    ),
)

BUSY: Final = (
    Defect(
        "503-without-retry-after",
        "Says 503 without Retry-After if there is too much to do.",
        ("RES-5",),
        busy_once(503),
        asking(),
    ),
    Defect(
        "429-without-retry-after",
        "Says 429 without Retry-After if there is too much to do.",
        ("RES-5",),
        busy_once(429),
        asking(),
    ),
    Defect(
        "503-with-retry-after-in-words",
        "Says soon in Retry-After, which no client can wait for.",
        ("RES-5",),
        busy_once(503, retry_after="soon"),
        asking(),
    ),
)
