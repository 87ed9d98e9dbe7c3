"""The mock's rate limit: so many requests a minute for each token (RES-5)."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
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
    RateLimited,
    RateLimitMiddleware,
    SlidingWindow,
    parse_rate,
)
from mock_server.serving import cli
from tests.support.mock_servers import mock_child, mocked
from tests.support.service import GOOD, SETTINGS, TOKENS, upscale


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


# What is counted


def seconds(most: int) -> st.SearchStrategy[float]:
    """Those of which sums are exact."""
    return st.integers(0, most * 8).map(lambda eighths: eighths / 8)


@given(st.integers(1, 5), st.lists(seconds(40), max_size=40))
def test_in_no_minute_are_more_requests_than_may_be(requests: int, waits: list[float]) -> None:
    """And none is refused unless so many came in the minute before it."""
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
def test_who_comes_after_the_time_that_was_told_passes(
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
    assert caught.value.headers == {"Retry-After": str(told_s)}
    clock.now_s += told_s
    rate.count("t")


def test_each_token_has_requests_of_its_own_and_all_are_forgotten_together() -> None:
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
def test_anything_else_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_the_refusal_has_the_contracts_shape_and_says_when_to_come_again() -> None:
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


def test_only_upscaling_with_a_valid_token_is_counted() -> None:
    """All of it, be it right or wrong, now or later; and 401 is told before 429 (REQ-19)."""
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
def test_the_other_token_has_its_own_requests(scheme: str) -> None:
    """One that is not ASCII, and however the scheme is written."""
    other = {b"Authorization": f"{scheme} {TOKENS[1]}".encode()}
    with limited(1) as (api, _):
        assert [upscale(api).status_code for _ in range(2)] == [422, 429]
        answers = [api.post("/upscaling", json={}, headers=other) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [422, 429]


def test_without_a_limit_there_is_none() -> None:
    with mocked(Mock(settings=replace(SETTINGS))) as api:
        assert {upscale(api).status_code for _ in range(100)} == {422}


@pytest.mark.parametrize("type_", ["lifespan", "websocket"])
def test_what_is_no_request_passes(type_: str) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: object, _send: object) -> None:
        seen.append(scope)

    async def nothing(*_messages: Message) -> Message:
        return {}

    scope: Scope = {"type": type_}
    asyncio.run(RateLimitMiddleware(app, SlidingWindow(1), TOKENS)(scope, nothing, nothing))  # type: ignore[arg-type]
    assert seen == [scope]


def test_the_option_limits_the_command(tmp_path: Path) -> None:
    with mock_child(tmp_path, "--rate-limit", "3/min") as child:
        headers = {"Authorization": "Bearer mock-token"}
        url = f"{child.url}/upscaling"
        answers = [httpx.post(url, json={}, headers=headers) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [422, 422, 422, 429]
    assert answers[-1].headers["Retry-After"] == "60"
