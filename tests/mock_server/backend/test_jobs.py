"""The mock's asynchronous inferences: poll scripts, failures, faults and the clock."""

import asyncio
from itertools import chain, repeat
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mock_server import Clock, Mock, PollScript
from mock_server.backend.jobs import MockJobStore
from mock_server.faults.fault import HEADER
from tests.support.hostile_requests import SHARED
from tests.support.mock_servers import SMALL
from tests.support.service import Resizer, decoded, upscale
from upscaler.formats import ImageEncoding
from upscaler.models import UpscalingModel
from upscaler.service.backend import LocalBackend, Scheduler, StageTimer, UpscaleJob
from upscaler.service.queue import Admission

ASYNC = {"X-OctoAI-Async": "1"}
DAY_S = 24 * 60 * 60


def start(api: httpx.Client, fault: str = "ok", **fields: Any) -> tuple[str, str]:
    """Start an inference, and return its poll URL and the URL of its result."""
    answer = api.post("/upscaling", json=SMALL | fields, headers=ASYNC | {HEADER: fault})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["poll_url"].endswith(f"/v1/requests/{told['response_id']}")
    return told["poll_url"], told["poll_url"].replace("requests", "responses")


def polled(api: httpx.Client, poll_url: str) -> str:
    answer = api.get(poll_url)
    assert answer.status_code == 200, answer.text
    state = answer.json()
    assert ("response_url" in state) == (state["status"] == "completed")
    return str(state["status"])


def test_the_first_poll_is_completed_by_default(api: httpx.Client) -> None:
    poll_url, result_url = start(api)
    assert polled(api, poll_url) == "completed"
    assert api.get(result_url).content == upscale(api, **SMALL).content


def test_a_result_can_be_fetched_without_a_poll(api: httpx.Client) -> None:
    assert decoded(api.get(start(api)[1])).size == (152, 128)


@SHARED
@given(st.integers(0, 4), st.integers(0, 4), st.sampled_from([None, 500, 503]))
def test_polls_follow_the_script(
    served: httpx.Client, mock: Mock, pending: int, running: int, fails: int | None
) -> None:
    mock.reset()
    mock.jobs.progress = PollScript(pending, running, fails)
    poll_url, result_url = start(served)
    for status in chain(repeat("pending", pending), repeat("running", running)):
        answer = served.get(result_url)
        assert answer.status_code == 404, "until it is completed"
        assert "not completed" in answer.json()["detail"]
        assert polled(served, poll_url) == status
    for _ in range(2):
        assert polled(served, poll_url) == "completed"
        answer = served.get(result_url)
        assert answer.status_code == (fails or 200)
        assert answer.json().keys() == (
            {"detail"} if fails else {"image_b64", "removed_for_safety"}
        )


def test_a_job_keeps_the_script_that_it_started_with(api: httpx.Client, mock: Mock) -> None:
    mock.jobs.progress = PollScript(pending=1)
    first, _ = start(api)
    assert api.post("/_mock/progress", json={"running": 1, "fails": 503}).json() == {
        "pending": 0, "running": 1, "fails": 503,
    }  # fmt: skip
    second, _ = start(api)
    assert [polled(api, url) for url in (first, second)] == ["pending", "running"]
    assert [polled(api, url) for url in (first, second)] == ["completed", "completed"]


@pytest.mark.parametrize(
    "wrong",
    [{"pending": -1}, {"running": 10**7}, {"pending": 1.5}, {"pending": True}, {"fails": 200}],
)
def test_an_invalid_script_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"pending|running|fails"):
        PollScript(**wrong)


def test_results_are_kept_for_24_hours_of_the_clock(api: httpx.Client, mock: Mock) -> None:
    poll_url, result_url = start(api)
    assert polled(api, poll_url) == "completed"
    mock.clock.advance(DAY_S - 60)
    assert api.get(result_url).status_code == 200
    assert api.post("/_mock/clock", json={"advance": 60}).json()["advanced"] == DAY_S
    for url in (poll_url, result_url):
        answer = api.get(url)
        assert answer.status_code == 404
        assert "no longer kept" in answer.json()["detail"]


def test_the_lifetime_begins_when_a_poll_says_completed(api: httpx.Client, mock: Mock) -> None:
    mock.jobs.progress = PollScript(pending=1)
    poll_url, result_url = start(api)
    upscale(api, **SMALL)  # the queue is in order, so the job before it is done now
    mock.clock.advance(10 * DAY_S)
    assert polled(api, poll_url) == "pending"
    mock.clock.advance(10 * DAY_S)
    assert polled(api, poll_url) == "completed"
    mock.clock.advance(DAY_S - 60)
    assert api.get(result_url).status_code == 200
    assert polled(api, poll_url) == "completed"
    mock.clock.advance(60)
    assert api.get(result_url).status_code == 404


