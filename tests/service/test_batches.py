"""Batches: many requests at once, watched, fetched one by one or as a ZIP, and cancelled."""

import base64
import gzip
import io
import json
import sqlite3
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mock_server import Mock
from tests.service.test_inferences import bearer, events_in
from tests.service.test_overload import Gate
from tests.support.image_files import saved
from tests.support.raw_http import PATIENCE_S
from tests.support.service import (
    GOOD,
    PHOTO_B64,
    SETTINGS,
    TOKENS,
    Moody,
    Resizer,
    only_error,
    png,
    running,
    serving,
    upscale,
)
from upscaler.errors import StoreUnavailable
from upscaler.service import batch_bodies, batches
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend, ScheduledJob, Upscaler
from upscaler.service.jobs.database import Database
from upscaler.service.jobs.disk import DiskJobStore
from upscaler.service.jobs.memory import MemoryJobStore
from upscaler.service.jobs.store import Submission

LINES = {"Content-Type": "application/jsonl"}
FIELD_LAST = (
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nx\r\n'
    b'--b\r\nContent-Disposition: form-data; name="scale"\r\n\r\n2\r\n--b--\r\n'
)
PNG = base64.b64decode(png(256, 256))
Serve = Callable[[Upscaler], AbstractContextManager[httpx.Client]]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LOOK_S", 0.02)
    monkeypatch.setattr(batches, "RETRY_S", 0.01)


