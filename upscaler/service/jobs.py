"""Asynchronous inference: jobs are kept under an ID, and clients poll for them (ASY-1 to 5).

`JobStore` is what the service needs; `LocalJobStore` keeps everything in the memory of one process
and loses it when that ends. All calls come from one event loop; shutting it down cancels the jobs
that are not completed, as it does with every task.
"""

import asyncio
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Final, Protocol

from upscaler.api.limits import RESULT_LIFETIME_S
from upscaler.api.responses import JobStatus
from upscaler.errors import Busy, JobFailed, UnknownJob, UpscalerError, release_frames
from upscaler.imaging.encode import most_bytes
from upscaler.service.backend import ScheduledJob, UpscaleResult
from upscaler.service.queue import MemoryReservation

log = logging.getLogger(__name__)

ID_BYTES: Final = 24
"""Of an ID, which is a capability: too many random bits to guess (ASY-5)."""
MAX_JOBS: Final = 10_000
"""Failed jobs take hardly any memory, but their number must be limited, too."""
MAX_RETRY_AFTER_S: Final = 600
UNEXPECTED: Final = JobFailed.Response(500, "Internal Server Error", {})
"""The response to an unexpected error: its text could reveal internals."""
NOT_COMPLETED: Final = "this inference is not completed: ask its poll_url how far it is"


class JobStore(Protocol):
    """Where asynchronous inferences are kept. An unknown ID raises UnknownJob."""

    @property
    def made_elsewhere(self) -> bool:
        """Whether the work is done by another process, so that nothing of it is counted here."""
        ...

    @property
    def results_bytes(self) -> int:
        """The size of the results that are kept in this process."""
        ...

    async def start(self, scheduled: AbstractContextManager[ScheduledJob]) -> str:
        """Enter `scheduled`, run its job in the background, and return an ID for it.

        Raises Busy if the queue is full, or there is no room for the result.
        """
        ...

    async def status(self, job_id: str) -> JobStatus:
        """Return the status of a job."""
        ...

    async def result(self, job_id: str, memory: MemoryReservation | None = None) -> UpscaleResult:
        """Return the result. Raises UnknownJob until it is there, and JobFailed if it failed.

        A result that is kept elsewhere is held in `memory` before it is fetched; else raises Busy.
        """
        ...


@dataclass(eq=False)
class Job:
    """One asynchronous inference. `room_bytes` is what it takes up in the store, at most.

    `failure` is the response for the client, not the exception: that would keep the frames it
    passed through, and with them the image. `done` is set once the work has ended, however it
    ended, and `expires_s` is infinite until `LocalJobStore.begin_lifetime`.
    """

    id: str
    room_bytes: int
    status: JobStatus = JobStatus.PENDING
    result: UpscaleResult | None = None
    failure: JobFailed.Response | None = None
    expires_s: float = math.inf
    done: asyncio.Event = field(default_factory=asyncio.Event)


class LocalJobStore:
    """Jobs in the memory of this process, with a bound on what their results take up.

    When it is full, jobs whose results were fetched are dropped, the least recently fetched first.
    Jobs that were not fetched are kept for their lifetime, and new jobs are refused.

    A subclass may override two hooks: `complete`, to change how a job turns out, and
    `begin_lifetime`, to let the lifetime of a result begin later.
    """

    made_elsewhere = False

    def __init__(
        self,
        capacity_bytes: int,
        *,
        lifetime_s: float = RESULT_LIFETIME_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self.clear()

    @property
    def held_bytes(self) -> int:
        """The size of the results, and the maximum size of those to come."""
        return self.results_bytes + self._reserved_bytes

    @property
    def results_bytes(self) -> int:
        self._forget_expired()
        return self._results_bytes

    async def start(self, scheduled: AbstractContextManager[ScheduledJob]) -> str:
        stack = ExitStack()
        try:
            entered = stack.enter_context(scheduled)
            # Room for the largest file that can result, since only encoding shows how large it is.
            room_bytes = most_bytes(entered.job.size, entered.job.pixels.shape[2])
            self._make_room(room_bytes, entered)
            job = Job(secrets.token_urlsafe(ID_BYTES), room_bytes)
        except BaseException:
            stack.close()
            raise
        self._jobs[job.id] = job
        self._reserved_bytes += job.room_bytes
        running = asyncio.create_task(self._run(job, entered, stack))
        self._tasks.add(running)  # the event loop itself holds only weak references to tasks
        running.add_done_callback(self._tasks.discard)
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
            raise UnknownJob("no inference has this id, or its result is no longer kept")
        return self._jobs[job_id]

    def clear(self) -> None:
        """Forget all jobs. The work that is under way goes on, and its results are dropped."""
        # New dictionaries, since a server in another thread may be iterating over the old ones.
        # They are ordered by start, by expiry, and by the most recent fetch.
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._expiring: OrderedDict[str, Job] = OrderedDict()
        self._fetched: OrderedDict[str, Job] = OrderedDict()
        self._results_bytes = self._reserved_bytes = 0

    def complete(self, job: Job) -> None:
        """Count the result or the failure of `job`, and begin its lifetime; called once a job.

        It is not called for a job that was forgotten meanwhile.
        """
        self._reserved_bytes -= job.room_bytes
        job.room_bytes = job.result.file_bytes if job.result else 0
        self._results_bytes += job.room_bytes
        job.status = JobStatus.COMPLETED
        self.begin_lifetime(job)

    def begin_lifetime(self, job: Job) -> None:
        """Keep `job` for the lifetime of a result, from now on; does nothing the second time."""
        if job.expires_s == math.inf and self._jobs.get(job.id) is job:
            job.expires_s = self._clock() + self._lifetime_s
            self._expiring[job.id] = job

    async def _run(self, job: Job, scheduled: ScheduledJob, stack: ExitStack) -> None:
        """Run one job. Whatever it raises ends here, and does not affect the other jobs."""

        def running() -> None:
            job.status = JobStatus.RUNNING

        failure = UNEXPECTED
        try:
            with stack:
                job.result = await scheduled.run(running)
        except Exception as error:
            log.exception("an asynchronous inference failed")
            if isinstance(error, UpscalerError):
                failure = JobFailed.Response(error.status, error.detail, error.headers)
            release_frames(error)
        finally:  # also when the work was cancelled
            job.failure = None if job.result else failure
            if self._jobs.get(job.id) is job:  # else `clear` was called meanwhile
                self.complete(job)
            job.done.set()

    def _forget_expired(self) -> None:
        now_s = self._clock()
        while self._expiring and (job := next(iter(self._expiring.values()))).expires_s <= now_s:
            self._forget(job)

    def _forget(self, job: Job) -> None:
        for jobs in (self._jobs, self._expiring, self._fetched):
            jobs.pop(job.id, None)
        self._results_bytes -= job.room_bytes

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
