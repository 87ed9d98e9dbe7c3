"""Jobs in a folder: they survive their process, and several processes share them."""

import asyncio
import errno
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.service.test_overload import Gate
from tests.support.image_files import noise, saved
from tests.support.service import Moody, Resizer
from upscaler.api.responses import JobStatus
from upscaler.api.sizes import Size
from upscaler.errors import Busy, InvalidRequest, JobFailed, StoreUnavailable, UnknownJob
from upscaler.formats import ImageEncoding
from upscaler.imaging.encode import most_bytes
from upscaler.imaging.pixels import Pixels
from upscaler.models import UpscalingModel
from upscaler.service import responses
from upscaler.service.backend import (
    LocalBackend,
    Progress,
    Scheduler,
    StageTimer,
    UpscaleJob,
    Upscaler,
    UpscaleResult,
)
from upscaler.service.jobs import disk as module
from upscaler.service.jobs.database import Database
from upscaler.service.jobs.disk import MOST_INTERRUPTIONS, DiskJobStore
from upscaler.service.jobs.memory import MemoryJobStore
from upscaler.service.jobs.store import JobStore, Submission
from upscaler.service.queue import Admission

DAY_S = 24 * 60 * 60
PIXELS = noise(40, 30, 3)
SOURCE = saved(PIXELS, "PNG")
TASK = UpscaleJob(SOURCE, PIXELS, UpscalingModel.X4_PLUS, (80, 60), ImageEncoding.PNG)
ROOM = len(SOURCE) + most_bytes(TASK.size, 3)
ME, OTHER = Submission("me"), Submission("somebody else")


