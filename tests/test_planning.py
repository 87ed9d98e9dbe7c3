"""The choice of a plan, against a brute force over everything that could be chosen."""

from dataclasses import replace
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upscaler.errors import OutOfMemory
from upscaler.models import MODELS, UpscalingModel
from upscaler.planning import (
    MIB,
    MIN_BAND_PX,
    MIN_ROWS,
    SPOOL_BYTES,
    SPOOL_COST,
    STEP_COST_PX,
    Footprint,
    Plan,
    cheapest,
    footprint,
    plans,
    whole_footprint,
)
from upscaler.settings import Precision

LARGE = 2**60


class Job(NamedTuple):
    """What `plans` is told, but for the model, which is only asked for the last three."""

    width: int
    height: int
    channels: int
    footprint: Footprint
    halo: int
    multiple: int
    scale: int

    def plans(self, spool: Path | None = None) -> list[Plan]:
        name = {(1, 4): UpscalingModel.X4_PLUS, (2, 2): UpscalingModel.X2_PLUS}
        model = replace(MODELS[name[self.multiple, self.scale]], halo=self.halo)
        size = (self.width, self.height)
        return plans(model, size, self.channels, self.footprint, spool=spool)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    multiple, scale = draw(st.sampled_from([(1, 4), (2, 2)]))
    width, height = (multiple * draw(st.integers(1, 500)) for _ in range(2))
    amount = st.integers(0, 10**6)
    footprint = Footprint(
        fixed=draw(amount),
        column=draw(amount),
        flow=draw(amount),
        tail=draw(amount),
        step_px=draw(st.integers(1, 50_000)),
        tail_px=draw(st.integers(1, 5_000)),
    )
    halo = draw(st.integers(0, 100))
    return Job(width, height, draw(st.sampled_from([3, 4])), footprint, halo, multiple, scale)


class Way(NamedTuple):
    """A way to enlarge a picture, and what it takes, all of it counted anew."""

    cost: int
    bytes: int
    bands: int
    rows: int


