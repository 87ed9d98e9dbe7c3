"""The order of the middleware that an app is created with."""

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support.service import SETTINGS, Resizer
from upscaler.api.headers import REQUEST_ID_HEADER
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend


class Numbered:
    """Middleware that answers /number-N itself, and lists the numbers that a request has passed."""

    def __init__(self, app: ASGIApp, number: int) -> None:
        self.app = app
        self.number = number

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            passed = scope["state"].setdefault("passed", [])
            passed.append(self.number)
            if Request(scope).url.path == f"/number-{self.number}":
                await PlainTextResponse(f"{passed}")(scope, receive, send)
                return
        await self.app(scope, receive, send)


def test_the_first_middleware_is_outermost_and_request_ids_are_kept() -> None:
    middleware = [Middleware(Numbered, 1), Middleware(Numbered, 2)]
    app = create_app(LocalBackend(Resizer()), SETTINGS, middleware=middleware)
    client = TestClient(app)
    for path, passed in (("/number-1", "[1]"), ("/number-2", "[1, 2]")):
        response = client.get(path, headers={REQUEST_ID_HEADER: "mine"})
        assert (response.text, response.headers[REQUEST_ID_HEADER]) == (passed, "mine")
    assert client.get("/livez").json() == {"status": "ok"}
    counted = client.get("/metrics", headers={"Authorization": f"Bearer {SETTINGS.tokens[0]}"}).text
    assert 'upscaler_requests_total{model="",route="other",status="200"} 2.0' in counted
