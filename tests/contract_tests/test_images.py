"""The images that the contract tests send."""

import io
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from contract_tests.judge.decoding import decode_image, to_eight_bits
from contract_tests.judge.image_comparison import compare_images
from contract_tests.oracle.oracle import ImageFacts
from contract_tests.requests.images import (
    DAMAGES,
    FORMATS,
    MAX_SIDE,
    MODES,
    NOISY,
    SampleImage,
)
from tests.support.properties import examples

KINDS = [(kind, mode) for kind, modes in MODES.items() for mode in modes]
kinds = pytest.mark.parametrize(("kind", "mode"), KINDS)
EXACT = [(kind, mode) for kind, mode in KINDS if kind != "jpeg" and "lossy" not in mode]


@st.composite
def sample_images(draw: st.DrawFn, least: int = 1) -> SampleImage:
    (kind, mode), sides = draw(st.sampled_from(KINDS)), st.integers(least, 300)
    seed, orientation = draw(st.integers(0, 2**32)), draw(st.integers(1, 8))
    return SampleImage(draw(sides), draw(sides), kind, seed, mode, orientation)


def decoded(sample: SampleImage) -> Image.Image:
    """As a viewer shows it."""
    with Image.open(io.BytesIO(sample.file())) as image:
        assert image.format == sample.format.upper()
        assert image.size == (sample.width, sample.height)
        return ImageOps.exif_transpose(image)


def blocks(sample: SampleImage) -> NDArray[Any]:
    """The colour in the middle of each block of the file."""
    shown = np.asarray(to_eight_bits(decoded(sample)).convert("RGBA"))
    rows, columns = sample.upright().shape[:2]
    height, width = shown.shape[:2]
    middles = np.ix_(
        ((2 * np.arange(rows) + 1) * height) // (2 * rows),
        ((2 * np.arange(columns) + 1) * width) // (2 * columns),
    )
    return shown[middles]


def in_sight(shown: NDArray[Any]) -> NDArray[Any]:
    """With one colour for all that is not seen."""
    return np.where(shown[..., 3:] == 0, 0, shown)


@settings(max_examples=examples(100))
@given(sample_images())
def test_a_file_has_the_size_of_its_facts(sample: SampleImage) -> None:
    assert decoded(sample).size == sample.size
    assert sample.facts() == ImageFacts(*sample.size)
    assert decoded(sample).has_transparency_data <= sample.transparent


@settings(max_examples=examples(100))
@given(sample_images())
def test_a_file_shows_its_blocks(sample: SampleImage) -> None:
    exact = (sample.format, sample.mode) in EXACT
    shown = in_sight(blocks(sample)).astype(int)
    wanted = in_sight(sample.upright()).astype(int)
    if exact:
        np.testing.assert_array_equal(shown, wanted)
    elif min(sample.size) >= 128:
        assert np.abs(shown - wanted).max() <= 32


@kinds
@pytest.mark.parametrize("size", [(255, 256), (256, 256), (300, 257)])
def test_a_file_is_small(kind: str, mode: str, size: tuple[int, int]) -> None:
    assert len(SampleImage(*size, kind, 1, mode).file()) < (13_000 if kind == "jpeg" else 4_500)
    assert len(SampleImage(256, 256, "png", 1).file()) < 1_000


@pytest.mark.parametrize(
    ("kind", "mode", "most"),
    [
        ("png", "palette", 12_000),
        ("png", "colour", 20_000),
        ("png", "bilevel", 6_000),
        ("jpeg", "colour", 40_000),
        ("webp", "colour", 12_000),
    ],
)
def test_the_largest_input_is_small_too(kind: str, mode: str, most: int) -> None:
    sample = SampleImage(2048, 2048, kind, 1, mode)
    assert len(sample.file()) < most
    assert decoded(sample).size == (2048, 2048)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(2047, 2049), (2049, 2048), (8192, 1), (1, 8192), (1, 1)])
def test_sizes_around_the_limits(kind: str, size: tuple[int, int]) -> None:
    assert decoded(SampleImage(*size, kind, orientation=6)).size == size[::-1]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.filterwarnings("ignore:Image size")
def test_a_huge_header_makes_a_small_file(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    side = min(60_000, MAX_SIDE[kind])
    for mode in MODES[kind]:
        for orientation in (1, 6):
            sample = SampleImage(side, side - 1, kind, 5, mode, orientation)
            with Image.open(io.BytesIO(sample.file())) as image:
                assert image.size == (side, side - 1)
            assert len(sample.file()) < 3_000


def test_a_bilevel_bomb_has_all_of_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    tracemalloc.start()
    file = SampleImage(16_000, 12_000, mode="bilevel").file()
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()
    assert len(file) < 60_000
    with Image.open(io.BytesIO(file)) as image:
        image.load()


@given(sample_images(), st.integers(0, 2**32))
def test_two_seeds_make_two_images(sample: SampleImage, seed: int) -> None:
    other = SampleImage(300, 256, sample.format, seed, sample.mode)
    one = SampleImage(300, 256, sample.format, sample.seed, sample.mode)
    assert (one.file() == other.file()) == (one == other) == (seed == sample.seed)


@settings(max_examples=examples(50))
@given(sample_images(256))
def test_no_image_resembles_itself_rotated(sample: SampleImage) -> None:
    shown = sample.upright()[..., :3].astype(int)
    quarters = (np.rot90(shown, turns) for turns in (1, 2, 3))
    for other in (shown[:, ::-1], shown[::-1], shown.swapaxes(0, 1), *quarters):
        assert np.abs(shown - other).mean() > 25


@pytest.mark.parametrize("damage", DAMAGES)
@kinds
def test_a_damaged_file_cannot_be_decoded(kind: str, mode: str, damage: str) -> None:
    for size in ((1, 1), (256, 256), (300, 257)):
        sample = SampleImage(*size, kind, 3, mode, damage=damage)
        known = size if damage in ("truncated", "header only") else (0, 0)
        assert sample.facts() == ImageFacts(*known, fault=damage)
        assert sample.file() != SampleImage(*size, kind, 3, mode).file()
        with pytest.raises(Exception), Image.open(io.BytesIO(sample.file())) as image:  # noqa: B017, PT011
            image.load()


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"height": 65_501, "format": "jpeg"},
        {"format": "gif"},
        {"mode": "cmyk"},
        {"orientation": 9},
        {"damage": "dropped"},
    ],
)
def test_impossible_images_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no"):
        SampleImage(**{"width": 256, "height": 256, **wrong})


def test_the_repr_of_a_sample() -> None:
    assert (
        repr(SampleImage(300, 256, seed=7, mode="alpha"))
        == "SampleImage(300x256 png, alpha, seed 7)"
    )
    turned = SampleImage(1, 2, "jpeg", orientation=6, damage="truncated")
    assert repr(turned) == "SampleImage(1x2 jpeg, colour, orientation 6, truncated, seed 0)"
    assert turned.sideways
    assert turned.size == (2, 1)
    assert hash(turned) == hash(SampleImage(1, 2, "jpeg", orientation=6, damage="truncated"))


def test_a_noisy_file_is_large_and_shows_its_blocks() -> None:
    sample = SampleImage(512, 256, NOISY[0], 30, NOISY[1])
    file = sample.file()
    assert len(file) > 0.9 * 512 * 256 * 3
    image = decode_image(file, "png")
    assert compare_images(sample, image) == ""
    assert compare_images(SampleImage(512, 256, seed=31), image) != ""
