"""Log lines as JSON objects, one a line, each with the id of the request that it is about."""

import logging
import sys
from collections.abc import Collection
from contextvars import ContextVar
from typing import Any, Final

from pythonjsonlogger.json import JsonFormatter

request_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""The id of the request that is being answered, in all tasks and threads that work for it."""


SHORTEST_SECRET: Final = 6
"""Shorter ones are parts of common words, and are nobody's secret for long."""


def to_stderr(secrets: Collection[str] = ()) -> None:
    """Send every log line of the process, from INFO up, and its warnings to stderr as JSON.

    Whatever of `secrets` is in a line, because a client has put its token into a path or an id,
    say, is written as asterisks; but for those of fewer than six characters.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_tidy)
    handler.setFormatter(
        Formatter(
            ("timestamp", "levelname", "name", "message", "request_id"),
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp=True,
            secrets=secrets,
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(capture=True)  # Pillow has some for odd files


class Formatter(JsonFormatter):
    """Writes records as JSON, without `secrets`."""

    def __init__(self, *args: Any, secrets: Collection[str], **kwargs: Any) -> None:  # noqa: ANN401  handed on
        super().__init__(*args, **kwargs)
        longest_first = sorted(secrets, key=len, reverse=True)
        self._secrets = [secret for secret in longest_first if len(secret) >= SHORTEST_SECRET]

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Go through the values of a line before it is written; so the base class calls it."""
        return {name: self._discreet(value) for name, value in log_data.items()}

    def _discreet(self, value: Any) -> Any:  # noqa: ANN401  whatever was logged
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, "***")
        return value


def _tidy(record: logging.LogRecord) -> bool:
    record.__dict__.pop("color_message", None)  # uvicorn says the same again for terminals
    record.request_id = request_id.get()
    return True
