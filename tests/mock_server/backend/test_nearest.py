"""The images that the mock makes."""

import base64
import hashlib
import io
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import httpx
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mock_server.backend.nearest import NearestUpscaler
from tests.support.hostile_requests import SHARED, completed
from tests.support.mock_servers import mocking
from tests.support.properties import examples
from tests.support.request_literals import half_up
from tests.support.service import GOOD, decoded, upscale
from upscaler.api.headers import DRY_RUN_HEADER
from upscaler.api.sizes import Size
from upscaler.formats import ImageEncoding
from upscaler.imaging.colour import flatten
from upscaler.imaging.encode import encode_strips
from upscaler.imaging.jpeg_writer import SMALL
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, UpscalingModel

MAX_SIDE: Final = 1200
"""The longest side in these tests: many strips of rows, and still fast."""
REPEATED: Final = ("X-Upscaler-Model", "X-Upscaler-Weights-SHA256", "X-Upscaler-Output-Size")


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    with mocking() as client:
        yield client


def file(pixels: Pixels) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return base64.b64encode(out.getvalue()).decode()


def nearest(pixels: Pixels, size: Size) -> Pixels:
    """Return the expected image by the definition: the pixel that each centre lies in.

    Of as many pixels as 512x512 and more, the middle one of the square that it lies in.
    """
    height, width, _ = pixels.shape
    square = next(side for side in range(1, 99) if width * height < (256 * (side + 1)) ** 2)

    def lies_in(index: int, after: int, before: int) -> int:
        pixel = int((index + Fraction(1, 2)) * before / after)
        return min(pixel - pixel % square + square // 2, before - 1)

    columns = [lies_in(x, size[0], width) for x in range(size[0])]
    rows = [lies_in(y, size[1], height) for y in range(size[1])]
    return pixels[rows][:, columns]


def made(pixels: Pixels, size: Size) -> Pixels:
    told: list[tuple[int, int]] = []
    model = UpscalingModel.X4_PLUS
    strips = NearestUpscaler().upscale(pixels, model, size, lambda *rows: told.append(rows))
    result = np.concatenate(list(strips))
    assert told[-1] == (size[1], size[1])
    return result


sides = st.integers(1, 200)
sizes = st.tuples(sides, sides)


@given(sizes, sizes, st.sampled_from([3, 4]))
@example((1, 1), (200, 200), 3)
@example((200, 200), (1, 1), 4)
def test_each_pixel_is_the_input_pixel_under_its_centre(
    before: Size, after: Size, channels: int
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (before[1], before[0], channels), np.uint8)
    np.testing.assert_array_equal(made(pixels, after), nearest(pixels, after))


@st.composite
def requests(draw: st.DrawFn) -> tuple[Size, dict[str, Any], Size]:
    """The size of an input, the field of a request that says the output size, and that size."""
    before = width, height = draw(st.integers(256, 400)), draw(st.integers(256, 400))
    field = draw(st.sampled_from(["scale", "output_image_width", "output_image_height"]))
    if field == "scale":
        scale = draw(st.decimals("0.01", "3", places=2))
        return before, {field: float(scale)}, (half_up(width * scale), half_up(height * scale))
    side = draw(st.integers(1, MAX_SIDE))
    if field == "output_image_width":
        size = side, half_up(Decimal(height) * side / width)
    else:
        size = half_up(Decimal(width) * side / height), side
    assume(max(size) <= 2 * MAX_SIDE)
    return before, {field: side}, size


@settings(SHARED, max_examples=examples(40))
@given(requests(), st.sampled_from(["png", "jpeg"]), st.booleans())
def test_the_image_has_exactly_the_size_and_encoding(
    api: httpx.Client,
    photo: Pixels,
    request_: tuple[Size, dict[str, Any], Size],
    encoding: str,
    as_file: bool,
) -> None:
    before, fields, size = request_
    pixels = np.tile(photo, (2, 2, 1))[: before[1], : before[0]]
    answer = api.post(
        "/upscaling",
        json={"init_image": file(pixels), "output_image_encoding": encoding, **fields},
        headers={"Accept": "image/*" if as_file else "application/json"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    image = Image.open(io.BytesIO(answer.content)) if as_file else decoded(answer)
    assert image.format == encoding.upper()
    assert image.size == size
    assert answer.headers["X-Upscaler-Output-Size"] == f"{size[0]}x{size[1]}"
    if encoding == "png":
        np.testing.assert_array_equal(np.array(image), nearest(pixels, size))


@pytest.mark.first(8)
@pytest.mark.parametrize(
    ("before", "shown"),
    [
        ((511, 512), (511, 512)),
        ((512, 512), (256, 256)),
        ((1024, 768), (342, 256)),
        ((2048, 256), (1024, 128)),
        ((256, 1100), (128, 550)),
        ((2048, 2048), (256, 256)),
    ],
)
@pytest.mark.parametrize("scale", [Fraction(1, 2), 1, Fraction(17, 10), 2])
def test_large_inputs_are_sampled(before: Size, shown: Size, scale: Fraction) -> None:
    number = np.arange(before[0] * before[1]).reshape(before[1], before[0])
    pixels = np.stack([number % 256, number // 256 % 256, number >> 16], 2).astype(np.uint8)
    size = (round(before[0] * scale), round(before[1] * scale))
    result = made(pixels, size)
    np.testing.assert_array_equal(result, nearest(pixels, size))
    there = (len(np.unique(line, axis=0)) for line in (result[0], result[:, 0]))
    assert tuple(there) == tuple(map(min, shown, size))


def correlation(one: Pixels, other: Image.Image) -> float:
    """Return the correlation of two images at the size of the first: 1 for equal ones."""
    there = other.convert("RGB").resize(one.shape[1::-1], Image.Resampling.BOX)
    return float(np.corrcoef(one.ravel(), np.array(there).ravel())[0, 1])


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
@pytest.mark.parametrize("scale", [0.25, 0.7, 1, 1.5, 2, 4])
def test_the_image_resembles_the_input(
    api: httpx.Client, photo: Pixels, scale: float, encoding: str
) -> None:
    image = decoded(upscale(api, **GOOD | {"scale": scale, "output_image_encoding": encoding}))
    assert correlation(photo, image) > 0.9
    assert correlation(photo[:, ::-1], image) < 0.5, "and not just any picture is like it"


@pytest.fixture(scope="module")
def cut_out() -> Pixels:
    """Green of every opacity, and red where it is fully transparent and must not show."""
    pixels = np.zeros((256, 300, 4), np.uint8)
    pixels[:, :, 3] = np.arange(256)[:, None]
    pixels[:, :, 1] = 200
    pixels[0, :, :2] = 255, 0
    return pixels


@pytest.mark.parametrize("scale", [0.5, 1, 2.3])
def test_alpha_is_kept_in_png_and_on_white_in_jpeg(
    api: httpx.Client, cut_out: Pixels, scale: float
) -> None:
    fields = {"init_image": file(cut_out), "scale": scale}
    kept = decoded(upscale(api, **fields))
    assert kept.mode == "RGBA"
    np.testing.assert_array_equal(np.array(kept), nearest(cut_out, kept.size))
    seen = np.array(kept)
    assert (seen[seen[:, :, 3] > 0][:, :3] == (0, 200, 0)).all(), "no red comes into the green"
    flat = decoded(upscale(api, **fields, output_image_encoding="jpeg"))
    assert flat.mode == "RGB"
    differences = np.array(flatten(kept)).astype(int) - np.array(flat)
    assert abs(differences).max() <= 6, "but for what a JPEG loses"


def test_jpegs_use_the_small_options(api: httpx.Client, photo: Pixels) -> None:
    fields = GOOD | {"scale": 2, "output_image_encoding": "jpeg"}
    data = base64.b64decode(upscale(api, **fields).json()["image_b64"])
    enlarged = nearest(photo, (608, 512))
    assert data == b"".join(encode_strips([enlarged], 512, ImageEncoding.JPEG, SMALL))


def test_an_input_without_alpha_stays_rgb(api: httpx.Client) -> None:
    assert decoded(upscale(api, **GOOD)).mode == "RGB"


def test_each_model_has_a_digest_of_no_real_weights(api: httpx.Client) -> None:
    digests = {}
    for model in UpscalingModel:
        answer = upscale(api, **GOOD | {"model": model})
        assert decoded(answer).size == (608, 512)
        assert answer.headers["X-Upscaler-Model"] == model
        digests[model] = answer.headers["X-Upscaler-Weights-SHA256"]
        text = f"upscaler-mock has no weights of {model}"
        assert digests[model] == hashlib.sha256(text.encode()).hexdigest()
    assert len(set(digests.values())) == len(UpscalingModel) == 6
    files = [file for model in MODELS.values() for file in (model.official, model.ncnn) if file]
    assert {file.sha256 for file in files}.isdisjoint(digests.values())


def test_an_asynchronous_result_can_be_fetched_twice(api: httpx.Client) -> None:
    _, response_path = completed(api, {})
    told = api.get(response_path)
    again = api.get(response_path)
    assert decoded(told).size == (30, 26)
    assert told.content == again.content


def test_a_dry_run_reports_one_tile(api: httpx.Client) -> None:
    answer = api.post("/upscaling", json=GOOD, headers={DRY_RUN_HEADER: "1"})
    told = answer.json()
    assert (told["output_width"], told["output_height"], told["tiles"]) == (608, 512, 1)
