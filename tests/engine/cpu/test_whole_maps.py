"""Whole maps on a CPU: right on every processor, with progress, and given up for lack of memory."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import networks
from tests.support.networks import largest_difference, plan, psnr
from tests.support.paths import ROOT
from tests.support.properties import examples
from upscaler.engine.cpu import check, whole_maps
from upscaler.engine.engine import Engine
from upscaler.errors import Cancelled
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, RRDB, Compact, Model, UpscalingModel
from upscaler.settings import Kernels, Precision

CPU: Final = torch.device("cpu")
SMALL: Final = Model(
    **{**vars(MODELS[UpscalingModel.ANIMEVIDEO_V3]), "network": Compact(scale=4, num_conv=7)}
)


def small_engine() -> Engine:
    return Engine(SMALL, networks.lively(SMALL), CPU, Precision.FP32)


@pytest.mark.first(2)
@pytest.mark.parametrize("name", UpscalingModel)
def test_a_picture_equals_the_plain_network(name: UpscalingModel, photo: Pixels) -> None:
    """On more tiles than one thread takes, in odd sizes, and with strips of the tail."""
    model = MODELS[name]
    net = networks.network(model)
    pixels = photo[3:46, 5:96]
    engine = Engine(model, net, CPU, Precision.FP32)
    way = plan(model, pixels, rows=len(pixels), tail_rows=16, whole=True)
    found = engine.upscale_by_plan(pixels, way)
    exact = networks.plain(model, net, pixels)
    assert largest_difference(found, exact) <= 1
    assert psnr(found, exact) > 70


@pytest.mark.skipif(sys.platform != "linux", reason="protects memory as Linux does")
def test_nothing_is_read_or_written_beside_a_map() -> None:
    """A row behind the body's map was read, which ended one process of several by SIGSEGV."""
    command = [sys.executable, "-m", "tests.support.guarded_memory"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@torch.inference_mode()
def test_the_strips_of_a_tail_fit_together() -> None:
    """To rounding: a row too few beside a strip changes its last pixels by less than a level."""
    net = networks.lively(
        Model(**{**vars(MODELS[UpscalingModel.X4_PLUS]), "network": RRDB(scale=4, num_block=1)})
    )
    image = torch.from_numpy(np.random.default_rng(0).random((30, 20, 3), np.float32))
    several, one = (
        torch.cat([each for each in strips if isinstance(each, torch.Tensor)])
        for strips in (whole_maps.whole_maps(net).strips(image, 30, 20, rows) for rows in (4, 32))
    )
    assert torch.allclose(several, one, atol=1e-5)


def test_it_is_what_is_taken_by_default() -> None:
    engine = small_engine()
    assert engine.plan(256, 256).whole
    assert not engine.plan(256, 256, memory=20 * 2**20).whole, "where memory is short"
    by_library = Engine(SMALL, networks.lively(SMALL), CPU, Precision.FP32, Kernels.ONEDNN)
    assert not by_library.plan(256, 256).whole


@settings(max_examples=examples(100))
@given(rows=st.integers(1, 300), columns=st.integers(1, 3000), threads=st.integers(1, 64))
def test_boxes_cover_a_map_once(rows: int, columns: int, threads: int) -> None:
    seen = np.zeros((-(-rows // 4), -(-columns // 4)), int)
    for top, left, bottom, right in whole_maps.boxes((rows, columns), threads):
        seen[top:bottom, left:right] += 1
        assert top < bottom
        assert left < right
        # With the tile more on each side that a dense block computes.
        inner = min(right + 1, seen.shape[1]) - max(left - 1, 0)
        assert inner <= whole_maps.MOST_TILES
    assert (seen == 1).all()


def test_progress_is_told_while_no_rows_are_there_yet() -> None:
    told: list[tuple[int, int]] = []
    small_engine().upscale(
        np.zeros((100, 30, 3), np.uint8), progress=lambda *each: told.append(each)
    )
    assert told[0] == (0, 100)
    assert told[-1] == (100, 100)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert (45, 100) in told, "after five convolutions, before the two others"


def test_who_is_cancelled_computes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    convolved: list[object] = []
    chain = whole_maps.Workers.chain

    def counted(self: whole_maps.Workers, *arguments: Any) -> None:
        convolved.append(arguments)
        chain(self, *arguments)

    def give_up(done: int, _: int) -> None:
        if done:
            raise Cancelled

    monkeypatch.setattr(whole_maps.Workers, "chain", counted)
    with pytest.raises(Cancelled):
        small_engine().upscale(np.zeros((20, 20, 3), np.uint8), progress=give_up)
    assert len(convolved) == 1


def test_several_pictures_at_once(photo: Pixels) -> None:
    engine = small_engine()
    pictures = [photo[top : top + 30, 10:90] for top in range(0, 60, 10)]
    expected = [engine.upscale(each) for each in pictures]
    with ThreadPoolExecutor(3) as pool:
        for found, exact in zip(pool.map(engine.upscale, pictures), expected, strict=True):
            assert np.array_equal(found, exact)


def test_without_the_memory_streams_do_it(
    photo: Pixels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine, pixels = small_engine(), photo[:30, :40]
    expected = engine.upscale(pixels)

    def none_left(*_: object) -> None:
        raise MemoryError("no memory left")

    monkeypatch.setattr(whole_maps, "empty_map", none_left)
    assert largest_difference(engine.upscale(pixels), expected) <= 1
    assert "no memory left" in caplog.text


def test_without_another_thread_streams_do_it(
    photo: Pixels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine, pixels = small_engine(), photo[:30, :40]
    expected = engine.upscale(pixels)

    def none_left(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", none_left)
    assert largest_difference(engine.upscale(pixels), expected) <= 1
    assert "can't start new thread" in caplog.text


def test_the_check_takes_none_of_the_callers_random_numbers() -> None:
    before = torch.get_rng_state()
    check._difference()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda: 1.0, "is wrong by 1"),
        (lambda: float("nan"), "is wrong by nan"),
        (lambda: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_where_kernels_fail_libraries_do_it(
    broken: Callable[[], float],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(check, "_difference", broken)
    check.kernels_work.cache_clear()
    try:
        assert not small_engine().plan(32, 32).whole
    finally:
        check.kernels_work.cache_clear()
    assert said in caplog.text
    assert "oneDNN is used" in caplog.text


def difference(said: str = "", before: str = "", **environment: str) -> float:
    """The difference from torch's results in a process of its own, in which `said` is true."""
    script = (
        f"{before}\nfrom upscaler.engine.cpu import check, kernels\n"
        f"assert {said or True}, kernels.LANES\nprint(check._difference())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | environment, cwd=ROOT,
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


NOWHERE: Final = "from numba.core.caching import CacheImpl; CacheImpl._locator_classes = []"
"""Where no folder may be written, so that what is compiled cannot be kept."""


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("instructions", "lanes", "before"),
    [
        ("+sse4.2,+avx,+avx2,+fma", 8, ""),
        ("+sse2", 4, NOWHERE),
    ],
    ids=["AVX2", "SSE2, and nothing can be kept"],
)
def test_processors_with_less_compute_the_same(instructions: str, lanes: int, before: str) -> None:
    """As far as one processor imitates another: by the instructions that are compiled for it."""
    found = difference(
        f"kernels.LANES == {lanes}",
        before,
        NUMBA_CPU_NAME="x86-64",
        NUMBA_CPU_FEATURES=instructions,
    )
    assert found < check.MOST_DIFFERENCE
