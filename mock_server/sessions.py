"""Sessions: several tests at once use one mock, each as if it had it for itself.

A request with the header X-Mock-Session is answered by a mock of that name, which has everything of
its own: faults, journal, clock, inferences and rate limit. The routes below /_mock, too, are those
of that mock.
"""

import re
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, Final, Generic, Protocol, TypeVar
from uuid import uuid4

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mock_server.endpoints import MISUSED
from upscaler.api.headers import REQUEST_ID_HEADER

HEADER: Final = "X-Mock-Session"
NAME: Final = re.compile(r"[A-Za-z0-9._:-]{1,100}", re.ASCII)
MAX_SESSIONS: Final = 100
"""How many sessions are kept; the one that was not used for the longest time is forgotten."""


class HasApp(Protocol):
    """A mock, as far as requests are concerned."""

    app: FastAPI


Session = TypeVar("Session", bound=HasApp)


class Sessions(Generic[Session]):
    """The sessions by name, made by `create` when they are first used."""

    def __init__(self, create: Callable[[], Session]) -> None:
        self._create = create
        self._by_name: OrderedDict[str, Session] = OrderedDict()
        self._lock = Lock()  # tests and the server's thread may both ask for one

    def get(self, name: str) -> Session:
        """Return the session of this name; raises ValueError for what can be no name."""
        if not NAME.fullmatch(name):
            raise ValueError(
                f"{HEADER} must be a name of 1 to 100 letters, digits, and characters of ._:-"
            )
        with self._lock:
            if name not in self._by_name:
                self._by_name[name] = self._create()
            self._by_name.move_to_end(name)
            if len(self._by_name) > MAX_SESSIONS:
                self._by_name.popitem(last=False)
            return self._by_name[name]

    def all(self) -> list[Session]:
        """Return the sessions that there are."""
        with self._lock:
            return list(self._by_name.values())


class SessionMiddleware:
    """Middleware that has requests with X-Mock-Session answered by the app of their session."""

    def __init__(self, app: ASGIApp, sessions: Sessions[Any]) -> None:
        self.app = app
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = Headers(scope=scope).get(HEADER) if scope["type"] == "http" else None
        if name is None:
            await self.app(scope, receive, send)
            return
        try:
            session = self._sessions.get(name)
        except ValueError as error:
            scope.setdefault("state", {})[MISUSED] = True
            # 400, as for a wrong X-Mock-Fault; outside of what gives other responses their id.
            headers = {REQUEST_ID_HEADER: uuid4().hex}
            await JSONResponse({"detail": str(error)}, 400, headers)(scope, receive, send)
            return
        await session.app(scope, receive, send)