class Scene:
    """A folder, and processes that share it: each has a store and a scheduler of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = 1e9
        self.capacity_bytes = 100 * ROOM

    def scheduler(self, upscaler: Upscaler | None = None) -> Scheduler:
        return Scheduler(LocalBackend(upscaler or Moody()), Admission(2, 2**24), lambda _: None)

    def store(self) -> DiskJobStore:
        return DiskJobStore(
            self.folder, self.capacity_bytes, clock=lambda: self.now_s, spare_bytes=0
        )

    @asynccontextmanager
    async def process(self, upscaler: Upscaler | None = None) -> AsyncIterator[DiskJobStore]:
        store = self.store()
        async with store.working(self.scheduler(upscaler)):
            yield store

    async def start(self, store: JobStore, submission: Submission = ME, **changes: Any) -> str:
        scheduler = self.scheduler()
        task = replace(TASK, **changes)
        return await store.start(scheduler.schedule(task, StageTimer()), submission)


async def finish(store: JobStore, *job_ids: str) -> None:
    async with asyncio.timeout(60):
        for job_id in job_ids:
            await store.wait(job_id)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await true():
            await asyncio.sleep(0.005)


async def body(result: UpscaleResult) -> bytes:
    return b"".join([piece async for piece in responses.body(result)])


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BEAT_S", "KEEP_UP_S", "LOOK_S", "RETRY_S"):
        monkeypatch.setattr(module, name, 0.01)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "data")


def play(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


class Endless(Resizer):
    """Works until it is told that nobody wants it any more."""

    def __init__(self) -> None:
        self.working = 0

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        self.working += 1
        try:
            while True:
                time.sleep(0.001)
                progress(0, 1)
        finally:
            self.working -= 1


Start = Callable[[Submission], Awaitable[str]]


class Stores:
    """Runs what must be true of both kinds of store."""

    def __init__(self, scene: Scene, kind: str) -> None:
        self.upscaler = Gate()
        self.upscaler.opened.set()
        self._scene, self._kind = scene, kind

    def __call__(self, work: Callable[[JobStore, Start], Coroutine[Any, Any, None]]) -> None:
        async def act() -> None:
            store = MemoryJobStore(2**30) if self._kind == "memory" else self._scene.store()
            scheduler = Scheduler(LocalBackend(self.upscaler), Admission(9, 2**24), lambda _: None)

            async def start(submission: Submission) -> str:
                return await store.start(scheduler.schedule(TASK, StageTimer()), submission)

            async with store.working(scheduler):
                await work(store, start)
                await until(lambda: nothing_waits(scheduler))
            assert scheduler.admission.held_bytes == 0

        play(act)


async def nothing_waits(scheduler: Scheduler) -> bool:
    return scheduler.admission.slots == []


@pytest.fixture(params=["memory", "disk"])
def stores(request: pytest.FixtureRequest, scene: Scene) -> Stores:
    return Stores(scene, request.param)


def test_a_result_is_the_one_that_a_request_would_have_had(scene: Scene) -> None:
    async def act() -> None:
        async with scene.process() as store:
            for as_file in (False, True):
                job_id = await scene.start(store, as_file=as_file)
                await finish(store, job_id)
                found = await store.result(job_id)
                with scene.scheduler().schedule(
                    replace(TASK, as_file=as_file), StageTimer()
                ) as scheduled:
                    await scheduled._scheduler.backend.load(TASK.model)
                    at_once = await scheduled.run()
                assert await body(found) == await body(at_once)
                assert responses.body_bytes(found) == len(await body(found))
                assert replace(found, stored=None, file=at_once.file, held_bytes=0) == replace(
                    at_once, seconds=found.seconds
                )

    play(act)


def test_jobs_and_results_survive_the_process(scene: Scene) -> None:
    """An accepted one is made by the next, and a finished one is there."""

    async def act() -> None:
        gate = Gate()
        async with scene.process(gate) as store:
            ids = [await scene.start(store) for _ in range(3)]
            await until(lambda: _is(store, ids[0], JobStatus.RUNNING))
        async with scene.process() as store:
            await finish(store, *ids)
            before = [await body(await store.result(each)) for each in ids]
        async with scene.process() as store:
            assert [await body(await store.result(each)) for each in ids] == before
            scene.now_s += DAY_S
            for each in ids:
                with pytest.raises(UnknownJob):
                    await store.result(each)
            await until(lambda: _no_files(scene))

    play(act)


async def _is(store: JobStore, job_id: str, status: JobStatus) -> bool:
    return await store.status(job_id) is status


async def _no_files(scene: Scene) -> bool:
    return not list((scene.folder / "files").iterdir())


def test_two_processes_share_the_jobs_and_each_is_made_once(scene: Scene) -> None:
    made: list[str] = []

    class Noting(Resizer):
        def __init__(self, name: str) -> None:
            self.name = name

        def upscale(
            self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
        ) -> Iterable[Pixels]:
            made.append(self.name)
            return super().upscale(pixels, model, size, progress)

    async def act() -> None:
        async with scene.process(Noting("a")) as one, scene.process(Noting("b")) as two:
            ids = [await scene.start(one) for _ in range(12)]
            await finish(two, *ids)
            for each in ids:
                assert (await two.result(each)).size == TASK.size
        assert len(made) == 12
        assert set(made) == {"a", "b"}

    play(act)


def test_a_job_of_a_process_that_ended_begins_again(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> None:
        dead = scene.store()
        job_id = await scene.start(dead)
        claimed = dead._database.claim(dead._worker, scene.now_s + 1e6)
        assert claimed
        assert claimed.id == job_id
        dead._database.beat(job_id, dead._worker, scene.now_s + 1e6, scene.now_s, 0.5)
        assert await dead.status(job_id) is JobStatus.RUNNING
        async with scene.process() as store:
            await finish(store, job_id)
            assert (await store.result(job_id)).size == TASK.size
        assert not dead._database.finish(job_id, dead._worker, scene.now_s, file="late")

    with caplog.at_level(logging.WARNING):
        play(act)
    assert "begins again" in caplog.text


def test_a_job_of_a_process_that_is_stopped_begins_again_when_its_lease_ends(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its late result is dropped, and it goes on with other jobs."""

    async def act() -> None:
        gate = Gate()
        async with AsyncExitStack() as stack:
            stopped = await stack.enter_async_context(scene.process(gate))
            job_id = await scene.start(stopped)
            await until(lambda: _is(stopped, job_id, JobStatus.RUNNING))
            async with scene.process() as store:
                await asyncio.sleep(0.1)
                assert await store.status(job_id) is JobStatus.RUNNING, "it is not taken away"
                monkeypatch.setattr(stopped._database, "beat", lambda *_: True)
                assert store._database.beat(job_id, stopped._worker, scene.now_s - 1, 1.0, 0.5)
                await finish(store, job_id)
                first = await body(await store.result(job_id))
                gate.opened.set()
                more = await scene.start(stopped)
                await finish(stopped, more)
                assert await body(await store.result(job_id)) == first

    play(act)


