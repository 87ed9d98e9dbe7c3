"""Which fault the next request gets, and where it comes from."""

from collections.abc import Mapping
from random import Random
from threading import Lock
from typing import Any, Final, NamedTuple

from mock_server.endpoints import ROUTES
from mock_server.faults.fault import (
    OK,
    Fault,
    FaultError,
    Step,
    format_sequence,
    parse_fault,
    parse_sequence,
)

ROUNDING: Final = 1e-9
"""The sum of probabilities such as ten times 0.1 may exceed 1 by this much."""
Steps = tuple[Step, ...]


class SelectedFault(NamedTuple):
    """The fault of one request: `source` is header, api, scenario, random, or request.

    The last one is the source of a fault that the result of an asynchronous inference has from the
    request that started it. It is empty if there is no fault.
    """

    fault: Fault
    source: str
    latency_s: float = 0.0


class FaultSchedule:
    """The faults to come: sequences and probabilities, from the scenario and from the API.

    A request takes the next step of its route's sequence: of the one set by the API, and when that
    is used up, of the scenario's. With neither, a request for upscaling may get a random one. The
    same `seed` and the same requests produce the same faults.
    """

    def __init__(
        self,
        seed: int = 0,
        sequences: Mapping[str, Steps] | None = None,
        probabilities: Mapping[Fault, float] | None = None,
    ) -> None:
        self.seed = seed
        self._initial_sequences = dict(sequences or {})
        self._initial_probabilities = dict(probabilities or {})
        self.renew_lock()
        self.reset()

    def renew_lock(self) -> None:
        """Use a new lock, after a fork: no thread of this process would release the old one."""
        self._lock = Lock()  # tests set faults while a server in another thread selects them

    def reset(self) -> None:
        """Restore the scenario's faults, and drop those set by the API."""
        with self._lock:
            self._by_api: dict[str, list[Step]] = {}
            self._by_scenario = {
                route: list(steps) for route, steps in self._initial_sequences.items()
            }
            self._probabilities = self._initial_probabilities
            self._random = Random(self.seed)  # noqa: S311  nothing here is secret
            # Latencies have a generator of their own: a fault from a header draws one, too, and
            # must not change which random faults the requests after it get.
            self._latency_random = Random(f"{self.seed} latencies")  # noqa: S311

    def clear(self) -> None:
        """Drop all faults, also the scenario's, until a reset."""
        with self._lock:
            self._by_api, self._by_scenario, self._probabilities = {}, {}, {}

    def set(self, sequence: str, on: str = "upscaling") -> None:
        """Set the faults of the next requests to a route; raises FaultError."""
        if on not in ROUTES:
            raise FaultError(f"unknown route {on[:40]!r}; use one of {', '.join(ROUTES)}")
        steps = parse_sequence(sequence)
        with self._lock:
            self._by_api[on] = list(steps)

    def set_random(self, probabilities: Mapping[str, float]) -> None:
        """Set the probability of each fault, such as {"429": 0.05}; raises FaultError."""
        parsed = parse_probabilities(probabilities)
        with self._lock:
            self._probabilities = parsed

    def select(self, route: str | None, header: str | None = None) -> SelectedFault:
        """Return the fault of a request, by its header first; raises FaultError for a wrong one."""
        # Parsed first: a request with a wrong header takes no step of a sequence.
        in_header = None if header is None else parse_fault(header)
        with self._lock:
            fault, source = self._next(route) if in_header is None else (in_header, "header")
            latency_s = fault.latency.draw(self._latency_random) if fault.latency else 0.0
            return SelectedFault(fault, source, latency_s)

    def to_dict(self) -> dict[str, Any]:
        """Return the faults to come, as JSON has them."""
        with self._lock:
            sources = {"api": self._by_api, "scenario": self._by_scenario}
            sequences = {
                source: {
                    route: format_sequence(tuple(steps)) for route, steps in routes.items() if steps
                }
                for source, routes in sources.items()
            }
            random = {str(fault): number for fault, number in self._probabilities.items()}
            return {**sequences, "random": random}

    def _next(self, route: str | None) -> tuple[Fault, str]:
        """Take the next fault of a route, and say where it comes from."""
        if route is None:
            return OK, ""
        for source, routes in (("api", self._by_api), ("scenario", self._by_scenario)):
            if steps := routes.get(route):
                fault, times = steps[0]
                if times == 1:
                    del steps[0]
                elif times is not None:
                    steps[0] = Step(fault, times - 1)
                return fault, source
        # Only upscaling draws, so that polling more or less often changes no random fault.
        return (self._draw(), "random") if route == "upscaling" else (OK, "")

    def _draw(self) -> Fault:
        if not self._probabilities:
            return OK
        # One draw for all faults, so that at most one of them happens, each with its probability.
        number = self._random.random()
        for fault, probability in self._probabilities.items():
            number -= probability
            if number < 0:
                return fault
        return OK


def parse_probabilities(probabilities: Mapping[str, float]) -> dict[Fault, float]:
    """Return probabilities by fault; raises FaultError."""
    parsed = {}
    for text, probability in probabilities.items():
        is_number = isinstance(probability, int | float) and not isinstance(probability, bool)
        if not is_number or not 0 <= probability <= 1:
            raise FaultError(f"the probability of {text[:40]} must be a number from 0 to 1")
        # By the parsed fault: two texts of one fault have one probability.
        parsed[parse_fault(text)] = float(probability)
    if sum(parsed.values()) > 1 + ROUNDING:
        raise FaultError("the probabilities add up to more than 1")
    return parsed
