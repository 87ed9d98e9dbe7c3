"""The mock's rate limit: so many requests a minute for each token (RES-5)."""

import asyncio
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Scope

from mock_server.mock import Mock
from mock_server.rate_limit import (
    MINUTE_S,
    Quota,
    RateLimited,
    RateLimitMiddleware,
    SlidingWindow,
    parse_rate,
)
from mock_server.serving import cli
from tests.support.mock_servers import mock_child, mocked
from tests.support.service import GOOD, SETTINGS, TOKENS, upscale


class Hands:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


# What is counted


def seconds(most: int) -> st.SearchStrategy[float]:
    """Multiples of 1/8, whose sums are exact."""
    return st.integers(0, most * 8).map(lambda eighths: eighths / 8)


@given(st.integers(1, 5), st.lists(seconds(40), max_size=40))
def test_no_minute_has_more_requests_than_allowed(requests: int, waits: list[float]) -> None:
    """And no request is refused unless that many came in the minute before it."""
    clock = Hands()
    rate = SlidingWindow(requests, clock)
    passed: deque[float] = deque()
    for wait_s in waits:
        clock.now_s += wait_s
        recent = [time for time in passed if time + MINUTE_S > clock.now_s]
        try:
            rate.count("t")
            passed.append(clock.now_s)
            assert len(recent) < requests
        except RateLimited:
            assert len(recent) == requests


@given(st.integers(1, 5), st.lists(seconds(5), min_size=5, max_size=5), seconds(30))
def test_a_request_after_retry_after_passes(
    requests: int, waits: list[float], later_s: float
) -> None:
    clock = Hands()
    rate = SlidingWindow(requests, clock)
    for wait_s in waits[:requests]:
        clock.now_s += wait_s
        rate.count("t")
    clock.now_s += later_s
    with pytest.raises(RateLimited) as caught:
        rate.count("t")
    told_s = caught.value.retry_after_s
    assert 1 <= told_s <= MINUTE_S
    assert caught.value.headers == {
        "Retry-After": str(told_s),
        "RateLimit-Policy": f'"a-minute";q={requests};w=60',
        "RateLimit": f'"a-minute";r=0;t={told_s}',
    }
    clock.now_s += told_s
    rate.count("t")


@given(st.integers(1, 5), st.lists(seconds(40), min_size=1, max_size=40))
def test_as_many_requests_pass_as_are_said_to_be_left(requests: int, waits: list[float]) -> None:
    """And one more when the time is over that is said."""
    clock = Hands()
    rate = SlidingWindow(requests, clock)
    quota = Quota(requests, requests, 0)
    for wait_s in waits:
        clock.now_s += wait_s
        with suppress(RateLimited):
            quota = rate.count("t")
    left = quota.remaining
    for already in range(left):
        quota = rate.count("t")
        assert quota.remaining == left - already - 1
    with pytest.raises(RateLimited) as caught:
        rate.count("t")
    assert caught.value.quota.remaining == 0
    assert 1 <= caught.value.quota.reset_s <= MINUTE_S
    clock.now_s += caught.value.quota.reset_s
    assert rate.count("t").requests == requests


def test_each_token_is_counted_by_itself() -> None:
    rate = SlidingWindow(1, Hands())
    for _ in range(2):
        rate.count("one")
        rate.count("two")
        with pytest.raises(RateLimited):
            rate.count("one")
        rate.reset()


@pytest.mark.parametrize(
    ("text", "requests"),
    [("free", 10), ("pro", 60), ("1/min", 1), ("007/min", 7), ("999999/min", 999999)],
)
def test_a_rate_is_a_plan_or_a_number_a_minute(text: str, requests: int) -> None:
    assert parse_rate(text) == requests


NO_RATES = ["", "Free", "10", "0/min", "-1/min", "1.5/min", "1 / min", "1/s", "٣/min", "9" * 7]


