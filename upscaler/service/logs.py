"""The log: one JSON object per line, each with the id of the request that it belongs to."""

import logging
import os
import select
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Any, Final, TextIO

from pythonjsonlogger.json import JsonFormatter

request_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""The id of the current request, in every task and thread that works for it."""

SHORTEST_SECRET: Final = 6
"""Shorter tokens are not masked: they also occur within common words, and are easy to guess."""
MAX_QUEUED_BYTES: Final = 2**20
"""How many bytes of lines may be queued, some 3,000 requests. A single line may be longer if the
queue is empty."""
FLUSH_S: Final = 2.0
"""How long a process that ends waits until its last lines are written."""


def to_stderr(secrets: Collection[str] = ()) -> None:
    """Write all log records from INFO up, and Python's warnings, to stderr as JSON.

    `secrets` are masked with asterisks wherever they occur, for example because a client put its
    token into a path or an id. Those of fewer than six characters are not. Called again, it
    replaces the secrets.
    """
    for earlier in _handlers():
        earlier.flush()
        logging.getLogger().removeHandler(earlier)
    handler = BackgroundHandler(sys.stderr)
    handler.addFilter(_add_request_id)
    handler.setFormatter(
        Formatter(
            ("timestamp", "levelname", "name", "message", "request_id"),
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp=True,
            secrets=secrets,
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(capture=True)  # Pillow warns of unusual files


def flush() -> None:
    """Write the queued lines, for at most `FLUSH_S`, and end the thread that writes them.

    Python calls this at exit as well. The next line starts a new thread.
    """
    for handler in _handlers():
        handler.flush()


def dropped() -> int:
    """How many lines were dropped, because the queue was full or writing failed."""
    return sum(handler.dropped for handler in _handlers())


@dataclass(frozen=True)
class Line:
    """A line of the queue; `reported_drops` is how many dropped lines it reports, if any."""

    data: bytes
    reported_drops: int = 0


class BackgroundHandler(logging.Handler):
    """Writes to `stream` in a thread, so that logging never waits for the reader of the stream.

    The queue is bounded, and holds text, which keeps no object of a request alive. Once it is full,
    lines are dropped until it is half empty; then one line reports in their place how many.

    `logging.handlers.QueueListener` has no bound in bytes, waits at the end without a timeout, and
    starts no second thread if the first is gone, as after a fork. The handler's own lock is the
    only one here. The garbage collector may run a `__del__` that logs at any point, also while a
    lock is held: with two locks, two threads could take them in opposite orders and deadlock.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self.dropped = 0
        self._write = _line_writer(stream)
        self._changed = Condition(self.lock)
        # SimpleQueue.put is reentrant (queue.Queue.put is not), as logging from `__del__` needs.
        self._lines = SimpleQueue[Line | None]()
        self._queued_bytes = 0
        self._unreported = 0
        self._thread: Thread | None = None
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record. `handle`, which calls this, holds the lock."""
        try:
            # Formatted here, not in the thread: a queued record would keep its arguments alive.
            data = f"{self.format(record)}\n".encode()
        except Exception:  # as the handlers of `logging` do
            self.handleError(record)
            return
        self._check_fork()
        is_full = self._queued_bytes + len(data) > MAX_QUEUED_BYTES
        if self._queued_bytes and (is_full or self._unreported):
            self.dropped += 1
            self._unreported += 1
        else:
            self._put(Line(data))
        self._start_thread()

    def flush(self) -> None:
        """Wait at most `FLUSH_S` until all lines are written; `logging` calls it at exit."""
        with self._changed:  # reentrant: `logging` may hold the lock already
            self._check_fork()
            if self._queued_bytes:
                self._start_thread()
            self._lines.put(None)
            if self._thread is not None:
                self._changed.wait_for(lambda: self._thread is None, FLUSH_S)
            else:  # nothing is queued, or no thread can start, as at exit from Python 3.12 on
                self._run()

    def _check_fork(self) -> None:
        """In a forked process, leave the queued lines to the parent, which has the thread."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lines = SimpleQueue()
            self._queued_bytes = self._unreported = 0
            self._thread = None

    def _put(self, line: Line) -> None:
        self._queued_bytes += len(line.data)
        self._lines.put(line)

    def _start_thread(self) -> None:
        if self._thread is not None:
            return
        self._thread = Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # too many threads: the next line tries again, and `flush` needs none
            self._thread = None

    def _run(self) -> None:
        """Write lines until `flush` asks for the end by None, and nothing else is queued."""
        try:
            while True:
                line = self._lines.get()
                if line is not None:
                    self._write_line(line)
                    continue
                with self._changed:
                    if not self._queued_bytes:
                        self._thread = None
                        self._changed.notify_all()
                        return
                    self._lines.put(None)  # lines were queued behind it: write those first
        except BaseException:
            self._thread = None
            raise

    def _write_line(self, line: Line) -> None:
        is_written = False
        try:
            # The reader is gone, the disk is full, or the stream is closed: the line is counted.
            with suppress(OSError, ValueError):
                self._write(line.data)
                is_written = True
        finally:
            with self._changed:
                self._queued_bytes -= len(line.data)
                if not is_written:
                    # A lost report counts no line twice: the lines in it are reported once more.
                    self.dropped += 0 if line.reported_drops else 1
                    self._unreported += line.reported_drops or 1
                elif self._unreported and self._queued_bytes <= MAX_QUEUED_BYTES // 2:
                    self._put(self._drop_report())

    def _drop_report(self) -> Line:
        # Not by a logger: that would call `emit`, which may drop it, too.
        record = logging.makeLogRecord(
            {
                "name": __name__,
                "levelno": logging.WARNING,
                "levelname": "WARNING",
                "msg": "log lines were dropped: they were not read in time, or not written",
                "request_id": None,
                "dropped": self._unreported,
            }
        )
        line = Line(f"{self.format(record)}\n".encode(), self._unreported)
        self._unreported = 0
        return line


