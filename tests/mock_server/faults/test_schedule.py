"""Which fault a request gets: from its header, the API, the scenario or by chance."""

from collections import Counter
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mock_server import Mock
from mock_server.faults.fault import (
    Fault,
    FaultError,
    parse_fault,
    parse_sequence,
)
from mock_server.faults.schedule import FaultSchedule
from tests.support.mock_servers import SMALL
from tests.support.service import upscale


def statuses(api: httpx.Client, times: int) -> list[int]:
    return [upscale(api, **SMALL).status_code for _ in range(times)]


def test_each_request_takes_one_step_of_the_sequence(api: httpx.Client, mock: Mock) -> None:
    mock.faults.set("429x2,ok,503")
    assert statuses(api, 5) == [429, 429, 200, 503, 200]
    assert [(call.fault, call.fault_from) for call in mock.calls] == [
        ("429", "api"), ("429", "api"), (None, None), ("503", "api"), (None, None),
    ]  # fmt: skip


def test_an_endless_sequence_can_be_cleared(api: httpx.Client, mock: Mock) -> None:
    mock.faults.set("ok,503x*")
    assert statuses(api, 4) == [200, 503, 503, 503]
    mock.faults.clear()
    assert statuses(api, 2) == [200, 200]


def test_sources_of_faults_override_each_other_in_order() -> None:
    faults = FaultSchedule(
        sequences={"upscaling": parse_sequence("500x2")}, probabilities={parse_fault("502"): 1}
    )
    faults.set("503")
    chosen = [faults.select("upscaling", "401"), *(faults.select("upscaling") for _ in range(4))]
    assert [(str(fault), source) for fault, source, _ in chosen] == [
        ("401", "header"), ("503", "api"), ("500", "scenario"), ("500", "scenario"),
        ("502", "random"),
    ]  # fmt: skip
    assert faults.select("poll").fault == Fault()
    faults.reset()
    assert [str(faults.select("upscaling").fault) for _ in range(3)] == ["500", "500", "502"]


@pytest.mark.parametrize(
    ("route", "path"),
    [("poll", "/v1/requests/x"), ("result", "/v1/responses/x"), ("healthcheck", "/healthcheck")],
)
def test_each_route_has_its_own_sequence(
    api: httpx.Client, mock: Mock, route: str, path: str
) -> None:
    usual = api.get(path).status_code
    mock.faults.set("502", on=route)
    assert statuses(api, 1) == [200]
    assert [api.get(path).status_code for _ in range(2)] == [502, usual]


chances = st.dictionaries(
    st.sampled_from(["401", "429", "500", "503", "latency=0.1"]), st.floats(0, 0.2), max_size=5
)


@given(chances, st.integers(-(2**40), 2**40), st.lists(st.booleans(), max_size=30))
def test_the_same_seed_gives_the_same_faults(
    odds: dict[str, float], seed: int, upscaling: list[bool]
) -> None:
    """Whatever other requests come in between, and again after a reset."""
    one, other = FaultSchedule(seed), FaultSchedule(seed)
    for faults in (one, other):
        faults.set_random(odds)
    drawn = [one.select("upscaling") for _ in upscaling]
    mixed = []
    for each in upscaling:
        if each:
            assert other.select("poll").fault == Fault()
            assert 0 <= other.select("upscaling", "latency=uniform:0:1").latency_s <= 1
        mixed.append(other.select("upscaling"))
    assert [each.fault for each in mixed] == [each.fault for each in drawn]
    one.reset()
    one.set_random(odds)
    assert [one.select("upscaling") for _ in upscaling] == drawn


def test_random_faults_have_their_probabilities() -> None:
    def drawn(seed: int) -> list[str]:
        faults = FaultSchedule(seed)
        faults.set_random({"429": 0.25, "latency=uniform:0.1:0.2": 0.5})
        return [str(faults.select("upscaling").fault) for _ in range(4000)]

    counts = Counter(drawn(1))
    assert 900 < counts["429"] < 1100
    assert 1900 < counts["latency=uniform:0.1:0.2"] < 2100
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize(
    ("odds", "words"),
    [
        ({"429": 1.5}, "the probability of 429 must be a number from 0 to 1"),
        ({"429": "0.5"}, "the probability of 429 must be a number from 0 to 1"),
        ({"429": True}, "the probability of 429 must be a number from 0 to 1"),
        ({"429": 0.6, "503": 0.6}, "the probabilities add up to more than 1"),
        ({"teapot": 0.1}, "unknown fault 'teapot'"),
    ],
)
def test_invalid_probabilities_are_explained(odds: dict[str, Any], words: str) -> None:
    with pytest.raises(FaultError, match=words):
        FaultSchedule().set_random(odds)
