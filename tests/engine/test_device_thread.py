"""The thread of a device: all that computes there, whoever asks for it."""

import asyncio
import gc
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.raw_http import PATIENCE_S
from tests.support.service import GOOD, decoded, serving, upscale
from upscaler.engine.device_thread import DeviceThread
from upscaler.engine.engine import Engine
from upscaler.engine.pool import EnginePool
from upscaler.engine.whole_maps import WholeMapStream
from upscaler.errors import OutOfMemory, release_frames
from upscaler.formats import ImageEncoding
from upscaler.imaging.pixels import Pixels
from upscaler.models import UpscalingModel
from upscaler.service.backend import LocalBackend, StageTimer, UpscaleJob
from upscaler.settings import Device, Precision, Settings

FAST = UpscalingModel.ANIMEVIDEO_V3
SETTINGS = Settings(device=Device.CPU, precision=Precision.FP32)


@pytest.fixture
def engines() -> Iterator[EnginePool]:
    pool = EnginePool(SETTINGS)
    yield pool
    pool.close()


@pytest.fixture
def callers(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The thread of each call that prepares a network or runs it."""
    seen: list[threading.Thread] = []

    def noted(owner: type, name: str) -> None:
        work: Callable[..., Any] = getattr(owner, name)

        def noting(*args: Any, **options: Any) -> Any:
            seen.append(threading.current_thread())
            return work(*args, **options)

        monkeypatch.setattr(owner, name, noting)

    noted(Engine, "__init__")
    noted(Engine, "strips")
    noted(WholeMapStream, "push")
    return seen


def test_a_service_computes_in_one_thread_that_stays(
    engines: EnginePool, callers: list[threading.Thread]
) -> None:
    with serving(engines) as api:
        for width in (64, 48):
            fields = {"scale": None, "output_image_width": width, "model": FAST}
            assert decoded(upscale(api, **GOOD | fields)).width == width
        (thread,) = set(callers)
        assert len(callers) > 4
        assert thread.is_alive()
    assert thread.is_alive()
    engines.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_other_callers_use_the_same_thread(
    engines: EnginePool, callers: list[threading.Thread]
) -> None:
    pixels = np.zeros((16, 20, 3), np.uint8)
    engines.load(FAST)
    engines.estimate_s(FAST, engines.plan(FAST, (20, 16), 3), 3)
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(list, engines.upscale(pixels, FAST, (80, 64))) for _ in range(3)]
    first, *others = (np.concatenate(job.result()) for job in jobs)
    assert all(np.array_equal(first, other) for other in others)
    assert len(set(callers)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no signal can be sent to a thread")
def test_an_interruption_ends_the_work_at_its_next_progress(engines: EnginePool) -> None:
    deep = UpscalingModel.X4_PLUS_ANIME  # which tells of its progress 20 times before any strip
    pixels = np.zeros((32, 32, 3), np.uint8)
    told: list[int] = []
    never = threading.Event()

    def progress(done: int, _total: int) -> None:
        told.append(done)
        if len(told) == 2:
            # As by Ctrl-C, while the main thread waits for a strip.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if len(told) > 1:
            never.wait(0.3)

    with pytest.raises(KeyboardInterrupt):
        list(engines.upscale(pixels, deep, (128, 128), progress))
    assert len(told) < 15
    assert len(list(engines.upscale(pixels, FAST, (128, 128)))) >= 1, "the thread goes on"


def test_what_is_abandoned_is_closed_in_the_thread() -> None:
    thread, closed = DeviceThread(torch.device("cpu")), []

    def items() -> Iterator[int]:
        try:
            yield from (1, 2, 3)
        finally:
            closed.append(threading.get_ident())

    ident = thread.run(threading.get_ident)
    abandoned = thread.iterate(items, lambda: None)
    assert next(abandoned) == 1
    del abandoned
    # And so it is where the last reference is lost in the thread itself.
    held = [thread.iterate(items, lambda: None)]
    assert next(held[0]) == 1
    thread.run(held.clear)
    assert closed == [ident, ident]
    thread.close()


def test_the_thread_of_a_card_has_it_as_its_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams, Triton's kernels and tensors of "cuda" are on the card that is a thread's own."""
    current: dict[int, torch.device] = {}
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda card: current.update({threading.get_ident(): card})
    )
    for name in ("cuda:1", "cuda:0", "cuda", "cpu", "mps"):
        thread = DeviceThread(torch.device(name))
        expected = torch.device(name) if ":" in name else None
        assert current.get(thread.run(threading.get_ident)) == expected
        current.clear()
        thread.close()


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
def test_a_job_that_ends_early_leaves_no_pixels(
    ends: str, engines: EnginePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the garbage collector, which counts objects and not their bytes."""
    push, began, go_on = WholeMapStream.push, threading.Event(), threading.Event()

    def waiting(stream: WholeMapStream, image: torch.Tensor | None) -> torch.Tensor | None:
        began.set()
        assert go_on.wait(PATIENCE_S)
        if ends == "failed":
            raise OutOfMemory("far too large")
        return push(stream, image)

    monkeypatch.setattr(WholeMapStream, "push", waiting)
    backend = LocalBackend(engines)

    def start(pixels: Pixels) -> "tuple[weakref.ref[Pixels], asyncio.Task[object]]":
        job = UpscaleJob(b"", pixels, FAST, (80, 256), ImageEncoding.PNG)
        return weakref.ref(pixels), asyncio.create_task(backend.make(job, StageTimer()))

    async def act() -> None:
        await backend.load(FAST)
        pixels, making = start(np.zeros((64, 20, 3), np.uint8))
        assert await asyncio.to_thread(began.wait, PATIENCE_S)
        if ends == "cancelled":
            making.cancel()
        go_on.set()
        await asyncio.wait([making])
        assert making.cancelled() is (ends == "cancelled")
        if ends == "failed":
            with pytest.raises(OutOfMemory) as caught:
                making.result()
            release_frames(caught.value)  # as the service does
            del caught
        del making
        async with asyncio.timeout(PATIENCE_S):  # a thread may be about to let go of its work
            while pixels() is not None:
                await asyncio.sleep(0.01)

    gc.disable()
    try:
        asyncio.run(act())
    finally:
        gc.enable()
