"""Runs upscaling jobs, from pixels to an encoded file: queue, network and encoder, each timed.

Synchronous requests and asynchronous jobs share all of this once they are validated.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from time import perf_counter
from typing import Final, Protocol, TypeVar

from anyio import to_thread

from upscaler.api.sizes import Size
from upscaler.errors import Busy, Cancelled, WeightsUnavailable, no_face_model, release_frames
from upscaler.face_models import FINDING_FLOP, RESTORING_FLOP
from upscaler.formats import ImageEncoding
from upscaler.imaging.encode import encode_strips, most_bytes
from upscaler.imaging.jpeg_writer import DEFAULT_JPEG, JpegOptions
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, UpscalingModel, flop
from upscaler.service.preview import Preview
from upscaler.service.queue import Admission, MemoryReservation
from upscaler.settings import KernelUse

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Called with the rows done and the rows in all; an exception that it raises ends the work."""
FaceBox = tuple[int, int, int, int]
"""The left, top, right and bottom of a face, in pixels."""

STAGES: Final = ("fetch", "decode", "load", "queue", "infer", "encode")
"""The stages of a request, in this order: download its URL, decode the file, load the model, wait
for other jobs, upscale the rows, encode them. Upscaling and encoding run at the same time, and
`encode` is only the time by which encoding takes longer."""
WORK_STAGES: Final = ("decode", "load", "infer", "encode")
"""The stages in which the machine works for the request."""
FIRST_GUESS_FLOPS: Final = 3e11
"""Operations per second before anything was measured: two cores of docs/PERFORMANCE.md."""


class Upscaler(Protocol):
    """Upscales images in this process. It is called from worker threads."""

    face_enhance: bool
    """Whether it can honour `face_enhance` (REQ-10)."""

    def load(self, model: UpscalingModel) -> str:
        """Load `model`, however long that takes; called before `upscale`.

        Returns the SHA-256 of its weights file, in hex.
        """
        ...

    def bands(self, model: UpscalingModel, size: Size, channels: int) -> int:
        """How many bands an image of that size is split into; called only for dry runs."""
        ...

    def kernels(self) -> Iterable[KernelUse]:
        """What convolves, for each model that is loaded."""
        ...

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        """Yield `pixels` upscaled to exactly `size` (width, height), with the same channels.

        In strips of any number of rows, from top to bottom, each as soon as it is computed.
        """
        ...

    def load_faces(self) -> None:
        """Load what restores faces, however long that takes; called before `enhance_faces`.

        Raises WeightsUnavailable.
        """
        ...

    def find_faces(self, pixels: Pixels) -> list[FaceBox]:
        """Where the faces of `pixels` are that `enhance_faces` would restore."""
        ...

    def enhance_faces(
        self, pixels: Pixels, size: Size, strips: Iterable[Pixels], check: Callable[[], object]
    ) -> tuple[int, Iterable[Pixels]]:
        """Restore the faces of `pixels`, and paste them into `strips`, which `upscale` yields.

        Returns how many faces there are, and the strips with them. None of `strips` is asked for
        before that. `check` is called between some faces and others; an exception that it raises
        ends the work. Called only if `face_enhance` is true.
        """
        ...


@dataclass(frozen=True)
class UpscaleJob:
    """One upscaling: `pixels` to `size` by `model`, encoded as `encoding`.

    `pixels` is uint8 of shape (height, width, 3 or 4). `source` is the file that they were decoded
    from, since a remote backend sends that: it is smaller. `as_file` says that the client wants the
    file itself instead of JSON (RES-8). `face_enhance` says that faces are restored, and
    `face_optional` that without their models they are not; `ignored` names the fields of the
    request that are ignored.
    """

    source: bytes
    pixels: Pixels
    model: UpscalingModel
    size: Size
    encoding: ImageEncoding
    as_file: bool = False
    face_enhance: bool = False
    face_optional: bool = False
    ignored: tuple[str, ...] = ()

    def without_faces(self) -> "UpscaleJob":
        """The same job where there is no face model."""
        return replace(self, face_enhance=False, ignored=("face_enhance",))

    @property
    def input_size(self) -> Size:
        height, width, _ = self.pixels.shape
        return width, height

    @property
    def held_bytes(self) -> int:
        """The memory that the job takes up, without its result."""
        return len(self.source) + self.pixels.nbytes


@dataclass(frozen=True)
class StoredBody:
    """The body of a response that is kept elsewhere: its length, and `pieces`, which returns it.

    That raises UpscalerErrors, mostly before the first piece. `link` is a URL where a client may
    fetch it, or None.
    """

    size_bytes: int
    pieces: Callable[[], AsyncIterator[bytes]]
    link: str | None = None


