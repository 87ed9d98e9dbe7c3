"""Colours spread beneath transparency: what is hidden does not count, and what shows stays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.properties import examples
from upscaler.imaging import alpha as module
from upscaler.imaging.alpha import bleed_colours
from upscaler.imaging.pixels import Pixels

sides = st.tuples(st.integers(1, 40), st.integers(1, 40))


@st.composite
def pictures(draw: st.DrawFn) -> Pixels:
    """RGBA noise: transparent, opaque and everything between, in blocks so that regions arise."""
    height, width = draw(sides)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    pixels = random.integers(0, 256, (height, width, 4), np.uint8)
    levels = np.array(draw(st.lists(st.integers(0, 255), min_size=2, max_size=6)), np.uint8)
    blocks = levels[random.integers(0, len(levels), (10, 10))]
    pixels[:, :, 3] = blocks.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    return pixels


def premultiplied(pixels: Pixels) -> Pixels:
    """Colours times alpha, by Pillow, which rounds to the nearest."""
    return np.array(Image.fromarray(pixels).convert("RGBa"))


def on(background: tuple[int, int, int], pixels: Pixels) -> Pixels:
    """What is seen on a background, by Pillow."""
    behind = Image.new("RGBA", (pixels.shape[1], pixels.shape[0]), (*background, 255))
    return np.array(Image.alpha_composite(behind, Image.fromarray(pixels)))[:, :, :3]


def difference(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one.astype(int) - other).max())


@given(pictures())
@settings(max_examples=examples(100))
def test_alpha_and_what_is_seen_clearly_are_unchanged(pixels: Pixels) -> None:
    found = bleed_colours(pixels)
    assert found.shape == pixels.shape
    assert found.dtype == np.uint8
    assert np.array_equal(found[:, :, 3], pixels[:, :, 3])
    opaque, clear = pixels[:, :, 3] == 255, pixels[:, :, 3] >= 128
    assert np.array_equal(found[opaque], pixels[opaque])
    assert np.array_equal(premultiplied(found)[clear], premultiplied(pixels)[clear])


@given(pictures(), st.tuples(*[st.integers(0, 255)] * 3))
@settings(max_examples=examples(100))
def test_nobody_can_tell_the_difference(pixels: Pixels, background: tuple[int, int, int]) -> None:
    """By at most a level on any background, and so on black and on white."""
    found = bleed_colours(pixels)
    for behind in (background, (0, 0, 0), (255, 255, 255)):
        assert difference(on(behind, found), on(behind, pixels)) <= 1


@given(pictures(), st.integers(0, 2**32))
@settings(max_examples=examples(100))
def test_pictures_that_look_alike_become_the_same(pixels: Pixels, seed: int) -> None:
    """Each sample is exchanged for another near it, or any, if that is the same times alpha."""
    random = np.random.default_rng(seed)
    for tried in (
        random.integers(0, 256, pixels.shape, np.uint8),
        (pixels + random.integers(-2, 3, pixels.shape)).clip(0, 255).astype(np.uint8),
    ):
        tried[:, :, 3] = pixels[:, :, 3]
        other = np.where(premultiplied(tried) == premultiplied(pixels), tried, pixels)
        if pixels[:, :, 3].min() < pixels[:, :, 3].max():
            assert np.array_equal(bleed_colours(other), bleed_colours(pixels))


@given(pictures())
@settings(max_examples=examples(60))
def test_hidden_colours_lie_between_the_visible_ones(pixels: Pixels) -> None:
    pixels[:, :, 3] = np.where(pixels[:, :, 3] < 128, 0, 255)
    visible = pixels[pixels[:, :, 3] > 0]
    found = bleed_colours(pixels)
    if not len(visible):
        assert not found[:, :, :3].any(), "black where nothing is visible"
        return
    assert np.all(found >= visible.min(axis=0) * [1, 1, 1, 0])
    assert np.all(found <= visible.max(axis=0))


@pytest.mark.parametrize("axis", [0, 1])
def test_two_hidden_pixels_between_two_colours_are_a_ramp(axis: int) -> None:
    """A quarter and three quarters of the way: each lies between the means of two pairs."""
    row = [(0, 241, 80, 255), (9, 9, 9, 0), (7, 7, 7, 0), (241, 0, 80, 255)]
    found = bleed_colours(np.expand_dims(np.array(row, np.uint8), axis)).reshape(4, 4)
    assert found[1:3].tolist() == [[60, 181, 80, 0], [181, 60, 80, 0]]


def test_a_hidden_pixel_is_the_rounded_mean_of_the_three_beside_it() -> None:
    pixels = np.array([[[10] * 3 + [255], [11] * 3 + [255]], [[11] * 3 + [255], [0] * 4]], np.uint8)
    assert bleed_colours(pixels)[1, 1].tolist() == [11, 11, 11, 0]


@pytest.mark.parametrize("beneath", [0, 255])
def test_the_colour_of_a_pixel_that_hardly_shows_counts_for_nothing(beneath: int) -> None:
    """At alpha 1 no colour is more than a level from any other."""
    pixels = np.full((2, 4, 4), beneath, np.uint8)
    pixels[:, :, 3] = 1
    pixels[:, 0] = (200, 100, 50, 255)
    found = bleed_colours(pixels)
    assert difference(found[:, 1, :3], np.array([200, 100, 50])) <= 4


def test_below_an_alpha_of_128_a_colour_may_change_by_a_level() -> None:
    """At 127 the colour 101 becomes its neighbour's, 100. At 128 these are 51 and 50 levels, and
    102 is 51 as well."""
    pixels = np.full((2, 4, 4), 101, np.uint8)
    pixels[:, :2] = (100, 100, 100, 255)
    for alpha, expected in ((127, 100), (128, 102)):
        pixels[:, 2:, 3] = alpha
        assert np.all(bleed_colours(pixels)[:, 2, :3] == expected)


@pytest.mark.parametrize("spot", [(0, 0), (299, 0), (150, 201)])
def test_one_visible_pixel_colours_the_whole_image(spot: tuple[int, int]) -> None:
    pixels = np.full((300, 307, 4), 200, np.uint8)
    pixels[:, :, 3] = 0
    pixels[spot] = (250, 30, 119, 255)
    assert np.all(bleed_colours(pixels)[:, :, :3] == (250, 30, 119))


def test_the_colour_next_to_an_edge_is_that_of_the_edge() -> None:
    """And not a mean of all that is visible: red and blue are far from each other."""
    pixels = np.zeros((64, 256, 4), np.uint8)
    pixels[:, :20] = (255, 0, 0, 255)
    pixels[:, -20:] = (0, 0, 255, 255)
    found = bleed_colours(pixels)[32].astype(int)
    assert difference(found[20:24, :3], np.array([255, 0, 0])) <= 16
    assert difference(found[-24:-20, :3], np.array([0, 0, 255])) <= 16
    assert np.abs(np.diff(found[20:-20, :3], axis=0)).max() <= 8, "smooth between them"


def test_a_soft_edge_keeps_its_colour_whatever_is_written_beneath() -> None:
    """A shadow from opaque to nothing, saved as programs do that work with premultiplied colours:
    at a low alpha its colours are quantised, and at 0 they are lost."""
    straight = np.full((32, 256, 4), (210, 140, 60, 0), np.uint8)
    straight[:, :, 3] = np.arange(255, -1, -1)
    saved = np.array(Image.fromarray(straight).convert("RGBa").convert("RGBA"))
    assert difference(saved, straight) > 40, "otherwise there is nothing to mend"
    found = bleed_colours(saved)
    opacity = straight[:, :, 3:] / 255
    assert np.abs((found[:, :, :3] - straight[:, :, :3].astype(int)) * opacity).max() <= 1
    assert difference(found[:, :252], straight[:, :252]) <= 22


@pytest.mark.parametrize("value", [1, 60, 127, 128, 255])
def test_colours_stay_where_alpha_is_the_same_everywhere(value: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    pixels[:, :, 3] = value
    assert bleed_colours(pixels) is pixels


def test_a_wholly_transparent_image_becomes_black() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 4), np.uint8)
    pixels[:, :, 3] = 0
    assert not bleed_colours(pixels).any()


@given(pictures())
@settings(max_examples=examples(60))
def test_strips_do_not_show_and_the_input_stays(pixels: Pixels) -> None:
    before = pixels.copy()
    whole = bleed_colours(pixels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STRIP_PX", 1)
        assert np.array_equal(bleed_colours(pixels), whole)
    assert np.array_equal(pixels, before)
