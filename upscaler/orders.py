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

from upscaler.admission import Admission, Place
from upscaler.contract import ImageEncoding, Size
from upscaler.encoding import encode_strips
from upscaler.errors import Cancelled
from upscaler.images import Pixels
from upscaler.models import MODELS, UpscalingModel, flop

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Called with how many rows are done and how many there are; what it raises ends the work."""

STAGES: Final = ("fetch", "decode", "load", "queue", "infer", "encode")
"""What happens to a request, in this order: its URL is downloaded, the file decoded, the model
loaded, the others' pictures waited for, the rows enlarged, and those encoded. The last is what
encoding takes longer than the rows: both happen at once."""
WORK: Final = ("decode", "load", "infer", "encode")
"""The stages in which the machine works for the request."""
FIRST_GUESS_FLOPS: Final = 3e11
"""Operations per second before anything was measured: two cores of docs/PERFORMANCE.md."""


class Backend(Protocol):
    """What enlarges pictures for the service. Calls come from worker threads."""

    face_enhance: bool
    """Whether the backend can honour `face_enhance` (REQ-10)."""

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
class Task:
    """What to make: `pixels` (see `images`) at `size` by `model`, as a file in `encoding`.

    `as_file` says that the client wants the file itself, and not JSON around it (RES-8).
    """

    pixels: Pixels
    model: UpscalingModel
    size: Size
    encoding: ImageEncoding
    as_file: bool = False

    @property
    def input_size(self) -> Size:
        height, width, _ = self.pixels.shape
        return width, height


@dataclass(frozen=True)
class Made:
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


class Stopwatch:
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


class Pace:
    """How fast the models have been here, to tell how long a picture will take."""

    def __init__(self) -> None:
        self._flops: dict[UpscalingModel, float] = {}
        self._latest = FIRST_GUESS_FLOPS

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


class Workshop:
    """Where orders are taken and carried out, on top of one backend."""

    def __init__(
        self, backend: Backend, admission: Admission, on_made: Callable[[Made], None]
    ) -> None:
        """Carry out what `admission` lets in; `on_made` is told of each picture, once."""
        self.backend = backend
        self.admission = admission
        self.on_made = on_made
        self.pace = Pace()
        # Whoever waits for weights occupies no thread but the one that fetches them.
        self._loading = {model: asyncio.Lock() for model in UpscalingModel}

    @contextmanager
    def order(self, task: Task, watch: Stopwatch) -> Iterator["Order"]:
        """Take `task` on, or raise Busy; it has a place in line until the end."""
        estimated_s = self.pace.estimate_s(task.model, task.input_size)
        with self.admission.holding() as memory, self.admission.place(estimated_s) as place:
            memory.hold(task.pixels.nbytes)
            yield Order(self, task, watch, place)

    async def load(self, model: UpscalingModel) -> str:
        """Make `model` ready; the SHA-256 of its weights. Raises WeightsUnavailable."""
        async with self._loading[model]:
            return await to_thread.run_sync(self.backend.load, model, abandon_on_cancel=True)


class Order:
    """A task that was taken on."""

    def __init__(self, workshop: Workshop, task: Task, watch: Stopwatch, place: Place) -> None:
        self.task = task
        self._workshop = workshop
        self._watch = watch
        self._place = place

    async def make(self, on_start: Callable[[], None] = lambda: None) -> Made:
        """Wait in line, call `on_start`, and carry the task out.

        Cancelled, it stops at the next rows. Raises whatever the backend raises.
        """
        task, watch = self.task, self._watch
        with watch.stage("load"):
            digest = await self._workshop.load(task.model)
        began_s = time.perf_counter()
        async with self._place.turn():
            watch.seconds["queue"] = time.perf_counter() - began_s
            on_start()
            file = await _in_thread(self._file)
        spent_s = watch.seconds["infer"] + watch.seconds["encode"]
        self._workshop.pace.note(task.model, task.input_size, spent_s)
        made = Made(
            file=file,
            encoding=task.encoding,
            as_file=task.as_file,
            model=task.model,
            weights_sha256=digest,
            input_size=task.input_size,
            size=task.size,
            seconds=watch.seconds,
        )
        self._workshop.on_made(made)
        return made

    def _file(self, stopped: threading.Event) -> list[bytes]:
        """The pieces of the file, encoded while the rows below them are still being made."""
        began_s = time.perf_counter()
        pieces = list(encode_strips(self._strips(stopped), self.task.size[1], self.task.encoding))
        spent_s = time.perf_counter() - began_s
        self._watch.seconds["encode"] = spent_s - self._watch.seconds["infer"]
        return pieces

    def _strips(self, stopped: threading.Event) -> Iterator[Pixels]:
        def check(_done: int, _total: int) -> None:
            if stopped.is_set():
                raise Cancelled("nobody waits for this picture any more")

        task, upscale = self.task, self._workshop.backend.upscale
        began_s = time.perf_counter()
        for strip in upscale(task.pixels, task.model, task.size, check):
            self._watch.seconds["infer"] += time.perf_counter() - began_s
            check(0, 0)
            yield strip
            began_s = time.perf_counter()
        self._watch.seconds["infer"] += time.perf_counter() - began_s


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
        except Cancelled:
            pass  # as it was told to
        except Exception:
            log.exception("a picture that nobody waits for failed")
        raise
