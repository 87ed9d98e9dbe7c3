"""The simulator of Modal's scaling, the formulas beside it, and the document that has both."""

import itertools
import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import modal_cost, modal_plot
from benchmarks.cost_model import alone_usd, bill, break_even_per_s, expected_usd, full_usd
from benchmarks.modal_cost import (
    SHOWN,
    Run,
    by_card,
    by_picture,
    parser,
    run,
    settings_of,
    traffic_row,
)
from benchmarks.modal_prices import (
    CARDS,
    HANDLING_S,
    Deployment,
    Settings,
    Size,
    deployment,
    enough,
)
from benchmarks.scaling import Container, Outcome, Pool, Work, simulate
from benchmarks.traffic import DAY_S, HOUR_S, PATTERNS, Traffic, bursts, day, poisson, regular
from tests.support.paths import ROOT
from upscaler.modal.pricing import OCTOAI_USD

COST = (ROOT / "docs" / "cost.md").read_text()
NEAR_S = 1e-6

seconds = st.floats(0, 20, allow_subnormal=False)
pools = st.builds(
    Pool,
    start_s=seconds,
    window_s=st.floats(2, 60),
    max_containers=st.integers(1, 5),
    slots=st.integers(1, 4),
    spread=st.booleans(),
)
works = st.builds(Work, before_s=seconds, busy_s=st.floats(0.01, 20), after_s=seconds)
times = st.one_of(st.floats(0, 400, allow_subnormal=False), st.integers(0, 400).map(float))
arrivals = st.lists(times, max_size=40).map(sorted)


@st.composite
def outcomes(draw: st.DrawFn) -> tuple[Outcome, Work]:
    work = draw(works)
    return simulate(draw(arrivals), draw(pools), draw(pools), work), work


def most_at_once(spans: list[tuple[float, float]]) -> int:
    """What ends as another begins is not there at the same time."""
    changes = sorted([(end, -1) for _, end in spans] + [(start, 1) for start, _ in spans])
    return max(itertools.accumulate(change for _, change in changes), default=0)


def lives(containers: list[Container]) -> list[tuple[float, float]]:
    return [(container.started_s, container.ended_s) for container in containers]


def stays(outcome: Outcome) -> dict[int, list[tuple[float, float]]]:
    """From when to when each container of the class had which pictures."""
    found = defaultdict(list)
    for place, began, made in zip(outcome.made_by, outcome.began_s, outcome.made_s, strict=True):
        found[place].append((began, made))
    return found


@given(outcomes())
@settings(deadline=None)
def test_every_picture_is_made_once_and_in_its_turn(found: tuple[Outcome, Work]) -> None:
    outcome, work = found
    for function in (outcome.front, outcome.gpu):
        assert sum(container.inputs for container in function.containers) == len(outcome.arrived_s)
        assert not function.waiting
    assert list(outcome.began_s) == sorted(outcome.began_s)
    for arrived, began, made, answered in zip(
        outcome.arrived_s, outcome.began_s, outcome.made_s, outcome.answered_s, strict=True
    ):
        assert arrived + work.before_s <= began + NEAR_S
        assert made == began + work.busy_s
        assert answered == made + work.after_s


@given(outcomes())
@settings(deadline=None)
def test_there_are_never_more_containers_than_allowed(found: tuple[Outcome, Work]) -> None:
    for function in (found[0].front, found[0].gpu):
        most = most_at_once(lives(function.containers))
        assert most <= function.pool.max_containers
        assert most <= function.peak <= function.pool.max_containers


@given(outcomes())
@settings(deadline=None)
def test_a_container_has_no_more_inputs_than_it_takes(found: tuple[Outcome, Work]) -> None:
    outcome, _ = found
    for place, spans in stays(outcome).items():
        assert most_at_once(spans) <= outcome.gpu.pool.slots
        container = outcome.gpu.containers[place]
        assert min(spans)[0] >= container.ready_s
        assert max(made for _, made in spans) <= container.ended_s


