"""The mock as one object: the app, and what a test steers it with and asks of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from starlette.middleware import Middleware

from mock_server.admin import Admin
from mock_server.admin_access import hosts_of
from mock_server.backend.backend import MockBackend
from mock_server.backend.jobs import MockJobs
from mock_server.clock import Clock
from mock_server.faults.middleware import Sabotage
from mock_server.faults.schedule import Faults
from mock_server.journal.assertions import check_called, check_not_called
from mock_server.journal.journal import Entry, Journal
from mock_server.journal.middleware import Recording
from mock_server.rate_limit import Rate, RateLimit
from mock_server.rules.middleware import Naming
from mock_server.scenario import FETCHES, Scenario
from upscaler.service import app
from upscaler.settings import Settings

DEFAULT_TOKEN: Final = "mock-token"  # noqa: S105  known to everybody, and guards nothing
"""A mock makes no secret of anything: its users shall be able to write the token down."""


class Mock:
    """A mock of the Upscaling API.

    `app` is served by any ASGI server; by `upscaler.service.server.connection.server` with
    `mock_server.serving.connection.Wire`
    its connections can be reset, too. `journal` has what was asked, `faults` what will go wrong,
    `jobs.progress` what polls are told, and `clock` the time of all of it.

    `scenario` is a file, or a `Scenario`, of which the other arguments go before what it says; each
    of them that is None is the scenario's, and else the default: the tokens of `settings` or
    `mock-token`, the seed 0, pictures of URLs that are made (`fetch`), and no `rate_limit`, which
    is requests a minute for each token. Without `admin` there are no routes below /_mock; with it
    they are there under any address and some names (see `visitors`), and under `admin_hosts`.
    """

    def __init__(
        self,
        *,
        tokens: Sequence[str] | None = None,
        settings: Settings | None = None,
        seed: int | None = None,
        scenario: Scenario | Path | str | None = None,
        admin: bool = True,
        admin_hosts: Iterable[str] = (),
        fetch: str | None = None,
        rate_limit: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        plan = scenario if isinstance(scenario, Scenario) else _read(scenario)
        settings = settings or Settings()
        chosen = tokens or plan.tokens or settings.tokens or (DEFAULT_TOKEN,)
        self.settings = replace(settings, tokens=tuple(chosen))
        self.clock = clock or Clock()
        self.journal = Journal(self.clock, self.settings.tokens)
        self.faults = Faults(_or(seed, plan.seed, 0), plan.faults, plan.random)
        self.jobs = MockJobs(self.settings.results_memory, self.clock, plan.progress)
        self.rate_limit = _or(rate_limit, plan.rate_limit, None)
        self._rate = Rate(self.rate_limit, self.clock) if self.rate_limit else None
        steering = Middleware(Admin, self, hosts_of(admin_hosts)) if admin else None
        self.app = self._made(_or(fetch, plan.fetch, "made"), steering)

    @property
    def tokens(self) -> tuple[str, ...]:
        return self.settings.tokens

    @property
    def calls(self) -> list[Entry]:
        """The requests for upscaling, the oldest first, whatever they were answered."""
        return self.journal.find(route="upscaling")

    def assert_called_with(self, **expected: Any) -> None:  # noqa: ANN401  of any field
        """Raise AssertionError, with what differed, unless a call was as expected.

        By the names of a request's fields, as the client sent them, and None for one that it did
        not send; `init_image` is a file (bytes or its path), a SHA-256 in hex, or a picture of
        Pillow's, of which the pixels count. Besides, `headers` by name, the `status` of the answer,
        the `fault`, and `times`: how many calls must have been so, and else at least one.
        """
        __tracebackhide__ = True
        check_called(self.calls, expected)

    def assert_not_called(self) -> None:
        """Raise AssertionError if anything was asked to be enlarged."""
        __tracebackhide__ = True
        check_not_called(self.calls)

    def reset(self) -> None:
        """Be as at the start: no requests, no jobs, the scenario's faults, the right time."""
        self.clock.reset()
        self.journal.reset()
        self.faults.reset()
        self.jobs.reset()
        if self._rate:
            self._rate.reset()

    def _made(self, fetch: str, steering: Middleware | None) -> FastAPI:
        """The service's app over what is the mock's.

        The first of its layers is the outermost. All but the first are below the service's own
        envelope, so that whatever they answer has an id and is logged as other answers are.
        """
        if fetch not in FETCHES:
            raise ValueError(f"fetch is one of {', '.join(FETCHES)}")
        pictures = partial(_picture_at, self.settings) if fetch == "made" else None
        service = app.create_app(MockBackend(), self.settings, self.jobs, pictures)
        service.add_middleware(Naming)
        layers = service.user_middleware
        if steering:
            layers.append(steering)
        layers.append(Middleware(Recording, self.journal))
        layers.append(Middleware(Sabotage, self.faults, self.jobs))
        if self._rate:
            layers.append(Middleware(RateLimit, self._rate, self.settings.tokens))
        return service


async def _picture_at(settings: Settings, url: str, hold: Callable[[int], None]) -> bytes:
    """The picture that is made for a URL; no method, since no app may keep its mock alive."""
    from mock_server.backend.url_images import MadePictures  # noqa: PLC0415  most tests send no URL

    return await MadePictures(settings).fetch(url, hold)


def _read(scenario: Path | str | None) -> Scenario:
    return Scenario() if scenario is None else Scenario.read(Path(scenario))


def _or(given: Any, planned: Any, default: Any) -> Any:  # noqa: ANN401  the first that is not None
    return next((value for value in (given, planned) if value is not None), default)
