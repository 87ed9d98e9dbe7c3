"""Asynchronous inferences whose status depends on how often clients have polled."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from mock_server.faults.fault import OK, current
from mock_server.faults.schedule import SelectedFault
from upscaler.api.responses import JobStatus
from upscaler.errors import JobFailed, UnknownJob
from upscaler.service.backend import ScheduledJob, UpscaleResult
from upscaler.service.jobs.memory import Job, MemoryJobStore
from upscaler.service.jobs.store import ANONYMOUS, NOT_COMPLETED, Submission
from upscaler.service.queue import MemoryReservation

FAILURES: Final = {500: "Internal Server Error", 503: "the image could not be upscaled"}
"""The errors that an inference can fail with after it was accepted, and their messages."""
MAX_POLLS: Final = 1_000_000


@dataclass(frozen=True)
class PollScript:
    """The statuses that polls get: `pending` times pending, `running` times running, completed.

    With `fails` the result is an error of that status. Raises ValueError.
    """

    pending: int = 0
    running: int = 0
    fails: int | None = None

    def __post_init__(self) -> None:
        for name in ("pending", "running"):
            polls = getattr(self, name)
            # Not isinstance: a JSON true would be an int, too.
            if type(polls) is not int or not 0 <= polls <= MAX_POLLS:
                raise ValueError(f"{name} must be a number of polls, from 0 to {MAX_POLLS}")
        if self.fails is not None and self.fails not in FAILURES:
            raise ValueError(f"fails must be one of {', '.join(map(str, FAILURES))}")

    def status(self, polls: int) -> JobStatus:
        """Return the status for a poll that comes after `polls` others."""
        if polls < self.pending:
            return JobStatus.PENDING
        return JobStatus.RUNNING if polls < self.pending + self.running else JobStatus.COMPLETED


@dataclass(eq=False)
class JobProgress:
    """The status of a job as polls see it, and the fault of its result."""

    script: PollScript
    result_fault: SelectedFault
    polls: int = 0

    @property
    def status(self) -> JobStatus:
        return self.script.status(self.polls)


class MockJobStore(MemoryJobStore):
    """A store of jobs that run at once, and whose polls follow the script in `progress`.

    A poll that gets completed first waits until the job is done, for some milliseconds. The
    lifetime of a result begins then, by `clock`.
    """

    def __init__(
        self, capacity_bytes: int, clock: Callable[[], float], progress: PollScript | None = None
    ) -> None:
        super().__init__(capacity_bytes, clock=clock)
        self.progress = self._initial_progress = progress or PollScript()
        # Weak keys, since the store drops jobs by itself, after their lifetime or for room.
        self._progress: WeakKeyDictionary[Job, JobProgress] = WeakKeyDictionary()

    def reset(self) -> None:
        """Forget all jobs, and restore the script of the scenario."""
        self.clear()
        self.progress = self._initial_progress

    def forget_unfinished(self) -> None:
        """Forget the jobs under way, after a fork: their work is in the other process."""
        for job in [job for job in self._jobs.values() if not job.done.is_set()]:
            self._forget(job)

    def result_fault(self, job_id: str) -> SelectedFault:
        """Return the fault of the result of a job, which its first request had."""
        try:
            return self._progress[self.find(job_id)].result_fault
        except UnknownJob:
            return SelectedFault(OK, "")

    async def start(self, scheduled: ScheduledJob, submission: Submission = ANONYMOUS) -> str:
        if (known := await self.repeated(submission)) is not None:
            return known
        job_id = await super().start(scheduled, submission)
        # Kept with the job, since another request fetches the result, and has another fault.
        fault = current.get().of_result
        selected = SelectedFault(fault, "" if fault == OK else "request")
        self._progress[self.find(job_id)] = JobProgress(self.progress, selected)
        return job_id

    async def status(self, job_id: str) -> JobStatus:
        job = self.find(job_id)
        progress = self._progress[job]
        status = progress.status
        progress.polls += 1
        if status is JobStatus.COMPLETED:
            await self._wait_completed(job)
        return status

    async def result(self, job_id: str, memory: MemoryReservation | None = None) -> UpscaleResult:
        job = self.find(job_id)
        if self._progress[job].status is not JobStatus.COMPLETED:
            raise UnknownJob(NOT_COMPLETED)
        await self._wait_completed(job)
        return await super().result(job_id, memory)

    def complete(self, job: Job) -> None:
        status = self._progress[job].script.fails
        if status is not None:
            job.result, job.failure = None, JobFailed.Response(status, FAILURES[status], {})
        super().complete(job)

    def begin_lifetime(self, job: Job) -> None:
        # 24 hours from when the client could know (ASY-4), not from when the job was really done.
        if self._progress[job].status is JobStatus.COMPLETED:
            super().begin_lifetime(job)

    async def _wait_completed(self, job: Job) -> None:
        await job.done.wait()
        self.begin_lifetime(job)
