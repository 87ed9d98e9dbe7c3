"""Running out of memory: the result is a correct image, or an error that says so."""

import json
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from math import log2
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support import networks
from tests.support.networks import largest_difference, needs_bf16
from tests.support.paths import ROOT
from tests.support.properties import examples
from upscaler.engine import retry
from upscaler.engine.engine import Engine, RowProgress
from upscaler.engine.streams import CompactStream, StreamedCompact
from upscaler.errors import OutOfMemory
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, UpscalingModel
from upscaler.planning import Footprint, Plan

MODEL = MODELS[UpscalingModel.ANIMEVIDEO_V3]
FOOTPRINT = Footprint(1000, column=1000, flow=500, tail=0, step_px=2000, tail_px=1)
"""With it even small images have many plans."""

ON_A_CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4194304 bytes. Error code 12 (Cannot allocate memory)"
)
"""What torch says there, word for word."""
FAILURES: dict[str, Callable[[], Exception]] = {
    "on a GPU": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "of numpy": lambda: MemoryError("Unable to allocate 3.00 MiB for an array"),
    "on a CPU": lambda: RuntimeError(ON_A_CPU),
    "of oneDNN": lambda: RuntimeError("could not create a primitive"),
    "of C++": lambda: RuntimeError("std::bad_alloc"),
}


@pytest.fixture(autouse=True)
def no_failure_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread in which oneDNN has not failed, as it does below."""
    monkeypatch.setattr(retry, "_this_thread", threading.local())


@cache
def engine() -> Engine:
    found = networks.engine(MODEL)
    found.footprints = [FOOTPRINT]
    return found


@cache
def picture(channels: int = 3) -> Pixels:
    shape = (24, 200, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@cache
def whole(channels: int) -> Pixels:
    return engine().upscale(picture(channels), memory=2**50)


class Run:
    """An image upscaled while whatever `failing` counts to fails, from 0 on, for memory."""

    def __init__(
        self, failing: Callable[[int], bool], failure: Callable[[], Exception], channels: int = 3
    ) -> None:
        self.failing = failing
        self.failure = failure
        self.calls = 0
        self.plans: list[Plan] = []
        self.result: Pixels | None = None
        self.error: Exception | None = None
        with pytest.MonkeyPatch.context() as patch:
            self._disturb(patch)
            try:
                self.result = engine().upscale(picture(channels), memory=2**50)
            except (OutOfMemory, RuntimeError, MemoryError) as error:
                self.error = error

    def _disturb(self, patch: pytest.MonkeyPatch) -> None:
        push, start, strips = CompactStream.push, StreamedCompact.open, engine()._strips

        def pushed(stream: CompactStream, picture: Tensor | None) -> Tensor | None:
            self._count()
            return push(stream, picture)

        def opened(network: StreamedCompact, *args: object) -> object:
            self._count()
            return start(network, *args)  # type: ignore[arg-type]

        def tried(pixels: Pixels, plan: Plan, progress: RowProgress | None) -> Iterator[Tensor]:
            self.plans.append(plan)
            return strips(pixels, plan, progress)

        patch.setattr(CompactStream, "push", pushed)
        patch.setattr(StreamedCompact, "open", opened)
        patch.setattr(engine(), "_strips", tried)

    def _count(self) -> None:
        self.calls += 1
        if self.failing(self.calls - 1):
            raise self.failure()


def most_tries(channels: int) -> int:
    """Each try takes half the memory of the one before, down to the least.

    After a failure of oneDNN the first is made once more, in another thread.
    """
    amounts = [plan.bytes for plan in engine()._plans(200, 24, channels)]
    return 3 + int(log2(max(amounts) / min(amounts)))


@pytest.mark.first(2)
@pytest.mark.parametrize("kind", FAILURES)
@settings(max_examples=examples(12))
@given(failing=st.sets(st.integers(0, 30), max_size=5), channels=st.sampled_from([3, 4]))
def test_a_failure_anywhere_gives_a_correct_image_or_an_error(
    kind: str, failing: set[int], channels: int
) -> None:
    run = Run(failing.__contains__, FAILURES[kind], channels)
    assert len(run.plans) <= most_tries(channels)
    if run.result is None:
        assert isinstance(run.error, OutOfMemory)
        return
    assert largest_difference(run.result, whole(channels)) <= 1
    tried = (engine().upscale_by_plan(picture(channels), plan) for plan in set(run.plans))
    as_tried = [np.all(run.result == undisturbed, axis=(1, 2)) for undisturbed in tried]
    assert np.any(as_tried, axis=0).all(), "every row is that of a try, to the last bit"


@pytest.mark.slow
def test_every_single_push_of_every_band_and_pass_may_fail() -> None:
    calls = Run(lambda _: False, MemoryError, channels=4).calls
    assert calls > 4
    for number in range(calls):
        run = Run(number.__eq__, FAILURES["on a CPU"], channels=4)
        assert run.result is not None
        assert len(run.plans) == 2
        assert largest_difference(run.result, whole(4)) <= 1


def test_each_retry_halves_the_memory_until_the_smallest_plan_fails() -> None:
    run = Run(lambda _: True, FAILURES["on a CPU"])
    amounts = [plan.bytes for plan in run.plans]
    least = min(plan.bytes for plan in engine()._plans(200, 24, 3))
    assert isinstance(run.error, OutOfMemory)
    assert "not enough memory for this image" in str(run.error)
    assert amounts[-1] == least
    for earlier, later in pairwise(amounts):
        assert later < earlier
        assert later <= earlier // 2 or later == least
    assert 2 < len(amounts) <= most_tries(3)


def test_the_plan_after_a_failure_is_the_cheapest_for_half_the_memory() -> None:
    run = Run((0).__eq__, FAILURES["on a CPU"])
    first, second = run.plans
    choices = engine()._plans(200, 24, 3)
    assert first == choices[0]
    assert second.cost == min(c.cost for c in choices if c.bytes <= first.bytes // 2)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory"), KeyError(1)],
    ids=repr,
)
def test_other_errors_are_raised_at_once(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []

    def failing(*_: object) -> None:
        calls.append(None)
        raise error

    monkeypatch.setattr(CompactStream, "push", failing)
    with pytest.raises(type(error)) as caught:
        engine().upscale(picture())
    assert caught.value is error
    assert len(calls) == 1


def test_an_error_of_the_progress_callback_is_raised() -> None:
    def failing(_done: int, _total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        engine().upscale(picture(), progress=failing)


def test_a_failed_try_is_freed_before_the_next(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even by the error's traceback: on a machine that is full it would fail again."""
    caplog.set_level(logging.CRITICAL, "upscaler")  # pytest keeps what is logged, and errors in it
    held: list[int] = []
    streams: list[weakref.ref[CompactStream]] = []
    push, strips = CompactStream.push, engine()._strips

    def pushed(stream: CompactStream, picture: Tensor | None) -> Tensor | None:
        streams.append(weakref.ref(stream))
        if len(streams) == 1:
            raise MemoryError
        return push(stream, picture)

    def tried(pixels: Pixels, plan: Plan, progress: RowProgress | None) -> Iterator[Tensor]:
        held.append(sum(stream() is not None for stream in streams))
        return strips(pixels, plan, progress)

    monkeypatch.setattr(CompactStream, "push", pushed)
    monkeypatch.setattr(engine(), "_strips", tried)
    engine().upscale(picture(), memory=2**50)
    assert held == [0, 0]


