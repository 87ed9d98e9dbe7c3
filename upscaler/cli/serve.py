"""`upscaler serve`: serve the API over HTTP."""

import argparse
import logging
import secrets
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from upscaler.cli import workers
from upscaler.cli.options import settings_from
from upscaler.cli.output import fail
from upscaler.errors import InvalidSetting
from upscaler.settings import IN_MEMORY, Settings

if TYPE_CHECKING:
    from socket import socket

    from fastapi import FastAPI

    from upscaler.service.jobs.store import JobStore

OPENED_AS: Final = {"//0.0.0.0:": "//127.0.0.1:", "//[::]:": "//[::1]:"}
"""What a browser on this machine opens, for a service that listens on all addresses."""

log = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> int:
    """Serve the API until interrupted. Raises OSError if it cannot listen at the address."""
    from upscaler.service import logs
    from upscaler.service.server.addresses import listen, url_of

    settings = settings_from(args)
    if args.workers > 1 and settings.data == IN_MEMORY:
        raise InvalidSetting("UPSCALER_DATA: several workers need a folder that they share")
    made = None if settings.tokens else secrets.token_urlsafe(24)
    if made:
        # Anyone who finds a server without a token could use it, so there always is one.
        settings = replace(settings, tokens=(made,))
    logs.to_stderr(settings.tokens)
    app = _prepared(settings) if args.workers == 1 else None
    # Bound here, and not by uvicorn, so that a port in use is one plain line.
    listeners = listen(args.host, args.port)
    _welcome(url_of(listeners[0]), made)
    try:
        if app:
            return _serve(app, listeners)
        return workers.run(_work, settings, listeners, args.workers)
    finally:
        for listener in listeners:
            listener.close()


def _work(settings: Settings, listeners: "list[socket]") -> int:
    """Serve in one process of several."""
    from upscaler.service import logs

    logs.to_stderr(settings.tokens)
    return _serve(_prepared(settings), listeners)


def _prepared(settings: Settings) -> "FastAPI":
    """The service, ready to work."""
    from upscaler.engine.pool import engine_pools
    from upscaler.service.app import create_app
    from upscaler.service.backend import LocalBackend

    pools = engine_pools(settings)
    jobs = _job_store(settings)
    for engines in pools:
        # Before anybody can connect, so that no client waits for it. A CPU's kernels are ready by
        # now, and models in memory that nobody may ask for would be all that it gains.
        if engines.on_gpu:
            engines.warm_up()
    return create_app(LocalBackend(*pools), settings, jobs)


def _serve(app: "FastAPI", listeners: "list[socket]") -> int:
    from upscaler.service import logs
    from upscaler.service.server.addresses import url_of
    from upscaler.service.server.connection import server

    log.info("running on %s (press Ctrl-C to stop)", url_of(listeners[0]))
    running = server(app, *listeners[0].getsockname()[:2])
    try:
        running.run(sockets=listeners)
    except SystemExit as stop:  # uvicorn exits this way if it cannot start
        logs.flush()  # logs are written by a thread: print uvicorn's reason before this message
        return 0 if running.started else fail(f"the server could not be started ({stop})", 1)
    return 0


def _job_store(settings: Settings) -> "JobStore":
    """Open where asynchronous inferences are kept. Raises StoreUnavailable."""
    import platformdirs

    from upscaler.service.jobs.disk import DiskJobStore
    from upscaler.service.jobs.memory import MemoryJobStore

    if settings.data == IN_MEMORY:
        return MemoryJobStore(settings.results_memory)
    folder = settings.data or platformdirs.user_state_path("octo-upscaler")
    return DiskJobStore(folder, settings.results_disk)


def _welcome(url: str, made: str | None) -> None:
    """Say how to open the page, on a terminal, and which token was made, if one was.

    A token of the environment is not printed: whoever set it knows it.
    """
    if made:
        print(f"UPSCALER_TOKEN is not set. The token of this run is:\n  {made}", file=sys.stderr)
    if sys.stderr and sys.stderr.isatty():
        for wildcard, own in OPENED_AS.items():
            url = url.replace(wildcard, own)
        # Browsers send no fragment to a server: the page takes the token from it, and removes it.
        print(f"Open {url}/{f'#token={made}' if made else ''}", file=sys.stderr, flush=True)