@dataclass(frozen=True)
class UpscaleResult:
    """The encoded file of a job, in pieces, with how it was made and the seconds of each stage.

    There are no pieces if the body of the response with it is `stored`. If it comes from elsewhere,
    this process holds `held_bytes` of it, at most, until it is sent. `faces` is how many were
    restored, None if that was not asked for; `ignored` is that of the job.
    """

    file: list[bytes]
    encoding: ImageEncoding
    as_file: bool
    model: UpscalingModel
    weights_sha256: str
    input_size: Size
    size: Size
    seconds: dict[str, float]
    stored: StoredBody | None = None
    held_bytes: int = 0
    faces: int | None = None
    ignored: tuple[str, ...] = ()

    @property
    def file_bytes(self) -> int:
        return sum(map(len, self.file))


class StageTimer:
    """How long each stage of a request took so far, in seconds; 0 for stages not reached.

    And how far the rows are: `done`, from 0 to 1, which the working thread sets and others read;
    and the rows themselves in `preview`, from the moment when somebody wants to see them.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.done = 0.0
        self.preview: Preview | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the duration of the block to a stage, also if it raises."""
        started = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += perf_counter() - started


class Backend(Protocol):
    """Runs jobs, in this process or elsewhere."""

    face_enhance: bool
    """Whether it can honour `face_enhance` (REQ-10)."""
    at_once: int
    """How many jobs it runs at the same time; all others wait in the queue."""
    first_guess_flops: float
    """Operations per second, before anything was measured."""

    def held_bytes(self, file_bytes: int, /) -> int:
        """How many bytes this process will hold of a result with a file of so many.

        Jobs wait for so much memory. 0 for files that are made here.
        """
        ...

    def bands(self, model: UpscalingModel, size: Size, channels: int) -> int:
        """How many bands an image of that size is split into; called only for dry runs."""
        ...

    def kernels(self) -> Iterable[KernelUse]:
        """What convolves, for each model that is loaded in this process."""
        ...

    async def load(self, model: UpscalingModel) -> None:
        """Load `model`, however long that takes; called before each `make`."""
        ...

    async def load_faces(self) -> None:
        """Load what restores faces; called after `load`, before each `make` that needs it."""
        ...

    async def find_faces(self, pixels: Pixels, /) -> list[FaceBox] | None:
        """Where the faces of an image are; None if that is found out elsewhere, with the job."""
        ...

    async def make(self, job: UpscaleJob, timer: StageTimer) -> UpscaleResult:
        """Run a job and add its stages to `timer`; on cancellation, stop as soon as possible."""
        ...


class LocalBackend:
    """Runs jobs in this process, as many at a time as it has upscalers.

    A job uses all of an upscaler's device, and goes to whichever is idle.
    """

    first_guess_flops = FIRST_GUESS_FLOPS

    def __init__(self, *upscalers: Upscaler, jpeg: JpegOptions = DEFAULT_JPEG) -> None:
        """Run jobs on `upscalers`, at least one, which are alike: the first one speaks for all."""
        self.at_once = len(upscalers)
        self.face_enhance = upscalers[0].face_enhance
        self.bands = upscalers[0].bands
        self._upscalers = upscalers
        self._idle = deque(upscalers)
        self._jpeg = jpeg
        # A lock per model: without it each waiting job would occupy a thread while the weights are
        # downloaded, and with a single one jobs of other models would have to wait.
        self._loading = {model: asyncio.Lock() for model in UpscalingModel}
        self._loading_faces = asyncio.Lock()
        self._digests: dict[UpscalingModel, str] = {}

    def held_bytes(self, _file_bytes: int, /) -> int:
        """Nothing: files are made here."""
        return 0

    def kernels(self) -> Iterable[KernelUse]:
        """What convolves, for each model that is loaded on each device."""
        return chain.from_iterable(upscaler.kernels() for upscaler in self._upscalers)

    async def load(self, model: UpscalingModel) -> None:
        """Load the weights, once for each upscaler. Raises WeightsUnavailable."""
        async with self._loading[model]:
            if model in self._digests:
                return
            for upscaler in self._upscalers:  # by turns: the first one downloads them
                digest = await to_thread.run_sync(upscaler.load, model, abandon_on_cancel=True)
            self._digests[model] = digest

    async def load_faces(self) -> None:
        """Load what restores faces, once for each upscaler. Raises WeightsUnavailable."""
        async with self._loading_faces:
            for upscaler in self._upscalers:
                await to_thread.run_sync(upscaler.load_faces, abandon_on_cancel=True)

    async def find_faces(self, pixels: Pixels, /) -> list[FaceBox]:
        """Find the faces of an image in a thread, which ends before the next job begins."""
        upscaler = self._idle.popleft()  # there is one, as for `make`
        try:
            return await _run_in_thread(lambda _stopped: upscaler.find_faces(pixels))
        finally:
            self._idle.append(upscaler)

    async def make(self, job: UpscaleJob, timer: StageTimer) -> UpscaleResult:
        """Run a job in a thread. On cancellation it stops after the current rows."""
        digest = self._digests[job.model]
        upscaler = self._idle.popleft()  # there is one, since no more than `at_once` jobs run
        try:
            return await _run_in_thread(
                lambda stopped: run_job(upscaler, job, digest, timer, stopped, jpeg=self._jpeg)
            )
        finally:
            self._idle.append(upscaler)