class Formatter(JsonFormatter):
    """Formats records as JSON and masks `secrets` in their values."""

    def __init__(self, *args: Any, secrets: Collection[str], **kwargs: Any) -> None:  # noqa: ANN401  handed on
        super().__init__(*args, **kwargs)
        # Longest first: a secret may contain another, and masking that first would reveal the rest.
        longest_first = sorted(secrets, key=len, reverse=True)
        self._secrets = [secret for secret in longest_first if len(secret) >= SHORTEST_SECRET]

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Mask the secrets in a record's values; the base class calls it before it serialises."""
        masked = dict(log_data)
        for secret in self._secrets:
            for name, value in masked.items():
                if isinstance(value, str):
                    masked[name] = value.replace(secret, "***")
        return masked


def _handlers() -> list[BackgroundHandler]:
    return [each for each in logging.getLogger().handlers if isinstance(each, BackgroundHandler)]


def _line_writer(stream: TextIO | None) -> Callable[[bytes], None]:
    """Return a function that writes a whole line to `stream`.

    If the stream is a file, its buffer is bypassed. A thread that waits within the buffer holds the
    buffer's lock, which Python's own flush at exit needs: the process would end with an abort.
    """
    if stream is None:  # as `sys.stderr` is if its descriptor was closed at the start
        return _write_nowhere
    try:
        return partial(_write_to_descriptor, stream.fileno())
    except OSError:  # no file, as in tests
        return partial(_write_to_text, stream)


def _write_nowhere(_: bytes) -> None:
    raise OSError("there is no standard error")


def _write_to_text(stream: TextIO, line: bytes) -> None:
    stream.write(line.decode())
    stream.flush()


def _write_to_descriptor(descriptor: int, line: bytes) -> None:
    while line:
        try:
            line = line[os.write(descriptor, line) :]
        except BlockingIOError:  # another process that shares the pipe has made it non-blocking
            select.select([], [descriptor], [])


def _add_request_id(record: logging.LogRecord) -> bool:
    record.__dict__.pop("color_message", None)  # uvicorn's message once more, for terminals
    record.request_id = request_id.get()
    return True
