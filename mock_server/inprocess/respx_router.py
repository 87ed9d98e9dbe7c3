"""The mock behind respx: it answers what goes to OctoAI's host, and no socket is opened.

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

from mock_server.inprocess.transport import Transport
from mock_server.mock import Mock

BASE_URL: Final = "https://image.octoai.run"
"""Where the API was."""
NAME: Final = "upscaling-mock"
"""Of the route that all requests take which no other one catches."""

_asynchronous: Final[ContextVar[bool]] = ContextVar("asynchronous", default=False)
"""Whether the request that is being answered is an asynchronous client's, which it does not say."""


def routes(
    mock: Mock | None = None,
    *,
    base_url: str = BASE_URL,
    assert_all_called: bool = False,
    assert_all_mocked: bool = True,
    using: str | Default | None = DEFAULT,
) -> "Router":
    """A router of respx with `mock`, by default a new one, behind everything at `base_url`.

    It is used as respx's own routers are: as a context manager, or as a decorator. Routes that are
    added to it go before the mock. Raises ValueError for a URL with a path: the URLs that the mock
    gives have none.
    """
    if httpx.URL(base_url).path not in ("", "/"):
        raise ValueError("the base URL is a scheme and a host: https://image.octoai.run")
    return Router(
        mock or Mock(),
        base_url=base_url,
        assert_all_called=assert_all_called,
        assert_all_mocked=assert_all_mocked,
        using=using,
    )


class Router(respx.MockRouter):
    """Routes of respx, with a mock behind them."""

    def __init__(self, mock: Mock, **settings: Any) -> None:  # noqa: ANN401  respx's own
        super().__init__(**settings)
        self.mock = mock
        self._transport = Transport(mock)
        super().add(Route(), name=NAME).mock(side_effect=self._answer)

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def add(self, route: Route, *, name: str | None = None) -> Route:
        """Add a route, before the mock's."""
        added = super().add(route, name=name)
        if NAME in self.routes:  # or else the new one has just its pattern, and takes its place
            last = self.routes[NAME]
            self.routes.pop(NAME)  # type: ignore[no-untyped-call]
            self.routes.add(last, name=NAME)
        return added

    def resolve(self, request: httpx.Request) -> ResolvedRoute:
        """Find what answers a synchronous client; so respx calls it."""
        before = _asynchronous.set(False)
        try:
            return super().resolve(request)
        finally:
            _asynchronous.reset(before)

    async def aresolve(self, request: httpx.Request) -> ResolvedRoute:
        """Find what answers an asynchronous client; so respx calls it."""
        before = _asynchronous.set(True)
        try:
            return await super().aresolve(request)
        finally:
            _asynchronous.reset(before)

    def _answer(self, request: httpx.Request) -> Any:  # noqa: ANN401  an answer, or one to await
        if _asynchronous.get():
            return self._transport.handle_async_request(request)
        return self._transport.handle_request(request)
