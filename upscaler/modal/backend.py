"""A backend for the service that runs jobs in Modal's GPU containers."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final

import aiohttp
import grpclib.exceptions
import modal
from modal import exception as faults

from upscaler.api.sizes import Size
from upscaler.errors import NotStored, RemoteFailed, Unreachable
from upscaler.formats import ImageEncoding
from upscaler.imaging.pixels import Pixels
from upscaler.modal.bucket import HELD_BYTES, Bucket, pieces
from upscaler.modal.payload import ResultPayload, StoredPayload, Upload
from upscaler.models import MODELS, UpscalingModel
from upscaler.planning import cheapest, footprint, plans
from upscaler.service.backend import StageTimer, StoredBody, UpscaleJob, UpscaleResult
from upscaler.settings import KernelUse, Precision

Method = modal.Function[..., Any, Any]
"""A method of the class that runs in GPU containers."""

SMALLEST_CARD_BYTES: Final = 15 * 2**30
"""The free memory of a T4, the smallest of Modal's GPUs."""
FIRST_GUESS_FLOPS: Final = 4e13
"""Operations per second until the first image is measured: a third of an L4's peak in fp16."""
RESULT_COPIES: Final = 3
"""How often a front holds a file: as it was fetched, unpickled, and in base64 until it is sent,
since the queue of Modal's client takes a whole response. Pieces of 32 to 64 KiB, of which it
would take less, cost three times the processor's time."""

CALL_FAILED: Final = (faults.FunctionTimeoutError, faults.InternalFailure, faults.RemoteError)
"""Modal's errors for a container that died, timed out or was stopped; its others are its own."""
NO_ANSWER: Final = (
    faults.Error,
    aiohttp.ClientError,  # the blob store, with large arguments and results
    grpclib.exceptions.StreamTerminatedError,
    OSError,
)
"""What Modal's client raises if Modal does not answer."""

_cancellations: Final[set[asyncio.Future[None]]] = set()

log = logging.getLogger(__name__)


