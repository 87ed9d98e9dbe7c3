"""Log lines as JSON objects, one a line, each with the id of the request that it is about."""

import logging
import os
import select
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Any, Final, TextIO

from pythonjsonlogger.json import JsonFormatter

request_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""The id of the request that is being answered, in all tasks and threads that work for it."""


SHORTEST_SECRET: Final = 6
"""Shorter ones are parts of common words, and are nobody's secret for long."""
MAX_WAITING_BYTES: Final = 2**20
"""How much may wait to be written: some 3,000 lines of requests, which a reader that is there takes
in a moment. A single line may be longer, if no other waits."""
FLUSH_S: Final = 2.0
"""How long the end of a process waits for the reader of its last lines."""


def to_stderr(secrets: Collection[str] = ()) -> None:
    """Send every log line of the process, from INFO up, and its warnings to stderr as JSON.

    Whatever of `secrets` is in a line, because a client has put its token into a path or an id,
    say, is written as asterisks; but for those of fewer than six characters.
    """
    handler = Queued(sys.stderr)
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


def flush() -> None:
    """Have the lines so far written, if their reader takes them, and end the thread that does it.

    Python itself does so at the process's end. The next line starts another thread.
    """
    for handler in _handlers():
        handler.flush()


def dropped() -> int:
    """How many lines were not written, since nobody read them in time or they could not be."""
    return sum(handler.dropped for handler in _handlers())


@dataclass(frozen=True)
class Line:
    """What is written at one go; `tells` is how many dropped lines it tells of, if it does."""

    data: bytes
    tells: int = 0


class Queued(logging.Handler):
    """Lets a thread of its own write to `stream`: who logs does not wait until somebody reads it.

    What waits for that is bounded, and is text, which keeps nothing of a request alive. Beyond the
    bound lines are dropped until half of it is free; then one line tells how many, in their place.

    `logging`'s own QueueListener has no bound in bytes, no end within a time, and no second thread
    where the first is gone. The handler's own lock is the only one here: one logs as well from a
    `__del__` that the collector may run anywhere, and two locks could be taken in either order.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self.dropped = 0
        self._write = _writing(stream)
        self._changed = Condition(self.lock)
        self._lines = SimpleQueue[Line | None]()
        self._waiting_bytes = 0
        self._untold = 0
        self._thread: Thread | None = None
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record into the queue; `handle`, which calls this, has the lock."""
        try:
            data = f"{self.format(record)}\n".encode()
        except Exception:  # as all handlers of `logging` do
            self.handleError(record)
            return
        self._look_for_fork()
        full = self._waiting_bytes + len(data) > MAX_WAITING_BYTES
        if self._waiting_bytes and (full or self._untold):
            self.dropped += 1
            self._untold += 1
        else:
            self._put(Line(data))
        self._start()

    def flush(self) -> None:
        """Wait, but not for long, until all is written; so `logging` calls it at the end."""
        with self._changed:  # which whoever calls may have already
            self._look_for_fork()
            if self._waiting_bytes:
                self._start()
            self._lines.put(None)
            if self._thread is not None:
                self._changed.wait_for(lambda: self._thread is None, FLUSH_S)
            else:  # nothing waits, or no thread can be had, as at the end of newer Pythons
                self._run()

    def _look_for_fork(self) -> None:
        """Leave the lines of the process that this one was forked from to it: it has the thread."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lines = SimpleQueue()
            self._waiting_bytes = self._untold = 0
            self._thread = None

    def _put(self, line: Line) -> None:
        self._waiting_bytes += len(line.data)
        self._lines.put(line)

    def _start(self) -> None:
        if self._thread is not None:
            return
        self._thread = Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # there are too many: the next line tries again, and `flush` without
            self._thread = None

    def _run(self) -> None:
        """Write lines until `flush` ends it."""
        try:
            for line in self._until_flushed():
                self._write_out(line)
        except BaseException:
            self._thread = None
            raise

    def _until_flushed(self) -> Iterator[Line]:
        while True:
            line = self._lines.get()
            if line is not None:
                yield line
                continue
            with self._changed:
                if not self._waiting_bytes:
                    self._thread = None
                    self._changed.notify_all()
                    return
                self._lines.put(None)  # more lines came behind it

    def _write_out(self, line: Line) -> None:
        written = False
        try:
            # The reader has gone, a disk is full, a stream was closed: then it is counted.
            with suppress(OSError, ValueError):
                self._write(line.data)
                written = True
        finally:
            self._take_out(line, written=written)

    def _take_out(self, line: Line, *, written: bool) -> None:
        with self._changed:
            self._waiting_bytes -= len(line.data)
            if not written:
                self.dropped += 0 if line.tells else 1
                self._untold += line.tells or 1
            elif self._untold and self._waiting_bytes <= MAX_WAITING_BYTES // 2:
                self._put(self._told())

    def _told(self) -> Line:
        record = logging.makeLogRecord(
            {
                "name": __name__,
                "levelno": logging.WARNING,
                "levelname": "WARNING",
                "msg": "log lines were dropped: they were not read in time, or not written",
                "request_id": None,
                "dropped": self._untold,
            }
        )
        line = Line(f"{self.format(record)}\n".encode(), self._untold)
        self._untold = 0
        return line


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


def _handlers() -> list[Queued]:
    return [found for found in logging.getLogger().handlers if isinstance(found, Queued)]


def _writing(stream: TextIO | None) -> Callable[[bytes], None]:
    """What writes a whole line to `stream`.

    It goes past the buffer of the stream, if that is a file: who waits in the buffer has its lock,
    and Python's own flush at the end, which needs that, would end the process with an abort.
    """
    if stream is None:  # as Python has it for a descriptor that was closed from the start
        return _to_nowhere
    try:
        descriptor = stream.fileno()
    except OSError:
        return lambda line: _to_memory(stream, line)
    return lambda line: _to_file(descriptor, line)


def _to_nowhere(_: bytes) -> None:
    raise OSError("there is no standard error")


def _to_memory(stream: TextIO, line: bytes) -> None:
    stream.write(line.decode())
    stream.flush()


def _to_file(descriptor: int, line: bytes) -> None:
    while line:
        try:
            line = line[os.write(descriptor, line) :]
        except BlockingIOError:  # another process has set this for all that have the pipe
            select.select([], [descriptor], [])


def _tidy(record: logging.LogRecord) -> bool:
    record.__dict__.pop("color_message", None)  # uvicorn says the same again for terminals
    record.request_id = request_id.get()
    return True
