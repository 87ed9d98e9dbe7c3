"""Admission control: limits the queued jobs, and the bytes that all requests hold.

What exceeds a limit is refused at once with Busy. So waiting times stay predictable, and memory is
bounded whatever clients do. All calls are from one event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import ceil
from typing import Final

from upscaler.errors import Busy

MIN_RETRY_AFTER_S: Final = 1
MAX_RETRY_AFTER_S: Final = 600


class Admission:
    """The queue of a service, and the memory of its requests."""

    def __init__(
        self, queue_length: int, memory_bytes: int, at_once: int = 1, results_bytes: int = 0
    ) -> None:
        """Let `queue_length` jobs wait while `at_once` are running.

        Requests may hold `memory_bytes`, and results that are fetched from elsewhere a further
        `results_bytes`: they can be fetched and sent, however much the requests that wait hold.
        """
        self.queue_length = queue_length
        self.memory_bytes = memory_bytes
        self.results_bytes = results_bytes
        self.held_bytes = 0
        self.held_results_bytes = 0
        self.released = asyncio.Event()
        self.first_in_line = asyncio.Lock()
        self.slots: list[QueueSlot] = []
        self.at_once = at_once
        self.semaphore = asyncio.Semaphore(at_once)

    @property
    def waiting(self) -> int:
        """How many jobs are not running: they wait for other jobs, or for their weights."""
        return sum(not slot.is_running for slot in self.slots)

    @property
    def is_full(self) -> bool:
        """Whether another job would be refused."""
        return len(self.slots) >= self.queue_length + self.at_once

    def check_room(self) -> None:
        """Raise Busy if another job would be refused."""
        if self.is_full:
            raise self.busy("the queue is full")

    def check_memory(self, size_bytes: int) -> None:
        """Raise Busy if a request could not hold so many bytes more."""
        if self.held_bytes + size_bytes > self.memory_bytes:
            raise self.busy("the requests in progress use all the memory")

    def busy(self, reason: str) -> Busy:
        """The error to refuse a request with, to be retried once the running job should be done."""
        # First come, first served: the first job should make room first.
        wait_s = self.slots[0].estimated_s if self.slots else MIN_RETRY_AFTER_S
        retry_after_s = min(MAX_RETRY_AFTER_S, max(MIN_RETRY_AFTER_S, ceil(wait_s)))
        return Busy(f"{reason}: try again in {retry_after_s} s", retry_after_s)

    @contextmanager
    def reservation(self) -> Iterator["MemoryReservation"]:
        """The memory of one request, which is released at the end of the block."""
        memory = MemoryReservation(self)
        try:
            yield memory
        finally:
            memory.set(0)
            memory.set_result(0)

    @contextmanager
    def slot(self, estimated_s: float, *, accepted: bool = False) -> Iterator["QueueSlot"]:
        """A place in the queue for a job of about so many seconds.

        Raises Busy if it is full, unless the job was `accepted` before.
        """
        if not accepted:
            self.check_room()
        slot = QueueSlot(self.semaphore, estimated_s)
        self.slots.append(slot)
        try:
            yield slot
        finally:
            self.slots.remove(slot)


class MemoryReservation:
    """The bytes that one request holds, and those of its result if that is fetched."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.held_bytes = 0
        self.result_bytes = 0

    def reserve(self, held_bytes: int) -> None:
        """Set how many bytes the request is about to hold. Raises Busy if that is too many."""
        self.admission.check_memory(held_bytes - self.held_bytes)
        self.set(held_bytes)

    def set(self, held_bytes: int) -> None:
        """Set how many bytes the request holds, even beyond the limit: they exist already."""
        self.admission.held_bytes += held_bytes - self.held_bytes
        self.held_bytes = held_bytes

    def reserve_result(self, size_bytes: int) -> None:
        """Set how many bytes the result is about to hold. Raises Busy if that is too many."""
        if not self._has_room(size_bytes):
            raise self.admission.busy("the results in progress use all the memory")
        self.set_result(size_bytes)

    async def wait_for_result(self, size_bytes: int) -> None:
        """The same, but wait until there is room, first come, first served."""
        async with self.admission.first_in_line:
            while not self._has_room(size_bytes):
                self.admission.released.clear()
                await self.admission.released.wait()
            self.set_result(size_bytes)

    def set_result(self, size_bytes: int) -> None:
        """Set how many bytes the result holds."""
        self.admission.held_results_bytes += size_bytes - self.result_bytes
        self.result_bytes = size_bytes
        self.admission.released.set()

    def _has_room(self, size_bytes: int) -> bool:
        others_bytes = self.admission.held_results_bytes - self.result_bytes
        # One alone has it in any case, or it would wait forever.
        return not others_bytes or others_bytes + size_bytes <= self.admission.results_bytes


class QueueSlot:
    """A place in the queue."""

    def __init__(self, semaphore: asyncio.Semaphore, estimated_s: float) -> None:
        self.estimated_s = estimated_s
        self.is_running = False
        self._semaphore = semaphore

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        """Wait until the job may run, first come, first served."""
        async with self._semaphore:
            self.is_running = True
            yield
