"""Batches: up to a thousand requests at once, each of which becomes a job (EXT-6)."""

import asyncio
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any, Final

from fastapi import Request, Response
from fastapi.sse import format_sse_event

from upscaler.api.responses import Batch, BatchMember, JobStatus
from upscaler.errors import (
    Busy,
    JobFailed,
    UnknownJob,
    UpscalerError,
)
from upscaler.formats import ImageEncoding
from upscaler.service import batch_bodies, events, responses
from upscaler.service.auth import owner
from upscaler.service.backend import ScheduledJob, Scheduler, StageTimer
from upscaler.service.batch_bodies import Member
from upscaler.service.disconnect import GOES_ON
from upscaler.service.intake import Intake
from upscaler.service.jobs.store import (
    BatchRecord,
    JobStore,
    JobView,
    MemberRecord,
    Submission,
    response_to,
)
from upscaler.service.keys import fingerprint, key_of
from upscaler.service.negotiation import EVENTS
from upscaler.service.owners import new_id
from upscaler.service.urls import base_url, job_url
from upscaler.service.webhook_routes import Webhooks
from upscaler.service.webhooks import HEADER as WEBHOOK_HEADER
from upscaler.settings import Settings

UNKNOWN_BATCH: Final = "no batch has this id, it was removed, or it is no longer kept"
ROOM_S: Final = 60.0
"""How long a request of a batch waits for room in a queue that is full."""
RETRY_S: Final = 0.1
LOOK_S: Final = 1.0
"""How often the jobs of a batch are looked at."""
PAUSES: Final = 4
"""By how much the pause after a look is longer than it, at least: however many watch batches, they
keep the database and the event loop busy for a fifth of the time at most."""
ZIP: Final = "application/zip"
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The date of all files in a ZIP, so that the same batch gives the same file."""


class Batches:
    """The handlers of the routes below /v1/batches."""

    def __init__(
        self,
        scheduler: Scheduler,
        settings: Settings,
        jobs: JobStore,
        intake: Intake,
        *,
        webhooks: Webhooks,
        watchers: events.Watchers,
    ) -> None:
        self._scheduler = scheduler
        self._settings = settings
        self._jobs = jobs
        self._intake = intake
        self._webhooks = webhooks
        self._watchers = watchers

    async def create(self, request: Request) -> Batch:
        """Start the requests of a batch; what is wrong with one is told with that one."""
        base_url(request, self._settings)  # refuses an invalid Host before any work is done
        key, webhook = key_of(request), None
        if (url := request.headers.get(WEBHOOK_HEADER)) is not None:
            webhook = await self._webhooks.checked(request, url)
        common = Submission(owner(request), key, webhook=webhook)
        made: list[MemberRecord] = []
        try:
            async for member in batch_bodies.members(request, self._intake.in_thread):
                numbered = f"{key}/{len(made)}" if key is not None else None
                made.append(await self._start(request, member, common, numbered))
                request.state.memory.set(0)
            record = BatchRecord(new_id(), common.owner, time.time(), made)
            await self._jobs.put_batch(record)
        except BaseException:
            # Half a batch is of no use, unless the rest comes with the same key.
            if key is None:
                await self._cancel_all(made, common.owner)
            raise
        request.state.facts["members"] = len(made)
        return await self._described(request, record)

    async def batch(self, request: Request, batch_id: str) -> Batch:
        """Return how far a batch is, and each of its requests."""
        return await self._described(request, await self._find(batch_id, owner(request)))

    async def cancel(self, request: Request, batch_id: str) -> Response:
        """Cancel what is not completed of a batch, and remove the results of the rest."""
        record = await self._find(batch_id, owner(request))
        await self._cancel_all(record.members, record.owner)
        await self._jobs.remove_batch(batch_id)
        return Response(None, 204)

    async def events(self, request: Request, batch_id: str) -> Response:
        """Watch a batch: each request as it is completed, as server-sent events."""
        record = await self._find(batch_id, owner(request))
        if request.method == "HEAD":
            return Response(None, 200, events.HEADERS, EVENTS)
        setattr(request.state, GOES_ON, True)
        skip = _seen(request.headers.get("Last-Event-ID", ""))

        async def stream() -> AsyncIterator[bytes]:
            done, sent_s = 0, time.monotonic()
            async for index, view in self._completed(record):
                if index is None:
                    if time.monotonic() > sent_s + events.BEAT_S:
                        yield format_sse_event(comment="")
                        sent_s = time.monotonic()
                    continue
                done += 1
                sent_s = time.monotonic()
                if index in skip:
                    continue
                skip.add(index)
                told = self._member(request, record.members[index], index, view)
                data = told.model_dump(mode="json", exclude_none=True)
                data |= {"done": done, "total": len(record.members)}
                yield _event("result", data, skip)
            yield _event("completed", {"done": done, "total": len(record.members)}, skip)

        return self._watchers.response(stream(), events.HEADERS, EVENTS)

    async def zip(self, request: Request, batch_id: str) -> Response:
        """Return the results of a batch as one ZIP, each as it is completed."""
        record = await self._find(batch_id, owner(request))
        headers = {"Content-Disposition": 'attachment; filename="upscaled.zip"'}
        if request.method == "HEAD":
            return Response(None, 200, headers, ZIP)
        setattr(request.state, GOES_ON, True)
        return self._watchers.response(self._zipped(request, record), headers, ZIP)

    async def _start(
        self, request: Request, member: Member, common: Submission, key: str | None
    ) -> MemberRecord:
        """Start one request of a batch. What it raises on purpose is kept in its place."""
        try:
            if member.error:
                raise member.error
            wanted = member.wanted
            assert wanted is not None, "there is a request, or what is wrong with it"
            wanted = wanted.with_default_encoding(self._settings.default_encoding)
            kind = wanted.output_image_encoding
            submission = Submission(common.owner, key, fingerprint(wanted, kind), common.webhook)
            job_id = await self._jobs.repeated(submission)
            if job_id is None:
                timer = StageTimer()
                self._intake.check_faces(wanted, request.state.facts)
                opened = await self._intake.open(request, wanted, timer)
                job = await self._intake.job(wanted, opened, kind, timer)
                if self._jobs.queues:  # else the scheduled job holds it
                    request.state.memory.reserve(job.held_bytes)
                scheduled = self._scheduler.schedule(job, timer)
                job_id = await self._when_there_is_room(scheduled, submission)
        except UpscalerError as error:
            return MemberRecord(member.name, None, response_to(error))
        return MemberRecord(_file_name(member.name, kind), job_id, None)

    async def _when_there_is_room(self, scheduled: ScheduledJob, submission: Submission) -> str:
        """Start a job, if need be once others are completed; raises Busy if that takes too long."""
        until_s = time.monotonic() + ROOM_S
        while True:
            try:
                return await self._jobs.start(scheduled, submission)
            except Busy:
                if time.monotonic() > until_s:
                    raise
            await asyncio.sleep(RETRY_S)

    async def _cancel_all(self, members: list[MemberRecord], owner_: str) -> None:
        for member in members:
            if member.job_id is not None:
                with suppress(UnknownJob):
                    await self._jobs.cancel(member.job_id, owner_)

    async def _find(self, batch_id: str, owner_: str) -> BatchRecord:
        record = await self._jobs.batch(batch_id)
        if record is None or record.owner != owner_:
            raise UnknownJob(UNKNOWN_BATCH)
        return record

    async def _views(self, members: Iterable[MemberRecord]) -> dict[str, JobView]:
        """How far the jobs of requests are, by their ids, but for what is no job any more."""
        ids = [member.job_id for member in members if member.job_id is not None]
        return await self._jobs.views(ids)

    async def _completed(
        self, record: BatchRecord
    ) -> AsyncIterator[tuple[int | None, JobView | None]]:
        """Yield each request once it is completed, and None whenever there was a look."""
        left = dict(enumerate(record.members))
        while left:
            began_s = time.monotonic()
            views = await self._views(left.values())
            took_s = time.monotonic() - began_s
            for index, member in list(left.items()):
                view = views.get(member.job_id or "")
                if view is None or view.status is JobStatus.COMPLETED:
                    del left[index]
                    yield index, view
            yield None, None
            if left:
                await asyncio.sleep(_pause_s(took_s))

    async def _described(self, request: Request, record: BatchRecord) -> Batch:
        base = f"{base_url(request, self._settings)}/v1/batches/{record.id}"
        views = await self._views(record.members)
        members = [
            self._member(request, member, index, views.get(member.job_id or ""))
            for index, member in enumerate(record.members)
        ]
        states = [member.status for member in members]
        return Batch(
            batch_id=record.id,
            total=len(members),
            pending=states.count(JobStatus.PENDING),
            running=states.count(JobStatus.RUNNING),
            completed=states.count(JobStatus.COMPLETED),
            failed=sum(member.error is not None for member in members),
            batch_url=base,
            events_url=f"{base}/events",
            zip_url=f"{base}/zip",
            members=members,
        )

    def _member(
        self, request: Request, member: MemberRecord, index: int, view: JobView | None
    ) -> BatchMember:
        failure = member.error
        if member.job_id is not None:
            gone = JobFailed.Response(UnknownJob.status, UNKNOWN_BATCH, {})
            failure = view.failure if view else gone
        status = view.status if view else JobStatus.COMPLETED
        has_result = view is not None and status is JobStatus.COMPLETED and failure is None
        url = None
        if has_result and member.job_id:
            url = job_url(request, self._settings, "result", member.job_id)
        return BatchMember(
            index=index,
            name=member.name,
            response_id=member.job_id,
            status=status,
            response_url=url,
            error={"status": failure.status, "detail": failure.detail} if failure else None,
        )

    async def _zipped(self, request: Request, record: BatchRecord) -> AsyncIterator[bytes]:
        """The bytes of a ZIP with the results, and what went wrong in errors.json."""
        out = _Pieces()
        errors: dict[str, Any] = {}
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            async for index, view in self._completed(record):
                if index is None:
                    continue
                member = record.members[index]
                try:
                    if member.job_id is None or view is None or view.failure:
                        told = self._member(request, member, index, view)
                        errors[f"{index:04d}-{member.name}"] = told.error
                        continue
                    result = await self._jobs.result(member.job_id, request.state.memory)
                    pieces = await responses.begun(responses.body(result))
                    info = zipfile.ZipInfo(f"{index:04d}-{member.name}", EPOCH)
                    info.external_attr = 0o644 << 16
                    with archive.open(info, "w", force_zip64=True) as entry:
                        async for piece in pieces:
                            entry.write(piece)
                            if ready := out.taken():
                                yield ready
                except UpscalerError as error:
                    response = response_to(error)
                    failed = {"status": response.status, "detail": response.detail}
                    errors[f"{index:04d}-{member.name}"] = failed
            if errors:
                archive.writestr(zipfile.ZipInfo("errors.json", EPOCH), json.dumps(errors))
        yield out.taken()


class _Pieces(io.RawIOBase):
    """A file that a ZIP is written to, which cannot go back, and is emptied meanwhile."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: Any, /) -> int:  # noqa: ANN401  a buffer, which Python 3.11 cannot say
        self.pieces.append(bytes(data))
        return len(self.pieces[-1])

    def taken(self) -> bytes:
        """What was written since the last time."""
        data = b"".join(self.pieces)
        self.pieces.clear()
        return data


def _pause_s(took_s: float) -> float:
    return max(LOOK_S, PAUSES * took_s)


def _file_name(name: str, kind: ImageEncoding) -> str:
    return f"{name}{kind.suffixes[0]}"


def _event(name: str, data: dict[str, Any], seen: set[int]) -> bytes:
    """An event whose id says which requests the client has by now."""
    return format_sse_event(data_str=json.dumps(data), event=name, id=_ranges(seen))


def _ranges(seen: set[int]) -> str:
    """Numbers as ranges, such as 0-5,7: short while they come in order."""
    found: list[list[int]] = []
    for number in sorted(seen):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(f"{first}-{last}" for first, last in found)


def _seen(text: str) -> set[int]:
    """The numbers of such ranges; none for what are none."""
    seen: set[int] = set()
    for part in text.split(",")[: batch_bodies.MOST_MEMBERS]:
        first, _, last = part.partition("-")
        if first.isdecimal() and last.isdecimal() and len(first) < 5 and len(last) < 5:
            seen.update(range(int(first), min(int(last) + 1, batch_bodies.MOST_MEMBERS)))
    return seen
