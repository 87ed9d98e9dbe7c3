"""The work of a GPU container: load the weights, start, and upscale images.

Modal takes a snapshot of its memory after the first step, and later containers start from that. So
`load_weights` must not touch the GPU: CUDA state in a snapshot would belong to another device.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import modal
import psutil

from upscaler.api.request import validate_request
from upscaler.api.sizes import Size, output_size
from upscaler.engine import weights
from upscaler.engine.pool import EnginePool
from upscaler.errors import RemoteFailed, UpscalerError
from upscaler.formats import ImageEncoding
from upscaler.imaging import decode
from upscaler.imaging.pixels import Pixels
from upscaler.modal import bucket
from upscaler.modal.backend import FIRST_GUESS_FLOPS, NO_ANSWER, to_payload
from upscaler.modal.config import FRONT_QUEUE, GPU_INPUTS
from upscaler.modal.payload import CallState, FileResult, ResultPayload, Upload
from upscaler.modal.states import States
from upscaler.models import MODELS, UpscalingModel
from upscaler.service.backend import StageTimer, UpscaleJob, UpscaleResult, run_job
from upscaler.settings import Settings

PROGRESS_S: Final = 1.0
"""How often it is written how far a call is."""
NOTE_S: Final = 3.0
"""How long a picture waits for its state to be written, which Modal's client itself never gives up.
"""

log = logging.getLogger(__name__)


class Worker:
    """All models on the GPU of one container: call `load_weights`, then `start`, then the rest.

    It may be given several images, and decodes one while it upscales another and while Modal's
    client uploads the result of a third. It upscales one at a time: the GPU's memory holds one.
    """

    def __init__(self, states: States | None = None) -> None:
        """Write a CallState of each call of `make` to `states`, if there are any."""
        self.settings = Settings.from_environment()
        self._states = states
        self._weights: dict[UpscalingModel, weights.Loaded] = {}
        self._engines: EnginePool | None = None
        self._calls = 0  # of `make`, that have come and not ended
        # Where a container also serves the API, far more calls may come than it should decode.
        self._turn = asyncio.Semaphore(GPU_INPUTS)
        # One image at a time, with its encoding. The network itself has its device's thread.
        self._gpu = ThreadPoolExecutor(1, "gpu")

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
        self.engines.warm_up()
        warm_s = time.perf_counter()
        times = {"to_device_s": moved_s - began_s, "warm_up_s": warm_s - moved_s}
        _log_times("awake", **times, device=self.device)

    def move_to_device(self) -> None:
        """Move all weights to the device. Raises DeviceUnavailable, which ends the container.

        Another container may find it: this process looks for CUDA's library only once.
        """
        self._engines = EnginePool(self.settings, self._weights)
        for model in UpscalingModel:
            self._engines.load(model)

    def end(self) -> None:
        """End the threads of the GPU, for which Modal would wait half a minute."""
        self._gpu.shutdown(wait=False, cancel_futures=True)
        if self._engines:
            self._engines.close()

    @property
    def engines(self) -> EnginePool:
        assert self._engines, "call start() first"
        return self._engines

    @property
    def device(self) -> str:
        """The name of the GPU."""
        return self.engines.device_name

    def has_room(self) -> bool:
        """Whether more calls of `make` may come: each takes the place of a request."""
        return self._calls < FRONT_QUEUE

    async def make(  # noqa: PLR0917  in the order of `backend.arguments`
        self,
        source: bytes,
        model: str,
        size: Size,
        encoding: str,
        as_file: bool,
        upload: Upload | None = None,
        face_enhance: bool = False,
    ) -> ResultPayload:
        """Run one of the service's jobs; the arguments are those of `backend.arguments`."""

        def prepare(timer: StageTimer) -> UpscaleJob:
            # The front has decoded it to validate it, but sends the file, which is smaller.
            with timer.stage("decode"):
                pixels = decode.read_header(source).pixels()
            return UpscaleJob(
                *(source, pixels, UpscalingModel(model), size, ImageEncoding(encoding), as_file),
                face_enhance=face_enhance,
            )

        file_bytes = 0
        self._calls += 1
        try:
            async with self._turn:
                timer = StageTimer()
                noting = asyncio.create_task(self._note_progress(timer))
                try:
                    payload = await self._payload(prepare, timer, upload)
                    file_bytes = sum(map(len, payload["file"]))
                finally:
                    noting.cancel()
                    await asyncio.gather(noting, return_exceptions=True)
        finally:
            self._calls -= 1
            await self._note(completed=True, file_bytes=file_bytes)
        return payload

    async def upscale(self, key: int, source: bytes, fields: Mapping[str, object]) -> FileResult:
        """Upscale a file as a request with these fields would; errors are returned as text.

        Errors are for the user who sent the file, who can fix most of them.
        """

        def prepare(timer: StageTimer) -> UpscaleJob:
            request = validate_request({**fields, "init_image": source})
            with timer.stage("decode"):
                image = decode.read_header(source)
                size = output_size(request, image.size)
                pixels = image.pixels()
            return UpscaleJob(
                *(source, pixels, request.model, size, request.output_image_encoding),
                face_enhance=request.face_enhance,
            )

        result: FileResult = {
            "key": key, "error": None, "file": [], "size": (0, 0), "seconds": 0.0,
            "device": self.device,
        }  # fmt: skip
        try:
            async with self._turn:
                payload = await self._payload(prepare, StageTimer())
        except UpscalerError as error:
            return {**result, "error": str(error)}
        seconds = sum(payload["seconds"].values())
        return {**result, "file": payload["file"], "size": payload["size"], "seconds": seconds}

    async def _payload(
        self,
        prepare: Callable[[StageTimer], UpscaleJob],
        timer: StageTimer,
        upload: Upload | None = None,
    ) -> ResultPayload:
        """The payload of a job's result: see `run`. With an `upload` it may only say where that is.

        Raises UpscalerErrors, and RemoteFailed for any other, which has the error as text: its
        receiver has no torch to unpickle the original with.
        """
        try:
            result = await self.run(await asyncio.to_thread(prepare, timer), timer)
            stored = await bucket.put(result, upload) if upload else None
        except UpscalerError:
            raise
        except Exception as error:
            log.exception("an image failed")
            # `from None`, or the original error would be pickled as its cause.
            raise RemoteFailed(f"{type(error).__name__}: {error}") from None
        return to_payload(result, self.device, stored)

    async def run(self, job: UpscaleJob, timer: StageTimer) -> UpscaleResult:
        """Run a job when its turn comes. On cancellation it does not begin, or stops soon."""
        stopped = threading.Event()
        try:
            # The future is in no variable: an error's frames would hold it, and it the error.
            return await asyncio.wrap_future(self._gpu.submit(self._run, job, timer, stopped))
        finally:
            stopped.set()

    def _run(self, job: UpscaleJob, timer: StageTimer, stopped: threading.Event) -> UpscaleResult:
        with timer.stage("load"):
            digest = self.engines.load(job.model)
            if job.face_enhance:
                # Not before: in a snapshot they would make every start slower.
                self.engines.load_faces()
        return run_job(self.engines, job, digest, timer, stopped)

    async def _note_progress(self, timer: StageTimer) -> None:
        """Write how far the current call is, now and then, until this is cancelled."""
        since_s, done = time.time(), -1.0
        while True:
            if timer.done != done:
                done = timer.done
                await self._note(completed=False, since_s=since_s, done=done)
            await asyncio.sleep(PROGRESS_S)

    async def _note(
        self,
        *,
        completed: bool,
        file_bytes: int = 0,
        since_s: float | None = None,
        done: float = 0.0,
    ) -> None:
        """Write how far the current call is. Without it the front has to ask Modal."""
        call_id = modal.current_function_call_id()
        if self._states is None or call_id is None:
            return
        state = CallState(
            completed=completed,
            file_bytes=file_bytes,
            since_s=time.time() if since_s is None else since_s,
            done=done,
        )
        try:
            async with asyncio.timeout(NOTE_S):
                await self._states.put(call_id, state)
        except NO_ANSWER:
            log.exception("the state of a call could not be written")


