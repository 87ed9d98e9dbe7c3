"""The log's reader: whether it is there, slow or gone, nobody waits for it, and it is told all."""

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from tests.support.mock_servers import MOCK
from tests.support.paths import ROOT
from upscaler.service import logs

TOKEN = "token-of-the-log"
REQUESTS = 1000
PATH = "/" + "\N{PILE OF POO}" * 199
"""Each character of it takes twelve in a line: 1,000 lines have 2.5 MB together."""


@contextmanager
def mock_with(stderr: int) -> Iterator[tuple["subprocess.Popen[str]", httpx.Client]]:
    """`upscaler-mock`, which writes its log there, and a client of it."""
    with subprocess.Popen(
        [MOCK, "--token", TOKEN], stdout=subprocess.PIPE, stderr=stderr, text=True
    ) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            headers = {"Authorization": f"Bearer {TOKEN}"}
            with httpx.Client(base_url=url, headers=headers, timeout=20) as api:
                yield process, api
        finally:
            process.kill()


def lines_of(data: bytes) -> list[dict[str, Any]]:
    """The lines; each must be a JSON object."""
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


@pytest.mark.slow
def test_a_stalled_log_reader_delays_no_request_and_sees_what_was_dropped() -> None:
    unread, stderr = os.pipe()
    with mock_with(stderr) as (process, api):
        os.close(stderr)
        for number in range(REQUESTS):
            answer = api.get(PATH, headers={"X-User-Request-ID": f"n-{number}"})
            assert answer.status_code == 404
        (counted,) = (
            float(line.split()[1])
            for line in api.get("/metrics").text.splitlines()
            if line.startswith("upscaler_log_lines_dropped_total ")
        )
        assert counted > 100
        found: list[bytes] = []
        reader = Thread(target=lambda: found.append(read_all(unread)))
        reader.start()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        reader.join(30)
    lines = lines_of(found[0])
    kept = [line["request_id"] for line in lines if str(line["request_id"]).startswith("n-")]
    assert kept == [f"n-{number}" for number in range(len(kept))], "what was dropped came last"
    tellings = [line["dropped"] for line in lines if "dropped" in line]
    assert len(kept) + counted == REQUESTS
    (told,) = tellings
    # If there is no room for them yet, also the line of /metrics, and uvicorn's about its end.
    assert counted <= told <= counted + 6


@pytest.mark.slow
def test_a_service_whose_log_nobody_reads_ends_when_it_is_told_to() -> None:
    unread, stderr = os.pipe()
    with mock_with(stderr) as (process, api):
        os.close(stderr)
        for _ in range(100):
            api.get(PATH)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    os.close(unread)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_reader_that_reads_misses_no_line(tmp_path: Path, stop: signal.Signals) -> None:
    said = tmp_path / "said"
    with said.open("wb") as file, mock_with(file.fileno()) as (process, api):
        for number in range(300):
            api.get("/livez", headers={"X-User-Request-ID": f"n-{number}"})
        process.send_signal(stop)
        assert process.wait(timeout=30) == 0
    lines = lines_of(said.read_bytes())
    ids = [line["request_id"] for line in lines if line["request_id"]]
    assert ids == [f"n-{number}" for number in range(300)]
    assert lines[-1]["message"].startswith("Finished server process")


ENDS = {
    "the end": "",
    "an exit": "sys.exit(3)",
    "an exception": "1 / 0",
    "a fork": "os.fork() or sys.exit(0); os.wait()",
    "a thread": "threading.Thread(target=lambda: (time.sleep(0.1), x.info('50'))).start(); n = 51",
}


