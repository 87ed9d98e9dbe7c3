"""The work of a GPU container: load the weights, start, and upscale images.

Modal takes a snapshot of its memory after the first step, and later containers start from that. So
`load_weights` must not touch the GPU: CUDA state in a snapshot would belong to another device.
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

START_TRIES: Final = 3
START_PAUSE_S: Final = 1.0
"""How often and after what pause to retry: in a new container CUDA may not be ready yet."""
WARM_UP_PX: Final = 256
"""The side of the warm-up image: the first image on a GPU waits for kernels to be loaded."""

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Worker:
    """All models on the GPU of one container: call `load_weights`, then `start`, then the rest."""

    def __init__(self) -> None:
        self.settings = Settings.from_environment()
        self._weights: dict[UpscalingModel, weights.Loaded] = {}
        self._engines: EnginePool | None = None

    def load_weights(self) -> None:
        """Load all weights into CPU memory, and log how long that and the imports took."""
        began_s = time.perf_counter()
        imports_s = time.time() - psutil.Process().create_time()  # what this process did so far
        for spec in MODELS.values():
            self._weights[spec.name] = weights.load(spec, self.settings.weights)
        _log_times("read", imports_s=imports_s, weights_s=time.perf_counter() - began_s)

    def start(self) -> None:
        """Move the models to the device and warm up; log how long that took."""
        began_s = time.perf_counter()
        self.move_to_device()
        moved_s = time.perf_counter()
        self.warm_up()
        warm_s = time.perf_counter()
        times = {"to_device_s": moved_s - began_s, "warm_up_s": warm_s - moved_s}
        _log_times("awake", **times, device=self.device)

    def move_to_device(self) -> None:
        """Move all weights to the device. Raises DeviceUnavailable if none appears in time."""
        self._engines = _retry_without_device(lambda: EnginePool(self.settings, self._weights))
        for model in UpscalingModel:
            self._engines.load(model)

    def warm_up(self) -> None:
        """Run a warm-up image of WARM_UP_PX a side."""
        pixels = np.zeros((WARM_UP_PX, WARM_UP_PX, 3), np.uint8)
        side = WARM_UP_PX * MODELS[UpscalingModel.X4_PLUS].scale
        task = UpscaleJob(b"", pixels, UpscalingModel.X4_PLUS, (side, side), ImageEncoding.PNG)
        self._run(task, StageTimer())

    @property
    def engines(self) -> EnginePool:
        assert self._engines, "call start() first"
        return self._engines

    @property
    def device(self) -> str:
        """The name of the GPU."""
        return self.engines.device_name

    def make(
        self, source: bytes, model: str, size: Size, encoding: str, as_file: bool
    ) -> ResultPayload:
        """Run one of the service's jobs; the arguments are those of `backend.arguments`."""

        def work(timer: StageTimer) -> UpscaleResult:
            # The front has decoded it to validate it, but sends the file, which is smaller.
            with timer.stage("decode"):
                pixels = decode.read_header(source).pixels()
            task = UpscaleJob(
                source, pixels, UpscalingModel(model), size, ImageEncoding(encoding), as_file
            )
            return self._run(task, timer)

        return self._payload(work)

    def upscale(self, key: int, source: bytes, fields: Mapping[str, object]) -> FileResult:
        """Upscale a file as a request with these fields would; errors are returned as text.

        Errors are for the user who sent the file, who can fix most of them.
        """

        def work(timer: StageTimer) -> UpscaleResult:
            request = validate_request({**fields, "init_image": source})
            with timer.stage("decode"):
                image = decode.read_header(source)
                size = output_size(request, image.size)
                pixels = image.pixels()
            task = UpscaleJob(source, pixels, request.model, size, request.output_image_encoding)
            return self._run(task, timer)

        result: FileResult = {
            "key": key, "error": None, "file": [], "size": (0, 0), "seconds": 0.0,
            "device": self.device,
        }  # fmt: skip
        try:
            payload = self._payload(work)
        except UpscalerError as error:
            return {**result, "error": str(error)}
        seconds = sum(payload["seconds"].values())
        return {**result, "file": payload["file"], "size": payload["size"], "seconds": seconds}

    def _run(self, task: UpscaleJob, timer: StageTimer) -> UpscaleResult:
        with timer.stage("load"):
            digest = self.engines.load(task.model)
        return run_job(self.engines, task, digest, timer)

    def _payload(self, work: Callable[[StageTimer], UpscaleResult]) -> ResultPayload:
        """The payload of `work`'s result. Raises UpscalerErrors, and RemoteFailed for any other.

        RemoteFailed has the error as text: its receiver has no torch to unpickle the original with.
        """
        try:
            result = work(StageTimer())
        except UpscalerError:
            raise
        except Exception as error:
            log.exception("an image failed")
            # `from None`, or the original error would be pickled as its cause.
            raise RemoteFailed(f"{type(error).__name__}: {error}") from None
        return to_payload(result, self.device)


def _retry_without_device(work: Callable[[], Result]) -> Result:
    """The result of `work`, which is retried while it raises DeviceUnavailable."""
    for _ in range(START_TRIES - 1):
        try:
            return work()
        except DeviceUnavailable as error:
            log.warning("%s; retrying", error)
            time.sleep(START_PAUSE_S)
    return work()


def _log_times(event: str, **facts: float | str) -> None:
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in facts.items()}
    log.info("cold start: %s", event, extra=rounded)