def run_job(
    upscaler: Upscaler,
    job: UpscaleJob,
    weights_sha256: str,
    timer: StageTimer,
    stopped: threading.Event | None = None,
    *,
    jpeg: JpegOptions = DEFAULT_JPEG,
) -> UpscaleResult:
    """Run a job in the current thread; rows are encoded while those below are being upscaled.

    The model must have been loaded. `jpeg` has the options of a JPEG. Raises what the upscaler
    raises, and Cancelled after the current rows once `stopped` is set.
    """

    def check(done: int = 0, total: int = 0) -> None:
        if total:
            timer.done = done / total
        if stopped and stopped.is_set():
            raise Cancelled("no client waits for this image any more")

    def upscaled() -> Iterator[Pixels]:
        yield from upscaler.upscale(job.pixels, job.model, job.size, check)

    faces: int | None = None
    made: Iterable[Pixels] = upscaled()
    if job.face_enhance:
        with timer.stage("infer"):
            faces, made = upscaler.enhance_faces(job.pixels, job.size, made, check)

    def strips() -> Iterator[Pixels]:
        # The encoder asks for the strips: only the time spent in `made` is that of the networks.
        began_s, top = perf_counter(), 0
        for strip in made:
            timer.seconds["infer"] += perf_counter() - began_s
            check()  # an upscaler need not report progress between strips
            if timer.preview:
                timer.preview.add(top, strip)
            top += len(strip)
            yield strip
            began_s = perf_counter()
        timer.seconds["infer"] += perf_counter() - began_s

    began_s, faces_s = perf_counter(), timer.seconds["infer"]
    file = list(encode_strips(strips(), job.size[1], job.encoding, jpeg))
    timer.seconds["encode"] = perf_counter() - began_s - (timer.seconds["infer"] - faces_s)
    return UpscaleResult(
        file=file,
        encoding=job.encoding,
        as_file=job.as_file,
        model=job.model,
        weights_sha256=weights_sha256,
        input_size=job.input_size,
        size=job.size,
        seconds=timer.seconds,
        faces=faces,
        ignored=job.ignored,
    )


class ThroughputEstimator:
    """Estimates how long an image will take from how long earlier ones took."""

    def __init__(self, first_guess_flops: float = FIRST_GUESS_FLOPS) -> None:
        self._flops: dict[UpscalingModel, float] = {}
        self._latest = first_guess_flops

    def estimate_s(self, model: UpscalingModel, size: Size, faces: int | None = None) -> float:
        """The seconds that `model` will take for an input of `size`.

        `faces` is how many are restored, 0 if that is not known yet, and None if none are looked
        for. Before the model's first image, by the speed of the latest model, or else by a guess.
        """
        operations = flop(MODELS[model], *size)
        if faces is not None:
            operations += FINDING_FLOP * size[0] * size[1] + RESTORING_FLOP * faces
        return operations / self._flops.get(model, self._latest)

    def record(self, model: UpscalingModel, size: Size, seconds: float) -> None:
        """Record how long an input of `size` took."""
        measured = flop(MODELS[model], *size) / max(seconds, 1e-6)
        # An exponential moving average: after a few images an outlier no longer matters.
        self._flops[model] = (measured + self._flops.get(model, measured)) / 2
        self._latest = measured


