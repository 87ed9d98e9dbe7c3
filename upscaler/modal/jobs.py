"""A job store for the service: asynchronous jobs are calls in Modal's own queue."""

import asyncio
import base64
import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import modal
from modal import exception as faults

from upscaler.api.limits import RESULT_LIFETIME_S
from upscaler.api.responses import JobStatus
from upscaler.errors import UnknownJob, Unreachable
from upscaler.modal.backend import (
    NO_ANSWER,
    RESULT_COPIES,
    Method,
    calling,
    from_payload,
    map_modal_errors,
    usable,
)
from upscaler.modal.bucket import GONE, Bucket
from upscaler.modal.payload import CallState, ResultPayload
from upscaler.modal.states import States
from upscaler.service.backend import ScheduledJob, UpscaleResult
from upscaler.service.jobs import NOT_COMPLETED
from upscaler.service.queue import MemoryReservation

SIGNATURE_BYTES: Final = 24
"""192 bits, so that ids cannot be guessed (ASY-5)."""
UPLOAD_S: Final = 60.0
"""How long to wait for a result that a container has announced and may still be uploading."""
STATE_S: Final = 10.0
"""How long to wait for a state to be read or written, which Modal's client never gives up."""

log = logging.getLogger(__name__)


class ModalJobStore:
    """Jobs in Modal's own queue, which keeps their results for a week.

    A job's id is the id of Modal's call with a signature. So every container can look up every job,
    whichever started it, and clients cannot ask for calls that are not jobs. GPU containers write
    to `states` how far each call is: to ask Modal itself would be to download the result.
    """

    made_elsewhere = True
    results_bytes = 0  # they are kept by Modal

    def __init__(
        self,
        make: Method,
        states: States,
        key: bytes,
        bucket: Bucket | None = None,
        *,
        has_room: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`states` has a CallState for each call of `make`; `key` is the secret that signs ids.

        If there is a `bucket`, containers upload results to it. No job is started while `has_room`
        returns False.
        """
        self._make = make
        self._bucket = bucket
        self._states = states
        # A derived key: the prefix separates it from any other use of the token.
        self._key = hashlib.sha256(b"ids of jobs\0" + key).digest()
        self._has_room = has_room
        self._clock = clock

    async def start(self, scheduled: AbstractContextManager[ScheduledJob]) -> str:
        with scheduled as entered, map_modal_errors():
            if not self._has_room():
                raise entered.busy("too many asynchronous inferences wait")
            bucket = usable(self._bucket)
            # Not required, as a front fetches a result only if it has room for it.
            upload = bucket.upload(required=False) if bucket else None
            async with calling(self._make, entered.job, upload) as call:
                return self._signed(f"{call.object_id}.{int(self._clock())}")

    async def status(self, job_id: str) -> JobStatus:
        call_id = self._call_id(job_id)
        state = await self._state(call_id)
        if state is None or not state["completed"]:
            ended = await self._ended(call_id)
            if ended is None:
                return JobStatus.PENDING if state is None else JobStatus.RUNNING
            try:
                async with asyncio.timeout(STATE_S):
                    await self._states.put(call_id, ended)
            except NO_ANSWER:  # a later poll will find it out once more
                log.exception("the state of a call could not be written")
            state = ended
        self._check_age(state["since_s"])
        return JobStatus.COMPLETED

    async def result(self, job_id: str, memory: MemoryReservation | None = None) -> UpscaleResult:
        call_id = self._call_id(job_id)
        state = await self._state(call_id)
        completed = state is not None and state["completed"]
        if state is not None and completed:
            self._check_age(state["since_s"])
            if memory:
                memory.reserve_result(RESULT_COPIES * state["file_bytes"])
        payload = await _call_result(call_id, UPLOAD_S if completed else 0.0)
        if payload is None and completed:
            raise Unreachable(f"the result of {call_id} is announced, but does not come")
        if payload is None:
            raise UnknownJob(NOT_COMPLETED)
        self._check_age(payload["finished_s"])
        lifetime_s = payload["finished_s"] + RESULT_LIFETIME_S - self._clock()
        return from_payload(payload, self._bucket, lifetime_s)

    async def _state(self, call_id: str) -> CallState | None:
        with map_modal_errors():
            async with asyncio.timeout(STATE_S):
                return await self._states.get(call_id)

    async def _ended(self, call_id: str) -> CallState | None:
        """The state of a call that has ended, though it is not written; None if it goes on.

        So it is with containers that died, and older versions, whose results this downloads.
        """
        try:
            payload = await _call_result(call_id, 0.0)
        except (UnknownJob, Unreachable):
            raise
        except Exception:
            # A failed job is completed: its result is the error (docs/MODAL.md).
            return CallState(completed=True, file_bytes=0, since_s=self._clock())
        if payload is None:
            return None
        file_bytes = sum(map(len, payload["file"]))
        return CallState(completed=True, file_bytes=file_bytes, since_s=payload["finished_s"])

    def _check_age(self, since_s: float) -> None:
        """Raise UnknownJob if the lifetime of results has passed since then (ASY-4)."""
        if self._clock() >= since_s + RESULT_LIFETIME_S:
            raise UnknownJob(GONE)

    def _signed(self, text: str) -> str:
        digest = hmac.digest(self._key, text.encode(), "sha256")[:SIGNATURE_BYTES]
        return f"{text}.{base64.urlsafe_b64encode(digest).decode()}"

    def _call_id(self, job_id: str) -> str:
        """The id of a job's call. Raises UnknownJob for an invalid signature."""
        text, _, _ = job_id.rpartition(".")
        # Bytes: compare_digest takes no str with other characters than ASCII, which ids may have.
        if not hmac.compare_digest(self._signed(text).encode(), job_id.encode()):
            raise UnknownJob("no inference has this id")
        return text.partition(".")[0]


async def _call_result(call_id: str, wait_s: float) -> ResultPayload | None:
    """What a call returned, or None if nothing comes in so many seconds.

    Raises UnknownJob, Unreachable, or the call's error.
    """
    call: modal.FunctionCall[Any] = modal.FunctionCall.from_id(call_id)
    with map_modal_errors():
        try:
            payload: ResultPayload = await call.get.aio(timeout=wait_s)
        except (faults.NotFoundError, faults.OutputExpiredError) as error:
            raise UnknownJob(GONE) from error
        except TimeoutError:
            return None
    return payload