@pytest.mark.parametrize("end", ENDS)
def test_all_lines_are_there_once_and_in_order_after(end: str) -> None:
    code = f"""
import atexit, logging, os, sys, threading, time
from upscaler.service import logs
logs.to_stderr()
x = logging.getLogger("x")
for number in range(50):
    x.info("%s", number)
{ENDS[end]}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, timeout=60, cwd=ROOT
    )
    # Python writes a traceback in pieces, and the thread may write a line between two of them.
    lines = re.findall(rb'\{"timestamp".*\}', done.stderr)
    wanted = 51 if end == "a thread" else 50
    assert [json.loads(line)["message"] for line in lines] == [str(n) for n in range(wanted)]
    assert (b"ZeroDivisionError" in done.stderr) == (end == "an exception")


class Stalled(io.StringIO):
    """A stream that takes nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.may = Event(), Event()
        self.fails = False

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.may.wait(30)
        if self.fails:
            raise OSError(28, "No space left on device")
        return super().write(text)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stalled]:
    """Where the log goes, starring `TOKEN`."""
    stream, root = Stalled(), logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        logs.to_stderr([TOKEN])
        yield stream
    finally:
        stream.may.set()
        logs.flush()
        logging.captureWarnings(capture=False)
        root.handlers[:] = before
        root.setLevel(level)


class Picture:
    """Something large that a request has."""


def failing(found: Callable[[Picture], None]) -> None:
    """Log a fault from a frame that has a picture."""
    picture = Picture()
    found(picture)
    try:
        json.loads("{}")[f"in {TOKEN}"]
    except KeyError:
        logging.getLogger("x").exception("%s failed", picture, extra={"given": picture})


def test_a_line_that_waits_keeps_nothing_of_its_request(
    stream: Stalled, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [
        found for found in logging.getLogger().handlers if isinstance(found, logs.BackgroundHandler)
    ]
    monkeypatch.setattr(logging.getLogger(), "handlers", ours)  # pytest's keep all
    logging.getLogger("x").info("first")
    assert stream.reached.wait(30)
    pictures: list[weakref.ref[Picture]] = []
    failing(lambda picture: pictures.append(weakref.ref(picture)))
    assert pictures[0]() is None
    stream.may.set()
    logs.flush()
    said = stream.getvalue()
    assert "KeyError: 'in ***'" in said
    assert TOKEN not in said


def test_what_waits_has_a_bound_and_what_is_beyond_it_is_told(stream: Stalled) -> None:
    x, line = logging.getLogger("x"), "a" * 10_000
    for number in range(300):
        x.info("%s", line, extra={"number": number})
    missed = logs.dropped()
    assert 300 - logs.MAX_QUEUED_BYTES / 10_000 <= missed < 300 - 0.9 * logs.MAX_QUEUED_BYTES / 1e4
    stream.may.set()
    logs.flush()
    x.info("after")
    logs.flush()
    lines = lines_of(stream.getvalue().encode())
    assert [found.get("number") for found in lines] == [*range(300 - missed), None, None]
    assert lines[-2]["dropped"] == missed
    assert lines[-1]["message"] == "after"


def test_lines_that_cannot_be_written_are_counted_and_told_once_they_can(stream: Stalled) -> None:
    x = logging.getLogger("x")
    stream.may.set()
    stream.fails = True
    x.info("lost")
    logs.flush()
    assert logs.dropped() == 1
    stream.fails = False
    x.info("written")
    logs.flush()
    assert [line.get("dropped") for line in lines_of(stream.getvalue().encode())] == [None, 1]


def test_an_end_waits_only_so_long_for_a_reader(stream: Stalled) -> None:
    logging.getLogger("x").info("nobody reads this")
    began_s = time.monotonic()
    logs.flush()
    assert logs.FLUSH_S <= time.monotonic() - began_s < 20


def test_a_line_is_written_without_a_thread_where_none_can_be_had(
    stream: Stalled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    stream.may.set()
    monkeypatch.setattr(Thread, "start", none_left)
    logging.getLogger("x").info("one")
    logging.getLogger("x").info("two")
    logs.flush()
    assert [line["message"] for line in lines_of(stream.getvalue().encode())] == ["one", "two"]