@given(outcomes())
@settings(deadline=None)
def test_none_is_idle_longer_than_its_window(found: tuple[Outcome, Work]) -> None:
    outcome, _ = found
    window_s = outcome.gpu.pool.window_s
    spans = stays(outcome)
    for place, container in enumerate(outcome.gpu.containers):
        free_s = container.ready_s
        for began, made in sorted(spans[place]):
            assert began - free_s <= window_s + NEAR_S
            free_s = max(free_s, made)
        assert container.ended_s == pytest.approx(free_s + window_s)


@given(outcomes())
@settings(deadline=None)
def test_a_container_is_busy_while_it_has_an_input(found: tuple[Outcome, Work]) -> None:
    outcome, work = found
    for place, container in enumerate(outcome.gpu.containers):
        busy, until_s = 0.0, -math.inf
        for began, made in sorted(stays(outcome)[place]):
            busy += made - max(began, min(until_s, made))
            until_s = max(until_s, made)
        assert container.busy_s == pytest.approx(busy)
    if outcome.gpu.pool.slots == 1:
        total_s = sum(container.busy_s for container in outcome.gpu.containers)
        assert total_s == pytest.approx(work.busy_s * len(outcome.arrived_s))


@given(arrivals, pools, works)
@settings(deadline=None)
def test_nothing_waits_while_a_container_is_free_or_could_start(
    arrivals_s: list[float], gpu: Pool, work: Work
) -> None:
    outcome = simulate(arrivals_s, Pool(0, 60, 1, slots=1000), gpu, work)
    spans, up = stays(outcome), outcome.gpu.containers
    for arrived, began in zip(arrivals_s, outcome.began_s, strict=True):
        sent = arrived + work.before_s
        if began > sent:
            there = [n for n, c in enumerate(up) if c.started_s <= sent <= c.ended_s]
            taken = {n: sum(b <= sent <= made for b, made in spans[n]) for n in there}
            assert all(taken[n] >= gpu.slots for n in there if up[n].ready_s < sent)
            starting = sum(sent <= up[n].ready_s for n in there)
            assert starting or len(there) >= gpu.max_containers


@given(outcomes())
@settings(deadline=None)
def test_what_is_paid_is_the_lives_of_the_containers(found: tuple[Outcome, Work]) -> None:
    outcome, work = found
    plan = Deployment(outcome.front.pool, outcome.gpu.pool, 3.0, 5.0, work)
    front_s, gpu_s = (
        sum(ended - started for started, ended in lives(function.containers))
        for function in (outcome.front, outcome.gpu)
    )
    paid = bill(plan, outcome)
    assert paid.total_usd == pytest.approx(3 * front_s + 5 * gpu_s)
    assert paid.front_usd == pytest.approx(3 * front_s)
    assert min(paid.start_usd, paid.busy_usd, paid.idle_usd) >= -NEAR_S
    busy_s = sum(container.busy_s for container in outcome.gpu.containers)
    assert gpu_s >= busy_s


def test_three_pictures_and_two_containers() -> None:
    gpu = Pool(start_s=6, window_s=60, max_containers=2)
    front = Pool(start_s=2, window_s=300, max_containers=1, slots=8)
    outcome = simulate([0, 0, 10], front, gpu, Work(1, 5, 1))
    assert list(outcome.began_s) == [9, 9, 14]
    assert list(outcome.answered_s) == [15, 15, 20]
    assert lives(outcome.gpu.containers) == [(3, 79), (3, 74)]
    assert lives(outcome.front.containers) == [(0, 320)]
    assert [container.busy_s for container in outcome.gpu.containers] == [10, 5]
    assert [container.busy_s for container in outcome.front.containers] == [18]


@pytest.mark.parametrize(("spread", "last"), [(False, 0), (True, 1)])
def test_the_oldest_container_goes_first_or_the_one_that_waited_longest(
    spread: bool, last: int
) -> None:
    gpu = Pool(0, 60, 2, spread=spread)
    outcome = simulate([0, 0, 7, 10], Pool(0, 300, 1, 8), gpu, Work(0, 1, 0))
    assert list(outcome.made_by) == [0, 1, 0, last]


def test_what_comes_a_moment_after_the_window_starts_a_container() -> None:
    front = Pool(0, 1000, 1, 8)
    for late_s, count in ((0.0, 1), (0.001, 2)):
        outcome = simulate([0, 6 + 5 + 60 + late_s], front, Pool(6, 60, 4), Work(0, 5, 0))
        assert len(outcome.gpu.containers) == count


