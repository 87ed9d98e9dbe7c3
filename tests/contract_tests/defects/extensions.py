"""Mistakes with keys, cancellation, the list of inferences, and their events."""

import json
import re
from collections.abc import Callable
from typing import Any, Final

import httpx
from fastapi import Request

from tests.contract_tests.defects.asynchronous import POLLS
from tests.contract_tests.defects.planting import (
    Answer,
    Asked,
    Defect,
    Fields,
    Planting,
    changed_answer,
    changed_headers,
    patched,
    replaced,
)
from tests.contract_tests.defects.probes import ASYNC, Probe, promised, upscaled
from upscaler.service import app, inferences
from upscaler.service.jobs.memory import MemoryJobStore

KEY: Final = "Idempotency-Key"
LIST: Final = "/v1/requests"
EVENTS: Final = {"Accept": "text/event-stream"}


# Keys


def with_key(text: str, **fields: object) -> Probe:
    """The status of a request with a key."""
    return lambda client: upscaled(client, ASYNC | {KEY: text}, **fields).status_code


def same_id(*keys: str) -> Probe:
    """Whether a request has the same id with all of these keys."""
    return lambda client: len({promised(client, {KEY: key}) for key in keys}) == 1


def kept_for_later(client: httpx.Client) -> object:
    """Whether a synchronous request with a key is listed."""
    before = {each["response_id"] for each in listed(client, limit=100)}
    upscaled(client, {KEY: "at-once"})
    upscaled(client, {KEY: f"again-{len(before)}"})
    return {each["response_id"] for each in listed(client, limit=100)} != before


# Answers of the list, and of a deletion


def listed(client: httpx.Client, **query: int | str) -> list[Fields]:
    """The inferences on one page."""
    found: list[Fields] = client.get(LIST, params=query).json()["requests"]
    return found


def places(client: httpx.Client) -> object:
    """Where two new inferences are, and how many there are on a page of one."""
    new = [promised(client) for _ in range(2)]
    found = [each["response_id"] for each in listed(client, limit=100)]
    return [found.index(each) for each in new], len(listed(client, limit=1))


def second_page(client: httpx.Client) -> object:
    """Whether the page behind the first is another one, if there is one."""
    for _ in range(2):
        promised(client)
    first = client.get(LIST, params={"limit": 1}).json()
    if "next_before" not in first:
        return None
    second = listed(client, limit=1, before=first["next_before"])
    # By their ids: how far a job is may have changed meanwhile.
    return [each["response_id"] for each in (*first["requests"], *second)].count(
        first["requests"][0]["response_id"]
    ) == 1


def changed_list(change: Callable[[Fields], Fields]) -> Planting:
    """Let the list be another."""

    def changed(asked: Asked, answer: Answer) -> Answer:
        is_list = asked.path == LIST and answer.status == 200
        return answer.saying(change(answer.document)) if is_list else answer

    return changed_answer(changed)


def changed_page(change: Callable[[int, str | None], tuple[int, str | None]]) -> Planting:
    """Read another limit and `before` than were sent."""
    return replaced(inferences, "_page", lambda right: lambda request: change(*right(request)))


def deleting(change: Callable[[Answer], Answer]) -> Planting:
    """Answer otherwise to DELETE."""
    return changed_answer(
        lambda asked, answer: change(answer) if asked.method == "DELETE" else answer
    )


def deleted(client: httpx.Client) -> object:
    """What comes of deleting an inference, and then what is known of it."""
    url = f"{POLLS}{promised(client)}"
    return client.delete(url).status_code, client.get(url).status_code


async def nothing_cancelled(store: MemoryJobStore, job_id: str, _owner: str) -> None:
    """Look whether there is such a job, and leave it."""
    store.find(job_id)


# Events


def changed_events(change: Callable[[list[str]], list[str]]) -> Planting:
    """Let the events of an inference be others, each of which is a text of several lines."""

    def changed(asked: Asked, answer: Answer) -> Answer:
        if asked.path.startswith("/v1/batches") or not _is_stream(answer):
            return answer
        events = [each for each in answer.body.decode().split("\n\n") if "data:" in each]
        body = "".join(f"{each}\n\n" for each in change(events)).encode()
        return answer.being(body, answer.headers["content-type"])

    return changed_answer(changed)


def _is_stream(answer: Answer) -> bool:
    return answer.headers.get("content-type", "").startswith("text/event-stream")


def with_falling_rows(events: list[str]) -> list[str]:
    """The same with rows that are left in place of those that are done, as some count."""
    data = re.findall("data: (.*)", events[-1])[0]
    falling = [json.dumps(json.loads(data) | {"rows_done": rows}) for rows in (200, 100)]
    return [
        *(f"event: progress\nid: left-{n}\ndata: {each}" for n, each in enumerate(falling)),
        events[-1],
    ]


def told(client: httpx.Client, **headers: str) -> object:
    """The last event of an inference that is completed, but for what is another each time."""
    identifier = promised(client)
    client.get(f"{POLLS}{identifier}")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.get(f"{POLLS}{identifier}/events", headers=named)
    text = answer.text.replace(identifier, "ID").replace(str(client.base_url), "BASE/")
    return answer.headers["Content-Type"], re.findall("(?:event|data): .*", text)


def not_again(asked: Asked) -> dict[str, str]:
    """The headers of a request without its Last-Event-ID."""
    is_ours = asked.path.startswith(POLLS)
    return {k: v for k, v in asked.headers.items() if not (is_ours and k == "last-event-id")}


