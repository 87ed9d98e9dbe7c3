"""More than the service takes on, over HTTP: who is refused, and what that leaves behind."""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.service.test_operations import eventually
from tests.support.paths import PHOTO
from tests.support.raw_http import HEAD, connected, send
from tests.support.service import GOOD, PHOTO_B64, SETTINGS, Resizer, decoded, serving, upscale
from upscaler.api.limits import MAX_BODY_BYTES
from upscaler.api.sizes import Size
from upscaler.imaging.pixels import Pixels
from upscaler.models import UpscalingModel
from upscaler.service import body as intake
from upscaler.service.backend import Progress
from upscaler.settings import Settings

QUEUE_OF_TWO = replace(SETTINGS, queue_length=2)


class Gate(Resizer):
    """A backend that waits at each picture until it is opened, or until nobody waits any more."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Semaphore(0), threading.Event()

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        self.entered.release()
        while not self.opened.wait(0.005):
            progress(0, 1)
        return super().upscale(pixels, model, size, progress)


def test_a_picture_too_many_is_refused_with_when_to_come_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    with serving(gate, QUEUE_OF_TWO) as api, ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(upscale, api, **GOOD) for _ in range(3)]
        assert gate.entered.acquire(timeout=30)
        eventually(api, "upscaler_queue_depth", 2)
        for headers in ({}, {"X-OctoAI-Async": "1"}):
            refused = api.post("/upscaling", json=GOOD, headers=headers)
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) >= 1
            assert isinstance(refused.json()["detail"], str)
        health = api.get("/healthcheck")
        assert health.status_code == 503, "it is not ready for more"
        assert int(health.headers["Retry-After"]) >= 1
        assert api.get("/livez").status_code == 200
        assert upscale(api).status_code == 422, "what is wrong is told all the same"
        damaged = {"init_image": PHOTO_B64[:40_000], "scale": 2}
        assert upscale(api, **damaged).status_code == 503, "nothing is decoded in vain"
        dry = api.post("/upscaling", json=GOOD, headers={"X-Upscaler-Dry-Run": "1"})
        assert dry.status_code == 200
        gate.opened.set()
        assert all(decoded(answer.result()).size == (608, 512) for answer in answers)
        assert decoded(upscale(api, **GOOD)).size == (608, 512)
        assert api.get("/healthcheck").status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_waiting_image_holds_file_and_pixels_but_not_the_body() -> None:
    gate = Gate()
    with serving(gate) as api, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(upscale, api, **GOOD)
        eventually(api, "upscaler_held_bytes", PHOTO.stat().st_size + 304 * 256 * 3)
        gate.opened.set()
        assert decoded(answer.result()).size == (608, 512)


def test_who_hangs_up_frees_the_place_in_line() -> None:
    gate = Gate()
    with serving(gate, QUEUE_OF_TWO) as api:
        running = send(api)
        assert gate.entered.acquire(timeout=30)
        waiting = [send(api), send(api)]
        eventually(api, "upscaler_queue_depth", 2)
        assert upscale(api, **GOOD).status_code == 503
        waiting[0].close()
        eventually(api, "upscaler_queue_depth", 1)
        running.close()
        assert gate.entered.acquire(timeout=30), "the next one has its turn"
        eventually(api, "upscaler_queue_depth", 0)
        gate.opened.set()
        assert waiting[1].recv(15) == b"HTTP/1.1 200 OK"
        waiting[1].close()
        eventually(api, "upscaler_held_bytes", 0)


def announced(size_bytes: int) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % size_bytes


def test_bodies_that_are_only_promised_keep_nobody_out() -> None:
    """Nothing of them is sent: only their number could fill this memory, ten times."""
    with serving(Resizer(), replace(SETTINGS, queue_memory=4 * MAX_BODY_BYTES)) as api:
        connections = [connected(api) for _ in range(40)]
        for connection in connections:
            connection.sendall(announced(MAX_BODY_BYTES))
        assert decoded(upscale(api, **GOOD)).size == (608, 512)
        eventually(api, "upscaler_held_bytes", 0)
        assert api.get("/healthcheck").status_code == 200
        for connection in connections:
            connection.close()


def test_bodies_that_take_up_all_memory_are_refused_and_health_says_so() -> None:
    room = MAX_BODY_BYTES + 2**20
    with serving(Resizer(), replace(SETTINGS, queue_memory=room)) as api:
        with connected(api) as first, connected(api) as second:
            first.sendall(announced(MAX_BODY_BYTES) + bytes(2 * 2**20))
            eventually(api, "upscaler_held_bytes", 2 * 2**20)
            health = api.get("/healthcheck")
            assert health.status_code == 503, "another body of full length could not be taken"
            assert int(health.headers["Retry-After"]) >= 1
            assert decoded(upscale(api, **GOOD)).size == (608, 512), "a smaller one can"
            first.sendall(bytes(MAX_BODY_BYTES - 3 * 2**20))
            eventually(api, "upscaler_held_bytes", MAX_BODY_BYTES - 2**20)
            second.sendall(announced(MAX_BODY_BYTES) + bytes(3 * 2**20))
            assert second.recv(13, socket.MSG_WAITALL) == b"HTTP/1.1 503 "
            assert api.get("/livez").status_code == 200
        eventually(api, "upscaler_held_bytes", 0)
        assert api.get("/healthcheck").status_code == 200
        assert decoded(upscale(api, **GOOD)).size == (608, 512)


def test_a_body_without_a_length_is_counted_as_it_comes() -> None:
    with serving(Resizer()) as api, connected(api) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        eventually(api, "upscaler_held_bytes", 0)
        for size in (70_000, 140_000):
            connection.sendall(b"%x\r\n%b\r\n" % (70_000, b" " * 70_000))
            eventually(api, "upscaler_held_bytes", size)


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drop now and then keeps no request alive."""
    monkeypatch.setattr(intake, "BODY_DEADLINE_S", 0.4)
    with serving(Resizer()) as api, connected(api) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        began_s = time.monotonic()
        answer = b""
        connection.settimeout(0.05)
        while not answer:
            assert time.monotonic() - began_s < 30
            connection.sendall(b" ")
            try:
                answer = connection.recv(1000)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")
        eventually(api, "upscaler_held_bytes", 0)


