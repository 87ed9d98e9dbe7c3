from itertools import count
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upscaler.tiling import Box, Tile, plan


class Job(NamedTuple):
    """The arguments of `plan`, in its order."""

    width: int
    height: int
    tile: int
    halo: int
    multiple: int

    @property
    def longest_core(self) -> int:
        """The longest core that `tile` and `multiple` both allow."""
        return max(n for n in range(1, self.tile + 1) if n % self.multiple == 0)

    @property
    def reach(self) -> int:
        """The shortest halo that is long enough and a multiple."""
        return next(n for n in count(self.halo) if n % self.multiple == 0)


@st.composite
def jobs(draw: st.DrawFn, *, whole: bool = False) -> Job:
    multiple = draw(st.integers(1, 4))
    width, height = (multiple * draw(st.integers(1, 60)) for _ in range(2))
    tile = 0 if whole else draw(st.integers(multiple, 80))
    return Job(width, height, tile, draw(st.integers(0, 40)), multiple)


@st.composite
def boxes(draw: st.DrawFn, within: Box) -> Box:
    left, right = sorted(draw(st.integers(within.left, within.right)) for _ in range(2))
    top, bottom = sorted(draw(st.integers(within.top, within.bottom)) for _ in range(2))
    return Box(left, top, right, bottom)


PICTURE = Box(0, 0, 12, 9)
PIXELS = np.arange(12 * 9).reshape(9, 12)


def fewest(length: int, longest: int) -> int:
    """How many pieces a greedy cutter makes; no other needs fewer."""
    pieces = 0
    while length > 0:
        length -= longest
        pieces += 1
    return pieces


def edges(box: Box) -> tuple[int, int, int, int]:
    return box.left, box.top, box.right, box.bottom


def contains(outer: Box, inner: Box) -> bool:
    return (
        outer.left <= inner.left < inner.right <= outer.right
        and outer.top <= inner.top < inner.bottom <= outer.bottom
    )


@given(jobs())
def test_each_pixel_is_in_exactly_one_core(job: Job) -> None:
    picture = Box(0, 0, job.width, job.height)
    covered = np.zeros((job.height, job.width), dtype=int)
    for tile in plan(*job):
        assert contains(picture, tile.core)
        covered[tile.core.slices] += 1
    assert (covered == 1).all()


@given(jobs())
def test_tiles_come_row_by_row(job: Job) -> None:
    corners = [(tile.core.top, tile.core.left) for tile in plan(*job)]
    assert corners == sorted(corners)


@given(jobs())
def test_a_surround_contains_its_core(job: Job) -> None:
    assert all(contains(tile.surround, tile.core) for tile in plan(*job))


@given(jobs())
def test_a_surround_extends_by_the_halo_or_stops_at_the_border(job: Job) -> None:
    for core, surround in ((tile.core, tile.surround) for tile in plan(*job)):
        assert core.left - surround.left == min(job.reach, core.left)
        assert core.top - surround.top == min(job.reach, core.top)
        assert surround.right - core.right == min(job.reach, job.width - core.right)
        assert surround.bottom - core.bottom == min(job.reach, job.height - core.bottom)


@given(jobs())
def test_every_edge_is_at_a_multiple(job: Job) -> None:
    for tile in plan(*job):
        assert not any(edge % job.multiple for edge in edges(tile.core) + edges(tile.surround))


@given(jobs())
def test_cores_differ_by_at_most_the_multiple(job: Job) -> None:
    cores = [tile.core for tile in plan(*job)]
    for sides in ([core.width for core in cores], [core.height for core in cores]):
        assert max(sides) - min(sides) <= job.multiple


@given(jobs())
def test_no_core_is_longer_than_the_tile(job: Job) -> None:
    assert all(max(tile.core.width, tile.core.height) <= job.tile for tile in plan(*job))


@given(jobs())
def test_there_are_as_few_tiles_as_possible(job: Job) -> None:
    columns = fewest(job.width, job.longest_core)
    rows = fewest(job.height, job.longest_core)
    assert len(plan(*job)) == columns * rows


@given(jobs(whole=True))
def test_tile_0_is_one_tile_that_is_the_whole_picture(job: Job) -> None:
    whole = Box(0, 0, job.width, job.height)
    assert plan(*job) == [Tile(core=whole, surround=whole)]


def test_a_known_plan() -> None:
    """10 x 4 pixels, at most 6 to a core: two cores of 4 and 6, each with 2 around it."""
    assert plan(10, 4, tile=6, halo=1, multiple=2) == [
        Tile(core=Box(0, 0, 4, 4), surround=Box(0, 0, 6, 4)),
        Tile(core=Box(4, 0, 10, 4), surround=Box(2, 0, 10, 4)),
    ]


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-4, 4), (4, -4), (5, 4), (4, 5)])
def test_a_picture_that_cannot_be_cut_at_multiples_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be cut at multiples of 2"):
        plan(*size, tile=4, halo=0, multiple=2)


@pytest.mark.parametrize("tile", [1, 2, 3, 4, 5])
def test_a_tile_below_the_multiple_is_as_long_as_the_multiple(tile: int) -> None:
    assert plan(9, 9, tile, 0, multiple=3) == plan(9, 9, 3, 0, multiple=3)


@pytest.mark.parametrize(("tile", "halo"), [(-1, 0), (-4, 0), (4, -1), (0, -1)])
def test_a_negative_tile_or_halo_is_refused(tile: int, halo: int) -> None:
    with pytest.raises(ValueError, match="may be negative"):
        plan(9, 9, tile, halo, multiple=3)


@given(boxes(PICTURE))
def test_the_slices_of_a_box_cut_out_its_pixels(box: Box) -> None:
    rows, columns = range(box.top, box.bottom), range(box.left, box.right)
    wanted = [[12 * row + column for column in columns] for row in rows]
    assert PIXELS[box.slices].tolist() == wanted
    assert (box.height, box.width) == (len(rows), len(columns))


@given(boxes(PICTURE), st.integers(1, 4))
def test_a_scaled_box_cuts_the_same_out_of_an_enlarged_picture(box: Box, scale: int) -> None:
    enlarged = PIXELS.repeat(scale, axis=0).repeat(scale, axis=1)
    wanted = PIXELS[box.slices].repeat(scale, axis=0).repeat(scale, axis=1)
    assert np.array_equal(enlarged[box.scaled(scale).slices], wanted)


@given(st.data())
def test_a_box_within_another_cuts_the_same_out_of_it(data: st.DataObject) -> None:
    outer = data.draw(boxes(PICTURE))
    inner = data.draw(boxes(outer))
    assert np.array_equal(PIXELS[outer.slices][inner.within(outer).slices], PIXELS[inner.slices])
