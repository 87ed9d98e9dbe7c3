"""A real nginx in front of a server."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.requirements import program

NGINX: Final = program("nginx", demand="REQUIRE_NGINX")
needs_nginx = pytest.mark.skipif(not NGINX, reason="nginx is not installed")
CONFIGURATION: Final = """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log info;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    client_max_body_size 0;
    {servers}
}}
"""
"""All that is not said here is as nginx has it, above all HTTP/1.0 and `Connection: close`."""
SERVER: Final = """
    server {{
        listen 127.0.0.1:{port};
        {locations}
    }}
"""


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def nginx(folder: Path, locations: str, port: int) -> Iterator[str]:
    """Run nginx with these locations on a port, with its files in `folder`, and yield its URL."""
    with running(folder, SERVER.format(port=port, locations=locations), port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def running(folder: Path, servers: str, *ports: int) -> Iterator[None]:
    """Run nginx with these servers, which listen on `ports`, with its files in `folder`."""
    (folder / "conf").write_text(CONFIGURATION.format(servers=servers))
    command = (NGINX, "-p", str(folder), "-c", "conf", "-e", "error.log")
    with subprocess.Popen(command) as process:
        try:
            for port in ports:
                _wait_for(port, process)
            yield
        finally:
            process.terminate()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Return once something listens on the port; fails if the process ends."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=60).close()
        except ConnectionRefusedError:
            assert process.poll() is None, "nginx does not start"
            time.sleep(0.01)
        else:
            return
