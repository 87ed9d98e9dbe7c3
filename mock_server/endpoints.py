"""The API's endpoints by name, and the prefix of the mock's own."""

from typing import Final

from starlette.types import Scope

PREFIX: Final = "/_mock/"
"""The paths of the routes that control the mock begin with this."""
MISUSED: Final = "misused"
"""The key of a request's state that is True if what is wrong with it is a header of the mock's own:
its response says nothing about the API."""
ROUTES: Final = {
    "upscaling": ("POST", "/upscaling"),
    "poll": ("GET", "/v1/requests/"),
    "result": ("GET", "/v1/responses/"),
    "healthcheck": ("GET", "/healthcheck"),
}
"""The API's endpoints: their method and path, or, where it ends in a slash, the path's prefix."""


def route_of(scope: Scope) -> str | None:
    """Return the name of the endpoint that a request is for, or None if it is not in `ROUTES`.

    HEAD counts as GET, whose response it has but for the body.
    """
    asked = "GET" if scope["method"] == "HEAD" else scope["method"]
    for name, (method, path) in ROUTES.items():
        matches = scope["path"].startswith(path) if path.endswith("/") else scope["path"] == path
        if asked == method and matches:
            return name
    return None