def test_a_job_that_ends_every_process_is_given_up(scene: Scene) -> None:
    async def act() -> None:
        job_id = await scene.start(scene.store())
        for _ in range(MOST_INTERRUPTIONS):
            dead = scene.store()
            assert dead._database.claim(dead._worker, scene.now_s + 60)
            async with scene.process(Gate()) as store:
                row = store._database.find(job_id)
                assert row
        async with scene.process() as store:
            with pytest.raises(JobFailed, match="each time"):
                await store.result(job_id)

    play(act)


def test_the_same_key_gives_the_same_job_and_another_request_is_refused(stores: Stores) -> None:
    async def act(store: JobStore, start: Start) -> None:
        keyed = Submission("me", "key", "print")
        first = await start(keyed)
        assert await start(keyed) == first
        assert await store.repeated(keyed) == first
        await finish(store, first)
        assert await start(keyed) == first
        with pytest.raises(InvalidRequest):
            await start(replace(keyed, fingerprint="other"))
        assert await start(replace(keyed, owner="you")) != first
        both = await asyncio.gather(*(start(Submission("me", "two", "x")) for _ in range(5)))
        assert len(set(both)) == 1
        await store.cancel(first, "me")
        assert await store.repeated(keyed) is None

    stores(act)


def test_owners_see_their_own_jobs_the_newest_first(stores: Stores) -> None:
    async def act(store: JobStore, start: Start) -> None:
        mine = [await start(ME) for _ in range(3)]
        other = await start(OTHER)
        await finish(store, *mine, other)
        listed = await store.listed("me", 10)
        assert [view.id for view in listed] == mine[::-1]
        assert {view.status for view in listed} == {JobStatus.COMPLETED}
        assert {view.rows for view in listed} == {60}
        assert [view.id for view in await store.listed("me", 1)] == mine[2:]
        assert [view.id for view in await store.listed("me", 5, listed[1].cursor)] == mine[:1]
        assert [view.id for view in await store.listed(OTHER.owner, 5)] == [other]
        assert await store.listed("nobody", 5) == []

    stores(act)


def test_a_cancelled_job_ends_at_its_next_rows_and_is_forgotten(stores: Stores) -> None:
    async def act(store: JobStore, start: Start) -> None:
        stores.upscaler.opened.clear()
        running, waiting = await start(ME), await start(ME)
        await until(lambda: _is(store, running, JobStatus.RUNNING))
        assert (await store.view(waiting)).ahead == 1
        for job_id in (running, waiting):
            with pytest.raises(UnknownJob):
                await store.cancel(job_id, "somebody else")
            await store.cancel(job_id, "me")
            with pytest.raises(UnknownJob):
                await store.status(job_id)
            with pytest.raises(UnknownJob):
                await store.cancel(job_id, "me")
        stores.upscaler.opened.set()
        await finish(store, await start(ME))

    stores(act)


def test_a_job_is_cancelled_by_another_process(scene: Scene) -> None:
    async def act() -> None:
        endless = Endless()
        async with scene.process(endless) as one, scene.process(Gate()) as two:
            ids = [await scene.start(one) for _ in range(2)]
            await until(lambda: _is(one, ids[0], JobStatus.RUNNING))
            await until(lambda: _is(two, ids[1], JobStatus.RUNNING))
            for each in ids:
                await two.cancel(each, "me")

            async def has_ended() -> bool:
                return not endless.working

            await until(has_ended)
            assert not list((scene.folder / "files").iterdir())

    play(act)


