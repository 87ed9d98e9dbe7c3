"""Images that show what was sent pass, and mistakes are named."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from contract_tests.judge.decoding import decode_image, to_eight_bits
from contract_tests.judge.image_comparison import compare_images
from contract_tests.requests.images import MODES, SampleImage
from tests.support.properties import examples

Edit = Callable[[Image.Image], Image.Image]
Turn = Image.Transpose
FILTERS = (
    *(Image.Resampling.NEAREST, Image.Resampling.BOX, Image.Resampling.BILINEAR),
    *(Image.Resampling.HAMMING, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS),
)
KINDS = [(kind, mode) for kind, modes in MODES.items() for mode in modes]
# Mistakes with colours cannot be named of CMYK, and are none in a grey image.
COLOURED = [("png", "colour"), ("png", "interlaced"), ("jpeg", "progressive"), ("webp", "lossy")]
TRANSPARENT = [(kind, mode) for kind, mode in KINDS if "alpha" in mode and mode != "grey alpha"]
FEW = settings(max_examples=5)


@st.composite
def sample_images(
    draw: st.DrawFn, kinds: list[tuple[str, str]], turned: bool = False
) -> SampleImage:
    kind, mode = draw(st.sampled_from(kinds))
    sides, seeds = st.integers(256, 400), st.integers(0, 2**32)
    orientation = draw(st.integers(1, 8)) if turned else 1
    return SampleImage(draw(sides), draw(sides), kind, draw(seeds), mode, orientation)


def upright(sent: SampleImage) -> Image.Image:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(sent.file())))
    return to_eight_bits(image).convert("RGBA" if sent.transparent else "RGB")


def laid_on(colour: str, image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, colour), image.convert("RGBA"))


def saved(image: Image.Image, encoding: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    image = image.convert("RGB") if encoding == "jpeg" else image
    image.save(buffer, encoding, **options)
    return buffer.getvalue()


def response_image(image: Image.Image, encoding: str = "png", **options: object) -> Image.Image:
    return decode_image(saved(image, encoding, **options), encoding)


@settings(max_examples=examples(100))
@given(
    sample_images(KINDS, turned=True),
    st.tuples(*[st.one_of(st.integers(1, 40), st.integers(1, 1100))] * 2),
    st.sampled_from(FILTERS),
    st.sampled_from(("png", "jpeg")),
    st.sampled_from((75, 95)),
)
def test_a_right_image_passes_whatever_the_filter(
    sent: SampleImage, size: tuple[int, int], filter_: Image.Resampling, encoding: str, quality: int
) -> None:
    image = upright(sent).resize(size, filter_)
    if encoding == "jpeg":
        image = laid_on("white", image)
    for subsampling in (0, 2):
        options = {"quality": quality, "subsampling": subsampling} if encoding == "jpeg" else {}
        received = response_image(image, encoding, **options)
        assert compare_images(sent, received) == ""
        assert compare_images(sent, received, None) == ""


@FEW
@given(sample_images(TRANSPARENT, turned=True), st.sampled_from(FILTERS))
def test_colours_and_alpha_may_be_resized_apart(
    sent: SampleImage, filter_: Image.Resampling
) -> None:
    bands = [band.resize((700, 600), filter_) for band in upright(sent).split()]
    assert compare_images(sent, response_image(Image.merge("RGBA", bands))) == ""


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8192, 1), (1, 8192), (1, 1), (8192, 8192), (8192, 256)])
def test_the_largest_and_the_smallest_image(size: tuple[int, int]) -> None:
    sent = SampleImage(256, 256, seed=3)
    image = upright(sent).resize(size, Image.Resampling.NEAREST)
    assert compare_images(sent, image) == ""
    if 1 < min(size) < 8192:
        assert compare_images(sent, ImageOps.mirror(image)) == "the image is mirrored"
    assert compare_images(sent, Image.new("RGB", size)) != ""


def through(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Edit:
    """An edit of an array: float of shape (height, width, channels), 0 to 255."""
    return lambda image: Image.fromarray(change(np.array(image).astype(float)).astype(np.uint8))


def times(share: float) -> Edit:
    return through(lambda pixels: pixels * [share, share, share, 1][: pixels.shape[2]])


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    box = (width * 0.05, height * 0.05, width * 0.95, height * 0.95)
    return image.resize(image.size, Image.Resampling.BICUBIC, box)


def letterboxed(image: Image.Image) -> Image.Image:
    return ImageOps.pad(image.resize((image.width, image.height * 4 // 5)), image.size)


def banded(share: float) -> Edit:
    def edit(image: Image.Image) -> Image.Image:
        top, height = round(image.height * share), round(image.height * 0.1)
        image.paste("#808080", (0, top, image.width, top + height))
        return image

    return edit


SOMEWHERE = "a part of the image|the image is moved|shows nothing that was sent"
WRONGS = {
    "white": (lambda image: Image.new("RGB", image.size, "white"), "the image is blank"),
    "grey": (lambda image: Image.new("RGB", image.size, "#808080"), "the image is blank"),
    "mean": (lambda image: image.resize((1, 1), 4).resize(image.size), "the image is blank"),
    "colourless": (lambda image: image.convert("L"), "the image's colours are lost"),
    "BGR": (through(lambda pixels: pixels[..., ::-1]), "the image's colour channels are swapped"),
    "mirrored": (ImageOps.mirror, "the image is mirrored"),
    "upside down": (ImageOps.flip, "the image is upside down"),
    "90": (lambda image: image.transpose(Turn.ROTATE_270), "the image is rotated by 90 degrees"),
    "180": (lambda image: image.transpose(Turn.ROTATE_180), "the image is rotated by 180 degrees"),
    "270": (lambda image: image.transpose(Turn.ROTATE_90), "the image is rotated by 270 degrees"),
    "transposed": (lambda image: image.transpose(Turn.TRANSPOSE), "the image is transposed"),
    "transverse": (lambda image: image.transpose(Turn.TRANSVERSE), "the image is transposed"),
    "negative": (ImageOps.invert, "the image is a negative"),
    "darker": (times(0.8), "the image is too dark"),
    "lighter": (through(lambda pixels: 255 - (255 - pixels) * 0.7), "the image is too light"),
    "cropped": (cropped, SOMEWHERE),
    "letterboxed": (letterboxed, SOMEWHERE),
    "shifted": (through(lambda pixels: np.roll(pixels, pixels.shape[1] // 10, 1)), SOMEWHERE),
    "sunk": (through(lambda pixels: np.roll(pixels, pixels.shape[0] // 10, 0)), SOMEWHERE),
    **{f"band {share}": (banded(share), SOMEWHERE) for share in (0, 0.2, 0.45, 0.9)},
}


def check(sent: SampleImage, edit: Edit, word: str, encoding: str = "png") -> None:
    image = edit(upright(sent)).resize((200, 150), Image.Resampling.BICUBIC)
    said = compare_images(sent, response_image(image, encoding))
    assert any(each in said for each in word.split("|"))


@pytest.mark.first(8)
@pytest.mark.parametrize("wrong", WRONGS)
@FEW
@given(sample_images(COLOURED), st.sampled_from(("png", "jpeg")))
def test_a_known_mistake_is_named(wrong: str, sent: SampleImage, encoding: str) -> None:
    check(sent, *WRONGS[wrong], encoding)


@FEW
@given(sample_images(KINDS), st.integers(0, 2**32))
def test_another_image_is_recognised(sent: SampleImage, seed: int) -> None:
    other = upright(SampleImage(300, 300, sent.format, seed, sent.mode))
    assert (compare_images(sent, response_image(other)) == "") == (seed == sent.seed)


@FEW
@given(sample_images(KINDS), st.integers(2, 8))
def test_an_ignored_exif_orientation_is_named(upright_one: SampleImage, orientation: int) -> None:
    size, kind = (upright_one.width, upright_one.height), upright_one.format
    sent = SampleImage(*size, kind, upright_one.seed, upright_one.mode, orientation)
    word = compare_images(sent, response_image(upright(upright_one)))
    assert word == "the image's EXIF orientation is not followed"


ALPHA_WRONGS = {
    "dropped": (lambda image: image.convert("RGB"), "the image's transparency is lost"),
    "on black": (lambda image: laid_on("black", image), "the image's transparency is lost"),
    "on white": (lambda image: laid_on("white", image), "the image's transparency is lost"),
    "inverted": (
        through(lambda pixels: np.abs(pixels - [0, 0, 0, 255])),
        "the image's transparency is inverted",
    ),
    "multiplied": (
        through(
            lambda pixels: np.dstack((pixels[..., :3] * pixels[..., 3:] / 255, pixels[..., 3]))
        ),
        "the image's colours are multiplied by its transparency",
    ),
    "darker": (times(0.8), "the image is too dark"),
}


@pytest.mark.parametrize("wrong", ALPHA_WRONGS)
@FEW
@given(sample_images(TRANSPARENT))
def test_a_mistake_with_transparency_is_named(wrong: str, sent: SampleImage) -> None:
    check(sent, *ALPHA_WRONGS[wrong])


@pytest.mark.parametrize(
    ("edit", "mistake"),
    [
        (lambda image: laid_on("black", image), "put on black, not on white"),
        (lambda image: laid_on("#808080", image), "put on grey, not on white"),
        (lambda image: laid_on("#2060c0", image), "put on #"),
        (lambda image: image.convert("RGB"), "dropped, not put on white"),
    ],
    ids=["black", "grey", "blue", "dropped"],
)
@FEW
@given(sample_images(TRANSPARENT))
def test_another_background_than_white_is_named(
    edit: Edit, mistake: str, sent: SampleImage
) -> None:
    """Alpha of a PNG or WebP in a JPEG."""
    check(sent, edit, f"the image's transparency is {mistake}", "jpeg")


@FEW
@given(sample_images(TRANSPARENT))
def test_the_background_of_transparency_is_our_choice(sent: SampleImage) -> None:
    image = upright(sent)
    for plain in (laid_on("black", image), image.convert("RGB")):
        for encoding in ("png", "jpeg"):
            assert compare_images(sent, response_image(plain, encoding)) != ""
            assert compare_images(sent, response_image(plain, encoding), None) == ""
    white = laid_on("white", image)
    assert compare_images(sent, response_image(white, "jpeg")) == ""
    assert compare_images(sent, response_image(white), None) == ""
    assert compare_images(sent, response_image(laid_on("red", image)), None) != ""


@FEW
@given(st.integers(0, 2**32))
def test_cmyk_may_be_converted_by_a_profile(seed: int) -> None:
    sent = SampleImage(300, 256, "jpeg", seed, "cmyk")
    # Roughly what libvips does.
    matrix = (0.75, 0.15, 0.05, 10, 0.05, 0.6, 0.1, 30, 0.1, 0.15, 0.55, 35)
    dull = upright(sent).convert("RGB", matrix)
    assert compare_images(sent, response_image(dull)) == ""
    assert compare_images(sent, response_image(ImageOps.mirror(dull))) == "the image is mirrored"
    assert compare_images(sent, Image.new("RGB", dull.size, "#808080")) == "the image is blank"


@FEW
@given(sample_images(COLOURED))
def test_an_image_darker_by_a_tenth_is_recognised(sent: SampleImage) -> None:
    assert (
        compare_images(sent, response_image(times(0.9)(upright(sent)))) == "the image is too dark"
    )
    assert compare_images(sent, response_image(times(0.97)(upright(sent)))) == ""
