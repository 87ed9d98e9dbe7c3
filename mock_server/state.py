"""The state of a mock, which the app changes and the routes below /_mock control.

It knows neither of them: both are given it, and nothing in it keeps a mock or its app alive.
"""

from dataclasses import dataclass

from mock_server.backend.faces import FaceCount
from mock_server.backend.jobs import MockJobStore
from mock_server.backend.webhooks import MockPoster
from mock_server.clock import Clock
from mock_server.faults.schedule import FaultSchedule
from mock_server.journal.journal import Journal
from mock_server.rate_limit import SlidingWindow


@dataclass(frozen=True, eq=False)
class State:
    """Everything about a mock that requests change; `rate_limit` is None without a limit."""

    clock: Clock
    journal: Journal
    faults: FaultSchedule
    jobs: MockJobStore
    webhooks: MockPoster
    faces: FaceCount
    rate_limit: SlidingWindow | None

    def reset(self) -> None:
        """Restore the initial state: no requests or jobs, the scenario's faults, the real time."""
        self.clock.reset()
        self.journal.reset()
        self.faults.reset()
        self.jobs.reset()
        self.webhooks.reset()
        self.faces.reset()
        if self.rate_limit:
            self.rate_limit.reset()

    def renew(self) -> None:
        """Leave behind what threads of the process hold that this one was forked from."""
        self.journal.renew_lock()
        self.faults.renew_lock()
        self.jobs.forget_unfinished()
