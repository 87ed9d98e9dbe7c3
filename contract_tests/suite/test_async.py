"""Asynchronous inference: accepted at once, with the image later."""

from typing import Final

import pytest

from contract_tests.judge.run import Run
from contract_tests.requests.images import SampleImage
from contract_tests.requests.request import (
    ASYNC_HEADER,
    AUTHORIZATION,
    SHORTER_TOKEN,
    Request,
    upscaling_request,
)
from contract_tests.suite.inference import check_result, start_inference, wait_for_result

rule = pytest.mark.rule
MIN_ID_CHARACTERS: Final = 16
"""The least length of an id that cannot be guessed."""
UNKNOWN_ID: Final = "00000000-0000-4000-8000-000000000000"


def image_request(run: Run, seed: int, encoding: str = "png") -> Request:
    """A request for an image whose size differs from those of other seeds, too."""
    fields = {"scale": 1.5, "output_image_encoding": encoding}
    sent = SampleImage(256, 300 + seed, "png", seed, "palette")
    return upscaling_request(fields, sent).with_model(run.models)


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
