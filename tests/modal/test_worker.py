"""What a GPU container does in its life, here on a CPU and with three models of random weights."""

import asyncio
import base64
import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from modal.exception import ConnectionError as Unanswered
from PIL import Image

from tests.support import face_nets
from tests.support.checkpoints import pickled, tensors
from tests.support.paths import PHOTO
from tests.support.raw_http import PATIENCE_S
from tests.support.s3 import bucket_at
from tests.support.service import Resizer
from tests.support.stub_servers import in_turn, stub_server
from upscaler.api.sizes import Size
from upscaler.engine.engine import Engine
from upscaler.engine.faces.restoration import FaceNets
from upscaler.engine.pool import EnginePool
from upscaler.errors import DeviceUnavailable, InvalidRequest, NotStored, OutOfMemory, RemoteFailed
from upscaler.formats import ImageEncoding
from upscaler.imaging.encode import encode
from upscaler.imaging.pixels import Pixels
from upscaler.modal import worker as module
from upscaler.modal.backend import from_payload
from upscaler.modal.config import FRONT_QUEUE
from upscaler.modal.payload import CallState, ResultPayload
from upscaler.modal.worker import OwnGPU, Worker
from upscaler.models import MODELS, UpscalingModel
from upscaler.service.backend import Progress, StageTimer, UpscaleJob

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
def test_waking_up_has_all_models_on_the_device_and_a_picture_made_by_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("UPSCALER_WEIGHTS", str(folder))
    monkeypatch.setenv("UPSCALER_DEVICE", "cpu")
    monkeypatch.setattr("upscaler.engine.pool.WARM_UP_PX", 16)
    tried: list[tuple[UpscalingModel, Size]] = []
    upscale = EnginePool.upscale

    def noting(self: EnginePool, pixels: Pixels, model: UpscalingModel, *args: Any) -> Any:
        assert pixels.shape == (16, 16, 3)
        tried.append((model, args[0]))
        return upscale(self, pixels, model, *args)

    monkeypatch.setattr(EnginePool, "upscale", noting)
    worker = Worker()
    worker.load_weights()
    monkeypatch.setattr("upscaler.engine.weights.load", forbidden)
    with caplog.at_level(logging.INFO):
        worker.start()
    assert worker.engines._loaded.keys() == set(UpscalingModel)
    native = {(name, (16 * spec.scale,) * 2) for name, spec in MODELS.items()}
    assert sorted(tried) == sorted([*native, (UpscalingModel.X4_PLUS, (16, 16))])
    (line,) = [record for record in caplog.records if "cold start: awake" in record.message]
    assert vars(line)["device"] == worker.device == "cpu"
    assert vars(line)["to_device_s"] > 0
    assert vars(line)["warm_up_s"] > 0


def test_a_device_that_is_not_there_ends_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same process it would never be found: torch looks for CUDA's library once."""
    asked = []

    def engines(*_: object) -> NoReturn:
        asked.append(1)
        raise DeviceUnavailable("torch finds no cuda device here")

    monkeypatch.setattr(module, "EnginePool", engines)
    with pytest.raises(DeviceUnavailable):
        Worker().start()
    assert asked == [1]


@pytest.mark.slow
def test_what_the_service_gets_is_what_the_engine_makes(awake: Worker, photo: Pixels) -> None:
    delivery = asyncio.run(awake.make(SOURCE, FAST.value, (400, 300), "png", as_file=True))
    expected = np.concatenate(list(awake.engines.upscale(photo, FAST, (400, 300))))
    assert b"".join(delivery["file"]) == encode(expected, ImageEncoding.PNG)
    assert json.dumps({**delivery, "file": None}), "plain values"
    made = from_payload(delivery)
    assert (made.model, made.encoding, made.as_file) == (FAST, ImageEncoding.PNG, True)
    assert (made.input_size, made.size) == ((304, 256), (400, 300))
    assert made.weights_sha256 == awake.engines.load(FAST)
    assert made.seconds.keys() == StageTimer().seconds.keys()
    assert min(made.seconds["decode"], made.seconds["infer"]) > 0


