"""Every contender makes the picture that the plain network makes, by its own means."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import networks
from tests.support.requirements import needs
from upscaler.bench import adapters, contenders, machine, reference
from upscaler.bench.contenders import CUSTOMARY_PAD_PX, Contender, Peer
from upscaler.bench.runner import fidelity
from upscaler.engine import weights
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, RRDB, Model, UpscalingModel
from upscaler.settings import Device, Precision

pytestmark = pytest.mark.torch

BF16 = contenders.native_bf16(machine.describe())
CPU = torch.device("cpu")
COMPACT = MODELS[UpscalingModel.ANIMEVIDEO_V3]
DOUBLE = MODELS[UpscalingModel.X2_PLUS]
LARGEST = {"fp32": 1, "mixed": 10, "bf16": 40}
"""The most levels of 255 by which a pixel may be off."""
LEAST_DB = {"fp32": 80.0, "mixed": 50.0, "bf16": 45.0}

EVERYBODY = [
    *contenders.select(Device.CPU, bf16=BF16, peers=[]),
    *(
        pytest.param(contender, marks=needs(peer))
        for peer in Peer
        for contender in contenders.variants(peer, Device.CPU, bf16=BF16)
    ),
]
everybody = pytest.mark.parametrize("contender", EVERYBODY, ids=lambda contender: contender.name)


def one_block(model: Model) -> Model:
    """The same with one block of its 23, so that a test need not wait."""
    assert isinstance(model.network, RRDB)
    return Model(**{**vars(model), "network": RRDB(scale=model.scale, num_block=1)})


@pytest.fixture
def photo_model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """real-esrgan-x2-plus, small, with weights that all contenders get."""
    model = one_block(DOUBLE)
    net = networks.lively(model)
    monkeypatch.setattr(weights, "load", lambda *_args: weights.Loaded(net, "00"))
    return model


@pytest.mark.first(2)
@everybody
def test_everybody_equals_untiled_fp32_on_trained_weights(
    contender: Contender, photo: Pixels, tmp_path: Path
) -> None:
    check(contender, COMPACT, photo[96:144, 120:160], tmp_path)


@pytest.mark.slow
@everybody
def test_everybody_takes_odd_sides_where_scale_2_wants_even_ones(
    contender: Contender, photo_model: Model, photo: Pixels, tmp_path: Path
) -> None:
    check(contender, photo_model, photo[90:127, 100:151], tmp_path)


def check(contender: Contender, model: Model, pixels: Pixels, folder: Path) -> None:
    expected = adapters.Truth(model, CPU).run(pixels)
    runner = adapters.load(contender, model, CPU, None)
    runner.prepare(pixels.shape[1], pixels.shape[0])
    found = runner.run(pixels)

    assert expected.std() > 10, "a flat picture would prove nothing"
    assert found.shape == (pixels.shape[0] * model.scale, pixels.shape[1] * model.scale, 3)
    np.save(f"{folder}/truth.npy", expected)
    np.save(f"{folder}/found.npy", found)
    distance = fidelity(f"{folder}/truth.npy", f"{folder}/found.npy")
    assert distance.largest <= LARGEST[contender.precision]
    assert distance.psnr_db is None or distance.psnr_db > LEAST_DB[contender.precision]


def test_the_truth_is_the_plain_network(photo: Pixels) -> None:
    pixels = photo[96:144, 120:160]
    net = weights.load(COMPACT).net
    expected = networks.to_levels(net(networks.to_tensor(pixels)))
    assert np.array_equal(adapters.Truth(COMPACT, CPU).run(pixels), expected)


def test_the_truth_is_not_begun_where_memory_would_not_do(
    photo: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = adapters.Truth(COMPACT, CPU)
    monkeypatch.setattr(machine, "available_bytes", lambda: 2**20)
    with pytest.raises(MemoryError, match=r"it takes about .* GB, and cpu has"):
        truth.run(photo)


@needs(Peer.REALESRGAN)
@pytest.mark.parametrize(("tile", "sides"), [(16, (48, 32)), (16, (37, 50)), (64, (48, 40))])
def test_overhead_of_tiles_is_what_the_network_is_shown(
    tile: int, sides: tuple[int, int], photo: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    width, height = sides
    contender = Contender(Peer.REALESRGAN, Precision.FP32, tile)
    runner = adapters.load(contender, COMPACT, CPU, None)
    assert isinstance(runner, adapters.RealESRGANer)
    shown = []
    upsampler = runner.upsampler
    net = upsampler.model  # type: ignore[attr-defined]
    net.register_forward_pre_hook(lambda _net, args: shown.append(args[0][0, 0].numel()))

    runner.prepare(width, height)
    runner.run(photo[:height, :width])

    assert CUSTOMARY_PAD_PX == 10
    assert runner.overhead == pytest.approx(sum(shown) / (width * height) - 1)


@needs(Peer.REALESRGAN)
@pytest.mark.parametrize("failing", [0, 1], ids=["the first tile", "a later tile"])
def test_a_tile_that_realesrganer_lost_is_an_error(failing: int, photo: Pixels) -> None:
    """By itself it prints the error and shows the tile before in its place."""
    runner = adapters.load(Contender(Peer.REALESRGAN, Precision.FP32, 24), COMPACT, CPU, None)
    assert isinstance(runner, adapters.RealESRGANer)
    tiles = iter(range(9))

    def fail(*_args: object) -> None:
        if next(tiles) == failing:
            raise RuntimeError("no memory left")

    runner.upsampler.model.register_forward_pre_hook(fail)  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match=r"RealESRGANer lost.*no memory left"):
        runner.run(photo[:40, :40])


@needs(Peer.REALESRGAN)
def test_the_reference_reads_the_same_weights(photo: Pixels) -> None:
    net = weights.load(COMPACT).net
    upsampler = reference.upsampler(COMPACT, net, CPU)
    theirs = upsampler.model.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(theirs[name], tensor) for name, tensor in net.state_dict().items())
    assert reference.enhance(upsampler, photo[:32, :32]).shape == (128, 128, 3)