class Scheduler:
    """Queues jobs and runs them on one backend."""

    def __init__(
        self, backend: Backend, admission: Admission, on_result: Callable[[UpscaleResult], None]
    ) -> None:
        """Run what `admission` admits; `on_result` is called once for each result."""
        self.backend = backend
        self.admission = admission
        self.on_result = on_result
        self.throughput = ThroughputEstimator(backend.first_guess_flops)

    def schedule(
        self, job: UpscaleJob, timer: StageTimer, *, accepted: bool = False
    ) -> "ScheduledJob":
        """Return `job` as a block: inside, it has a place in the queue, and memory.

        A job that was `accepted` before, and is kept elsewhere meanwhile, is never refused.
        """
        return ScheduledJob(self, job, timer, accepted=accepted)


class ScheduledJob:
    """A job that has a place in the queue, and memory, while its block is entered.

    Entering it raises Busy if the queue is full, or the memory.
    """

    def __init__(
        self, scheduler: Scheduler, job: UpscaleJob, timer: StageTimer, *, accepted: bool
    ) -> None:
        self.job = job
        self.timer = timer
        self._scheduler = scheduler
        self._accepted = accepted

    @property
    def room_bytes(self) -> int:
        """The size of the largest file that can result: only encoding shows how large it is."""
        return most_bytes(self.job.size, self.job.pixels.shape[2])

    @property
    def estimated_s(self) -> float:
        """How many seconds it will take, once it runs."""
        return self._scheduler.throughput.estimate_s(
            self.job.model, self.job.input_size, 0 if self.job.face_enhance else None
        )

    def __enter__(self) -> "ScheduledJob":
        admission = self._scheduler.admission
        with ExitStack() as stack:
            memory = stack.enter_context(admission.reservation())
            slot = admission.slot(self.estimated_s, accepted=self._accepted)
            self._slot = stack.enter_context(slot)
            # One that is refused would have to come again: as many are accepted as run at once.
            (memory.set if self._accepted else memory.reserve)(self.job.held_bytes)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def busy(self, reason: str) -> Busy:
        """The error to refuse another job with: it may be retried once the running one is done."""
        return self._scheduler.admission.busy(reason)

    async def run(
        self,
        on_start: Callable[[], None] = lambda: None,
        memory: MemoryReservation | None = None,
    ) -> UpscaleResult:
        """Wait in the queue, call `on_start`, and run the job.

        If the result comes from elsewhere, its bytes are held in `memory` before they come. Raises
        whatever the backend raises.
        """
        job, timer = self.job, self.timer
        backend = self._scheduler.backend
        with timer.stage("load"):  # before the queue, so that a download does not block the others
            await backend.load(job.model)
            job = await self._with_faces(job)
        began_s = perf_counter()
        async with self._slot.acquire():
            # Again after a wait: a bucket may have failed meanwhile, and more be held without it.
            while memory and (held := backend.held_bytes(self.room_bytes)) > memory.result_bytes:
                await memory.wait_for_result(held)
            timer.seconds["queue"] += perf_counter() - began_s
            on_start()
            result = await backend.make(job, timer)
        # Not the wall time: on Modal that includes cold starts, which say nothing of the next job.
        spent_s = timer.seconds["infer"] + timer.seconds["encode"]
        if result.faces is None:  # whose number says nothing of the next one's
            self._scheduler.throughput.record(job.model, job.input_size, spent_s)
        self._scheduler.on_result(result)
        return result

    async def find_faces(self) -> list[FaceBox] | None:
        """Wait in the queue, and find the faces that the job would restore, as far as it is known.

        Raises whatever the backend raises.
        """
        job, backend = await self._with_faces(self.job), self._scheduler.backend
        if not job.face_enhance:
            return None
        async with self._slot.acquire():
            return await backend.find_faces(job.pixels)

    async def _with_faces(self, job: UpscaleJob) -> UpscaleJob:
        """Load what the job needs to restore faces; or return it without, if it may be."""
        if not job.face_enhance:
            return job
        try:
            await self._scheduler.backend.load_faces()
        except WeightsUnavailable as error:
            if not job.face_optional:
                log.exception("faces cannot be restored, as their models are missing")
                raise no_face_model() from error
            log.warning("faces are not restored, as their models are missing", exc_info=True)
            return job.without_faces()
        return job


async def _run_in_thread(work: Callable[[threading.Event], Result]) -> Result:
    """Run `work` in a thread; on cancellation set its event, and wait until the thread has ended.

    So that the next job finds the machine idle.
    """
    stopped = threading.Event()
    running = asyncio.ensure_future(to_thread.run_sync(work, stopped))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stopped.set()
        try:
            await running
        except Cancelled as error:  # because of `stopped`
            release_frames(error)
        except Exception as error:
            log.exception("an image failed after it had been cancelled")
            release_frames(error)
        raise
    finally:
        # A reference cycle otherwise: the future holds its error, whose traceback holds this frame.
        del running
