"""The routes below /_mock, with which a test in any language controls the mock.

They are not part of the API: they need no token and are not in its OpenAPI description. Web pages
of other sites cannot use them: see `admin_access`.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any, Final

import anyio
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mock_server import admin_access
from mock_server.endpoints import PREFIX
from mock_server.scenario import parse_progress
from mock_server.state import State

MAX_BODY_BYTES: Final = 2**20
BODY_DEADLINE_S: Final = 10.0
"""How long a body may take to arrive; clients are on the same machine or near it."""
FILTERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "method": str,
    "path": str,
    "route": str,
    "status": int,
    "model": str,
    "fault": str,
    "since": float,
    "limit": int,
}
"""The filters of `Journal.find`, and how their text in the query is parsed."""

Handler = Callable[[Request], Awaitable[dict[str, Any]]]
"""Returns the JSON of the response; a ValueError is a 400 with its message."""


class BadRequest(ValueError):
    """A request to the routes below /_mock is wrong; the message says what is expected."""


class AdminMiddleware:
    """Middleware that answers requests below /_mock/ itself, and passes on all others.

    `hosts` are the host names under which the routes can be used, besides those of `admin_access`.
    """

    def __init__(self, app: ASGIApp, state: State, hosts: Collection[str]) -> None:
        self.app = app
        self._routes = create_routes(Handlers(state))
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self.app(scope, receive, send)
        # Checked for every method: reading the journal must be as safe as changing the state.
        elif reason := admin_access.refusal(scope, self._hosts):
            await JSONResponse({"detail": reason}, 403)(scope, receive, send)
        else:
            await self._routes(scope, receive, send)


class Handlers:
    """What each route does."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def get_requests(self, request: Request) -> dict[str, Any]:
        """Return the requests in the journal, by the filters in the query."""
        filters = {}
        for name, text in request.query_params.items():
            if name not in FILTERS:
                known = ", ".join(FILTERS)
                raise BadRequest(f"unknown filter {name[:40]!r}; use one of {known}")
            try:
                filters[name] = FILTERS[name](text)
            except ValueError as error:
                raise BadRequest(f"{name} must be a number") from error
        journal = self._state.journal
        entries = [entry.to_dict() for entry in journal.find(**filters)]
        return {"requests": entries, "dropped": journal.dropped}

    async def delete_requests(self, _request: Request) -> dict[str, Any]:
        """Forget the requests, and nothing else."""
        self._state.journal.reset()
        return {"requests": [], "dropped": 0}

    async def reset(self, _request: Request) -> dict[str, Any]:
        """Restore the initial state."""
        self._state.reset()
        return {"status": "ok"}

    async def get_faults(self, _request: Request) -> dict[str, Any]:
        """Return the faults to come."""
        return self._state.faults.to_dict()

    async def set_faults(self, request: Request) -> dict[str, Any]:
        """Set the sequence of a route, the probabilities, or both."""
        given = await _read_object(request, "sequence", "on", "random")
        sequence, on = given.get("sequence"), given.get("on", "upscaling")
        random = given.get("random")
        if sequence is None and random is None:
            raise BadRequest('send {"sequence": "429x2,ok"}, {"random": {"429": 0.05}} or both')
        if random is not None:
            if not isinstance(random, dict):
                raise BadRequest('random must be an object of probabilities, such as {"429": 0.05}')
            self._state.faults.set_random(random)
        if sequence is not None:
            if not isinstance(sequence, str) or not isinstance(on, str):
                raise BadRequest("sequence and on must be strings")
            self._state.faults.set(sequence, on)
        return self._state.faults.to_dict()

    async def clear_faults(self, _request: Request) -> dict[str, Any]:
        """Drop all faults, until a reset."""
        self._state.faults.clear()
        return self._state.faults.to_dict()

    async def get_clock(self, _request: Request) -> dict[str, Any]:
        """Return the mock's time in seconds since 1970, and how far it was advanced."""
        clock = self._state.clock
        return {"time": clock(), "advanced": clock.advanced_s}

    async def advance_clock(self, request: Request) -> dict[str, Any]:
        """Advance the clock."""
        seconds = (await _read_object(request, "advance")).get("advance")
        # In Python a bool is an int, too.
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            raise BadRequest('send {"advance": 86400}, a number of seconds')
        self._state.clock.advance(seconds)
        return await self.get_clock(request)

    async def get_webhooks(self, _request: Request) -> dict[str, Any]:
        """Return the faults of the next webhooks."""
        return {"sequence": ",".join(self._state.webhooks.faults)}

    async def set_webhooks(self, request: Request) -> dict[str, Any]:
        """Set those faults."""
        given = await _read_object(request, "sequence")
        self._state.webhooks.set(given.get("sequence", ""))
        return await self.get_webhooks(request)

    async def get_faces(self, _request: Request) -> dict[str, Any]:
        """Return how many faces every picture has."""
        return {"count": self._state.faces.count}

    async def set_faces(self, request: Request) -> dict[str, Any]:
        """Set their number."""
        self._state.faces.set((await _read_object(request, "count")).get("count"))
        return await self.get_faces(request)

    async def get_progress(self, _request: Request) -> dict[str, Any]:
        """Return the poll script of the next asynchronous inferences."""
        return asdict(self._state.jobs.progress)

    async def set_progress(self, request: Request) -> dict[str, Any]:
        """Set that script; what is left out has its default, not the scenario's value."""
        self._state.jobs.progress = parse_progress(await _read_object(request))
        return await self.get_progress(request)


