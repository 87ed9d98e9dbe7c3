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
    server {{
        listen 127.0.0.1:{port};
        {locations}
    }}
}}
"""
"""All that is not said here is as nginx has it, above all HTTP/1.0 and `Connection: close`."""


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def nginx(folder: Path, locations: str, port: int) -> Iterator[str]:
    """Run nginx with these locations on a port, with its files in `folder`, and yield its URL."""
    (folder / "conf").write_text(CONFIGURATION.format(port=port, locations=locations))
    proxy = subprocess.Popen([NGINX, "-p", str(folder), "-c", "conf", "-e", "error.log"])
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        proxy.terminate()
        proxy.wait(timeout=60)


def _wait_for(port: int) -> None:
    """Until somebody listens there."""
    deadline_s = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        else:
            return
