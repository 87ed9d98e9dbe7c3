"""Pixels at other sizes, and the before/after image."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from tests.support.image_files import (
    NOISE,
    RGB,
    Samples,
    chunk,
    decode,
    noise,
    off_by,
    png,
    refusal,
    three,
)
from tests.support.properties import examples
from upscaler.api.sizes import Size
from upscaler.imaging import resize as resizing
from upscaler.imaging.comparison import before_after
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.resize import resize, resized_strips

any_picture = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(3, 4))
)

# Resizing

small = st.integers(1, 60)


@given(any_picture, small, small)
@settings(max_examples=examples(60))
def test_resizing_gives_exactly_the_size_asked_for(pixels: Pixels, width: int, height: int) -> None:
    resized = resize(pixels, (width, height))
    assert resized.shape == (height, width, pixels.shape[2])
    assert resized.dtype == np.uint8
    assert resized.flags.c_contiguous
    assert resized.flags.writeable


@given(any_picture)
@settings(max_examples=examples(30))
def test_resizing_to_the_same_size_changes_no_pixel(pixels: Pixels) -> None:
    resized = resize(pixels.copy(), (pixels.shape[1], pixels.shape[0]))
    assert np.array_equal(resized, pixels)


def test_a_uniform_colour_is_unchanged() -> None:
    pixels = np.full((20, 30, 4), (250, 130, 3, 255), dtype=np.uint8)
    assert np.unique(resize(pixels, (47, 11)).reshape(-1, 4), axis=0).tolist() == [
        [250, 130, 3, 255]
    ]


@pytest.mark.parametrize("size", [(32, 32), (21, 17)])
def test_a_fine_checkerboard_shrinks_to_grey(size: Size) -> None:
    board = three((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None])
    inner = resize(board, size)[4:-4, 4:-4]
    assert off_by(inner, np.full(inner.shape, 127.5)) <= 2


Kernel = Callable[[Samples], Samples]
"""How much a pixel counts, by its distance."""


def cubic(x: Samples) -> Samples:
    """Keys' cubic with a = -1/2."""
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def lanczos(x: Samples) -> Samples:
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)


def shares(length: int, wanted: int, kernel: Kernel) -> Samples:
    """What each pixel of a resized line takes of each of the line: a reduction takes of more."""
    centres = (np.arange(wanted) + 0.5) * length / wanted - 0.5
    distances = np.abs(centres[:, None] - np.arange(length))
    weights = kernel(distances / max(1, length / wanted))
    normal: Samples = weights / weights.sum(axis=1, keepdims=True)
    return normal


def resampled(pixels: Pixels, size: Size, kernel: Kernel) -> Samples:
    rows, columns = (shares(pixels.shape[axis], size[1 - axis], kernel) for axis in (0, 1))
    result: Samples = np.einsum("ya,abc,xb->yxc", rows, pixels, columns, optimize=True)
    return result


@pytest.mark.parametrize("size", [(120, 96), (41, 23), (20, 12), (17, 60)])
def test_resizing_is_antialiased_lanczos(size: Size) -> None:
    """The levels keep it from swinging below 0 or above 255."""
    pixels = noise(24, 40, 3, low=64)
    assert off_by(resize(pixels, size), resampled(pixels, size, lanczos)) <= 1.5