@pytest.fixture(params=["memory", "disk", "mock"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    @contextmanager
    def on(upscaler: Upscaler) -> Iterator[httpx.Client]:
        store = DiskJobStore(tmp_path, 2**30) if request.param == "disk" else None
        app = create_app(LocalBackend(upscaler), SETTINGS, store)
        if request.param == "mock":
            app = Mock(tokens=TOKENS).app
        headers = bearer(TOKENS[0])
        with running(app) as url, httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
            client.headers.update(headers)
            yield client

    return on


@pytest.fixture(scope="module")
def served() -> Iterator[httpx.Client]:
    with serving(Resizer()) as api:
        yield api


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    """One part of a form, without the boundary after it."""
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def lines(*requests: object) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in requests)


def create(api: httpx.Client, *requests: object, **headers: str) -> dict[str, Any]:
    answer = api.post("/v1/batches", content=lines(*requests), headers=LINES | headers)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    assert made["total"] == len(made["members"])
    return made


def finished(api: httpx.Client, batch: dict[str, Any]) -> dict[str, Any]:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        found: dict[str, Any] = api.get(batch["batch_url"]).json()
        counts = [found["pending"], found["running"], found["completed"]]
        assert sum(counts) == found["total"]
        if found["completed"] == found["total"]:
            return found
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def small(number: int) -> str:
    """A picture that no other is."""
    return base64.b64encode(saved(np.full((256, 256, 3), number, np.uint8), "PNG")).decode()


def test_each_request_has_its_result_or_what_is_wrong_with_it(serve: Serve) -> None:
    with serve(Moody()) as api:
        good = [{"name": f"p/{n}.jpg", "init_image": small(n), "scale": 1} for n in range(5)]
        bad: list[Any] = [{**GOOD, "scale": 0}, {"init_image": png(9, 9), "scale": 2}, [1], "x"]
        batch = create(api, *good[:3], *bad, *good[3:])
        found = finished(api, batch)
        errors = [member.get("error", {}).get("status") for member in found["members"]]
        assert errors == [None] * 3 + [422] * 4 + [None] * 2
        assert found["failed"] == 4
        names = [member["name"] for member in found["members"] if "error" not in member]
        assert names == [f"{n}.png" for n in range(5)]
        for n, member in enumerate(each for each in found["members"] if "error" not in each):
            answer = api.get(member["response_url"])
            assert answer.headers["Content-Type"] == "image/png"
            assert np.asarray(Image.open(io.BytesIO(answer.content))).max() == n


def test_a_form_of_files_has_its_fields_in_common(serve: Serve) -> None:
    with serve(Resizer()) as api:
        files = [
            ("files", (f"photo {n}.png", base64.b64decode(small(n)), "image/png")) for n in range(4)
        ]
        data = {"scale": "2", "output_image_encoding": "jpeg"}
        answer = api.post("/v1/batches", data=data, files=[*files, ("f", ("x.png", b"none"))])
        found = finished(api, answer.json())
        assert [each["name"] for each in found["members"]][:4] == [
            f"photo_{n}.jpg" for n in range(4)
        ]
        assert found["failed"] == 1
        picture = Image.open(io.BytesIO(api.get(found["members"][0]["response_url"]).content))
        assert (picture.format, picture.size) == ("JPEG", (512, 512))


def test_a_zip_has_all_results_and_errors(serve: Serve) -> None:
    with serve(Moody()) as api:
        good = [{"name": "same", "init_image": small(n), "scale": 1} for n in range(3)]
        batch = create(api, *good, {**GOOD, "scale": 0})
        archive = zipfile.ZipFile(io.BytesIO(api.get(batch["zip_url"]).content))
        assert archive.testzip() is None
        assert set(archive.namelist()) == {f"{n:04d}-same.png" for n in range(3)} | {"errors.json"}
        for n in range(3):
            data = archive.read(f"{n:04d}-same.png")
            assert np.asarray(Image.open(io.BytesIO(data))).max() == n
        assert json.loads(archive.read("errors.json"))["0003-0004"]["status"] == 422


def test_results_come_as_events_and_none_twice_to_whoever_comes_back(serve: Serve) -> None:
    with serve(Moody()) as api:
        batch = create(api, *({"init_image": small(n), "scale": 1} for n in range(6)))
        events = events_in(api.get(batch["events_url"]).text)
        assert [name for name, _, _ in events] == ["result"] * 6 + ["completed"]
        assert sorted(data["index"] for _, _, data in events[:-1]) == list(range(6))
        assert events[-1][2] == {"done": 6, "total": 6}
        for name, _, data in events[:-1]:
            assert name == "result"
            assert api.get(data["response_url"]).status_code == 200
        _, last, _ = events[2]
        again = api.get(batch["events_url"], headers={"Last-Event-ID": last}).text
        indices = {data["index"] for name, _, data in events_in(again) if name == "result"}
        assert indices == {data["index"] for _, _, data in events[3:-1]}


def test_a_batch_is_its_owners_alone(serve: Serve) -> None:
    with serve(Resizer()) as api:
        batch = create(api, {"init_image": small(1), "scale": 1})
        for path in ("", "/events", "/zip"):
            url = batch["batch_url"] + path
            assert api.get(url, headers=bearer(TOKENS[1])).status_code == 404
        assert api.delete(batch["batch_url"], headers=bearer(TOKENS[1])).status_code == 404
        assert api.get("/v1/batches/unknown").status_code == 404
        assert api.get(batch["batch_url"]).status_code == 200


def test_a_batch_that_is_sent_again_with_its_key_is_made_once(serve: Serve) -> None:
    with serve(Resizer()) as api:
        requests = [{"init_image": small(n), "scale": 1} for n in range(4)]
        key = {"Idempotency-Key": "batch"}
        first, second = (create(api, *requests, **key) for _ in range(2))
        ids = [[member["response_id"] for member in each["members"]] for each in (first, second)]
        assert ids[0] == ids[1]
        assert len(api.get("/v1/requests").json()["requests"]) == 4


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_more_than_the_queue_holds_and_all_is_cancelled_at_once(kind: str, tmp_path: Path) -> None:
    gate = Gate()
    store = DiskJobStore(tmp_path, 2**32) if kind == "disk" else None
    with serving(gate, SETTINGS, store) as api:
        requests = [{"init_image": small(n), "scale": 1} for n in range(40 if store else 10)]
        batch = create(api, *requests)
        assert gate.entered.acquire(timeout=PATIENCE_S)
        assert batch["completed"] == 0
        assert api.delete(batch["batch_url"]).status_code == 204
        assert api.get(batch["batch_url"]).status_code == 404
        assert api.get("/v1/requests").json() == {"requests": []}
        gate.opened.set()
        assert upscale(api, **GOOD).status_code == 200


def test_a_batch_waits_for_room_in_a_queue(serve: Serve) -> None:
    """The queue of a store in memory has 16 places."""
    with serve(Resizer()) as api:
        batch = create(api, *({"init_image": small(n), "scale": 1} for n in range(60)))
        assert finished(api, batch)["failed"] == 0


def test_half_a_batch_is_cancelled(served: httpx.Client) -> None:
    """One whose body ends with too many requests."""
    requests = [{"init_image": small(n), "scale": 1} for n in range(3)]
    body = lines(*requests) + b"{}\n" * batch_bodies.MOST_MEMBERS
    answer = served.post("/v1/batches", content=body, headers=LINES)
    assert answer.status_code == 413
    assert served.get("/v1/requests").json() == {"requests": []}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/jsonl", b"\n\n"),
        ("multipart/form-data; boundary=b", part("scale", b"2") + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", part("f", PNG, "a.png")),
        ("multipart/form-data; boundary=b", part("f", PNG * 9) + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", part("f", PNG, "a.png") + part("f", PNG, "b")[:-9]),
        (
            "multipart/form-data; boundary=b",
            part("init_image", b"eA==") + part("f", PNG, "a.png") + b"--b--\r\n",
        ),
        ("application/json", b"{}"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"no form"),
        ("", b""),
        (
            "multipart/form-data; boundary=b",
            FIELD_LAST,
        ),
    ],
)
def test_another_body_is_refused(served: httpx.Client, content_type: str, body: bytes) -> None:
    headers = {"Content-Type": content_type}
    answer = served.post("/v1/batches", content=body, headers=headers)
    assert only_error(answer)["type"] in ("content_type", "form_invalid", "batch_empty")
    assert served.get("/v1/requests").json() == {"requests": []}


def test_a_compressed_batch_is_refused(served: httpx.Client) -> None:
    body = gzip.compress(lines({"init_image": small(1), "scale": 1}))
    for coding in ("gzip", "br", "identity, deflate"):
        headers = LINES | {"Content-Encoding": coding}
        answer = served.post("/v1/batches", content=body, headers=headers)
        assert answer.status_code == 415
        assert answer.headers["Accept-Encoding"] == "identity"


def test_a_batch_that_cannot_be_kept_is_cancelled(
    served: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(MemoryJobStore, "put_batch", full)
    body = lines({"init_image": small(1), "scale": 1})
    assert served.post("/v1/batches", content=body, headers=LINES).status_code == 503
    assert served.get("/v1/requests").json() == {"requests": []}


def test_a_batch_is_looked_up_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One job after the other, a few who watch would keep a database busy."""
    read, queries = Database._read, list[str]()

    def noting(database: Database, query: str, *values: object) -> list[sqlite3.Row]:
        queries.append(query)
        return read(database, query, *values)

    gate = Gate()
    with serving(gate, SETTINGS, DiskJobStore(tmp_path, 2**32)) as api:
        batch = create(api, *({"init_image": small(n), "scale": 1} for n in range(20)))
        monkeypatch.setattr(Database, "_read", noting)
        assert api.get(batch["batch_url"]).json()["completed"] == 0
        monkeypatch.undo()
        gate.opened.set()
    assert len([query for query in queries if "id" in query and "messages" not in query]) < 10


def test_looks_at_batches_become_rarer_when_they_take_long() -> None:
    assert batches._pause_s(0.0) == batches.LOOK_S
    assert batches._pause_s(2.0) == 8.0


def test_what_waits_to_be_written_counts_as_memory(tmp_path: Path) -> None:
    """Its pixels take far more than its file."""
    app = create_app(LocalBackend(Resizer()), SETTINGS, DiskJobStore(tmp_path, 2**31))
    held: list[int] = []
    with running(app) as url, httpx.Client(base_url=url, timeout=PATIENCE_S) as api:
        api.headers.update(bearer(TOKENS[0]))
        start = DiskJobStore.start

        async def noting(store: DiskJobStore, job: ScheduledJob, submission: Submission) -> str:
            held.append(job._scheduler.admission.held_bytes)
            return await start(store, job, submission)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DiskJobStore, "start", noting)
            create(api, {"init_image": small(1), "scale": 1})
            asynchronous = {"X-OctoAI-Async": "1"}
            body = {"init_image": small(1), "scale": 1}
            assert api.post("/upscaling", json=body, headers=asynchronous).status_code == 200
        assert len(held) == 2
        assert min(held) > 256 * 256 * 3


def test_a_request_that_is_too_large_is_told_as_such(
    served: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_bodies, "MOST_MEMBER_BYTES", 5000)
    good = {"init_image": small(1), "scale": 1}
    batch = create(served, good, GOOD, good)
    errors = [each.get("error", {}).get("status") for each in batch["members"]]
    assert errors == [None, 413, None]
    files = [("f", ("a.png", base64.b64decode(PHOTO_B64))), ("f", ("b.png", b"x"))]
    answer = served.post("/v1/batches", data={"scale": "1"}, files=files)
    assert [each["error"]["status"] for each in answer.json()["members"]] == [413, 422]


@given(st.sets(st.integers(0, 999)))
def test_the_ids_of_events_say_what_was_seen(numbers: set[int]) -> None:
    assert batches._seen(batches._ranges(numbers)) == numbers


@given(st.text(max_size=200))
def test_no_other_text_is_an_id_that_harms(text: str) -> None:
    assert len(batches._seen(text)) <= 1000


@given(st.text(max_size=300))
def test_names_are_those_of_files(name: str) -> None:
    sane = batch_bodies._sane(name, "0001")
    assert sane
    assert len(sane.encode()) <= 200
    assert not set(sane) & set('/\\:*?"<>|\0\n\r ')
    assert not sane.startswith(".")
