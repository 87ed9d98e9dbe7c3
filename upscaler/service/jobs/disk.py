"""Jobs in a folder, which survive the process, and which several processes of a machine share.

A job is accepted once its image and its row in the database are written. Whichever process has a
place free takes the job that has waited longest, and holds it by a lease, which it renews. The jobs
of a process that ended are taken away from it, and begin again: at once if the lock on its file is
free, and else when the lease has expired, as that of a process that was stopped for long.
"""

import asyncio
import hashlib
import itertools
import logging
import math
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, TypeVarTuple
from uuid import uuid4
from weakref import WeakValueDictionary

from anyio import CapacityLimiter, to_thread
from filelock import FileLock, Timeout

from upscaler.api.limits import RESULT_LIFETIME_S
from upscaler.api.responses import JobStatus
from upscaler.errors import Busy, JobFailed, StoreUnavailable, UnknownJob, release_frames
from upscaler.formats import ImageEncoding
from upscaler.imaging import decode
from upscaler.models import UpscalingModel
from upscaler.service import responses
from upscaler.service.backend import (
    ScheduledJob,
    Scheduler,
    StageTimer,
    StoredBody,
    UpscaleJob,
    UpscaleResult,
)
from upscaler.service.jobs.database import Database, Row
from upscaler.service.jobs.store import (
    ANONYMOUS,
    BATCH_LIFETIME_S,
    MAX_JOBS,
    MAX_RETRY_AFTER_S,
    NOT_COMPLETED,
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
from upscaler.service.webhooks import Message

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

log = logging.getLogger(__name__)

BEAT_S: Final = 1.0
"""How often a process writes how far its jobs are, and that it lives."""
LEASE_S: Final = 60.0
"""How long a job stays with a process that does not say so: one that is stopped, since one that has
ended is found by its lock."""
LOOK_S: Final = 0.5
"""How often a process that is idle looks for jobs that others have accepted."""
KEEP_UP_S: Final = 2.0
"""How often processes that have ended are looked for, and what has expired is removed."""
RETRY_S: Final = 10.0
"""After how long it is tried again what the disk or the database has refused."""
MOST_INTERRUPTIONS: Final = 20
"""A job that so many processes had when they ended may be what ends them, and has failed."""
SPARE_BYTES: Final = 2**30
"""What stays free on the disk: others need it, too."""
PIECE_BYTES: Final = 2**20
"""How much of a result is read at a time."""
ORPHAN_S: Final = 3600.0
"""The age of a file of no job that is removed: a younger one may be about to become one's."""
INTERRUPTED: Final = JobFailed.Response(
    500, "the service ended each time that it worked on this image", {}
)


@dataclass(eq=False)
class Running:
    """A job that this process has taken. `task` ends it, and it is where its rows are counted."""

    row: Row
    task: asyncio.Task[None]
    timer: StageTimer = field(default_factory=StageTimer)
    started_s: float | None = None


class DiskJobStore:
    """Jobs in a folder, with a bound on what their files take up.

    When it is full, jobs whose results were fetched are removed, the least recently fetched first.
    Jobs that were not fetched are kept for their lifetime, and new jobs are refused. Jobs are made
    while `working` is entered.
    """

    made_elsewhere = False
    queues = True

    @property
    def outbox(self) -> "DiskJobStore":
        return self

    def now_s(self) -> float:
        return self._clock()

    async def due(self, limit: int, owners: Collection[str]) -> list[Message]:
        # Looked for without a writer's transaction, which would keep others from writing.
        if not limit or not await self._ask(self._database.has_due, list(owners), self._clock()):
            return []
        return await self._write_down(self._database.due, limit, list(owners), self._clock())

    async def settle(self, message_id: str, retry_s: float | None) -> None:
        due_s = None if retry_s is None else self._clock() + retry_s
        await self._write_down(self._database.settle, message_id, due_s)

    def __init__(
        self,
        folder: Path,
        capacity_bytes: int,
        *,
        lifetime_s: float = RESULT_LIFETIME_S,
        clock: Callable[[], float] = time.time,
        spare_bytes: int = SPARE_BYTES,
    ) -> None:
        """Open `folder`, which is made as needed, for this user alone.

        Raises StoreUnavailable if it cannot be used, or was made by another version.
        """
        self._files = folder / "files"
        self._workers = folder / "workers"
        try:
            for each in (folder, self._files, self._workers):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(
                f"{error.filename}: {error.strerror}: set UPSCALER_DATA to a folder that can be "
                "written, or to :memory:, where jobs are lost when the service ends"
            ) from error
        self._database = Database(folder / "jobs.sqlite3")
        self._folder = folder
        self._capacity_bytes = capacity_bytes
        self._spare_bytes = spare_bytes
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._worker = uuid4().hex
        self._held_bytes = 0
        self._starting = asyncio.Lock()
        self._arrived = asyncio.Event()
        self._completed = asyncio.Event()
        self._running: dict[str, Running] = {}
        # What clients have fetched since that was last written.
        self._fetched: dict[str, float] = {}
        # One thread writes at a time: more would wait for it, and leave none for who reads.
        self._writer = CapacityLimiter(1)
        # Held by those who watch a job, and by the job while it runs.
        self._previews: WeakValueDictionary[str, Preview] = WeakValueDictionary()

    @property
    def results_bytes(self) -> int:
        return self._held_bytes

    @asynccontextmanager
    async def working(self, scheduler: Scheduler) -> AsyncIterator[None]:
        """Make jobs on `scheduler` during the block, as many at a time as it can.

        At its end those that are not completed wait again, for this folder's next process.
        """
        lock = FileLock(self._workers / f"{self._worker}.lock", thread_local=False)
        lock.acquire()
        await self._keep_up()
        await self._in_thread(self._remove_orphans)
        tasks = [
            asyncio.create_task(each)
            for each in (
                *(self._make_jobs(scheduler) for _ in range(scheduler.backend.at_once)),
                self._beat(),
                self._keep_up_forever(),
            )
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._in_thread(self._close, lock)

    async def start(self, scheduled: ScheduledJob, submission: Submission = ANONYMOUS) -> str:
        if (known := await self.repeated(submission)) is not None:
            return known
        async with self._starting:  # each has the room that it was promised
            job_id = new_id()
            if scheduled.timer.preview:
                self._previews[job_id] = scheduled.timer.preview
            if await self._added(job_id, scheduled, submission):
                self._arrived.set()
                return job_id
        # Somebody was faster with the same key, and may have cancelled the job meanwhile.
        return await self.start(scheduled, submission)

    async def _added(self, job_id: str, scheduled: ScheduledJob, submission: Submission) -> bool:
        """Write a job; return False, and write none, if there is one with its key."""
        job = scheduled.job
        room_bytes = len(job.source) + scheduled.room_bytes
        await self._make_room(room_bytes)
        task = {
            "model": job.model.value,
            "input_size": job.input_size,
            "size": job.size,
            "encoding": job.encoding.value,
            "as_file": job.as_file,
            "face_enhance": job.face_enhance,
            "face_optional": job.face_optional,
            "ignored": job.ignored,
            "seconds": scheduled.timer.seconds,
            "estimated_s": scheduled.estimated_s,
        }
        source = f"{_file_stem(job_id)}.source"
        try:
            await self._in_thread(self._write, source, [job.source])
            add = partial(
                self._database.add,
                job_id,
                submission,
                task=task,
                source=source,
                room_bytes=room_bytes,
                now_s=self._clock(),
            )
            added = await self._write_down(add)
        except OSError as error:
            await self._in_thread(self._remove, [source])
            raise _unavailable(self._folder, error) from error
        except StoreUnavailable:
            await self._in_thread(self._remove, [source])
            raise
        if not added:
            await self._in_thread(self._remove, [source])
        return added

    async def repeated(self, submission: Submission) -> str | None:
        if submission.key is None:
            return None
        row = await self._ask(self._database.find_key, submission.owner, submission.key)
        if row is None or self._has_expired(row):
            return None
        Submission(row.owner, row.key, row.fingerprint).check_same(submission.fingerprint)
        return row.id

    async def status(self, job_id: str) -> JobStatus:
        return self._status(await self._find(job_id))

    async def result(
        self,
        job_id: str,
        memory: MemoryReservation | None = None,  # noqa: ARG002  it is read in pieces
    ) -> UpscaleResult:
        row = await self._find(job_id)
        if row.finished_s is None:
            raise UnknownJob(NOT_COMPLETED)
        if row.failure:
            self._fetched[job_id] = self._clock()
            raise JobFailed(row.failure)
        return self._result(row)

    async def view(self, job_id: str) -> JobView:
        return await self._view(await self._find(job_id))

    async def views(self, job_ids: list[str]) -> dict[str, JobView]:
        rows = await self._ask(self._database.find_all, job_ids)
        return {row.id: self._shown(row) for row in rows if not self._has_expired(row)}

    async def preview(self, job_id: str) -> Preview | None:
        row = await self._find(job_id)
        if row.finished_s is not None:
            return None
        preview = self._previews.setdefault(job_id, Preview(tuple(row.task["size"])))
        if running := self._running.get(job_id):
            running.timer.preview = preview
        return preview

    async def wait(self, job_id: str) -> None:
        while (await self._find(job_id)).finished_s is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):  # another process may be making it
                    await self._completed.wait()

    async def cancel(self, job_id: str, owner: str) -> None:
        row = await self._write_down(self._database.remove, job_id, owner)
        if row is None:
            raise UnknownJob(UNKNOWN)
        if running := self._running.get(job_id):
            running.task.cancel()
        self._tell_waiters()
        await self._in_thread(self._remove, row.files)
        if self._has_expired(row):
            raise UnknownJob(UNKNOWN)

    async def put_batch(self, record: BatchRecord) -> None:
        await self._write_down(self._database.put_batch, record, self._clock() - BATCH_LIFETIME_S)

    async def batch(self, batch_id: str) -> BatchRecord | None:
        return await self._ask(self._database.batch, batch_id)

    async def remove_batch(self, batch_id: str) -> None:
        await self._write_down(self._database.remove_batch, batch_id)

    async def listed(self, owner: str, limit: int, before: str | None = None) -> list[JobView]:
        rows = await self._ask(self._database.listed, owner, limit, cursor_of(before))
        return [await self._view(row) for row in rows if not self._has_expired(row)]

    async def _make_jobs(self, scheduler: Scheduler) -> None:
        """Make one job after the other, until this is cancelled."""
        while True:
            self._arrived.clear()
            try:
                row = await self._claim()
            except Exception:
                log.exception("cannot look for jobs: trying again")
                await asyncio.sleep(RETRY_S)
                continue
            if row is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._arrived.wait()
                continue
            # A task of its own, so that its cancellation ends this job alone.
            running = Running(row, asyncio.create_task(self._make(row, scheduler)))
            self._running[row.id] = running
            try:
                await asyncio.wait({running.task})
            except asyncio.CancelledError:  # this was cancelled, and not the job
                running.task.cancel()
                await asyncio.gather(running.task, return_exceptions=True)
                await self._write_down(self._database.give_back, row.id, self._worker)
                raise
            finally:
                running.timer.preview = None  # as `running` stays until there is another job
                del self._running[row.id]

    async def _claim(self) -> Row | None:
        # Looked for without a writer's transaction, which would keep others from writing.
        if not await self._ask(self._database.has_waiting):
            return None
        return await self._write_down(self._database.claim, self._worker, self._clock() + LEASE_S)

    async def _make(self, row: Row, scheduler: Scheduler) -> None:
        """Make one job, and keep what becomes of it. Whatever it raises ends here."""
        await asyncio.sleep(0)  # until it is among those that run
        running = self._running[row.id]

        def started() -> None:
            running.started_s = self._clock()

        made: dict[str, Any]
        file = f"{_file_stem(row.id)}.{uuid4().hex}"
        try:
            running.timer.preview = self._previews.get(row.id)
            running.timer.seconds |= row.task["seconds"]
            running.timer.seconds["queue"] += max(0.0, self._clock() - row.created_s)
            job = await self._job(row, running.timer)
            with scheduler.schedule(job, running.timer, accepted=True) as scheduled:
                del job
                result = await scheduled.run(started)
            del scheduled
            made = {"file": file, "file_bytes": result.file_bytes, "result": _kept(result)}
            await self._write_result(file, result.file)
        except Exception as error:
            log.exception("an asynchronous inference failed")
            made = {"failure": response_to(error)}
            release_frames(error)
        except asyncio.CancelledError:
            await self._in_thread(self._remove, [file])
            raise
        while True:
            try:
                finish = partial(self._database.finish, row.id, self._worker, self._clock(), **made)
                kept = await self._write_down(finish)
                break
            except StoreUnavailable:  # such as a full disk: what was made must not be lost
                log.exception("cannot write that a job is completed: trying again")
                await asyncio.sleep(RETRY_S)
        # If not, it was cancelled, or this process was thought dead, and another one has it.
        await self._in_thread(self._remove, [row.source] if kept else [file])
        self._tell_waiters()

    async def _job(self, row: Row, timer: StageTimer) -> UpscaleJob:
        """Read a job, if need be once the disk can be read again."""
        missed = False
        while True:
            try:
                return await self._in_thread(self._read, row, timer)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and self._files.is_dir():
                    if missed:
                        raise  # the file is lost: the folder was there before, and still is
                    missed = True
                    continue
                log.exception("cannot read an image in %s: trying again", self._files)
            missed = False
            await asyncio.sleep(RETRY_S)

    async def _write_result(self, file: str, pieces: Iterable[bytes]) -> None:
        """Write a result, if need be once the disk has room again."""
        while True:
            try:
                return await self._in_thread(self._write, file, pieces)
            except OSError:
                log.exception("cannot write a result to %s: trying again", self._files)
                await self._in_thread(self._remove, [file])
                await asyncio.sleep(RETRY_S)

    async def _beat(self) -> None:
        """Say that this process lives and how far its jobs are, until this is cancelled.

        A job that somebody has cancelled by way of another process ends here.
        """
        while True:
            await asyncio.sleep(BEAT_S)
            for running in list(self._running.values()):
                row, until_s = running.row, self._clock() + LEASE_S
                try:
                    had = await self._write_down(
                        self._database.beat,
                        row.id, self._worker, until_s, running.started_s, running.timer.done,
                    )  # fmt: skip
                    if had or self._running.get(row.id) is not running or running.task.done():
                        continue
                    found = await self._ask(self._database.find, row.id)
                    if found is None or found.worker != self._worker:
                        running.task.cancel()
                except Exception:
                    log.exception("cannot renew a lease: trying again")

    async def _keep_up_forever(self) -> None:
        """Do so now and then, and remove files of no job about once an hour."""
        for number in itertools.count(1):
            await asyncio.sleep(KEEP_UP_S)
            try:
                await self._keep_up()
                if number % (ORPHAN_S // KEEP_UP_S) == 0:
                    await self._in_thread(self._remove_orphans)
            except Exception:
                log.exception("cannot look after the jobs: trying again")

    async def _keep_up(self) -> None:
        """Let jobs begin again whose process has ended, and remove what has expired."""
        for worker, until_s in (await self._ask(self._database.workers)).items():
            if worker == self._worker:
                continue
            ended = await self._in_thread(self._has_ended, worker)
            if not ended and until_s > self._clock():
                continue
            taken = await self._write_down(
                self._database.take_from, worker, MOST_INTERRUPTIONS, INTERRUPTED, self._clock()
            )
            for row in taken:
                what = "failed" if row.interruptions >= MOST_INTERRUPTIONS else "begins again"
                log.warning("job %d was under way when its process ended: it %s", row.number, what)
            self._arrived.set()
        await self._write_fetched()
        await self._remove_expired()
        _, self._held_bytes, _ = await self._ask(self._database.held)

    async def _write_fetched(self) -> None:
        """Write what was fetched: not while a client waits for a result, which it may then have."""
        fetched, self._fetched = self._fetched, {}
        if not fetched:
            return
        try:
            await self._write_down(self._database.fetched, fetched)
        except BaseException:
            self._fetched = fetched | self._fetched
            raise

    async def _remove_expired(self) -> None:
        before_s = self._clock() - self._lifetime_s
        for row in await self._write_down(self._database.remove_finished, before_s):
            await self._in_thread(self._remove, row.files)

    async def _make_room(self, room_bytes: int) -> None:
        """Remove what was fetched until there is room; raises Busy if all of it is not enough."""
        await self._write_fetched()
        await self._remove_expired()
        count, held_bytes, unfinished_bytes = await self._ask(self._database.held)
        try:
            free_bytes = (await self._in_thread(shutil.disk_usage, self._folder)).free
        except OSError as error:
            raise _unavailable(self._folder, error) from error
        # What is not completed has the place that it may yet need.
        surplus_bytes = room_bytes + max(
            held_bytes - self._capacity_bytes, unfinished_bytes + self._spare_bytes - free_bytes
        )
        if surplus_bytes <= 0 and count < MAX_JOBS:
            return
        # Decide first: a job that is refused all the same must not cost others their results.
        removable = await self._ask(self._database.removable)
        chosen: list[str] = []
        for job_id, job_bytes in removable:
            if surplus_bytes <= 0 and count - len(chosen) < MAX_JOBS:
                break
            surplus_bytes -= job_bytes
            chosen.append(job_id)
        if surplus_bytes > 0 or count - len(chosen) >= MAX_JOBS:
            first_s = await self._ask(self._database.first_to_expire_s)
            expires_s = math.inf if first_s is None else first_s + self._lifetime_s - self._clock()
            retry_after_s = max(1, math.ceil(min(MAX_RETRY_AFTER_S, expires_s)))
            raise Busy("there is no room on the disk for the result of another job", retry_after_s)
        for row in await self._write_down(self._database.remove_all, chosen):
            await self._in_thread(self._remove, row.files)

    async def _find(self, job_id: str) -> Row:
        row = await self._ask(self._database.find, job_id)
        if row is None or self._has_expired(row):
            raise UnknownJob(UNKNOWN)
        return row

    def _has_expired(self, row: Row) -> bool:
        return row.finished_s is not None and row.finished_s + self._lifetime_s <= self._clock()

    def _started_s(self, row: Row) -> float | None:
        running = self._running.get(row.id)
        return running.started_s if running else row.started_s

    def _status(self, row: Row) -> JobStatus:
        if row.finished_s is not None:
            return JobStatus.COMPLETED
        return JobStatus.PENDING if self._started_s(row) is None else JobStatus.RUNNING

    async def _view(self, row: Row) -> JobView:
        if self._status(row) is not JobStatus.PENDING:
            return self._shown(row)
        return self._shown(row, await self._ask(self._database.ahead, row.number))

    def _shown(self, row: Row, ahead: int = 0) -> JobView:
        running = self._running.get(row.id)
        return JobView(
            id=row.id,
            cursor=str(row.number),
            status=self._status(row),
            model=UpscalingModel(row.task["model"]),
            input_size=tuple(row.task["input_size"]),
            size=tuple(row.task["size"]),
            created_s=row.created_s,
            estimated_s=row.task["estimated_s"],
            started_s=self._started_s(row),
            finished_s=row.finished_s,
            done=running.timer.done if running and row.finished_s is None else row.done,
            ahead=ahead,
            failure=row.failure,
        )

    def _result(self, row: Row) -> UpscaleResult:
        kept, task, file = row.result, row.task, row.file
        assert kept is not None, "it has not failed"
        assert file is not None, "it has not failed"
        pieces = partial(self._body, row.id, self._files / file, as_file=task["as_file"])
        size_bytes = row.room_bytes
        if not task["as_file"]:
            size_bytes = responses.json_bytes(size_bytes)
        return UpscaleResult(
            file=[],
            encoding=ImageEncoding(task["encoding"]),
            as_file=task["as_file"],
            model=UpscalingModel(task["model"]),
            weights_sha256=kept["weights_sha256"],
            input_size=tuple(task["input_size"]),
            size=tuple(task["size"]),
            seconds=kept["seconds"],
            stored=StoredBody(size_bytes, pieces),
            held_bytes=4 * PIECE_BYTES,
            faces=kept.get("faces"),
            ignored=tuple(kept.get("ignored", ())),
        )

    async def _body(self, job_id: str, path: Path, *, as_file: bool) -> AsyncIterator[bytes]:
        """The body of the response with the file at `path`, in pieces."""
        try:
            file = await self._in_thread(path.open, "rb")
        except OSError as error:
            if isinstance(error, FileNotFoundError) and self._files.is_dir():
                raise UnknownJob(UNKNOWN) from error  # removed since the job was found
            raise _unavailable(self._files, error) from error
        with file:
            pieces = iter(lambda: file.read(PIECE_BYTES), b"")
            body = pieces if as_file else responses.in_json(pieces)
            while piece := await self._in_thread(next, body, b""):
                yield piece
        # Only now: a client that has lost its connection will ask again.
        self._fetched[job_id] = self._clock()

    def _tell_waiters(self) -> None:
        self._completed.set()
        self._completed = asyncio.Event()

    def _read(self, row: Row, timer: StageTimer) -> UpscaleJob:
        """Read and decode the image of a job. It was decoded before, so it can be."""
        with timer.stage("decode"):
            source = (self._files / row.source).read_bytes()
            pixels = decode.read_header(source).pixels()
        return UpscaleJob(
            source,
            pixels,
            UpscalingModel(row.task["model"]),
            tuple(row.task["size"]),
            ImageEncoding(row.task["encoding"]),
            as_file=row.task["as_file"],
            face_enhance=row.task.get("face_enhance", False),
            face_optional=row.task.get("face_optional", False),
            ignored=tuple(row.task.get("ignored", ())),
        )

    def _write(self, name: str, pieces: Iterable[bytes]) -> None:
        """Write a file, and wait until it is on the disk. Raises OSError."""
        path = self._files / name
        with path.open("xb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        if os.name == "posix":  # else the name may be lost; Windows opens no folders
            folder = os.open(self._files, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                (self._files / name).unlink(missing_ok=True)
            except OSError:  # Windows removes no open file; it will be one of no job
                log.warning("a file is left for later: it cannot be removed", exc_info=True)

    def _remove_orphans(self) -> None:
        """Remove files of no job, which a process had written when it was killed, and its lock.

        A result need not be its job's yet: that is not written while the disk is full.
        """
        known, unfinished = self._database.files()
        for path in (*self._files.iterdir(), *self._workers.iterdir()):
            with suppress(FileNotFoundError):
                is_old = time.time() - path.stat().st_mtime > ORPHAN_S
                if is_old and path.parent == self._files:
                    if path.name not in known and path.stem not in unfinished:
                        path.unlink()
                elif is_old and path.parent == self._workers:
                    self._has_ended(path.stem)

    def _close(self, lock: FileLock) -> None:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
        self._database.close()

    def _has_ended(self, worker: str) -> bool:
        """Whether the process of `worker` has ended: nobody holds the lock on its file."""
        path = self._workers / f"{worker}.lock"
        try:
            with FileLock(path, timeout=0):
                path.unlink(missing_ok=True)
                return True
        except Timeout:
            return False

    async def _ask(self, work: Callable[[*Args], Result], *args: *Args) -> Result:
        """Read from the database, in a thread: it waits for the disk."""
        return await to_thread.run_sync(work, *args)

    async def _write_down(self, work: Callable[[*Args], Result], *args: *Args) -> Result:
        """Write to the database, in a thread: it waits for the disk, and for other processes."""
        return await to_thread.run_sync(work, *args, limiter=self._writer)

    async def _in_thread(self, work: Callable[[*Args], Result], *args: *Args) -> Result:
        return await to_thread.run_sync(work, *args)


def _file_stem(job_id: str) -> str:
    """What the names of a job's files begin with: not its id, since logs have names of files."""
    return hashlib.sha256(job_id.encode()).hexdigest()[:32]


def _unavailable(path: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"{path}: {error.strerror}")


def _kept(result: UpscaleResult) -> dict[str, Any]:
    """What is kept of a result beside its file and its job."""
    return {
        "weights_sha256": result.weights_sha256,
        "seconds": result.seconds,
        "faces": result.faces,
        "ignored": result.ignored,
    }
