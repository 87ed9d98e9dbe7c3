"""Everything but the fields of a request: token, path, method, headers, and length."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract_tests.judge.run import Run
from contract_tests.oracle.limits import MAX_ASYNC_BYTES, MAX_BODY_BYTES
from contract_tests.requests import strategies as draw
from contract_tests.requests.images import SampleImage
from contract_tests.requests.request import (
    ASYNC_HEADER,
    AUTHORIZATION,
    JSON_TYPE,
    LONGER_TOKEN,
    SHORTER_TOKEN,
    SWAPPED_CASE_TOKEN,
    TOKEN_PLACEHOLDER,
    Request,
    upscaling_request,
)

rule = pytest.mark.rule
VALID_REQUEST = upscaling_request({"scale": 2}, SampleImage(256, 256, "png", 5, "palette"))
INVALID_REQUEST = upscaling_request({"scale": "two"})
NO_TOKENS = (
    None,
    "",
    TOKEN_PLACEHOLDER,
    "Bearer",
    f"Basic {TOKEN_PLACEHOLDER}",
    f"Token {TOKEN_PLACEHOLDER}",
    "Bearer x",
    f"Bearer {SHORTER_TOKEN}",
    f"Bearer {LONGER_TOKEN}",
    f"Bearer {TOKEN_PLACEHOLDER}{TOKEN_PLACEHOLDER}",
    f"Bearer x{TOKEN_PLACEHOLDER}",
    f"Bearer Bearer {TOKEN_PLACEHOLDER}",
    f"Bearer {TOKEN_PLACEHOLDER} {TOKEN_PLACEHOLDER}",
    f"Bearer,{TOKEN_PLACEHOLDER}",
)
OTHER_PATHS = (
    *("/upscaling/", "/upscale", "/Upscaling", "/v1/upscaling", "/upscaling/x"),
    "//upscaling",
)


@rule("REQ-2", "RES-7")
@pytest.mark.parametrize("value", NO_TOKENS)
def test_a_request_without_a_valid_token_is_refused(run: Run, value: str | None) -> None:
    request = VALID_REQUEST.without_headers("Authorization")
    run.check(request if value is None else request.with_headers(("Authorization", value)))


@rule("REQ-2")
def test_a_token_is_case_sensitive(run: Run) -> None:
    if run.target.token_has_letters:  # a token of digits has no case
        run.check(VALID_REQUEST.with_headers(("Authorization", f"Bearer {SWAPPED_CASE_TOKEN}")))


@rule("REQ-19", "RES-7")
@pytest.mark.strict
@pytest.mark.parametrize(("method", "path"), [("POST", "/upscale"), ("GET", "/upscaling")])
def test_an_unknown_path_or_method_needs_no_token(run: Run, method: str, path: str) -> None:
    run.check(Request(method=method, path=path, headers=()))


@rule("REQ-2", "REQ-19")
@pytest.mark.strict
@pytest.mark.parametrize(
    "request_", [INVALID_REQUEST, Request(b"{"), INVALID_REQUEST.without_headers("Content-Type")]
)
def test_the_token_is_checked_before_the_body(run: Run, request_: Request) -> None:
    run.check(request_.without_headers("Authorization"))


SEVERAL = {
    "type before JSON": Request(b"{").without_headers("Content-Type"),
    "type before fields": INVALID_REQUEST.with_headers(("Content-Type", "text/plain")),
    "JSON before fields": Request(INVALID_REQUEST.body[:-1]),
    "fields before Accept": INVALID_REQUEST.with_headers(("Accept", "text/html")),
    "fields before image": upscaling_request({"scale": "two"}, SampleImage(255, 256)),
    "Accept before image": upscaling_request({"scale": 2}, SampleImage(255, 256)).with_headers(
        ("Accept", "text/html")
    ),
    "image before output": upscaling_request({"scale": 100}, SampleImage(256, 2049)),
}


@rule("REQ-19")
@pytest.mark.strict
@pytest.mark.parametrize("order", SEVERAL)
def test_errors_are_reported_in_order(run: Run, order: str) -> None:
    run.check(SEVERAL[order])


@rule("REQ-3")
@pytest.mark.strict
@pytest.mark.parametrize("declared", draw.INVALID_CONTENT_TYPES)
def test_a_content_type_other_than_json_is_refused(run: Run, declared: str | None) -> None:
    request = VALID_REQUEST.without_headers("Content-Type")
    run.check(request if declared is None else request.with_headers(("Content-Type", declared)))


@rule("REQ-1", "RES-7")
@pytest.mark.strict
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
def test_other_methods_than_post_are_refused(run: Run, method: str) -> None:
    run.check(Request(method=method, headers=(AUTHORIZATION,)))


@rule("REQ-1", "RES-7")
@pytest.mark.strict
@pytest.mark.parametrize("path", OTHER_PATHS)
def test_other_paths_are_refused(run: Run, path: str) -> None:
    run.check(Request(VALID_REQUEST.body, path=path))


@rule("RES-9")
def test_the_health_check_needs_no_token(run: Run) -> None:
    run.check(Request(method="GET", path="/healthcheck", headers=()))


@rule("RES-8")
@pytest.mark.strict
@pytest.mark.parametrize(
    "accept", ["text/html", "image/webp", "application/xml", "image/gif;q=0.5", "*/*;q=0"]
)
def test_an_accept_header_without_json_or_images_is_refused(run: Run, accept: str) -> None:
    run.check(VALID_REQUEST.with_headers(("Accept", accept)))


@rule("RES-6")
@pytest.mark.strict
@given(own=st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.:", min_size=1, max_size=128))
def test_the_response_has_the_id_of_the_request(run: Run, own: str) -> None:
    run.check(INVALID_REQUEST.with_headers(("X-User-Request-ID", own)))


@rule("RES-6")
@pytest.mark.strict
def test_each_response_has_an_id_of_its_own(run: Run) -> None:
    responses = [run.check(INVALID_REQUEST) for _ in range(3)]
    received = [response.headers.get("x-user-request-id", "") for response in responses if response]
    ids = set(filter(None, received))
    run.require(len(ids) in (0, 3), "RES-6", f"three requests have the ids {', '.join(ids)}")


@rule("ASY-4")
@pytest.mark.http1
def test_an_asynchronous_body_of_more_than_10_mb_is_refused(run: Run) -> None:
    """For its length alone: it is a valid request between spaces."""
    spaces = b" " * (MAX_ASYNC_BYTES + 1 - len(VALID_REQUEST.body))
    run.check(replace(VALID_REQUEST, body=VALID_REQUEST.body + spaces).with_headers(ASYNC_HEADER))


@rule("RES-7")
@pytest.mark.strict
@pytest.mark.http1
def test_a_body_of_more_than_32_mb_is_refused(run: Run) -> None:
    run.check(Request(b" " * (MAX_BODY_BYTES + 1)))


@rule("RES-7", "ASY-4")
@pytest.mark.strict
@pytest.mark.parametrize(
    ("length", "headers"), [(MAX_BODY_BYTES, ()), (MAX_ASYNC_BYTES, (ASYNC_HEADER,))]
)
def test_a_body_of_the_maximum_length_is_read(
    run: Run, length: int, headers: tuple[tuple[str, str], ...]
) -> None:
    """It is refused for its content, not for its length."""
    run.check(Request(b" " * length).with_headers(*headers))


@rule("REQ-18")
@pytest.mark.parametrize(
    "header", [JSON_TYPE, ("X-OctoAI-Queue-Dispatch", "x"), ("X-Unknown", "1")]
)
def test_unknown_headers_do_not_change_a_refusal(run: Run, header: tuple[str, str]) -> None:
    run.check(INVALID_REQUEST.with_headers(header))