@pytest.mark.parametrize("text", NO_RATES)
def test_any_other_rate_is_an_error(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="free, pro, or a number"):
        parse_rate(text)
    with pytest.raises(SystemExit) as ended:
        cli.main([f"--rate-limit={text}"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("upscaler-mock: argument --rate-limit: a rate limit")


# Which requests


@contextmanager
def limited(requests: int) -> Iterator[tuple[httpx.Client, Mock]]:
    mock = Mock(settings=SETTINGS, rate_limit=requests)
    with mocked(mock) as api:
        yield api, mock


def test_a_429_has_retry_after_and_the_shape_of_an_error() -> None:
    with limited(2) as (api, mock):
        assert [upscale(api, **GOOD).status_code for _ in range(2)] == [200, 200]
        mock.clock.advance(20.5)
        refused = api.post("/upscaling", json=GOOD, headers={"X-User-Request-ID": "mine"})
        assert refused.status_code == 429
        assert refused.json() == {"detail": "more than 2 requests within a minute: "
                                  f"try again in {refused.headers['Retry-After']} s"}  # fmt: skip
        assert 38 <= int(refused.headers["Retry-After"]) <= 40
        assert refused.headers["X-Mock-Rule"] == "RES-5"
        assert refused.headers["X-User-Request-ID"] == "mine"
        counted = 'upscaler_requests_total{model="",route="other",status="429"} 1.0'
        assert counted in api.get("/metrics").text
        mock.clock.advance(40)
        assert upscale(api, **GOOD).status_code == 200


def test_responses_say_what_is_left_in_the_headers_of_the_draft() -> None:
    """Refusals count as images do, and a page of another origin may read it."""
    with limited(2) as (api, mock):
        first = upscale(api, **GOOD)
        mock.clock.advance(20)
        second = api.post("/upscaling", json={}, headers={"Origin": "https://app.example"})
        third = upscale(api, **GOOD)
        other = api.get("/healthcheck"), api.post("/upscaling", headers={"Authorization": ""})
    assert [answer.status_code for answer in (first, second, third)] == [200, 422, 429]
    for answer in (first, second, third):
        assert answer.headers.get_list("RateLimit-Policy") == ['"a-minute";q=2;w=60']
    assert first.headers.get_list("RateLimit") == ['"a-minute";r=1;t=60']
    assert re.fullmatch('"a-minute";r=0;t=(39|40)', second.headers["RateLimit"])
    retry_after = third.headers["Retry-After"]
    assert third.headers["RateLimit"] == f'"a-minute";r=0;t={retry_after}'
    readable = second.headers["Access-Control-Expose-Headers"]
    assert {"RateLimit", "RateLimit-Policy"} <= {*readable.split(", ")}
    assert not [name for answer in other for name in answer.headers if "ratelimit" in name]


def test_only_upscaling_with_a_valid_token_is_counted() -> None:
    """Valid or not, synchronous or not; and 401 comes before 429 (REQ-19)."""
    with limited(3) as (api, _):
        wrong = [{"Authorization": text} for text in ("", "Bearer x", "Basic first-token")]
        for _ in range(3):
            assert api.get("/healthcheck").status_code == 200
            assert api.get("/upscaling").status_code == 405
            assert {api.post("/upscaling", headers=one).status_code for one in wrong} == {401}
        assert upscale(api).status_code == 422
        later = api.post("/upscaling", json=GOOD, headers={"X-OctoAI-Async": "1"})
        dry = api.post("/upscaling", json=GOOD, headers={"X-Upscaler-Dry-Run": "1"})
        assert (later.status_code, dry.status_code) == (200, 200)
        assert [upscale(api).status_code for _ in range(5)] == [429] * 5
        assert api.get(later.json()["poll_url"]).status_code == 200
        assert {api.post("/upscaling", headers=one).status_code for one in wrong} == {401}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_another_token_has_its_own_limit(scheme: str) -> None:
    """A token that is not ASCII, with the scheme in any case."""
    other = {b"Authorization": f"{scheme} {TOKENS[1]}".encode()}
    with limited(1) as (api, _):
        assert [upscale(api).status_code for _ in range(2)] == [422, 429]
        answers = [api.post("/upscaling", json={}, headers=other) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [422, 429]


def test_there_is_no_limit_by_default() -> None:
    with mocked(Mock(settings=replace(SETTINGS))) as api:
        assert {upscale(api).status_code for _ in range(100)} == {422}


@pytest.mark.parametrize("type_", ["lifespan", "websocket"])
def test_other_scopes_are_passed_on(type_: str) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: object, _send: object) -> None:
        seen.append(scope)

    async def nothing(*_messages: Message) -> Message:
        return {}

    scope: Scope = {"type": type_}
    asyncio.run(RateLimitMiddleware(app, SlidingWindow(1), TOKENS)(scope, nothing, nothing))  # type: ignore[arg-type]
    assert seen == [scope]


def test_the_command_has_an_option_for_the_limit(tmp_path: Path) -> None:
    with mock_child(tmp_path, "--rate-limit", "3/min") as child:
        headers = {"Authorization": "Bearer mock-token"}
        url = f"{child.url}/upscaling"
        answers = [httpx.post(url, json={}, headers=headers) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [422, 422, 422, 429]
    assert answers[-1].headers["Retry-After"] == "60"
