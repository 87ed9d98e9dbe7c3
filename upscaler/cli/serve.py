"""`upscaler serve`: serve the API over HTTP."""

import argparse
import secrets
import sys
from dataclasses import replace

from upscaler.cli.options import settings_from
from upscaler.cli.output import fail


def run(args: argparse.Namespace) -> int:
    """Serve the API until interrupted."""
    from upscaler.engine.pool import EnginePool
    from upscaler.service import logs
    from upscaler.service.app import create_app
    from upscaler.service.backend import LocalBackend
    from upscaler.service.server.connection import server

    settings = settings_from(args)
    engines = EnginePool(settings)
    if not settings.tokens:
        # Anyone who finds a server without a token could use it, so there always is one.
        settings = replace(settings, tokens=(secrets.token_urlsafe(24),))
        print(
            f"UPSCALER_TOKEN is not set. The token of this run is:\n  {settings.tokens[0]}",
            file=sys.stderr,
        )
    logs.to_stderr(settings.tokens)
    running = server(create_app(LocalBackend(engines), settings), args.host, args.port)
    try:
        running.run()
    except SystemExit as stop:  # uvicorn exits this way if it cannot start
        logs.flush()  # logs are written by a thread: print uvicorn's reason before this message
        return 0 if running.started else fail(f"the server could not be started ({stop})", 1)
    return 0
