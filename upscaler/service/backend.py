"""From pixels to a picture's file: the line, the network and the encoder, each of them timed.

This is what a request and an asynchronous job have in common once all is validated.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from anyio import to_thread

from upscaler.api.sizes import Size
from upscaler.errors import Busy, Cancelled, let_go
from upscaler.formats import ImageEncoding
from upscaler.imaging.encode import encode_strips
from upscaler.imaging.jpeg_writer import DEFAULT_JPEG, JpegOptions
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, UpscalingModel, flop
from upscaler.service.queue import Admission, QueueSlot

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Called with how many rows are done and how many there are; what it raises ends the work."""

STAGES: Final = ("fetch", "decode", "load", "queue", "infer", "encode")
"""What happens to a request, in this order: its URL is downloaded, the file decoded, the model
loaded, the others' pictures waited for, the rows enlarged, and those encoded. The last is what
encoding takes longer than the rows: both happen at once."""
WORK_STAGES: Final = ("decode", "load", "infer", "encode")
"""The stages in which the machine works for the request."""
FIRST_GUESS_FLOPS: Final = 3e11
"""Operations per second before anything was measured: two cores of docs/PERFORMANCE.md."""


class Upscaler(Protocol):
    """What enlarges pictures in this process. Calls come from worker threads."""

    face_enhance: bool
    """Whether it can honour `face_enhance` (REQ-10)."""

    def load(self, model: UpscalingModel) -> str:
        """Make `model` ready, however long that takes; called before each `upscale`.

        Returns the SHA-256 of the file that its weights are from, in hex.
        """
        ...

    def bands(self, model: UpscalingModel, size: Size, channels: int) -> int:
        """How many pieces a picture of that size is cut into; called for dry runs alone."""
        ...

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        """`pixels` enlarged to exactly `size` (width, height), with as many channels.

        In strips of any number of rows, from top to bottom, each as soon as it is known.
        """
        ...


@dataclass(frozen=True)
class UpscaleJob:
    """What to make: `pixels` (see `images`) at `size` by `model`, as a file in `encoding`.

    `source` is the file that the pixels are from: where another machine does the work, it is
    less to send. `as_file` says that the client wants the file itself, and not JSON around it
    (RES-8).
    """

    source: bytes
    pixels: Pixels
    model: UpscalingModel
    size: Size
    encoding: ImageEncoding
    as_file: bool = False

    @property
    def input_size(self) -> Size:
        height, width, _ = self.pixels.shape
        return width, height

    @property
    def held_bytes(self) -> int:
        """How much memory it takes up."""
        return len(self.source) + self.pixels.nbytes


@dataclass(frozen=True)
class UpscaleResult:
    """What was made of a task: the pieces of the file, and how. `seconds` are by stage."""

    file: list[bytes]
    encoding: ImageEncoding
    as_file: bool
    model: UpscalingModel
    weights_sha256: str
    input_size: Size
    size: Size
    seconds: dict[str, float]

    @property
    def file_bytes(self) -> int:
        return sum(map(len, self.file))


