"""CUDA's streams and events without CUDA: what has ended before what, and who may touch memory.

Each queue of work, a stream or the host, has a clock: how much of its own work there is, and how
much of every other queue's has ended for sure before its next piece of work (Mattern's vector
clocks). A queue that touches what another one has written, and whose clock does not say that this
has ended, is a race, although on a card it may go well a thousand times.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


class Queue:
    """Work that is done in order: a stream's, or the host's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.clock = Counter[Queue]()

    def follow(self, other: "Counter[Queue]") -> None:
        """Let what is done from now on come after what that clock knows of."""
        self.clock |= other  # the larger one of each


HOST = Queue("the host")


class Stream(Queue):
    """torch.cuda.Stream."""

    def __init__(self, device: object = None, priority: int = 0, name: str = "a stream") -> None:
        super().__init__(name)

    def wait_stream(self, other: Queue) -> None:
        self.follow(other.clock)

    def wait_event(self, event: "Event") -> None:
        self.follow(event.clock)

    def record_event(self, event: "Event | None" = None) -> "Event":
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        HOST.follow(self.clock)


class Event:
    """torch.cuda.Event."""

    def __init__(self, *_: object, **__: object) -> None:
        self.clock = Counter[Queue]()

    def record(self, stream: Stream | None = None) -> None:
        self.clock = Counter((stream or current_stream()).clock)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or current_stream()).wait_event(self)

    def synchronize(self) -> None:
        HOST.follow(self.clock)

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: "Event") -> float:
        return 1.0


DEFAULT = Stream(name="the default stream")
_local = threading.local()


def current_stream(device: object = None) -> Stream:
    """torch.cuda.current_stream."""
    found: Stream = getattr(_local, "stream", DEFAULT)
    return found


@contextmanager
def on_stream(stream: Stream) -> Iterator[None]:
    """torch.cuda.stream."""
    before = current_stream()
    _local.stream = stream
    try:
        yield
    finally:
        _local.stream = before


@dataclass
class Memory:
    """A piece of memory, and who has last touched it when. `owner` is where it is used again."""

    owner: Queue
    written: Counter[Queue] = field(default_factory=Counter)
    read: Counter[Queue] = field(default_factory=Counter)
    recorded: set[Queue] = field(default_factory=set)

    def touch(self, queue: Queue, *, write: bool) -> Queue | None:
        """Note that the newest work of `queue` does so.

        Returns a queue whose own use may not have ended by then, or None.
        """
        before = self.written | self.read if write else self.written
        late = next((other for other, at in before.items() if queue.clock[other] < at), None)
        (self.written if write else self.read)[queue] = queue.clock[queue]
        return late

    def used_after_free(self) -> Queue | None:
        """A queue that may touch it still when its owner uses it for something else, or None.

        The host asks for that, and record_stream makes torch's allocator wait.
        """
        known = self.owner.clock | HOST.clock
        uses = self.written | self.read
        return next(
            (
                other
                for other, at in uses.items()
                if other not in (self.owner, *self.recorded) and known[other] < at
            ),
            None,
        )
