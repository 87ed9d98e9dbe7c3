"""The engine: exact sizes, tiles that do not show, alpha, progress, and calls at once."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests import networks
from tests.networks import largest_difference
from upscaler import weights
from upscaler.contract import scaled_size
from upscaler.engine import Engine, Engines, pick_device, pick_dtype
from upscaler.errors import DeviceUnavailable, WeightsUnavailable
from upscaler.images import Pixels
from upscaler.models import MODELS, Model, UpscalingModel
from upscaler.nets import Net, SRVGGNetCompact, build
from upscaler.settings import Device, Precision, Settings

FAST = UpscalingModel.ANIMEVIDEO_V3


@cache
def engine_of(name: UpscalingModel = FAST) -> Engine:
    return networks.engine(MODELS[name])


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
    return Engine(MODELS[FAST], net, torch.device("cpu"), torch.float32)


def noise(height: int, width: int, channels: int = 3) -> Pixels:
    shape = (height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("name", UpscalingModel)
def test_every_model_makes_a_picture_that_looks_like_its_input(
    name: UpscalingModel, photo: Pixels
) -> None:
    model = MODELS[name]
    pixels = photo[64:128, 100:196]

    enlarged = engine_of(name).upscale(pixels)

    assert enlarged.dtype == np.uint8
    assert enlarged.shape == (64 * model.scale, 96 * model.scale, 3)
    if networks.trained(model):
        small = Image.fromarray(enlarged).resize((96, 64), Image.Resampling.BOX)
        likeness = np.corrcoef(np.array(small).ravel(), pixels.ravel())[0, 1]
        assert likeness > 0.98


@settings(max_examples=25)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    scale=st.floats(0.05, 6),
    channels=st.sampled_from([3, 4]),
    tile=st.integers(1, 50) | st.just(0),
)
def test_the_size_is_exactly_the_contracts(
    height: int, width: int, scale: float, channels: int, tile: int
) -> None:
    """REQ-16, whatever the tiles."""
    enlarged = engine_of().upscale(noise(height, width, channels), scale, tile=tile)
    expected_width, expected_height = scaled_size((width, height), scale)
    assert enlarged.shape == (expected_height, expected_width, channels)


def test_a_requested_size_is_met_and_resized_without_aliasing(photo: Pixels) -> None:
    pixels = photo[:64, :64]
    native = engine_of().upscale(pixels)
    resized = engine_of().upscale(pixels, size=(100, 150))
    expected = Image.fromarray(native).resize((100, 150), Image.Resampling.LANCZOS)
    assert np.array_equal(resized, np.array(expected))


@pytest.mark.parametrize("tile", [17, 24, 32])
@pytest.mark.parametrize("name", [UpscalingModel.ANIMEVIDEO_V3, UpscalingModel.X4_V3])
def test_tiles_of_a_compact_network_equal_the_whole_picture(
    name: UpscalingModel, tile: int, photo: Pixels
) -> None:
    """Their default halo is their whole receptive field. One level is left for rounding."""
    pixels = photo[100:170, 60:150]
    whole = engine_of(name).upscale(pixels, tile=0)
    tiled = engine_of(name).upscale(pixels, tile=tile)
    assert largest_difference(whole, tiled) <= 1


@pytest.mark.parametrize("halo", [0, 2])
def test_a_halo_short_of_the_receptive_field_shows(halo: int, photo: Pixels) -> None:
    """The test above could not fail if tiles never mattered."""
    pixels = photo[100:170, 60:150]
    whole = engine_of().upscale(pixels, tile=0)
    assert largest_difference(whole, engine_of().upscale(pixels, tile=24, halo=halo)) > 1


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        (UpscalingModel.X4_PLUS, slice(100, 164), slice(0, 256)),
        (UpscalingModel.X4_PLUS_ANIME, slice(20, 220), slice(20, 220)),
    ],
)
def test_tiles_of_a_deep_network_hardly_show(
    name: UpscalingModel, rows: slice, columns: slice, photo: Pixels
) -> None:
    """60 dB is a thousandth of full scale: far below what can be seen."""
    pixels = photo[rows, columns]
    whole = engine_of(name).upscale(pixels, tile=0).astype(float)
    tiled = engine_of(name).upscale(pixels, tile=100).astype(float)
    assert 10 * np.log10(255**2 / np.mean((whole - tiled) ** 2)) > 60


@pytest.mark.parametrize("tile", [0, 1, 7, 16])
def test_scale_2_takes_odd_sides_in_any_tiles(tile: int) -> None:
    engine = engine_of(UpscalingModel.X2_PLUS)
    pixels = noise(21, 17)
    whole = engine.upscale(pixels, tile=0)
    assert whole.shape == (42, 34, 3)
    assert largest_difference(whole, engine.upscale(pixels, tile=tile, halo=40)) <= 1


def test_alpha_is_enlarged_with_the_picture(photo: Pixels) -> None:
    alpha = np.zeros((64, 64, 1), np.uint8)
    alpha[:, 32:] = 255
    pixels = np.concatenate((photo[:64, :64], alpha), axis=2)

    enlarged = engine_of().upscale(pixels, tile=24)

    assert enlarged.shape == (256, 256, 4)
    assert largest_difference(enlarged[:, :, :3], engine_of().upscale(pixels[:, :, :3])) <= 1
    assert enlarged[:, :112, 3].max() <= 2
    assert enlarged[:, 144:, 3].min() >= 253


def test_alpha_is_the_grey_of_what_the_network_made_of_it() -> None:
    """Its colours clamped, then weighted by ITU-R BT.601: 155, 40 and 255 are a grey of 98.9."""
    pixels = np.full((8, 8, 4), 100, np.uint8)
    pixels[0, 0, 3] = 101
    enlarged = adding(55, -60, 200).upscale(pixels)
    assert np.all(enlarged[4:, :, 3] == 99)
    assert np.all(enlarged[:, :, :3] == (155, 40, 255))


@pytest.mark.parametrize(
    ("added", "level"),
    [(0.0, 100), (0.4, 100), (0.6, 101), (-0.4, 100), (-0.6, 99), (200.0, 255), (-200.0, 0)],
)
def test_samples_are_clamped_and_rounded_to_the_nearest(added: float, level: int) -> None:
    pixels = np.full((8, 8, 3), 100, np.uint8)
    assert np.all(adding(added, added, added).upscale(pixels) == level)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_alpha_that_is_the_same_everywhere_stays_so_and_costs_nothing(value: int) -> None:
    calls: list[tuple[int, int]] = []
    pixels = noise(32, 32, 4)
    pixels[:, :, 3] = value
    enlarged = engine_of().upscale(pixels, tile=16, progress=lambda *call: calls.append(call))
    assert np.all(enlarged[:, :, 3] == value)
    assert calls[-1] == (4, 4)


def test_progress_is_told_before_the_first_tile_and_after_each() -> None:
    calls: list[tuple[int, int]] = []
    engine_of().upscale(noise(30, 50), tile=20, progress=lambda *call: calls.append(call))
    assert calls == [(done, 6) for done in range(7)]


def test_the_input_is_left_as_it_was() -> None:
    pixels = noise(30, 30, 4)
    before = pixels.copy()
    engine_of().upscale(pixels, tile=16)
    assert np.array_equal(pixels, before)


def test_calls_at_once_do_not_disturb_each_other() -> None:
    pictures = [noise(20 + n, 44 - n, 3 + n % 2) for n in range(12)]
    alone = [engine_of().upscale(picture, 3.3, tile=16) for picture in pictures]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda p: engine_of().upscale(p, 3.3, tile=16), pictures))
    assert all(map(np.array_equal, alone, together))


@pytest.mark.parametrize(
    "pixels",
    [noise(8, 8).astype(np.float32), noise(8, 8)[:, :, 0], noise(8, 8, 2), noise(8, 8, 5)],
    ids=["float", "grey", "two channels", "five channels"],
)
def test_anything_but_such_pixels_is_refused(pixels: Pixels) -> None:
    with pytest.raises(ValueError, match="uint8 of shape"):
        engine_of().upscale(pixels)


@pytest.mark.parametrize("outscale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_is_a_positive_number(outscale: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        engine_of().upscale(noise(8, 8), outscale)


def test_a_scale_and_a_size_together_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        engine_of().upscale(noise(8, 8), 2.0, size=(16, 16))


def test_bf16_is_close_to_fp32(photo: Pixels) -> None:
    pixels = photo[:64, :64]
    spec = MODELS[FAST]
    half = Engine(spec, networks.network(spec), torch.device("cpu"), torch.bfloat16)
    error = half.upscale(pixels).astype(float) - engine_of().upscale(pixels)
    assert 40 < 10 * np.log10(255**2 / np.mean(error**2)) < 70, "bf16, and not fp32 by mistake"


def test_load_finds_the_weights_and_takes_words(photo: Pixels) -> None:
    engine = Engine.load("real-esrgan-animevideo-v3", "cpu", "fp32")
    pixels = photo[:40, :40]
    assert np.array_equal(engine.upscale(pixels), engine_of().upscale(pixels))


def test_load_takes_the_default_model() -> None:
    assert Engine.load(device="cpu").model.name is UpscalingModel.X4_PLUS


def test_load_asks_the_folder_it_is_given_or_else_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSCALER_WEIGHTS", str(tmp_path / "environment"))
    with pytest.raises(WeightsUnavailable, match="environment"):
        Engine.load(FAST, "cpu")
    with pytest.raises(WeightsUnavailable, match="given"):
        Engine.load(FAST, "cpu", weights_folder=tmp_path / "given")


def test_a_download_is_told_of_by_either_way_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    net = networks.network(MODELS[FAST])

    def downloading(model: Model, folder: Path | None, progress: weights.Progress | None) -> Net:
        assert progress is not None
        progress(1, 2)
        return net

    monkeypatch.setattr(weights, "load", downloading)
    told: list[tuple[int, int]] = []
    Engine.load(FAST, "cpu", progress=lambda *call: told.append(call))
    Engines(Settings(device=Device.CPU)).load(FAST, lambda *call: told.append(call))
    assert told == [(1, 2), (1, 2)]


def test_auto_is_cuda_or_else_mps_or_else_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"cuda", "mps"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    assert pick_device(Device.AUTO).type == "cuda"
    there.remove("cuda")
    assert pick_device(Device.AUTO).type == "mps"
    there.remove("mps")
    assert pick_device(Device.AUTO).type == "cpu"


def test_what_a_machine_cannot_do_is_said_at_once() -> None:
    cpu = torch.device("cpu")
    assert pick_dtype(Precision.AUTO, cpu) is torch.float32
    assert pick_dtype(Precision.AUTO, torch.device("mps")) is torch.float32
    assert pick_dtype(Precision.AUTO, torch.device("cuda")) is torch.float16
    with pytest.raises(DeviceUnavailable, match="bf16"):
        pick_dtype(Precision.FP16, cpu)
    with pytest.raises(DeviceUnavailable, match="bf16"):
        Engines(Settings(device=Device.CPU, precision=Precision.FP16))
    if not torch.cuda.is_available():
        with pytest.raises(DeviceUnavailable, match="cuda"):
            pick_device(Device.CUDA)
        with pytest.raises(DeviceUnavailable, match="cuda"):
            Engines(Settings(device=Device.CUDA))


def test_engines_are_what_the_settings_say() -> None:
    tiles: list[None] = []
    engines = Engines(Settings(device=Device.CPU, precision=Precision.BF16, tile=16))
    engine = engines.load(FAST)
    engine.net.register_forward_hook(lambda *_: tiles.append(None))
    engines.upscale(noise(32, 32), FAST, (64, 64))
    assert engine.dtype is torch.bfloat16
    assert len(tiles) == 4


def test_engines_are_loaded_once_however_many_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[UpscalingModel] = []
    load = weights.load

    def counting(model: Model, *args: Any) -> Net:
        loaded.append(model.name)
        return load(model, *args)

    monkeypatch.setattr(weights, "load", counting)
    engines = Engines(Settings(device=Device.CPU))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(engines.load, [FAST] * 4))
    assert loaded == [FAST]
    assert len(set(found)) == 1
    assert engines.upscale(noise(16, 20), FAST, (33, 44)).shape == (44, 33, 3)


def test_a_model_that_takes_long_to_load_keeps_no_other_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, arrived = threading.Event(), threading.Event()
    load = weights.load

    def slow(model: Model, *args: Any) -> Net:
        if model.name is not FAST:
            asked.set()
            assert arrived.wait(30)
            raise WeightsUnavailable("it never came")
        return load(model, *args)

    monkeypatch.setattr(weights, "load", slow)
    engines = Engines(Settings(device=Device.CPU))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(engines.load, UpscalingModel.X2_PLUS)
        assert asked.wait(30)
        assert engines.upscale(noise(16, 16), FAST, (32, 32)).shape == (32, 32, 3)
        arrived.set()
        assert isinstance(waiting.exception(), WeightsUnavailable)


def test_weights_that_cannot_be_had_are_not_asked_for_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries: list[UpscalingModel] = []

    def failing(model: Model, *args: object) -> Net:
        tries.append(model.name)
        raise WeightsUnavailable("no network")

    monkeypatch.setattr(weights, "load", failing)
    engines = Engines(Settings(device=Device.CPU))
    for seconds, tried in [(1000.0, 1), (1001.0, 1), (1059.0, 1), (1061.0, 2), (1062.0, 2)]:
        monkeypatch.setattr("time.monotonic", lambda now=seconds: now)
        with pytest.raises(WeightsUnavailable, match="no network"):
            engines.load(FAST)
        assert tries == [FAST] * tried


def test_a_model_that_cannot_be_had_keeps_no_other_from_being_loaded(tmp_path: Path) -> None:
    (tmp_path / f"{UpscalingModel.X4_V3}.pth").write_bytes(b"half of it")
    engines = Engines(Settings(device=Device.CPU, weights=tmp_path))
    with pytest.raises(WeightsUnavailable, match="does not hold the weights"):
        engines.load(UpscalingModel.X4_V3)
    assert engines.load(FAST).model.name is FAST


def test_a_folder_of_weights_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match="not a folder"):
        Engines(Settings(weights=tmp_path / "gone"))
