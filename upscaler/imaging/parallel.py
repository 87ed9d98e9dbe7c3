"""Run work on several cores: results in order, and only a few of them in memory."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WORKERS: Final = 8
"""More workers would only wait for their input, and hold more of it in memory."""
THREAD_NAME: Final = "parallel"


def ordered_map(
    work: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[Result, None, None]:
    """Yield `work(item)` for each of `items`, in their order, each result as soon as it is ready.

    `work` runs in threads, so several cores help only where it releases the GIL. `items` is read in
    the caller's thread, at most a few items ahead of the results that were yielded. Exceptions of
    `items` and `work` are raised unchanged. No thread outlives this iterator, whether it is
    exhausted, fails or is closed.
    """
    workers = min(_cores(), MAX_WORKERS)
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, THREAD_NAME) as pool:
        for item in items:
            pending.append(pool.submit(work, item))
            # One item more than there are workers, so that none idles while the caller is busy.
            while pending and (pending[0].done() or len(pending) > workers):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _cores() -> int:
    """How many cores this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # macOS and Windows do not have it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
