"""How much a service takes on: so many pictures in line, and so many bytes held by all requests.

Whatever goes beyond is refused at once with Busy, so that those who wait are served in a time that
can be told, and memory has a bound whatever the clients do. All calls are from one event loop.
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
    """The line before the machine, which makes few pictures at a time, and the memory of all."""

    def __init__(self, queue_length: int, memory_bytes: int, at_once: int = 1) -> None:
        """Let `queue_length` pictures wait while `at_once` are made."""
        self.queue_length = queue_length
        self.memory_bytes = memory_bytes
        self.held_bytes = 0
        self.line: list[QueueSlot] = []
        self.at_once = at_once
        self.machine = asyncio.Semaphore(at_once)

    @property
    def waiting(self) -> int:
        """How many pictures wait for the machine, or for their weights."""
        return sum(not place.has_turn for place in self.line)

    @property
    def is_full(self) -> bool:
        """Whether another picture would be refused."""
        return len(self.line) >= self.queue_length + self.at_once

    def check_room(self) -> None:
        """Raise Busy if another picture would be refused."""
        if self.is_full:
            raise self.busy("the queue is full")

    def check_memory(self, size_bytes: int) -> None:
        """Raise Busy if a request of so many bytes would be refused."""
        if self.held_bytes + size_bytes > self.memory_bytes:
            raise self.busy("the requests in progress use all the memory")

    def busy(self, reason: str) -> Busy:
        """A refusal until the picture that is being made should be done."""
        wait_s = self.line[0].estimated_s if self.line else MIN_RETRY_AFTER_S
        retry_after_s = min(MAX_RETRY_AFTER_S, max(MIN_RETRY_AFTER_S, ceil(wait_s)))
        return Busy(f"{reason}: try again in {retry_after_s} s", retry_after_s)

    @contextmanager
    def holding(self) -> Iterator["MemoryReservation"]:
        """The memory of one request, as it grows and shrinks; afterwards all of it is free."""
        memory = MemoryReservation(self)
        try:
            yield memory
        finally:
            memory.set(0)

    @contextmanager
    def place(self, estimated_s: float) -> Iterator["QueueSlot"]:
        """A place in line for a picture that takes about so long; Busy if there is none."""
        self.check_room()
        place = QueueSlot(self.machine, estimated_s)
        self.line.append(place)
        try:
            yield place
        finally:
            self.line.remove(place)


class MemoryReservation:
    """The bytes that one request holds."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.held_bytes = 0

    def reserve(self, held_bytes: int) -> None:
        """Say that the request is about to hold so many bytes; Busy if there are not so many."""
        self.admission.check_memory(held_bytes - self.held_bytes)
        self.set(held_bytes)

    def set(self, held_bytes: int) -> None:
        """Say that the request holds so many bytes now, be there room for them or not."""
        self.admission.held_bytes += held_bytes - self.held_bytes
        self.held_bytes = held_bytes


class QueueSlot:
    """A place in line."""

    def __init__(self, machine: asyncio.Semaphore, estimated_s: float) -> None:
        self.estimated_s = estimated_s
        self.has_turn = False
        self._machine = machine

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        """Wait for the machine, first come, first served, and have a share of it."""
        async with self._machine:
            self.has_turn = True
            yield
