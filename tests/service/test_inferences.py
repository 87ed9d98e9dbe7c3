"""Asynchronous inferences over HTTP: repeated by their key, listed, cancelled and watched."""

import base64
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mock_server import Mock
from tests.service.test_overload import Gate
from tests.support.hostile_requests import SHARED
from tests.support.raw_http import PATIENCE_S
from tests.support.service import (
    GOOD,
    SETTINGS,
    TOKENS,
    Moody,
    Resizer,
    decoded,
    only_error,
    png,
    running,
    serving,
    upscale,
)
from upscaler.api.sizes import Size
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.resize import resize
from upscaler.models import UpscalingModel
from upscaler.service import events
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend, Progress, Upscaler
from upscaler.service.jobs.disk import DiskJobStore
from upscaler.service.jobs.store import JobStore

ASYNC = {"X-OctoAI-Async": "1"}
EVENTS = {"Accept": "text/event-stream"}

Serve = Callable[[Upscaler], Any]


@pytest.fixture(params=["memory", "disk", "mock"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    """Serves with each kind of store; the mock has a backend of its own."""

    @contextmanager
    def on(upscaler: Upscaler) -> Iterator[httpx.Client]:
        if request.param == "mock":
            app = Mock(tokens=TOKENS).app
        else:
            store = DiskJobStore(tmp_path, 2**30) if request.param == "disk" else None
            app = create_app(LocalBackend(upscaler), SETTINGS, store)
        with (
            running(app) as url,
            httpx.Client(base_url=url, timeout=PATIENCE_S, headers=bearer(TOKENS[0])) as client,
        ):
            yield client

    return on


@pytest.fixture(params=["memory", "disk"])
def slow(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    """Serves with each kind of store."""

    def on(upscaler: Upscaler) -> Any:
        store: JobStore | None = DiskJobStore(tmp_path, 2**30) if request.param == "disk" else None
        return serving(upscaler, SETTINGS, store)

    return on


def bearer(token: str) -> dict[str, Any]:
    return {"Authorization": f"Bearer {token}".encode()}


def started(api: httpx.Client, **headers: Any) -> str:
    answer = api.post("/upscaling", json=GOOD, headers=ASYNC | headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["response_id"])


def events_in(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    """The name, the id and the data of each event."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")
        )
        if fields:
            found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


class Stepwise(Resizer):
    """Makes a picture in strips, each when it may."""

    def __init__(self) -> None:
        self.pace = threading.Semaphore(0)

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        made = resize(pixels, size)
        for top in range(0, size[1], 128):
            while not self.pace.acquire(timeout=0.01):
                progress(top, size[1])
            progress(top + 128, size[1])
            yield made[top : top + 128]


# Repeated by a key


def test_the_same_key_and_request_have_the_same_response(serve: Serve) -> None:
    with serve(Resizer()) as api:
        key = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}
        ids = {started(api, **key) for _ in range(3)}
        ids.add(started(api, **{"Idempotency-Key": f'"{key["Idempotency-Key"]}"'}))
        assert len(ids) == 1
        at_once = [api.post("/upscaling", json=GOOD, headers=key) for _ in range(2)]
        assert at_once[0].content == at_once[1].content == upscale(api, **GOOD).content
        assert at_once[0].headers["Server-Timing"] == at_once[1].headers["Server-Timing"]
        assert len(api.get("/v1/requests").json()["requests"]) == 1
        assert started(api) not in ids
        assert started(api, **key, **bearer(TOKENS[1])) not in ids


def test_a_key_with_another_request_is_refused(serve: Serve) -> None:
    with serve(Resizer()) as api:
        key = {"Idempotency-Key": "one"}
        assert api.post("/upscaling", json=GOOD, headers=key).status_code == 200
        others: list[tuple[dict[str, Any], dict[str, str]]] = [
            ({**GOOD, "scale": 3}, {}),
            ({**GOOD, "init_image": png(256, 256)}, {}),
            ({**GOOD, "model": "real-esrgan-x4-v3"}, {}),
            (GOOD, {"Accept": "image/png"}),
        ]
        for fields, headers in others:
            answer = api.post("/upscaling", json=fields, headers=key | headers)
            assert only_error(answer)["type"] == "idempotency_key_reused"
        assert api.post("/upscaling", json={**GOOD, "model": None}, headers=key).status_code == 422
        assert api.post("/upscaling", json=GOOD, headers=key).status_code == 200


@SHARED
@given(st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=300))
def test_any_other_text_than_a_key_is_refused(served: httpx.Client, text: str) -> None:
    try:
        request = served.build_request(
            "POST", "/upscaling", json={}, headers={b"Idempotency-Key": text.encode("latin-1")}
        )
        answer = served.send(request)
    except httpx.LocalProtocolError:
        return  # no header can have it
    assert answer.status_code in (400, 422)


@pytest.fixture(scope="module")
def served() -> Iterator[httpx.Client]:
    with serving(Resizer()) as api:
        yield api


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256, '""'])
def test_a_key_that_is_none_is_refused(served: httpx.Client, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    answer = served.post("/upscaling", json=GOOD, headers=headers)
    assert only_error(answer)["type"] == "idempotency_key_invalid"


def test_requests_with_one_key_at_the_same_time_share_the_work(slow: Serve) -> None:
    gate = Gate()
    key = {"Idempotency-Key": "at once"[:2]}
    with slow(gate) as api, ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(api.post, "/upscaling", json=GOOD, headers=key, timeout=PATIENCE_S)
            for _ in range(4)
        ]
        assert gate.entered.acquire(timeout=PATIENCE_S)
        gate.opened.set()
        bodies = {each.result().content for each in asked}
        assert len(bodies) == 1
        assert not gate.entered.acquire(blocking=False), "it was made once"


def test_a_client_that_hangs_up_finds_its_picture_by_its_key(slow: Serve) -> None:
    gate = Gate()
    with slow(gate) as api:
        key = {"Idempotency-Key": "later"}
        with pytest.raises(httpx.ReadTimeout):
            api.post("/upscaling", json=GOOD, headers=key, timeout=0.5)
        assert gate.entered.acquire(timeout=PATIENCE_S)
        gate.opened.set()
        answer = api.post("/upscaling", json=GOOD, headers=key, timeout=PATIENCE_S)
        assert decoded(answer).size == (608, 512)
        assert not gate.entered.acquire(blocking=False), "it was made once"


def test_a_failure_is_repeated_as_well(slow: Serve) -> None:
    with slow(Moody()) as api:
        fields = {**GOOD, "model": "real-esrgan-x4-v3"}
        answers = [
            api.post("/upscaling", json=fields, headers={"Idempotency-Key": "x"}) for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert answers[0].json() == answers[1].json() == upscale(api, **fields).json()


# Listed


def test_a_token_lists_its_own_jobs_page_by_page(serve: Serve) -> None:
    with serve(Resizer()) as api:
        ids = [started(api) for _ in range(5)]
        other = started(api, **bearer(TOKENS[1]))
        found, before = [], None
        while True:
            query = {"limit": 2} | ({"before": before} if before else {})
            page = api.get("/v1/requests", params=query).json()
            assert len(page["requests"]) <= 2
            found += page["requests"]
            before = page.get("next_before")
            if before is None:
                break
        assert [each["response_id"] for each in found] == ids[::-1]
        for each in found:
            assert (each["output_width"], each["output_height"]) == (608, 512)
            assert each["poll_url"] == f"{base(api)}/v1/requests/{each['response_id']}"
            datetime.fromisoformat(each["created_at"])
        (theirs,) = api.get("/v1/requests", headers=bearer(TOKENS[1])).json()["requests"]
        assert theirs["response_id"] == other


def base(api: httpx.Client) -> str:
    return str(api.base_url).rstrip("/")


def test_all_are_removed_page_by_page(serve: Serve) -> None:
    """What a page ends with is removed before the next one is asked for."""
    with serve(Resizer()) as api:
        for _ in range(5):
            started(api)
        page, removed = api.get("/v1/requests", params={"limit": 2}).json(), 0
        while True:
            for each in page["requests"]:
                assert api.delete(each["poll_url"]).status_code == 204
                removed += 1
            if "next_before" not in page:
                break
            query = {"limit": 2, "before": page["next_before"]}
            page = api.get("/v1/requests", params=query).json()
        assert removed == 5
        assert api.get("/v1/requests").json() == {"requests": []}


@pytest.mark.parametrize("before", ["x", "", "-1", "1e9", "nan", "9" * 99, "²"])
def test_a_cursor_that_is_none_is_refused(served: httpx.Client, before: str) -> None:
    answer = served.get("/v1/requests", params={"before": before})
    assert only_error(answer)["loc"] == ["query", "before"]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "", "1.5", "9" * 5000, "²"])
def test_a_limit_that_is_none_is_refused(served: httpx.Client, limit: str) -> None:
    answer = served.get("/v1/requests", params={"limit": limit})
    assert only_error(answer)["loc"] == ["query", "limit"]


# Cancelled


def test_what_is_cancelled_stops_and_is_known_no_longer(slow: Serve) -> None:
    gate = Gate()
    with slow(gate) as api:
        job_id = started(api)
        assert gate.entered.acquire(timeout=PATIENCE_S)
        url = f"/v1/requests/{job_id}"
        assert api.delete(url, headers=bearer(TOKENS[1])).status_code == 404
        assert api.delete(url).status_code == 204
        for each in (url, f"{url}/events", f"/v1/responses/{job_id}"):
            assert api.get(each).status_code == 404
        assert api.delete(url).status_code == 404
        assert api.get("/v1/requests").json() == {"requests": []}
        gate.opened.set()
        assert decoded(upscale(api, **GOOD)).size == (608, 512)


def test_a_result_can_be_removed(serve: Serve) -> None:
    with serve(Resizer()) as api:
        url = f"/v1/requests/{started(api)}"
        while api.get(url).json()["status"] != "completed":
            pass
        assert api.delete(url).status_code == 204
        assert api.get(url.replace("requests", "responses")).status_code == 404


# Watched


def test_the_events_say_how_far_a_picture_is(slow: Serve) -> None:
    stepwise = Stepwise()
    with slow(stepwise) as api:
        before = started(api)
        with api.stream("POST", "/upscaling", json=GOOD, headers=EVENTS) as answer:
            assert answer.status_code == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            assert answer.headers["X-Accel-Buffering"] == "no"
            text = ""
            seen: list[tuple[str, str, dict[str, Any]]] = []
            stepwise.pace.release(4)
            for piece in answer.iter_text():
                text += piece
                events = events_in(text[: text.rfind("\n\n") + 2])
                for name, _, data in events[len(seen) :]:
                    if name == "progress" and data["rows_done"] < 512:
                        stepwise.pace.release()
                seen = events
        names = [name for name, _, _ in seen]
        assert names[0] == "queued"
        assert seen[0][2]["ahead"] == 1
        assert names[-1] == "completed"
        rows = [data["rows_done"] for name, _, data in seen if name == "progress"]
        assert rows == sorted(rows)
        assert {128, 256, 384} <= set(rows)
        assert all(data["rows"] == 512 for name, _, data in seen if name == "progress")
        assert all(data["seconds_left"] >= 0 for name, _, data in seen if name == "progress")
        assert len({event_id for _, event_id, _ in seen}) == len(seen)
        last = seen[-1][2]
        assert last["response_id"] != before
        assert decoded(api.get(last["response_url"])).size == (608, 512)


def test_whoever_comes_back_has_what_is_new_alone(slow: Serve) -> None:
    stepwise = Stepwise()
    with slow(stepwise) as api:
        url = f"/v1/requests/{started(api)}/events"
        stepwise.pace.release(2)
        last = ""
        while not last.startswith("progress-256"):
            with api.stream("GET", url) as answer:
                ((_, last, _),) = events_in(next(answer.iter_text()))
        stepwise.pace.release(2)
        ids = [event_id for _, event_id, _ in events_in(api.get(url).text)]
        assert ids[-1] == "completed"
        headers = {"Last-Event-ID": last}
        assert last not in [each for _, each, _ in events_in(api.get(url, headers=headers).text)]
        assert api.get(url, headers={"Last-Event-ID": "completed"}).text == ""


def test_a_failure_is_an_event(slow: Serve) -> None:
    with slow(Moody()) as api:
        fields = {**GOOD, "model": "real-esrgan-x4-v3"}
        text = api.post("/upscaling", json=fields, headers=EVENTS).text
        name, _, data = events_in(text)[-1]
        assert (name, data["status"]) == ("failed", 503)
        assert "secret" not in text
        assert api.get(data["response_url"]).status_code == 503


def test_a_cancellation_is_an_event(slow: Serve) -> None:
    gate = Gate()
    with slow(gate) as api:
        url = f"/v1/requests/{started(api)}"
        with api.stream("GET", f"{url}/events", timeout=PATIENCE_S) as watched:
            pieces = watched.iter_text()
            text = next(pieces)
            assert api.delete(url).status_code == 204
            text += "".join(pieces)
        name, _, data = events_in(text)[-1]
        assert (name, data["status"]) == ("failed", 404)


def test_those_who_watch_leave_connections_to_others(
    slow: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_WATCHERS", 2)
    gate = Gate()
    with slow(gate) as api:
        url = f"/v1/requests/{started(api)}/events"
        with api.stream("GET", url) as one, api.stream("GET", url) as two:
            # Kept, since httpx hangs up when nobody has them any more.
            pieces = one.iter_text(), two.iter_text()
            assert all(map(next, pieces))
            for refused in (api.get(url), api.post("/upscaling", json=GOOD, headers=EVENTS)):
                assert refused.status_code == 503
                assert int(refused.headers["Retry-After"]) > 0
            assert len(api.get("/v1/requests").json()["requests"]) == 1, "nothing was started"
        gate.opened.set()
        while api.get(url).status_code != 200:  # those who have left make room
            pass


def test_what_is_wrong_with_a_request_is_told_at_once(served: httpx.Client) -> None:
    """As without events: in the shape of all other errors."""
    answer = served.post("/upscaling", json={**GOOD, "scale": 0}, headers=EVENTS)
    assert only_error(answer)["loc"] == ["body", "scale"]
    assert served.get("/v1/requests/unknown/events").status_code == 404


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("text/*", None),
        ("text/event-stream;q=0, image/png", "image/png"),
        ("image/png, Text/Event-Stream", "text/event-stream"),
    ],
)
def test_events_are_sent_to_those_alone_who_name_them(
    served: httpx.Client, accept: str, media_type: str | None
) -> None:
    answer = served.post("/upscaling", json=GOOD, headers={"Accept": accept})
    assert answer.status_code == (200 if media_type else 406)
    if media_type:
        assert answer.headers["Content-Type"].partition(";")[0] == media_type
    if media_type == "text/event-stream":
        url = events_in(answer.text)[-1][2]["response_url"]
        assert served.get(url).headers["Content-Type"] == "image/png"


def test_results_on_disk_are_sent_whole_and_in_pieces(tmp_path: Path) -> None:
    """Of a picture of several megabytes, as JSON and as a file."""
    with serving(Resizer(), SETTINGS, DiskJobStore(tmp_path, 2**30)) as api:
        large = {**GOOD, "scale": 6}
        at_once = upscale(api, **large)
        assert len(at_once.content) > 2**21
        for accept in ("application/json", "image/png"):
            headers = ASYNC | {"Accept": accept}
            job = api.post("/upscaling", json=large, headers=headers).json()
            while api.get(job["poll_url"]).json()["status"] != "completed":
                pass
            answer = api.get(f"/v1/responses/{job['response_id']}")
            assert int(answer.headers["Content-Length"]) == len(answer.content)
            if accept == "image/png":
                assert answer.content == base64.b64decode(at_once.json()["image_b64"])
            else:
                assert answer.content == at_once.content
