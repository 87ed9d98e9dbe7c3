"""Results whose body is kept elsewhere and passes through here, as those in a bucket do."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import numpy as np
import pytest

from tests.service.test_slow_responses import received
from tests.support.raw_http import PATIENCE_S
from tests.support.service import GOOD, SETTINGS, TOKENS, Resizer, running
from upscaler.errors import Unreachable
from upscaler.formats import ImageEncoding
from upscaler.models import UpscalingModel
from upscaler.service.app import create_app
from upscaler.service.backend import (
    LocalBackend,
    Scheduler,
    StageTimer,
    StoredBody,
    UpscaleJob,
    UpscaleResult,
)
from upscaler.service.negotiation import redirectable
from upscaler.service.queue import Admission

BODY = b'{"image_b64":"' + 300_000 * b"A" + b'","removed_for_safety":false}'
HELD_BYTES = 12_345


class Stored(LocalBackend):
    """Has the body of each result elsewhere: it comes in pieces, and with `fault` not in whole."""

    def __init__(self, comes_bytes: int = len(BODY), fault: Exception | None = None) -> None:
        super().__init__(Resizer())
        self.comes_bytes = comes_bytes
        self.fault = fault
        self.go_on = threading.Event()
        self.go_on.set()

    def held_bytes(self, _file_bytes: int, /) -> int:
        return HELD_BYTES

    async def pieces(self) -> AsyncIterator[bytes]:
        for at in range(0, self.comes_bytes, 50_000):
            yield BODY[at : min(at + 50_000, self.comes_bytes)]
            await asyncio.to_thread(self.go_on.wait, PATIENCE_S)
        if self.fault:
            raise self.fault

    async def make(self, job: UpscaleJob, timer: StageTimer) -> UpscaleResult:
        made = await super().make(job, timer)
        stored = StoredBody(len(BODY), self.pieces)
        return replace(made, file=[], stored=stored, held_bytes=HELD_BYTES)


@contextmanager
def front(backend: Stored, first_byte_s: float = 25.0) -> Iterator[httpx.Client]:
    app = create_app(backend, replace(SETTINGS, first_byte_s=first_byte_s))
    headers = {"Authorization": f"Bearer {TOKENS[0]}"}
    with running(app) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        yield client


def held_bytes(api: httpx.Client) -> float:
    lines = api.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith("upscaler_held_bytes ")]
    return float(line.split()[1])


def test_what_is_held_of_a_body_is_counted_until_it_is_sent() -> None:
    backend = Stored()
    backend.go_on.clear()
    with front(backend) as api:
        with api.stream("POST", "/upscaling", json=GOOD) as answer:
            held = held_bytes(api)
            backend.go_on.set()
            assert answer.headers["Content-Length"] == f"{len(BODY)}"
            assert answer.read() == BODY
        assert held == HELD_BYTES, "and nothing for the request"
        while held_bytes(api):
            """The last byte is there a little before the end."""


@pytest.mark.parametrize("first_byte_s", [25.0, 0.0])
def test_a_body_that_ends_in_the_middle_is_no_answer(first_byte_s: float) -> None:
    backend = Stored(len(BODY) // 2, Unreachable("the bucket is away"))
    with (
        front(backend, first_byte_s) as api,
        api.stream("POST", "/upscaling", json=GOOD) as answer,
    ):
        begun = received(answer)
    assert len(begun.lstrip()) == len(BODY) // 2
    with pytest.raises(ValueError, match="Unterminated string"):
        json.loads(begun)


def test_a_body_that_does_not_begin_is_a_503_to_be_asked_for_again() -> None:
    with front(Stored(0, Unreachable("the bucket is away"))) as api:
        answer = api.post("/upscaling", json=GOOD)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.json() == {
            "detail": "the service cannot do this at present; its log says why"
        }


def test_an_answer_that_began_with_spaces_says_that_its_body_does_not_come() -> None:
    with (
        front(Stored(0, Unreachable("the bucket is away")), 0.0) as api,
        api.stream("POST", "/upscaling", json=GOOD) as answer,
    ):
        begun = received(answer)
    assert json.loads(begun + b"}")["status"] == 503
    with pytest.raises(ValueError, match="delimiter"):
        json.loads(begun)


def test_a_job_waits_for_the_memory_that_it_needs_by_then() -> None:
    """A bucket that fails meanwhile no longer saves it."""

    class Failing(Stored):
        needed_bytes = 10

        def held_bytes(self, _file_bytes: int, /) -> int:
            return self.needed_bytes

    async def act() -> None:
        backend, admission = Failing(), Admission(9, 2**30, results_bytes=60)
        shop = Scheduler(backend, admission, lambda _: None)
        pixels = np.zeros((16, 16, 3), np.uint8)
        task = UpscaleJob(b"", pixels, UpscalingModel.X4_V3, (32, 32), ImageEncoding.PNG)
        with (
            admission.reservation() as other,
            admission.reservation() as memory,
            shop.schedule(task, StageTimer()) as job,
        ):
            other.set_result(55)
            running = asyncio.create_task(job.run(memory=memory))
            while not admission.first_in_line.locked():
                await asyncio.sleep(0)
            backend.needed_bytes = 50
            other.set_result(45)
            while memory.result_bytes != 10 or not admission.first_in_line.locked():
                assert not running.done(), "it needs more by now"
                await asyncio.sleep(0)
            other.set_result(0)
            await running
            assert memory.result_bytes == 50

    asyncio.run(act())


@pytest.mark.parametrize(
    ("agent", "follows"),
    [
        ("node", True),
        ("python-requests/2.32.5", True),
        ("Python/3.12 aiohttp/3.14.5", True),
        ("python-httpx/0.28.1", False),
        ("curl/8.5.0", False),
        ("Wget/1.21", False),
        ("Python-urllib/3.12", False),
        ("Mozilla/5.0", False),
        ("node-fetch/1.0", False),
        ("", False),
    ],
)
def test_who_is_sent_to_another_host(agent: str, follows: bool) -> None:
    assert redirectable(agent) == follows
