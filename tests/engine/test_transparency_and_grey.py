"""What is hidden beneath transparency does not show, and a grey picture stays grey."""

import io
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support import networks
from tests.support.networks import largest_difference, plan
from upscaler.engine import engine as module
from upscaler.engine.engine import Engine
from upscaler.engine.tensors import lanczos
from upscaler.formats import ImageEncoding
from upscaler.imaging.encode import encode
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, Compact, UpscalingModel

FAST = UpscalingModel.ANIMEVIDEO_V3
DEEP = (UpscalingModel.X4_PLUS, UpscalingModel.X2_PLUS)
every_model = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in DEEP)) for name in UpscalingModel],
)
HIDDEN = ("black", "white", "noise", "quantised", "cyan", "unseen")
"""What other programs leave beneath transparency. Quantised: colours were multiplied by alpha and
divided again, which may show by a level. Unseen: other colours at an alpha of 1, too."""


@cache
def engine_of(name: UpscalingModel) -> Engine:
    return networks.engine(MODELS[name])


def drawing(side: int = 28) -> Pixels:
    """Thin lines and a soft disc in several colours, with smooth edges; nothing is hidden."""
    y, x = np.mgrid[:side, :side].astype(float)
    pixels = np.zeros((side, side, 4), np.uint8)
    shapes = [
        ((250, 200, 30), 1.2 - np.abs(x - 0.3 * y - 5)),
        ((255, 255, 255), 1.2 - np.abs(x + 0.2 * y - 22)),
        ((200, 30, 90), (5 - np.hypot(x - 14, y - 20)) / 4),
    ]
    for colour, distance in shapes:
        alpha = (255 * distance.clip(0, 1)).astype(np.uint8)
        above = alpha >= pixels[:, :, 3]
        pixels[above] = (*colour, 0)
        pixels[above, 3] = alpha[above]
    return pixels


def with_hidden(kind: str, pixels: Pixels) -> Pixels:
    """The same picture to the eye, with other colours where nobody sees them."""
    if kind == "quantised":
        return np.array(Image.fromarray(pixels).convert("RGBa").convert("RGBA"))
    random = np.random.default_rng(3).integers(0, 256, (*pixels.shape[:2], 3), np.uint8)
    given: dict[str, object] = {"white": 255, "cyan": (0, 255, 255), "noise": random}
    invisible = pixels[:, :, 3:] <= (1 if kind == "unseen" else 0)
    hidden = np.broadcast_to(np.array(given.get(kind, 0), np.uint8), random.shape)
    return np.dstack((np.where(invisible, hidden, pixels[:, :, :3]), pixels[:, :, 3]))


def on(level: int, pixels: Pixels) -> Pixels:
    """What is seen on a grey background, by Pillow."""
    background = Image.new("RGBA", (pixels.shape[1], pixels.shape[0]), (level,) * 3 + (255,))
    return np.array(Image.alpha_composite(background, Image.fromarray(pixels)))


def grey_of(pixels: Pixels) -> Pixels:
    return pixels[:, :, :1].repeat(3, axis=2)


# Transparency


@every_model
def test_pictures_that_look_alike_give_results_that_look_alike(name: UpscalingModel) -> None:
    pixels = drawing()
    kinds = HIDDEN if isinstance(MODELS[name].network, Compact) else HIDDEN[:4]
    results = [engine_of(name).upscale(with_hidden(kind, pixels)) for kind in kinds]
    assert not np.array_equal(with_hidden("black", pixels), with_hidden("white", pixels))
    for level in (0, 255):
        first = on(level, results[0])
        assert np.ptp(first) > 100
        for other in results[1:]:
            assert largest_difference(first, on(level, other)) <= 8


