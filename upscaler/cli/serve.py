"""`upscaler serve`: serve the API over HTTP."""

import argparse
import logging
import secrets
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from upscaler.cli.options import settings_from
from upscaler.cli.output import fail
from upscaler.settings import IN_MEMORY, Settings

if TYPE_CHECKING:
    from upscaler.service.jobs.store import JobStore

OPENED_AS: Final = {"//0.0.0.0:": "//127.0.0.1:", "//[::]:": "//[::1]:"}
"""What a browser on this machine opens, for a service that listens on all addresses."""

log = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> int:
    """Serve the API until interrupted. Raises OSError if it cannot listen at the address."""
    from upscaler.engine.pool import engine_pools
    from upscaler.service import logs
    from upscaler.service.app import create_app
    from upscaler.service.backend import LocalBackend
    from upscaler.service.server.addresses import listen, url_of
    from upscaler.service.server.connection import server

    settings = settings_from(args)
    pools = engine_pools(settings)
    made = None if settings.tokens else secrets.token_urlsafe(24)
    if made:
        # Anyone who finds a server without a token could use it, so there always is one.
        settings = replace(settings, tokens=(made,))
    logs.to_stderr(settings.tokens)
    jobs = _job_store(settings)
    for engines in pools:
        # Before anybody can connect, so that no client waits for it. A CPU's kernels are ready by
        # now, and models in memory that nobody may ask for would be all that it gains.
        if engines.on_gpu:
            engines.warm_up()
    # Bound here, and not by uvicorn, so that a port in use is one plain line.
    listeners = listen(args.host, args.port)
    url = url_of(listeners[0])
    _welcome(url, made)
    log.info("running on %s (press Ctrl-C to stop)", url)
    app = create_app(LocalBackend(*pools), settings, jobs)
    running = server(app, args.host, args.port)
    try:
        running.run(sockets=listeners)
    except SystemExit as stop:  # uvicorn exits this way if it cannot start
        logs.flush()  # logs are written by a thread: print uvicorn's reason before this message
        return 0 if running.started else fail(f"the server could not be started ({stop})", 1)
    finally:
        for listener in listeners:
            listener.close()
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
