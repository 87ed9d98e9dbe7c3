"""A job store for the service: asynchronous jobs are calls in Modal's own queue."""

import asyncio
import base64
import hashlib
import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import modal
from modal import exception as faults

from upscaler.api.limits import RESULT_LIFETIME_S
from upscaler.api.responses import JobStatus
from upscaler.errors import JobFailed, UnknownJob, Unreachable, UpscalerError
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
from upscaler.modal.payload import BatchPayload, CallState, JobRecord, KeyRecord, ResultPayload
from upscaler.modal.states import States
from upscaler.models import UpscalingModel
from upscaler.service.backend import ScheduledJob, Scheduler, UpscaleResult
from upscaler.service.jobs.store import (
    ANONYMOUS,
    NOT_COMPLETED,
    UNKNOWN,
    BatchRecord,
    JobView,
    MemberRecord,
    Submission,
    cursor_of,
    response_to,
)
from upscaler.service.queue import MemoryReservation

SIGNATURE_BYTES: Final = 24
"""192 bits, so that ids cannot be guessed (ASY-5)."""
UPLOAD_S: Final = 60.0
"""How long to wait for a result that a container has announced and may still be uploading."""
POLL_S: Final = 1.0
"""How often a call is looked at that a client waits for."""
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
    queues = False
    outbox = None  # no container of ours lives as long as a receiver may be down
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

    @asynccontextmanager
    async def working(self, _scheduler: Scheduler, /) -> AsyncIterator[None]:
        """Do nothing: containers make jobs."""
        yield

    async def start(self, scheduled: ScheduledJob, submission: Submission = ANONYMOUS) -> str:
        if (known := await self.repeated(submission)) is not None:
            return known
        with scheduled as entered, map_modal_errors():
            if not self._has_room():
                raise entered.busy("too many asynchronous inferences wait")
            bucket = usable(self._bucket)
            # Not required, as a front fetches a result only if it has room for it.
            upload = bucket.upload(required=False) if bucket else None
            async with calling(self._make, entered.job, upload) as call:
                job_id = self._signed(f"{call.object_id}.{int(self._clock())}")
                await self._write_record(
                    call.object_id,
                    JobRecord(
                        id=job_id,
                        owner=submission.owner,
                        model=entered.job.model.value,
                        input_size=entered.job.input_size,
                        size=entered.job.size,
                        created_s=self._clock(),
                        estimated_s=entered.estimated_s,
                    ),
                )
                first = None
                try:
                    async with asyncio.timeout(STATE_S):
                        first = await self._keep_key(job_id, submission)
                finally:
                    if first != job_id:  # another front was faster, or nobody knows
                        await call.cancel.aio()
                return first

    async def _write_record(self, call_id: str, record: JobRecord) -> None:
        """Write what was started. Without it the job is made, but neither listed nor cancelled."""
        try:
            async with asyncio.timeout(STATE_S):
                await self._states.put_job(call_id, record)
        except NO_ANSWER:
            log.exception("a job could not be written down")

    async def repeated(self, submission: Submission) -> str | None:
        if submission.key is None:
            return None
        with map_modal_errors():
            async with asyncio.timeout(STATE_S):
                record = await self._states.key(_name(submission))
        return None if record is None else await self._job_of(record, submission)

    async def _keep_key(self, job_id: str, submission: Submission) -> str:
        """Keep the job of a key, and return it; or another one that has the key already."""
        if submission.key is None:
            return job_id
        own = KeyRecord(job_id=job_id, fingerprint=submission.fingerprint, since_s=self._clock())
        if await self._states.put_key(_name(submission), own):
            return job_id
        record = await self._states.key(_name(submission))
        known = record and await self._job_of(record, submission)
        if known:
            return known
        await self._states.put_key(_name(submission), own, replace=True)
        return job_id

    async def _job_of(self, record: KeyRecord, submission: Submission) -> str | None:
        """The job of a key that was kept, unless it is known no longer. Raises InvalidRequest."""
        try:
            await self.status(record["job_id"])
        except UnknownJob:
            return None
        Submission(fingerprint=record["fingerprint"]).check_same(submission.fingerprint)
        return record["job_id"]

    async def view(self, job_id: str) -> JobView:
        call_id = self._call_id(job_id)
        record = await self._record(call_id)
        if record is None:  # of an older version, or a week old
            raise UnknownJob(UNKNOWN)
        return await self._view(record)

    async def views(self, job_ids: list[str]) -> dict[str, JobView]:
        views = {}
        for each in job_ids:
            with suppress(UnknownJob):
                views[each] = await self.view(each)
        return views

    async def preview(self, _job_id: str, /) -> None:
        """There is none: containers make the rows, and tell only how many."""
        return

    async def wait(self, job_id: str) -> None:
        while await self.status(job_id) is not JobStatus.COMPLETED:  # noqa: ASYNC110  made elsewhere
            await asyncio.sleep(POLL_S)

    async def cancel(self, job_id: str, owner: str) -> None:
        await self.status(job_id)  # raises UnknownJob if it is known no longer
        call_id = self._call_id(job_id)
        record = await self._record(call_id)
        if record is None or record["owner"] != owner:
            raise UnknownJob(UNKNOWN)
        with map_modal_errors():
            async with asyncio.timeout(STATE_S):
                # First what clients see: a call that has ended cannot be cancelled.
                await self._states.put_job(call_id, {**record, "cancelled": True})
                gone = CallState(
                    completed=True, file_bytes=0, since_s=self._clock(), cancelled=True
                )
                await self._states.put(call_id, gone)
                await modal.FunctionCall.from_id(call_id).cancel.aio()

    async def put_batch(self, record: BatchRecord) -> None:
        payload = BatchPayload(
            owner=record.owner,
            created_s=record.created_s,
            members=[
                (each.name, each.job_id, each.error and tuple(each.error))
                for each in record.members
            ],
        )
        with map_modal_errors():
            async with asyncio.timeout(STATE_S):
                await self._states.put_batch(record.id, payload)

    async def batch(self, batch_id: str) -> BatchRecord | None:
        with map_modal_errors():
            async with asyncio.timeout(STATE_S):
                found = await self._states.batch(batch_id)
        if found is None:
            return None
        members = [
            MemberRecord(name, job_id, JobFailed.Response(*error) if error else None)
            for name, job_id, error in found["members"]
        ]
        return BatchRecord(batch_id, found["owner"], found["created_s"], members)

    async def remove_batch(self, batch_id: str) -> None:
        with map_modal_errors():
            async with asyncio.timeout(STATE_S):
                await self._states.remove_batch(batch_id)

    async def listed(self, owner: str, limit: int, before: str | None = None) -> list[JobView]:
        with map_modal_errors():
            async with asyncio.timeout(STATE_S):
                records = await self._states.jobs(owner)
        records.sort(key=lambda record: record["created_s"], reverse=True)
        end_s = cursor_of(before)
        views: list[JobView] = []
        for record in records:
            if float(_cursor(record)) >= end_s:
                continue
            with suppress(UnknownJob):
                views.append(await self._view(record))
            if len(views) == limit:
                break
        return views

    async def _view(self, record: JobRecord) -> JobView:
        job_id = record["id"]
        status = await self.status(job_id)
        state = await self._state(self._call_id(job_id))
        failure = None
        if status is JobStatus.COMPLETED and state and not state["file_bytes"]:
            failure = await self._failure(job_id)
        since_s = state["since_s"] if state else None
        completed = status is JobStatus.COMPLETED
        return JobView(
            id=job_id,
            cursor=_cursor(record),
            status=status,
            model=UpscalingModel(record["model"]),
            input_size=record["input_size"],
            size=record["size"],
            created_s=record["created_s"],
            started_s=None if completed else since_s,
            finished_s=since_s if completed else None,
            done=1.0 if completed else state.get("done", 0.0) if state else 0.0,
            estimated_s=record["estimated_s"],
            failure=failure,
        )

    async def _failure(self, job_id: str) -> JobFailed.Response | None:
        """The response to a call that failed; None if its result is stored elsewhere."""
        try:
            await self.result(job_id)
        except UnknownJob:
            raise
        except UpscalerError as error:
            return response_to(error)
        return None

    async def status(self, job_id: str) -> JobStatus:
        call_id = self._call_id(job_id)
        state = await self._known_state(call_id)
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
        state = await self._known_state(call_id)
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

    async def _known_state(self, call_id: str) -> CallState | None:
        """The state of a call. Raises UnknownJob if it was cancelled."""
        state = await self._state(call_id)
        cancelled = state and state.get("cancelled")
        if state and state["completed"] and not cancelled:
            # The container may have written its state after that of the cancellation.
            record = await self._record(call_id)
            cancelled = record and record.get("cancelled")
        if cancelled:
            raise UnknownJob(UNKNOWN)
        return state

    async def _record(self, call_id: str) -> JobRecord | None:
        with map_modal_errors():
            async with asyncio.timeout(STATE_S):
                return await self._states.job(call_id)

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


def _cursor(record: JobRecord) -> str:
    return f"{record['created_s']:.6f}"


def _name(submission: Submission) -> str:
    """The name of an owner's key: of one length, whatever clients send."""
    text = f"{submission.owner}\0{submission.key}"
    return hashlib.sha256(text.encode()).hexdigest()


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
