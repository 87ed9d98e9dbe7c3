"""Jobs in the memory of one process, which are lost when it ends: for tests and the mock.

All calls come from one event loop; shutting it down cancels the jobs that are not completed, as it
does with every task.
"""

import asyncio
import itertools
import logging
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from upscaler.api.limits import RESULT_LIFETIME_S
from upscaler.api.responses import JobStatus
from upscaler.errors import Busy, JobFailed, UnknownJob, release_frames
from upscaler.service.backend import ScheduledJob, Scheduler, StageTimer, UpscaleResult
from upscaler.service.jobs.store import (
    ANONYMOUS,
    BATCH_LIFETIME_S,
    MAX_JOBS,
    MAX_RETRY_AFTER_S,
    NOT_COMPLETED,
    UNEXPECTED,
    UNKNOWN,
    BatchRecord,
    JobView,
    Submission,
    cursor_of,
    response_to,
)
from upscaler.service.owners import new_id
from upscaler.service.preview import Preview
from upscaler.service.queue import MemoryReservation
from upscaler.service.webhooks import CLAIM_S, Message, message_about

log = logging.getLogger(__name__)

_AHEAD_S: Final = time.time() - time.monotonic()


def steady_time() -> float:
    """The seconds since 1970, by a clock that nobody sets back while this process lives."""
    return _AHEAD_S + time.monotonic()


@dataclass(eq=False)
class Job:
    """One asynchronous inference. `room_bytes` is what it takes up in the store, at most.

    `shown` is how its owner sees it, but for what the other fields say of it. `failure` is the
    response for the client, not the exception: that would keep the frames it passed through, and
    with them the image. `done` is set once the work has ended, however it ended, and `expires_s` is
    infinite until `MemoryJobStore.begin_lifetime`.
    """

    shown: JobView
    room_bytes: int
    submission: Submission
    timer: StageTimer
    status: JobStatus = JobStatus.PENDING
    result: UpscaleResult | None = None
    failure: JobFailed.Response | None = None
    expires_s: float = math.inf
    done: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        return self.shown.id


