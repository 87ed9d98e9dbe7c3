"""A task on its way through the line, the network and the encoder."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.service import Resizer
from upscaler.api.sizes import Size
from upscaler.errors import Busy, Cancelled
from upscaler.formats import ImageEncoding
from upscaler.imaging.encode import encode
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.resize import resize
from upscaler.models import MODELS, UpscalingModel, flop
from upscaler.service.backend import (
    FIRST_GUESS_FLOPS,
    STAGES,
    LocalBackend,
    Progress,
    Scheduler,
    StageTimer,
    ThroughputEstimator,
    UpscaleJob,
    Upscaler,
    UpscaleResult,
)
from upscaler.service.queue import Admission

FAST, DEEP = UpscalingModel.ANIMEVIDEO_V3, UpscalingModel.X4_PLUS
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
TASK = UpscaleJob(b"", PIXELS, FAST, (120, 80), ImageEncoding.PNG)


def scheduler(
    upscaler: Upscaler, on_result: Callable[[UpscaleResult], None] = lambda _: None
) -> Scheduler:
    return Scheduler(
        LocalBackend(upscaler), Admission(queue_length=3, memory_bytes=2**20), on_result
    )


def run(work: Coroutine[Any, Any, None]) -> None:
    async def with_patience() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(with_patience())


def test_what_is_made_is_the_picture_and_how_it_was_made() -> None:
    told: list[UpscaleResult] = []

    async def play() -> None:
        shop = scheduler(Resizer(), told.append)
        with shop.schedule(TASK, StageTimer()) as scheduled:
            made = await scheduled.run()
        assert told == [made]
        assert b"".join(made.file) == encode(resize(PIXELS, (120, 80)), ImageEncoding.PNG)
        assert made.file_bytes == len(b"".join(made.file))
        assert (made.input_size, made.size) == ((60, 40), (120, 80))
        assert (made.model, made.encoding, made.as_file) == (FAST, ImageEncoding.PNG, False)
        assert made.weights_sha256 == Resizer().load(FAST)

    run(play())


class Slow(Resizer):
    """Takes its time to load, and 20 ms for each of five strips."""

    def __init__(self, load_s: float = 0.0) -> None:
        self.load_s = load_s
        self.loaded: list[UpscalingModel] = []
        self.strips = 0
        self.started = threading.Event()

    def load(self, model: UpscalingModel) -> str:
        time.sleep(self.load_s)
        self.loaded.append(model)
        return super().load(model)

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        self.started.set()
        for strip in np.array_split(resize(pixels, size), 5):
            time.sleep(0.02)
            self.strips += 1
            yield strip


def test_each_stage_is_timed_and_the_rest_is_encoding() -> None:
    async def play() -> None:
        timer, shop = StageTimer(), scheduler(Slow(load_s=0.05))
        began_s = time.perf_counter()
        with shop.schedule(TASK, timer) as scheduled:
            made = await scheduled.run()
        wall_s = time.perf_counter() - began_s
        assert made.seconds == timer.seconds
        assert tuple(made.seconds) == STAGES
        assert made.seconds["load"] >= 0.05
        assert made.seconds["infer"] >= 0.1
        assert min(made.seconds.values()) >= 0
        assert sum(made.seconds.values()) <= wall_s

    run(play())


def test_only_the_first_order_of_a_model_loads_its_weights() -> None:
    async def play() -> None:
        backend = Slow()
        shop = scheduler(backend)
        for model in (FAST, DEEP, FAST):
            with shop.schedule(replace(TASK, model=model), StageTimer()) as scheduled:
                made = await scheduled.run()
            assert made.weights_sha256 == Resizer().load(model)
        assert backend.loaded == [FAST, DEEP]

    run(play())


def test_the_queue_is_the_time_until_the_others_are_done() -> None:
    async def play() -> None:
        shop, watches = scheduler(Slow()), [StageTimer(), StageTimer()]

        async def one(timer: StageTimer) -> None:
            with shop.schedule(TASK, timer) as scheduled:
                await scheduled.run()

        await asyncio.gather(*map(one, watches))
        first, second = (timer.seconds for timer in watches)
        assert first["queue"] < 0.09
        assert second["queue"] >= 0.09

    run(play())


def test_a_cancelled_task_stops_at_the_next_strip_before_others_run() -> None:
    async def play() -> None:
        backend = Slow()
        shop = scheduler(backend)

        async def one() -> None:
            with shop.schedule(TASK, StageTimer()) as scheduled:
                await scheduled.run()

        gone = asyncio.create_task(one())
        assert await asyncio.to_thread(backend.started.wait, 30)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert shop.admission.slots == []
        assert not shop.admission.semaphore.locked()
        stopped_at = backend.strips
        assert stopped_at < 5
        await one()
        assert backend.strips == stopped_at + 5

    run(play())


class Fetching(Resizer):
    """A backend one of whose models takes until it is told to be there."""

    def __init__(self) -> None:
        self.arrived = threading.Event()

    def load(self, model: UpscalingModel) -> str:
        if model is DEEP:
            assert self.arrived.wait(30)
        return super().load(model)


def test_many_that_wait_for_one_model_hold_up_no_other() -> None:
    """However many threads there are: anyio has 40 at once, and asyncio fewer."""

    async def play() -> None:
        backend = Fetching()
        shop = scheduler(backend)
        waiting = [asyncio.create_task(shop.backend.load(DEEP)) for _ in range(100)]
        await asyncio.sleep(0.05)
        try:
            async with asyncio.timeout(10):
                await shop.backend.load(FAST)
            assert not any(task.done() for task in waiting)
        finally:
            backend.arrived.set()
        await asyncio.gather(*waiting)

    run(play())


class Deaf(Resizer):
    """Makes everything at once, and only tells of its progress."""

    def __init__(self) -> None:
        self.started, self.cancelled = threading.Event(), threading.Event()

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        self.started.set()
        deadline = time.monotonic() + 30
        try:
            while time.monotonic() < deadline:
                progress(1, 2)
                time.sleep(0.001)
        except Cancelled:
            self.cancelled.set()
            raise
        return [resize(pixels, size)]


async def cancel_once_started(backend: Deaf) -> None:
    with scheduler(backend).schedule(TASK, StageTimer()) as scheduled:
        making = asyncio.create_task(scheduled.run())
        assert await asyncio.to_thread(backend.started.wait, 30)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making


def test_an_upscaler_without_strips_stops_at_its_next_progress_report() -> None:
    backend = Deaf()
    run(cancel_once_started(backend))
    assert backend.cancelled.is_set()


class Clumsy(Deaf):
    """Fails when it is to stop."""

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        try:
            return super().upscale(pixels, model, size, progress)
        except Cancelled:
            raise ZeroDivisionError from None


@pytest.mark.parametrize(("backend", "logged"), [(Deaf, []), (Clumsy, ["ZeroDivisionError"])])
def test_a_fault_while_it_stops_is_not_lost(
    backend: type[Deaf], logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    run(cancel_once_started(backend()))
    assert [str(record.exc_text).split("\n")[-1] for record in caplog.records] == logged


def test_an_order_holds_its_pixels_in_memory_and_gives_all_back() -> None:
    shop = scheduler(Resizer())
    with shop.schedule(TASK, StageTimer()):
        assert shop.admission.held_bytes == PIXELS.nbytes
        assert len(shop.admission.slots) == 1
    assert shop.admission.held_bytes == 0
    assert shop.admission.slots == []


def test_an_order_that_memory_does_not_suffice_for_takes_no_place() -> None:
    shop = Scheduler(LocalBackend(Resizer()), Admission(3, PIXELS.nbytes - 1), lambda _: None)
    with pytest.raises(Busy), shop.schedule(TASK, StageTimer()):
        pytest.fail("it must not be let in")
    assert shop.admission.slots == []


def test_before_anything_was_made_the_pace_is_a_guess() -> None:
    operations = flop(MODELS[DEEP], 512, 512)
    assert ThroughputEstimator().estimate_s(DEEP, (512, 512)) == operations / FIRST_GUESS_FLOPS


def test_estimates_follow_what_was_measured_and_grow_with_the_picture() -> None:
    estimator = ThroughputEstimator()
    estimator.record(FAST, (256, 256), 0.5)
    assert estimator.estimate_s(FAST, (256, 256)) == pytest.approx(0.5)
    assert estimator.estimate_s(FAST, (512, 1024)) == pytest.approx(0.5 * 8)
    ratio = flop(MODELS[DEEP], 256, 256) / flop(MODELS[FAST], 256, 256)
    assert estimator.estimate_s(DEEP, (256, 256)) == pytest.approx(0.5 * ratio)
    for _ in range(20):
        estimator.record(FAST, (256, 256), 0.1)
    assert estimator.estimate_s(FAST, (256, 256)) == pytest.approx(0.1, rel=1e-3)


def test_a_model_keeps_its_own_pace() -> None:
    estimator = ThroughputEstimator()
    estimator.record(DEEP, (256, 256), 30.0)
    estimator.record(FAST, (256, 256), 0.1)
    assert estimator.estimate_s(DEEP, (256, 256)) == pytest.approx(30.0)


def test_a_picture_that_took_no_time_at_all_does_no_harm() -> None:
    estimator = ThroughputEstimator()
    estimator.record(FAST, (256, 256), 0.0)
    assert 0 < estimator.estimate_s(FAST, (256, 256)) < 1e-3
