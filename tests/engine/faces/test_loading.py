"""The networks for faces with their files of weights, and in the pool of a service."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.support import face_nets, networks
from tests.support.checkpoints import pickled
from upscaler.engine.faces import loading
from upscaler.engine.faces.backbones import MobileNetV1
from upscaler.engine.faces.retinaface import RetinaFace
from upscaler.engine.pool import EnginePool
from upscaler.engine.weights import Loaded
from upscaler.errors import OutOfMemory, WeightsUnavailable
from upscaler.face_models import FACE_MODELS, FaceDetector, FaceModel, needed
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, UpscalingModel
from upscaler.settings import Device, Settings

FAST = UpscalingModel.ANIMEVIDEO_V3


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of small networks under the official names, in the layouts of the official files."""
    for name in FACE_MODELS:
        monkeypatch.setitem(loading.BUILDERS, name, lambda: nn.Linear(2, 3))
    weights = nn.Linear(2, 3).state_dict()
    torch.nn.init.constant_(weights["weight"], 7)
    whole = {f"module.{name}": tensor for name, tensor in weights.items()}
    for model in FACE_MODELS.values():
        nested = {"params_ema": weights} if "GFPGAN" in model.official.filename else whole
        (tmp_path / model.official.filename).write_bytes(pickled(nested))
    return tmp_path


@pytest.mark.parametrize("detector", FaceDetector)
def test_official_files_are_loaded(detector: FaceDetector, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    found = loading.load(detector, folder, lambda *done: told.append(done))
    for net in found:
        assert isinstance(net, nn.Linear)
        assert (net.weight == 7).all()
        assert not net.training
        assert not net.weight.requires_grad
    assert told == [], "nothing is fetched"


def test_a_file_of_another_network_is_told(folder: Path) -> None:
    (folder / "GFPGANv1.4.pth").write_bytes(pickled({"params_ema": {"weight": torch.zeros(1)}}))
    with pytest.raises(WeightsUnavailable, match="does not hold the weights of gfpgan"):
        loading.load(FaceDetector.RESNET50, folder)


def test_missing_files_are_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy answers on port 9, so nothing leaves this machine."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    engines = EnginePool(Settings(device=Device.CPU, face_detector=FaceDetector.MOBILENET))
    for _ in range(2):
        with pytest.raises(WeightsUnavailable, match="UPSCALER_WEIGHTS") as caught:
            engines.load_faces()
        assert "facexlib/releases/download/v0.1.0/detection_mobilenet0.25_Final" in str(
            caught.value
        )


def test_a_failure_is_repeated_without_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def load(*_: object) -> None:
        attempts.append(1)
        raise WeightsUnavailable("no network")

    monkeypatch.setattr("upscaler.engine.pool.load_faces", load)
    engines = EnginePool(Settings(device=Device.CPU))
    for _ in range(3):
        with pytest.raises(WeightsUnavailable, match="no network"):
            engines.load_faces()
    assert len(attempts) == 1


def test_every_model_has_a_network_and_a_file_of_its_own() -> None:
    assert loading.BUILDERS.keys() == FACE_MODELS.keys()
    files = [model.official for model in MODELS.values()]
    files += [model.official for model in FACE_MODELS.values()]
    assert len({file.filename for file in files}) == len({file.sha256 for file in files}) == 10
    assert needed(FaceDetector.RESNET50)[1:] == needed(FaceDetector.MOBILENET)[1:]


@pytest.mark.parametrize("model", FACE_MODELS.values(), ids=FACE_MODELS)
def test_the_published_file_is_as_large_as_the_networks_weights(model: FaceModel) -> None:
    """But for some 200 bytes a tensor, in which a file of torch's has its name, type and shape."""
    with torch.device("meta"):
        tensors = loading.BUILDERS[model.name]().state_dict().values()
    left = model.official.size_bytes - sum(each.nbytes for each in tensors)
    assert 180 < left / len(tensors) < 220


def test_a_network_is_made_without_drawing_its_weights() -> None:
    monkey = loading._empty(FACE_MODELS["retinaface-mobilenet0.25"])
    assert isinstance(monkey, RetinaFace)
    assert monkey.state_dict().keys() == RetinaFace(MobileNetV1()).state_dict().keys()


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> EnginePool:
    monkeypatch.setattr("upscaler.engine.pool.load_faces", lambda *_: face_nets.nets())
    return EnginePool(Settings(device=Device.CPU))


@pytest.mark.parametrize("size", [(640, 512), (231, 185), (160, 128)], ids=str)
@pytest.mark.parametrize("channels", [3, 4])
def test_faces_alone_change(
    engines: EnginePool, size: tuple[int, int], channels: int, photo: Pixels
) -> None:
    """At the model's own size and at others, with alpha and without."""
    pixels = photo[60:188, 80:240]
    if channels == 4:
        pixels = np.dstack((pixels, photo[60:188, :160, 0]))

    def upscaled() -> Pixels:
        return np.concatenate(list(engines.upscale(pixels, FAST, size)))

    count, strips = engines.enhance_faces(pixels, size, engines.upscale(pixels, FAST, size))
    found, plain = np.concatenate(list(strips)), upscaled()

    assert count == 1
    ((left, top, right, bottom),) = engines.find_faces(pixels)
    assert 0 < left < 80 < right < 160
    assert 0 < top < 64 < bottom < 128
    assert found.shape == plain.shape == (size[1], size[0], channels)
    changed = (found != plain).any(axis=2)
    assert 0.05 < changed.mean() < 0.6
    middle = (size[1] // 2, size[0] // 2)
    negative = 255 - plain[middle][:3].astype(int)
    assert np.abs(found[middle][:3] - negative).max() < 60
    assert np.array_equal(found[:, :, 3:], plain[:, :, 3:])
    corners = changed[: size[1] // 8, : size[0] // 8]
    assert not corners.any()


@pytest.mark.first(0)
@pytest.mark.parametrize("model", UpscalingModel)
def test_faces_are_pasted_into_what_any_model_makes(
    model: UpscalingModel, monkeypatch: pytest.MonkeyPatch, photo: Pixels
) -> None:
    """Networks of full size, with weights of any kind."""
    monkeypatch.setattr("upscaler.engine.pool.load_faces", lambda *_: face_nets.nets())
    read = {model: Loaded(networks.network(MODELS[model]), "00")}
    engines = EnginePool(Settings(device=Device.CPU), read)
    pixels, size = photo[100:196, 100:196], (150, 150)
    plain = list(engines.upscale(pixels, model, size))
    _, strips = engines.enhance_faces(pixels, size, [strip.copy() for strip in plain])
    changed = (np.concatenate(list(strips)) != np.concatenate(plain)).any(axis=2)
    assert 0.1 < changed.mean() < 0.8
    assert not changed[0].any()


def test_a_strength_of_nothing_changes_nothing(engines: EnginePool, photo: Pixels) -> None:
    pixels = photo[60:188, 80:240]
    _, strips = engines.enhance_faces(pixels, (160, 128), [pixels.copy()], strength=0)
    assert np.array_equal(np.concatenate(list(strips)), pixels)


def test_a_limit_of_memory_is_that_of_faces_too(
    monkeypatch: pytest.MonkeyPatch, photo: Pixels
) -> None:
    monkeypatch.setattr("upscaler.engine.pool.load_faces", lambda *_: face_nets.nets())
    engines = EnginePool(Settings(device=Device.CPU, memory=2**26))
    with pytest.raises(OutOfMemory, match="face_enhance"):
        engines.enhance_faces(photo, (304, 256), [photo])
