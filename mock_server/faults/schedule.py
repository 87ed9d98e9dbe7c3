"""Which fault comes next, and where it comes from."""

from collections.abc import Mapping
from random import Random
from threading import Lock
from typing import Any, Final, NamedTuple

from starlette.types import Scope

from mock_server.faults.fault import (
    OK,
    Fault,
    FaultError,
    Step,
    in_words,
    parse_fault,
    parse_sequence,
)

ROUTES: Final = {
    "upscaling": ("POST", "/upscaling"),
    "poll": ("GET", "/v1/requests/"),
    "result": ("GET", "/v1/responses/"),
    "healthcheck": ("GET", "/healthcheck"),
}
"""The routes that can have a sequence of their own, by method and how the path begins."""
Steps = tuple[Step, ...]


def route_of(scope: Scope) -> str | None:
    """The name of the route that a request is for, if it is one of `ROUTES`."""
    for name, (method, path) in ROUTES.items():
        begins = scope["path"].startswith(path) if path.endswith("/") else scope["path"] == path
        if scope["method"] == method and begins:
            return name
    return None


class Chosen(NamedTuple):
    """The fault of one request: `source` is header, api, scenario or random."""

    fault: Fault
    source: str
    latency_s: float = 0.0


class Faults:
    """The faults to come: sequences and probabilities, from the scenario and by the API.

    A request takes the next step of its route's sequence: of the one that was set by the API, or
    when that is used up, of the scenario's. With neither, a request for upscaling may meet a random
    one. The same `seed` and the same requests make the same faults.
    """

    def __init__(
        self,
        seed: int = 0,
        planned: Mapping[str, Steps] | None = None,
        chances: Mapping[Fault, float] | None = None,
    ) -> None:
        self.seed = seed
        self._planned = dict(planned or {})
        self._planned_chances = dict(chances or {})
        self._lock = Lock()  # tests set what a server in another thread takes
        self.reset()

    def reset(self) -> None:
        """Be as at the start: what the API has set is gone, and the scenario's begins anew."""
        with self._lock:
            self._set: dict[str, list[Step]] = {}
            self._left = {route: list(steps) for route, steps in self._planned.items()}
            self._chances = self._planned_chances
            self._random = Random(self.seed)  # noqa: S311  nothing here is secret
            self._latencies = Random(f"{self.seed} latencies")  # noqa: S311

    def clear(self) -> None:
        """Let nothing go wrong any more, until a reset."""
        with self._lock:
            self._set, self._left, self._chances = {}, {}, {}

    def set(self, sequence: str, on: str = "upscaling") -> None:
        """Let the next requests on a route go wrong so; raises FaultError."""
        if on not in ROUTES:
            raise FaultError(f"there is no route {on[:40]!r}; what there is: {', '.join(ROUTES)}")
        steps = parse_sequence(sequence)
        with self._lock:
            self._set[on] = list(steps)

    def set_random(self, chances: Mapping[str, float]) -> None:
        """Let upscaling requests go wrong by chance, such as {"429": 0.05}; raises FaultError."""
        parsed = parse_chances(chances)
        with self._lock:
            self._chances = parsed

    def chosen(self, route: str | None, header: str | None = None) -> Chosen:
        """The fault of a request that comes now. A header that is no fault raises FaultError."""
        given = None if header is None else parse_fault(header)
        with self._lock:
            fault, source = (given, "header") if given is not None else self._next(route)
            seconds = fault.latency.drawn(self._latencies) if fault.latency else 0.0
            return Chosen(fault, source, seconds)

    def told(self) -> dict[str, Any]:
        """What is left, for people and programs."""
        with self._lock:
            sources = {"api": self._set, "scenario": self._left}
            left = {
                source: {route: in_words(tuple(steps)) for route, steps in routes.items() if steps}
                for source, routes in sources.items()
            }
            return {**left, "random": {str(fault): p for fault, p in self._chances.items()}}

    def _next(self, route: str | None) -> tuple[Fault, str]:
        if route is None:
            return OK, ""
        for source, routes in (("api", self._set), ("scenario", self._left)):
            if routes.get(route):
                return _taken(routes[route]), source
        return (self._by_chance(), "random") if route == "upscaling" else (OK, "")

    def _by_chance(self) -> Fault:
        if not self._chances:
            return OK
        drawn = self._random.random()
        for fault, probability in self._chances.items():
            drawn -= probability
            if drawn < 0:
                return fault
        return OK


def parse_chances(chances: Mapping[str, float]) -> dict[Fault, float]:
    """Probabilities by fault; raises FaultError."""
    parsed = {}
    for text, probability in chances.items():
        number = isinstance(probability, int | float) and not isinstance(probability, bool)
        if not number or not 0 <= probability <= 1:
            raise FaultError(f"the probability of {text[:40]} is a number from 0 to 1")
        parsed[parse_fault(text)] = float(probability)
    if sum(parsed.values()) > 1 + 1e-9:
        raise FaultError("the probabilities are more than 1 together")
    return parsed


def _taken(steps: list[Step]) -> Fault:
    """The next fault of a sequence, which is shorter by it afterwards."""
    fault, times = steps[0]
    if times == 1:
        del steps[0]
    elif times is not None:
        steps[0] = Step(fault, times - 1)
    return fault
