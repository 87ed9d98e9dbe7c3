"""Downloading, from a real server that behaves in every way a server can."""

import functools
import gzip
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.checkpoints import (
    NAME,
    STEM,
    Answer,
    answer,
    assert_ready,
    cached,
    equal,
    in_cache,
    pickled,
    released,
    small,
    tensors,
    whole,
)
from upscaler.engine import weights, weights_download
from upscaler.engine.weights import cache_folder, fetch, load
from upscaler.errors import WeightsUnavailable
from upscaler.models import MODELS, Model, UpscalingModel


class Handler(BaseHTTPRequestHandler):
    """Answers the first request with the first answer, and so on, then always with the last."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Releases)
        self.server.requests.append(self.path)
        number = min(len(self.server.requests), len(self.server.answers))
        with suppress(ConnectionError):
            self.server.answers[number - 1](self)

    do_CONNECT = do_GET  # noqa: N815  the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  so named there
        pass


class Releases(ThreadingHTTPServer):
    """A server of releases on a free port of this machine; it notes the paths asked for."""

    daemon_threads = False  # so that closing it waits for the answers to end

    def __init__(self, *answers: "Answer") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(*answers: Answer) -> Iterator[Releases]:
    with Releases(*answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def broken(handler: BaseHTTPRequestHandler) -> None:
    """Promise all and close the connection in the middle."""
    answer(released()[:100_000], size=len(released()))(handler)


def unnumbered(body: bytes) -> Answer:
    """A body that ends where the connection does."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def compressing(handler: BaseHTTPRequestHandler) -> None:
    """Compress if the client says that it can take that, as many servers and proxies do."""
    if "gzip" in handler.headers.get("Accept-Encoding", ""):
        answer(gzip.compress(released()), Content_Encoding="gzip")(handler)
    else:
        whole(handler)


def fetched(*answers: Answer) -> list[str]:
    """Fetch `small()`, assert that the whole file is there, and return the requests it took."""
    with serving(*answers) as server:
        path = fetch(small(), releases=server.url)
    assert path == cache_folder() / f"{STEM}.pth"
    assert path.read_bytes() == released()
    assert in_cache() == [f"{STEM}.pth"]
    return server.requests


def not_fetched(*answers: Answer) -> tuple[str, list[str]]:
    """Assert that fetching `small()` fails and leaves nothing; the message and the requests."""
    with serving(*answers) as server, pytest.raises(WeightsUnavailable) as caught:
        fetch(small(), releases=server.url)
    assert in_cache() == []
    assert f"{server.url}/v9.9/{STEM}.pth" in str(caught.value)
    return str(caught.value), server.requests


ONE = [f"/v9.9/{STEM}.pth"]


def test_the_official_file_is_fetched_into_the_cache_with_one_request() -> None:
    assert fetched(whole) == ONE


def test_progress_grows_to_the_total() -> None:
    told: list[tuple[int, int]] = []
    with serving(whole) as server:
        fetch(small(), lambda done, total: told.append((done, total)), server.url)
    counts = [done for done, _ in told]
    assert len(counts) > 1
    assert counts == sorted(set(counts))
    assert {total for _, total in told} == {len(released())}
    assert counts[-1] == len(released())


def test_an_existing_file_is_not_downloaded() -> None:
    cached(released())
    assert fetched(whole) == []


@pytest.mark.parametrize("data", [b"", b"damaged", bytes(300_000)])
def test_a_damaged_file_in_the_cache_is_replaced(data: bytes) -> None:
    cached(data)
    assert fetched(whole) == ONE


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_to_another_host(status: int) -> None:
    with serving(whole) as store:
        assert fetched(answer(status=status, Location=f"{store.url}/elsewhere?a=b")) == ONE
    assert store.requests == ["/elsewhere?a=b"]


def test_redirects_without_end_are_not_followed() -> None:
    _, requests = not_fetched(answer(status=302, Location="/again"))
    assert len(requests) < 100


def test_a_body_without_a_length_is_accepted() -> None:
    assert fetched(unnumbered(released())) == ONE