class StageTimer:
    """How long each stage of a request took so far, in seconds; 0 for those not come to."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time from here to the end, whatever the end is, to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started


class Backend(Protocol):
    """What makes files of tasks, here or elsewhere."""

    face_enhance: bool
    """Whether it can honour `face_enhance` (REQ-10)."""
    at_once: int
    """How many tasks it carries out at the same time; the others wait in line."""
    first_guess_flops: float
    """Operations per second, before anything was measured."""

    def bands(self, model: UpscalingModel, size: Size, channels: int) -> int:
        """How many pieces a picture of that size is cut into; called for dry runs alone."""
        ...

    async def load(self, model: UpscalingModel) -> None:
        """Make `model` ready, however long that takes; called before each `make`."""
        ...

    async def make(self, task: UpscaleJob, timer: StageTimer) -> UpscaleResult:
        """Carry a task out and tell `timer` of the stages; cancelled, stop as soon as may be."""
        ...


class LocalBackend:
    """The backend that has the work done by this process: one picture at a time, on every core."""

    at_once = 1
    first_guess_flops = FIRST_GUESS_FLOPS

    def __init__(self, upscaler: Upscaler, jpeg: JpegOptions = DEFAULT_JPEG) -> None:
        self.face_enhance = upscaler.face_enhance
        self.bands = upscaler.bands
        self._upscaler = upscaler
        self._jpeg = jpeg
        # Whoever waits for weights occupies no thread but the one that fetches them.
        self._loading = {model: asyncio.Lock() for model in UpscalingModel}
        self._digests: dict[UpscalingModel, str] = {}

    async def load(self, model: UpscalingModel) -> None:
        """Load the weights, once. Raises WeightsUnavailable."""
        async with self._loading[model]:
            if model not in self._digests:
                load = self._upscaler.load
                self._digests[model] = await to_thread.run_sync(load, model, abandon_on_cancel=True)

    async def make(self, task: UpscaleJob, timer: StageTimer) -> UpscaleResult:
        """Carry a task out in a thread. Cancelled, it stops at the next rows."""
        digest = self._digests[task.model]
        return await _in_thread(
            lambda stopped: run_job(self._upscaler, task, digest, timer, stopped, jpeg=self._jpeg)
        )


def run_job(
    upscaler: Upscaler,
    task: UpscaleJob,
    weights_sha256: str,
    timer: StageTimer,
    stopped: threading.Event | None = None,
    *,
    jpeg: JpegOptions = DEFAULT_JPEG,
) -> UpscaleResult:
    """What comes of a task; its file is encoded while the rows below are still being made.

    The weights must have been loaded. A JPEG is encoded as `jpeg` says. Raises what the upscaler
    raises, and Cancelled at the next rows once `stopped` is set.
    """

    def check(_done: int = 0, _total: int = 0) -> None:
        if stopped and stopped.is_set():
            raise Cancelled("nobody waits for this image any more")

    def strips() -> Iterator[Pixels]:
        began_s = time.perf_counter()
        for strip in upscaler.upscale(task.pixels, task.model, task.size, check):
            timer.seconds["infer"] += time.perf_counter() - began_s
            check()
            yield strip
            began_s = time.perf_counter()
        timer.seconds["infer"] += time.perf_counter() - began_s

    began_s = time.perf_counter()
    file = list(encode_strips(strips(), task.size[1], task.encoding, jpeg))
    timer.seconds["encode"] = time.perf_counter() - began_s - timer.seconds["infer"]
    return UpscaleResult(
        file=file,
        encoding=task.encoding,
        as_file=task.as_file,
        model=task.model,
        weights_sha256=weights_sha256,
        input_size=task.input_size,
        size=task.size,
        seconds=timer.seconds,
    )


class ThroughputEstimator:
    """How fast the models have been here, to tell how long a picture will take."""

    def __init__(self, first_guess_flops: float = FIRST_GUESS_FLOPS) -> None:
        self._flops: dict[UpscalingModel, float] = {}
        self._latest = first_guess_flops

    def estimate_s(self, model: UpscalingModel, size: Size) -> float:
        """How many seconds `model` takes for a picture of `size`, by those it has made before.

        By another model's speed, or even by a guess, before it has made any.
        """
        return flop(MODELS[model], *size) / self._flops.get(model, self._latest)

    def note(self, model: UpscalingModel, size: Size, seconds: float) -> None:
        """Take note of a picture of `size` that took so long."""
        measured = flop(MODELS[model], *size) / max(seconds, 1e-6)
        self._flops[model] = (measured + self._flops.get(model, measured)) / 2
        self._latest = measured


class Scheduler:
    """Where orders are taken and carried out, on top of one backend."""

    def __init__(
        self, backend: Backend, admission: Admission, on_made: Callable[[UpscaleResult], None]
    ) -> None:
        """Carry out what `admission` lets in; `on_made` is told of each picture, once."""
        self.backend = backend
        self.admission = admission
        self.on_made = on_made
        self.pace = ThroughputEstimator(backend.first_guess_flops)

    @contextmanager
    def order(self, task: UpscaleJob, timer: StageTimer) -> Iterator["ScheduledJob"]:
        """Take `task` on, or raise Busy; it has a place in line until the end."""
        estimated_s = self.pace.estimate_s(task.model, task.input_size)
        with self.admission.holding() as memory, self.admission.place(estimated_s) as place:
            memory.reserve(task.held_bytes)
            yield ScheduledJob(self, task, timer, place)


class ScheduledJob:
    """A task that was taken on."""

    def __init__(
        self, scheduler: Scheduler, task: UpscaleJob, timer: StageTimer, place: QueueSlot
    ) -> None:
        self.task = task
        self._workshop = scheduler
        self._timer = timer
        self._place = place

    def busy(self, reason: str) -> Busy:
        """A refusal until the picture that is being made should be done."""
        return self._workshop.admission.busy(reason)

    async def make(self, on_start: Callable[[], None] = lambda: None) -> UpscaleResult:
        """Wait in line, call `on_start`, and have the task carried out.

        Raises whatever the backend raises.
        """
        task, timer = self.task, self._timer
        backend = self._workshop.backend
        with timer.stage("load"):
            await backend.load(task.model)
        began_s = time.perf_counter()
        async with self._place.acquire():
            timer.seconds["queue"] += time.perf_counter() - began_s
            on_start()
            made = await backend.make(task, timer)
        spent_s = timer.seconds["infer"] + timer.seconds["encode"]
        self._workshop.pace.note(task.model, task.input_size, spent_s)
        self._workshop.on_made(made)
        return made


async def _in_thread(work: Callable[[threading.Event], Result]) -> Result:
    """What `work` returns, run in a thread; if this is cancelled, its event is set and awaited.

    So that whatever comes next finds the machine idle.
    """
    stopped = threading.Event()
    running = asyncio.ensure_future(to_thread.run_sync(work, stopped))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stopped.set()
        try:
            await running
        except Cancelled as error:  # as it was told to
            let_go(error)
        except Exception as error:
            log.exception("an image that nobody waits for failed")
            let_go(error)
        raise
    finally:
        del running  # whose error has this frame in its traceback
