"""Inferences that can be sent again, cancelled, listed and watched: what OctoAI had not.

A test of what the target lacks ends as not offered, by the target's own 404 or 405.
"""

from typing import Any, Final

import pytest

from contract_tests.judge.events import Event
from contract_tests.judge.run import Run
from contract_tests.requests.images import SampleImage
from contract_tests.requests.request import ASYNC_HEADER, Request, upscaling_request
from contract_tests.suite.extensions import (
    EVENTS,
    REQUESTS,
    UNKNOWN,
    events_in,
    fields_of,
    get,
    ids,
    image_request,
    new_key,
    page,
    require_deleted,
    require_offered,
    require_refused,
    require_token,
    start,
    with_key,
)
from contract_tests.suite.inference import check_result, wait_for_result
from contract_tests.target.client import is_url

rule = pytest.mark.rule
pytestmark = pytest.mark.strict
KEY_HEADER: Final = ("header", "idempotency-key")
MAX_PAGES: Final = 40
"""At most this many pages are turned to find an inference that was just started."""


# Sent again with a key


def start_with_key(run: Run, request: Request, key: str) -> str:
    """The id of an asynchronous request with a key; empty while planning."""
    keyed = with_key(request.with_headers(ASYNC_HEADER), key)
    response = run.send(keyed, images=1)
    if response is None:
        return ""
    run.check_response_to(keyed, response, "EXT-1")
    return str(fields_of(run, response, "EXT-1")["response_id"])


@rule("EXT-1")
@pytest.mark.parametrize("key", ["", "two words", "x" * 256, '""'])
def test_a_key_that_is_none_is_refused(run: Run, key: str) -> None:
    page(run, limit=1)  # a target without keys ignores the header, and mostly has no list either
    for request in (image_request(run, 101), image_request(run, 101).with_headers(ASYNC_HEADER)):
        require_refused(run, with_key(request, key), "EXT-1", 422, KEY_HEADER)


@rule("EXT-1")
@pytest.mark.billable
def test_a_key_leads_to_the_same_inference(run: Run) -> None:
    page(run, limit=1)
    request, key = image_request(run, 102), new_key()
    first = start_with_key(run, request, key)
    for again in (key, f'"{key}"'):
        other = start_with_key(run, request, again)
        run.require(other == first, "EXT-1", f"with the key again the id is {other}, not {first}")
    other = start_with_key(run, request, new_key())
    run.require(other != first, "EXT-1", "with another key the id is the same")


@rule("EXT-1")
@pytest.mark.billable
def test_a_key_leads_to_the_same_response(run: Run) -> None:
    """The synchronous request is an inference as well, which the list shows before it is asked."""
    before = ids(page(run, limit=100))
    request, key = image_request(run, 103), new_key()
    for number in range(2):
        response = run.send(with_key(request, key), images=1)
        if response is not None:
            run.check_response_to(request, response, "EXT-1")
        if not number:
            made = set(ids(page(run, limit=100))) - set(before)
    known = start_with_key(run, request, key)
    sentence = "a synchronous request and an asynchronous one with its key are two inferences"
    run.require(known in made, "EXT-1", sentence)


@rule("EXT-1")
@pytest.mark.billable
def test_another_request_with_a_key_is_refused(run: Run) -> None:
    page(run, limit=1)
    request, key = image_request(run, 104), new_key()
    first = start_with_key(run, request, key)
    image = SampleImage(256, 404, "png", 104, "palette")
    scaled = upscaling_request({"scale": 1.25, "output_image_encoding": "png"}, image)
    others = (image_request(run, 105), image_request(run, 104, "jpeg"), scaled)
    for other in others:
        keyed = with_key(other.with_model(run.models).with_headers(ASYNC_HEADER), key)
        require_refused(run, keyed, "EXT-1", 422, KEY_HEADER)
    again = start_with_key(run, request, key)
    run.require(again == first, "EXT-1", "after another request the key leads to another inference")


# Cancelled


@rule("EXT-2")
@pytest.mark.billable
def test_what_is_deleted_is_unknown(run: Run) -> None:
    """First a result, and then an inference that may be under way."""
    kept = start(run, image_request(run, 106))
    result_url = wait_for_result(run, kept) if kept else ""
    delete(run, kept, result_url)
    begun = start(run, image_request(run, 107))
    if begun:
        require_token(run, get(begun["poll_url"], method="DELETE"), "EXT-2")
    delete(run, begun)
    require_refused(run, get(f"{REQUESTS}/{UNKNOWN}", method="DELETE"), "EXT-2", 404)


