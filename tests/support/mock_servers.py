"""Mocks for tests: in this process, and as the command in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any, Final

import httpx

from mock_server.mock import Mock
from mock_server.serving.connection import MockConnection
from tests.support.processes import Child
from tests.support.service import GOOD, SETTINGS, TOKENS, running
from upscaler.settings import Settings

MOCK = str(Path(sys.executable).parent / "upscaler-mock")
MOCK_TOKENS = tuple(word for token in TOKENS for word in ("--token", token))
"""The options of the command for the tokens of `SETTINGS`."""
SMALL: Final[dict[str, Any]] = {**GOOD, "scale": 0.5}
"""The fields of a request that is fast to answer."""


@contextmanager
def mocking(settings: Settings = SETTINGS) -> Iterator[httpx.Client]:
    """Serve a mock in this process, and yield a client of it with a valid token."""
    with mocked(Mock(settings=settings)) as client:
        yield client


@contextmanager
def mocked(mock: Mock) -> Iterator[httpx.Client]:
    """Serve `mock` in this process, and yield a client of it with a valid token."""
    headers = {"Authorization": f"Bearer {mock.tokens[0]}"}
    with (
        running(mock.app, MockConnection) as url,
        httpx.Client(base_url=url, headers=headers, timeout=30) as client,
    ):
        yield client


@contextmanager
def mock_child(
    folder: Path,
    *options: str,
    stop: signal.Signals = signal.SIGTERM,
    environment: dict[str, str] | None = None,
) -> Iterator[Child]:
    """Run `upscaler-mock`; it must print nothing but its URL, and exit with status 0 on `stop`."""
    log = folder / "log"
    set_here = ("UPSCALER_", "PYTHONUNBUFFERED")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(set_here)}
    with (
        log.open("w") as file,
        subprocess.Popen(
            [MOCK, *options],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env=ours | (environment or {}),
        ) as process,
    ):
        assert process.stdout
        try:
            url = _first_line(process)
            assert url.startswith("http://"), log.read_text()
            assert url.endswith("\n")
            yield Child(url.strip(), process.pid, log)
            process.send_signal(stop)
            assert process.wait(timeout=60) == 0, log.read_text()
            assert process.stdout.read() == ""
        finally:
            process.kill()


def recorded(api: httpx.Client, **filters: Any) -> list[dict[str, Any]]:
    """Return the requests in the journal of the mock that `api` is a client of."""
    response = api.get("/_mock/requests", params=filters)
    assert response.status_code == 200, response.text
    entries: list[dict[str, Any]] = response.json()["requests"]
    return entries


def _first_line(process: "subprocess.Popen[str]") -> str:
    """Return the first line that a process prints, or an empty text if that takes too long."""
    assert process.stdout
    too_late = Timer(60, process.kill)
    too_late.start()
    try:
        return process.stdout.readline()
    finally:
        too_late.cancel()