def test_a_server_that_compresses_is_accepted() -> None:
    assert fetched(compressing) == ONE


@pytest.mark.parametrize("at", [0, 150_000, -1])
def test_one_wrong_byte_is_refused(at: int) -> None:
    data = bytearray(released())
    data[at] ^= 1
    message, _ = not_fetched(answer(bytes(data)))
    assert hashlib.sha256(released()).hexdigest() in message


@pytest.mark.parametrize("body", [b"", released()[:-1], b"<html>Not here</html>"])
@pytest.mark.parametrize("send", [answer, unnumbered])
def test_a_short_body_is_refused(send: Callable[[bytes], Answer], body: bytes) -> None:
    not_fetched(send(body))


@pytest.mark.parametrize("send", [answer, unnumbered])
def test_a_long_body_is_refused(send: Callable[[bytes], Answer]) -> None:
    not_fetched(send(b"x" + released()))


def test_a_body_without_end_is_cut_off() -> None:
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        unnumbered(b"")(handler)
        while sent < 200_000_000:
            sent += handler.wfile.write(bytes(100_000))

    not_fetched(endless)
    assert sent < 50_000_000, "far more was read than the file has"


@pytest.mark.parametrize("status", [403, 404, 410, 429, 500, 503])
def test_an_http_error_is_refused_with_its_status_and_advice(status: int) -> None:
    message, requests = not_fetched(answer(released(), status))
    assert f"HTTP status {status}" in message
    assert f"fetch {STEM}.pth elsewhere and set UPSCALER_WEIGHTS to its folder" in message
    assert "real-esrgan-x4-v3" in message
    assert len(requests) <= 2


@pytest.mark.parametrize("first", [broken, answer(status=500), answer(status=503)])
def test_one_failure_is_retried(first: Answer) -> None:
    assert fetched(first, whole) == ONE * 2


def test_a_retry_starts_over() -> None:
    counts: list[int] = []
    with serving(broken, whole) as server:
        fetch(small(), lambda *told: counts.append(told[0]), server.url)
    assert counts.count(100_000) >= 1
    again = counts[counts.index(100_000) + 1 :]
    assert again[0] < 100_000
    assert again[-1] == len(released())


def test_two_broken_connections_are_a_failure() -> None:
    message, requests = not_fetched(broken, broken, whole)
    assert requests == ONE * 2
    assert "UPSCALER_WEIGHTS" in message


def test_a_silent_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_download, "TIMEOUT", 0.1)
    done = threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        broken(handler)
        done.wait(60)

    started = time.monotonic()
    with serving(silent) as server:
        try:
            with pytest.raises(WeightsUnavailable, match="UPSCALER_WEIGHTS"):
                fetch(small(), releases=server.url)
            assert time.monotonic() - started < 40
        finally:
            done.set()
    assert in_cache() == []


def test_an_unreachable_server_is_reported_with_advice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(WeightsUnavailable) as caught:
        fetch(small(), releases=url)
    assert url in str(caught.value)
    assert f"fetch {STEM}.pth elsewhere and set UPSCALER_WEIGHTS" in str(caught.value)
    assert in_cache() == []


def test_an_unwritable_cache_is_reported_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with serving(whole) as server, pytest.raises(WeightsUnavailable, match="UPSCALER_WEIGHTS"):
        fetch(small(), releases=server.url)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("before", [[], [f"{STEM}.pth"]])
def test_an_interruption_changes_nothing(error: type[BaseException], before: list[str]) -> None:
    def interrupt(done: int, total: int) -> None:
        raise error

    for _ in before:
        cached(b"old")
    with serving(whole) as server, pytest.raises(error):
        fetch(small(), interrupt, server.url)
    assert in_cache() == before
    assert all((cache_folder() / name).read_bytes() == b"old" for name in before)


FETCH = """
import sys
from dataclasses import replace
from upscaler.models import MODELS, Checkpoint, UpscalingModel
from upscaler.engine.weights import fetch

_, url, path, size, digest = sys.argv
official = Checkpoint(path, int(size), digest)
print(fetch(replace(MODELS[UpscalingModel.X4_V3], official=official), releases=url))
"""


