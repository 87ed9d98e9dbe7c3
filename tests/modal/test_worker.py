"""What a GPU container does in its life, here on a CPU and with three models of random weights."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.checkpoints import pickled, tensors
from tests.support.paths import PHOTO
from upscaler.engine.pool import EnginePool
from upscaler.errors import DeviceUnavailable, InvalidRequest, OutOfMemory, RemoteFailed
from upscaler.formats import ImageEncoding
from upscaler.imaging.encode import encode
from upscaler.imaging.pixels import Pixels
from upscaler.modal import worker as module
from upscaler.modal.backend import from_payload
from upscaler.modal.worker import Worker
from upscaler.models import MODELS, UpscalingModel
from upscaler.service.backend import StageTimer
from upscaler.settings import Settings

pytestmark = pytest.mark.torch

FAST = UpscalingModel.ANIMEVIDEO_V3
SOURCE = PHOTO.read_bytes()
FIELDS: dict[str, object] = {"scale": 2, "model": FAST.value}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All six models; those that no package has, with random weights that keep numbers small."""
    folder = tmp_path_factory.mktemp("weights")
    for spec in MODELS.values():
        if not spec.ncnn:
            content = {name: 0.01 * each for name, each in tensors(1, spec.network).items()}
            (folder / spec.official.filename).write_bytes(pickled({"params_ema": content}))
    return folder


