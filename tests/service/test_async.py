"""ASY-1 to ASY-5 over HTTP."""

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest

from tests.support.service import (
    GOOD,
    PHOTO_B64,
    SETTINGS,
    TOKENS,
    Moody,
    Resizer,
    decoded,
    only_error,
    png,
    serving,
    upscale,
)
from upscaler.api.limits import ASYNC_MAX_BODY_BYTES
from upscaler.api.sizes import Size
from upscaler.imaging.pixels import Pixels
from upscaler.models import UpscalingModel
from upscaler.service.backend import Progress
from upscaler.service.jobs.memory import MemoryJobStore

ASYNC = {"X-OctoAI-Async": "1"}


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    with serving(Moody()) as client:
        yield client


def start(api: httpx.Client, accept: str = "*/*", **fields: str) -> Any:
    answer = api.post("/upscaling", json=GOOD | fields, headers=ASYNC | {"Accept": accept})
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"response_id", "poll_url"}
    return answer.json()


def response_url(api: httpx.Client, job: dict[str, str]) -> str:
    """Where the answer is, once it is there; polled for as clients do."""
    for _ in range(3000):
        answer = api.get(job["poll_url"])
        assert answer.status_code == 200, answer.text
        state = answer.json()
        if state["status"] == "completed":
            assert state.keys() == {"status", "response_url"}
            return str(state["response_url"])
        assert state.keys() == {"status"}
        assert state["status"] in ("pending", "running")
        time.sleep(0.01)
    raise AssertionError("it never ended")


def test_the_answer_is_the_one_that_would_have_come_at_once(api: httpx.Client) -> None:
    """ASY-1 to ASY-3: as often as it is asked for."""
    job = start(api)
    base = str(api.base_url).rstrip("/")
    assert job["poll_url"] == f"{base}/v1/requests/{job['response_id']}"
    url = response_url(api, job)
    assert url == f"{base}/v1/responses/{job['response_id']}"
    at_once = upscale(api, **GOOD)
    for _ in range(2):
        later = api.get(url)
        assert decoded(later).size == (608, 512)
        assert later.content == at_once.content
        assert later.headers.keys() == at_once.headers.keys()
        assert later.headers["X-Upscaler-Output-Size"] == "608x512"


def test_the_accept_header_of_the_request_counts(api: httpx.Client) -> None:
    """ASY-3: what the synchronous call would have given."""
    job = start(api, accept="image/jpeg")
    answer = api.get(response_url(api, job), headers={"Accept": "application/json"})
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.content.startswith(b"\xff\xd8\xff")


def test_behind_a_proxy_that_speaks_https_the_urls_are_https(api: httpx.Client) -> None:
    """Clients with a token must not be sent to where it would be readable on the way."""
    headers = ASYNC | {"X-Forwarded-Proto": "https"}
    job = api.post("/upscaling", json=GOOD, headers=headers).json()
    assert job["poll_url"].startswith("https://")
    path = httpx.URL(job["poll_url"]).path
    while (state := api.get(path, headers=headers).json())["status"] != "completed":
        time.sleep(0.01)
    assert state["response_url"].startswith("https://")


@pytest.mark.parametrize(
    ("model", "status"), [("real-esrgan-x2-plus", 500), ("real-esrgan-x4-v3", 503)]
)
def test_a_failure_is_told_where_the_answer_would_be(
    api: httpx.Client, model: str, status: int
) -> None:
    url = response_url(api, start(api, model=model))
    at_once = upscale(api, **GOOD, model=model)
    for _ in range(2):
        later = api.get(url)
        assert later.status_code == at_once.status_code == status
        assert later.json() == at_once.json()
        assert "secret" not in later.text
    assert decoded(api.get(response_url(api, start(api)))).size == (608, 512)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "missing"),
        ({**GOOD, "scale": 27}, "output_too_large"),
        ({**GOOD, "init_image": png(200, 300)}, "image_too_small"),
        ({**GOOD, "init_image": PHOTO_B64[:40_000]}, "image_damaged"),
        ({"init_image_url": "http://localhost/a.png", "scale": 2}, "url_refused"),
    ],
)
def test_what_needs_no_inference_is_told_at_once(
    api: httpx.Client, fields: dict[str, object], kind: str
) -> None:
    """ASY-1."""
    answer = api.post("/upscaling", json=fields, headers=ASYNC)
    assert answer.status_code == 422
    assert kind in {error["type"] for error in answer.json()["detail"]}