def test_faces_are_restored_by_models_that_are_loaded_when_first_needed(
    awake: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def load(*_: object) -> FaceNets:
        time.sleep(0.05)
        loaded.append(1)
        return face_nets.nets()

    monkeypatch.setattr("upscaler.engine.pool.load_faces", load)
    monkeypatch.setattr(awake.engines, "_faces", None)

    def made(face_enhance: bool) -> ResultPayload:
        task = (SOURCE, FAST.value, (61, 51), "png", True)
        return asyncio.run(awake.make(*task, None, face_enhance))

    plain, enhanced = made(face_enhance=False), made(face_enhance=True)
    assert (plain["faces"], enhanced["faces"]) == (None, 1)
    assert enhanced["seconds"]["load"] >= 0.05
    assert plain["file"] != enhanced["file"]
    made(face_enhance=True)
    fields = {"scale": 0.2, "model": FAST, "face_enhance": True}
    assert asyncio.run(awake.upscale(1, SOURCE, fields))["file"] == enhanced["file"]
    assert loaded == [1]


def test_all_images_are_computed_in_the_thread_of_the_device(
    awake: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    strips = Engine.strips

    def noting(self: Engine, *args: Any, **options: Any) -> Any:
        seen.append(threading.get_ident())
        return strips(self, *args, **options)

    monkeypatch.setattr(Engine, "strips", noting)
    for _ in range(2):
        asyncio.run(awake.make(SOURCE, FAST.value, (30, 20), "jpeg", as_file=True))
    assert seen == [awake.engines._thread.run(threading.get_ident)] * 2


def test_a_terminal_gets_a_file_of_the_size_that_its_fields_ask_for(awake: Worker) -> None:
    fields = FIELDS | {"output_image_encoding": "jpeg"}
    outcome = asyncio.run(awake.upscale(7, SOURCE, fields))
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
    outcome = asyncio.run(awake.upscale(7, source, FIELDS | fields))
    assert words in str(outcome["error"])
    assert (outcome["key"], outcome["file"]) == (7, [])


@pytest.mark.parametrize("error", [OutOfMemory("far too large"), InvalidRequest()])
def test_an_error_of_ours_goes_back_as_it_is(
    awake: Worker, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awake.engines, "upscale", raising(error))
    with pytest.raises(type(error)):
        asyncio.run(awake.make(SOURCE, FAST.value, (400, 300), "png", as_file=False))


def test_any_other_goes_back_as_text_and_is_logged_with_its_frames(
    awake: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it goes there is no torch, whose errors could not even be read."""
    error = torch.OutOfMemoryError("CUDA is out of it")
    monkeypatch.setattr(awake.engines, "upscale", raising(error))
    with pytest.raises(RemoteFailed, match="OutOfMemoryError: CUDA is out of it") as failure:
        asyncio.run(awake.make(SOURCE, FAST.value, (400, 300), "png", as_file=False))
    assert failure.value.__cause__ is None
    assert "Traceback" in caplog.text
    assert "CUDA is out of it" in str(asyncio.run(awake.upscale(1, SOURCE, FIELDS))["error"])


def raising(error: Exception) -> Any:
    def raise_it(*_: object) -> NoReturn:
        raise error

    return raise_it


class Paced(Resizer):
    """Makes rows one by one, and each only once `pace` is released; `began` has sizes, in order."""

    device_name = "cpu"

    def __init__(self) -> None:
        self.pace = threading.Semaphore(0)
        self.began: list[Size] = []
        self.rows = 0

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterator[Pixels]:
        self.began.append(size)
        for row in np.concatenate(list(super().upscale(pixels, model, size, progress))):
            assert self.pace.acquire(timeout=PATIENCE_S)
            self.rows += 1
            yield row[None]


@pytest.fixture
def paced() -> tuple[Worker, Paced]:
    worker, engines = Worker(), Paced()
    worker._engines = engines  # type: ignore[assignment]
    return worker, engines


def test_one_picture_at_a_time_is_upscaled_and_one_given_up_is_not_begun(
    paced: tuple[Worker, Paced],
) -> None:
    worker, engines = paced
    sizes = [(304, 256), (304, 257), (304, 258)]

    def make(size: Size) -> asyncio.Task[ResultPayload]:
        return asyncio.create_task(worker.make(SOURCE, FAST.value, size, "jpeg", as_file=True))

    async def act() -> None:
        made = [make(sizes[0])]
        await until(lambda: engines.began == sizes[:1])
        made.append(make(sizes[1]))
        await until(lambda: worker._gpu._work_queue.qsize() == 1)
        made[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await made[1]
        assert engines.began == sizes[:1]
        made.append(make(sizes[2]))
        await until(lambda: worker._gpu._work_queue.qsize() == 2)
        engines.pace.release(256 + 258)
        assert [(await each)["size"] for each in (made[0], made[2])] == [sizes[0], sizes[2]]
        assert engines.began == [sizes[0], sizes[2]]

    asyncio.run(act())


def test_beside_the_service_calls_take_turns_with_its_own_pictures(
    paced: tuple[Worker, Paced],
) -> None:
    worker, engines = paced
    sizes = [(304, 256 + n) for n in range(FRONT_QUEUE)]
    own = UpscaleJob(SOURCE, np.zeros((8, 8, 3), np.uint8), FAST, (16, 16), ImageEncoding.PNG)

    async def act() -> None:
        calls = []
        for size in sizes:
            assert worker.has_room()
            calls.append(
                asyncio.create_task(worker.make(SOURCE, FAST.value, size, "jpeg", as_file=True))
            )
            await until(lambda: worker._calls == len(calls))
        assert not worker.has_room()
        # One is being upscaled, and another is decoded: no more, however many wait.
        await until(lambda: worker._gpu._work_queue.qsize() == 1)
        timer = StageTimer()
        making = asyncio.create_task(OwnGPU(worker).make(own, timer))
        await until(lambda: worker._gpu._work_queue.qsize() == 2)
        engines.pace.release(256 + 257 + 16)
        result = await making
        assert result.size == (16, 16)
        assert sorted(engines.began)[:3] == [(16, 16), *sizes[:2]]
        assert result.seconds["queue"] > result.seconds["infer"] + result.seconds["encode"]
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert worker.has_room()
        engines.pace.release(300)

    asyncio.run(act())


def test_a_picture_given_up_ends_within_a_strip(paced: tuple[Worker, Paced]) -> None:
    worker, engines = paced

    async def act() -> None:
        made = asyncio.create_task(worker.make(SOURCE, FAST.value, (304, 256), "png", as_file=True))
        engines.pace.release(10)
        await until(lambda: engines.rows == 10)
        made.cancel()
        with pytest.raises(asyncio.CancelledError):
            await made
        engines.pace.release(246)
        await asyncio.to_thread(worker._gpu.submit(int).result)
        assert engines.rows == 11

    asyncio.run(act())


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("required", [True, False])
def test_a_result_is_uploaded_if_there_is_a_place_for_it(
    paced: tuple[Worker, Paced], *, required: bool, status: int
) -> None:
    worker, engines = paced
    engines.pace.release(256)
    with stub_server(in_turn((status, {}, b""))) as stub:
        upload = bucket_at(stub.url).upload(required=required)
        making = worker.make(SOURCE, FAST.value, (304, 256), "jpeg", False, upload)
        if status == 403 and required:
            with pytest.raises(NotStored, match="403"):
                asyncio.run(making)
            return
        payload = asyncio.run(making)
        (put,) = stub.seen
    image = base64.b64decode(json.loads(put.body)["image_b64"])
    assert Image.open(io.BytesIO(image)).size == (304, 256)
    if status == 200:
        assert payload["file"] == []
        assert payload["stored"] == {"get_url": upload["get_url"], "size_bytes": len(put.body)}
        assert json.dumps(payload), "plain values"
    else:
        assert b"".join(payload["file"]) == image
        assert "stored" not in payload


@pytest.mark.parametrize("error", [None, OutOfMemory("far too large")])
def test_how_far_a_call_is_is_written_before_its_result_is_there(
    paced: tuple[Worker, Paced], monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    worker, engines = paced
    engines.pace.release(256)
    monkeypatch.setattr("modal.current_function_call_id", lambda: "fc-1")
    if error:
        monkeypatch.setattr(engines, "upscale", raising(error))
    written: list[CallState] = []

    async def put(call_id: str, state: CallState) -> None:
        assert call_id == "fc-1"
        written.append(state)
        if not state["completed"]:
            raise Unanswered("not now")

    worker._states = SimpleNamespace(put=put)  # type: ignore[assignment]
    making = worker.make(SOURCE, FAST.value, (304, 256), "jpeg", as_file=True)
    if error:
        with pytest.raises(type(error)):
            asyncio.run(making)
        file_bytes = 0
    else:
        file_bytes = sum(map(len, asyncio.run(making)["file"]))
    assert written[-1]["completed"]
    assert written[-1]["file_bytes"] == file_bytes
    assert not any(each["completed"] or each["file_bytes"] for each in written[:-1])


def test_a_store_of_states_that_does_not_answer_stops_no_picture(
    paced: tuple[Worker, Paced], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, engines = paced
    engines.pace.release(256)
    monkeypatch.setattr("modal.current_function_call_id", lambda: "fc-1")
    monkeypatch.setattr(module, "NOTE_S", 0.01)
    asked: list[CallState] = []

    async def put(_: str, state: CallState) -> None:
        asked.append(state)
        await asyncio.Event().wait()

    worker._states = SimpleNamespace(put=put)  # type: ignore[assignment]
    making = worker.make(SOURCE, FAST.value, (304, 256), "jpeg", as_file=True)
    assert asyncio.run(asyncio.wait_for(making, PATIENCE_S))["size"] == (304, 256)
    assert [each["completed"] for each in asked] == [False, True]
