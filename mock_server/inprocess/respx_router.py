"""The mock behind respx: it answers requests to OctoAI's host without a socket.

Those of httpx, and of httpx2 where that is installed.

    with mock_server.routes() as api:
        httpx.post("https://image.octoai.run/upscaling", ...)
        api.mock.assert_called_with(scale=2)

respx comes with the extra `mock`.
"""

from contextvars import ContextVar
from typing import Any, Final, Self

import httpx
import respx
from respx.models import ResolvedRoute, Route
from respx.router import DEFAULT, Default

from mock_server.inprocess import httpx2_mocker
from mock_server.inprocess.httpx2_mocker import Httpx2Router
from mock_server.inprocess.transport import Transport
from mock_server.mock import Mock

BASE_URL: Final = "https://image.octoai.run"
"""The host of OctoAI's API, which no longer exists."""
NAME: Final = "upscaling-mock"
"""The name of the route to the mock, which matches every request that no other route does."""

_is_async: Final[ContextVar[bool]] = ContextVar("is_async", default=False)
"""Whether the request is an asynchronous client's, which respx does not tell a side effect."""


def routes(
    mock: Mock | None = None,
    *,
    base_url: str = BASE_URL,
    assert_all_called: bool = False,
    assert_all_mocked: bool = True,
    using: str | Default | None = DEFAULT,
) -> "Router":
    """Return a respx router that sends every request to `base_url` to `mock`, by default a new one.

    Use it like any router of respx: in a `with` statement, or as a decorator. Routes that are added
    to it come before the mock. Raises ValueError for a base URL with a path, since the URLs in the
    mock's responses have none.
    """
    if httpx.URL(base_url).path not in ("", "/"):
        raise ValueError("the base URL must be a scheme and a host: https://image.octoai.run")
    return Router(
        mock or Mock(),
        base_url=base_url,
        assert_all_called=assert_all_called,
        assert_all_mocked=assert_all_mocked,
        using=using,
    )


class Router(respx.MockRouter):
    """A router of respx whose last route is a mock."""

    def __init__(self, mock: Mock, **settings: Any) -> None:  # noqa: ANN401  respx's own
        super().__init__(**settings)
        self.mock = mock
        self._transport = Transport(mock)
        self._for_httpx2 = Httpx2Router(self)
        super().add(Route(), name=NAME).mock(side_effect=self._respond)

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def start(self) -> None:
        """Take the requests of httpx and httpx2, before mocks that took them until now."""
        super().start()
        if self.Mocker is None:  # `using=None`: nothing is replaced
            return
        _put_before_others(self.Mocker.routers)
        if mocker := httpx2_mocker.mocker():
            mocker.register(self._for_httpx2)
            _put_before_others(mocker.routers)
            mocker.start()

    def stop(self, clear: bool = True, reset: bool = True, quiet: bool = False) -> None:
        """Take no more requests."""
        if self.Mocker and (mocker := httpx2_mocker.mocker()):
            mocker.unregister(self._for_httpx2)
            mocker.stop()
        super().stop(clear, reset, quiet)

    def add(self, route: Route, *, name: str | None = None) -> Route:
        """Add a route before the mock's."""
        added = super().add(route, name=name)
        # A new route with the pattern of the mock's has replaced it, and then it is not there.
        if NAME in self.routes:
            last = self.routes[NAME]
            self.routes.pop(NAME)  # type: ignore[no-untyped-call]
            self.routes.add(last, name=NAME)
        return added

    def resolve(self, request: httpx.Request) -> ResolvedRoute:
        """Find the response for a synchronous client; respx calls this."""
        token = _is_async.set(False)
        try:
            return super().resolve(request)
        finally:
            _is_async.reset(token)

    async def aresolve(self, request: httpx.Request) -> ResolvedRoute:
        """Find the response for an asynchronous client; respx calls this."""
        token = _is_async.set(True)
        try:
            return await super().aresolve(request)
        finally:
            _is_async.reset(token)

    def _respond(self, request: httpx.Request) -> Any:  # noqa: ANN401  a response, or one to await
        if _is_async.get():
            return self._transport.handle_async_request(request)
        return self._transport.handle_request(request)


def _put_before_others(routers: list[respx.Router]) -> None:
    """Move the last router before those of other mocks: where several are entered, it is meant."""
    first = next(at for at, each in enumerate(routers) if isinstance(each, Router | Httpx2Router))
    routers.insert(first, routers.pop())