@pytest.mark.parametrize("name", CARDS)
def test_no_traffic_costs_nothing(name: str) -> None:
    plan = deployment(Settings(), CARDS[name])
    assert bill(plan, simulate([], plan.front, plan.gpu, plan.work)).total_usd == 0


@pytest.mark.parametrize("name", CARDS)
def test_one_an_hour_costs_what_the_formula_says(name: str) -> None:
    plan = deployment(Settings(), CARDS[name])
    outcome = simulate(regular(HOUR_S, DAY_S), plan.front, plan.gpu, plan.work)
    assert bill(plan, outcome).total_usd / 24 == pytest.approx(alone_usd(plan))
    assert expected_usd(plan, 1e-9) == pytest.approx(alone_usd(plan), rel=1e-3)


@pytest.mark.parametrize("name", CARDS)
def test_a_class_that_is_never_idle_costs_its_busy_seconds(name: str) -> None:
    plan = deployment(Settings(), CARDS[name])
    outcome = simulate([0.0] * 40_000, plan.front, plan.gpu, plan.work)
    paid = bill(plan, outcome)
    busy_usd = plan.work.busy_s * plan.gpu_usd_per_s
    assert (paid.total_usd - paid.front_usd) / 40_000 == pytest.approx(busy_usd, rel=0.05)
    assert busy_usd < full_usd(plan)


@pytest.mark.parametrize("name", ["L4", "H100"])
@pytest.mark.parametrize("an_hour", [2, 15, 60, 240, 1000, 3600, 10_000, 72_000])
def test_pictures_at_random_cost_what_the_formula_says(name: str, an_hour: int) -> None:
    per_s = an_hour / HOUR_S
    plan = deployment(Settings(), CARDS[name], per_s)
    arrivals_s = poisson(per_s, max(4000 / per_s, HOUR_S), np.random.default_rng(1))
    outcome = simulate(arrivals_s, plan.front, plan.gpu, plan.work)
    usd = bill(plan, outcome).total_usd / len(arrivals_s)
    assert usd == pytest.approx(expected_usd(plan, per_s), rel=0.08)
    assert usd > full_usd(plan)


def test_more_pictures_cost_less_each() -> None:
    plan = deployment(Settings(), CARDS["L4"])
    costs = [expected_usd(plan, per_s) for per_s in np.geomspace(1e-5, 3, 50)]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("name", CARDS)
def test_at_the_break_even_a_picture_costs_what_it_did_at_octoai(name: str) -> None:
    plan = deployment(Settings(), CARDS[name])
    assert expected_usd(plan, break_even_per_s(plan)) == pytest.approx(OCTOAI_USD, rel=0.002)
    slow = deployment(Settings(peak_fraction=0.001), CARDS[name])
    assert break_even_per_s(slow) == math.inf


def test_an_idle_minute_of_an_l4_costs_four_calls_of_octoais() -> None:
    plan = deployment(Settings(), CARDS["L4"])
    assert 60 * plan.gpu_usd_per_s == pytest.approx(0.016, rel=0.01)
    assert Size(2, 8).usd_per_s == pytest.approx(2 * 0.0000131 + 8 * 0.00000222)


def test_a_slower_network_and_a_larger_picture_keep_the_gpu_longer() -> None:
    picture = Settings().picture
    l4 = CARDS["L4"]
    usual = deployment(Settings(), l4).work
    slower = deployment(Settings(peak_fraction=0.1), l4).work
    infer_s = picture.flop() / (0.4 * l4.peak_flop_per_s)
    assert slower.busy_s - usual.busy_s == pytest.approx(3 * infer_s)
    small = deployment(Settings(picture=replace(picture, side_px=512)), l4).work
    assert small.busy_s == pytest.approx(usual.busy_s / 4)
    tiny = deployment(Settings(picture=replace(picture, side_px=32)), l4).work
    # Its files are short enough to need no blob store.
    assert tiny.after_s == Settings().front_s / 2 + HANDLING_S < small.after_s < usual.after_s