def to_payload(
    result: UpscaleResult, device: str, stored: StoredPayload | None = None
) -> ResultPayload:
    """The payload of a result that was computed on `device` just now, and may be `stored`."""
    payload: ResultPayload = {
        "faces": result.faces,
        "file": [] if stored else result.file,
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
    if stored:
        payload["stored"] = stored
    return payload


def from_payload(
    payload: ResultPayload, bucket: Bucket | None = None, lifetime_s: float | None = None
) -> UpscaleResult:
    """The result that a container returned as a payload.

    If it is kept for its client, for `lifetime_s` from now on, and is in `bucket`, then it has a
    link that is valid for so long at most.
    """
    at, stored = payload.get("stored"), None
    held_bytes = RESULT_COPIES * sum(map(len, payload["file"]))
    if at:
        kept = lifetime_s is not None
        link = bucket.link(at, lifetime_s) if bucket and lifetime_s is not None else None
        stored = StoredBody(at["size_bytes"], partial(pieces, at, link, kept=kept), link)
        held_bytes = min(at["size_bytes"], HELD_BYTES)
    return UpscaleResult(
        file=payload["file"],
        encoding=ImageEncoding(payload["encoding"]),
        as_file=payload["as_file"],
        model=UpscalingModel(payload["model"]),
        weights_sha256=payload["weights_sha256"],
        input_size=payload["input_size"],
        size=payload["size"],
        seconds=payload["seconds"],
        stored=stored,
        held_bytes=held_bytes,
        faces=payload.get("faces"),
    )


def arguments(task: UpscaleJob, upload: Upload | None = None) -> tuple[Any, ...]:
    """The arguments of a container's `make` for a job."""
    first = (task.source, task.model.value, task.size, task.encoding.value, task.as_file)
    # As before there were buckets, or faces: the container may be an older one.
    if task.face_enhance:
        return (*first, upload, True)
    return (*first, upload) if upload else first


def usable(bucket: Bucket | None) -> Bucket | None:
    """The bucket, if there is one and it is not suspended."""
    return None if bucket and bucket.suspended else bucket


class ModalBackend:
    """A backend that calls `make` in GPU containers; Modal decides how many there are.

    `make` takes what `arguments` returns, and returns a ResultPayload. `at_once` is the number of
    jobs that all containers take: the others wait here, where their clients are told so. If there
    is a `bucket`, containers upload results to it, and they are passed on from there.
    """

    face_enhance = True
    first_guess_flops = FIRST_GUESS_FLOPS

    def __init__(self, make: Method, at_once: int, bucket: Bucket | None = None) -> None:
        self.at_once = at_once
        self._make = make
        self._bucket = bucket

    def held_bytes(self, file_bytes: int, /) -> int:
        held_bytes = RESULT_COPIES * file_bytes
        return min(held_bytes, HELD_BYTES) if usable(self._bucket) else held_bytes

    def bands(self, model: UpscalingModel, size: Size, channels: int) -> int:
        """The number of bands that the smallest GPU would need for an input of `size` in pixels."""
        # Any GPU of the deployment may run the job, so the estimate is for the smallest.
        spec = MODELS[model]
        needs = footprint(spec.network, Precision.FP16, "cuda")
        choices = plans(spec, size, channels, needs)
        return len(cheapest(choices, None, SMALLEST_CARD_BYTES).tiles)

    def kernels(self) -> Iterable[KernelUse]:
        """Nothing: no model is loaded in this process."""
        return ()

    async def load(self, model: UpscalingModel) -> None:
        """Do nothing: a container loads all models before its first job."""

    async def load_faces(self) -> None:
        """Do nothing: a container loads what restores faces with its first job that needs it."""

    async def find_faces(self, _pixels: Pixels, /) -> None:
        """Find nothing: a container finds faces with the job."""

    async def make(self, job: UpscaleJob, timer: StageTimer) -> UpscaleResult:
        """Upscale in a container. Raises UpscalerErrors from there, RemoteFailed and Unreachable.

        The stage `queue` is all time but the work: the network, Modal's queue, maybe a cold start.
        """
        began_s = time.perf_counter()
        # Before anything is waited for: memory is held as for this way.
        bucket = usable(self._bucket)
        upload = bucket.upload(required=True) if bucket else None
        with map_modal_errors():
            try:
                payload = await self._call(job, upload)
            except faults.InternalFailure as error:
                log.warning("Modal lost a container, trying once more: %s", error)
                payload = await self._call(job, upload)
            except NotStored:
                # Clients come again after a 503, and then it goes by way of Modal.
                if bucket:
                    bucket.suspend()
                raise
        took_s = time.perf_counter() - began_s
        work = payload["seconds"]
        for stage, seconds in work.items():
            timer.seconds[stage] += seconds
        # The two times are measured on two machines, so the difference may be below zero.
        timer.seconds["queue"] += max(0.0, took_s - sum(work.values()))
        return from_payload({**payload, "seconds": timer.seconds})

    async def _call(self, job: UpscaleJob, upload: Upload | None) -> ResultPayload:
        async with calling(self._make, job, upload) as call:
            payload: ResultPayload = await call.get.aio()
        return payload


@asynccontextmanager
async def calling(
    make: Method, job: UpscaleJob, upload: Upload | None = None
) -> AsyncIterator[modal.FunctionCall[Any]]:
    """A call of `make` for `job`, which is cancelled if this is.

    Modal itself would work on, though nobody waits for it and others do.
    """
    spawning = asyncio.ensure_future(make.spawn.aio(*arguments(job, upload)))
    try:
        yield await asyncio.shield(spawning)
    except asyncio.CancelledError:
        cancelling = asyncio.ensure_future(_cancel(spawning))
        _cancellations.add(cancelling)  # the event loop itself holds only weak references to tasks
        cancelling.add_done_callback(_cancellations.discard)
        # Modal's client cancels a request that has not ended after a second once more.
        await asyncio.shield(cancelling)
        raise


async def _cancel(spawning: asyncio.Future[modal.FunctionCall[Any]]) -> None:
    try:
        await (await spawning).cancel.aio()
    except NO_ANSWER:
        log.exception("could not cancel a call that nobody waits for")


@contextmanager
def map_modal_errors() -> Iterator[None]:
    """Turn Modal's errors into RemoteFailed or Unreachable, with the reason."""
    try:
        yield
    except CALL_FAILED as error:
        raise RemoteFailed(f"a GPU container failed: {error}") from error
    except NO_ANSWER as error:
        # An error that could not be unpickled is an ExecutionError, and so is a blob that could not
        # be fetched. Only the former is raised while another error is handled.
        if isinstance(error, faults.ExecutionError) and error.__context__:
            raise RemoteFailed(f"a GPU container failed: {error}") from error
        raise Unreachable(f"cannot reach Modal: {error!r}") from error