def test_the_network_would_show_what_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above could not fail if it did not."""
    monkeypatch.setattr(module, "bleed_colours", lambda pixels: pixels)
    black, white = (engine_of(FAST).upscale(with_hidden(kind, drawing())) for kind in HIDDEN[:2])
    assert largest_difference(on(0, black), on(0, white)) > 20


def test_a_line_on_transparency_is_as_bright_as_one_on_its_own_colour() -> None:
    """Without dark spots: beneath all of it the same yellow, or nothing that a network may see."""
    pixels = drawing()
    pixels[:, :, :3] = (250, 200, 30)
    black = engine_of(FAST).upscale(with_hidden("black", pixels))
    yellow = engine_of(FAST).upscale(np.ascontiguousarray(pixels[:, :, :3]))
    expected = np.dstack((yellow, black[:, :, 3]))
    for level in (0, 255):
        assert largest_difference(on(level, black), on(level, expected)) <= 8


def test_noise_that_was_premultiplied_gives_the_same() -> None:
    """A network makes much of the level by which that changes colours, at any alpha but 255."""
    noise = np.random.default_rng(5).integers(0, 256, (24, 24, 4), np.uint8)
    noise[:, :, 3] = noise[:, :, 3].clip(128)
    multiplied = np.array(Image.fromarray(noise).convert("RGBa"))[:, :, :3].astype(float)
    divided = np.rint(multiplied / noise[:, :, 3:] * 255).astype(np.uint8)
    quantised = np.dstack((divided, noise[:, :, 3]))
    assert largest_difference(quantised, noise) == 1
    assert np.array_equal(engine_of(FAST).upscale(quantised), engine_of(FAST).upscale(noise))


@pytest.mark.parametrize("size", [(61, 47), (200, 190)], ids=str)
def test_no_way_to_the_size_shows_what_is_hidden(size: tuple[int, int]) -> None:
    black, white = (with_hidden(kind, drawing()) for kind in ("black", "white"))
    engine = engine_of(FAST)
    assert np.array_equal(engine.upscale(black, size=size), engine.upscale(white, size=size))


def test_bands_do_not_show_what_is_hidden() -> None:
    black, white = (with_hidden(kind, drawing()) for kind in ("black", "white"))
    engine = engine_of(FAST)
    in_bands = plan(engine.model, black, bands=2, rows=5)
    assert np.array_equal(
        engine.upscale_by_plan(black, in_bands), engine.upscale_by_plan(white, in_bands)
    )


# Grey


@every_model
def test_a_grey_picture_stays_grey(name: UpscalingModel, photo: Pixels) -> None:
    """It is the luma (ITU-R BT.601) of what the network makes, which has colours."""
    pixels = grey_of(photo[96:120, 100:130])
    pixels[:8] = 255 * (np.indices((8, 30)).sum(axis=0) % 2)[:, :, None]  # a halftone
    found = engine_of(name).upscale(pixels)
    assert np.array_equal(found, grey_of(found))
    tinted = networks.plain(MODELS[name], networks.network(MODELS[name]), pixels)
    assert np.ptp(tinted, axis=2).max() > 8, "otherwise there is nothing to mend"
    luma = np.array(Image.fromarray(tinted).convert("L"))
    assert largest_difference(found[:, :, 0], luma) <= 2


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("alpha", [None, 128, "varying"])
def test_grey_with_alpha_stays_grey_and_hidden_colours_are_no_colours(
    alpha: int | str | None, bands: int, photo: Pixels
) -> None:
    pixels = grey_of(photo[64:84, 100:124])
    if alpha:
        opacity = np.full((20, 24), alpha if alpha == 128 else 200, np.uint8)
        pixels = np.dstack((pixels, opacity))
    if alpha == "varying":
        pixels[:, :7] = (255, 0, 0, 0)
        pixels[:, 7:9, 3] = 99
    engine = engine_of(FAST)
    found = engine.upscale_by_plan(pixels, plan(engine.model, pixels, bands=bands, rows=7))
    assert found.shape == (80, 96, pixels.shape[2])
    assert np.array_equal(found[:, :, :3], grey_of(found))
    found[0, 0, 0] ^= 1
    assert found[0, 0, 0] != found[0, 0, 1], "the channels share memory"


def test_a_picture_that_is_nearly_grey_is_a_colour_picture(photo: Pixels) -> None:
    pixels = grey_of(photo[64:84, 100:124])
    pixels[9, 9, 2] ^= 1
    found = engine_of(FAST).upscale(pixels)
    expected = networks.plain(MODELS[FAST], networks.network(MODELS[FAST]), pixels)
    assert largest_difference(found, expected) <= 1
    assert np.ptp(found, axis=2).max() > 0


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("size", [(33, 29), (150, 170)], ids=str)
def test_grey_stays_grey_at_any_size_and_in_any_file(
    size: tuple[int, int], channels: int, photo: Pixels
) -> None:
    pixels = grey_of(photo[64:84, 100:124])
    if channels == 4:
        pixels = np.dstack((pixels, photo[:20, :24, 0]))
    native = engine_of(FAST).upscale(pixels)
    on_gpu = lanczos(torch.from_numpy(native), size).numpy()
    for found in (engine_of(FAST).upscale(pixels, size=size), on_gpu):
        assert np.array_equal(found[:, :, :3], grey_of(found))
        jpeg = Image.open(io.BytesIO(encode(found, ImageEncoding.JPEG)))
        jpeg.draft("YCbCr", jpeg.size)
        assert jpeg.mode == "YCbCr"
        assert np.all(np.array(jpeg)[:, :, 1:] == 128)
