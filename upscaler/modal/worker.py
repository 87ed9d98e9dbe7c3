"""What a GPU container does, in the order of its life: read, wake up, and make images.

Modal takes a snapshot of its memory between the first two, and later containers begin with that. So
`load_weights` leaves the GPU alone: CUDA state in a snapshot is of a device that is gone by then.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import numpy as np
import psutil

from upscaler.api.request import validate_request
from upscaler.api.sizes import Size, output_size
from upscaler.engine import weights
from upscaler.engine.pool import EnginePool
from upscaler.errors import DeviceUnavailable, RemoteFailed, UpscalerError
from upscaler.formats import ImageEncoding
from upscaler.imaging import decode
from upscaler.modal.backend import to_payload
from upscaler.modal.payload import FileResult, ResultPayload
from upscaler.models import MODELS, UpscalingModel
from upscaler.service.backend import StageTimer, UpscaleJob, UpscaleResult, run_job
from upscaler.settings import Settings

WAKE_TRIES: Final = 3
WAKE_PAUSE_S: Final = 1.0
"""On a container that has just started CUDA may not answer yet."""
WARM_UP_PX: Final = 256
"""The first image on a GPU waits for its kernels to be loaded and chosen: let it be this."""

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Worker:
    """All models on the GPU of one container: call `load_weights`, then `start`, then the rest."""

    def __init__(self) -> None:
        self.settings = Settings.from_environment()
        self._read: dict[UpscalingModel, weights.Loaded] = {}
        self._engines: EnginePool | None = None

    def load_weights(self) -> None:
        """Have all weights in the CPU's memory, and log how long that and the imports took."""
        began_s = time.perf_counter()
        started_s = time.time() - psutil.Process().create_time()
        for spec in MODELS.values():
            self._read[spec.name] = weights.load(spec, self.settings.weights)
        _log_times("read", imports_s=started_s, weights_s=time.perf_counter() - began_s)

    def start(self) -> None:
        """Make ready for images, and log how long that took."""
        began_s = time.perf_counter()
        self.move_to_device()
        brought_s = time.perf_counter()
        self.warm_up()
        warm_s = time.perf_counter()
        times = {"to_device_s": brought_s - began_s, "warm_up_s": warm_s - brought_s}
        _log_times("awake", **times, device=self.device)

    def move_to_device(self) -> None:
        """Bring all weights to the device. Raises DeviceUnavailable if there is none for long."""
        self._engines = _patiently(lambda: EnginePool(self.settings, self._read))
        for model in UpscalingModel:
            self._engines.load(model)

    def warm_up(self) -> None:
        """Upscale an image for nobody."""
        pixels = np.zeros((WARM_UP_PX, WARM_UP_PX, 3), np.uint8)
        side = WARM_UP_PX * MODELS[UpscalingModel.X4_PLUS].scale
        task = UpscaleJob(b"", pixels, UpscalingModel.X4_PLUS, (side, side), ImageEncoding.PNG)
        self._made(task, StageTimer())

    @property
    def engines(self) -> EnginePool:
        assert self._engines, "a worker wakes up before it works"
        return self._engines

    @property
    def device(self) -> str:
        """The name of what computes."""
        return self.engines.device_name

    def make(
        self, source: bytes, model: str, size: Size, encoding: str, as_file: bool
    ) -> ResultPayload:
        """What the service asks for, in the order of `remote.arguments`: all of it was checked."""

        def work(timer: StageTimer) -> UpscaleResult:
            with timer.stage("decode"):
                pixels = decode.read_header(source).pixels()
            task = UpscaleJob(
                source, pixels, UpscalingModel(model), size, ImageEncoding(encoding), as_file
            )
            return self._made(task, timer)

        return self._delivered(work)

    def upscale(self, key: int, source: bytes, fields: Mapping[str, object]) -> FileResult:
        """A file upscaled as a request with these fields asks for, or why it cannot be.

        The text of an error is for whoever sent the file, who can do something about most of them.
        """

        def work(timer: StageTimer) -> UpscaleResult:
            request = validate_request({**fields, "init_image": source})
            with timer.stage("decode"):
                image = decode.read_header(source)
                size = output_size(request, image.size)
                pixels = image.pixels()
            task = UpscaleJob(source, pixels, request.model, size, request.output_image_encoding)
            return self._made(task, timer)

        outcome: FileResult = {
            "key": key, "error": None, "file": [], "size": (0, 0), "seconds": 0.0,
            "device": self.device,
        }  # fmt: skip
        try:
            made = self._delivered(work)
        except UpscalerError as error:
            return {**outcome, "error": str(error)}
        seconds = sum(made["seconds"].values())
        return {**outcome, "file": made["file"], "size": made["size"], "seconds": seconds}

    def _made(self, task: UpscaleJob, timer: StageTimer) -> UpscaleResult:
        with timer.stage("load"):
            digest = self.engines.load(task.model)
        return run_job(self.engines, task, digest, timer)

    def _delivered(self, work: Callable[[StageTimer], UpscaleResult]) -> ResultPayload:
        """What `work` makes. Raises RemoteFailed for a fault that nobody foresaw.

        That one has the reason as text: where it goes, there is no torch to tell it in its words.
        """
        try:
            made = work(StageTimer())
        except UpscalerError:
            raise
        except Exception as error:
            log.exception("an image failed")
            raise RemoteFailed(f"{type(error).__name__}: {error}") from None
        return to_payload(made, self.device)


def _patiently(work: Callable[[], Result]) -> Result:
    """What `work` returns, tried again while there is no device."""
    for _ in range(WAKE_TRIES - 1):
        try:
            return work()
        except DeviceUnavailable as error:
            log.warning("%s; trying again", error)
            time.sleep(WAKE_PAUSE_S)
    return work()


def _log_times(event: str, **facts: float | str) -> None:
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in facts.items()}
    log.info("cold start: %s", event, extra=rounded)
