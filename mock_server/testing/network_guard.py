"""The guard: no request of a test comes to OctoAI's real hosts.

It watches where all clients meet, whatever library they are of: where a name is looked up, and
where TLS is told which host it speaks to, which is also so behind a proxy. Only routes of respx
answer before that; what they do not answer is noted there.
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
"""Of OctoAI's. Those below them are guarded, too."""
LOOKUPS: Final = ("getaddrinfo", "gethostbyname", "gethostbyname_ex")
HANDSHAKES: Final = {"wrap_socket": 5, "wrap_bio": 4}
"""What begins TLS, and which argument is the host's name if it is not named."""
PROXIES: Final = ("NO_PROXY", "no_proxy")
ADVICE: Final = (
    "was caught by no route, and was kept from leaving this machine. The fixture upscaling_api "
    "answers clients of httpx; any client can be given the URL of the fixture upscaling_mock. "
    "With upscaling_guard = false in pytest's configuration, such requests go where they will"
)


class UncaughtRequest(AssertionError):
    """A test has asked a real host; the message says which, and what to do."""


class Guard:
    """Keeps requests here from `start` to `stop`, and knows of them until they are `taken`."""

    def __init__(self) -> None:
        self._caught: dict[str, None] = {}
        self._undoing = ExitStack()
        self._watched: set[str] = set()

    def start(self) -> None:
        """Begin to guard the process."""
        for name in LOOKUPS:
            self._replace(socket, name, self._on_lookup)
        for name in HANDSHAKES:
            self._replace(ssl.SSLContext, name, self._on_handshake)
        for name in PROXIES:  # a proxy would look names up elsewhere
            self._go_past(name)

    def stop(self) -> None:
        """Let requests go again."""
        self._undoing.close()

    def look_around(self) -> None:
        """Watch what has been imported meanwhile, and does not come by the other places."""
        for name, watch in {"respx.mocks": self._watch_respx, "uvloop": self._watch_uvloop}.items():
            if name in sys.modules and name not in self._watched:
                self._watched.add(name)
                watch(sys.modules[name])

    def taken(self) -> str:
        """What was caught since the last time, in a sentence; nothing if nothing was."""
        hosts, self._caught = list(self._caught), {}
        return f"a request to {', '.join(hosts)} {ADVICE}." if hosts else ""

    def _go_past(self, variable: str) -> None:
        """Have the guarded hosts among those that are asked without a proxy."""
        before = os.environ.get(variable)
        ours = ",".join([*filter(None, [before]), *HOSTS])
        os.environ[variable] = ours

        def undo() -> None:
            if os.environ.get(variable) == ours:
                del os.environ[variable]
                os.environ.update({} if before is None else {variable: before})

        self._undoing.callback(undo)

    def _check(self, host: object) -> None:
        name = self._noted(host)
        if name:
            raise UncaughtRequest(f"a request to {name} {ADVICE}.")

    def _noted(self, host: object) -> str:
        """The name of a host that is guarded, and now is noted; nothing for any other."""
        text = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else str(host)
        name = text.lower().rstrip(".")
        if not any(f".{name}".endswith(f".{guarded}") for guarded in HOSTS):
            return ""
        self._caught[name] = None
        return name

    def _on_lookup(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  handed on
            self._check(args[0] if args else kwargs.get("host"))
            return original(*args, **kwargs)

        return guarded

    def _on_handshake(self, original: Callable[..., Any]) -> Callable[..., Any]:
        place = HANDSHAKES[original.__name__]

        @wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  handed on
            given = kwargs.get("server_hostname")
            self._check(args[place] if len(args) > place else given)
            return original(*args, **kwargs)

        return guarded

    def _watch_uvloop(self, uvloop: Any) -> None:  # noqa: ANN401  a module that may not be there
        """Watch its lookups: they are libuv's."""

        def on_lookup(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)
            async def guarded(loop: Any, host: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
                self._check(host)
                return await original(loop, host, *args, **kwargs)

            return guarded

        self._replace(uvloop.Loop, "getaddrinfo", on_lookup)

    def _watch_respx(self, mocks: Any) -> None:  # noqa: ANN401  a module that may not be there
        """Note what none of its routes has caught: no name is looked up for that."""

        @contextmanager
        def noting(request: Any) -> Iterator[None]:  # noqa: ANN401  respx's
            try:
                yield
            except mocks.AllMockedAssertionError:
                self._noted(request.url.host)
                raise

        def on_request(original: Any) -> Any:  # noqa: ANN401  a class method
            def handler(cls: Any, request: Any) -> Any:  # noqa: ANN401  respx's
                with noting(request):
                    return original.__func__(cls, request)

            return classmethod(handler)

        def on_request_async(original: Any) -> Any:  # noqa: ANN401  a class method
            async def handler(cls: Any, request: Any) -> Any:  # noqa: ANN401  respx's
                with noting(request):
                    return await original.__func__(cls, request)

            return classmethod(handler)

        self._replace(mocks.Mocker, "handler", on_request)
        self._replace(mocks.Mocker, "async_handler", on_request_async)

    def _replace(self, owner: Any, name: str, made: Callable[[Any], Any]) -> None:  # noqa: ANN401
        """Put what is made of an attribute in its place; at the end it is back if nobody else's."""
        own = name in vars(owner)
        original = vars(owner)[name] if own else getattr(owner, name)
        replacement = made(original)
        setattr(owner, name, replacement)

        def undo() -> None:
            if vars(owner).get(name) is not replacement:
                return
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)

        self._undoing.callback(undo)
