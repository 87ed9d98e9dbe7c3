"""Asynchronous inference: what was ordered is kept under an id, and asked for later (ASY-1 to 5).

`Jobs` is what the service needs; `InProcessJobs` keeps everything in the memory of one process and
loses it when that ends. All calls are from one event loop, and when that is shut down it cancels
what is not completed, as it does with every task.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Final, Protocol

from upscaler.contract import RESULT_LIFETIME_S
from upscaler.encoding import most_bytes
from upscaler.errors import Busy, UnknownJob
from upscaler.orders import Made, Order
from upscaler.responses import JobStatus

log = logging.getLogger(__name__)

ID_BYTES: Final = 24
"""An id is a capability: as many random bits as nobody guesses (ASY-5)."""
MAX_JOBS: Final = 10_000
"""Failed jobs take hardly any memory, and yet there must not be any number of them."""
MAX_RETRY_AFTER_S: Final = 600
NOT_COMPLETED: Final = "this inference is not completed: ask its poll_url how far it is"


class Jobs(Protocol):
    """Where asynchronous inferences are kept. An id that is not known raises UnknownJob."""

    async def start(self, order: AbstractContextManager[Order]) -> str:
        """Enter `order`, have it made, leave it, and return the id to ask by.

        Raises Busy if there is no place in line, or no room for the result.
        """
        ...

    async def status(self, job_id: str) -> JobStatus:
        """How far the job is."""
        ...

    async def result(self, job_id: str) -> Made:
        """What was made. Raises UnknownJob until it is, and what making it raised if it failed."""
        ...


@dataclass(eq=False)
class Job:
    """One asynchronous inference. `room_bytes` is what it takes up in the store, at most."""

    room_bytes: int
    status: JobStatus = JobStatus.PENDING
    made: Made | None = None
    error: Exception | None = None
    expires_s: float = float("inf")
    fetched: bool = False


class InProcessJobs:
    """Jobs in the memory of this process, with a bound on what their results take up.

    Where there is no more room, results that were fetched make way, the oldest first; those that
    were not are kept for their time, and new jobs are refused.
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
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def held_bytes(self) -> int:
        """What the results take up, and those to come at most."""
        return sum(job.room_bytes for job in self._jobs.values())

    async def start(self, order: AbstractContextManager[Order]) -> str:
        stack = ExitStack()
        try:
            entered = stack.enter_context(order)
            task = entered.task
            job = Job(room_bytes=most_bytes(task.size, task.pixels.shape[2]))
            self._make_room(job.room_bytes)
        except BaseException:
            stack.close()
            raise
        job_id = secrets.token_urlsafe(ID_BYTES)
        self._jobs[job_id] = job
        running = asyncio.create_task(self._run(job, entered, stack))
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)
        return job_id

    async def status(self, job_id: str) -> JobStatus:
        return self._job(job_id).status

    async def result(self, job_id: str) -> Made:
        job = self._job(job_id)
        if job.error is not None:
            raise job.error.with_traceback(None)
        if job.made is None:
            raise UnknownJob(NOT_COMPLETED)
        job.fetched = True
        return job.made

    async def _run(self, job: Job, order: Order, stack: ExitStack) -> None:
        """Make one order; whatever becomes of it, the other jobs are not to suffer."""

        def running() -> None:
            job.status = JobStatus.RUNNING

        try:
            with stack:
                job.made = await order.make(running)
            job.room_bytes = job.made.file_bytes
        except Exception as error:
            log.exception("an asynchronous inference failed")
            job.error, job.room_bytes = error, 0
        job.status = JobStatus.COMPLETED
        job.expires_s = self._clock() + self._lifetime_s

    def _job(self, job_id: str) -> Job:
        self._forget_expired()
        if job_id not in self._jobs:
            raise UnknownJob("no inference has this id, or its result is no longer kept")
        return self._jobs[job_id]

    def _forget_expired(self) -> None:
        now = self._clock()
        for job_id in [key for key, job in self._jobs.items() if job.expires_s <= now]:
            del self._jobs[job_id]

    def _make_room(self, room_bytes: int) -> None:
        """Forget as many of the fetched results as need be; Busy if that is not enough."""
        self._forget_expired()
        fetched = [job_id for job_id, job in self._jobs.items() if job.fetched]
        while len(self._jobs) >= MAX_JOBS or self.held_bytes + room_bytes > self.capacity_bytes:
            if not fetched:
                raise Busy("too many results are kept that nobody has fetched", MAX_RETRY_AFTER_S)
            del self._jobs[fetched.pop(0)]
