"""The steps of tests of what OctoAI had not (EXT-1 to EXT-6), each of which requires its rule."""

import secrets
from typing import Any, Final
from urllib.parse import urlencode

from contract_tests.failures import NotOffered
from contract_tests.judge.checks import read_json_object
from contract_tests.judge.events import Event, parse_events
from contract_tests.judge.expectations import SUCCESS, ExpectedResponse
from contract_tests.judge.run import Run
from contract_tests.oracle.oracle import Loc
from contract_tests.requests.images import SampleImage
from contract_tests.requests.request import (
    ASYNC_HEADER,
    AUTHORIZATION,
    SHORTER_TOKEN,
    Headers,
    Request,
    upscaling_request,
)
from contract_tests.target.client import is_url
from contract_tests.target.response import Response

REQUESTS: Final = "/v1/requests"
UNKNOWN: Final = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6"
EVENTS: Final = ("Accept", "text/event-stream")
MISSING: Final = frozenset({404, 405, 501})
"""What a target says of a route or a method that it has not."""
WITHOUT_TOKEN: Final[tuple[Headers, ...]] = ((), (("Authorization", f"Bearer {SHORTER_TOKEN}"),))


def image_request(run: Run, seed: int, encoding: str = "png") -> Request:
    """A request for an image whose size differs from those of other seeds, too."""
    fields = {"scale": 1.5, "output_image_encoding": encoding}
    image = SampleImage(256, 300 + seed, "png", seed, "palette")
    return upscaling_request(fields, image).with_model(run.models)


def start(run: Run, request: Request) -> dict[str, str]:
    """Start an asynchronous inference: its response_id and poll_url; empty while planning.

    Of what the response is beyond that (ASY-1) nothing is required, so that a mistake there hides
    nothing here.
    """
    response = run.send(request.with_headers(ASYNC_HEADER), images=1)
    if response is None:
        return {}
    accepted = read_json_object(response, "ASY-1", run.policy)
    right = response.status in SUCCESS and "response_id" in accepted
    right = right and is_url(accepted.get("poll_url"))
    run.require_or_stop(right, "ASY-1", f"there is no poll_url: {response.summary}")
    return accepted


def require_offered(request: Request, response: Response | None) -> None:
    """Raise NotOffered if the target has no such route or method; nothing while planning."""
    if response is not None and response.status in MISSING:
        path = request.path.partition("?")[0]
        raise NotOffered(f"the target says {response.status} to {request.method} {path}")


def fields_of(run: Run, response: Response | None, rule: str) -> dict[str, Any]:
    """The JSON object in a 200; empty while planning."""
    if response is None:
        return {}
    sentence = f"the response is not a 200: {response.summary}"
    run.require_or_stop(response.status == 200, rule, sentence)
    return read_json_object(response, rule, run.policy)


def require_deleted(run: Run, url: str, rule: str) -> None:
    """Delete what is at a URL, and require a 204. Raises NotOffered if nothing can be deleted."""
    response = run.send(get(url, method="DELETE"))
    require_offered(get("what was started", method="DELETE"), response)
    assert response is not None, "a plan starts nothing"
    run.require(response.status == 204, rule, f"the response is not a 204: {response.summary}")


def require_refused(run: Run, request: Request, rule: str, status: int, loc: Loc = ()) -> None:
    """Require that a request is refused with this status, a 422 at `loc` alone."""
    response = run.send(request)
    if response is None:
        return
    refusals = frozenset({frozenset({loc})} if loc else ())
    expected = ExpectedResponse(frozenset({status}), (rule,), refusals)
    run.check_response_to(request, response, rule, expected)


def require_token(run: Run, request: Request, rule: str) -> None:
    """Require that a request is a 401 without a token, and with a wrong one."""
    for headers in WITHOUT_TOKEN:
        require_refused(run, request.without_headers("Authorization").with_headers(*headers),
                        rule, 401)  # fmt: skip


def get(path: str, *headers: tuple[str, str], method: str = "GET") -> Request:
    """A request without a body, with the token."""
    return Request(method=method, path=path, headers=(AUTHORIZATION, *headers))


# Keys


def new_key() -> str:
    """An Idempotency-Key that no run has sent before: a target keeps them for a day."""
    return f"contract-{secrets.token_hex(12)}"


def with_key(request: Request, key: str) -> Request:
    """The same request with this Idempotency-Key."""
    return request.with_headers(("Idempotency-Key", key))


# The list


def page(run: Run, **query: object) -> dict[str, Any]:
    """One page of the list of inferences, whose entries have ids and the URLs to poll."""
    request = get(f"{REQUESTS}?{urlencode(query)}" if query else REQUESTS)
    response = run.send(request)
    require_offered(request, response)
    found = fields_of(run, response, "EXT-3")
    entries = found.get("requests", [])
    whole = isinstance(entries, list) and all(
        isinstance(entry, dict)
        and all(isinstance(entry.get(name), str) for name in ("response_id", "status", "poll_url"))
        for entry in entries
    )
    sentence = (
        f"requests is no list of response_id, status and poll_url: {response and response.summary}"
    )
    run.require_or_stop(whole, "EXT-3", sentence)
    return found | {"requests": entries}


def ids(found: dict[str, Any]) -> list[str]:
    """The ids on a page."""
    return [entry["response_id"] for entry in found["requests"]]


# Events


def events_in(run: Run, response: Response, rule: str) -> list[Event]:
    """The events in a response, each of which has a name and an id."""
    is_stream = response.status == 200 and response.media_type == EVENTS[1]
    run.require_or_stop(is_stream, rule, f"this is no stream of events: {response.summary}")
    try:
        events = parse_events(response.body)
    except ValueError as error:
        run.require_or_stop(False, rule, f"the events cannot be read: {error}")
        raise AssertionError("require_or_stop has raised") from error
    named = all(event.id and event.name != "message" for event in events)
    run.require(named, rule, f"an event has no name or no id: {response.summary}")
    return events