@pytest.fixture(scope="module")
def awake(folder: Path) -> Iterator[Worker]:
    """A worker that has not been warmed up, which takes longer than all of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPSCALER_WEIGHTS", str(folder))
        patch.setenv("UPSCALER_DEVICE", "cpu")
        worker = Worker()
        worker.load_weights()
        worker.move_to_device()
        yield worker


def forbidden(*_: object, **__: object) -> NoReturn:
    raise AssertionError("a snapshot is taken of this")


def test_reading_leaves_cuda_alone_and_has_all_six(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("UPSCALER_WEIGHTS", str(folder))
    for name in ("is_available", "device_count", "init", "_lazy_init", "mem_get_info"):
        monkeypatch.setattr(torch.cuda, name, forbidden)
    worker = Worker()
    with caplog.at_level(logging.INFO):
        worker.load_weights()
    assert worker._weights.keys() == set(UpscalingModel)
    devices = {
        each.device.type for read in worker._weights.values() for each in read.net.parameters()
    }
    assert devices == {"cpu"}
    (line,) = [record for record in caplog.records if "cold start: read" in record.message]
    assert vars(line)["imports_s"] > 0
    assert vars(line)["weights_s"] > 0


@pytest.mark.slow
def test_waking_up_has_all_models_on_the_device_and_one_picture_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("UPSCALER_WEIGHTS", str(folder))
    monkeypatch.setenv("UPSCALER_DEVICE", "cpu")
    monkeypatch.setattr(module, "WARM_UP_PX", 32)
    sizes: list[tuple[int, int]] = []
    upscale = EnginePool.upscale

    def noting(self: EnginePool, pixels: Pixels, model: UpscalingModel, *args: Any) -> Any:
        sizes.append(pixels.shape[:2])
        assert model is UpscalingModel.X4_PLUS
        return upscale(self, pixels, model, *args)

    monkeypatch.setattr(EnginePool, "upscale", noting)
    worker = Worker()
    worker.load_weights()
    monkeypatch.setattr("upscaler.engine.weights.load", forbidden)
    with caplog.at_level(logging.INFO):
        worker.start()
    assert worker.engines._loaded.keys() == set(UpscalingModel)
    assert sizes == [(32, 32)]
    (line,) = [record for record in caplog.records if "cold start: awake" in record.message]
    assert vars(line)["device"] == worker.device == "cpu"
    assert vars(line)["to_device_s"] > 0
    assert vars(line)["warm_up_s"] > 0


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_a_device_that_is_not_there_yet_is_tried_again(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_PAUSE_S", 0.0)
    asked = []

    def engines(settings: Settings, read: object) -> str:
        asked.append(read)
        if len(asked) <= failures:
            raise DeviceUnavailable("torch finds no cuda device here")
        return "engines"

    def attempt() -> str:
        return module._retry_without_device(lambda: engines(Settings(), None))

    if failures < module.START_TRIES:
        assert attempt() == "engines"
        assert len(asked) == failures + 1
    else:
        with pytest.raises(DeviceUnavailable):
            attempt()
        assert len(asked) == module.START_TRIES


@pytest.mark.slow
def test_what_the_service_gets_is_what_the_engine_makes(awake: Worker, photo: Pixels) -> None:
    delivery = awake.make(SOURCE, FAST.value, (400, 300), "png", as_file=True)
    expected = np.concatenate(list(awake.engines.upscale(photo, FAST, (400, 300))))
    assert b"".join(delivery["file"]) == encode(expected, ImageEncoding.PNG)
    assert json.dumps({**delivery, "file": None}), "plain values"
    made = from_payload(delivery)
    assert (made.model, made.encoding, made.as_file) == (FAST, ImageEncoding.PNG, True)
    assert (made.input_size, made.size) == ((304, 256), (400, 300))
    assert made.weights_sha256 == awake.engines.load(FAST)
    assert made.seconds.keys() == StageTimer().seconds.keys()
    assert min(made.seconds["decode"], made.seconds["infer"]) > 0


def test_a_terminal_gets_a_file_of_the_size_that_its_fields_ask_for(awake: Worker) -> None:
    outcome = awake.upscale(7, SOURCE, FIELDS | {"output_image_encoding": "jpeg"})
    assert (outcome["key"], outcome["error"], outcome["size"]) == (7, None, (608, 512))
    image = Image.open(io.BytesIO(b"".join(outcome["file"])))
    assert (image.format, image.size) == ("JPEG", (608, 512))
    assert outcome["seconds"] > 0
    assert outcome["device"] == "cpu"


@pytest.mark.parametrize(
    ("source", "fields", "words"),
    [
        (SOURCE[:40_000], {}, "cut off after row"),
        (b"no picture", {}, "not a PNG, JPEG or WebP"),
        (SOURCE, {"scale": 99}, "at most 8192 pixels"),
        (SOURCE, {"scale": None}, "exactly one of scale"),
        (SOURCE, {"model": "esrgan"}, "real-esrgan-x4-plus"),
    ],
)
def test_a_terminal_is_told_what_is_wrong_with_a_picture(
    awake: Worker, source: bytes, fields: dict[str, object], words: str
) -> None:
    outcome = awake.upscale(7, source, FIELDS | fields)
    assert words in str(outcome["error"])
    assert (outcome["key"], outcome["file"]) == (7, [])


@pytest.mark.parametrize("error", [OutOfMemory("far too large"), InvalidRequest()])
def test_an_error_of_ours_goes_back_as_it_is(
    awake: Worker, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awake.engines, "upscale", raising(error))
    with pytest.raises(type(error)):
        awake.make(SOURCE, FAST.value, (400, 300), "png", as_file=False)


def test_any_other_goes_back_as_text_and_is_logged_with_its_frames(
    awake: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it goes there is no torch, whose errors could not even be read."""
    error = torch.OutOfMemoryError("CUDA is out of it")
    monkeypatch.setattr(awake.engines, "upscale", raising(error))
    with pytest.raises(RemoteFailed, match="OutOfMemoryError: CUDA is out of it") as failure:
        awake.make(SOURCE, FAST.value, (400, 300), "png", as_file=False)
    assert failure.value.__cause__ is None
    assert "Traceback" in caplog.text
    assert "CUDA is out of it" in str(awake.upscale(1, SOURCE, FIELDS)["error"])


def raising(error: Exception) -> Any:
    def raise_it(*_: object) -> NoReturn:
        raise error

    return raise_it
