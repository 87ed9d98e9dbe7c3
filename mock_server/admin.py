"""The routes below /_mock, by which a test in any language steers the mock and asks what it saw.

They are none of the contract's: no token is needed, and they stand in no description of the API.
Pages in a browser cannot use them: see `visitors`.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import anyio
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mock_server import admin_access
from mock_server.scenario import parse_progress

if TYPE_CHECKING:
    from mock_server.mock import Mock

PREFIX: Final = "/_mock/"
MAX_BODY_BYTES: Final = 2**20
BODY_DEADLINE_S: Final = 10.0
"""How long a body may take here. Those who send them are on the same machine, or near."""
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
"""What requests can be filtered by, and how the text in the query is read."""

Handler = Callable[[Request], Awaitable[Any]]


class Refused(ValueError):
    """What was sent cannot be done; the message says why."""


class Admin:
    """Middleware that answers what begins with /_mock/ itself and lets everything else pass.

    Of names that an attacker's DNS could have, it is there under `hosts` alone.
    """

    def __init__(self, app: ASGIApp, mock: "Mock", hosts: Collection[str]) -> None:
        self.app = app
        self._routes = routes(Handlers(mock))
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self.app(scope, receive, send)
        elif told := admin_access.refusal(scope, self._hosts):
            await JSONResponse({"detail": told}, 403)(scope, receive, send)
        else:
            await self._routes(scope, receive, send)


class Handlers:
    """What each route does; what they return is the answer's JSON, and ValueError is a 400."""

    def __init__(self, mock: "Mock") -> None:
        self._mock = mock

    async def requests(self, request: Request) -> Any:  # noqa: ANN401  JSON, as all that follow
        """The requests that were noted, by the filters in the query."""
        journal = self._mock.journal
        found = journal.find(**_filters(request))
        return {"requests": [entry.told() for entry in found], "dropped": journal.dropped}

    async def forget(self, _request: Request) -> Any:  # noqa: ANN401
        """Forget the requests, and nothing else."""
        self._mock.journal.reset()
        return {"requests": [], "dropped": 0}

    async def reset(self, _request: Request) -> Any:  # noqa: ANN401
        """Be as at the start."""
        self._mock.reset()
        return {"status": "ok"}

    async def faults(self, _request: Request) -> Any:  # noqa: ANN401
        """The faults to come."""
        return self._mock.faults.told()

    async def set_faults(self, request: Request) -> Any:  # noqa: ANN401
        """Set the sequence of a route, the probabilities, or both."""
        given = await _table(request, ("sequence", "on", "random"))
        sequence, on = given.get("sequence"), given.get("on", "upscaling")
        chances = given.get("random")
        if sequence is None and chances is None:
            raise Refused('send {"sequence": "429x2,ok"}, {"random": {"429": 0.05}} or both')
        if chances is not None:
            if not isinstance(chances, dict):
                raise Refused('random is an object of probabilities, such as {"429": 0.05}')
            self._mock.faults.set_random(chances)
        if sequence is not None:
            if not isinstance(sequence, str) or not isinstance(on, str):
                raise Refused("sequence and on are texts")
            self._mock.faults.set(sequence, on)
        return self._mock.faults.told()

    async def clear_faults(self, _request: Request) -> Any:  # noqa: ANN401
        """Let nothing go wrong any more, until a reset."""
        self._mock.faults.clear()
        return self._mock.faults.told()

    async def clock(self, _request: Request) -> Any:  # noqa: ANN401
        """The time as the mock takes it, in seconds since 1970."""
        clock = self._mock.clock
        return {"time": clock(), "advanced": clock.advanced_s}

    async def advance(self, request: Request) -> Any:  # noqa: ANN401
        """Let time pass at once."""
        seconds = (await _table(request, ("advance",))).get("advance")
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            raise Refused('send {"advance": 86400}, a number of seconds')
        self._mock.clock.advance(seconds)
        return await self.clock(request)

    async def progress(self, _request: Request) -> Any:  # noqa: ANN401
        """What the polls of the next asynchronous inferences are told."""
        return asdict(self._mock.jobs.progress)

    async def set_progress(self, request: Request) -> Any:  # noqa: ANN401
        """Set what they are told; what is left out is as without a scenario."""
        self._mock.jobs.progress = parse_progress(await _object(request))
        return await self.progress(request)


def routes(handlers: Handlers) -> Starlette:
    """An app of the routes, which answers in JSON whatever is wrong."""
    paths: dict[str, dict[str, Handler]] = {
        "requests": {"GET": handlers.requests, "DELETE": handlers.forget},
        "reset": {"POST": handlers.reset},
        "faults": {
            "GET": handlers.faults,
            "POST": handlers.set_faults,
            "DELETE": handlers.clear_faults,
        },
        "clock": {"GET": handlers.clock, "POST": handlers.advance},
        "progress": {"GET": handlers.progress, "POST": handlers.set_progress},
    }
    return Starlette(
        routes=[
            Route(PREFIX + path, _answering(by_method), methods=list(by_method))
            for path, by_method in paths.items()
        ],
        exception_handlers={HTTPException: _no_route},
    )


def _answering(by_method: Mapping[str, Handler]) -> Callable[[Request], Awaitable[JSONResponse]]:
    async def answer(request: Request) -> JSONResponse:
        handler = by_method["GET" if request.method == "HEAD" else request.method]
        try:
            return JSONResponse(await handler(request))
        except ValueError as error:
            return JSONResponse({"detail": str(error)}, 400)

    return answer


async def _no_route(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException), "registered for this class alone"
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


async def _table(request: Request, names: tuple[str, ...]) -> dict[str, Any]:
    """The object in a body, which has no members but these."""
    given = await _object(request)
    for name in given:
        if name not in names:
            raise Refused(f"there is no {name[:40]!r}; what there is: {', '.join(names)}")
    return given


async def _object(request: Request) -> dict[str, Any]:
    body = bytearray()
    with anyio.move_on_after(BODY_DEADLINE_S) as waiting:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise Refused(f"a body here has at most {MAX_BODY_BYTES} bytes")
    if waiting.cancelled_caught:
        raise HTTPException(408, f"the body did not arrive within {BODY_DEADLINE_S:.0f} seconds")
    try:
        given = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(f"this is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise Refused("send a JSON object")
    return given


def _filters(request: Request) -> dict[str, Any]:
    found = {}
    for name, text in request.query_params.items():
        if name not in FILTERS:
            raise Refused(f"there is no filter {name[:40]!r}; what there is: {', '.join(FILTERS)}")
        try:
            found[name] = FILTERS[name](text)
        except ValueError as error:
            raise Refused(f"{name} is a number") from error
    return found
