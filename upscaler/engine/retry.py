"""Retries after running out of memory: the image is upscaled again by a smaller plan."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from upscaler.engine.memory import ONEDNN_FAILED, is_out_of_memory, room_for_threads
from upscaler.errors import OutOfMemory
from upscaler.planning import MIB, Plan

Run = Callable[[Plan], Iterator[Tensor]]
"""Upscales an image by a plan and yields strips of rows from top to bottom."""

log = logging.getLogger(__name__)

_this_thread = threading.local()
"""Has `failed` in a thread where oneDNN has run out of memory."""


def strips_with_retries(run: Run, plan: Plan, choices: Sequence[Plan]) -> Iterator[Tensor]:
    """Yield the strips of `run(plan)`; when memory runs out, continue with smaller plans.

    A retry computes the image from the top and skips the rows that were already yielded: whatever
    the plan, rows are equal to rounding. `choices` are all plans for the image, cheapest first.
    Raises OutOfMemory if the smallest plan fails, too.
    """
    # A thread may be permanent, and serve many images after such a failure: see _in_thread.
    start = _in_thread(run) if hasattr(_this_thread, "failed") else run
    yielded = 0
    while True:
        try:
            for strip in _skip_rows(yielded, start(plan)):
                yielded += len(strip)
                yield strip
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            # Only the text is kept: the error's traceback refers to the failed run's tensors.
            reason = str(error)
        else:
            return
        # After the except block the error is deleted, and with it the tensors of the failed run.
        # So the next run has that memory.
        log.warning("out of memory (%s), with the plan: %s", reason, plan)
        if ONEDNN_FAILED in reason and start is run:
            # An earlier failure may have left oneDNN unusable in this thread, so the same plan is
            # tried once more in another: see _in_thread.
            _this_thread.failed = True
            start = _in_thread(run)
            continue
        smaller = _smaller(choices, plan)
        if smaller is None:
            raise OutOfMemory(
                f"there is not enough memory for this image: the smallest plan takes about "
                f"{plan.bytes / MIB:,.0f} MiB. Free some memory, or use a smaller image"
            )
        plan = smaller


def _in_thread(run: Run) -> Run:
    """`run` in a new thread. In a thread where oneDNN ran out of memory once, it always fails.

    Raises OutOfMemory if there is no memory to start the thread and those of OpenMP: when they
    cannot start a thread, OpenMP and the C library end the whole process.
    """

    def run_in_thread(plan: Plan) -> Iterator[Tensor]:
        if not room_for_threads(torch.get_num_threads()):
            raise OutOfMemory("there is not enough memory to start a thread: free some")
        strips = run(plan)
        # One worker: all strips are computed in the same thread, which ends with them.
        with ThreadPoolExecutor(1) as pool:
            while (strip := pool.submit(next, strips, None).result()) is not None:
                yield strip

    return run_in_thread


def _smaller(choices: Sequence[Plan], plan: Plan) -> Plan | None:
    """The cheapest plan with half the memory of `plan`, else the smallest; None if it is `plan`.

    Halving keeps the number of retries small.
    """
    smallest = min(choices, key=lambda choice: choice.bytes)
    if plan.bytes <= smallest.bytes:
        return None
    return next((choice for choice in choices if choice.bytes <= plan.bytes // 2), smallest)


def _skip_rows(count: int, strips: Iterator[Tensor]) -> Iterator[Tensor]:
    """`strips` without their first `count` rows."""
    for strip in strips:
        if count < len(strip):
            yield strip[count:]
        count = max(0, count - len(strip))
