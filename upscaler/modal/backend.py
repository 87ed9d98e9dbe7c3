"""A backend and a job store for the service that run in Modal's GPU containers."""

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
"""A method of the class that runs in GPU containers."""

SMALLEST_CARD_BYTES: Final = 15 * 2**30
"""The free memory of a T4, the smallest of Modal's GPUs."""
FIRST_GUESS_FLOPS: Final = 4e13
"""Operations per second until the first image is measured: a third of an L4's peak in fp16."""
SIGNATURE_BYTES: Final = 24
"""192 bits, so that ids cannot be guessed (ASY-5)."""

CALL_FAILED: Final = (
    faults.ExecutionError,
    faults.FunctionTimeoutError,
    faults.InternalFailure,
    faults.RemoteError,
)
"""Modal's errors for a container that died or timed out; its other errors are failures of Modal."""


def to_payload(result: UpscaleResult, device: str) -> ResultPayload:
    """The payload of a result that was computed on `device` just now."""
    return {
        "file": result.file,
        "encoding": result.encoding.value,
        "as_file": result.as_file,
        "model": result.model.value,
        "weights_sha256": result.weights_sha256,
        "input_size": result.input_size,
        "size": result.size,
        "seconds": result.seconds,
        "finished_s": time.time(),
        "device": device,
    }


def from_payload(payload: ResultPayload) -> UpscaleResult:
    """The result that a container returned as a payload."""
    return UpscaleResult(
        file=payload["file"],
        encoding=ImageEncoding(payload["encoding"]),
        as_file=payload["as_file"],
        model=UpscalingModel(payload["model"]),
        weights_sha256=payload["weights_sha256"],
        input_size=payload["input_size"],
        size=payload["size"],
        seconds=payload["seconds"],
    )


def arguments(task: UpscaleJob) -> tuple[bytes, str, Size, str, bool]:
    """The arguments of a container's `make` for a job."""
    return task.source, task.model.value, task.size, task.encoding.value, task.as_file


class ModalBackend:
    """A backend that calls `make` in GPU containers; Modal decides how many there are.

    `make` takes what `arguments` returns, and returns a ResultPayload. `at_once` is the number of
    jobs that may run at the same time.
    """

    face_enhance = False
    first_guess_flops = FIRST_GUESS_FLOPS

    def __init__(self, make: Method, at_once: int) -> None:
        self.at_once = at_once
        self._make = make

    def bands(self, model: UpscalingModel, size: Size, channels: int) -> int:
        """The number of bands that the smallest GPU would need for an input of `size` in pixels."""
        # Any GPU of the deployment may run the job, so the estimate is for the smallest.
        spec = MODELS[model]
        needs = footprint(spec.network, Precision.FP16, "cuda")
        choices = plans(spec, size, channels, needs)
        return len(cheapest(choices, None, SMALLEST_CARD_BYTES).tiles)

    async def load(self, model: UpscalingModel) -> None:
        """Do nothing: a container loads all models before its first job."""

    async def make(self, task: UpscaleJob, timer: StageTimer) -> UpscaleResult:
        """Upscale in a container. Raises UpscalerErrors from there, RemoteFailed and Unreachable.

        The stage `queue` is all time but the work: the network, Modal's queue, maybe a cold start.
        """
        began_s = time.perf_counter()
        with map_modal_errors():
            payload: ResultPayload = await self._make.remote.aio(*arguments(task))
        took_s = time.perf_counter() - began_s
        work = payload["seconds"]
        for stage, seconds in work.items():
            timer.seconds[stage] += seconds
        # The two times are measured on two machines, so the difference may be below zero.
        timer.seconds["queue"] += max(0.0, took_s - sum(work.values()))
        return from_payload({**payload, "seconds": timer.seconds})


