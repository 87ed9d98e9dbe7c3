"""Nothing is left of a request that another one could notice: no value, no image, no failure."""

from itertools import pairwise
from typing import Final

import pytest

from contract_tests.judge.run import Run
from contract_tests.oracle.values import MODELS
from contract_tests.requests.images import SampleImage
from contract_tests.requests.request import (
    ASYNC_HEADER,
    AUTHORIZATION,
    Request,
    upscaling_request,
)
from contract_tests.suite.inference import check_result, start_inference, wait_for_result

rule = pytest.mark.rule
pytestmark = pytest.mark.billable
SIZE: Final = (256, 300)
SAME_ID: Final = ("X-User-Request-ID", "one-id-for-several-requests")
CLOSE: Final = ("Connection", "close")
"""With it each request has a connection of its own, which may lead to another worker."""


def image(seed: int, mode: str = "palette") -> SampleImage:
    """Images of one mode and size, whose files have the same length, and begin and end alike."""
    return SampleImage(*SIZE, "png", seed, mode)


def alike() -> list[Request]:
    """Requests that differ from the first one in one respect each."""
    first = upscaling_request({"scale": 1.5, "output_image_encoding": "png"}, image(71))
    return [
        first,
        upscaling_request({"scale": 1.5, "output_image_encoding": "png"}, image(72)),
        upscaling_request({"scale": 1.25, "output_image_encoding": "png"}, image(71)),
        upscaling_request({"output_image_width": 384, "output_image_encoding": "png"}, image(71)),
        upscaling_request({"output_image_height": 384, "output_image_encoding": "png"}, image(71)),
        upscaling_request({"scale": 1.5, "output_image_encoding": "jpeg"}, image(71)),
        first,
    ]


@rule("REQ-16", "REQ-9", "RES-2")
def test_similar_requests_get_images_of_their_own(run: Run) -> None:
    """A cache must be keyed by all that decides on an image."""
    for request in alike():
        run.check_any_model(request)


@rule("RES-2", "RES-6")
@pytest.mark.strict
def test_requests_with_the_same_id_get_images_of_their_own(run: Run) -> None:
    """The id is there for logs, and makes no two requests one."""
    for request in alike()[:4]:
        run.check_any_model(request.with_headers(SAME_ID))


@rule("REQ-9", "REQ-8", "RES-2", "RES-8")
@pytest.mark.strict
def test_nothing_is_left_of_the_request_before(run: Run) -> None:
    """Each of these leaves out what the one before it has set."""
    other_model = run.models[-1] if run.models else MODELS[-1]
    requests = [
        upscaling_request({"scale": 1.5, "output_image_encoding": "jpeg"}, image(73)),
        upscaling_request({"output_image_height": 384}, image(74)),
        upscaling_request({"scale": 1, "model": other_model}, image(75)),
        upscaling_request({"scale": 1}, image(76, "alpha")),
        upscaling_request({"output_image_width": 300}, image(77, "colour")),
        upscaling_request({"scale": 1}, SampleImage(*SIZE, "jpeg", 78, "colour", 6)),
        upscaling_request({"scale": 1}, image(79, "grey")),
        upscaling_request({"scale": 1}, image(80, "colour")),
    ]
    for request in requests:
        run.check_any_model(request)
    for (first, second), kind in zip(pairwise(requests), ("image/png", "image/jpeg"), strict=False):
        run.check_any_model(first.with_headers(("Accept", kind)))
        run.check_any_model(second)


@rule("RES-1", "RES-2", "RES-5")
def test_a_refusal_leaves_nothing_behind(run: Run) -> None:
    refused = [
        upscaling_request({"scale": 2}, SampleImage(255, 256, "png", 81, "palette")),
        upscaling_request({"scale": 100}, image(82)),
        upscaling_request({"scale": 2}, SampleImage(*SIZE, "png", 83, "palette", 1, "garbage")),
        upscaling_request({"scale": "two", "model": "none"}, image(84)),
        Request(b"{"),
    ]
    for number, request in enumerate(refused):
        run.check_refused(request)
        run.check_any_model(upscaling_request({"scale": 1}, image(85 + number)))


@rule("REQ-2", "RES-1", "RES-2")
def test_every_connection_reaches_the_same_api(run: Run) -> None:
    for number in range(4):
        request = upscaling_request({"scale": 1}, image(90 + number))
        run.check_any_model(request.with_headers(CLOSE))


@rule("ASY-2", "ASY-3")
def test_an_inference_is_known_on_every_connection(run: Run) -> None:
    """Of several workers, any may be asked."""
    request = upscaling_request({"scale": 1, "output_image_encoding": "png"}, image(95))
    request = request.with_model(run.models)
    accepted = start_inference(run, request.with_headers(CLOSE))
    if not accepted:
        return
    url = wait_for_result(run, accepted)
    for _ in range(4):
        response = run.send(
            Request(method="GET", path=accepted["poll_url"], headers=(AUTHORIZATION, CLOSE))
        )
        assert response is not None, "a plan starts no inference"
        known = response.status in (200, 202)
        run.require(known, "ASY-2", f"on another connection: {response.summary}")
        check_result(run, request, url, CLOSE)


@rule("ASY-1", "ASY-3")
@pytest.mark.strict
def test_asynchronous_requests_with_the_same_id_are_several(run: Run) -> None:
    requests = [
        upscaling_request({"scale": 1, "output_image_encoding": "png"}, image(seed))
        .with_model(run.models)
        .with_headers(SAME_ID)
        for seed in (96, 97)
    ]
    accepted = [start_inference(run, request.with_headers(ASYNC_HEADER)) for request in requests]
    if all(accepted):
        for request, each in zip(requests, accepted, strict=True):
            check_result(run, request, wait_for_result(run, each))
