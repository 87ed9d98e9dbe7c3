"""Asynchronous inference: what was ordered is kept under an id, and asked for later (ASY-1 to 5).

`JobStore` is what the service needs; `LocalJobStore` keeps everything in the memory of one process
and loses it when that ends. All calls come from one event loop; when that is shut
down it cancels what is not completed, as it does with every task.
"""

import asyncio
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Final, Protocol

from upscaler.api.limits import RESULT_LIFETIME_S
from upscaler.api.responses import JobStatus
from upscaler.errors import Busy, JobFailed, UnknownJob, UpscalerError, let_go
from upscaler.imaging.encode import most_bytes
from upscaler.service.backend import ScheduledJob, UpscaleResult

log = logging.getLogger(__name__)

ID_BYTES: Final = 24
"""An id is a capability: as many random bits as nobody guesses (ASY-5)."""
MAX_JOBS: Final = 10_000
"""Failed jobs take hardly any memory, and yet there must not be any number of them."""
MAX_RETRY_AFTER_S: Final = 600
UNFORESEEN: Final = JobFailed.Told(500, "Internal Server Error", {})
"""What is told of a failure that is nobody's on purpose."""
NOT_COMPLETED: Final = "this inference is not completed: ask its poll_url how far it is"


class JobStore(Protocol):
    """Where asynchronous inferences are kept. An id that is not known raises UnknownJob."""

    @property
    def results_bytes(self) -> int:
        """What the results take up that are kept in this process."""
        ...

    async def start(self, order: AbstractContextManager[ScheduledJob]) -> str:
        """Enter `order`, have it made, leave it, and return the id to ask by.

        Raises Busy if there is no place in line, or no room for the result.
        """
        ...

    async def status(self, job_id: str) -> JobStatus:
        """How far the job is."""
        ...

    async def result(self, job_id: str) -> UpscaleResult:
        """What was made. Raises UnknownJob until it is, and JobFailed if making it failed."""
        ...


@dataclass(eq=False)
class Job:
    """One asynchronous inference. `room_bytes` is what it takes up in the store, at most.

    Of a failure that is kept which its client is told: an exception would keep the frames that it
    passed through, and with them the picture.
    """

    id: str
    room_bytes: int
    status: JobStatus = JobStatus.PENDING
    made: UpscaleResult | None = None
    failure: JobFailed.Told | None = None
    expires_s: float = math.inf


class LocalJobStore:
    """Jobs in the memory of this process, with a bound on what their results take up.

    Where there is no more room, jobs that were fetched make way, first those that nobody has asked
    for since; those that were not are kept for their time, and new jobs are refused.
    """

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
        self._clear()

    @property
    def held_bytes(self) -> int:
        """What the results take up, and those to come at most."""
        return self.results_bytes + self._reserved_bytes

    @property
    def results_bytes(self) -> int:
        self._forget_expired()
        return self._results_bytes

    async def start(self, order: AbstractContextManager[ScheduledJob]) -> str:
        stack = ExitStack()
        try:
            entered = stack.enter_context(order)
            task = entered.task
            job = Job(secrets.token_urlsafe(ID_BYTES), most_bytes(task.size, task.pixels.shape[2]))
            self._make_room(job.room_bytes, entered)
        except BaseException:
            stack.close()
            raise
        self._jobs[job.id] = job
        self._reserved_bytes += job.room_bytes
        running = asyncio.create_task(self._run(job, entered, stack))
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)
        return job.id

    async def status(self, job_id: str) -> JobStatus:
        return self._job(job_id).status

    async def result(self, job_id: str) -> UpscaleResult:
        job = self._job(job_id)
        if job.failure is None and job.made is None:
            raise UnknownJob(NOT_COMPLETED)
        self._fetched[job_id] = job
        self._fetched.move_to_end(job_id)
        if job.failure is not None:
            raise JobFailed(job.failure)
        assert job.made is not None, "it has not failed"
        return job.made

    async def _run(self, job: Job, order: ScheduledJob, stack: ExitStack) -> None:
        """Make one order; whatever becomes of it, the other jobs are not to suffer."""

        def running() -> None:
            job.status = JobStatus.RUNNING

        failure = UNFORESEEN
        try:
            with stack:
                job.made = await order.make(running)
        except Exception as error:
            log.exception("an asynchronous inference failed")
            if isinstance(error, UpscalerError):
                failure = JobFailed.Told(error.status, error.detail, error.headers)
            let_go(error)
        finally:  # be it that making it was cancelled
            job.failure = None if job.made else failure
            if self._jobs.get(job.id) is job:  # else all of them were forgotten meanwhile
                self._complete(job)

    def _complete(self, job: Job) -> None:
        self._reserved_bytes -= job.room_bytes
        job.room_bytes = job.made.file_bytes if job.made else 0
        self._results_bytes += job.room_bytes
        job.status = JobStatus.COMPLETED
        self._expire_later(job)

    def _expire_later(self, job: Job) -> None:
        """Let the time begin for which a job is kept."""
        job.expires_s = self._clock() + self._lifetime_s
        self._expiring[job.id] = job

    def _job(self, job_id: str) -> Job:
        self._forget_expired()
        if job_id not in self._jobs:
            raise UnknownJob("no inference has this id, or its result is no longer kept")
        return self._jobs[job_id]

    def _forget_expired(self) -> None:
        now_s = self._clock()
        while self._expiring and (job := next(iter(self._expiring.values()))).expires_s <= now_s:
            self._forget(job)

    def _forget(self, job: Job) -> None:
        for jobs in (self._jobs, self._expiring, self._fetched):
            jobs.pop(job.id, None)
        self._results_bytes -= job.room_bytes

    def _make_room(self, room_bytes: int, order: ScheduledJob) -> None:
        """Forget as many of the fetched jobs as need be; if not enough, none of them, and Busy."""
        self._forget_expired()
        surplus_bytes = self.held_bytes + room_bytes - self.capacity_bytes
        if surplus_bytes <= 0 and len(self._jobs) < MAX_JOBS:
            return
        surplus_bytes -= sum(job.room_bytes for job in self._fetched.values())
        if surplus_bytes > 0 or len(self._jobs) - len(self._fetched) >= MAX_JOBS:
            raise self._busy(surplus_bytes, order)
        while len(self._jobs) >= MAX_JOBS or self.held_bytes + room_bytes > self.capacity_bytes:
            self._forget(next(iter(self._fetched.values())))

    def _busy(self, surplus_bytes: int, order: ScheduledJob) -> Busy:
        """What is to be told of results in the way: those to come, or else those that are kept."""
        if 0 < surplus_bytes <= self._reserved_bytes:
            return order.busy(
                "the results of the pictures under way may need all room that there is"
            )
        kept = (job for job in self._expiring.values() if job.id not in self._fetched)
        first_s = next((job.expires_s - self._clock() for job in kept), math.inf)
        retry_after_s = max(1, math.ceil(min(MAX_RETRY_AFTER_S, first_s)))
        return Busy("too many results are kept that nobody has fetched", retry_after_s)

    def _clear(self) -> None:
        """Know of no job any more."""
        # Others than before, since a server in another thread may go through those. Each in its
        # order: of the start, the end and the last time fetched.
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._expiring: OrderedDict[str, Job] = OrderedDict()
        self._fetched: OrderedDict[str, Job] = OrderedDict()
        self._results_bytes = self._reserved_bytes = 0
