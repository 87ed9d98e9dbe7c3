"""Lets a router of respx answer clients of httpx2, too: respx itself knows httpx alone.

pytest-httpx2, by respx's author, brings the same mocker, and where it is there it is used, so that
its routers and ours share the requests. It is no dependency: another package, httpx2-pytest, has a
module of the same name.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import ClassVar, Final

import httpx
from respx.mocks import HTTPCoreMocker, Mocker
from respx.router import Router

SHARED: Final = "httpcore2"
"""The name of pytest-httpx2's mocker."""


def mocker() -> type[Mocker] | None:
    """Return what replaces httpx2's connections; None where httpx2 is not installed."""
    if find_spec("httpcore2") is None:
        return None
    return Mocker.registry.get(SHARED) or _own_mocker()


@cache
def _own_mocker() -> type[Mocker]:
    class HTTPCore2Mocker(HTTPCoreMocker):
        name = "upscaling-httpcore2"
        targets: ClassVar = [
            target.replace("httpcore.", "httpcore2.") for target in HTTPCoreMocker.targets
        ]

    return HTTPCore2Mocker


class Httpx2Router(Router):
    """A router as httpx2 needs it, by one for httpx: the errors are those of its connections."""

    def __init__(self, router: Router) -> None:
        super().__init__()
        self._router = router

    def handler(self, request: httpx.Request) -> httpx.Response:
        """Return the response to a synchronous client; respx calls this."""
        with _errors_of_httpcore2():
            return _with_its_errors(self._router.handler(request))

    async def async_handler(self, request: httpx.Request) -> httpx.Response:
        """Return the response to an asynchronous client; respx calls this."""
        with _errors_of_httpcore2():
            return _with_its_errors(await self._router.async_handler(request))


class _Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        assert isinstance(self._stream, httpx.SyncByteStream)
        with _errors_of_httpcore2():
            yield from self._stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._stream, httpx.AsyncByteStream)
        with _errors_of_httpcore2():
            async for part in self._stream:
                yield part

    def close(self) -> None:
        if isinstance(self._stream, httpx.SyncByteStream):
            self._stream.close()

    async def aclose(self) -> None:
        if isinstance(self._stream, httpx.AsyncByteStream):
            await self._stream.aclose()


def _with_its_errors(response: httpx.Response) -> httpx.Response:
    response.stream = _Stream(response.stream)
    return response


@contextmanager
def _errors_of_httpcore2() -> Iterator[None]:
    """Raise httpcore2's error in place of httpx's, as httpx2 makes its own of those."""
    try:
        yield
    except httpx.TransportError as error:
        import httpcore2  # noqa: PLC0415  it may not be installed

        for kind in type(error).__mro__:
            if own := getattr(httpcore2, kind.__name__, None):
                raise own(str(error)) from error
        raise
