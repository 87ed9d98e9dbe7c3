"""Every response is right, breaks a rule, or is inconclusive: the checks themselves never fail."""

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from contract_tests.failures import Failure, Inconclusive
from contract_tests.judge.checks import check_request_id, check_response
from contract_tests.judge.diff import compare_responses
from contract_tests.judge.expectations import Policy, expect_response
from contract_tests.oracle.oracle import Level
from contract_tests.oracle.rules import RULES
from contract_tests.requests.images import SampleImage
from contract_tests.requests.request import ASYNC_HEADER, Request, upscaling_request
from contract_tests.target.response import Response
from tests.support.properties import examples

IMAGE = SampleImage(256, 256, "png", 1, "palette")
REQUESTS = (
    upscaling_request({"scale": 1}, IMAGE),
    upscaling_request({"scale": 1}, IMAGE).with_headers(ASYNC_HEADER),
    upscaling_request({"scale": 1}, IMAGE).with_headers(("Accept", "image/png")),
    upscaling_request({"scale": "two", "surplus": "do-not-repeat"}, IMAGE),
    upscaling_request({"scale": 1}, SampleImage(255, 256)),
    upscaling_request({"scale": 1}).without_headers("Authorization"),
    Request(b"{"),
    Request(method="GET", path="/healthcheck", headers=()),
    Request(method="HEAD"),
)
WORDS = ("detail", "loc", "msg", "type", "body", "scale", "init_image", "image_b64")
names = st.sampled_from((*WORDS, "removed_for_safety", "poll_url", "response_id", "status"))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | names
values: st.SearchStrategy[Any] = st.recursive(
    scalars | st.just(IMAGE.base64()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)
errors = st.fixed_dictionaries(
    {"detail": st.lists(st.dictionaries(st.sampled_from(("loc", "msg", "type")), values))}
)
bodies = st.one_of(
    st.one_of(values, errors).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=20),
    st.sampled_from((IMAGE.file(), IMAGE.file()[:-9], b"[" * 5000, b"\xff\xd8\xff\xd9")),
)
types = st.sampled_from(("application/json", "image/png", "image/jpeg", "text/html", "", "/;="))
responses = st.builds(
    lambda status, kind, body, has_id: Response(
        status, {"content-type": kind, **({"x-user-request-id": "x"} if has_id else {})}, body, 0.1
    ),
    st.sampled_from((200, 202, 204, 303, 400, 401, 403, 404, 405, 413, 422, 422, 429, 500, 503)),
    types,
    bodies,
    st.sampled_from((True, True, True, False)),
)


def broken_rule(request: Request, response: Response, policy: Policy) -> str:
    """The broken rule, "right" or "inconclusive"; anything else that is raised fails the test."""
    try:
        check_response(request, response, expect_response(request, policy), policy)
        check_request_id(request, response, policy)
    except Failure as failure:
        return failure.rule
    except Inconclusive:
        return "inconclusive"
    return "right"


@settings(max_examples=examples(1000), suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(REQUESTS), responses, st.sampled_from(Level), st.sets(st.sampled_from([*RULES]))
)
def test_any_response_is_judged(
    request: Request, response: Response, level: Level, skipped: set[str]
) -> None:
    assert broken_rule(request, response, Policy(level, skipped=frozenset(skipped))) not in skipped


@settings(max_examples=examples(500), suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(REQUESTS), responses, responses)
def test_any_two_responses_are_compared(request: Request, one: Response, two: Response) -> None:
    assert compare_responses(request, one, one) == ""
    assert bool(compare_responses(request, one, two)) == bool(compare_responses(request, two, one))


def test_another_image_is_told_by_how_far_it_is_apart() -> None:
    request = REQUESTS[0]
    white, grey = (
        Response(200, {"content-type": "image/png"}, file(level), 0.1) for level in (255, 155)
    )
    assert compare_responses(request, white, grey) == (
        "the image's content differs: one image here, another, by 100 of 255 levels on average, "
        "there"
    )


def file(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (300, 300), level).save(buffer, "PNG")
    return buffer.getvalue()


HEADERS = {"content-type": "application/json", "x-user-request-id": "x", "vary": "Accept"}
IMAGE_REQUEST, ASYNC_REQUEST, PNG_REQUEST, INVALID_REQUEST, SMALL_IMAGE, NO_TOKEN, NO_JSON, *_ = (
    REQUESTS
)


def answer(status: int, body: object, **headers: str | None) -> Response:
    """A response with HEADERS, but for those named here; None leaves one out."""
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    kept = {name: value for name, value in (HEADERS | changed).items() if value is not None}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, kept, content, 0.1)


def upscaled(image: SampleImage = IMAGE, **fields: object) -> dict[str, object]:
    return {"image_b64": image.base64(), "removed_for_safety": False, **fields}


