"""What the guard replaces in a suite that uses the mock, as Python does not tell of it.

TLS, since it has the name of a server that a proxy resolves. uvloop, which resolves names by
itself. And httpx and httpx2: a request that respx refuses never gets to a socket, and one that goes
through a proxy gets to a socket of the proxy's.
"""

import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final

from mock_server.testing.hosts import is_guarded

HANDSHAKES: Final = {"wrap_socket": 5, "wrap_bio": 4}
"""The methods that begin TLS, and the position of their argument `server_hostname`."""
REFUSALS: Final = ("AllMockedAssertionError",)
"""respx's error, by name, since only a suite that uses it has it installed."""


class Replacements:
    """Attributes of other modules that are wrapped until `undo`."""

    def __init__(self, check: Callable[[object], None], record: Callable[[object], bool]) -> None:
        """Call `check` with each host that is asked, and `record` with each that respx refuses."""
        self.asked: ContextVar[str] = ContextVar("asked", default="")
        """The guarded host that httpx or httpx2 asks a proxy for in the current context."""
        self._check = check
        self._record = record
        self._undo = ExitStack()
        self._done: set[str] = set()
        for name in HANDSHAKES:
            self._replace(ssl.SSLContext, name, self._check_handshake)
        self.update()

    def undo(self) -> None:
        """Restore what was wrapped."""
        self._undo.close()

    def update(self) -> None:
        """Wrap what is in libraries that were imported since the last call."""
        libraries = {
            "httpx": self._watch_transports,
            "httpx2": self._watch_transports,
            "uvloop": self._check_lookups,
        }
        for name, wrap in libraries.items():
            if name in sys.modules and name not in self._done:
                self._done.add(name)
                wrap(sys.modules[name])

    def _check_handshake(self, original: Callable[..., Any]) -> Callable[..., Any]:
        position = HANDSHAKES[original.__name__]

        @wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  passed on
            host = args[position] if len(args) > position else kwargs.get("server_hostname")
            self._check(host)
            return original(*args, **kwargs)

        return guarded

    def _check_lookups(self, uvloop: Any) -> None:  # noqa: ANN401  a module that may not be installed
        def check_lookup(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)
            async def guarded(loop: Any, host: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
                self._check(host)
                return await original(loop, host, *args, **kwargs)

            return guarded

        self._replace(uvloop.Loop, "getaddrinfo", check_lookup)

    def _watch_transports(self, httpx: Any) -> None:  # noqa: ANN401  httpx or httpx2
        """Know of the requests that respx refuses, or that go through a proxy.

        respx has no hook for them. It replaces what is below these transports (`using="httpcore"`)
        or uses `MockTransport` (`using="httpx"`), so its error passes through one of them.
        """

        def watch(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)
            def watched(transport: Any, request: Any) -> Any:  # noqa: ANN401  passed on
                with self._asking(transport, request.url.host):
                    return original(transport, request)

            return watched

        def watch_async(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)
            async def watched(transport: Any, request: Any) -> Any:  # noqa: ANN401  passed on
                with self._asking(transport, request.url.host):
                    return await original(transport, request)

            return watched

        for transport in (httpx.HTTPTransport, httpx.MockTransport):
            self._replace(transport, "handle_request", watch)
        for transport in (httpx.AsyncHTTPTransport, httpx.MockTransport):
            self._replace(transport, "handle_async_request", watch_async)

    @contextmanager
    def _asking(self, transport: object, host: str) -> Iterator[None]:
        # Where there is no proxy, the host itself is looked up, if it comes to that.
        is_kept = is_guarded(host) and "Proxy" in type(getattr(transport, "_pool", None)).__name__
        # Of any other host as well: a route's side effect may ask one.
        token = self.asked.set(host if is_kept else "")
        try:
            yield
        except AssertionError as error:
            # Code under test may swallow it.
            if type(error).__name__ in REFUSALS:
                self._record(host)
            raise
        finally:
            self.asked.reset(token)

    def _replace(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:  # noqa: ANN401
        """Wrap an attribute until `undo`, which does not undo what others have set since."""
        is_own = name in vars(owner)
        original = vars(owner)[name] if is_own else getattr(owner, name)
        replacement = wrap(original)
        setattr(owner, name, replacement)

        def undo() -> None:
            if vars(owner).get(name) is not replacement:
                return
            if is_own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)

        self._undo.callback(undo)
