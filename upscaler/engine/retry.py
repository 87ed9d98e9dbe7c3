"""What happens when the memory runs out: the image is upscaled again by a smaller plan."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from upscaler.engine.memory import ONEDNN_FAILED, is_out_of_memory, room_for_threads
from upscaler.errors import OutOfMemory
from upscaler.planning import MIB, Plan

Run = Callable[[Plan], Iterator[Tensor]]
"""Upscales an image by a plan: strips of rows from top to bottom."""

log = logging.getLogger(__name__)


def strips_with_retries(run: Run, plan: Plan, choices: Sequence[Plan]) -> Iterator[Tensor]:
    """The strips of `run(plan)`, or of smaller plans from where the memory runs out.

    Each retry starts at the top, and its strips are yielded from the row where the failed one
    stopped: above it the rows are equal, to rounding. `choices` are all plans for the image,
    cheapest first. Raises OutOfMemory when the smallest of them fails, too.
    """
    start = run
    yielded = 0
    while True:
        try:
            for strip in _skip_rows(yielded, start(plan)):
                yielded += len(strip)
                yield strip
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error)
        else:
            return
        # Here, outside of the except block, the failed run's frames and their tensors are freed.
        log.warning("out of memory (%s), with the plan: %s", reason, plan)
        if ONEDNN_FAILED in reason and start is run:
            # An earlier failure may have left this thread's oneDNN unusable: see _in_thread.
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
    """`run` in a new thread. A thread in which oneDNN ran out of memory fails from then on.

    Raises OutOfMemory if there is no memory for the thread: OpenMP and the C library end the whole
    process when they cannot start one.
    """

    def run_in_thread(plan: Plan) -> Iterator[Tensor]:
        if not room_for_threads(torch.get_num_threads()):
            raise OutOfMemory("there is not enough memory to start a thread: free some")
        strips = run(plan)
        with ThreadPoolExecutor(1) as pool:
            while (strip := pool.submit(next, strips, None).result()) is not None:
                yield strip

    return run_in_thread


def _smaller(choices: Sequence[Plan], plan: Plan) -> Plan | None:
    """The cheapest plan for half the memory, or the smallest; None if `plan` is the smallest."""
    smallest = min(choices, key=lambda choice: choice.bytes)
    if plan.bytes <= smallest.bytes:
        return None
    return next((choice for choice in choices if choice.bytes <= plan.bytes // 2), smallest)


def _skip_rows(count: int, strips: Iterator[Tensor]) -> Iterator[Tensor]:
    """`strips` without the first `count` of their rows."""
    for strip in strips:
        if count < len(strip):
            yield strip[count:]
        count = max(0, count - len(strip))
