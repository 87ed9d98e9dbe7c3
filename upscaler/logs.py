"""Log lines as JSON objects, one a line, each with the id of the request that it is about."""

import logging
import sys
from contextvars import ContextVar
from typing import Final

from pythonjsonlogger.json import JsonFormatter

request_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""The id of the request that is being answered, in all tasks and threads that work for it."""


def to_stderr() -> None:
    """Send every log line of the process, from INFO up, and its warnings to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_tidy)
    handler.setFormatter(
        JsonFormatter(
            ("timestamp", "levelname", "name", "message", "request_id"),
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp=True,
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(capture=True)  # Pillow has some for odd files


def _tidy(record: logging.LogRecord) -> bool:
    record.__dict__.pop("color_message", None)  # uvicorn says the same again for terminals
    record.request_id = request_id.get()
    return True
