"""Many at once, in order, a few at a time, and nothing left behind."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from upscaler.imaging import parallel
from upscaler.imaging.parallel import THREAD_NAME, ordered_map


def left_behind() -> list[str]:
    return [thread.name for thread in threading.enumerate() if THREAD_NAME in thread.name]


def test_results_come_in_the_order_of_the_items() -> None:
    first_may_end = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert first_may_end.wait(30)
        first_may_end.set()
        return -item

    assert list(ordered_map(work, range(100))) == [-item for item in range(100)]
    assert left_behind() == []


def test_no_items_give_no_results() -> None:
    assert list(ordered_map(abs, [])) == []


def test_work_runs_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_cores", lambda: 3)
    together = threading.Barrier(3, timeout=30)
    assert sorted(ordered_map(lambda _: together.wait(), range(3))) == [0, 1, 2]


@pytest.mark.parametrize(("cores", "most"), [(1, 1), (4, 4), (64, parallel.MAX_WORKERS)])
def test_workers_are_limited_by_cores_and_a_maximum(
    monkeypatch: pytest.MonkeyPatch, cores: int, most: int
) -> None:
    monkeypatch.setattr(parallel, "_cores", lambda: cores)
    taken = 0
    may_end = threading.Event()

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(100):
            taken += 1
            if taken == most + 1:  # one more would be taken at once
                threading.Timer(0.1, may_end.set).start()
            yield item

    with closing(ordered_map(lambda item: may_end.wait(30) and item, items())) as results:
        assert next(results) == 0
        assert taken == most + 1


def test_ready_results_do_not_wait_for_more_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a slow producer makes one strip, all but the one before it are on their way."""
    futures: list[Future[int]] = []

    class Noting(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            futures.append(super().submit(*args, **kwargs))
            return futures[-1]

    monkeypatch.setattr(parallel, "ThreadPoolExecutor", Noting)
    monkeypatch.setattr(parallel, "_cores", lambda: 64)
    seen: list[int] = []
    seen_before = []

    def items() -> Iterator[int]:
        for item in range(6):
            seen_before.append(len(seen))
            yield item
            assert futures[item].result(30) == -item

    for result in ordered_map(lambda item: -item, items()):
        seen.append(result)  # noqa: PERF402
    assert seen == [0, -1, -2, -3, -4, -5]
    assert seen_before[2:] == [1, 2, 3, 4]


def test_an_error_of_the_items_is_raised_unchanged() -> None:
    fault = ZeroDivisionError("out of memory, or whatever")

    def items() -> Iterator[int]:
        yield from range(5)
        raise fault

    with pytest.raises(ZeroDivisionError) as raised:
        list(ordered_map(abs, items()))
    assert raised.value is fault
    assert left_behind() == []


def test_an_error_of_the_work_is_raised_unchanged() -> None:
    results = ordered_map(lambda item: 1 // (3 - item), range(100))
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert left_behind() == []


def test_closing_early_leaves_no_thread() -> None:
    asked = []

    def items() -> Iterator[int]:
        for item in range(1000):
            asked.append(item)
            yield item

    results = ordered_map(abs, items())
    assert next(results) == 0
    assert left_behind()
    results.close()
    assert left_behind() == []
    assert len(asked) <= parallel.MAX_WORKERS + 2
