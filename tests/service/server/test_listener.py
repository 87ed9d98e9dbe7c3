"""Connections take files: what a service does where a process may have few of them."""

import errno
import logging
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.paths import ROOT
from tests.support.processes import needs_proc
from tests.support.raw_http import CLOSE, HEAD, answers, connected, exchange, request, rest, send
from tests.support.service import GOOD, Resizer, Slow, serving
from upscaler.service.server import connection as server
from upscaler.service.server import listener as listening

MOCK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from mock_server.serving.fast_start import main
sys.exit(main())
"""
LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sockets are no files there")


@contextmanager
def mock_of_few_files(folder: Path, soft: int, hard: int) -> Iterator[tuple[httpx.Client, Path]]:
    """A mock as a process of its own, under these limits, and what it writes to."""
    said = folder / "said"
    with (
        said.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-c", MOCK.format(soft=soft, hard=hard)],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            cwd=ROOT,
        ) as process,
    ):
        assert process.stdout
        url = process.stdout.readline().strip()
        assert url, said.read_text()
        try:
            with httpx.Client(base_url=url) as api:
                yield api, said
        finally:
            process.terminate()
    assert process.returncode == 0, said.read_text()


def status_of_life(api: httpx.Client) -> int:
    """By a connection of its own."""
    (answer,) = answers(exchange(api, LIVE, patience_s=60))
    return answer.status


@pytest.mark.slow
@pytest.mark.parametrize("said_first", [b"", b"GET /livez HTTP/1.1\r\nHo"], ids=["silent", "head"])
def test_idle_connections_beyond_the_files_keep_nobody_out(
    said_first: bytes, tmp_path: Path
) -> None:
    with mock_of_few_files(tmp_path, 256, 256) as (api, said):
        with ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(connected(api)).sendall(said_first)
            assert status_of_life(api) == 200
            time.sleep(2)
            assert [status_of_life(api) for _ in range(20)] == [200] * 20
        assert [status_of_life(api) for _ in range(200)] == [200] * 200
        lines = [line for line in said.read_text().splitlines() if "GET /livez" not in line]
    assert len(lines) < 20, lines
    assert not [line for line in lines if "Errno" in line]


@needs_proc
def test_a_low_limit_is_raised_where_it_may_be(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= 1024
    with mock_of_few_files(tmp_path, 256, 1024) as (api, _), ExitStack() as stack:
        idle = [stack.enter_context(connected(api)) for _ in range(300)]
        assert status_of_life(api) == 200
        for connection in idle:  # none of which had to make way
            connection.sendall(LIVE)
            (answer,) = answers(rest(connection))
            assert answer.status == 200


def test_a_server_in_somebody_elses_thread_leaves_that_process_its_limit() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(Resizer()):
        assert threading.current_thread() is threading.main_thread()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_connections_leave_files_for_the_service_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, most in ((2**20, 500), (4096, 500), (1024, 500), (256, 152), (64, 16)):
        monkeypatch.setattr(listening, "_file_limit", lambda files=files: files)
        assert listening.max_connections() == most


def test_the_connection_that_has_rested_the_longest_makes_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(listening, "MIN_IDLE_S", 0.2)
    with serving(Resizer()) as api, ExitStack() as stack:
        silent = stack.enter_context(connected(api))
        assert status_of_life(api) == 200  # so the silent one was accepted before all others
        first, second = (stack.enter_context(connected(api)) for _ in range(2))
        for connection in (second, first):  # whoever has had an answer has not rested since
            connection.sendall(LIVE.replace(CLOSE, b""))
            assert connection.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"
            time.sleep(0.2)
        time.sleep(0.3)
        assert status_of_life(api) == 200
        assert silent.recv(1) == b""
        first.sendall(LIVE.replace(CLOSE, b""))
        stack.enter_context(connected(api))
        assert status_of_life(api) == 200
        first.sendall(LIVE)
        assert [answer.status for answer in answers(rest(first))] == [200, 200, 200]


@pytest.mark.slow
def test_no_connection_with_a_request_at_work_makes_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 2)
    with serving(Slow(3)) as api, ExitStack() as stack:
        at_work = [stack.enter_context(send(api)) for _ in range(2)]
        time.sleep(1.5 * listening.MIN_IDLE_S)
        (answer,) = answers(exchange(api, LIVE))
        assert answer.status == 503
        for connection in at_work:
            connection.sendall(LIVE)
            assert [answer.status for answer in answers(rest(connection))] == [200, 200]


@pytest.mark.parametrize("token", [True, False])
def test_a_slow_reader_is_disconnected_for_others_unless_it_has_a_token(
    monkeypatch: pytest.MonkeyPatch, *, token: bool
) -> None:
    """However little it takes: else slow readers of what needs no token could keep others out."""
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(listening, "MIN_IDLE_S", 0.1)
    monkeypatch.setattr(server, "ANONYMOUS_RESPONSE_S", 0.3)
    large = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n"
    with serving(Resizer()) as api, connected(api) as slow:
        slow.sendall(request({**GOOD, "scale": 26}, HEAD + CLOSE) if token else large * 20)
        assert slow.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        time.sleep(0.5)
        if token:
            (answer,) = answers(exchange(api, LIVE))
            assert answer.status == 503
            assert len(rest(slow)) > 20e6
        else:
            assert status_of_life(api) == 200


@pytest.mark.slow
def test_beyond_those_that_are_refused_connections_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """And are answered once there is room for them."""
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(listening, "MAX_REFUSALS", 1)
    monkeypatch.setattr(listening, "MIN_IDLE_S", 60)
    with serving(Slow(2)) as api, ExitStack() as stack:
        at_work, refused, *waiting = (stack.enter_context(connected(api)) for _ in range(5))
        at_work.sendall(request(head=HEAD + CLOSE))
        assert refused.recv(12) == b"HTTP/1.1 503"
        for connection in waiting:
            connection.sendall(LIVE)
            connection.settimeout(0.1)
            assert rest(connection) == b""
            connection.settimeout(30)
        refused.close()
        for connection in waiting:
            (answer,) = answers(rest(connection))
            assert answer.status in (200, 503)
        assert [answer.status for answer in answers(rest(at_work))] == [200]
        assert status_of_life(api) == 200


@pytest.mark.first(1)
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_what_the_system_has_no_place_for_is_told_once_and_waited_for(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "ACCEPT_PAUSE_S", 0.05)
    accept, left = socket.socket.accept, [20]

    def failing(listener: socket.socket) -> object:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", failing)
    with caplog.at_level(logging.INFO, listening.__name__), serving(Resizer()) as api:
        assert status_of_life(api) == 200
    (record,) = (record for record in caplog.records if record.name == listening.__name__)
    assert os.strerror(number) in record.getMessage()
    assert left == [0]
