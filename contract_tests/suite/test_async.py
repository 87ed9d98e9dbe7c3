"""Asynchronous inference: a promise at once, and the picture later."""

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
MIN_ID: Final = 16
"""An id that cannot be guessed has at least so many characters."""
UNKNOWN: Final = "00000000-0000-4000-8000-000000000000"


def asked(run: Run, seed: int, encoding: str = "png") -> Request:
    """A request for a picture that is told from those of other seeds by its size, too."""
    fields = {"scale": 1.5, "output_image_encoding": encoding}
    sent = SampleImage(256, 300 + seed, "png", seed, "palette")
    return upscaling_request(fields, sent).with_model(run.models)


def get(run: Run, path: str, *headers: tuple[str, str]) -> Response | None:
    """What is at a path or URL, with the token and these headers."""
    return run.send(Request(method="GET", path=path, headers=(AUTHORIZATION, *headers)))


def promised(run: Run, request: Request) -> dict[str, str]:
    """The ids and URLs of an asynchronous answer, absolute ones."""
    response = run.check(request.with_headers(ASYNC_HEADER))
    if response is None:
        return {}
    told = read_json_object(response, "ASY-1", run.policy)
    url = told.get("poll_url")
    run.require_or_stop(is_url(url), "ASY-1", f"poll_url is no whole URL: {url}")
    return told


def result_url(run: Run, promise: dict[str, str]) -> str:
    """Where the result is, once it is there (ASY-2)."""
    began_s, pause_s, reached = time.monotonic(), FIRST_PAUSE_S, 0
    while time.monotonic() - began_s < run.target.options.timeout_s:
        response = get(run, promise["poll_url"])
        assert response is not None, "while planning nothing is promised"
        run.require_or_stop(
            response.status in (200, 202), "ASY-2", f"the poll_url answers {response.summary}"
        )
        told = read_json_object(response, "ASY-2", run.policy)
        status, url = told.get("status"), told.get("response_url")
        sentence = f"the status is {status} after {STATUSES[reached]}"
        run.require_or_stop(status in STATUSES[reached:], "ASY-2", sentence)
        reached = STATUSES.index(str(status))
        if status == STATUSES[-1]:
            run.require_or_stop(is_url(url), "ASY-2", f"response_url is {url}, and no whole URL")
            return str(url)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    timeout_s = run.target.options.timeout_s
    run.require_or_stop(False, "ASY-2", f"the inference was not completed in {timeout_s:g} s")
    raise AssertionError("what is needed is not there")


def check_result(
    run: Run, request: Request, url: str, *headers: tuple[str, str], rule: str = "ASY-3"
) -> None:
    """The result is what the synchronous request would have given, whatever these headers say."""
    response = get(run, url, *headers)
    assert response is not None, "while planning nothing is promised"
    run.check_response_to(request, response, rule)


@rule("ASY-1", "ASY-2", "ASY-3", "ASY-4")
@pytest.mark.billable
@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_an_asynchronous_request_gets_its_picture_later(run: Run, encoding: str) -> None:
    request = asked(run, 51, encoding)
    promise = promised(run, request)
    if promise:
        url = result_url(run, promise)
        check_result(run, request, url)
        check_result(run, request, url, rule="ASY-4")  # it is kept
        if run.policy.strict:
            check_result(run, request, url, ("Accept", "image/png"))


@rule("ASY-1")
@pytest.mark.strict
@pytest.mark.billable
def test_a_header_that_says_no_asks_for_a_picture_at_once(run: Run) -> None:
    run.check(asked(run, 57).with_headers((ASYNC_HEADER[0], "0")))


@rule("ASY-3", "ASY-5")
@pytest.mark.billable
def test_each_request_gets_its_own_picture(run: Run) -> None:
    requests = [asked(run, seed) for seed in (52, 53, 54)]
    promises = [promised(run, request) for request in requests]
    if not all(promises):
        return
    ids = [promise["response_id"] for promise in promises]
    run.require(len(set(ids)) == len(ids), "ASY-5", f"several inferences have one id: {ids}")
    for request, promise in reversed(list(zip(requests, promises, strict=True))):
        check_result(run, request, result_url(run, promise))


@rule("ASY-5")
@pytest.mark.strict
@pytest.mark.billable
def test_an_id_cannot_be_guessed_and_is_of_no_use_without_a_token(run: Run) -> None:
    promises = [promised(run, asked(run, 55)), promised(run, asked(run, 56))]
    if not all(promises):
        return
    one, two = (promise["response_id"] for promise in promises)
    apart = sum(a != b for a, b in zip(one, two, strict=False))
    hard = min(len(one), len(two)) >= MIN_ID and apart >= MIN_ID // 2
    run.require(hard, "ASY-5", f"the ids are short or alike: {one}, {two}")
    for url in (promises[0]["poll_url"], result_url(run, promises[0])):
        for headers in ((), (("Authorization", f"Bearer {SHORTER_TOKEN}"),)):
            response = run.send(Request(method="GET", path=url, headers=headers))
            assert response is not None, "while planning nothing is promised"
            run.require(response.status == 401, "ASY-5", f"without a token: {response.summary}")


@rule("ASY-4", "RES-7")
@pytest.mark.strict
@pytest.mark.parametrize("kind", ["requests", "responses"])
@pytest.mark.parametrize("name", [UNKNOWN, "x", "a" * 32])
def test_an_unknown_id_is_a_404(run: Run, kind: str, name: str) -> None:
    run.check(Request(method="GET", path=f"/v1/{kind}/{name}", headers=(AUTHORIZATION,)))
