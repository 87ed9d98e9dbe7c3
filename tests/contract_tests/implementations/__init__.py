"""Implementations of others, as they may be: right by the documents, and unlike this project's own.

    with serving("FastAPI") as url, behind_nginx(url, folder) as (public_url, environment):
        run_cli(public_url, TOKEN, **environment)

Each can also have a mistake of MISTAKES, which the contract tests must find wherever it is served.
"""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trustme
import uvicorn

from tests.contract_tests.implementations import fastapi_default, like_go
from tests.support.nginx import free_port, running
from tests.support.paths import ROOT
from tests.support.requirements import program

HERE: Final = Path(__file__).parent
NODE: Final = program("node", demand="REQUIRE_CORPORA")
TOKEN: Final = "Some-Token-of-Theirs"
IN_NODE: Final = {
    "token-prefix": ("REQ-2", "Takes a token that lacks its last characters."),
    "two-sizes": ("REQ-5", "Takes the scale and ignores a height or width beside it."),
    "input-of-4096": ("REQ-13", "Takes inputs of up to 4096 pixels."),
    "schema-400": ("RES-4", "Says 400 to what the schema says 422 to."),
    "data-url": ("RES-2", "Returns a data URL in place of base64."),
    "type-html": ("RES-1", "Says text/html of its JSON."),
    "poll-relative": ("ASY-1", "Returns a relative poll_url."),
}
MISTAKES: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "FastAPI": fastapi_default.MISTAKES,
    "Node": IN_NODE,
    "Go-like": like_go.MISTAKES,
}
"""By implementation and name, the rule that a mistake breaks, and what it is."""
PREFIX: Final = "/api/v2"
SERVERS: Final = """
    server {{
        listen 127.0.0.1:{inner};
        client_max_body_size 10m;
        gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;
        location / {{
            proxy_pass {url};
            proxy_set_header Host $http_host;
        }}
    }}
    server {{
        listen 127.0.0.1:{outer} ssl http2;
        ssl_certificate server.pem; ssl_certificate_key server.pem;
        client_max_body_size 0;
        location {prefix}/ {{
            proxy_pass http://127.0.0.1:{inner}/;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Accept-Encoding gzip;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Forwarded-Prefix {prefix};
        }}
    }}
"""
"""Two servers: the inner one buffers, compresses and has a limit of its own on bodies. The outer
one asks it for gzip, speaks TLS and HTTP/2, and has the API under a prefix."""


@contextmanager
def serving(name: str, mistake: str = "") -> Iterator[str]:
    """Serve one of MISTAKES' implementations with TOKEN, right or with a mistake of its own."""
    serve = {"FastAPI": _fastapi, "Node": _node, "Go-like": _like_go}[name]
    with serve(mistake) as url:
        yield url


@contextmanager
def _fastapi(mistake: str) -> Iterator[str]:
    app = fastapi_default.create_app(TOKEN, mistake)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def _node(mistake: str) -> Iterator[str]:
    port = free_port()
    arguments = (str(port), TOKEN, mistake, sys.executable)
    command = (NODE, str(HERE / "plain_node.mjs"), *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "listening\n"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@contextmanager
def _like_go(mistake: str) -> Iterator[str]:
    with like_go.Server(TOKEN, mistake) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.pool.shutdown()


@contextmanager
def behind_nginx(url: str, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Put nginx in front of `url`: the URL that clients use, and their environment variables."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    identity = authority.issue_cert("127.0.0.1")
    identity.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    inner, outer = free_port(), free_port()
    servers = SERVERS.format(inner=inner, outer=outer, url=url, prefix=PREFIX)
    with running(folder, servers, inner, outer):
        environment = {"SSL_CERT_FILE": str(folder / "ca.pem")}
        yield f"https://127.0.0.1:{outer}{PREFIX}", environment