class MemoryOutbox:
    """Webhooks in the memory of this process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._messages: dict[str, tuple[float, Message]] = {}

    def clear(self) -> None:
        """Forget all messages."""
        self._messages = {}

    def add(self, message: Message) -> None:
        """Keep a message, which is due at once."""
        self._messages[message.id] = message.created_s, message

    def now_s(self) -> float:
        return self._clock()

    async def due(self, limit: int, owners: Collection[str]) -> list[Message]:
        now_s = self._clock()
        all_due = (
            message
            for due_s, message in self._messages.values()
            if due_s <= now_s and message.owner in owners
        )
        taken = list(islice(all_due, limit))
        self._messages |= {message.id: (now_s + CLAIM_S, message) for message in taken}
        return taken

    async def settle(self, message_id: str, retry_s: float | None) -> None:
        _, message = self._messages.pop(message_id, (0.0, None))
        if message and retry_s is not None:
            again = replace(message, attempts=message.attempts + 1)
            self._messages[message_id] = self._clock() + retry_s, again


class MemoryJobStore:
    """Jobs in the memory of this process, with a bound on what their results take up.

    When it is full, jobs whose results were fetched are dropped, the least recently fetched first.
    Jobs that were not fetched are kept for their lifetime, and new jobs are refused.

    A subclass may override two hooks: `complete`, to change how a job turns out, and
    `begin_lifetime`, to let the lifetime of a result begin later.
    """

    made_elsewhere = False
    queues = False

    def __init__(
        self,
        capacity_bytes: int,
        *,
        lifetime_s: float = RESULT_LIFETIME_S,
        clock: Callable[[], float] = steady_time,
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self.outbox = MemoryOutbox(clock)
        self._numbers = itertools.count(1)
        self.clear()

    @property
    def held_bytes(self) -> int:
        """The size of the results, and the maximum size of those to come."""
        return self.results_bytes + self._reserved_bytes

    @property
    def results_bytes(self) -> int:
        self._forget_expired()
        return self._results_bytes

    @asynccontextmanager
    async def working(self, _scheduler: Scheduler, /) -> AsyncIterator[None]:
        """Do nothing: `start` starts each job."""
        yield

    async def start(self, scheduled: ScheduledJob, submission: Submission = ANONYMOUS) -> str:
        if (known := await self.repeated(submission)) is not None:
            return known
        stack = ExitStack()
        try:
            stack.enter_context(scheduled)
            self._make_room(scheduled.room_bytes, scheduled)
            shown = JobView(
                id=new_id(),
                cursor=str(next(self._numbers)),
                status=JobStatus.PENDING,
                model=scheduled.job.model,
                input_size=scheduled.job.input_size,
                size=scheduled.job.size,
                created_s=self._clock(),
                estimated_s=scheduled.estimated_s,
            )
            job = Job(shown, scheduled.room_bytes, submission, scheduled.timer)
        except BaseException:
            stack.close()
            raise
        self._jobs[job.id] = job
        self._reserved_bytes += job.room_bytes
        if submission.key is not None:
            self._keyed[submission.owner, submission.key] = job
        job.task = asyncio.create_task(self._run(job, scheduled, stack))
        self._tasks.add(job.task)  # the event loop itself holds only weak references to tasks
        job.task.add_done_callback(self._tasks.discard)
        # Also if it is cancelled before it has begun.
        job.task.add_done_callback(lambda _: stack.close())
        return job.id

    async def repeated(self, submission: Submission) -> str | None:
        self._forget_expired()
        job = self._keyed.get((submission.owner, submission.key or ""))
        if submission.key is None or job is None:
            return None
        job.submission.check_same(submission.fingerprint)
        return job.id

    async def status(self, job_id: str) -> JobStatus:
        return self.find(job_id).status

    async def result(
        self,
        job_id: str,
        memory: MemoryReservation | None = None,  # noqa: ARG002  results are counted as such
    ) -> UpscaleResult:
        job = self.find(job_id)
        if job.failure is None and job.result is None:
            raise UnknownJob(NOT_COMPLETED)
        if job.submission.key is None:  # else a repetition will ask for it
            self._fetched[job_id] = job
            self._fetched.move_to_end(job_id)
        if job.failure is not None:
            raise JobFailed(job.failure)
        assert job.result is not None, "it has not failed"
        return job.result

    def find(self, job_id: str) -> Job:
        """Return the job with this ID; raises UnknownJob if there is none, or no longer."""
        self._forget_expired()
        if job_id not in self._jobs:
            raise UnknownJob(UNKNOWN)
        return self._jobs[job_id]

    async def view(self, job_id: str) -> JobView:
        return self._view(self.find(job_id))

    async def views(self, job_ids: list[str]) -> dict[str, JobView]:
        self._forget_expired()
        return {each: self._view(self._jobs[each]) for each in job_ids if each in self._jobs}

    async def preview(self, job_id: str) -> Preview | None:
        job = self.find(job_id)
        if job.done.is_set():
            return None
        job.timer.preview = job.timer.preview or Preview(job.shown.size)
        return job.timer.preview

    async def wait(self, job_id: str) -> None:
        await self.find(job_id).done.wait()

    async def cancel(self, job_id: str, owner: str) -> None:
        job = self.find(job_id)
        if job.submission.owner != owner:
            raise UnknownJob(UNKNOWN)
        self._forget(job)
        if job.task:
            job.task.cancel()

    async def put_batch(self, record: BatchRecord) -> None:
        old_s = self._clock() - BATCH_LIFETIME_S
        for each in [each for each in self._batches.values() if each.created_s < old_s]:
            del self._batches[each.id]
        self._batches[record.id] = record

    async def batch(self, batch_id: str) -> BatchRecord | None:
        return self._batches.get(batch_id)

    async def remove_batch(self, batch_id: str) -> None:
        self._batches.pop(batch_id, None)

    async def listed(self, owner: str, limit: int, before: str | None = None) -> list[JobView]:
        self._forget_expired()
        end = cursor_of(before)
        own = (
            job
            for job in reversed(self._jobs.values())
            if job.submission.owner == owner and int(job.shown.cursor) < end
        )
        return [self._view(job) for job in islice(own, limit)]

    def clear(self) -> None:
        """Forget all jobs. The work that is under way goes on, and its results are dropped."""
        # New dictionaries, since a server in another thread may be iterating over the old ones.
        # They are ordered by start, by expiry, and by the most recent fetch.
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._expiring: OrderedDict[str, Job] = OrderedDict()
        self._fetched: OrderedDict[str, Job] = OrderedDict()
        self._batches: dict[str, BatchRecord] = {}
        self._keyed: dict[tuple[str, str], Job] = {}
        self._results_bytes = self._reserved_bytes = 0
        self.outbox.clear()

    def complete(self, job: Job) -> None:
        """Count the result or the failure of `job`, and begin its lifetime; called once a job.

        It is not called for a job that was forgotten meanwhile.
        """
        self._reserved_bytes -= job.room_bytes
        job.room_bytes = job.result.file_bytes if job.result else 0
        self._results_bytes += job.room_bytes
        job.status = JobStatus.COMPLETED
        self.begin_lifetime(job)
        if webhook := job.submission.webhook:
            owner, now_s = job.submission.owner, self._clock()
            self.outbox.add(message_about(job.id, owner, webhook, job.failure, now_s))

    def begin_lifetime(self, job: Job) -> None:
        """Keep `job` for the lifetime of a result, from now on; does nothing the second time."""
        if job.expires_s == math.inf and self._jobs.get(job.id) is job:
            job.shown = replace(job.shown, finished_s=self._clock())
            job.expires_s = self._clock() + self._lifetime_s
            self._expiring[job.id] = job

    async def _run(self, job: Job, scheduled: ScheduledJob, stack: ExitStack) -> None:
        """Run one job. Whatever it raises ends here, and does not affect the other jobs."""

        def running() -> None:
            job.status = JobStatus.RUNNING
            job.shown = replace(job.shown, started_s=self._clock())

        failure = UNEXPECTED
        try:
            with stack:
                job.result = await scheduled.run(running)
        except Exception as error:
            log.exception("an asynchronous inference failed")
            failure = response_to(error)
            release_frames(error)
        finally:  # also when the work was cancelled
            job.failure = None if job.result else failure
            if self._jobs.get(job.id) is job:  # else `clear` was called meanwhile
                self.complete(job)
            job.timer.preview = None
            job.done.set()

    def _view(self, job: Job) -> JobView:
        ahead = 0
        if job.status is JobStatus.PENDING:
            jobs = self._jobs.values()
            left = (each for each in jobs if each.status is not JobStatus.COMPLETED)
            ahead = next(place for place, each in enumerate(left) if each is job)
        done = 1.0 if job.status is JobStatus.COMPLETED else job.timer.done
        return replace(job.shown, status=job.status, done=done, ahead=ahead, failure=job.failure)

    def _forget_expired(self) -> None:
        now_s = self._clock()
        while self._expiring and (job := next(iter(self._expiring.values()))).expires_s <= now_s:
            self._forget(job)

    def _forget(self, job: Job) -> None:
        for jobs in (self._jobs, self._expiring, self._fetched):
            jobs.pop(job.id, None)
        if job.submission.key is not None:
            del self._keyed[job.submission.owner, job.submission.key]
        if job.status is JobStatus.COMPLETED:
            self._results_bytes -= job.room_bytes
        else:
            self._reserved_bytes -= job.room_bytes

    def _make_room(self, room_bytes: int, scheduled: ScheduledJob) -> None:
        """Forget fetched jobs until there is room; raises Busy if all of them are not enough."""
        self._forget_expired()
        surplus_bytes = self.held_bytes + room_bytes - self.capacity_bytes
        if surplus_bytes <= 0 and len(self._jobs) < MAX_JOBS:
            return
        # Decide first: a job that is refused all the same must not cost others their results.
        surplus_bytes -= sum(job.room_bytes for job in self._fetched.values())
        if surplus_bytes > 0 or len(self._jobs) - len(self._fetched) >= MAX_JOBS:
            raise self._busy(surplus_bytes, scheduled)
        while len(self._jobs) >= MAX_JOBS or self.held_bytes + room_bytes > self.capacity_bytes:
            self._forget(next(iter(self._fetched.values())))

    def _busy(self, surplus_bytes: int, scheduled: ScheduledJob) -> Busy:
        """Return the error for a job whose result has no room, with when to retry."""
        if 0 < surplus_bytes <= self._reserved_bytes:
            # Results are mostly far smaller than reserved: a running job's end will make room.
            return scheduled.busy("the results of running jobs may need all the memory for results")
        kept = (job for job in self._expiring.values() if job.id not in self._fetched)
        first_s = next((job.expires_s - self._clock() for job in kept), math.inf)
        retry_after_s = max(1, math.ceil(min(MAX_RETRY_AFTER_S, first_s)))
        return Busy("too many results have not been fetched", retry_after_s)