def test_containers_are_allowed_for_the_height_of_the_traffic() -> None:
    assert [enough(busy) for busy in (0, 3.2, 3.3, 100)] == [4, 4, 5, 125]
    plan = deployment(Settings(), CARDS["L4"], 100)
    assert plan.gpu.max_containers == enough(100 * plan.work.busy_s)
    assert plan.front.max_containers == enough(100 * plan.work.total_s / plan.front.slots)
    assert plan.bears(100)


def test_a_days_traffic_swings_about_its_mean() -> None:
    arrivals_s = np.array(day(100_000, np.random.default_rng(0)))
    assert len(arrivals_s) == 100_000
    assert (np.diff(arrivals_s) >= 0).all()
    by_hour, _ = np.histogram(arrivals_s, 24, (0, DAY_S))
    mean = 100_000 / 24
    assert by_hour.max() == pytest.approx(1.8 * mean, rel=0.05)
    assert by_hour.min() == pytest.approx(0.2 * mean, rel=0.1)
    assert by_hour[11:13].sum() == pytest.approx(2 * by_hour.max(), rel=0.05)


@pytest.mark.parametrize("traffic", PATTERNS[:4], ids=lambda traffic: traffic.name)
def test_traffic_is_in_order_and_the_same_of_the_same_seed(traffic: Traffic) -> None:
    first, again = (traffic.draw(np.random.default_rng(3)) for _ in range(2))
    assert first == again == sorted(first)
    assert 0 <= first[0] <= first[-1] < traffic.duration_s
    assert bursts(3, 10, 20) == [0, 0, 0, 10, 10, 10]


def test_the_command_takes_each_setting() -> None:
    assert settings_of(parser().parse_args([])) == Settings()
    given = "--window 10 --cold-start 2 --max-containers 9 --spread --cores 4 --memory 16"
    changed = settings_of(parser().parse_args(given.split()))
    assert changed == Settings(
        window_s=10, start_s=2, max_containers=9, spread=True, size=Size(4, 16)
    )
    plan = deployment(changed, CARDS["T4"], 1000)
    assert plan.gpu == Pool(2, 10, 9, 1, spread=True)
    assert plan.front == Pool(2, 60, 9, 56)
    assert plan.gpu_usd_per_s == pytest.approx(0.000164 + 4 * 0.0000131 + 16 * 0.00000222)
    assert not plan.bears(1000)


def test_a_row_says_what_was_simulated() -> None:
    plan = deployment(Settings(), CARDS["L4"])
    outcome = simulate([0.0, 1000.0], plan.front, plan.gpu, plan.work)
    found = Run(Traffic("two", 2 * DAY_S, 0, lambda _: []), CARDS["L4"], plan, outcome)
    row = traffic_row(found)
    assert row[:4] == ("two", "L4", "1 of 4", "1")
    assert row[-3:-1] == ("8.0 s", "8.0 s")
    assert float(row[-1]) == pytest.approx(alone_usd(plan), abs=0.005)
    assert float(row[4]) == pytest.approx(alone_usd(plan), rel=0.01)


def test_the_document_has_what_the_command_prints() -> None:
    cards = [CARDS[name] for name in SHOWN]
    rows = [*by_card(Settings(), cards), *by_picture(Settings(), cards)]
    for traffic in PATTERNS[:3]:
        rows += [traffic_row(run(Settings(), card, traffic, 0)) for card in cards]
    for row in rows:
        assert f"| {' | '.join(row)} |" in COST


def test_settings_that_cannot_bear_the_traffic_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = Traffic("three a second", 100, 3, lambda random: poisson(3, 100, random))
    monkeypatch.setattr(modal_cost, "PATTERNS", (few,))
    modal_cost.print_table(modal_cost.what_settings_change(Settings(), CARDS["L4"], 0))
    lines = capsys.readouterr().out.splitlines()
    told = {line.split(" | ")[0].removeprefix("| ") for line in lines if "| too few |" in line}
    alone = {what for what, changes in modal_cost.TRIED.items() if "single" in changes}
    assert told == {"1 container at most", "2 containers at most", *alone}


@pytest.mark.dev
def test_the_plot_is_a_png(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(modal_plot, "SIMULATED", (10, 20))
    file = modal_plot.png(Settings(), [CARDS["L4"], CARDS["T4"]], 0)
    assert file.startswith(b"\x89PNG")
    assert len(file) < 150_000