class OwnGPU:
    """A backend for the service on the GPU of this container, which `make` is called in as well."""

    face_enhance = True
    at_once = 1
    first_guess_flops = FIRST_GUESS_FLOPS

    def __init__(self, worker: Worker) -> None:
        self.bands = worker.engines.bands
        self.kernels = worker.engines.kernels
        self._run = worker.run

    def held_bytes(self, _file_bytes: int, /) -> int:
        """Nothing: files are made here."""
        return 0

    async def load(self, model: UpscalingModel) -> None:
        """Do nothing: the worker has loaded all models."""

    async def load_faces(self) -> None:
        """Do nothing: the worker loads what restores faces with its first job that needs it."""

    async def find_faces(self, _pixels: Pixels, /) -> None:
        """Find nothing: the worker finds faces with the job."""

    async def make(self, job: UpscaleJob, timer: StageTimer) -> UpscaleResult:
        """Run a job; what it waits for calls of `make` counts as the stage `queue`."""
        began_s, before_s = time.perf_counter(), sum(timer.seconds.values())
        result = await self._run(job, timer)
        worked_s = sum(timer.seconds.values()) - before_s
        timer.seconds["queue"] += max(0.0, time.perf_counter() - began_s - worked_s)
        return result


def _log_times(event: str, **facts: float | str) -> None:
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in facts.items()}
    log.info("cold start: %s", event, extra=rounded)