class ModalJobStore:
    """Jobs in Modal's own queue, which keeps their results for a week.

    A job's id is the id of Modal's call with a signature. So every container can look up every job,
    whichever started it, and clients cannot ask for calls that are not jobs. Recent results are
    cached here. Modal does not tell waiting calls from running ones, so that a job's status is
    `pending` until it is `completed`.
    """

    def __init__(
        self,
        make: Method,
        key: bytes,
        capacity_bytes: int,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Cache results of at most `capacity_bytes`; `key` is the secret that signs ids."""
        self._make = make
        # A derived key: the prefix separates it from any other use of the token.
        self._key = hashlib.sha256(b"ids of jobs\0" + key).digest()
        self._capacity_bytes = capacity_bytes
        self._clock = clock
        self._cached: OrderedDict[str, ResultPayload] = OrderedDict()
        self._cached_bytes = 0
        # A lock exists as long as a request uses it, so that the dictionary does not grow.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def results_bytes(self) -> int:
        return self._cached_bytes

    async def start(self, scheduled: AbstractContextManager[ScheduledJob]) -> str:
        with scheduled as entered, map_modal_errors():
            call = await self._make.spawn.aio(*arguments(entered.job))
        return self._signed(f"{call.object_id}.{int(self._clock())}")

    async def status(self, job_id: str) -> JobStatus:
        call_id, started_s = self._parsed(job_id)
        try:
            await self._payload(call_id)
        except TimeoutError:
            return JobStatus.PENDING
        except (UnknownJob, Unreachable):
            raise
        except Exception:
            # A failed job is completed: its result is the error (docs/MODAL.md).
            self._check_age(started_s)
        return JobStatus.COMPLETED

    async def result(self, job_id: str) -> UpscaleResult:
        call_id, started_s = self._parsed(job_id)
        try:
            return from_payload(await self._payload(call_id))
        except TimeoutError as error:
            msg = "this inference is not completed: poll its poll_url for its status"
            raise UnknownJob(msg) from error
        except (UnknownJob, Unreachable):
            raise
        except Exception:
            self._check_age(started_s)
            raise

    async def _payload(self, call_id: str) -> ResultPayload:
        """What a call returned. Raises TimeoutError until it is done, or the error it raised."""
        lock = self._locks.get(call_id)
        if lock is None:
            self._locks[call_id] = lock = asyncio.Lock()
        async with lock:  # so that concurrent polls do not each fetch the same file
            payload = self._cached.get(call_id)
            if payload is None:
                payload = await _call_result(call_id)
                self._cache(call_id, payload)
        try:
            self._check_age(payload["finished_s"])
        except UnknownJob:
            self._drop(call_id)
            raise
        return payload

    def _cache(self, call_id: str, payload: ResultPayload) -> None:
        """Cache a result: a client that polled its status will ask for it next."""
        self._cached[call_id] = payload
        self._cached_bytes += _size(payload)
        while self._cached_bytes > self._capacity_bytes:
            self._drop(next(iter(self._cached)))

    def _drop(self, call_id: str) -> None:
        payload = self._cached.pop(call_id, None)
        if payload is not None:
            self._cached_bytes -= _size(payload)

    def _check_age(self, since_s: float) -> None:
        """Raise UnknownJob if the lifetime of results has passed since then (ASY-4)."""
        if self._clock() >= since_s + RESULT_LIFETIME_S:
            raise UnknownJob("the result of this inference is no longer kept")

    def _signed(self, text: str) -> str:
        digest = hmac.digest(self._key, text.encode(), "sha256")[:SIGNATURE_BYTES]
        return f"{text}.{base64.urlsafe_b64encode(digest).decode()}"

    def _parsed(self, job_id: str) -> tuple[str, int]:
        """The call's id, and when it was started. Raises UnknownJob for an invalid signature."""
        text, _, _ = job_id.rpartition(".")
        # Bytes: compare_digest takes no str with other characters than ASCII, which ids may have.
        if not hmac.compare_digest(self._signed(text).encode(), job_id.encode()):
            raise UnknownJob("no inference has this id")
        call_id, _, started_s = text.rpartition(".")
        return call_id, int(started_s)


async def _call_result(call_id: str) -> ResultPayload:
    """The call's result. Raises TimeoutError until it is done, UnknownJob, or the call's error."""
    call: modal.FunctionCall[Any] = modal.FunctionCall.from_id(call_id)
    with map_modal_errors():
        try:
            payload: ResultPayload = await call.get.aio(timeout=0)  # ask without waiting
        except (faults.NotFoundError, faults.OutputExpiredError) as error:
            raise UnknownJob("the result of this inference is no longer kept") from error
    return payload


@contextmanager
def map_modal_errors() -> Iterator[None]:
    """Turn Modal's errors into RemoteFailed or Unreachable, with the reason."""
    try:
        yield
    except CALL_FAILED as error:
        raise RemoteFailed(f"a GPU container failed: {error}") from error
    except faults.Error as error:
        raise Unreachable(f"cannot reach Modal: {error}") from error


def _size(payload: ResultPayload) -> int:
    return sum(map(len, payload["file"]))
