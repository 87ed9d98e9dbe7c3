"""Mistakes with asynchronous inference: what is promised, how far it is, and what comes of it."""

import base64
import io
import re
import uuid
from collections.abc import Callable
from typing import Any, Final

import httpx
from PIL import Image

from mock_server.backend.jobs import MockJobStore
from tests.contract_tests.defects.headers import read_as
from tests.contract_tests.defects.planting import (
    Answer,
    Asked,
    Defect,
    Fields,
    Planting,
    changed_answer,
    remembering,
    replaced,
)
from tests.contract_tests.defects.probes import (
    ASYNC,
    asking,
    awaiting,
    file,
    promised,
    promising,
    saved,
    seen,
    text,
)
from upscaler.errors import UnknownJob
from upscaler.service.backend import UpscaleResult
from upscaler.service.jobs.store import NOT_COMPLETED

POLLS, RESULTS = "/v1/requests/", "/v1/responses/"


def promises(change: Callable[[Asked, Fields], object], status: int = 200) -> Planting:
    """Let the answers be others that promise a picture."""

    def changed(asked: Asked, answer: Answer) -> Answer:
        told = answer.document if asked.path == "/upscaling" else None
        if not isinstance(told, dict) or "poll_url" not in told:
            return answer
        return answer.saying(change(asked, told), status)

    return changed_answer(changed)


def poll_url(change: Callable[[str], str]) -> Planting:
    """Give another URL to poll."""
    return promises(lambda _, told: told | {"poll_url": change(told["poll_url"])})


def polled(change: Callable[[Fields], object]) -> Planting:
    """Let the answers be others that tell how far an inference is."""

    def changed(asked: Asked, answer: Answer) -> Answer:
        is_poll = asked.path.startswith(POLLS) and answer.status == 200
        return answer.saying(change(answer.document)) if is_poll else answer

    return changed_answer(changed)


def asynchronously(value: str | None) -> Callable[[dict[str, str]], dict[str, str]]:
    """Another X-OctoAI-Async than was sent."""

    def changed(headers: dict[str, str]) -> dict[str, str]:
        if "x-octoai-async" not in headers:
            return headers
        rest = {name: held for name, held in headers.items() if name != "x-octoai-async"}
        return rest if value is None else rest | {"x-octoai-async": value}

    return changed


def result_of(other: Callable[[list[str]], str]) -> Planting:
    """Give the result of another inference."""

    def around(result: Callable[..., Any]) -> Any:
        async def resulting(store: MockJobStore, job_id: str, *more: Any) -> UpscaleResult:
            known = list(store._jobs)
            given = other(known) if job_id in known else job_id
            made: UpscaleResult = await result(store, given, *more)
            return made

        return resulting

    return replaced(MockJobStore, "result", around)


def missing(*, first: bool) -> Planting:
    """Give no result at the first time, or else at none but the first."""

    def around(result: Callable[..., Any]) -> Any:
        asked: set[str] = set()

        async def resulting(store: MockJobStore, job_id: str, *more: Any) -> UpscaleResult:
            made: UpscaleResult = await result(store, job_id, *more)
            is_first = job_id not in asked
            asked.add(job_id)
            if is_first == first:
                raise UnknownJob(NOT_COMPLETED)
            return made

        return resulting

    return replaced(MockJobStore, "result", around)


def two_results(client: httpx.Client) -> object:
    """The results of two inferences, and the first of them again."""
    pictures = file(), file(320, 280)
    known = [promised(client, init_image=text(picture)) for picture in pictures]
    for identifier in known:
        client.get(f"{POLLS}{identifier}")
    return [seen(client, client.get(f"{RESULTS}{each}")) for each in (*known, known[0])]


def accepting_later(client: httpx.Client) -> object:
    """What comes if the result is asked for as a file, and was not when it was ordered."""
    identifier = promised(client)
    client.get(f"{POLLS}{identifier}")
    return seen(client, client.get(f"{RESULTS}{identifier}", headers={"Accept": "image/png"}))


def other_file(asked: Asked, answer: Answer) -> Answer:
    """The result as a PNG, even where a JPEG was asked for."""
    told = answer.document
    if not asked.path.startswith(RESULTS) or not isinstance(told, dict) or "image_b64" not in told:
        return answer
    picture = Image.open(io.BytesIO(base64.b64decode(told["image_b64"])))
    return answer.saying(told | {"image_b64": text(saved(picture))})


def as_accepted_now(asked: Asked, answer: Answer) -> Answer:
    """The result as whoever fetches it accepts it."""
    told = answer.document
    is_result = asked.path.startswith(RESULTS) and answer.status == 200
    if not is_result or told is None or asked.headers.get("accept") != "image/png":
        return answer
    return answer.being(base64.b64decode(told["image_b64"]), "image/png")


def wrapped(asked: Asked, answer: Answer) -> Answer:
    """The result with its status beside it."""
    if not asked.path.startswith(RESULTS) or answer.status != 200 or answer.document is None:
        return answer
    return answer.saying({"status": "completed", "result": answer.document})