def lenient_page(right: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """Take the usual limit in place of one that is none."""

    def paged(request: Request) -> tuple[int, str | None]:
        text = request.query_params.get("limit", "")
        good = text.isascii() and text.isdecimal() and 1 <= int(text) <= inferences.MOST_LISTED
        usual = (inferences.LISTED, request.query_params.get("before"))
        return right(request) if good else usual

    return paged


KEYS: Final = (
    Defect(
        "key-ignored",
        "Ignores Idempotency-Key, and starts another inference each time.",
        ("EXT-1",),
        patched(app, "key_of", lambda _: None),
        same_id("one", "one"),
    ),
    Defect(
        "key-alone-counts",
        "Looks at the key alone, and takes any request with it for the first one.",
        ("EXT-1",),
        patched(app, "fingerprint", lambda *_: ""),
        lambda client: (with_key("a")(client), with_key("a", scale=1.25)(client)),
    ),
    Defect(
        "key-of-any-text",
        "Takes any text for a key, whatever is in it and however long it is.",
        ("EXT-1",),
        patched(app, "key_of", lambda request: request.headers.get(KEY)),
        with_key("two words"),
    ),
    Defect(
        "key-with-its-quotes",
        "Takes a key in quotes for another one.",
        ("EXT-1",),
        replaced(
            app,
            "key_of",
            lambda right: lambda request: right(request) and request.headers[KEY],
        ),
        same_id("quoted", '"quoted"'),
    ),
    Defect(
        "key-of-asynchronous-alone",
        "Looks at a key only if the request is asynchronous.",
        ("EXT-1",),
        replaced(
            app,
            "key_of",
            lambda right: (
                lambda request: (
                    right(request) if request.headers.get("X-OctoAI-Async") == "1" else None
                )
            ),
        ),
        kept_for_later,
    ),
)

CANCELLED: Final = (
    Defect(
        "delete-leaves-it",
        "Says that it has deleted an inference, and leaves it.",
        ("EXT-2", "EXT-6"),
        patched(MemoryJobStore, "cancel", nothing_cancelled),
        deleted,
    ),
    Defect(
        "delete-200",
        "Says 200 to a deletion, with a sentence.",
        ("EXT-2", "EXT-6"),
        deleting(lambda a: a.saying({"detail": "deleted"}, 200) if a.status == 204 else a),
        deleted,
    ),
    Defect(
        "delete-unknown-200",
        "Says that it has deleted an inference which it does not know.",
        ("EXT-2", "EXT-6"),
        deleting(lambda a: a.saying({"detail": "deleted"}, 200) if a.status == 404 else a),
        lambda client: client.delete(f"{POLLS}unknown").status_code,
    ),
)

LISTED: Final = (
    Defect(
        "list-oldest-first",
        "Lists inferences from the oldest to the newest.",
        ("EXT-3",),
        changed_list(lambda found: found | {"requests": found["requests"][::-1]}),
        places,
    ),
    Defect(
        "list-limit-ignored",
        "Lists twenty inferences, whatever the limit is.",
        ("EXT-3",),
        changed_page(lambda _, before: (inferences.LISTED, before)),
        places,
    ),
    Defect(
        "list-limit-of-any-text",
        "Takes the usual limit in place of one that is none.",
        ("EXT-3",),
        replaced(inferences, "_page", lenient_page),
        lambda client: client.get(LIST, params={"limit": "x"}).status_code,
    ),
    Defect(
        "list-first-page-only",
        "Gives the first page again, whichever is asked for.",
        ("EXT-3",),
        changed_page(lambda limit, _: (limit, None)),
        second_page,
    ),
    Defect(
        "list-without-next",
        "Does not say that there is another page.",
        ("EXT-3",),
        changed_list(lambda found: {"requests": found["requests"]}),
        second_page,
    ),
    Defect(
        "list-without-token",
        "Shows to everybody what it has made.",
        ("EXT-3",),
        changed_headers(
            lambda asked: (
                asked.headers | {"authorization": f"Bearer {asked.token}"}
                if asked.path == LIST
                else asked.headers
            )
        ),
        lambda client: client.get(LIST, headers={"Authorization": "Bearer x"}).status_code,
    ),
)

WATCHED: Final = (
    Defect(
        "events-as-text",
        "Says text/plain of its events.",
        ("EXT-4", "EXT-6"),
        changed_answer(
            lambda _, answer: (
                answer.being(answer.body, "text/plain") if _is_stream(answer) else answer
            )
        ),
        told,
    ),
    Defect(
        "events-without-the-last",
        "Ends the events when an inference is completed, and does not tell that.",
        ("EXT-4",),
        changed_events(lambda events: events[:-1]),
        told,
    ),
    Defect(
        "events-with-falling-rows",
        "Tells in rows_done how many rows are left.",
        ("EXT-4",),
        changed_events(with_falling_rows),
        told,
    ),
    Defect(
        "events-without-response-url",
        "Tells that an inference is completed, and not where its result is.",
        ("EXT-4",),
        changed_events(lambda e: [re.sub(r', "response_url": "[^"]*"', "", each) for each in e]),
        told,
    ),
    Defect(
        "events-from-the-start",
        "Does not look at Last-Event-ID, and tells the last event again.",
        ("EXT-4",),
        changed_headers(not_again),
        lambda client: told(client, Last_Event_ID="completed"),
    ),
    Defect(
        "events-not-of-a-post",
        "Says 406 to a POST that accepts events.",
        ("EXT-4",),
        patched(app, "without_events", lambda accept: (accept, False)),
        lambda client: upscaled(client, EVENTS).status_code,
    ),
)