def create_routes(handlers: Handlers) -> Starlette:
    """Return an app of the routes, whose errors are JSON as well."""
    paths: dict[str, dict[str, Handler]] = {
        "requests": {"GET": handlers.get_requests, "DELETE": handlers.delete_requests},
        "reset": {"POST": handlers.reset},
        "faults": {
            "GET": handlers.get_faults,
            "POST": handlers.set_faults,
            "DELETE": handlers.clear_faults,
        },
        "clock": {"GET": handlers.get_clock, "POST": handlers.advance_clock},
        "webhooks": {"GET": handlers.get_webhooks, "POST": handlers.set_webhooks},
        "faces": {"GET": handlers.get_faces, "POST": handlers.set_faces},
        "progress": {"GET": handlers.get_progress, "POST": handlers.set_progress},
    }
    return Starlette(
        routes=[
            Route(PREFIX + path, _endpoint(by_method), methods=list(by_method))
            for path, by_method in paths.items()
        ],
        exception_handlers={HTTPException: _error_response},
    )


def _endpoint(by_method: Mapping[str, Handler]) -> Callable[[Request], Awaitable[JSONResponse]]:
    async def endpoint(request: Request) -> JSONResponse:
        # Starlette adds HEAD to every route that has GET.
        handler = by_method["GET" if request.method == "HEAD" else request.method]
        try:
            return JSONResponse(await handler(request))
        except ValueError as error:
            return JSONResponse({"detail": str(error)}, 400)

    return endpoint


async def _error_response(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException), "registered for this class only"
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


async def _read_object(request: Request, *keys: str) -> dict[str, Any]:
    """Return the JSON object in the body; raises BadRequest or HTTPException.

    With `keys` it may have no others.
    """
    body = bytearray()
    with anyio.move_on_after(BODY_DEADLINE_S) as deadline:
        async for chunk in request.stream():
            body += chunk
            # While it arrives, since a client may declare no length, or a wrong one.
            if len(body) > MAX_BODY_BYTES:
                raise BadRequest(f"a body may have at most {MAX_BODY_BYTES} bytes here")
    if deadline.cancelled_caught:
        raise HTTPException(408, f"the body did not arrive within {BODY_DEADLINE_S:.0f} seconds")
    try:
        given = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    if not isinstance(given, dict):
        raise BadRequest("send a JSON object")
    if keys and (unknown := [name for name in given if name not in keys]):
        raise BadRequest(f"unknown key {unknown[0][:40]!r}; use one of {', '.join(keys)}")
    return given
