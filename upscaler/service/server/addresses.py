"""The sockets that a server listens on, and their URL."""

import socket
from typing import Final

BACKLOG: Final = 2048
"""How many connections wait in the kernel, as in uvicorn; the kernel may have a lower limit."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address of `host`; port 0 picks a free port.

    Raises OSError with the address as its `filename`, such as 127.0.0.1:8000.
    """
    address = f"{host}:{port}"
    opened: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, resolved in dict.fromkeys(found):  # some systems list one twice
            opened.append(socket.create_server(resolved[:2], family=family, backlog=BACKLOG))
    except UnicodeError as error:  # a name that is too long, for example
        raise OSError(0, "no such host", address) from error
    except OSError as error:
        for each in opened:
            each.close()
        # create_server repeats the address in parentheses.
        reason = str(error.strerror).partition(" (")[0]
        raise OSError(error.errno, reason, address) from error
    return opened


def url_of(listener: socket.socket) -> str:
    """The URL of what listens on a socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