def ways(job: Job) -> list[Way]:
    """Every number of bands, and every number of rows that halving leads to."""
    found = []
    most = max(1, job.width // max(MIN_BAND_PX, job.multiple))
    reach = next(n for n in range(job.halo, 1000) if n % job.multiple == 0)
    for bands in range(1, most + 1):
        units = job.width // job.multiple
        cuts = [units * band // bands * job.multiple for band in range(bands + 1)]
        widths = [
            min(right + reach, job.width) - max(left - reach, 0) for left, right in pairwise(cuts)
        ]
        widest = max(widths) // job.multiple
        high = job.height // job.multiple
        rows = max(MIN_ROWS, min(high, job.footprint.step_px // widest))
        while True:
            tail_rows = min(rows, max(1, job.footprint.tail_px // widest))
            of = job.footprint
            maps = of.fixed + widest * (of.column + of.flow * rows + of.tail * tail_rows)
            samples = 3 if job.channels == 3 else 5 if bands == 1 else 8
            result = job.width * job.scale * job.height * job.scale * samples
            steps = bands * ceil(high / rows)
            cost = sum(widths) * job.height + steps * STEP_COST_PX
            found.append(Way(cost, maps + result, bands, rows))
            if rows == MIN_ROWS:
                break
            rows = max(MIN_ROWS, rows // 2)
    return found


@given(jobs())
def test_the_plans_are_all_there_are_and_the_cheapest_comes_first(job: Job) -> None:
    found = [Way(plan.cost, plan.bytes, len(plan.tiles), plan.rows) for plan in job.plans()]
    assert sorted(found) == sorted(ways(job))
    assert [way[:2] for way in found] == sorted(way[:2] for way in found)


@given(
    name=st.sampled_from(UpscalingModel),
    precision=st.sampled_from([Precision.FP32, Precision.MIXED, Precision.BF16]),
    width=st.integers(1, 1024),
    height=st.integers(1, 1024),
)
def test_where_memory_does_not_matter_a_picture_goes_through_whole(
    name: UpscalingModel, precision: Precision, width: int, height: int
) -> None:
    """With the figures as they are: nothing is computed twice."""
    model = MODELS[name]
    of = footprint(model.network, precision, "cpu")
    plan = cheapest(plans(model, (width * 2, height * 2), 3, of), LARGE, 0)
    assert len(plan.tiles) == 1
    assert plan.overhead == 0


@given(jobs())
def test_each_column_is_in_one_core_and_each_core_in_its_surround(job: Job) -> None:
    for plan in job.plans():
        right = 0
        for tile in plan.tiles:
            assert tile.core.left == right
            right = tile.core.right
            assert 0 <= tile.surround.left <= tile.core.left < right <= tile.surround.right
            assert tile.surround.right <= job.width
            for box in (tile.core, tile.surround):
                assert (box.top, box.bottom) == (0, job.height)
        assert right == job.width


@given(jobs())
def test_bands_differ_by_at_most_the_multiple_and_have_their_halo(job: Job) -> None:
    for plan in job.plans():
        widths = [tile.core.width for tile in plan.tiles]
        assert max(widths) - min(widths) <= job.multiple
        for core, surround in ((tile.core, tile.surround) for tile in plan.tiles):
            assert surround.left == 0 or core.left - surround.left >= job.halo
            assert surround.right == job.width or surround.right - core.right >= job.halo


@given(jobs())
def test_no_plan_has_fewer_rows_at_once_than_pay_or_a_tail_without_any(job: Job) -> None:
    for plan in job.plans():
        assert plan.rows >= MIN_ROWS
        assert 1 <= plan.tail_rows <= plan.rows


@given(jobs(), st.data())
def test_no_plan_within_the_budget_is_cheaper(job: Job, data: st.DataObject) -> None:
    every = ways(job)
    least = min(way.bytes for way in every)
    most = max(way.bytes for way in every)
    memory = data.draw(st.integers(least, most + 1) | st.sampled_from([w.bytes for w in every]))

    plan = cheapest(job.plans(), memory, free=data.draw(st.integers(0, LARGE)))

    assert plan.bytes <= memory
    assert plan.cost == min(way.cost for way in every if way.bytes <= memory)


@given(jobs(), st.data())
def test_more_memory_never_costs_more(job: Job, data: st.DataObject) -> None:
    choices = job.plans()
    least = min(plan.bytes for plan in choices)
    most = max(plan.bytes for plan in choices)
    less, more = sorted(data.draw(st.integers(least, most)) for _ in range(2))
    assert cheapest(choices, more, 0).cost <= cheapest(choices, less, 0).cost


@given(jobs())
def test_a_budget_that_is_too_small_is_refused_and_told_what_is_needed(job: Job) -> None:
    choices = job.plans()
    least = min(plan.bytes for plan in choices)
    assert cheapest(choices, least, 0).bytes == least
    for memory in (least - 1, 1):
        if memory < least:
            with pytest.raises(OutOfMemory, match=f"needs {least / MIB:,.0f} MiB at least"):
                cheapest(choices, memory, free=LARGE)


@given(jobs(), st.data())
def test_without_a_budget_it_is_half_of_what_is_free(job: Job, data: st.DataObject) -> None:
    """And the smallest plan where not even that fits into half: it may do all the same."""
    choices = job.plans()
    least = min(plan.bytes for plan in choices)
    most = max(plan.bytes for plan in choices)
    free = data.draw(st.integers(0, 2 * most + 2))
    plan = cheapest(choices, None, free)
    if free // 2 >= least:
        assert plan == cheapest(choices, free // 2, 0)
    else:
        assert plan.bytes == least


@given(jobs())
def test_with_a_folder_the_same_plans_hold_nothing_of_the_result(job: Job) -> None:
    """Each plan in memory is there still, and beside it one with a stream for each pass."""
    folder = Path("folder")
    found = job.plans(spool=folder)
    assert [plan for plan in found if plan.spool is None] == job.plans()
    streamed = {(len(plan.tiles), plan.rows): plan for plan in found if plan.spool == folder}
    assert len(streamed) == len(job.plans())
    output_px = job.width * job.height * job.scale**2
    for plan in job.plans():
        other, bands = streamed[len(plan.tiles), plan.rows], len(plan.tiles)
        held = output_px * (3 if job.channels == 3 else 5 if bands == 1 else 8)
        working = plan.bytes - held
        if bands == 1:
            assert other.disk == 0
            assert other.bytes == working * (1 if job.channels == 3 else 2)
            assert other.cost == plan.cost
        else:
            assert other.disk == output_px * job.channels
            assert other.bytes == working + SPOOL_BYTES
            assert other.cost == plan.cost + job.width * job.height // SPOOL_COST


@pytest.mark.parametrize("size", [(0, 4), (4, 0)])
def test_a_picture_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 2"):
        in_twos(*size).plans()


def test_sides_are_counted_as_the_next_multiples() -> None:
    assert in_twos(199, 99).plans() == in_twos(200, 100).plans()


def in_twos(width: int, height: int) -> Job:
    return Job(width, height, 3, Footprint(1, 1, 1, 1, 1, 1), halo=0, multiple=2, scale=2)


KNOWN = Job(
    width=200,
    height=100,
    channels=3,
    footprint=Footprint(MIB, column=1000, flow=100, tail=500, step_px=4000, tail_px=500),
    halo=10,
    multiple=1,
    scale=4,
)


def test_known_plans() -> None:
    """200 x 100 pixels, whole or in 2 or 3 bands, the widest of them 110 and 87 pixels wide."""
    found = {(len(plan.tiles), plan.rows): plan for plan in KNOWN.plans()}
    assert sorted(found) == [
        *((1, rows) for rows in (4, 5, 10, 20)),
        *((2, rows) for rows in (4, 9, 18, 36)),
        *((3, rows) for rows in (4, 5, 11, 22, 45)),
    ]
    whole, thirds = found[1, 20], found[3, 11]
    result = 800 * 400 * 3
    assert whole.tail_rows == 2
    assert whole.bytes == MIB + 200 * (1000 + 20 * 100 + 2 * 500) + result
    assert whole.cost == 200 * 100 + 5 * STEP_COST_PX
    assert [tile.surround.width for tile in thirds.tiles] == [76, 87, 77]
    assert thirds.tail_rows == 5
    assert thirds.bytes == MIB + 87 * (1000 + 11 * 100 + 5 * 500) + result
    assert thirds.cost == 240 * 100 + 3 * 10 * STEP_COST_PX
    assert thirds.overhead == pytest.approx(0.2)


def test_a_plan_says_what_it_is() -> None:
    found = {(len(plan.tiles), plan.rows): plan for plan in KNOWN.plans()}
    whole = replace(found[1, 20], bytes=1234 * MIB)
    assert str(whole) == (
        "whole, 200x100 px, 20 rows at once and 2 in the tail, 0.0% computed twice, 1,234 MiB"
    )
    assert str(replace(found[3, 11], bytes=5 * MIB // 2 + 1)) == (
        "in 3 bands, 87x100 px, 11 rows at once and 5 in the tail, 20.0% computed twice, 3 MiB"
    )
    assert str(replace(found[3, 11], disk=7 * MIB)).endswith(" MiB, 7 MiB on disk")


@given(
    name=st.sampled_from(UpscalingModel),
    width=st.integers(32, 2048),
    height=st.integers(32, 2048),
    data=st.data(),
)
def test_on_whole_maps_a_step_is_all_rows_and_less_memory_means_more_bands_or_shorter_strips(
    name: UpscalingModel, width: int, height: int, data: st.DataObject
) -> None:
    model = MODELS[name]
    of = whole_footprint(model.network)
    found = plans(model, (width, height), 3, of)
    rows = -(-height // model.multiple)
    assert {plan.rows for plan in found} == {rows}
    best = found[0]
    assert len(best.tiles) == 1
    assert best.tail_rows == max(MIN_ROWS, min(rows, of.tail_px // -(-width // model.multiple)))
    memory = data.draw(st.integers(min(plan.bytes for plan in found), best.bytes))
    smaller = cheapest(found, memory, 0)
    assert smaller.bytes <= memory
    assert len(smaller.tiles) > 1 or smaller.tail_rows <= best.tail_rows