@pytest.mark.parametrize("step", [1, 5, 1000])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("size", [(31, 47), (90, 50), (61, 20), (17, 70), (1, 1), (40, 200)])
def test_resizing_in_parts_equals_the_whole(
    size: Size, channels: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PART", "AT_ONCE", "CHUNK"):
        monkeypatch.setattr(resizing, name, step)
    pixels = noise(50, 61, channels)
    whole = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    assert np.array_equal(resize(pixels, size), np.array(whole))


@given(any_picture, small, small, st.lists(st.integers(0, 20), max_size=4).map(sorted))
@settings(max_examples=examples(60))
def test_resizing_a_stream_equals_pillows_two_passes(
    pixels: Pixels, width: int, height: int, cuts: list[int]
) -> None:
    """First the rows of the whole image and then its columns, premultiplied by alpha."""
    source = (pixels.shape[1], pixels.shape[0])
    image = Image.fromarray(pixels)
    image = image.convert("RGBa") if image.mode == "RGBA" else image
    for size in ((width, source[1]), (width, height)):
        image = image.resize(size, Image.Resampling.LANCZOS)
    expected = np.asarray(image.convert("RGBA") if image.mode == "RGBa" else image)
    strips = resized_strips(np.split(pixels, cuts), source, (width, height))
    assert np.array_equal(np.concatenate(list(strips)), expected)


def test_a_part_of_a_larger_image_can_be_resized() -> None:
    pixels = noise(50, 61, 4)[3:40, 5:33, :3]
    assert np.array_equal(resize(pixels, (20, 50)), resize(pixels.copy(), (20, 50)))


def beside(hidden: tuple[int, int, int]) -> Pixels:
    """Opaque red on the left, and invisible pixels of some colour on the right."""
    pixels = np.full((32, 32, 4), (200, 10, 20, 255), dtype=np.uint8)
    pixels[:, 16:] = (*hidden, 0)
    return pixels


@pytest.mark.parametrize("size", [(16, 16), (45, 20), (64, 64)])
def test_the_colour_of_transparent_pixels_does_not_bleed(size: Size) -> None:
    """Lanczos may swing a tenth beyond red, but red it stays, whatever is hidden beside it."""
    resized = resize(beside((0, 255, 0)), size).astype(float)
    share = resized[..., 3:] / 255
    assert ((share > 0) & (share < 1)).any()
    assert np.abs(resized[..., :3] * share - share * (200, 10, 20)).max() <= 25
    assert (resized[..., 1] * share[..., 0]).max() <= 12
    other = resize(beside((0, 0, 255)), size)
    assert np.array_equal(np.where(share > 0, resized, 0), np.where(share > 0, other, 0))


# Before and after


def middle(pixels: Samples, size: Size) -> Samples:
    left, top = (pixels.shape[1] - size[0]) // 2, (pixels.shape[0] - size[1]) // 2
    return pixels[top : top + size[1], left : left + size[0]]


TITLE_PX = 40
"""The titles are above this row."""

PANELS = (
    pytest.param((75, 60), (300, 240), (300, 240), id="all-of-it"),
    pytest.param((260, 60), (1040, 240), (768, 240), id="wide"),
    pytest.param((30, 301), (90, 903), (90, 768), id="tall"),
    pytest.param((256, 256), (1023, 897), (768, 768), id="large"),
)


@pytest.mark.parametrize(("small", "large", "panel"), PANELS)
def test_before_and_after_show_the_same_crop(small: Size, large: Size, panel: Size) -> None:
    """The levels keep bicubic from swinging below 0 or above 255."""
    before, after = noise(small[1], small[0], 3, low=64), noise(large[1], large[0], 3)
    sheet = before_after(before, after)
    width, height = panel
    assert sheet.shape == (height, 2 * width + 8, 3)
    assert sheet.dtype == np.uint8
    left, gap, right = np.split(sheet[TITLE_PX:], [width, width + 8], axis=1)
    assert off_by(left, middle(resampled(before, large, cubic), panel)[TITLE_PX:]) <= 1.5
    assert off_by(right, middle(after, panel)[TITLE_PX:]) == 0
    assert gap.min() == 255


def test_each_half_has_a_title() -> None:
    grey = np.full((60, 300, 3), 128, dtype=np.uint8)
    top = before_after(grey, grey)[:TITLE_PX]
    for half in (top[:, :300], top[:, 308:]):
        assert half.min() == 0
        assert half.max() == 255


def test_before_and_after_are_put_on_white() -> None:
    before = np.full((60, 75, 4), (255, 0, 0, 0), dtype=np.uint8)
    after = np.full((240, 300, 4), (0, 100, 255, 51), dtype=np.uint8)
    left, right = np.split(before_after(before, after)[TITLE_PX:], [304], axis=1)
    assert left.min() == 255
    assert off_by(right[:, 4:], np.full((200, 300, 3), (204, 224, 255))) <= 1


def test_a_flood_of_chunks_is_refused_at_once() -> None:
    flood = chunk(b"teSt", b"") * 70_000
    assert refusal(png(NOISE, 8, RGB, before=flood)).type == "image_unreadable"
    assert off_by(decode(png(NOISE, 8, RGB, before=flood[: 12 * 60_000])), NOISE) == 0
