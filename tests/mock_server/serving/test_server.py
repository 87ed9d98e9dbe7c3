"""A mock in a thread of the process that uses it: how it starts and stops."""

import threading
from contextlib import suppress

import httpx
import pytest

from mock_server import MockServer
from mock_server.serving import server
from tests.support.raw_http import PATIENCE_S


def test_a_server_whose_thread_is_blocked_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "STOP_S", 0.05)
    over = threading.Event()
    mock = MockServer()
    with pytest.warns(RuntimeWarning, match="something has blocked its thread"), mock:
        mock._loop.call_soon_threadsafe(over.wait)
    over.set()
    mock._thread.join(PATIENCE_S)
    assert not mock._thread.is_alive()


def test_a_server_does_not_wait_for_requests_that_never_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`force_exit` is for what the mock's own connections would not end."""
    monkeypatch.setattr(server, "STOP_S", 0.3)
    monkeypatch.setattr("mock_server.serving.connection.GRACE_S", PATIENCE_S)
    with MockServer() as mock:
        headers, unread = {"X-Mock-Fault": "timeout"}, httpx.Timeout(PATIENCE_S, read=0.2)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{mock.url}/upscaling", json={}, headers=headers, timeout=unread)
        asking = threading.Thread(target=_ask, args=(f"{mock.url}/upscaling", headers))
        asking.start()
        while len(mock.journal.find()) < 2 and asking.is_alive():
            asking.join(0.01)
    asking.join(PATIENCE_S)
    assert not asking.is_alive()


def _ask(url: str, headers: dict[str, str]) -> None:
    with suppress(httpx.TransportError):
        httpx.post(url, json={}, headers=headers, timeout=PATIENCE_S)
