"""The text of faults and of sequences of faults."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mock_server.faults.fault import (
    BREAKING,
    DISTRIBUTIONS,
    FLAGS,
    REPLACING,
    RETRY_AFTER_S,
    STATUSES,
    Fault,
    FaultError,
    Latency,
    Step,
    format_sequence,
    parse_sequence,
)

numbers = st.integers(0, 10**9).map(lambda number: number / 10**6)
latencies = st.sampled_from(sorted(DISTRIBUTIONS)).flatmap(
    lambda name: st.lists(numbers, min_size=DISTRIBUTIONS[name], max_size=DISTRIBUTIONS[name]).map(
        lambda drawn: Latency(name, tuple(sorted(drawn)))
    )
)


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    words = set(draw(st.sets(st.sampled_from(sorted(set(FLAGS) - {*REPLACING, *BREAKING})))))
    words |= set(draw(st.sampled_from([(), *((word,) for word in BREAKING)])))
    fault = Fault(
        latency=draw(st.none() | latencies),
        drip=draw(st.none() | st.integers(10**6, 10**9).map(lambda drops: drops / 10**6)),
        flags=frozenset(words),
    )
    word = draw(st.none() | st.sampled_from(REPLACING))
    if word:
        return replace(fault, flags=fault.flags | {word})
    status = draw(st.none() | st.sampled_from(STATUSES))
    if status is None:
        return fault
    wait_s = draw(st.integers(0, 99_999)) if draw(st.booleans()) else RETRY_AFTER_S.get(status)
    return replace(fault, status=status, retry_after_s=wait_s)


@st.composite
def sequences(draw: st.DrawFn) -> tuple[Step, ...]:
    steps = [
        Step(fault, draw(st.integers(1, 999_999)))
        for fault in draw(st.lists(faults(), min_size=1, max_size=4))
    ]
    if draw(st.booleans()):
        steps[-1] = steps[-1]._replace(times=None)
    return tuple(steps)


@given(sequences())
def test_formatting_a_sequence_round_trips(steps: tuple[Step, ...]) -> None:
    assert parse_sequence(format_sequence(steps)) == steps


@given(st.text(max_size=30) | st.text("0123456789x*+,=:.oklatencydrip-", max_size=30))
@example("latency=" + "9" * 400)
@example("ok+" * 500)
def test_any_text_is_a_sequence_or_an_error(text: str) -> None:
    try:
        steps = parse_sequence(text)
    except FaultError:
        return
    assert parse_sequence(format_sequence(steps)) == steps


def test_spaces_are_ignored_and_numbers_normalised() -> None:
    assert format_sequence(
        parse_sequence(" 429 x 2 , ok,latency=0.20 + 503x*".replace(" x ", "x"))
    ) == ("429x2,ok,latency=0.2+503x*")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "unknown fault ''; use one of ok, 401,"),
        ("teapot", "unknown fault 'teapot'; use one of ok, 401,"),
        ("418", "the status 418 is not supported; use one of 401, 404"),
        ("429x0", "unknown fault '429x0'"),
        ("401+429", "429 cannot be combined with 401"),
        ("timeout+503", "timeout and 503 cannot be combined"),
        ("reset+truncated", "reset and truncated cannot be combined"),
        ("reset+reset", "reset is given twice"),
        ("503x*,ok", "steps after x* are never reached"),
        ("latency=soon", "expected a number such as 20 or 0.25"),
        ("latency=3601", "latency is in seconds, up to 3600"),
        ("latency=normal:1", "latency is in seconds, up to 3600"),
        ("latency=uniform:2:1", "must not be the larger one"),
        ("drip=0.5", "drip must be at least 1 byte per second"),
        ("429:retry-after=soon", "unknown fault '429:retry-after=soon'"),
    ],
)
def test_an_invalid_fault_is_explained(text: str, words: str) -> None:
    with pytest.raises(FaultError) as caught:
        parse_sequence(text)
    assert words in str(caught.value)
