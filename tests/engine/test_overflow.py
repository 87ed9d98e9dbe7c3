"""Networks that overflow: no image is returned, and the error says so."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.support import networks
from tests.support.networks import plan
from upscaler.engine import convolution
from upscaler.engine import engine as module
from upscaler.engine.convolution import Direct
from upscaler.engine.engine import Engine
from upscaler.engine.networks import Net, RRDBNet
from upscaler.engine.pool import EnginePool
from upscaler.engine.streams import Methods
from upscaler.engine.weights import Loaded
from upscaler.errors import Overflow, WeightsUnavailable
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, RRDB, Model, UpscalingModel
from upscaler.planning import Footprint
from upscaler.settings import Device, Precision, Settings

COMPACT = MODELS[UpscalingModel.ANIMEVIDEO_V3]
DEEP = Model(**{**vars(MODELS[UpscalingModel.X2_PLUS]), "network": RRDB(scale=2, num_block=1)})
CPU = torch.device("cpu")
FOOTPRINT = Footprint(1000, column=1000, flow=500, tail=0, step_px=2000, tail_px=1)


@pytest.fixture(autouse=True)
def _any_network_has_a_footprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "footprints", networks.ways(FOOTPRINT))


def scaled(model: Model, factor: float) -> Net:
    """A network of which every weight is finite and `factor` times what it should be."""
    net = networks.lively(model)
    for parameter in net.parameters():
        parameter.mul_(factor)
    return net


def dark(net: Net) -> Net:
    """The same, but overflowing only where the image is not black."""
    first = net.conv_first if isinstance(net, RRDBNet) else net.body[0]
    assert isinstance(first, torch.nn.Conv2d)
    assert first.bias is not None
    first.weight.fill_(1e38)
    first.bias.zero_()
    return net


def noise(height: int, width: int, channels: int) -> Pixels:
    shape = (height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def upscaled(engine: Engine, pixels: Pixels) -> object:
    return engine.upscale(pixels)


def resized(engine: Engine, pixels: Pixels) -> object:
    return engine.upscale(pixels, size=(50, 60))


def in_bands(engine: Engine, pixels: Pixels) -> object:
    return engine.upscale_by_plan(pixels, plan(engine.model, pixels, bands=2, rows=4))


def in_strips(engine: Engine, pixels: Pixels) -> object:
    return deque(engine.strips(pixels), maxlen=0)


@pytest.mark.first(6)
@pytest.mark.parametrize("way", [upscaled, resized, in_bands, in_strips])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.MIXED, Precision.BF16])
@pytest.mark.parametrize("model", [COMPACT, DEEP], ids=["compact", "deep"])
@pytest.mark.parametrize("channels", [3, 4])
def test_an_overflow_returns_no_image(
    model: Model, precision: Precision, channels: int, way: Callable[[Engine, Pixels], object]
) -> None:
    engine = Engine(model, scaled(model, 1e12), CPU, precision)
    with pytest.raises(Overflow, match=f"{model.name} overflows on this image in {precision}"):
        way(engine, noise(40, 44, channels))


@pytest.mark.first(1)
@pytest.mark.parametrize("model", [COMPACT, DEEP], ids=["compact", "deep"])
def test_one_pixel_overflows_and_the_next_image_is_unaffected(model: Model) -> None:
    engine = Engine(model, dark(networks.lively(model)), CPU, Precision.FP32)
    black = np.zeros((40, 44, 3), np.uint8)
    expected = engine.upscale(black)
    spoiled = black.copy()
    spoiled[-1, -1] = 255
    with pytest.raises(Overflow):
        engine.upscale(spoiled)
    assert np.array_equal(engine.upscale(black), expected)


@pytest.mark.slow
def test_extreme_images_do_not_overflow() -> None:
    engine = networks.engine(COMPACT)
    for level in (0, 255):
        engine.upscale(np.full((40, 44, 4), level, np.uint8))
    assert engine.upscale(module._probe_image()).std() > 10


# Weights of a user's own


def saved(net: Net, model: Model, folder: Path) -> Path:
    path = folder / f"{model.name}.safetensors"
    safetensors.torch.save_file(net.state_dict(), path)
    return path


def test_custom_weights_that_overflow_are_refused_when_loaded(
    tmp_path: Path,
) -> None:
    path = saved(scaled(COMPACT, 1e12), COMPACT, tmp_path)
    engines = EnginePool(Settings(device=Device.CPU, weights=tmp_path, precision=Precision.FP32))
    loads: list[Callable[[], object]] = [
        lambda: Engine.load(COMPACT.name, "cpu", "fp32", weights_folder=tmp_path),
        lambda: engines.load(COMPACT.name),
        lambda: engines.load(COMPACT.name),
    ]
    for load in loads:
        with pytest.raises(WeightsUnavailable, match=f"{path} .* overflows in fp32$"):
            load()


def test_fp32_is_proposed_if_only_the_precision_is_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a method that GPUs have, and that no setting chooses for a CPU."""
    monkeypatch.setattr(convolution, "has_onednn", lambda _: False)
    half = Direct(torch.float16, torch.float16, CPU)
    monkeypatch.setattr(module, "methods", lambda *_: Methods(half, half, half))
    for factor, advice in ((30.0, "overflows in fp16, and not in fp32: use fp32"), (1e12, "fp16")):
        loaded = Loaded(scaled(COMPACT, factor), "00", tmp_path / "own.pth")
        with pytest.raises(WeightsUnavailable, match=f"own.pth .*{advice}$"):
            Engine.from_weights(COMPACT, loaded, CPU, Precision.FP16)


def test_own_weights_that_work_are_accepted(tmp_path: Path) -> None:
    net = networks.network(COMPACT)
    saved(net, COMPACT, tmp_path)
    engine = Engine.load(COMPACT.name, "cpu", "fp32", weights_folder=tmp_path)
    pixels = noise(20, 24, 3)
    expected = Engine(COMPACT, net, CPU, Precision.FP32).upscale(pixels)
    assert np.array_equal(engine.upscale(pixels), expected)


def test_published_weights_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "upscale", lambda *_: pytest.fail("it was tried out"))
    loaded = Loaded(networks.network(COMPACT), "00")
    assert Engine.from_weights(COMPACT, loaded, CPU, Precision.FP32).model is COMPACT
