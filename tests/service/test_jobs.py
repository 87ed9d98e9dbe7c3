"""What is kept of asynchronous inferences: how much, how long, and what became of them."""

import asyncio
import gc
import logging
import pickle
import time
import tracemalloc
import weakref
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.service.test_async import Gate
from tests.support.service import Moody, Resizer
from upscaler.api.responses import JobStatus
from upscaler.api.sizes import Size
from upscaler.errors import (
    Busy,
    FieldError,
    InvalidRequest,
    JobFailed,
    OutOfMemory,
    UnknownJob,
    WeightsUnavailable,
)
from upscaler.formats import ImageEncoding
from upscaler.imaging.encode import most_bytes
from upscaler.imaging.pixels import Pixels
from upscaler.models import UpscalingModel
from upscaler.service.backend import (
    LocalBackend,
    Progress,
    Scheduler,
    StageTimer,
    UpscaleJob,
    Upscaler,
)
from upscaler.service.jobs import memory as module
from upscaler.service.jobs.memory import Job, MemoryJobStore
from upscaler.service.jobs.store import MAX_JOBS, Submission
from upscaler.service.queue import Admission

DAY_S = 24 * 60 * 60
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
TASK = UpscaleJob(b"", PIXELS, UpscalingModel.X4_PLUS, (60, 40), ImageEncoding.PNG)
ROOM = most_bytes(TASK.size, 3)


class Scene:
    """A store with a clock of its own, before a scheduler with room for three."""

    def __init__(self, capacity_bytes: int = 100 * ROOM, upscaler: Upscaler | None = None) -> None:
        self.now_s = 1e6
        self.upscaler = upscaler or Moody()
        self.shop = Scheduler(LocalBackend(self.upscaler), Admission(2, 2**24), lambda _: None)
        self.jobs = MemoryJobStore(capacity_bytes, clock=lambda: self.now_s)

    async def start(self, model: UpscalingModel = UpscalingModel.X4_PLUS) -> str:
        task = UpscaleJob(b"", PIXELS, model, TASK.size, TASK.encoding)
        return await self.jobs.start(self.shop.schedule(task, StageTimer()))

    async def finish(self, *job_ids: str) -> None:
        async with asyncio.timeout(30):
            for job_id in job_ids:
                while await self.jobs.status(job_id) is not JobStatus.COMPLETED:
                    await asyncio.sleep(0.001)


def play(work: Callable[[Scene], Coroutine[Any, Any, None]], scene: Scene | None = None) -> None:
    asyncio.run(work(scene or Scene()))


def test_a_job_is_pending_then_running_then_completed() -> None:
    async def act(scene: Scene) -> None:
        first, second = await scene.start(), await scene.start()
        assert await scene.jobs.status(first) is JobStatus.PENDING
        assert await scene.jobs.status(second) is JobStatus.PENDING
        seen: set[tuple[JobStatus, JobStatus]] = set()
        async with asyncio.timeout(30):
            while await scene.jobs.status(second) is not JobStatus.COMPLETED:
                seen.add((await scene.jobs.status(first), await scene.jobs.status(second)))
                await asyncio.sleep(0)
        assert (JobStatus.RUNNING, JobStatus.PENDING) in seen
        assert (JobStatus.COMPLETED, JobStatus.RUNNING) in seen
        assert (await scene.jobs.result(first)).size == (60, 40)
        assert scene.shop.admission.slots == []
        assert scene.shop.admission.held_bytes == 0

    play(act)


def test_there_is_no_result_before_it_is_completed() -> None:
    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        with pytest.raises(UnknownJob, match="not completed"):
            await scene.jobs.result(job_id)
        await scene.finish(job_id)
        assert (await scene.jobs.result(job_id)).file_bytes > 0

    play(act)