def test_where_the_bound_is_reached_fetched_results_make_room_and_others_do_not(
    scene: Scene,
) -> None:
    async def act() -> None:
        scene.capacity_bytes = 3 * ROOM
        async with scene.process() as store:
            ids = []
            refusal = None
            while refusal is None:
                try:
                    ids.append(await scene.start(store))
                    await finish(store, ids[-1])
                except Busy as error:
                    refusal = error
            assert int(refusal.headers["Retry-After"]) > 0
            assert len(ids) >= 3
            assert "no room on the disk" in str(refusal)
            await body(await store.result(ids[1]))
            await finish(store, newest := await scene.start(store))
            with pytest.raises(UnknownJob):
                await store.status(ids[1])
            for each in (ids[0], *ids[2:], newest):
                assert (await store.result(each)).size == TASK.size
            used = sum(path.stat().st_size for path in (scene.folder / "files").iterdir())
            assert used <= scene.capacity_bytes

    play(act)


def test_a_full_disk_refuses_new_jobs_and_harms_no_old_ones(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> None:
        gate = Gate()
        async with scene.process(gate) as store:
            old = await scene.start(store)
            await until(lambda: _is(store, old, JobStatus.RUNNING))
            monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=ROOM))
            with pytest.raises(Busy, match="no room"):
                await scene.start(store)
            monkeypatch.undo()
            for name in ("BEAT_S", "KEEP_UP_S", "LOOK_S", "RETRY_S"):
                monkeypatch.setattr(module, name, 0.01)
            write, failed = DiskJobStore._write, 0

            def full(store: DiskJobStore, name: str, pieces: Iterable[bytes]) -> None:
                nonlocal failed
                failed += 1
                if failed < 4:
                    (store._files / name).write_bytes(b"half of")
                    raise OSError(errno.ENOSPC, "No space left on device")
                write(store, name, pieces)

            monkeypatch.setattr(DiskJobStore, "_write", full)
            with pytest.raises(StoreUnavailable):
                await scene.start(store)
            gate.opened.set()
            await finish(store, old)
            assert len(await body(await store.result(old))) > 1000
            assert len(list((scene.folder / "files").iterdir())) == 1
            assert failed >= 4

    with caplog.at_level(logging.CRITICAL):
        play(act)


def test_a_failure_is_kept_and_harms_no_other(scene: Scene) -> None:
    async def act() -> None:
        async with scene.process() as store:
            failed = await scene.start(store, model=UpscalingModel.X4_V3)
            good = await scene.start(store)
            await finish(store, failed, good)
            with pytest.raises(JobFailed) as told:
                await store.result(failed)
            assert told.value.status == 503
            assert "secret" not in str(told.value.detail)
            assert (await store.view(failed)).failure
        async with scene.process() as store:
            with pytest.raises(JobFailed):
                await store.result(failed)
            assert (await store.result(good)).size == TASK.size

    play(act)


def test_a_folder_of_another_version_or_that_cannot_be_used_is_refused(
    tmp_path: Path, scene: Scene
) -> None:
    database = Database(tmp_path / "jobs.sqlite3")
    database._connection.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StoreUnavailable, match="another version"):
        DiskJobStore(tmp_path, 2**30)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="UPSCALER_DATA"):
        DiskJobStore(tmp_path / "file" / "below", 2**30)
    scene.folder.mkdir()
    (scene.folder / "jobs.sqlite3").write_bytes(b"no database, but long enough to be read" * 99)
    with pytest.raises(StoreUnavailable, match="not a database"):
        scene.store()


def test_files_of_no_job_are_removed_once_they_are_old(scene: Scene) -> None:
    async def act() -> None:
        store = scene.store()
        kept = await scene.start(store)
        for name, age_s in (("old", 7200), ("new", 0)):
            path = scene.folder / "files" / name
            path.write_bytes(b"left behind")
            stat = path.stat()
            os.utime(path, (stat.st_atime - age_s, stat.st_mtime - age_s))
        store._remove_orphans()
        names = {path.name for path in (scene.folder / "files").iterdir()}
        assert names == {"new", f"{module._file_stem(kept)}.source"}

    play(act)
