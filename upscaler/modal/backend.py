"""Work that is done in other containers: a backend and jobs for the service, by Modal's calls."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final
from weakref import WeakValueDictionary

import modal
from modal import exception as faults

from upscaler.api.limits import RESULT_LIFETIME_S
from upscaler.api.responses import JobStatus
from upscaler.api.sizes import Size
from upscaler.errors import RemoteFailed, UnknownJob, Unreachable
from upscaler.formats import ImageEncoding
from upscaler.modal.payload import ResultPayload
from upscaler.models import MODELS, UpscalingModel
from upscaler.planning import cheapest, footprint, plans
from upscaler.service.backend import ScheduledJob, StageTimer, UpscaleJob, UpscaleResult
from upscaler.settings import Precision

Method = modal.Function[..., Any, Any]
"""A method of the class that runs on GPUs."""

SMALLEST_CARD_BYTES: Final = 15 * 2**30
"""What a T4 has free, the smallest of Modal's cards."""
FIRST_GUESS_FLOPS: Final = 4e13
"""Operations per second before anything was measured: a third of what an L4 can do in fp16."""
SIGNATURE_BYTES: Final = 24
"""As many as nobody guesses (ASY-5)."""

CALL_FAILED: Final = (
    faults.ExecutionError,
    faults.FunctionTimeoutError,
    faults.InternalFailure,
    faults.RemoteError,
)
"""What Modal raises when a container died, or took too long; all else it raises is of its own."""


def to_payload(made: UpscaleResult, device: str) -> ResultPayload:
    """What a container sends of what it made, now, on `device`."""
    return {
        "file": made.file,
        "encoding": made.encoding.value,
        "as_file": made.as_file,
        "model": made.model.value,
        "weights_sha256": made.weights_sha256,
        "input_size": made.input_size,
        "size": made.size,
        "seconds": made.seconds,
        "finished_s": time.time(),
        "device": device,
    }


def from_payload(delivery: ResultPayload) -> UpscaleResult:
    """What was made, as the service knows it."""
    return UpscaleResult(
        file=delivery["file"],
        encoding=ImageEncoding(delivery["encoding"]),
        as_file=delivery["as_file"],
        model=UpscalingModel(delivery["model"]),
        weights_sha256=delivery["weights_sha256"],
        input_size=delivery["input_size"],
        size=delivery["size"],
        seconds=delivery["seconds"],
    )


def arguments(task: UpscaleJob) -> tuple[bytes, str, Size, str, bool]:
    """What a container is told of a task."""
    return task.source, task.model.value, task.size, task.encoding.value, task.as_file


class ModalBackend:
    """The backend whose images are made by `make`, in as many containers as Modal starts.

    It takes what `arguments` returns and returns a Delivery.
    """

    face_enhance = False
    first_guess_flops = FIRST_GUESS_FLOPS

    def __init__(self, make: Method, at_once: int) -> None:
        self.at_once = at_once
        self._make = make

    def bands(self, model: UpscalingModel, size: Size, channels: int) -> int:
        """Into how many bands the smallest card would cut an image of that size in pixels."""
        spec = MODELS[model]
        needs = footprint(spec.network, Precision.FP16, "cuda")
        choices = plans(spec, size, channels, needs)
        return len(cheapest(choices, None, SMALLEST_CARD_BYTES).tiles)

    async def load(self, model: UpscalingModel) -> None:
        """Do nothing: a container has all models before it takes its first task."""

    async def make(self, task: UpscaleJob, timer: StageTimer) -> UpscaleResult:
        """Have it made. Raises what was raised there, RemoteFailed and Unreachable.

        The stage `queue` is all that was not work: the way, the line, and perhaps a cold start.
        """
        began_s = time.perf_counter()
        with telling_what_failed():
            delivery: ResultPayload = await self._make.remote.aio(*arguments(task))
        took_s = time.perf_counter() - began_s
        work = delivery["seconds"]
        for stage, seconds in work.items():
            timer.seconds[stage] += seconds
        timer.seconds["queue"] += max(0.0, took_s - sum(work.values()))
        return from_payload({**delivery, "seconds": timer.seconds})


