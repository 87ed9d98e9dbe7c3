"""The mock as one object: the app, and what a test controls it with."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from starlette.middleware import Middleware

from mock_server.admin import AdminMiddleware
from mock_server.admin_access import parse_hosts
from mock_server.backend.backend import MockBackend
from mock_server.backend.faces import FaceCount
from mock_server.backend.jobs import MockJobStore
from mock_server.backend.webhooks import MockPoster
from mock_server.clock import Clock
from mock_server.faults.middleware import FaultMiddleware
from mock_server.faults.schedule import FaultSchedule
from mock_server.journal.assertions import check_called, check_not_called
from mock_server.journal.journal import Entry, Journal
from mock_server.journal.middleware import JournalMiddleware
from mock_server.rate_limit import (
    POLICY_HEADER,
    QUOTA_HEADER,
    RateLimitMiddleware,
    SlidingWindow,
)
from mock_server.rules.middleware import RULE_HEADER, RuleHeaderMiddleware
from mock_server.scenario import FETCHES, Scenario
from mock_server.sessions import SessionMiddleware, Sessions
from mock_server.state import State
from upscaler.service import cors
from upscaler.service.app import create_app
from upscaler.service.urls import base_url
from upscaler.settings import FaceEnhance, Settings

EXPOSED: Final = (RULE_HEADER, POLICY_HEADER, QUOTA_HEADER)
"""The headers of the mock alone that a page of another origin may read."""
NOTICE: Final = "This is upscaler-mock, for tests: it resizes pictures, and no model runs here."
"""At the top of its pages, which look as the service's do."""
DEFAULT_TOKEN: Final = "mock-token"  # noqa: S105  documented, and protects nothing


