"""Pictures on their way out: encoding, resizing, and the before/after picture."""

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageFile

from tests.picture_files import (
    NOISE,
    P3,
    RGB,
    Samples,
    byte,
    chunk,
    decode,
    iccp,
    jpeg_segments,
    noise,
    off_by,
    png,
    png_chunks,
    refusal,
    saved,
    three,
    tiff,
)
from upscaler.contract import ImageEncoding, Size
from upscaler.images import Pixels, before_after, encode, resize

# Writing

any_picture = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(3, 4))
)


@given(any_picture)
@settings(max_examples=50)
def test_a_png_holds_every_pixel_and_every_alpha(pixels: Pixels) -> None:
    image = Image.open(io.BytesIO(encode(pixels, ImageEncoding.PNG)), formats=["PNG"])
    assert image.mode == ("RGB", "RGBA")[pixels.shape[2] - 3]
    assert np.array_equal(np.array(image), pixels)


@pytest.mark.parametrize("encoding", ImageEncoding)
def test_what_a_file_says_about_itself_is_not_passed_on(encoding: ImageEncoding) -> None:
    told = iccp(P3) + chunk(b"eXIf", tiff(3)) + chunk(b"tEXt", b"Comment\0where I live")
    data = encode(decode(png(NOISE, 8, RGB, before=told)), encoding)
    if encoding is ImageEncoding.PNG:
        assert set(png_chunks(data)) == {b"IHDR", b"IDAT", b"IEND"}
    else:
        markers = set(jpeg_segments(data))
        assert markers == {0xE0, 0xDB, 0xC0, 0xC4}  # JFIF, and what its decoding takes


@pytest.mark.parametrize("channels", [3, 4])
def test_a_jpeg_has_quality_95(channels: int, photo: Pixels) -> None:
    """Its divisors are a tenth of those for 50, which are the standard's example."""
    pixels = np.dstack([photo, photo])[..., :channels]
    written = Image.open(io.BytesIO(encode(pixels, ImageEncoding.JPEG)), formats=["JPEG"])
    example = Image.open(io.BytesIO(saved(photo, "JPEG", quality=50)), formats=["JPEG"])
    assert isinstance(written, ImageFile.ImageFile)
    assert tables(written) == [[(10 * q + 50) // 100 for q in table] for table in tables(example)]


def tables(image: Image.Image) -> list[list[int]]:
    quantization: dict[int, list[int]] = getattr(image, "quantization")  # noqa: B009
    return list(quantization.values())


def test_a_jpeg_has_full_chroma(photo: Pixels) -> None:
    frame = jpeg_segments(encode(photo, ImageEncoding.JPEG))[0xC0]
    assert struct.unpack(">BHHB", frame[:6]) == (8, 256, 304, 3)
    assert frame[7::3] == b"\x11\x11\x11"


def test_a_jpeg_shows_the_photo(photo: Pixels) -> None:
    image = Image.open(io.BytesIO(encode(photo, ImageEncoding.JPEG)))
    assert np.abs(np.array(image) - photo.astype(int)).mean() < 2


@given(st.tuples(byte, byte, byte), byte)
def test_a_jpeg_is_put_on_white(colour: tuple[int, int, int], alpha: int) -> None:
    pixels = np.full((16, 16, 4), (*colour, alpha), dtype=np.uint8)
    written = np.array(Image.open(io.BytesIO(encode(pixels, ImageEncoding.JPEG))))
    share = alpha / 255
    assert off_by(written, np.full((16, 16, 3), np.array(colour) * share + 255 * (1 - share))) <= 2


# Resizing

small = st.integers(1, 60)


@given(any_picture, small, small)
@settings(max_examples=60)
def test_resizing_gives_exactly_the_size_asked_for(pixels: Pixels, width: int, height: int) -> None:
    resized = resize(pixels, (width, height))
    assert resized.shape == (height, width, pixels.shape[2])
    assert resized.dtype == np.uint8
    assert resized.flags.c_contiguous


@given(any_picture)
@settings(max_examples=30)
def test_resizing_to_the_same_size_changes_no_pixel(pixels: Pixels) -> None:
    resized = resize(pixels.copy(), (pixels.shape[1], pixels.shape[0]))
    assert np.array_equal(resized, pixels)


def test_one_colour_stays_one_colour() -> None:
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


def beside(hidden: tuple[int, int, int]) -> Pixels:
    """Opaque red on the left, and invisible pixels of some colour on the right."""
    pixels = np.full((32, 32, 4), (200, 10, 20, 255), dtype=np.uint8)
    pixels[:, 16:] = (*hidden, 0)
    return pixels


@pytest.mark.parametrize("size", [(16, 16), (45, 20), (64, 64)])
def test_transparent_pixels_lend_no_colour_to_their_neighbours(size: Size) -> None:
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
def test_before_and_after_show_the_same_middle(small: Size, large: Size, panel: Size) -> None:
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
