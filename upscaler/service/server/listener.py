"""Accepts connections, no more than the process may have open files.

asyncio accepts connections until no file descriptor is left, and then logs an error for each one
that waits, again and again. Here a connection is accepted only if there is room for it. If there is
none, the connection that has been idle for the longest is closed, as in nginx: otherwise idle
connections, which cost a client next to nothing, could keep all others out.
"""

import asyncio
import logging
import socket
import sys
import threading
from contextlib import suppress
from functools import partial
from typing import Final, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from upscaler.service.server.addresses import BACKLOG, listen
from upscaler.service.server.lingering import LingeringTransport

MAX_CONNECTIONS: Final = 500
"""Each takes a file descriptor, and some of the process's memory."""
MAX_REFUSALS: Final = 8
"""How many more are accepted to be answered with 503; all others wait in the kernel."""
RESERVED_FILES: Final = 96
"""File descriptors not for connections: weights, the log, 32 downloads and as many DNS lookups."""
WANTED_FILES: Final = 4096
"""How many file descriptors the process asks for. The default of macOS is 256."""
MIN_IDLE_S: Final = 1.0
"""How long a connection must have been idle to be evicted. One that has just been opened is about
to be used."""
POLL_S: Final = 0.02
"""How often to check whether there is room for the connection that waits."""
ACCEPT_PAUSE_S: Final = 1.0
"""How long nothing is accepted after the system had no file descriptor or memory for it."""
WARNING_INTERVAL_S: Final = 60.0
"""How long that is not logged again."""
STARTUP_FAILURE: Final = 3
"""uvicorn's exit status if the app could not be started."""

log = logging.getLogger(__name__)


class EvictableConnection(H11Protocol):
    """A connection that can be closed to make room for another."""

    transport: LingeringTransport

    @property
    def is_lingering(self) -> bool:
        """Whether the last response was sent, and the connection only waits to be closed."""
        return self.transport.drain is not None

    @property
    def idle_since_s(self) -> float | None:
        """When the connection became idle, by the event loop's clock; None if it may not be closed.

        It may lie in the future, for a connection that will count as idle from then on.
        """
        raise NotImplementedError

    def evict(self) -> None:
        """Close the connection to make room for another."""
        self.connections.discard(self)  # uvicorn does so only when the event loop reports the end
        self.transport.close_now()


class Server(uvicorn.Server):
    """uvicorn's server, with `Listener` in place of asyncio's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._connecting: set[asyncio.Task[None]] = set()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        # In another thread the server is a guest, such as in a test: the limit is not its own.
        if threading.current_thread() is threading.main_thread():
            _raise_file_limit()
        super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        try:
            # Duplicates, since the caller may close its own sockets at any time.
            bound = (
                [sock.dup() for sock in sockets]
                if sockets
                else listen(self.config.host, self.config.port)
            )
        except OSError as error:
            log.error("%s", error)  # noqa: TRY400  the traceback adds nothing
            await self.lifespan.shutdown()
            sys.exit(1)
        self.servers = [Listener(sock, self) for sock in bound]  # type: ignore[misc]
        if sockets is None:
            self._log_started_message(bound)
        self.started = True

    async def admit(self, client: socket.socket) -> None:
        """Wait until there is room for an accepted connection, then start to serve it."""
        before = len(self.server_state.connections)
        while not self._make_room():  # noqa: ASYNC110  room may come of mere time, by MIN_IDLE_S
            await asyncio.sleep(POLL_S)
        if len(self.server_state.connections) < before:
            # asyncio closes the socket of the evicted connection in its next iteration.
            await asyncio.sleep(0)
        task = asyncio.create_task(self._connect(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, client: socket.socket) -> None:
        protocol = partial(
            cast("type[EvictableConnection]", self.config.http_protocol_class),
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        with suppress(OSError):  # the client has disconnected already
            await asyncio.get_running_loop().connect_accepted_socket(protocol, client)

    def _make_room(self) -> bool:
        """Return whether one more can be served, if only with a 503; may evict an idle one."""
        connections = cast("set[EvictableConnection]", self.server_state.connections)
        active = [each for each in connections if not each.is_lingering]
        limit = max_connections()
        if len(active) + len(self._connecting) >= limit and _evict_one(active):
            return True
        if len(connections) + len(self._connecting) < limit + MAX_REFUSALS:
            return True
        return _evict_one([each for each in connections if each.is_lingering])


class Listener:
    """Accepts connections on one socket; has what uvicorn uses of an `asyncio.Server`."""

    def __init__(self, listener: socket.socket, server: Server) -> None:
        self.sockets = [listener]
        self._server = server
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._task = asyncio.get_running_loop().create_task(self._accept(listener))

    def close(self) -> None:
        """Accept no more connections."""
        self._task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed."""
        await asyncio.wait([self._task])

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        next_warning_s = 0.0
        with listener:
            while True:
                try:
                    client, _ = await loop.sock_accept(listener)
                except ConnectionAbortedError:
                    continue  # the client has disconnected already
                except OSError as error:  # EMFILE or ENOBUFS, for example
                    if loop.time() >= next_warning_s:
                        next_warning_s = loop.time() + WARNING_INTERVAL_S
                        log.warning("no connection can be accepted at present: %s", error)
                    await asyncio.sleep(ACCEPT_PAUSE_S)
                    continue
                try:
                    await self._server.admit(client)
                except asyncio.CancelledError:
                    client.close()
                    raise


def max_connections() -> int:
    """How many connections may be active at once, by the limit of open files."""
    files = _file_limit()
    # A quarter at least: of a very low limit, the reserve alone would be all.
    return int(min(MAX_CONNECTIONS, max(files / 4, files - RESERVED_FILES - MAX_REFUSALS)))


def _evict_one(connections: list[EvictableConnection]) -> bool:
    """Evict the connection that has been idle for the longest; return whether one could be."""
    idle = [(since_s, each) for each in connections if (since_s := each.idle_since_s) is not None]
    if not idle:
        return False
    since_s, longest = min(idle, key=lambda each: each[0])
    if asyncio.get_running_loop().time() - since_s < MIN_IDLE_S:
        return False
    longest.evict()
    return True


if sys.platform == "win32":  # sockets are not file descriptors there

    def _file_limit() -> float:
        return float("inf")

    def _raise_file_limit() -> None:
        pass

else:
    import resource

    def _file_limit() -> float:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return float("inf") if files == resource.RLIM_INFINITY else files

    def _raise_file_limit() -> None:
        """Raise the limit of open files to WANTED_FILES, or as far as the hard limit permits."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            # A system may have a lower limit besides: then `max_connections` is lower, too.
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