def test_a_body_that_stops_is_not_waited_for_though_there_is_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "BODY_GRACE_S", 0.4)
    with serving(Resizer()) as api, connected(api) as connection:
        connection.sendall(announced(MAX_BODY_BYTES) + bytes(100))
        connection.settimeout(60)
        assert connection.recv(13, socket.MSG_WAITALL) == b"HTTP/1.1 408 "
        eventually(api, "upscaler_held_bytes", 0)


@pytest.mark.slow
def test_a_body_may_take_longer_than_its_grace_as_long_as_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "BODY_GRACE_S", 1.0)
    monkeypatch.setattr(intake, "BODY_BYTES_PER_S", 1000)
    body = json.dumps(GOOD).encode()
    pieces = [body[at : at + len(body) // 6] for at in range(0, len(body), len(body) // 6)]
    with serving(Resizer()) as api, connected(api) as connection:
        connection.sendall(announced(len(body)))
        for piece in pieces:
            time.sleep(0.4)
            connection.sendall(piece)
        assert connection.recv(13, socket.MSG_WAITALL) == b"HTTP/1.1 200 "


def test_what_is_being_sent_is_counted_until_it_is_taken() -> None:
    """A client that does not read its answer makes the service hold it."""
    with serving(Resizer()) as api:
        connection = send(api, {**GOOD, "scale": 26})
        with connection:
            assert connection.recv(15, socket.MSG_PEEK) == b"HTTP/1.1 200 OK"
            held = float(
                next(
                    line.split()[1]
                    for line in api.get("/metrics").text.splitlines()
                    if line.startswith("upscaler_held_bytes")
                )
            )
            assert held > 20e6
        eventually(api, "upscaler_held_bytes", 0)


def test_a_queue_of_none_takes_what_it_can_do_at_once() -> None:
    settings = Settings(tokens=SETTINGS.tokens, queue_length=0)
    gate = Gate()
    with serving(gate, settings) as api, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(upscale, api, **GOOD)
        assert gate.entered.acquire(timeout=30)
        assert upscale(api, **GOOD).status_code == 503
        gate.opened.set()
        assert decoded(answer.result()).size == (608, 512)
