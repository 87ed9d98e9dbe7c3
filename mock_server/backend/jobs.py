"""Asynchronous inferences whose progress goes by how often it was asked for."""

import asyncio
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from mock_server.faults.fault import OK, current
from mock_server.faults.schedule import Chosen
from upscaler.api.responses import JobStatus
from upscaler.errors import JobFailed, UnknownJob
from upscaler.service.backend import ScheduledJob, UpscaleResult
from upscaler.service.jobs import NOT_COMPLETED, Job, LocalJobStore

FAILURES: Final = {500: "Internal Server Error", 503: "the picture could not be made"}
"""With what an inference can fail that was taken on, and what is told then."""
MAX_POLLS: Final = 1_000_000


@dataclass(frozen=True)
class Progress:
    """What polls are told: `pending` so often, then `running` so often, and then `completed`.

    With a `fails` the inference comes to nothing but an error of that status. Raises ValueError.
    """

    pending: int = 0
    running: int = 0
    fails: int | None = None

    def __post_init__(self) -> None:
        for name in ("pending", "running"):
            number = getattr(self, name)
            if type(number) is not int or not 0 <= number <= MAX_POLLS:
                raise ValueError(f"{name} is a number of polls, from 0 to {MAX_POLLS}")
        if self.fails is not None and self.fails not in FAILURES:
            raise ValueError(f"fails is one of {', '.join(map(str, FAILURES))}")

    def status(self, polls: int) -> JobStatus:
        """What the poll is told before which there were so many."""
        if polls < self.pending:
            return JobStatus.PENDING
        return JobStatus.RUNNING if polls < self.pending + self.running else JobStatus.COMPLETED


@dataclass(eq=False)
class Course:
    """How far one job is said to be; it really is made when `made` is set."""

    progress: Progress
    chosen: Chosen
    polls: int = 0
    made: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> JobStatus:
        return self.progress.status(self.polls)


class MockJobs(LocalJobStore):
    """Jobs that are made at once, and of which clients are told what `progress` says.

    One that is said to be completed is: whoever asks waits for it, for some milliseconds. Its 24
    hours count from then, by `clock`.
    """

    def __init__(
        self, capacity_bytes: int, clock: Callable[[], float], progress: Progress | None = None
    ) -> None:
        super().__init__(capacity_bytes, clock=clock)
        self.progress = self._planned = progress or Progress()
        self._courses: WeakKeyDictionary[Job, Course] = WeakKeyDictionary()

    def reset(self) -> None:
        """Know of no job any more, and let the next ones go on as at the start."""
        self._clear()
        self.progress = self._planned

    def chosen_for(self, job_id: str) -> Chosen:
        """What goes wrong with the result of a job, as it was chosen for its request."""
        job = self._jobs.get(job_id)
        return self._courses[job].chosen if job else Chosen(OK, "")

    async def start(self, order: AbstractContextManager[ScheduledJob]) -> str:
        job_id = await super().start(order)
        fault = current.get().of_result
        chosen = Chosen(fault, "" if fault == OK else "request")
        self._courses[self._jobs[job_id]] = Course(self.progress, chosen)
        return job_id

    async def status(self, job_id: str) -> JobStatus:
        job = self._job(job_id)
        course = self._courses[job]
        status = course.status
        course.polls += 1
        if status is JobStatus.COMPLETED:
            await self._completed(job, course)
        return status

    async def result(self, job_id: str) -> UpscaleResult:
        job = self._job(job_id)
        course = self._courses[job]
        if course.status is not JobStatus.COMPLETED:
            raise UnknownJob(NOT_COMPLETED)
        await self._completed(job, course)
        return await super().result(job_id)

    async def _completed(self, job: Job, course: Course) -> None:
        """Wait until the job is made, and let its time begin if it has not yet."""
        await course.made.wait()
        if job.expires_s == math.inf and self._jobs.get(job.id) is job:
            self._expire_later(job)

    async def _run(self, job: Job, order: ScheduledJob, stack: ExitStack) -> None:
        await super()._run(job, order, stack)
        self._courses[job].made.set()

    def _complete(self, job: Job) -> None:
        course = self._courses[job]
        status = course.progress.fails
        if status is not None:
            job.made, job.failure = None, JobFailed.Told(status, FAILURES[status], {})
        super()._complete(job)
        if course.status is not JobStatus.COMPLETED:  # nobody was told of it
            job.expires_s = math.inf
            del self._expiring[job.id]