def delete(run: Run, accepted: dict[str, str], result_url: str = "") -> None:
    """Delete an inference, and require that nothing of it is left; nothing while planning."""
    if not accepted:
        return
    require_deleted(run, accepted["poll_url"], "EXT-2")
    again = get(accepted["poll_url"], method="DELETE")
    for gone in (again, get(accepted["poll_url"]), get(result_url)):
        if gone.path:
            require_refused(run, gone, "EXT-2", 404)


# Listed


@rule("EXT-3")
@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "", "1.5"])
def test_a_limit_that_is_none_is_refused(run: Run, limit: str) -> None:
    page(run, limit=1)
    require_refused(run, get(f"{REQUESTS}?limit={limit}"), "EXT-3", 422, ("query", "limit"))


@rule("EXT-3")
def test_the_list_needs_a_token(run: Run) -> None:
    page(run, limit=1)
    require_token(run, get(REQUESTS), "EXT-3")


@rule("EXT-3")
@pytest.mark.billable
def test_the_newest_inferences_are_listed_first(run: Run) -> None:
    """Of those that are listed only ours are judged: others may use the token meanwhile."""
    page(run, limit=1)
    accepted = [start(run, image_request(run, seed)) for seed in (108, 109, 110)]
    if not all(accepted):
        return
    started = {each["response_id"]: each["poll_url"] for each in accepted}
    usual = page(run)
    run.require(len(ids(usual)) <= 20, "EXT-3", "without a limit there are more than 20")
    found: list[str] = []
    query: dict[str, object] = {"limit": 2}
    for _ in range(MAX_PAGES):
        listed = page(run, **query)
        run.require(len(ids(listed)) <= 2, "EXT-3", "there are more than the limit says")
        for entry in listed["requests"]:
            known = started.get(entry["response_id"])
            sentence = f"the list has another poll_url than the response had: {known}"
            run.require(known in (None, entry["poll_url"]), "EXT-3", sentence)
        found += [name for name in ids(listed) if name in started]
        if "next_before" not in listed or len(found) >= len(started):
            break
        query["before"] = listed["next_before"]
    wanted = list(started)[::-1]
    sentence = f"started were {', '.join(wanted)}, from the last to the first; listed {found}"
    run.require(found == wanted, "EXT-3", sentence)
    first = page(run, limit=1)
    run.require("next_before" in first, "EXT-3", "there is more, but no next_before")


# Watched


@rule("EXT-4")
@pytest.mark.billable
def test_an_inference_can_be_watched(run: Run) -> None:
    """By its URL, and then by the request that starts another one."""
    started = image_request(run, 111)
    accepted = start(run, started)
    if accepted:
        url = f"{accepted['poll_url']}/events"
        response = run.send(get(url))
        require_offered(get("a poll_url + /events"), response)
        assert response is not None, "a plan starts no inference"
        events = events_in(run, response, "EXT-4")
        check_events(run, started, events)
        known = events[-1].id
        response = run.send(get(url, ("Last-Event-ID", known)))
        assert response is not None, "a plan starts no inference"
        new = [event.id for event in events_in(run, response, "EXT-4")]
        run.require(known not in new, "EXT-4", "an event comes again after its Last-Event-ID")
        require_token(run, get(url), "EXT-4")
        require_refused(run, get(f"{REQUESTS}/{UNKNOWN}/events"), "EXT-4", 404)
    watched = image_request(run, 112).with_headers(EVENTS)
    response = run.send(watched, images=1)
    if response is not None:
        check_events(run, image_request(run, 112), events_in(run, response, "EXT-4"))
    wrong = upscaling_request({"scale": 0}, SampleImage(256, 256, "png", 113, "palette"))
    require_refused(run, wrong.with_headers(EVENTS), "EXT-4", 422, ("body", "scale"))


def check_events(run: Run, request: Request, events: list[Event]) -> None:
    """Require the events of an inference: in order, about it alone, and the last with its image."""
    names = [event.name for event in events]
    last = names[-1:] == ["completed"] and set(names[:-1]) <= {"queued", "progress"}
    run.require_or_stop(last, "EXT-4", f"the events are {', '.join(names) or 'none'}: not queued "
                        "and progress, and completed at the end")  # fmt: skip
    about = {str(event.data.get("response_id")) for event in events}
    run.require(len(about) == 1, "EXT-4", f"the events are about several inferences: {about}")
    rows: list[Any] = [event.data.get("rows_done") for event in events if event.name != "queued"]
    counted = all(type(each) is int for each in rows) and rows == sorted(rows)
    run.require(counted, "EXT-4", f"rows_done are {rows}, and should never fall")
    run.require(rows[-1] == events[-1].data.get("rows"), "EXT-4", "not all rows are done at last")
    url = events[-1].data.get("response_url")
    run.require_or_stop(is_url(url), "EXT-4", f"response_url is {url}, not an absolute URL")
    check_result(run, request, str(url), rule="EXT-4")