def test_an_asynchronous_body_may_have_10_mb(api: httpx.Client) -> None:
    """ASY-4."""
    headers = ASYNC | {"Content-Type": "application/json"}
    answer = api.post("/upscaling", content=b" " * ASYNC_MAX_BODY_BYTES, headers=headers)
    assert only_error(answer)["type"] == "json_invalid"
    answer = api.post("/upscaling", content=b" " * (ASYNC_MAX_BODY_BYTES + 1), headers=headers)
    assert answer.status_code == 413
    assert "asynchronous" in answer.json()["detail"]
    del headers["X-OctoAI-Async"]
    answer = api.post("/upscaling", content=b" " * (ASYNC_MAX_BODY_BYTES + 1), headers=headers)
    assert only_error(answer)["type"] == "json_invalid"


@pytest.mark.parametrize("path", ["requests", "responses"])
def test_a_result_needs_both_its_id_and_a_token(api: httpx.Client, path: str) -> None:
    """ASY-4, ASY-5."""
    job = start(api)
    url = f"{str(api.base_url).rstrip('/')}/v1/{path}/{job['response_id']}"
    response_url(api, job)
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"Authorization": "Bearer wrong"}).status_code == 401
    other = {b"Authorization": f"Bearer {TOKENS[1]}".encode()}
    assert httpx.get(url, headers=other).status_code == 200
    for unknown in (url[:-1], url + "0", url.rpartition("/")[0] + "/%00"):
        answer = api.get(unknown)
        assert answer.status_code == 404
        assert isinstance(answer.json()["detail"], str)


class Gate(Resizer):
    """A backend that waits until it is opened."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        self.entered.set()
        assert self.opened.wait(30)
        return super().upscale(pixels, model, size, progress)


def test_the_status_goes_from_pending_over_running_to_completed() -> None:
    """ASY-2; and until then there is no answer (404)."""
    gate = Gate()
    with serving(gate) as api:
        first, second = start(api), start(api)
        assert gate.entered.wait(30)
        assert api.get(first["poll_url"]).json() == {"status": "running"}
        assert api.get(second["poll_url"]).json() == {"status": "pending"}
        assert api.get(f"/v1/responses/{first['response_id']}").status_code == 404
        gate.opened.set()
        for job in (first, second):
            assert decoded(api.get(response_url(api, job))).size == (608, 512)


def test_results_expire_after_a_day() -> None:
    """ASY-4."""
    now_s = 0.0
    jobs = MemoryJobStore(2**30, clock=lambda: now_s)
    with serving(Resizer(), SETTINGS, jobs) as api:
        job = start(api)
        url = response_url(api, job)
        now_s = 24 * 60 * 60 - 1
        assert api.get(url).status_code == 200
        now_s += 1
        assert api.get(url).status_code == api.get(job["poll_url"]).status_code == 404


def test_a_service_that_is_stopped_gives_up_its_jobs() -> None:
    """Nobody could fetch what they would make."""

    class Endless(Resizer):
        def upscale(
            self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
        ) -> Iterable[Pixels]:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                progress(0, 1)
                time.sleep(0.001)
            raise AssertionError("nobody stopped it")

    began_s = time.monotonic()
    with serving(Endless()) as api:
        job = start(api)
        while api.get(job["poll_url"]).json()["status"] != "running":
            time.sleep(0.01)
    assert time.monotonic() - began_s < 30
