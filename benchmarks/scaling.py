"""How Modal's containers come and go, simulated: a front and, behind it, a class on a GPU.

The rules, as Modal's guides to scaling and to cold starts have them; where they are silent, what is
assumed here is said:

- An input goes to a container with room. Of several it is the one that was started first (assumed:
  so the others fall idle and stop), or with `spread` the one that has waited longest.
- Without room it waits, first come, first served, and a container is started if those that are
  starting have not room for all that wait (assumed: at once), up to `max_containers`.
- A container takes up to `slots` inputs at once. All starts take equally long (assumed).
- One that has had no input for `window_s` stops. What is paid is the time from its start to then.
- A place in the front is taken from a request's arrival to the end of its answer.
"""

import heapq
import math
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

MADE, ANSWERED, READY_FRONT, READY_GPU, SENT = range(5)
"""What happens: a picture is made, or answered; a container is there; a picture is sent on to the
class. Of what happens at once, that comes first which leaves room."""
NOWHERE: Final = -1


@dataclass(frozen=True)
class Pool:
    """The settings of one function of Modal's, and how long its containers take to start."""

    start_s: float
    window_s: float
    max_containers: int
    slots: int = 1
    spread: bool = False


@dataclass(slots=True)
class Container:
    """The life of a container. `busy_s` is how long it had at least one input."""

    started_s: float
    ready_s: float
    ended_s: float = math.inf
    busy_s: float = 0.0
    inputs: int = 0
    held: int = 0
    changed_s: float = 0.0
    """When it last began to be busy or to be idle."""

    @property
    def idle_s(self) -> float:
        return self.ended_s - self.ready_s - self.busy_s


@dataclass(frozen=True)
class Work:
    """The seconds that one picture takes when nothing is waited for.

    The front has it before and after the GPU class, which works on it for `busy_s`.
    """

    before_s: float
    busy_s: float
    after_s: float

    @property
    def total_s(self) -> float:
        return self.before_s + self.busy_s + self.after_s


Begin = Callable[[float, int, int], None]
"""Called with the time, an input and the container that takes it."""
Start = Callable[[float, int], None]
"""Called with the time at which a container will be ready, and which it is."""


@dataclass
class Function:
    """One function of Modal's at work. Containers are known by their place in `containers`."""

    pool: Pool
    begin: Begin
    start: Start
    containers: list[Container] = field(default_factory=list)
    waiting: deque[int] = field(default_factory=deque)
    peak: int = 0
    _live: int = 0
    _starting: int = 0
    _open: list[tuple[float, int]] = field(default_factory=list)
    """A heap of those that are ready and have room, some of which may have stopped unnoticed."""

    def offer(self, now_s: float, item: int) -> None:
        """An input comes: a container takes it, or it waits for one."""
        place = self._with_room(now_s)
        if place == NOWHERE:
            self.waiting.append(item)
            self._grow(now_s)
        else:
            self._take(now_s, place, item)

    def ready(self, now_s: float, place: int) -> None:
        """A container has started."""
        self._starting -= 1
        self.containers[place].changed_s = now_s
        self._reopen(now_s, place)
        while self.waiting and self._open:
            self._take(now_s, place, self.waiting.popleft())

    def release(self, now_s: float, place: int) -> None:
        """A container is done with an input, and takes the next that waits."""
        container = self.containers[place]
        if self.waiting:
            container.inputs += 1
            self.begin(now_s, self.waiting.popleft(), place)
            return
        container.held -= 1
        if container.held == self.pool.slots - 1:
            self._reopen(now_s, place)
        if not container.held:
            container.busy_s += now_s - container.changed_s
            container.changed_s = now_s

    def finish(self) -> None:
        """Nothing comes any more: let the containers stop that still wait for it."""
        while self._open:
            self._stop(heapq.heappop(self._open)[1])

    def _with_room(self, now_s: float) -> int:
        """The container for the next input. Those that have stopped by now are taken out."""
        while self._open:
            place = self._open[0][1]
            container = self.containers[place]
            if container.held or now_s <= container.changed_s + self.pool.window_s:
                return place
            self._stop(heapq.heappop(self._open)[1])
        return NOWHERE

    def _take(self, now_s: float, place: int, item: int) -> None:
        """Give an input to the first container of `_open`, which must be `place`."""
        container = self.containers[place]
        if not container.held:
            container.changed_s = now_s
        container.held += 1
        container.inputs += 1
        if container.held == self.pool.slots:
            heapq.heappop(self._open)
        self.begin(now_s, item, place)

    def _grow(self, now_s: float) -> None:
        # Whoever waits has found none with room, so all that have stopped are known by now.
        wanted = len(self.waiting) > self._starting * self.pool.slots
        if wanted and self._live < self.pool.max_containers:
            self.containers.append(Container(now_s, now_s + self.pool.start_s))
            self._starting += 1
            self._live += 1
            self.peak = max(self.peak, self._live)
            self.start(now_s + self.pool.start_s, len(self.containers) - 1)

    def _reopen(self, now_s: float, place: int) -> None:
        heapq.heappush(self._open, (now_s if self.pool.spread else 0.0, place))

    def _stop(self, place: int) -> None:
        container = self.containers[place]
        container.ended_s = container.changed_s + self.pool.window_s
        self._live -= 1


@dataclass(frozen=True)
class Outcome:
    """What came of all pictures, each at its place, and the containers there have been."""

    arrived_s: Sequence[float]
    began_s: Sequence[float]
    made_s: Sequence[float]
    answered_s: Sequence[float]
    made_by: Sequence[int]
    """Which of the class's containers."""
    front: Function
    gpu: Function


def simulate(arrivals_s: Sequence[float], front: Pool, gpu: Pool, work: Work) -> Outcome:
    """Let pictures come at those times, in order, and all be made and all containers stop."""
    count = len(arrivals_s)
    began, made, answered = (array("d", [math.nan]) * count for _ in range(3))
    door, made_by = (array("q", [NOWHERE]) * count for _ in range(2))
    events: list[tuple[float, int, int]] = []

    def taken_in(now_s: float, picture: int, place: int) -> None:
        door[picture] = place
        heapq.heappush(events, (now_s + work.before_s, SENT, picture))

    def begun(now_s: float, picture: int, place: int) -> None:
        began[picture], made_by[picture] = now_s, place
        heapq.heappush(events, (now_s + work.busy_s, MADE, picture))

    doors = Function(
        front, taken_in, lambda at_s, n: heapq.heappush(events, (at_s, READY_FRONT, n))
    )
    makers = Function(gpu, begun, lambda at_s, n: heapq.heappush(events, (at_s, READY_GPU, n)))

    def happen(now_s: float, kind: int, which: int) -> None:
        if kind == SENT:
            makers.offer(now_s, which)
        elif kind == MADE:
            made[which] = now_s
            makers.release(now_s, made_by[which])
            heapq.heappush(events, (now_s + work.after_s, ANSWERED, which))
        elif kind == ANSWERED:
            answered[which] = now_s
            doors.release(now_s, door[which])
        else:
            (doors if kind == READY_FRONT else makers).ready(now_s, which)

    for picture, now_s in enumerate(arrivals_s):
        while events and events[0][0] <= now_s:
            happen(*heapq.heappop(events))
        doors.offer(now_s, picture)
    while events:
        happen(*heapq.heappop(events))
    doors.finish()
    makers.finish()
    return Outcome(arrivals_s, began, made, answered, made_by, doors, makers)
