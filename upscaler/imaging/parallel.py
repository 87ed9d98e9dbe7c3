"""Work on many cores at once, its results in order, and only a few of them in memory."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WORKERS: Final = 8
"""More would be waiting for whatever gives them work, and would hold more in memory."""
THREAD_NAME: Final = "parallel"


def ordered_map(
    work: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[Result, None, None]:
    """What `work` makes of each of `items`, in their order, each as soon as it is known.

    `work` runs in threads, so it gains from many cores only where it lets go of Python's lock.
    `items` is read in the caller's thread, never more than a few ahead of what was yielded.
    Whatever `items` or `work` raises is raised here unchanged. No thread outlives this iterator,
    be it exhausted, failed or closed.
    """
    workers = min(_cores(), MAX_WORKERS)
    begun: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, THREAD_NAME) as pool:
        for item in items:
            begun.append(pool.submit(work, item))
            # One more than there are workers, so that none has to wait while the caller is busy.
            while begun and (begun[0].done() or len(begun) > workers):
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def _cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