def fetch_in_a_process(url: str) -> "subprocess.Popen[str]":
    official = small().official
    arguments = [url, official.path, str(official.size_bytes), official.sha256]
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_processes_can_fetch_at_once() -> None:
    together = threading.Barrier(2, timeout=60)

    def both(handler: BaseHTTPRequestHandler) -> None:
        together.wait()
        whole(handler)

    with serving(both) as server:
        processes = [fetch_in_a_process(server.url) for _ in range(2)]
        told = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert {out.strip() for out, _ in told} == {str(cache_folder() / f"{STEM}.pth")}
    assert in_cache() == [f"{STEM}.pth"]
    assert (cache_folder() / f"{STEM}.pth").read_bytes() == released()


def test_a_process_that_is_interrupted_leaves_nothing() -> None:
    halfway, done = threading.Event(), threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        broken(handler)
        halfway.set()
        done.wait(60)

    with serving(stall) as server:
        process = fetch_in_a_process(server.url)
        try:
            assert halfway.wait(60)
            wait_until(lambda: in_cache() != [])
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
            done.set()
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert in_cache() == []


def wait_until(condition: Callable[[], bool], patience_s: float = 30) -> None:
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_missing_weights_are_fetched_and_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    with serving(whole) as server:
        monkeypatch.setattr(weights, "fetch", functools.partial(fetch, releases=server.url))
        nets = [load(small(), None, lambda *counts: told.append(counts)).net for _ in range(2)]
    assert server.requests == ONE
    assert told[-1] == (len(released()), len(released()))
    for net in nets:
        assert equal(net, tensors(0))
        assert_ready(net)


@pytest.mark.parametrize("data", [b"", b"garbage", pickled(tensors(1))])
def test_damaged_weights_in_the_cache_are_fetched_again(
    data: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = cached(data)
    with serving(whole) as server:
        monkeypatch.setattr(weights, "fetch", functools.partial(fetch, releases=server.url))
        assert equal(load(small()).net, tensors(0))
    assert path.read_bytes() == released()
    assert f"{path} is damaged" in caplog.text


def test_damaged_weights_are_not_loaded_without_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cached(b"garbage")
    with serving(answer(status=404)) as server:
        monkeypatch.setattr(weights, "fetch", functools.partial(fetch, releases=server.url))
        with pytest.raises(WeightsUnavailable, match="UPSCALER_WEIGHTS"):
            load(small())


def test_leftovers_of_a_killed_process_are_removed_after_a_day() -> None:
    cached(b"garbage")
    folder = cache_folder()
    names = [f".{letter * 32}.part" for letter in "ab"] + [".other.part", "a.part"]
    for age_s, name in zip((2, 86_500, 86_500, 86_500), names, strict=True):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age_s,) * 2)
    with serving(whole) as server:
        fetch(small(), releases=server.url)
    assert in_cache() == sorted([names[0], *names[2:], f"{STEM}.pth"])


@contextmanager
def closed_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[Releases]:
    """All that leaves this process by HTTPS comes to a proxy, which lets nothing through."""
    with serving(answer(status=403)) as proxy:
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("https_proxy", proxy.url)
        yield proxy


@pytest.mark.parametrize("model", [MODELS[NAME], MODELS[UpscalingModel.X2_PLUS]])
def test_a_missing_model_is_fetched_from_its_release(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"https://github.com/xinntao/Real-ESRGAN/releases/download/{model.official.path}"
    with closed_off(monkeypatch) as proxy, pytest.raises(WeightsUnavailable, match=url):
        load(model, tmp_path)
    assert set(proxy.requests) == {"github.com:443"}


def test_an_existing_model_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    cached(released())
    with closed_off(monkeypatch) as proxy:
        load(small())
        load(MODELS[UpscalingModel.ANIMEVIDEO_V3])
    assert proxy.requests == []