class ModalJobStore:
    """Jobs in Modal's own queue, which keeps their results for a week.

    Nothing is kept here but a few results: an id has the call's, and a signature. So any container
    can tell of any job, whichever started it, and no one can ask for a call that is not a job.
    Modal does not say whether a call waits or runs: a job is pending until it is completed.
    """

    def __init__(
        self,
        make: Method,
        key: bytes,
        capacity_bytes: int,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep results of at most `capacity_bytes`; `key` is secret, and signs ids."""
        self._make = make
        self._key = hashlib.sha256(b"ids of jobs\0" + key).digest()
        self._capacity_bytes = capacity_bytes
        self._clock = clock
        self._kept: OrderedDict[str, ResultPayload] = OrderedDict()
        self._kept_bytes = 0
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def results_bytes(self) -> int:
        return self._kept_bytes

    async def start(self, order: AbstractContextManager[ScheduledJob]) -> str:
        with order as entered, telling_what_failed():
            call = await self._make.spawn.aio(*arguments(entered.task))
        return self._signed(f"{call.object_id}.{int(self._clock())}")

    async def status(self, job_id: str) -> JobStatus:
        call_id, started_s = self._parsed(job_id)
        try:
            await self._delivery(call_id)
        except TimeoutError:
            return JobStatus.PENDING
        except (UnknownJob, Unreachable):
            raise
        except Exception:
            self._check_age(started_s)
        return JobStatus.COMPLETED

    async def result(self, job_id: str) -> UpscaleResult:
        call_id, started_s = self._parsed(job_id)
        try:
            return from_payload(await self._delivery(call_id))
        except TimeoutError as error:
            msg = "this inference is not completed: ask its poll_url how far it is"
            raise UnknownJob(msg) from error
        except (UnknownJob, Unreachable):
            raise
        except Exception:
            self._check_age(started_s)
            raise

    async def _delivery(self, call_id: str) -> ResultPayload:
        """What came of a call. Raises TimeoutError until it is there, and what the call raised."""
        lock = self._asking.get(call_id)
        if lock is None:
            self._asking[call_id] = lock = asyncio.Lock()
        async with lock:  # many polls at once are not to fetch as many copies of one file
            delivery = self._kept.get(call_id)
            if delivery is None:
                delivery = await _outcome(call_id)
                self._keep(call_id, delivery)
        try:
            self._check_age(delivery["finished_s"])
        except UnknownJob:
            self._forget(call_id)
            raise
        return delivery

    def _keep(self, call_id: str, delivery: ResultPayload) -> None:
        """Whoever was told that it is there asks for it next: let it not be fetched twice."""
        self._kept[call_id] = delivery
        self._kept_bytes += _size(delivery)
        while self._kept_bytes > self._capacity_bytes:
            self._forget(next(iter(self._kept)))

    def _forget(self, call_id: str) -> None:
        delivery = self._kept.pop(call_id, None)
        if delivery is not None:
            self._kept_bytes -= _size(delivery)

    def _check_age(self, since_s: float) -> None:
        """Raise UnknownJob for what is older than results are kept (ASY-4)."""
        if self._clock() >= since_s + RESULT_LIFETIME_S:
            raise UnknownJob("the result of this inference is no longer kept")

    def _signed(self, text: str) -> str:
        digest = hmac.digest(self._key, text.encode(), "sha256")[:SIGNATURE_BYTES]
        return f"{text}.{base64.urlsafe_b64encode(digest).decode()}"

    def _parsed(self, job_id: str) -> tuple[str, int]:
        """The call's id, and when it was started. Raises UnknownJob for what is not signed."""
        text, _, _ = job_id.rpartition(".")
        if not hmac.compare_digest(self._signed(text).encode(), job_id.encode()):
            raise UnknownJob("no inference has this id")
        call_id, _, started_s = text.rpartition(".")
        return call_id, int(started_s)


async def _outcome(call_id: str) -> ResultPayload:
    """What a call returned. Raises TimeoutError until it has, UnknownJob, and what it raised."""
    call: modal.FunctionCall[Any] = modal.FunctionCall.from_id(call_id)
    with telling_what_failed():
        try:
            delivery: ResultPayload = await call.get.aio(timeout=0)
        except (faults.NotFoundError, faults.OutputExpiredError) as error:
            raise UnknownJob("the result of this inference is no longer kept") from error
    return delivery


@contextmanager
def telling_what_failed() -> Iterator[None]:
    """Raise RemoteFailed or Unreachable, with the reason, in place of Modal's own errors."""
    try:
        yield
    except CALL_FAILED as error:
        raise RemoteFailed(f"a GPU container failed: {error}") from error
    except faults.Error as error:
        raise Unreachable(f"Modal cannot be asked: {error}") from error


def _size(delivery: ResultPayload) -> int:
    return sum(map(len, delivery["file"]))