def test_ids_cannot_be_guessed_and_unknown_ones_are_told() -> None:
    async def act(scene: Scene) -> None:
        ids = set()
        for _ in range(50):
            ids.add(job_id := await scene.start())
            await scene.finish(job_id)
        assert len(ids) == 50
        assert min(map(len, ids)) * 6 >= 128, "bits of base64"
        for job_id in ("", "0", next(iter(ids))[:-1], next(iter(ids)).swapcase()):
            with pytest.raises(UnknownJob):
                await scene.jobs.status(job_id)
            with pytest.raises(UnknownJob):
                await scene.jobs.result(job_id)

    play(act)


def test_a_result_is_kept_for_a_day_from_when_it_is_there_and_no_longer() -> None:
    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        scene.now_s += 2 * DAY_S  # it may wait in line as long as it has to
        await scene.finish(job_id)
        scene.now_s += DAY_S - 1
        assert (await scene.jobs.result(job_id)).size == (60, 40)
        scene.now_s += 1
        with pytest.raises(UnknownJob):
            await scene.jobs.status(job_id)
        with pytest.raises(UnknownJob):
            await scene.jobs.result(job_id)
        assert scene.jobs.held_bytes == 0

    play(act)


@pytest.mark.parametrize(
    ("model", "kind", "status", "detail"),
    [
        (UpscalingModel.X4_V3, WeightsUnavailable, 503, WeightsUnavailable().detail),
        (UpscalingModel.X2_PLUS, ZeroDivisionError, 500, "Internal Server Error"),
    ],
)
def test_a_job_that_fails_is_completed_keeps_its_error_and_harms_no_other(
    model: UpscalingModel,
    kind: type[Exception],
    status: int,
    detail: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def act(scene: Scene) -> None:
        before, failed, after = await scene.start(), await scene.start(model), await scene.start()
        await scene.finish(before, failed, after)
        for _ in range(2):
            with pytest.raises(JobFailed) as told:
                await scene.jobs.result(failed)
            assert (told.value.status, told.value.detail) == (status, detail)
        for job_id in (before, after):
            assert (await scene.jobs.result(job_id)).size == (60, 40)
        assert scene.shop.admission.slots == []

    with caplog.at_level(logging.ERROR):
        play(act)
    assert kind.__name__ in caplog.text


def test_a_job_for_which_there_is_no_place_in_line_is_refused_at_once() -> None:
    async def act(scene: Scene) -> None:
        ids = [await scene.start() for _ in range(3)]
        held = scene.jobs.held_bytes
        with pytest.raises(Busy):
            await scene.start()
        assert scene.jobs.held_bytes == held
        await scene.finish(*ids)
        await scene.start()

    play(act)


def test_the_largest_file_is_reserved_and_the_difference_released() -> None:
    async def act(scene: Scene) -> None:
        job_id = await scene.start()
        assert scene.jobs.held_bytes == ROOM
        await scene.finish(job_id)
        assert scene.jobs.held_bytes == (await scene.jobs.result(job_id)).file_bytes < ROOM

    play(act)


def test_results_that_nobody_has_fetched_are_kept_and_new_jobs_refused() -> None:
    async def act(scene: Scene) -> None:
        ids = []
        while scene.jobs.held_bytes + ROOM <= scene.jobs.capacity_bytes:
            ids.append(await scene.start())
            await scene.finish(ids[-1])
        with pytest.raises(Busy) as refusal:
            await scene.start()
        assert int(refusal.value.headers["Retry-After"]) > 0
        assert scene.shop.admission.slots == [], "a refused job leaves the line"
        assert len({(await scene.jobs.result(each)).size for each in ids}) == 1
        scene.now_s += DAY_S
        await scene.finish(await scene.start())

    play(act, Scene(capacity_bytes=3 * ROOM))


def test_where_room_is_needed_the_result_fetched_longest_ago_makes_it() -> None:
    async def act(scene: Scene) -> None:
        ids = []
        while scene.jobs.held_bytes + ROOM <= scene.jobs.capacity_bytes:
            ids.append(await scene.start())
            await scene.finish(ids[-1])
        for each in (ids[1], ids[2], ids[1]):
            await scene.jobs.result(each)
        await scene.finish(newest := await scene.start())
        with pytest.raises(UnknownJob):
            await scene.jobs.status(ids[2])
        for each in (*ids[:2], *ids[3:], newest):
            assert await scene.jobs.status(each) is JobStatus.COMPLETED
        assert scene.jobs.held_bytes <= scene.jobs.capacity_bytes

    play(act, Scene(capacity_bytes=5 * ROOM))


def test_there_are_never_more_than_so_many_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_JOBS", 3)

    async def act(scene: Scene) -> None:
        for _ in range(3):
            await scene.finish(await scene.start(UpscalingModel.X2_PLUS))
        with pytest.raises(Busy):
            await scene.start()

    play(act)


class Endless(Resizer):
    """Works until it is told that nobody wants it any more."""

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        while True:
            progress(0, 1)


def test_with_its_event_loop_ends_what_is_not_completed() -> None:
    scene = Scene(upscaler=Endless())

    async def act(scene: Scene) -> None:
        running = await scene.start()
        await scene.start()
        async with asyncio.timeout(30):
            while await scene.jobs.status(running) is not JobStatus.RUNNING:
                await asyncio.sleep(0.001)

    play(act, scene)
    assert scene.shop.admission.slots == []


def test_failed_jobs_take_up_no_room() -> None:
    async def act(scene: Scene) -> None:
        await scene.finish(await scene.start(UpscalingModel.X2_PLUS))
        assert scene.jobs.held_bytes == 0

    play(act)


class Failing(Resizer):
    """Fails with the picture in its frames, and with a cause that has it, too."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.seen: list[weakref.ref[Pixels]] = []

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        copy = pixels.copy()
        self.seen += [weakref.ref(pixels), weakref.ref(copy)]
        raise type(self.error)(*self.error.args) from ZeroDivisionError(copy)


@pytest.mark.parametrize("error", [OutOfMemory("far too large"), KeyError("a bug")])
def test_of_a_job_that_failed_nothing_is_kept_but_what_is_told(error: Exception) -> None:
    failing = Failing(error)

    async def act(scene: Scene) -> None:
        ids = []
        for _ in range(3):
            task = replace(TASK, pixels=PIXELS.copy())
            ids.append(await scene.jobs.start(scene.shop.schedule(task, StageTimer())))
            del task
            await scene.finish(ids[-1])
        for _ in range(2):  # nor is anything that was kept while it was told
            with pytest.raises(JobFailed):
                await scene.jobs.result(ids[0])
        gc.collect()
        assert len(failing.seen) == 6
        assert [pixels() for pixels in failing.seen] == [None] * 6

    logging.disable()  # pytest keeps what is logged
    try:
        play(act, Scene(upscaler=failing))
    finally:
        logging.disable(logging.NOTSET)


def test_a_job_that_failed_tells_what_its_error_would_have_told() -> None:
    """Of every kind of error, and with its headers."""
    found = Busy("full", 7), InvalidRequest(FieldError(("body", "x"), "wrong", "kind"))
    for error in found:
        told = JobFailed(JobFailed.Response(error.status, error.detail, error.headers))
        again = pickle.loads(pickle.dumps(told))
        for each in (told, again):
            assert (each.status, each.detail) == (error.status, error.detail)
            assert each.headers == error.headers


def test_jobs_under_way_that_may_need_all_room_are_told_as_such() -> None:
    """They take less once they are done, so it is soon worth another try."""

    async def act(scene: Scene) -> None:
        ids = [await scene.start(), await scene.start()]
        with pytest.raises(Busy, match="running jobs") as refusal:
            await scene.start()
        assert refusal.value.retry_after_s < 10, "as long as the first of them should take"
        await scene.finish(*ids)
        await scene.finish(await scene.start())

    play(act, Scene(capacity_bytes=5 * ROOM // 2))


def test_retry_after_is_at_most_when_the_first_result_expires() -> None:
    async def act(scene: Scene) -> None:
        await scene.finish(await scene.start())
        for passed_s, retry_after_s in ((0, 600), (DAY_S - 601, 600), (500, 101)):
            scene.now_s += passed_s
            with pytest.raises(Busy, match="have not been fetched") as refusal:
                await scene.start()
            assert refusal.value.retry_after_s == retry_after_s
        scene.now_s += 101
        await scene.finish(await scene.start())

    play(act, Scene(capacity_bytes=ROOM + 100))


def test_nothing_is_forgotten_for_a_job_that_is_refused() -> None:
    async def act(scene: Scene) -> None:
        await scene.finish(fetched := await scene.start())
        size = (await scene.jobs.result(fetched)).file_bytes
        scene.jobs.capacity_bytes = ROOM + 2 * size
        for _ in range(2):
            await scene.finish(await scene.start())
        scene.jobs.capacity_bytes = ROOM + size
        with pytest.raises(Busy, match="have not been fetched"):
            await scene.start()
        assert (await scene.jobs.result(fetched)).size == (60, 40)

    play(act)


class Cancelling(Resizer):
    """A backend that is cancelled, as a library may do."""

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        raise asyncio.CancelledError


def test_a_job_whose_making_was_cancelled_is_completed_and_holds_no_room() -> None:
    async def act(scene: Scene) -> None:
        await scene.finish(cancelled := await scene.start())
        with pytest.raises(JobFailed, match="Internal Server Error"):
            await scene.jobs.result(cancelled)
        assert scene.jobs.held_bytes == 0

    play(act, Scene(upscaler=Cancelling()))


def test_making_room_takes_time_for_what_is_forgotten_alone() -> None:
    """Of as many results as are kept at most, all of them fetched."""

    async def act(scene: Scene) -> None:
        jobs = scene.jobs
        await scene.finish(first := await scene.start())
        made, shown = await jobs.result(first), await jobs.view(first)
        for number in range(MAX_JOBS - 1):
            job = Job(replace(shown, id=str(number)), 0, Submission(), StageTimer(), result=made)
            jobs._jobs[job.id] = jobs._fetched[job.id] = job
            jobs.complete(job)
        assert jobs.held_bytes == MAX_JOBS * made.file_bytes
        with scene.shop.schedule(TASK, StageTimer()) as scheduled:
            began_s = time.process_time()
            jobs._make_room(jobs.capacity_bytes, scheduled)
            assert time.process_time() - began_s < 0.5, "it took a few seconds"
        assert jobs.held_bytes == len(jobs._jobs) == len(jobs._expiring) == 0

    play(act, Scene(2**30))


def test_what_is_held_is_what_is_said_at_each_stage() -> None:
    """By Python's own account, to which numpy's arrays belong."""
    scene = Scene(2**30, Gate())
    pixels = np.zeros((1000, 1000, 3), np.uint8)
    task = replace(TASK, source=bytes(10**6), pixels=pixels, size=(1000, 1000))

    def held() -> int:
        gc.collect()
        traced = tracemalloc.get_traced_memory()[0] - before
        said = scene.shop.admission.held_bytes + scene.jobs.results_bytes
        assert said == pytest.approx(traced, abs=300_000)
        return said

    async def act(scene: Scene) -> None:
        gate = scene.upscaler
        assert isinstance(gate, Gate)
        ids = []
        for number in range(1, 4):
            copies = replace(task, source=bytes(10**6), pixels=pixels.copy())
            ids.append(await scene.jobs.start(scene.shop.schedule(copies, StageTimer())))
            del copies
            assert held() == number * 4 * 10**6
        gate.opened.set()
        await scene.finish(*ids)
        assert held() == scene.jobs.results_bytes > 0
        scene.now_s += DAY_S
        with pytest.raises(UnknownJob):
            await scene.jobs.status(ids[0])
        assert held() == 0

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    try:
        play(act, scene)
    finally:
        tracemalloc.stop()
