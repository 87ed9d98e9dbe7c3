"""How an image is cut into overlapping bands."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upscaler.planning import Box, Tile, bands


class Job(NamedTuple):
    """The arguments of `bands`, in its order."""

    width: int
    height: int
    pieces: int
    halo: int
    multiple: int

    @property
    def reach(self) -> int:
        """The shortest halo that is long enough and a multiple."""
        return next(n for n in range(self.halo, 1000) if n % self.multiple == 0)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    multiple = draw(st.integers(1, 4))
    width, height = (multiple * draw(st.integers(1, 60)) for _ in range(2))
    pieces = draw(st.integers(1, width // multiple))
    return Job(width, height, pieces, draw(st.integers(0, 40)), multiple)


@st.composite
def boxes(draw: st.DrawFn, within: Box) -> Box:
    left, right = sorted(draw(st.integers(within.left, within.right)) for _ in range(2))
    top, bottom = sorted(draw(st.integers(within.top, within.bottom)) for _ in range(2))
    return Box(left, top, right, bottom)


PICTURE = Box(0, 0, 12, 9)
PIXELS = np.arange(12 * 9).reshape(9, 12)


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
    for tile in bands(*job):
        assert contains(picture, tile.core)
        covered[tile.core.slices] += 1
    assert (covered == 1).all()


@given(jobs())
def test_bands_come_from_left_to_right_and_are_as_many_as_asked(job: Job) -> None:
    lefts = [tile.core.left for tile in bands(*job)]
    assert lefts == sorted(lefts)
    assert len(lefts) == job.pieces


@given(jobs())
def test_bands_have_the_whole_height_of_the_picture(job: Job) -> None:
    for tile in bands(*job):
        assert (tile.core.top, tile.core.bottom) == (0, job.height)
        assert (tile.surround.top, tile.surround.bottom) == (0, job.height)


@given(jobs())
def test_a_surround_contains_its_core(job: Job) -> None:
    picture = Box(0, 0, job.width, job.height)
    for tile in bands(*job):
        assert contains(tile.surround, tile.core)
        assert contains(picture, tile.surround)


@given(jobs())
def test_a_surround_extends_by_the_halo_or_stops_at_the_border(job: Job) -> None:
    for core, surround in ((tile.core, tile.surround) for tile in bands(*job)):
        assert core.left - surround.left == min(job.reach, core.left)
        assert surround.right - core.right == min(job.reach, job.width - core.right)


@given(jobs())
def test_every_edge_is_at_a_multiple(job: Job) -> None:
    for tile in bands(*job):
        assert not any(edge % job.multiple for edge in edges(tile.core) + edges(tile.surround))


@given(jobs())
def test_cores_differ_by_at_most_the_multiple(job: Job) -> None:
    widths = [tile.core.width for tile in bands(*job)]
    assert max(widths) - min(widths) <= job.multiple


@given(jobs())
def test_one_band_is_the_whole_picture(job: Job) -> None:
    whole = Box(0, 0, job.width, job.height)
    assert bands(*job._replace(pieces=1)) == [Tile(core=whole, surround=whole)]


def test_known_bands() -> None:
    """10 x 4 pixels in two cores of 4 and 6, each with 2 around it."""
    assert bands(10, 4, 2, halo=1, multiple=2) == [
        Tile(core=Box(0, 0, 4, 4), surround=Box(0, 0, 6, 4)),
        Tile(core=Box(4, 0, 10, 4), surround=Box(2, 0, 10, 4)),
    ]


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-4, 4), (4, -4), (5, 4), (4, 5)])
def test_a_picture_that_cannot_be_cut_at_multiples_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be cut at multiples of 2"):
        bands(*size, count=1, halo=0, multiple=2)


@pytest.mark.parametrize(("count", "halo"), [(0, 0), (-1, 0), (4, 0), (1, -1), (3, -3)])
def test_what_cannot_be_met_is_refused(count: int, halo: int) -> None:
    """9 pixels have room for 3 bands whose edges are multiples of 3."""
    with pytest.raises(ValueError, match="cannot cut 9 pixels"):
        bands(9, 9, count, halo, multiple=3)


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