def refusal(*names: str, **fields: object) -> dict[str, object]:
    errors = [{"loc": ["body", *name.split()], "msg": "m", "type": "t", **fields} for name in names]
    return {"detail": errors}


BOTH = ("scale", "surplus")
TEXT = IMAGE.base64()
TWICE = b', "removed_for_safety": false}'
TURNED = SampleImage(256, 256, "png", 1, "palette", 6).base64()
JUDGED = [
    (IMAGE_REQUEST, answer(200, upscaled()), "right"),
    (IMAGE_REQUEST, answer(200, {"removed_for_safety": False}), "RES-1"),
    (IMAGE_REQUEST, answer(200, upscaled(removed_for_safety="no")), "RES-1"),
    (IMAGE_REQUEST, answer(200, upscaled(), content_type="text/html"), "RES-1"),
    (IMAGE_REQUEST, answer(200, upscaled(image_b64=f"{TEXT[:60]}\n{TEXT[60:]}")), "RES-2"),
    (IMAGE_REQUEST, answer(200, upscaled(image_b64=TEXT[:400])), "RES-2"),
    (IMAGE_REQUEST, answer(200, upscaled(SampleImage(256, 256, "png", 2, "palette"))), "RES-2"),
    (IMAGE_REQUEST, answer(200, upscaled(removed_for_safety=True)), "RES-3"),
    (IMAGE_REQUEST, answer(200, upscaled(), x_user_request_id=None), "RES-6"),
    (IMAGE_REQUEST, answer(200, upscaled(), vary=None), "RES-8"),
    (IMAGE_REQUEST, answer(200, upscaled(), x_upscaler_model="real-esrgan-x2-plus"), "REQ-8"),
    (IMAGE_REQUEST, answer(200, upscaled(SampleImage(256, 256, "jpeg", 1))), "REQ-9"),
    (IMAGE_REQUEST, answer(200, upscaled(SampleImage(257, 256, "png", 1, "palette"))), "REQ-16"),
    (IMAGE_REQUEST, answer(401, {"detail": "no"}), "REQ-2"),
    (IMAGE_REQUEST, answer(422, refusal("scale")), "REQ-14"),
    (IMAGE_REQUEST, answer(500, {"detail": "no"}), "inconclusive"),
    (ASYNC_REQUEST, answer(202, {"response_id": "1", "poll_url": "/1"}), "ASY-1"),
    (ASYNC_REQUEST, answer(200, {"response_id": "1", "poll_url": "/1"}), "right"),
    (ASYNC_REQUEST, answer(200, {"response_id": "1"}), "ASY-1"),
    (ASYNC_REQUEST, answer(200, {"poll_url": "/1"}), "ASY-1"),
    (PNG_REQUEST, answer(200, IMAGE.file(), content_type="image/png"), "right"),
    (PNG_REQUEST, answer(200, upscaled()), "RES-8"),
    (IMAGE_REQUEST, answer(200, b"\xef\xbb\xbf" + json.dumps(upscaled()).encode()), "RES-1"),
    (IMAGE_REQUEST, answer(200, json.dumps(upscaled()).encode()[:-1] + TWICE), "RES-1"),
    (IMAGE_REQUEST, answer(200, json.dumps(upscaled()).encode()[:-1] + b', "a": NaN}'), "RES-1"),
    (IMAGE_REQUEST, answer(200, upscaled(image_b64=TURNED)), "RES-2"),
    (INVALID_REQUEST, answer(422, b"\xef\xbb\xbf" + json.dumps(refusal(*BOTH)).encode()), "RES-4"),
    (INVALID_REQUEST, answer(422, refusal(*BOTH)), "right"),
    (INVALID_REQUEST, answer(200, upscaled()), "REQ-11"),
    (INVALID_REQUEST, answer(400, refusal(*BOTH)), "RES-4"),
    (INVALID_REQUEST, answer(500, refusal(*BOTH)), "RES-5"),
    (INVALID_REQUEST, answer(422, {"detail": "no"}), "RES-4"),
    (INVALID_REQUEST, answer(422, refusal("other")), "RES-4"),
    (INVALID_REQUEST, answer(422, refusal(*BOTH, type=1)), "RES-4"),
    (INVALID_REQUEST, answer(422, refusal(*BOTH, msg="it is do-not-repeat")), "RES-4"),
    (INVALID_REQUEST, answer(422, refusal(*BOTH), content_type="text/plain"), "RES-4"),
    (INVALID_REQUEST, answer(422, refusal("scale")), "REQ-19"),
    (SMALL_IMAGE, answer(422, refusal("init_image")), "right"),
    (SMALL_IMAGE, answer(422, refusal("scale")), "REQ-15"),
    (SMALL_IMAGE, answer(200, upscaled()), "REQ-13"),
    (NO_TOKEN, answer(401, {"detail": "no"}, www_authenticate="Bearer"), "right"),
    (NO_TOKEN, answer(401, {"detail": "no"}), "REQ-2"),
    (NO_TOKEN, answer(401, {"detail": []}, www_authenticate="Bearer"), "RES-7"),
    (NO_TOKEN, answer(200, upscaled()), "REQ-2"),
    (NO_JSON, answer(422, refusal("")), "right"),
    (NO_JSON, answer(200, upscaled()), "REQ-1"),
]


