"""The methods that HTTP has for every resource: HEAD where there is GET, and OPTIONS.

Load balancers and programs that wait for a service ask with HEAD (RFC 9110, 9.1 and 9.3.2).
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route


def get(app: FastAPI, path: str, endpoint: Callable[..., Any], **description: Any) -> None:  # noqa: ANN401  those of FastAPI
    """Add a route for GET of `path`, and one for HEAD, whose body RequestMiddleware leaves out."""
    app.get(path, **description)(endpoint)
    # Of its own, since FastAPI would describe a route with both methods twice, under one name.
    app.head(path, include_in_schema=False, **description)(endpoint)


async def not_allowed(request: Request, error: Exception) -> Response:
    """Respond to a method that the path does not have: to OPTIONS with those that it has.

    As any 405, it comes before the token is checked (REQ-19).
    """
    assert isinstance(error, HTTPException), "registered for its status alone"
    # Each method has a route of its own, and Starlette's header names those of the first alone.
    matching = (
        route
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    )
    first = (error.headers or {})["Allow"].split(", ")
    allowed = {"OPTIONS", *first}.union(*(route.methods or () for route in matching))
    if "GET" in allowed:  # the route of HEAD is another one
        allowed.add("HEAD")
    headers = {"Allow": ", ".join(sorted(allowed))}
    if request.method == "OPTIONS":
        return Response(None, HTTPStatus.NO_CONTENT, headers)
    return JSONResponse({"detail": error.detail}, error.status_code, headers)