def told_later() -> Callable[[Asked, Answer], Answer]:
    """What is refused is promised first, and refused when it is fetched."""
    refused: dict[str, Answer] = {}

    def changed(asked: Asked, answer: Answer) -> Answer:
        identifier = asked.path.rpartition("/")[2]
        if asked.path == "/upscaling" and answer.status == 422:
            if asked.headers.get("x-octoai-async") != "1":
                return answer
            identifier = uuid.uuid4().hex
            refused[identifier] = answer
            url = f"http://{asked.headers['host']}"
            told = {"response_id": identifier, "poll_url": f"{url}{POLLS}{identifier}"}
            return answer.saying(told, 200)
        if identifier not in refused or not asked.has_token:
            return answer
        if asked.path.startswith(RESULTS):
            return refused[identifier]
        url = f"http://{asked.headers['host']}{RESULTS}{identifier}"
        return answer.saying({"status": "completed", "response_url": url}, 200)

    return changed


PROMISES: Final = (
    Defect(
        "async-ignored",
        "Ignores X-OctoAI-Async, and answers with the picture.",
        ("ASY-1",),
        read_as(asynchronously(None)),
        promising(),
    ),
    Defect(
        "async-whatever-it-says",
        "Takes X-OctoAI-Async: 0 for a 1.",
        ("ASY-1",),
        read_as(asynchronously("1")),
        asking({"X-OctoAI-Async": "0"}),
    ),
    Defect(
        "async-202",
        "Says 202 to what it promises.",
        ("ASY-1",),
        promises(lambda _, told: told, 202),
        promising(),
    ),
    Defect(
        "async-without-poll-url",
        "Gives an id, and no URL.",
        ("ASY-1",),
        promises(lambda _, told: {"response_id": told["response_id"]}),
        promising(),
    ),
    Defect(
        "async-without-id",
        "Gives a URL, and no id.",
        ("ASY-1",),
        promises(lambda _, told: {"poll_url": told["poll_url"]}),
        lambda client: sorted(client.post("/upscaling", json=_good(), headers=ASYNC).json()),
    ),
    Defect(
        "async-id-under-another-name",
        "Calls the id request_id.",
        ("ASY-1",),
        promises(lambda _, t: {"request_id": t["response_id"], "poll_url": t["poll_url"]}),
        lambda client: sorted(client.post("/upscaling", json=_good(), headers=ASYNC).json()),
    ),
    Defect(
        "async-poll-url-relative",
        "Gives a URL without scheme and host.",
        ("ASY-1", "ASY-2"),
        poll_url(lambda url: re.sub("^https?://[^/]*", "", url)),
        promising(),
    ),
    Defect(
        "async-poll-url-without-port",
        "Leaves the port out of the URL.",
        ("ASY-1", "ASY-2"),
        poll_url(lambda url: re.sub(":[0-9]+/", "/", url)),
        promising(),
    ),
    Defect(
        "async-poll-url-elsewhere",
        "Gives a URL at a path that is not there.",
        ("ASY-1", "ASY-2"),
        poll_url(lambda url: url.replace(POLLS, "/v1/request/")),
        promising(),
    ),
    Defect(
        "async-refuses-later",
        "Promises what breaks a rule, and tells that only in the result.",
        ("ASY-1",),
        remembering(told_later),
        lambda client: (
            client.post("/upscaling", json=_good() | {"scale": -1}, headers=ASYNC).status_code
        ),
    ),
)

COURSE: Final = (
    Defect(
        "poll-never-completed",
        "Says running for ever.",
        ("ASY-2",),
        polled(lambda _: {"status": "running"}),
        awaiting(),
    ),
    Defect(
        "poll-another-word",
        "Says succeeded for completed.",
        ("ASY-2",),
        polled(lambda told: told | {"status": "succeeded"}),
        awaiting(),
    ),
    Defect(
        "poll-in-capitals",
        "Says COMPLETED for completed.",
        ("ASY-2",),
        polled(lambda told: told | {"status": told["status"].upper()}),
        awaiting(),
    ),
    Defect(
        "poll-without-response-url",
        "Says completed, and gives no URL.",
        ("ASY-2",),
        polled(lambda told: {"status": told["status"]}),
        awaiting(),
    ),
    Defect(
        "poll-response-url-of-poll",
        "Gives the URL again that was polled.",
        ("ASY-2",),
        polled(lambda t: t | {"response_url": t["response_url"].replace(RESULTS, POLLS)}),
        awaiting(),
    ),
    Defect(
        "poll-completed-too-early",
        "Says completed before the result is there.",
        ("ASY-2", "ASY-3"),
        missing(first=True),
        awaiting(),
    ),
    Defect(
        "result-of-the-latest",
        "Gives the result of the latest inference, whichever is asked for.",
        ("ASY-3",),
        result_of(lambda known: known[-1]),
        two_results,
    ),
    Defect(
        "result-of-the-first",
        "Gives the result of the first inference, whichever is asked for.",
        ("ASY-3",),
        result_of(lambda known: known[0]),
        two_results,
    ),
    Defect(
        "result-always-png",
        "Makes a PNG of an asynchronous picture even where JPEG is named.",
        ("ASY-3", "RES-2"),
        changed_answer(other_file),
        awaiting(output_image_encoding="jpeg"),
    ),
    Defect(
        "result-by-later-accept",
        "Gives a result as the one accepts it who fetches it, and not as it was ordered.",
        ("ASY-3",),
        changed_answer(as_accepted_now),
        accepting_later,
    ),
    Defect(
        "result-wrapped",
        "Puts the result under result.",
        ("ASY-3",),
        changed_answer(wrapped),
        awaiting(),
    ),
    Defect(
        "result-only-once",
        "Forgets a result once it was fetched.",
        ("ASY-4",),
        missing(first=False),
        two_results,
    ),
)


def _good() -> dict[str, object]:
    """Fields with which nothing is wrong."""
    return {"init_image": text(file()), "scale": 1}