@pytest.mark.parametrize(("request_", "response", "rule"), JUDGED)
def test_a_wrong_response_breaks_its_rule(request_: Request, response: Response, rule: str) -> None:
    assert broken_rule(request_, response, Policy(Level.STRICT)) == rule


@pytest.mark.parametrize(
    "loc", [[["body"]], [{}], ["body", ["scale"]], [None], "body", 1, {}, [True]]
)
def test_an_invalid_location_breaks_the_shape_of_errors(loc: object) -> None:
    body = json.dumps({"detail": [{"loc": loc, "msg": "m", "type": "t"}]}).encode()
    response = Response(422, HEADERS, body, 0.1)
    for request, rule in ((REQUESTS[3], "RES-4"), (REQUESTS[0], "RES-1")):
        for level in Level:
            assert broken_rule(request, response, Policy(level)) == rule


@pytest.mark.parametrize(
    ("request_", "level", "wanted"),
    [
        (NO_TOKEN, Level.DOCUMENTED, "the status is 200, not any 4xx"),
        (SMALL_IMAGE, Level.DOCUMENTED, "the status is 200, not any 4xx"),
        (Request(method="HEAD"), Level.STRICT, "the status is 200, not 405"),
        (IMAGE_REQUEST, Level.STRICT, "the status is 404, not 200"),
        (ASYNC_REQUEST, Level.DOCUMENTED, "the status is 404, not any 2xx"),
    ],
)
def test_the_allowed_statuses_are_named_in_few_words(
    request_: Request, level: Level, wanted: str
) -> None:
    policy = Policy(level)
    response = answer(404 if request_ in (IMAGE_REQUEST, ASYNC_REQUEST) else 200, {})
    with pytest.raises(Failure) as raised:
        check_response(request_, response, expect_response(request_, policy), policy)
    assert raised.value.sentence == wanted


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"detail": []},
        {"error": "an error of our own", "traceId": "1"},
        {"detail": [{"loc": [], "msg": "", "type": ""}]},
        {"detail": [{"loc": ["scale", 0], "msg": "m", "type": "t", "input": "two"}], "title": "x"},
    ],
)
def test_what_the_schema_has_as_an_error_is_right_at_documented(body: object) -> None:
    request, response = REQUESTS[3], Response(422, {"content-type": "application/json"}, b"", 0.1)
    response = replace(response, body=json.dumps(body).encode())
    assert broken_rule(request, response, Policy(Level.DOCUMENTED)) == "right"
    assert broken_rule(request, response, Policy(Level.STRICT)) in ("RES-4", "RES-6")


@pytest.mark.parametrize(
    ("request_", "response", "sentence"),
    [
        (ASYNC_REQUEST, answer(200, {"poll_url": "/1"}), "response_id is missing, not a string"),
        (
            ASYNC_REQUEST,
            answer(200, {"response_id": None, "poll_url": "/1"}),
            "response_id is null, not a string",
        ),
        (
            INVALID_REQUEST,
            answer(422, {"detail": [{"loc": ["body"], "msg": "no"}]}),
            "an error's type is missing, not a string",
        ),
        (
            IMAGE_REQUEST,
            answer(200, upscaled(image_b64="QUJD")),
            "the image is neither PNG nor JPEG, and should be png",
        ),
        (
            NO_JSON,
            answer(422, {"detail": [{"loc": ["body", ""], "msg": "no", "type": "no"}]}),
            'the errors are located at body."", not body',
        ),
    ],
)
def test_what_is_wrong_is_told_as_it_is(
    request_: Request, response: Response, sentence: str
) -> None:
    policy = Policy(Level.STRICT)
    with pytest.raises(Failure) as failed:
        check_response(request_, response, expect_response(request_, policy), policy)
    assert failed.value.sentence == sentence


@pytest.mark.parametrize(
    ("response", "summary"),
    [
        (Response(307, {"location": "/upscaling"}, b"", 0.1), "307 to /upscaling"),
        (Response(204, {}, b"", 0.1), "204"),
        (Response(200, {"content-type": "text/plain"}, b"a", 0.1), "200 text/plain: a"),
        (Response(200, {"location": "/x"}, b"a", 0.1), "200: a"),
    ],
)
def test_a_redirect_says_where_it_leads(response: Response, summary: str) -> None:
    assert response.summary == summary