class Mock:
    """A mock of the Upscaling API.

    `app` runs on any ASGI server. On `upscaler.service.server.connection.server` with
    `mock_server.serving.connection.MockConnection` faults can also break connections. `journal` has
    the requests, `faults` the faults to come, `jobs.progress` the script of polls, `webhooks` what
    becomes of webhooks, and `clock` the time of all of it.

    `scenario` is a `Scenario` or the path of a file. The other arguments override it. What is None
    in both has its default: the tokens of `settings` or `mock-token`, the seed 0, generated images
    for URLs (`fetch="made"`), no `rate_limit`, which is in requests a minute for each token, and
    the `face_enhance` of `settings`. `admin=False` removes the
    routes below /_mock; otherwise they are there under any IP address and some names (see
    `mock_server.admin_access`), and under `admin_hosts`. Pages of all origins may use the API from
    a browser, or those of `settings.cors_origins`; `cors=False` allows none. Requests with the
    header X-Mock-Session are answered by the `session` of that name; `sessions=False` ignores it.

    Every picture has `faces` faces, by default 1: the X-Upscaler-Faces of a response to
    `face_enhance: true`, which changes nothing else. With a `face_enhance`, `refuse` or `ignore`,
    the mock is a service without the face model, unless it has `faces` as well. `faces.set` changes
    their number.
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
        face_enhance: FaceEnhance | str | None = None,
        faces: int | None = None,
        cors: bool = True,
        sessions: bool = True,
        clock: Clock | None = None,
    ) -> None:
        if scenario is None:
            scenario = Scenario()
        elif not isinstance(scenario, Scenario):
            scenario = Scenario.read(Path(scenario))
        settings = settings or Settings()
        # An empty list counts as None: `create_app` refuses to run without a token.
        chosen = tokens or scenario.tokens or settings.tokens or (DEFAULT_TOKEN,)
        without = _first(face_enhance, scenario.face_enhance, settings.face_enhance)
        self.faces = FaceCount(_first(faces, scenario.faces, 1 if without is None else None))
        enhance = None if without is None else FaceEnhance(without)
        self.settings = replace(settings, tokens=tuple(chosen), face_enhance=enhance)
        self.clock = clock or Clock()
        self.journal = Journal(self.clock, self.settings.tokens)
        self.faults = FaultSchedule(
            _first(seed, scenario.seed, 0), scenario.faults, scenario.random
        )
        self.jobs = MockJobStore(self.settings.results_memory, self.clock, scenario.progress)
        self.rate_limit: int | None = _first(rate_limit, scenario.rate_limit, None)
        window = SlidingWindow(self.rate_limit, self.clock) if self.rate_limit else None
        self.webhooks = MockPoster(scenario.webhooks)
        self._state = State(
            self.clock, self.journal, self.faults, self.jobs, self.webhooks, self.faces, window
        )
        hosts = parse_hosts(admin_hosts) if admin else None
        origins = (settings.cors_origins or ("*",)) if cors else ()
        self._app_options = (_first(fetch, scenario.fetch, "made"), hosts, origins)
        options: dict[str, Any] = {
            "settings": self.settings,
            "scenario": scenario,
            "seed": self.faults.seed,
            "admin": admin,
            "admin_hosts": hosts or (),
            "fetch": self._app_options[0],
            "rate_limit": self.rate_limit,
            "faces": self.faces.count,
            "cors": cors,
            "sessions": False,
        }
        # By the class and not the object, since no app may keep its mock alive.
        clock_of_session = self.clock.another
        self._sessions: Sessions[Mock] | None = (
            Sessions(lambda: Mock(**options, clock=clock_of_session())) if sessions else None
        )
        self.app = self._build_app(*self._app_options)

    @property
    def tokens(self) -> tuple[str, ...]:
        return self.settings.tokens

    @property
    def calls(self) -> list[Entry]:
        """The requests for upscaling, the oldest first, whatever their response was."""
        return self.journal.find(route="upscaling")

    def assert_called_with(self, **expected: Any) -> None:  # noqa: ANN401  of any field
        """Raise AssertionError, with the closest miss, unless a call was as expected.

        Names are those of a request's fields, as the client sent them; None is a field that it did
        not send. `init_image` is a file (bytes or its path), a SHA-256 in hex, or an image of
        Pillow, whose pixels are compared. Others are `headers` by name, the `status` of the
        response, the `fault`, and `times`: how many calls must match, by default at least one.
        """
        __tracebackhide__ = True
        check_called(self.calls, expected)

    def assert_not_called(self) -> None:
        """Raise AssertionError if there was a request for upscaling."""
        __tracebackhide__ = True
        check_not_called(self.calls)

    def session(self, name: str) -> "Mock":
        """Return the mock that answers requests with this name in their header X-Mock-Session.

        It has faults, a journal, a clock, inferences and a rate limit of its own, and is as this
        one was at its start. Raises ValueError for a name that is not of 1 to 100 letters, digits
        and `._:-`, and for any in a session or without sessions.
        """
        if self._sessions is None:
            raise ValueError("this mock has no sessions")
        return self._sessions.get(name)

    def reset(self) -> None:
        """Restore the initial state: no requests or jobs, the scenario's faults, the real time.

        Also of all sessions.
        """
        self._state.reset()
        for session in self._sessions.all() if self._sessions else ():
            session.reset()

    def renew(self) -> None:
        """Go on in a process that was forked from the one in which requests were answered so far.

        What was sent, and what is set to happen, stays. Inferences under way stay in the other one.
        """
        self._state.renew()
        for session in self._sessions.all() if self._sessions else ():
            session.renew()
        self.app = self._build_app(*self._app_options)

    def _build_app(
        self, fetch: str, hosts: frozenset[str] | None, origins: tuple[str, ...]
    ) -> FastAPI:
        """Create the service's app over the mock's backend, with the mock's middleware."""
        if fetch not in FETCHES:
            raise ValueError(f"fetch must be one of {', '.join(FETCHES)}")
        state = self._state
        # The journal is outside the faults, so that it records the requests that they answer. The
        # rate limit is inside, so that it does not count them.
        middleware = [
            Middleware(JournalMiddleware, state.journal),
            # Inside the routes below /_mock, which no page of another origin may use.
            *cors.middleware(origins, EXPOSED),
            Middleware(
                FaultMiddleware,
                state.faults,
                state.jobs.result_fault,
                partial(base_url, settings=self.settings),
            ),
        ]
        if hosts is not None:  # outside the journal and the faults, which do not apply to it
            middleware.insert(0, Middleware(AdminMiddleware, state, hosts))
        if state.rate_limit:
            middleware.append(Middleware(RateLimitMiddleware, state.rate_limit, self.tokens))
        # Inside the faults, which may send the body of an error in pieces, or corrupt it.
        middleware.append(Middleware(RuleHeaderMiddleware))
        app = create_app(
            MockBackend(self.faces),
            replace(self.settings, cors_origins=()),
            self.jobs,
            # A partial and not a method, since no app may keep its mock alive.
            partial(_generate_image, self.settings) if fetch == "made" else None,
            middleware,
            poster=self.webhooks,
            notice=NOTICE,
        )
        # Once more for the errors of all others, and outside even the service's own middleware,
        # which answers unexpected errors with a 500 (RES-7).
        app.add_middleware(RuleHeaderMiddleware)
        if self._sessions:
            app.add_middleware(SessionMiddleware, self._sessions)
        return app


async def _generate_image(settings: Settings, url: str, hold: Callable[[int], None]) -> bytes:
    from mock_server.backend.url_images import GeneratedImages  # noqa: PLC0415  imports httpx2

    return await GeneratedImages(settings).fetch(url, hold)


def _first(*values: Any) -> Any:  # noqa: ANN401  of any option
    """Return the first value that is not None."""
    return next((value for value in values if value is not None), None)
