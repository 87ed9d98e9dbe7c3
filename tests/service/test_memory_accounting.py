"""What is held in memory is what the metrics say, and nothing of what has failed or has ended."""

import base64
import gc
import logging
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import httpx
import pytest

from tests.service.test_operations import metrics
from tests.service.test_overload import Gate
from tests.support.image_files import noise, saved
from tests.support.raw_http import send
from tests.support.service import GOOD, SETTINGS, Resizer, Slow, serving
from upscaler.api.sizes import Size
from upscaler.errors import OutOfMemory
from upscaler.imaging.pixels import Pixels
from upscaler.models import UpscalingModel
from upscaler.service.backend import Progress
from upscaler.service.jobs.memory import MemoryJobStore

pytestmark = pytest.mark.dev

ASYNC: Final = {"X-OctoAI-Async": "1"}
DAY_S: Final = 24 * 60 * 60
SIDE_PX: Final = 1024
PICTURE: Final = saved(noise(SIDE_PX, SIDE_PX, 3), "PNG")
FIELDS: Final = {"init_image": base64.b64encode(PICTURE).decode(), "scale": 1}
UNDER_WAY_BYTES: Final = len(PICTURE) + 3 * SIDE_PX**2
MARGIN_BYTES: Final = 2**20
"""For all that is no picture: tasks, log records, parsers, and what libraries make once."""


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # pytest keeps what is logged, and errors in it


class Failing(Gate):
    """Waits at each picture, and one model fails with an error that holds the pixels."""

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        if model is UpscalingModel.X2_PLUS:
            raise ZeroDivisionError(pixels)
        return super().upscale(pixels, model, size, progress)


def promise(api: httpx.Client, **fields: str) -> str:
    answer = api.post("/upscaling", json=FIELDS | fields, headers=ASYNC)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["response_id"])


def await_end(api: httpx.Client, job_id: str) -> None:
    deadline_s = time.monotonic() + 60
    while api.get(f"/v1/requests/{job_id}").json()["status"] != "completed":
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """How much more is allocated than at the start, by Python and by numpy."""
    gc.collect()
    tracemalloc.start()
    base = tracemalloc.get_traced_memory()[0]
    try:
        yield lambda: tracemalloc.get_traced_memory()[0] - base
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_metrics_report_held_bytes_at_each_stage_of_async_requests() -> None:
    now_s, gate = 0.0, Failing()
    jobs = MemoryJobStore(2**30, clock=lambda: now_s)
    with serving(gate, SETTINGS, jobs) as api, traced() as grown:

        def assert_held(requests: int, results: int) -> None:
            """By the metrics, and by Python; a moment after an answer it is so."""
            deadline_s = time.monotonic() + 30
            while True:
                found, grown_bytes = metrics(api), grown()
                told = [found["upscaler_held_bytes", ()], found["upscaler_results_bytes", ()]]
                far_off = abs(grown_bytes - requests - results) > MARGIN_BYTES
                if told == [requests, results] and not far_off:
                    return
                assert time.monotonic() < deadline_s, (told, grown_bytes, requests, results)
                time.sleep(0.05)

        gate.opened.set()
        warm = promise(api)
        await_end(api, warm)
        size = int(metrics(api)["upscaler_results_bytes", ()])
        assert size > 2**21
        assert_held(0, size)
        gate.opened.clear()
        waiting = [promise(api) for _ in range(4)]
        assert_held(4 * UNDER_WAY_BYTES, size)
        gate.opened.set()
        await_end(api, waiting[-1])
        assert_held(0, 5 * size)
        failed = [promise(api, model="real-esrgan-x2-plus") for _ in range(6)]
        await_end(api, failed[-1])
        assert [api.get(f"/v1/responses/{each}").status_code for each in failed] == [500] * 6
        assert_held(0, 5 * size)
        assert api.get(f"/v1/responses/{warm}").status_code == 200
        assert_held(0, 5 * size)
        now_s = DAY_S + 1
        assert_held(0, 0)


class Watched(Resizer):
    """A backend that works for a moment and then fails, and knows who still has the pixels."""

    def __init__(self, fails: Callable[[], Exception]) -> None:
        self.fails = fails
        self.seen: list[weakref.ref[Pixels]] = []

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        self.seen.append(weakref.ref(pixels))
        ends_s = time.monotonic() + 0.3
        while time.monotonic() < ends_s:
            progress(0, 1)
            time.sleep(0.01)
        raise self.fails() from KeyError(pixels.shape)

    def kept(self) -> int:
        """How many pictures somebody still has after a moment."""
        deadline_s = time.monotonic() + 30
        while (left := sum(ref() is not None for ref in self.seen)) and (
            time.monotonic() < deadline_s
        ):
            time.sleep(0.01)
        return left


def synchronously(api: httpx.Client) -> None:
    assert api.post("/upscaling", json=GOOD).status_code in (500, 503)


def asynchronously(api: httpx.Client) -> None:
    job_id = str(api.post("/upscaling", json=GOOD, headers=ASYNC).json()["response_id"])
    await_end(api, job_id)


def after_the_answer_began(api: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        api.post("/upscaling", json=GOOD)


def hung_up(api: httpx.Client) -> None:
    with send(api):
        time.sleep(0.1)


WAYS: Final = [
    (synchronously, 45.0),
    (asynchronously, 45.0),
    (after_the_answer_began, 0.1),
    (hung_up, 45.0),
    (hung_up, 0.01),
]


@pytest.mark.first(2)
@pytest.mark.parametrize("fails", [OutOfMemory, ZeroDivisionError])
@pytest.mark.parametrize(("ask", "first_byte_s"), WAYS)
def test_nothing_of_a_picture_is_kept_after_it_failed(
    ask: Callable[[httpx.Client], None], first_byte_s: float, fails: Callable[[], Exception]
) -> None:
    """Not even until the garbage collector comes by: it may not for a long time."""
    backend = Watched(fails)
    with serving(backend, replace(SETTINGS, first_byte_s=first_byte_s)) as api:
        gc.collect()
        gc.disable()
        try:
            for _ in range(2):
                ask(api)
            assert len(backend.seen) >= 1
            assert backend.kept() == 0
        finally:
            gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("first_byte_s", [45.0, 0.01])
def test_nothing_of_an_answer_is_kept_after_its_client_hung_up(first_byte_s: float) -> None:
    settings = replace(SETTINGS, first_byte_s=first_byte_s)
    with serving(Slow(0.1), settings) as api:
        assert api.post("/upscaling", json=GOOD, timeout=60).status_code == 200
        with traced() as grown:
            gc.disable()
            try:
                for _ in range(2):
                    with send(api, {**GOOD, "scale": 26}) as connection:
                        assert connection.recv(2**16).startswith(b"HTTP/1.1 200 OK")
                        while metrics(api)["upscaler_held_bytes", ()] < 20e6:
                            time.sleep(0.05)
                        assert grown() > 20e6
                deadline_s = time.monotonic() + 60
                while grown() > 4 * MARGIN_BYTES:  # the part that was sent last is of one
                    assert time.monotonic() < deadline_s, grown()
                    time.sleep(0.05)
            finally:
                gc.enable()
