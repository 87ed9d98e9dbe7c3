"""How connections are taken on: as many as there may be files, and not one more.

asyncio accepts whatever comes until no file is left, and then writes an error for each that waits,
again and again. Here one is accepted only where there is a place for it. Where there is none, the
connection on which nothing has happened for the longest makes way, as nginx has it too: else
connections that say nothing, which cost a client next to nothing, would keep all others out.
"""

import asyncio
import logging
import socket
import sys
import threading
from contextlib import suppress
from typing import Final, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from upscaler.service.server.lingering import LingeringTransport

MAX_CONNECTIONS: Final = 500
"""Each takes a file, and some of the process's memory."""
REFUSED: Final = 8
"""So many more are accepted to be told that there are too many; all others wait in the kernel."""
FILES_OF_OURS: Final = 96
"""Not for connections: weights, the log, 32 downloads, and as many look-ups of their hosts."""
FILES: Final = 4096
"""How many a server's process may have if its user may allow it so many. Of macOS it has 256."""
REST_S: Final = 1.0
"""For how long nothing has happened on a connection that may be dropped for another. One that has
just been opened is about to be used."""
BACKLOG: Final = 2048
"""How many wait in the kernel, as uvicorn has it; the kernel may have its own limit."""
LOOK_S: Final = 0.02
"""How often it is looked whether one of those that wait can be taken on."""
PAUSE_S: Final = 1.0
"""How long nothing is accepted once the system has no file or memory for it."""
QUIET_S: Final = 60.0
"""How long nothing is said about that again."""
STARTUP_FAILURE: Final = 3
"""uvicorn's status of a process whose app could not be started."""

log = logging.getLogger(__name__)


class EvictableConnection(H11Protocol):
    """A connection that can be dropped."""

    transport: LingeringTransport

    @property
    def lingering(self) -> bool:
        """Whether its last answer was given, and it is only to be closed well."""
        return self.transport.patience is not None

    @property
    def rests_since_s(self) -> float | None:
        """Since when, by the loop's clock, nothing has been at work here; None while it is."""
        raise NotImplementedError

    def drop(self) -> None:
        """Close it for another."""
        self.connections.discard(self)
        self.transport.drop()


class Server(uvicorn.Server):
    """uvicorn's server, with listeners of our own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._coming: set[asyncio.Task[object]] = set()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        if threading.current_thread() is threading.main_thread():  # else the process is another's
            _allow_more_files()
        super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        try:
            # Those that were given are closed by who made them, at any time.
            bound = [sock.dup() for sock in sockets] if sockets else await self._bound()
        except OSError as error:
            log.error("%s", error)  # noqa: TRY400  its frames tell nobody anything
            await self.lifespan.shutdown()
            sys.exit(1)
        self.servers = [Listener(sock, self) for sock in bound]  # type: ignore[misc]
        if sockets is None:
            self._log_started_message(bound)
        self.started = True

    async def _bound(self) -> list[socket.socket]:
        """A socket on each address of the host that is to be listened on."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            self.config.host,
            self.config.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
        return [
            socket.create_server(address[:2], family=family, backlog=BACKLOG)
            for family, _, _, _, address in dict.fromkeys(found)
        ]

    async def admit(self, client: socket.socket) -> None:
        """Take a connection on, once there is a place for it."""
        there = len(self.server_state.connections)
        while not self._is_room():  # noqa: ASYNC110  it may come of time that passes
            await asyncio.sleep(LOOK_S)
        if len(self.server_state.connections) < there:
            await asyncio.sleep(0)  # who made way gives its file back only then
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._connected(client))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    async def _connected(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):  # it has gone again
            await loop.connect_accepted_socket(self._connection, client)

    def _connection(self) -> asyncio.Protocol:
        return cast("type[EvictableConnection]", self.config.http_protocol_class)(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _is_room(self) -> bool:
        """Whether one more can be taken on, if only to be refused; who rests makes way for it."""
        guests = cast("set[EvictableConnection]", self.server_state.connections)
        active = [guest for guest in guests if not guest.lingering]
        most = most_connections()
        if len(active) + len(self._coming) >= most and _dropped_one(active):
            return True
        if len(guests) + len(self._coming) < most + REFUSED:
            return True
        return _dropped_one([guest for guest in guests if guest.lingering])


class Listener:
    """What accepts connections on one socket, in place of asyncio's server of that name."""

    def __init__(self, listener: socket.socket, server: Server) -> None:
        self.sockets = [listener]
        self._server = server
        self._quiet_until_s = 0.0
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._task = asyncio.get_running_loop().create_task(self._accept(listener))

    def close(self) -> None:
        """Take on nobody else."""
        self._task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed."""
        await asyncio.wait([self._task])

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    client, _ = await loop.sock_accept(listener)
                except ConnectionAbortedError:
                    continue  # it has gone again
                except OSError as error:
                    self._say(error)
                    await asyncio.sleep(PAUSE_S)
                    continue
                try:
                    await self._server.admit(client)
                except asyncio.CancelledError:
                    client.close()
                    raise

    def _say(self, error: OSError) -> None:
        """Log now and then that the system has no place for another connection (EMFILE, say)."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._quiet_until_s:
            self._quiet_until_s = now_s + QUIET_S
            log.warning("no connection can be accepted at present: %s", error)


def most_connections() -> int:
    """How many connections may be at work or wait for a request, by the files that there may be."""
    files = _most_files()
    return int(min(MAX_CONNECTIONS, max(files / 4, files - FILES_OF_OURS - REFUSED)))


def _dropped_one(guests: list[EvictableConnection]) -> bool:
    """Whether one of these rests, and was dropped: the one that has rested for the longest."""
    resting = [(since_s, guest) for guest in guests if (since_s := guest.rests_since_s) is not None]
    if not resting:
        return False
    since_s, guest = min(resting, key=lambda each: each[0])
    if asyncio.get_running_loop().time() - since_s < REST_S:
        return False
    guest.drop()
    return True


if sys.platform == "win32":  # where sockets are no files

    def _most_files() -> float:
        return float("inf")

    def _allow_more_files() -> None:
        pass

else:
    import resource

    def _most_files() -> float:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return float("inf") if files == resource.RLIM_INFINITY else files

    def _allow_more_files() -> None:
        """Let this process have as many files as its user may allow it, up to FILES."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            # Where the system has a limit besides, there are so many fewer connections.
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
