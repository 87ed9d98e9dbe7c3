"""What the service needs of a store of asynchronous inferences (ASY-1 to 5, EXT-1 to 4)."""

import math
import re
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from upscaler.api.responses import JobStatus
from upscaler.api.sizes import Size
from upscaler.errors import FieldError, InvalidRequest, JobFailed, UpscalerError
from upscaler.models import UpscalingModel
from upscaler.service.backend import ScheduledJob, Scheduler, UpscaleResult
from upscaler.service.preview import Preview
from upscaler.service.queue import MemoryReservation
from upscaler.service.webhooks import Outbox, Webhook

MAX_JOBS: Final = 10_000
"""Failed jobs take hardly any memory, but their number must be limited, too."""
MAX_RETRY_AFTER_S: Final = 600
KEY_HEADER: Final = "Idempotency-Key"
BATCH_LIFETIME_S: Final = 7 * 24 * 3600.0
"""How long a batch is kept: its jobs may wait for days, and are kept for one more."""
NOT_COMPLETED: Final = "this inference is not completed: ask its poll_url how far it is"
UNKNOWN: Final = "no inference has this id, it was cancelled, or its result is no longer kept"
UNEXPECTED: Final = JobFailed.Response(500, "Internal Server Error", {})
"""The response to an unexpected error: its text could reveal internals."""


@dataclass(frozen=True)
class Submission:
    """Who started a job, the Idempotency-Key of the request, if it has one, and its webhook.

    `fingerprint` is the same for equal requests: see `check_same`.
    """

    owner: str = ""
    key: str | None = None
    fingerprint: str = ""
    webhook: Webhook | None = None

    @property
    def needs_job(self) -> bool:
        """Whether a job must be kept for it even if its client waits for the response."""
        return self.key is not None or self.webhook is not None

    def check_same(self, fingerprint: str) -> None:
        """Raise InvalidRequest unless the request is the one that the key was first sent with."""
        if fingerprint != self.fingerprint:
            msg = "another request was sent with this key: send each with a key of its own"
            raise InvalidRequest(FieldError(("header", KEY_HEADER), msg, "idempotency_key_reused"))


ANONYMOUS: Final = Submission()
"""Of nobody, and without a key."""


@dataclass(frozen=True)
class JobView:
    """How far a job is, and what it is. Times are in seconds since 1970.

    `done` is how much of the rows, from 0 to 1; `ahead` is how many jobs before a pending one are
    not completed, and `estimated_s` how many seconds it takes once it runs. `cursor` is what lists
    go on from, even if the job is removed meanwhile.
    """

    id: str
    cursor: str
    status: JobStatus
    model: UpscalingModel
    input_size: Size
    size: Size
    created_s: float
    started_s: float | None = None
    finished_s: float | None = None
    done: float = 0.0
    ahead: int = 0
    estimated_s: float = 0.0
    failure: JobFailed.Response | None = None

    @property
    def rows(self) -> int:
        """How many rows of the result are done."""
        return int(self.done * self.size[1])


@dataclass(frozen=True)
class MemberRecord:
    """One request of a batch: the id of its job, or the response to a request that became none."""

    name: str
    job_id: str | None
    error: JobFailed.Response | None


@dataclass(frozen=True)
class BatchRecord:
    """A batch. `created_s` is in seconds since 1970."""

    id: str
    owner: str
    created_s: float
    members: list[MemberRecord]


class JobStore(Protocol):
    """Where asynchronous inferences are kept. An unknown id raises UnknownJob."""

    @property
    def made_elsewhere(self) -> bool:
        """Whether the work is done by another process, so that nothing of it is counted here."""
        ...

    @property
    def queues(self) -> bool:
        """Whether jobs wait here, and are no part of the scheduler's queue until they run."""
        ...

    @property
    def outbox(self) -> Outbox | None:
        """The webhooks that are to be sent; None if none are."""
        ...

    @property
    def results_bytes(self) -> int:
        """The size of the results that are kept in the memory of this process, or on its disk."""
        ...

    def working(self, scheduler: Scheduler) -> AbstractAsyncContextManager[None]:
        """Make jobs on `scheduler` during the block, unless `start` begins them."""
        ...

    async def start(self, scheduled: ScheduledJob, submission: Submission = ...) -> str:
        """Run a job in the background, and return an id for it.

        If a job was started with the same key, then that one's. Raises InvalidRequest if it is the
        key of another request, and Busy if the queue is full, or there is no room for the result.
        """
        ...

    async def repeated(self, submission: Submission) -> str | None:
        """The id of the job that was started with the same key, if any.

        Raises InvalidRequest if it is the key of another request.
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

    async def view(self, job_id: str) -> JobView:
        """Return how far a job is."""
        ...

    async def views(self, job_ids: list[str]) -> dict[str, JobView]:
        """Return how far many jobs are, by their ids, but for `ahead`; without unknown ones."""
        ...

    async def preview(self, job_id: str) -> Preview | None:
        """Return the rows of a job, as they come from now on unless somebody asked before.

        None for a job that is completed, and where others make it.
        """
        ...

    async def wait(self, job_id: str) -> None:
        """Return once a job is completed."""
        ...

    async def cancel(self, job_id: str, owner: str) -> None:
        """Stop a job after its current rows, and forget it, or its result.

        To another owner than its own a job is unknown.
        """
        ...

    async def put_batch(self, record: BatchRecord) -> None:
        """Keep a batch, for as long as its jobs are kept, at least."""
        ...

    async def batch(self, batch_id: str) -> BatchRecord | None:
        """Return a batch; None if there is none with this id, or no longer."""
        ...

    async def remove_batch(self, batch_id: str) -> None:
        """Forget a batch, and none of its jobs."""
        ...

    async def listed(self, owner: str, limit: int, before: str | None = None) -> list[JobView]:
        """Return up to `limit` jobs of one owner, the newest first: those after a cursor.

        Raises InvalidRequest for what is no cursor.
        """
        ...


def cursor_of(text: str | None) -> float:
    """The number of a cursor, infinite for none. Raises InvalidRequest."""
    if text is None:
        return math.inf
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", text, re.ASCII):
        msg = "must be the next_before of another page"
        raise InvalidRequest(FieldError(("query", "before"), msg, "cursor_invalid"))
    return float(text)


def response_to(error: BaseException) -> JobFailed.Response:
    """The response that a client gets for the error of a job."""
    if isinstance(error, UpscalerError):
        return JobFailed.Response(error.status, error.detail, error.headers)
    return UNEXPECTED