def test_where_onednn_has_failed_no_later_image_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[threading.Thread] = []
    push = CompactStream.push

    def failing(stream: CompactStream, picture: Tensor | None) -> Tensor | None:
        threads.append(threading.current_thread())
        if threading.current_thread() is threading.main_thread():
            raise FAILURES["of oneDNN"]()
        return push(stream, picture)

    monkeypatch.setattr(CompactStream, "push", failing)
    for _ in range(2):
        assert np.array_equal(engine().upscale(picture(), memory=2**50), whole(3))
    assert threads.count(threading.main_thread()) == 1


def test_a_retry_logs_the_plan_that_did_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    run = Run((0).__eq__, FAILURES["on a CPU"])
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "DefaultCPUAllocator" in record.getMessage()
    assert str(run.plans[0]) in record.getMessage()


IN_LITTLE_MEMORY = """
import ctypes, json, resource, sys, threading
import numpy as np, psutil
from tests.support import networks
from upscaler.engine import retry
from upscaler.errors import OutOfMemory
from upscaler.models import MODELS, UpscalingModel
from upscaler.planning import Footprint
from upscaler.settings import Precision

engine = networks.engine(MODELS[UpscalingModel.ANIMEVIDEO_V3], Precision(sys.argv[1]))
engine.footprints = [Footprint(1000, column=1000, flow=500, tail=0, step_px=16000, tail_px=1)]
picture = np.random.default_rng(0).integers(0, 256, (32, 500, 3), dtype=np.uint8)
tries = []
strips = engine._strips
def noting(pixels, plan, progress):
    tries.append(plan)
    return strips(pixels, plan, progress)
engine._strips = noting
engine.upscale(picture[:8, :40])  # starts the threads
libc = ctypes.CDLL(None)
outcomes = []
for extra in json.loads(sys.argv[2]):
    libc.malloc_trim(0)
    tries.clear()
    vars(retry._this_thread).clear()  # so that what follows a failure is tried each time
    free = resource.RLIM_INFINITY
    limit = psutil.Process().memory_info().vms + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, free))
    try:
        result = engine.upscale(picture, memory=2**50)
        outcome = "picture"
    except OutOfMemory:
        outcome = "OutOfMemory"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    resource.setrlimit(resource.RLIMIT_AS, (free, free))
    outcomes.append([outcome, len(tries)])
    if outcome == "picture":
        np.save(f"{sys.argv[3]}/{len(outcomes) - 1}.npy", result)
final = engine.upscale(picture, memory=2**50)
np.save(f"{sys.argv[3]}/after.npy", final)
print(json.dumps(outcomes))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory so")
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", pytest.param("mixed", marks=needs_bf16)])
def test_with_too_little_memory_it_upscales_or_raises_out_of_memory(
    precision: str, tmp_path: Path
) -> None:
    """For real: nothing is replaced, torch and oneDNN fail as they fail.

    And when there is memory again, the same process goes on as if nothing had happened.
    """
    extras = [2**16, *(int(2**20 * 1.5**n) for n in range(15))]
    command = [sys.executable, "-c", IN_LITTLE_MEMORY, precision, json.dumps(extras), str(tmp_path)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "2",  # a thread that cannot be started is one of the failures
            **({"UPSCALER_WEIGHTS": str(networks.FOLDER)} if networks.FOLDER else {}),
        },
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout)
    assert {outcome for outcome, _ in outcomes} == {"picture", "OutOfMemory"}
    assert any(outcome == "picture" and tries > 1 for outcome, tries in outcomes)
    after = np.load(tmp_path / "after.npy")
    for path in tmp_path.glob("*.npy"):
        assert largest_difference(np.load(path), after) <= 1