def test_image_faults_are_applied_to_the_result(api: httpx.Client, mock: Mock) -> None:
    mock.faults.set("wrong-size,wrong-encoding,removed-for-safety,bad-base64,ok")
    results = [start_by_api(api) for _ in range(5)]
    answers = [api.get(url) for _, url in results]
    assert decoded(answers[0]).size == (151, 128)
    assert decoded(answers[1]).format == "JPEG"
    assert answers[2].json() == {"image_b64": None, "removed_for_safety": True}
    assert answers[3].json()["image_b64"].startswith("*")
    assert decoded(answers[4]).size == (152, 128)
    assert [entry.fault for entry in mock.journal.find(route="result")] == [
        None, None, "removed-for-safety", "bad-base64", None,
    ]  # fmt: skip


def start_by_api(api: httpx.Client) -> tuple[str, str]:
    told = api.post("/upscaling", json=SMALL, headers=ASYNC).json()
    return told["poll_url"], told["poll_url"].replace("requests", "responses")


def test_other_faults_are_applied_to_the_first_request(api: httpx.Client, mock: Mock) -> None:
    headers = ASYNC | {HEADER: "429"}
    assert api.post("/upscaling", json=SMALL, headers=headers).status_code == 429
    with pytest.raises(httpx.ReadError):
        start(api, fault="reset")
    poll_url, result_url = start(api, fault="latency=0.1+malformed".partition("+")[0])
    assert api.get(poll_url).json()["status"] == "completed"
    assert api.get(result_url).json()["removed_for_safety"] is False
    assert len(mock.calls) == 3


def test_polls_and_results_have_their_own_faults(api: httpx.Client, mock: Mock) -> None:
    mock.faults.set("503,ok", on="poll")
    mock.faults.set("429,truncated", on="result")
    poll_url, result_url = start(api)
    assert api.get(poll_url).status_code == 503
    assert polled(api, poll_url) == "completed"
    assert api.get(result_url).status_code == 429
    with pytest.raises(httpx.RemoteProtocolError):
        api.get(result_url)
    assert api.get(result_url).status_code == 200
    assert api.get(result_url, headers={HEADER: "401"}).status_code == 401


def test_a_reset_forgets_the_jobs(api: httpx.Client, mock: Mock) -> None:
    mock.jobs.progress = PollScript(pending=2)
    poll_url, _ = start(api)
    assert polled(api, poll_url) == "pending"
    mock.reset()
    assert api.get(poll_url).status_code == 404
    assert polled(api, start(api)[0]) == "completed"


@pytest.mark.parametrize("begun", [False, True])
def test_a_reset_during_a_job_leaves_nothing_counted(*, begun: bool) -> None:
    """Also while a poll waits for it."""
    model = UpscalingModel.X4_PLUS

    async def act() -> None:
        jobs = MockJobStore(2**30, clock=lambda: 0.0)
        shop = Scheduler(LocalBackend(Resizer()), Admission(2, 2**24), lambda _: None)
        task = UpscaleJob(
            b"", np.zeros((256, 256, 3), np.uint8), model, (512, 512), ImageEncoding.PNG
        )
        job_id = await jobs.start(shop.schedule(task, StageTimer()))
        polling = asyncio.ensure_future(jobs.status(job_id))
        if begun:
            await asyncio.sleep(0)
        jobs.reset()
        await asyncio.gather(polling, *jobs._tasks, return_exceptions=True)
        assert jobs.held_bytes == jobs.results_bytes == 0
        assert not jobs._expiring

    asyncio.run(act())


def test_an_id_is_useless_without_a_token(api: httpx.Client) -> None:
    """ASY-5, whichever fault the result has."""
    poll_url, result_url = start(api, fault="removed-for-safety")
    for url in (poll_url, result_url):
        assert httpx.get(url).status_code == 401


@given(st.lists(st.floats(0, 1e6), max_size=20))
def test_a_clock_runs_and_can_be_advanced(steps: list[float]) -> None:
    now_s = 5.0
    clock = Clock(lambda: now_s)
    for step in steps:
        clock.advance(step)
    assert clock() == pytest.approx(5 + sum(steps))
    now_s = 6.0
    assert clock() == pytest.approx(6 + sum(steps))
    clock.reset()
    assert clock() == 6


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_clock_cannot_go_back(seconds: float) -> None:
    with pytest.raises(ValueError, match="only be advanced"):
        Clock().advance(seconds)
