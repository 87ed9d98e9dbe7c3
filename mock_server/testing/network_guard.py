"""Keeps the requests of a test from reaching OctoAI's real hosts.

It hooks into where all clients meet, whatever library they use: where names are resolved, and where
TLS is told the name of the server, also behind a proxy. A request that respx refuses gets to
neither, so the transports of httpx are watched for that.
"""

import os
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, Final

HOSTS: Final = ("octoai.run", "octoai.cloud", "octo.ai")
"""OctoAI's domains; the hosts below them are guarded, too."""
LOOKUPS: Final = ("getaddrinfo", "gethostbyname", "gethostbyname_ex")
HANDSHAKES: Final = {"wrap_socket": 5, "wrap_bio": 4}
"""The methods that begin TLS, and the position of their argument `server_hostname`."""
PROXY_VARIABLES: Final = ("NO_PROXY", "no_proxy")
ADVICE: Final = (
    "was matched by no route, and was kept from leaving this machine. The fixture upscaling_api "
    "answers clients that use httpx; any client can be given the URL of the fixture "
    "upscaling_mock. Set upscaling_guard = false in pytest's configuration to allow such requests"
)


class UnmockedRequest(AssertionError):
    """A test sent a request to a real host; the message says to which, and what to do."""


class NetworkGuard:
    """Blocks requests to the guarded hosts from `start` to `stop`, and records them."""

    def __init__(self) -> None:
        self._blocked: dict[str, None] = {}  # a set that keeps its order
        self._undo = ExitStack()
        self._hooked: set[str] = set()

    def start(self) -> None:
        """Guard this process."""
        for name in LOOKUPS:
            self._replace(socket, name, self._check_lookup)
        for name in HANDSHAKES:
            self._replace(ssl.SSLContext, name, self._check_handshake)
        for name in PROXY_VARIABLES:  # a proxy would resolve the names elsewhere
            self._bypass_proxy(name)

    def stop(self) -> None:
        """Allow all requests again."""
        self._undo.close()

    def hook_imported(self) -> None:
        """Hook into libraries that were imported since the last call."""
        for name, hook in {"httpx": self._hook_httpx, "uvloop": self._hook_uvloop}.items():
            if name in sys.modules and name not in self._hooked:
                self._hooked.add(name)
                hook(sys.modules[name])

    def take_report(self) -> str:
        """Return what was blocked since the last call in a sentence, or an empty text."""
        hosts, self._blocked = list(self._blocked), {}
        return f"a request to {', '.join(hosts)} {ADVICE}." if hosts else ""

    def _bypass_proxy(self, variable: str) -> None:
        """Add the guarded hosts to those that are not accessed through a proxy."""
        before = os.environ.get(variable)
        ours = ",".join([*filter(None, [before]), *HOSTS])
        os.environ[variable] = ours

        def undo() -> None:
            if os.environ.get(variable) == ours:  # else a test has set it, and it stays
                del os.environ[variable]
                os.environ.update({} if before is None else {variable: before})

        self._undo.callback(undo)

    def _check(self, host: object) -> None:
        name = self._record(host)
        if name:
            raise UnmockedRequest(f"a request to {name} {ADVICE}.")

    def _record(self, host: object) -> str:
        """Record a guarded host and return its name; return an empty text for any other."""
        # Lookups take bytes as well, and a name may end in a dot, which makes it absolute.
        text = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else str(host)
        name = text.lower().rstrip(".")
        if not any(f".{name}".endswith(f".{guarded}") for guarded in HOSTS):
            return ""
        self._blocked[name] = None
        return name

    def _check_lookup(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  passed on
            self._check(args[0] if args else kwargs.get("host"))
            return original(*args, **kwargs)

        return guarded

    def _check_handshake(self, original: Callable[..., Any]) -> Callable[..., Any]:
        position = HANDSHAKES[original.__name__]

        @wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  passed on
            self._check(args[position] if len(args) > position else kwargs.get("server_hostname"))
            return original(*args, **kwargs)

        return guarded

    def _hook_uvloop(self, uvloop: Any) -> None:  # noqa: ANN401  a module that may not be installed
        """Check the lookups of uvloop, which libuv does."""

        def check_lookup(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)
            async def guarded(loop: Any, host: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
                self._check(host)
                return await original(loop, host, *args, **kwargs)

            return guarded

        self._replace(uvloop.Loop, "getaddrinfo", check_lookup)

    def _hook_httpx(self, httpx: Any) -> None:  # noqa: ANN401  a module that may not be imported
        """Record the requests that respx refuses, since code under test may swallow its error.

        respx has no hook for them. It replaces what is below these transports (`using="httpcore"`)
        or uses `MockTransport` (`using="httpx"`), so its error passes through one of them.
        """

        def watch(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)
            def watched(transport: Any, request: Any) -> Any:  # noqa: ANN401  passed on
                with self._recording(request):
                    return original(transport, request)

            return watched

        def watch_async(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)
            async def watched(transport: Any, request: Any) -> Any:  # noqa: ANN401  passed on
                with self._recording(request):
                    return await original(transport, request)

            return watched

        for transport in (httpx.HTTPTransport, httpx.MockTransport):
            self._replace(transport, "handle_request", watch)
        for transport in (httpx.AsyncHTTPTransport, httpx.MockTransport):
            self._replace(transport, "handle_async_request", watch_async)

    @contextmanager
    def _recording(self, request: Any) -> Iterator[None]:  # noqa: ANN401  of httpx
        try:
            yield
        except AssertionError as error:
            # By name, since only a suite that uses respx has it installed.
            if type(error).__name__ == "AllMockedAssertionError":
                self._record(request.url.host)
            raise

    def _replace(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:  # noqa: ANN401
        """Wrap an attribute until `stop`, which does not undo what others have set since."""
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
