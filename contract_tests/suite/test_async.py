"""Asynchronous inference: accepted at once, with the image later."""

import time
from typing import Final

import pytest

from contract_tests.judge.checks import read_json_object
from contract_tests.judge.run import Run
from contract_tests.requests.images import SampleImage
from contract_tests.requests.request import (
    ASYNC_HEADER,
    AUTHORIZATION,
    SHORTER_TOKEN,
    Request,
    upscaling_request,
)
from contract_tests.target.client import is_url
from contract_tests.target.response import Response

rule = pytest.mark.rule
FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 5.0
STATUSES: Final = ("pending", "running", "completed")
MIN_ID_CHARACTERS: Final = 16
"""The least length of an id that cannot be guessed."""
UNKNOWN_ID: Final = "00000000-0000-4000-8000-000000000000"


def image_request(run: Run, seed: int, encoding: str = "png") -> Request:
    """A request for an image whose size differs from those of other seeds, too."""
    fields = {"scale": 1.5, "output_image_encoding": encoding}
    sent = SampleImage(256, 300 + seed, "png", seed, "palette")
    return upscaling_request(fields, sent).with_model(run.models)


def get(run: Run, path: str, *headers: tuple[str, str]) -> Response | None:
    """The response to a GET with the token and these headers."""
    return run.send(Request(method="GET", path=path, headers=(AUTHORIZATION, *headers)))


def start_inference(run: Run, request: Request) -> dict[str, str]:
    """The ids and absolute URLs in the response to an asynchronous request (ASY-1)."""
    response = run.check(request.with_headers(ASYNC_HEADER))
    if response is None:
        return {}
    fields = read_json_object(response, "ASY-1", run.policy)
    url = fields.get("poll_url")
    run.require_or_stop(is_url(url), "ASY-1", f"poll_url is not an absolute URL: {url}")
    return fields


def wait_for_result(run: Run, accepted: dict[str, str]) -> str:
    """Poll until the inference has completed, and return the response_url (ASY-2)."""
    began_s, pause_s, reached = time.monotonic(), FIRST_PAUSE_S, 0
    while time.monotonic() - began_s < run.target.options.timeout_s:
        response = get(run, accepted["poll_url"])
        assert response is not None, "a plan starts no inference"
        run.require_or_stop(
            response.status in (200, 202), "ASY-2", f"the poll_url returned {response.summary}"
        )
        fields = read_json_object(response, "ASY-2", run.policy)
        status, url = fields.get("status"), fields.get("response_url")
        # No source says that an inference cannot wait again, as after a container has stopped.
        possible = STATUSES[reached:] if run.policy.strict else STATUSES
        sentence = f"the status is {status} after {STATUSES[reached]}"
        run.require_or_stop(status in possible, "ASY-2", sentence)
        reached = STATUSES.index(str(status))
        if status == STATUSES[-1]:
            run.require_or_stop(is_url(url), "ASY-2", f"response_url is {url}, not an absolute URL")
            return str(url)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    timeout_s = run.target.options.timeout_s
    run.require_or_stop(False, "ASY-2", f"the inference was not completed in {timeout_s:g} s")
    raise AssertionError("require_or_stop has raised")


def check_result(
    run: Run, request: Request, url: str, *headers: tuple[str, str], rule: str = "ASY-3"
) -> None:
    """The result is what the synchronous request would have returned, whatever the headers."""
    response = get(run, url, *headers)
    assert response is not None, "a plan starts no inference"
    run.check_response_to(request, response, rule)


@rule("ASY-1", "ASY-2", "ASY-3", "ASY-4")
@pytest.mark.billable
@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_an_asynchronous_request_returns_its_image_later(run: Run, encoding: str) -> None:
    request = image_request(run, 51, encoding)
    accepted = start_inference(run, request)
    if accepted:
        url = wait_for_result(run, accepted)
        check_result(run, request, url)
        check_result(run, request, url, rule="ASY-4")  # results are kept
        if run.policy.strict:
            check_result(run, request, url, ("Accept", "image/png"))


@rule("ASY-1")
@pytest.mark.strict
@pytest.mark.billable
def test_an_async_header_of_0_is_a_synchronous_request(run: Run) -> None:
    run.check(image_request(run, 57).with_headers((ASYNC_HEADER[0], "0")))


@rule("ASY-3", "ASY-5")
@pytest.mark.billable
def test_each_asynchronous_request_gets_its_own_image(run: Run) -> None:
    requests = [image_request(run, seed) for seed in (52, 53, 54)]
    accepted_requests = [start_inference(run, request) for request in requests]
    if not all(accepted_requests):
        return
    ids = [accepted["response_id"] for accepted in accepted_requests]
    run.require(len(set(ids)) == len(ids), "ASY-5", f"several inferences have the same id: {ids}")
    # In reverse: in the order of the requests, a target that returns the next result would pass.
    for request, accepted in reversed(list(zip(requests, accepted_requests, strict=True))):
        check_result(run, request, wait_for_result(run, accepted))


@rule("ASY-5")
@pytest.mark.strict
@pytest.mark.billable
def test_an_id_cannot_be_guessed_and_is_useless_without_a_token(run: Run) -> None:
    accepted_requests = [
        start_inference(run, image_request(run, 55)),
        start_inference(run, image_request(run, 56)),
    ]
    if not all(accepted_requests):
        return
    one, two = (accepted["response_id"] for accepted in accepted_requests)
    apart = sum(a != b for a, b in zip(one, two, strict=False))
    hard = min(len(one), len(two)) >= MIN_ID_CHARACTERS and apart >= MIN_ID_CHARACTERS // 2
    run.require(hard, "ASY-5", f"the ids are short or similar: {one}, {two}")
    for url in (accepted_requests[0]["poll_url"], wait_for_result(run, accepted_requests[0])):
        for headers in ((), (("Authorization", f"Bearer {SHORTER_TOKEN}"),)):
            response = run.send(Request(method="GET", path=url, headers=headers))
            assert response is not None, "a plan starts no inference"
            run.require(response.status == 401, "ASY-5", f"without a token: {response.summary}")


@rule("ASY-4", "RES-7")
@pytest.mark.strict
@pytest.mark.parametrize("kind", ["requests", "responses"])
@pytest.mark.parametrize("name", [UNKNOWN_ID, "x", "a" * 32])
def test_an_unknown_id_is_a_404(run: Run, kind: str, name: str) -> None:
    run.check(Request(method="GET", path=f"/v1/{kind}/{name}", headers=(AUTHORIZATION,)))
