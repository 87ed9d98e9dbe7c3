"""The engine: exact sizes, bands that do not show, alpha, progress, and calls at once."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from tests.support import networks
from tests.support.networks import largest_difference, needs_bf16, plan, psnr
from tests.support.properties import examples
from upscaler.api.sizes import scaled_size
from upscaler.engine import weights
from upscaler.engine.engine import Engine, RowProgress
from upscaler.engine.networks import Net, SRVGGNetCompact, build
from upscaler.engine.pool import EnginePool
from upscaler.errors import OutOfMemory, WeightsUnavailable
from upscaler.imaging.alpha import bleed_colours
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, Compact, Model, UpscalingModel
from upscaler.planning import Plan, cheapest
from upscaler.settings import Device, Kernels, KernelUse, Precision, Settings

FAST = UpscalingModel.ANIMEVIDEO_V3
COMPACT = [name for name in UpscalingModel if isinstance(MODELS[name].network, Compact)]


@cache
def network_of(name: UpscalingModel) -> Net:
    return networks.network(MODELS[name])


@cache
def engine_of(name: UpscalingModel = FAST, precision: Precision = Precision.FP32) -> Engine:
    return Engine(MODELS[name], network_of(name), torch.device("cpu"), precision)


def adding(red: float, green: float, blue: float) -> Engine:
    """An engine whose network repeats pixels, and adds so many levels to each colour."""
    net = build(MODELS[FAST].network).requires_grad_(False)
    assert isinstance(net, SRVGGNetCompact)
    for parameter in net.parameters():
        parameter.zero_()
    last = net.body[-1]
    assert isinstance(last, torch.nn.Conv2d)
    assert last.bias is not None
    last.bias.copy_(torch.tensor([red, green, blue]).repeat_interleave(net.scale**2) / 255)
    return Engine(MODELS[FAST], net, torch.device("cpu"), Precision.FP32)


def noise(height: int, width: int, channels: int = 3) -> Pixels:
    shape = (height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("name", UpscalingModel)
def test_every_model_makes_an_image_like_its_input(name: UpscalingModel, photo: Pixels) -> None:
    model = MODELS[name]
    pixels = photo[64:104, 100:160]

    enlarged = engine_of(name).upscale(pixels)

    assert enlarged.dtype == np.uint8
    assert enlarged.shape == (40 * model.scale, 60 * model.scale, 3)
    if networks.trained(model):
        small = Image.fromarray(enlarged).resize((60, 40), Image.Resampling.BOX)
        likeness = np.corrcoef(np.array(small).ravel(), pixels.ravel())[0, 1]
        assert likeness > 0.98


@settings(max_examples=examples(25))
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    scale=st.floats(0.05, 6),
    channels=st.sampled_from([3, 4]),
)
def test_the_size_is_that_of_the_contract(
    height: int, width: int, scale: float, channels: int
) -> None:
    """REQ-16."""
    enlarged = engine_of().upscale(noise(height, width, channels), scale)
    expected_width, expected_height = scaled_size((width, height), scale)
    assert enlarged.shape == (expected_height, expected_width, channels)


def test_a_requested_size_is_exact_and_not_aliased(photo: Pixels) -> None:
    pixels = photo[:40, :60]
    native = engine_of().upscale(pixels)
    resized = engine_of().upscale(pixels, size=(100, 150))
    expected = Image.fromarray(native).resize((100, 150), Image.Resampling.LANCZOS)
    assert np.array_equal(resized, np.array(expected))


@pytest.mark.first(2)
@pytest.mark.parametrize("bands", [2, 3, 4, 9])
@pytest.mark.parametrize("name", COMPACT)
def test_bands_of_a_compact_network_equal_the_whole_image(
    name: UpscalingModel, bands: int, photo: Pixels
) -> None:
    """Their default halo is their whole receptive field.

    One level is left for rounding: a band's columns are not in the same places of Winograd's tiles
    as those of the whole image.
    """
    engine, pixels = engine_of(name), photo[100:124, 0:301]
    whole = engine.upscale_by_plan(pixels, plan(engine.model, pixels))
    cut = engine.upscale_by_plan(pixels, plan(engine.model, pixels, bands=bands, whole=bands == 2))
    assert largest_difference(whole, cut) <= 1
    assert np.mean(whole != cut) < 1e-3


@pytest.mark.every(5)
@needs_bf16
@pytest.mark.parametrize("bands", [2, 3, 4, 9])
@pytest.mark.parametrize("name", COMPACT)
def test_without_winograd_bands_are_bit_identical(
    name: UpscalingModel, bands: int, photo: Pixels
) -> None:
    engine, pixels = engine_of(name, Precision.MIXED), photo[100:124, 0:301]
    whole = engine.upscale_by_plan(pixels, plan(engine.model, pixels))
    cut = engine.upscale_by_plan(pixels, plan(engine.model, pixels, bands=bands))
    assert np.array_equal(whole, cut)


@pytest.mark.parametrize("halo", [0, 2])
def test_a_halo_below_the_receptive_field_is_visible(halo: int, photo: Pixels) -> None:
    """The tests above could not fail if bands never mattered."""
    engine, pixels = engine_of(), photo[100:124, 0:301]
    whole = engine.upscale_by_plan(pixels, plan(engine.model, pixels))
    cut = engine.upscale_by_plan(pixels, plan(engine.model, pixels, bands=3, halo=halo))
    assert largest_difference(whole, cut) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [UpscalingModel.X4_PLUS, UpscalingModel.X4_PLUS_ANIME])
def test_bands_of_a_deep_network_are_hardly_visible(name: UpscalingModel, photo: Pixels) -> None:
    """On fur, 70 dB is far below what can be seen, and what `RealESRGANer` cuts is not."""
    engine, pixels = engine_of(name), photo[100:116, 8:236]
    whole = engine.upscale_by_plan(pixels, plan(engine.model, pixels))
    cut = engine.upscale_by_plan(pixels, plan(engine.model, pixels, bands=3))
    as_there = engine.upscale_by_plan(pixels, plan(engine.model, pixels, bands=3, halo=10))
    assert psnr(whole, cut) >= 70
    assert psnr(whole, as_there) < 55


@pytest.mark.first(2)
@pytest.mark.parametrize("bands", [1, 2, 3])
def test_scale_2_supports_odd_sides_in_any_bands(bands: int) -> None:
    engine, pixels = engine_of(UpscalingModel.X2_PLUS), noise(15, 47)
    whole = engine.upscale(pixels)
    assert whole.shape == (30, 94, 3)
    cut = engine.upscale_by_plan(pixels, plan(engine.model, pixels, bands=bands, halo=40))
    assert largest_difference(whole, cut) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", UpscalingModel)
def test_any_rows_per_step_equal_the_plain_network(name: UpscalingModel, photo: Pixels) -> None:
    """Sides that are odd and no multiples of 4, and 1 level for rounding."""
    engine, pixels = engine_of(name), photo[100:119, 60:93]
    expected = networks.plain(engine.model, network_of(name), pixels)
    for rows, tail_rows in [(1, 1), (5, 2), (24, 24)]:
        found = engine.upscale_by_plan(
            pixels, plan(engine.model, pixels, rows=rows, tail_rows=tail_rows)
        )
        assert found.shape == expected.shape
        assert largest_difference(found, expected) <= 1


@pytest.mark.first(6)
@pytest.mark.parametrize("name", UpscalingModel)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5)], ids=str)
def test_the_smallest_images_equal_the_plain_network(
    name: UpscalingModel, size: tuple[int, int], photo: Pixels
) -> None:
    engine, pixels = engine_of(name), photo[100 : 100 + size[0], 60 : 60 + size[1]]
    found = engine.upscale(pixels)
    assert largest_difference(found, networks.plain(engine.model, network_of(name), pixels)) <= 1


@settings(max_examples=examples(20))
@given(data=st.data(), height=st.integers(1, 20), width=st.integers(1, 40))
def test_any_plan_equals_the_plain_network(data: st.DataObject, height: int, width: int) -> None:
    engine, pixels = engine_of(), noise(height, width)
    found = engine.upscale_by_plan(
        pixels,
        plan(
            engine.model,
            pixels,
            bands=data.draw(st.integers(1, min(width, 4))),
            rows=data.draw(st.integers(1, 32)),
            whole=data.draw(st.booleans()),
        ),
    )
    assert largest_difference(found, networks.plain(engine.model, network_of(FAST), pixels)) <= 1


def test_the_halo_follows_the_receptive_field() -> None:
    """One column more is of no use, and the column at its edge counts."""
    engine = engine_of()
    pixels = np.full((4, 120, 3), 100, np.uint8)
    other = pixels.copy()
    reach = engine.model.receptive_field
    other[:, 60 + reach + 1 :] = 255
    column = slice(60 * 4, 61 * 4)
    assert (
        largest_difference(engine.upscale(pixels)[:, column], engine.upscale(other)[:, column]) <= 1
    )


@needs_bf16
@pytest.mark.parametrize(
    ("top", "mixed", "bf16"),
    [(64, 54, 52), pytest.param(100, 53, 52, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", UpscalingModel)
def test_every_precision_is_close_to_the_plain_network(
    name: UpscalingModel, top: int, mixed: float, bf16: float, photo: Pixels
) -> None:
    """By so many dB; on a CPU that only imitates bf16, too, which is slower."""
    pixels = photo[top : top + 40, 100:140]
    exact = networks.plain(MODELS[name], network_of(name), pixels)
    for precision, decibels in ((Precision.MIXED, mixed), (Precision.BF16, bf16)):
        found = engine_of(name, precision).upscale(pixels)
        assert decibels <= psnr(found, exact) < 70, "and not fp32 by mistake"
        assert largest_difference(found, exact) <= 9


def test_alpha_is_upscaled_with_the_image(photo: Pixels) -> None:
    alpha = np.zeros((40, 60, 1), np.uint8)
    alpha[:, 30:] = 255
    pixels = np.concatenate((photo[:40, :60], alpha), axis=2)

    enlarged = engine_of().upscale_by_plan(pixels, plan(MODELS[FAST], pixels, bands=3, rows=7))
    colours = engine_of().upscale(bleed_colours(pixels)[:, :, :3])

    assert enlarged.shape == (160, 240, 4)
    assert largest_difference(enlarged[:, :, :3], colours) <= 1
    assert enlarged[:, :104, 3].max() <= 2
    assert enlarged[:, 136:, 3].min() >= 253


def test_alpha_is_the_luma_of_the_networks_output() -> None:
    """Its colours clamped, then weighted by ITU-R BT.601: 205, 90 and 255 are a grey of 143.2."""
    pixels = np.full((8, 8, 4), (100, 100, 101, 150), np.uint8)  # not grey, which would stay grey
    pixels[0, 0, 3] = 151
    enlarged = adding(55, -60, 200).upscale(pixels)
    assert np.all(enlarged[4:, :, 3] == 143)
    assert np.all(enlarged[:, :, :3] == (155, 40, 255))


@pytest.mark.parametrize(
    ("added", "level"),
    [(0.0, 100), (0.4, 100), (0.6, 101), (-0.4, 100), (-0.6, 99), (200.0, 255), (-200.0, 0)],
)
def test_samples_are_clamped_and_rounded_to_the_nearest(added: float, level: int) -> None:
    pixels = np.full((8, 8, 3), 100, np.uint8)
    assert np.all(adding(added, added, added).upscale(pixels) == level)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_uniform_alpha_is_not_computed(value: int) -> None:
    calls: list[tuple[int, int]] = []
    pixels = noise(32, 32, 4)
    pixels[:, :, 3] = value
    enlarged = engine_of().upscale(pixels, progress=lambda *call: calls.append(call))
    assert np.all(enlarged[:, :, 3] == value)
    assert calls[-1] == (32, 32)


@pytest.mark.first(2)
@pytest.mark.parametrize(("channels", "passes"), [(3, 1), (4, 2)])
@pytest.mark.parametrize("name", [FAST, UpscalingModel.X2_PLUS])
def test_progress_counts_the_rows_of_every_band_and_pass(
    name: UpscalingModel, channels: int, passes: int
) -> None:
    calls: list[tuple[int, int]] = []
    engine, pixels = engine_of(name), noise(10, 17, channels)
    enlarge_by = plan(engine.model, pixels, bands=3, rows=4)
    engine.upscale_by_plan(pixels, enlarge_by, progress=lambda *call: calls.append(call))
    done = [row for row, _ in calls]
    assert {total for _, total in calls} == {3 * passes * 10}
    assert done == sorted(set(done))
    assert (done[0], done[-1]) == (0, 3 * passes * 10)
    assert {10 * part for part in range(3 * passes + 1)} <= set(done)
    assert max(later - earlier for earlier, later in pairwise(done)) <= 10


@pytest.mark.first(1)
@pytest.mark.parametrize("name", [FAST, UpscalingModel.X2_PLUS])
@settings(max_examples=examples(10))
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    opacity=st.sampled_from(["none", "uniform", "varying"]),
)
def test_strips_make_up_the_image(
    name: UpscalingModel, height: int, width: int, opacity: str
) -> None:
    pixels = noise(height, width, 3 if opacity == "none" else 4)
    if opacity == "uniform":
        pixels[:, :, 3] = 9
    engine = engine_of(name)
    strips = list(engine.strips(pixels))
    assert min(map(len, strips)) > 0
    assert np.array_equal(np.concatenate(strips), engine.upscale(pixels))


def test_a_strip_comes_before_the_rows_below_are_computed() -> None:
    told: list[int] = []
    cpu = torch.device("cpu")
    engine = Engine(MODELS[FAST], network_of(FAST), cpu, Precision.FP32, Kernels.ONEDNN)
    budget = max(plan.bytes for plan in engine._plans(300, 300, 3))
    strips = engine.strips(
        noise(300, 300), memory=budget, progress=lambda done, _: told.append(done)
    )
    assert told == [], "nothing is done before it is asked for"
    first = next(strips)
    assert first.shape[1:] == (1200, 3)
    assert 0 < told[-1] < 100
    assert len(first) == told[-1] * 4
    assert len(first) + sum(map(len, strips)) == 1200


def test_wrong_arguments_fail_before_the_first_strip() -> None:
    with pytest.raises(ValueError, match="not both"):
        engine_of().strips(noise(8, 8), 2.0, size=(16, 16))
    with pytest.raises(OutOfMemory, match="MiB at least"):
        engine_of().strips(noise(30, 30), memory=1000)


def test_the_input_is_not_changed() -> None:
    pixels = noise(30, 30, 4)
    before = pixels.copy()
    engine_of().upscale(pixels)
    assert np.array_equal(pixels, before)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "precision", [Precision.FP32, pytest.param(Precision.MIXED, marks=needs_bf16)]
)
@pytest.mark.parametrize("name", [FAST, UpscalingModel.X4_PLUS_ANIME])
def test_concurrent_calls_are_independent(name: UpscalingModel, precision: Precision) -> None:
    """Different images by different plans, and each comes out as if it were alone."""
    engine = engine_of(name, precision)
    count = examples(10 if name is FAST else 4)
    pictures = [noise(6 + n, 44 - 2 * n, 3 + n % 2) for n in range(count)]
    plans = [
        plan(engine.model, picture, bands=1 + n % 3, rows=3 + n % 4)
        for n, picture in enumerate(pictures)
    ]
    alone = list(map(engine.upscale_by_plan, pictures, plans))
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(engine.upscale_by_plan, pictures, plans))
    assert all(map(np.array_equal, alone, together))


def test_upscale_uses_the_plan_of_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[Plan, RowProgress | None]] = []
    engine, pixels = networks.engine(MODELS[FAST]), noise(30, 200, 4)
    strips = engine._strips

    def noting(pixels: Pixels, by: Plan, progress: RowProgress | None) -> Iterator[Tensor]:
        used.append((by, progress))
        return strips(pixels, by, progress)

    monkeypatch.setattr(engine, "_strips", noting)
    choices = sorted(engine._plans(200, 30, 4), key=lambda choice: choice.bytes)
    for memory in (choices[0].bytes, choices[-1].bytes):
        engine.upscale(pixels, memory=memory)
        expected = engine.plan(200, 30, channels=4, memory=memory)
        assert used.pop() == (expected, None)
        assert expected.bytes <= memory
    assert engine.plan(200, 30, memory=choices[-1].bytes).bytes < choices[-1].bytes


def test_the_default_budget_is_half_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[FAST]
    choices = sorted(engine_of()._plans(2000, 2000, 3), key=lambda choice: choice.bytes)
    for free, expected in [(2 * choices[-1].bytes, None), (0, choices[0].bytes)]:
        monkeypatch.setattr("upscaler.engine.engine.free_bytes", lambda _device, free=free: free)
        found = engine_of().plan(2000, 2000)
        assert found == cheapest(engine_of()._plans(2000, 2000, 3), None, free)
        assert expected is None or found.bytes == expected
    assert model.scale == 4


def test_a_budget_that_is_too_small_fails_before_any_work() -> None:
    calls: list[tuple[int, int]] = []
    with pytest.raises(OutOfMemory, match="MiB at least"):
        engine_of().upscale(noise(30, 30), memory=1000, progress=lambda *call: calls.append(call))
    assert not calls


@pytest.mark.parametrize(
    "pixels",
    [noise(8, 8).astype(np.float32), noise(8, 8)[:, :, 0], noise(8, 8, 2), noise(8, 8, 5)],
    ids=["float", "grey", "two channels", "five channels"],
)
def test_other_pixels_are_refused(pixels: Pixels) -> None:
    with pytest.raises(ValueError, match="uint8 of shape"):
        engine_of().upscale(pixels)


@pytest.mark.parametrize("outscale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_is_a_positive_number(outscale: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        engine_of().upscale(noise(8, 8), outscale)


def test_a_scale_and_a_size_together_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        engine_of().upscale(noise(8, 8), 2.0, size=(16, 16))


def test_load_finds_the_weights_and_accepts_names(photo: Pixels) -> None:
    engine = Engine.load("real-esrgan-animevideo-v3", "cpu", "fp32")
    pixels = photo[:40, :40]
    assert np.array_equal(engine.upscale(pixels), engine_of().upscale(pixels))


def test_load_takes_the_default_model() -> None:
    assert Engine.load(device="cpu").model.name is UpscalingModel.X4_PLUS


def test_load_prefers_its_folder_to_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSCALER_WEIGHTS", str(tmp_path / "environment"))
    with pytest.raises(WeightsUnavailable, match="environment"):
        Engine.load(FAST, "cpu")
    with pytest.raises(WeightsUnavailable, match="given"):
        Engine.load(FAST, "cpu", weights_folder=tmp_path / "given")


def test_both_ways_to_load_report_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    net = networks.network(MODELS[FAST])

    def downloading(
        model: Model, folder: Path | None, progress: weights.DownloadProgress | None
    ) -> weights.Loaded:
        assert progress is not None
        progress(1, 2)
        return weights.Loaded(net, "00")

    monkeypatch.setattr(weights, "load", downloading)
    told: list[tuple[int, int]] = []
    Engine.load(FAST, "cpu", progress=lambda *call: told.append(call))
    EnginePool(Settings(device=Device.CPU)).load(FAST, lambda *call: told.append(call))
    assert told == [(1, 2), (1, 2)]


@pytest.mark.parametrize("work", [True, False])
@pytest.mark.parametrize("on_gpu", [True, False])
def test_an_engine_says_whose_kernels_it_has_and_whether_some_were_refused(
    on_gpu: bool, work: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upscaler.engine.cpu.check.kernels_work", lambda: work)
    asked = Kernels.AUTO
    if on_gpu:
        # In place of the ones that need a card.
        asked = Kernels.ONEDNN
        monkeypatch.setattr("upscaler.engine.engine.kernels_wanted", lambda *_: True)
        monkeypatch.setattr(
            "upscaler.engine.engine.checked", lambda *args: args[2] if work else None
        )
    cpu, net = torch.device("cpu"), network_of(FAST)
    found = Engine(MODELS[FAST], net, cpu, Precision.FP32, asked).kernels
    assert found == KernelUse("cpu", FAST, own=work, refused=not work)
    monkeypatch.setattr("upscaler.engine.engine.kernels_wanted", lambda *_: False)
    found = Engine(MODELS[FAST], net, cpu, Precision.FP32, Kernels.ONEDNN).kernels
    assert (found.own, found.refused) == (False, False), "nobody asked for them"
