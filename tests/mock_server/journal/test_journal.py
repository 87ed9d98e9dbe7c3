"""What the journal keeps of requests, and the filters."""

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mock_server import Entry, Mock
from mock_server.endpoints import ROUTES
from mock_server.faults.fault import HEADER
from mock_server.journal import journal, middleware
from mock_server.journal.journal import MAX_ENTRIES, MAX_TEXT, Journal
from tests.service.test_auth import CANARY, assert_absent, requests_with
from tests.support.mock_servers import SMALL, mocked, recorded
from tests.support.paths import PHOTO
from tests.support.service import upscale
from upscaler.api.limits import MAX_BODY_BYTES

FILE = PHOTO.read_bytes()
DIGEST = hashlib.sha256(FILE).hexdigest()
TOLD = {"bytes": len(FILE), "sha256": DIGEST, "width": 304, "height": 256, "format": "png"}


# What is recorded


def test_a_request_is_recorded_without_image_and_token(api: httpx.Client, mock: Mock) -> None:
    headers = {"X-User-Request-ID": "mine-1", HEADER: "wrong-size"}
    api.post("/upscaling?a=b", json=SMALL | {"model": "real-esrgan-x4-v3"}, headers=headers)
    (entry,) = recorded(api)
    assert abs(entry.pop("time") - mock.clock()) < 60
    assert entry.pop("headers") == {
        "accept": "*/*",
        "accept-encoding": "gzip, deflate",
        "authorization": "Bearer ***",
        "connection": "keep-alive",
        "content-length": str(entry["body_bytes"]),
        "content-type": "application/json",
        "host": f"127.0.0.1:{api.base_url.port}",
        "user-agent": f"python-httpx/{httpx.__version__}",
        "x-mock-fault": "wrong-size",
        "x-user-request-id": "mine-1",
    }
    assert entry.pop("body_bytes") > len(FILE)
    assert entry == {
        "number": 1,
        "request_id": "mine-1",
        "method": "POST",
        "path": "/upscaling",
        "query": "a=b",
        "route": "upscaling",
        "fields": {"init_image": TOLD, "scale": 0.5, "model": "real-esrgan-x4-v3"},
        "status": 200,
        "fault": "wrong-size",
        "fault_from": "header",
    }
    assert mock.calls[0].file == FILE
    assert mock.calls[0].image.size == (304, 256)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", None),
        (b"not JSON", None),
        (b"[1]", None),
        (b"{}", {}),
        (b'{"init_image": "?", "scale": "2", "x": null}',
         {"init_image": {"characters": 1}, "scale": "2", "x": None}),
        (b'{"init_image": "AAAA"}',
         {"init_image": {"bytes": 3, "sha256": hashlib.sha256(bytes(3)).hexdigest()}}),
        (b'{"init_image": 7, "scale": [1, 2]}', {"init_image": 7, "scale": "[1, 2]"}),
    ],
)  # fmt: skip
def test_refused_requests_are_recorded(
    api: httpx.Client, body: bytes, fields: dict[str, Any] | None
) -> None:
    answer = api.post("/upscaling", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    (entry,) = recorded(api)
    assert (entry["fields"], entry["status"]) == (fields, 422)
    assert entry["body_bytes"] == len(body)


def test_a_data_prefix_and_line_breaks_are_not_part_of_the_file(api: httpx.Client) -> None:
    text = "data:image/png;base64," + base64.encodebytes(FILE).decode()
    assert upscale(api, init_image=text, scale=1).status_code == 200
    assert recorded(api)[0]["fields"]["init_image"] == TOLD


def test_each_route_is_recorded_but_the_mocks_own(api: httpx.Client) -> None:
    for path in ("/healthcheck", "/v1/requests/x", "/v1/responses/x", "/nothing", "/metrics"):
        api.get(path)
    api.get("/_mock/requests")
    api.get("/_mock/nothing")
    api.post("/upscaling", headers={"Authorization": "Bearer wrong"})
    assert [(entry["route"], entry["status"]) for entry in recorded(api)] == [
        ("healthcheck", 200), ("poll", 404), ("result", 404), (None, 404), (None, 200),
        ("upscaling", 401),
    ]  # fmt: skip


def test_requests_with_faults_are_recorded_with_their_body(api: httpx.Client) -> None:
    """A test can then compare what a client sends when it retries."""
    for fault in ("429", "503", "ok"):
        api.post("/upscaling", json=SMALL, headers={HEADER: fault})
    entries = recorded(api)
    assert [entry["fields"] for entry in entries] == [{"init_image": TOLD, "scale": 0.5}] * 3
    assert [entry["fault"] for entry in entries] == ["429", "503", None]


def test_long_texts_are_shortened(api: httpx.Client) -> None:
    upscale(api, model="m" * 40_000, scale=1, **{"f" * 5000: "x"})
    fields = recorded(api)[0]["fields"]
    digest = hashlib.sha256(b"m" * 40_000).hexdigest()
    assert fields["model"] == f"{'m' * 20}... (40000 characters, SHA-256 {digest})"
    assert max(map(len, fields)) < MAX_TEXT


def test_a_body_over_the_limit_is_not_recorded(api: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(0, MAX_BODY_BYTES + 1, 2**20):
            yield b" " * 2**20

    headers = {"Content-Type": "application/json"}
    assert api.post("/upscaling", content=pieces(), headers=headers).status_code == 413
    (entry,) = recorded(api)
    assert (entry["fields"], entry["status"]) == (None, 413)


def test_a_body_over_the_budget_is_not_recorded(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "MAX_HELD_BYTES", 1000)
    assert upscale(api, **SMALL).status_code == 200
    assert upscale(api, scale=1).status_code == 422
    first, second = recorded(api)
    assert (first["fields"], first["status"]) == (None, 200)
    assert first["body_bytes"] > len(FILE)
    assert second["fields"] == {"scale": 1}


def test_a_request_is_recorded_before_its_response_begins(
    mock: Mock, api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the journal reads a large body while the image is being upscaled."""
    read = mock.journal.read_body

    def slowly(entry: Entry, body: bytes) -> None:
        time.sleep(0.3)
        read(entry, body)

    monkeypatch.setattr(middleware, "INLINE_BYTES", 1000)
    monkeypatch.setattr(mock.journal, "read_body", slowly)
    for fields, status in ((SMALL, 200), (SMALL | {"scale": 0}, 422)):
        with api.stream("POST", "/upscaling", json=fields) as answer:
            latest = mock.calls[-1]
            assert (answer.status_code, latest.status) == (status, status)
            assert latest.fields is not None
            assert latest.fields["init_image"] == TOLD


def test_tokens_are_never_recorded() -> None:
    with mocked(Mock(tokens=["other", CANARY])) as api:
        sent = 0
        for method, path, headers, fields in requests_with(CANARY):
            content = b"" if fields is None else json.dumps(fields).encode()
            lines = {"Content-Type": "application/json", **headers}
            api.request(method, path, headers=lines, content=content)
            sent += 1
        answer = api.get("/_mock/requests")
        assert len(answer.json()["requests"]) == sent
        assert_absent(CANARY, answer.text)


def test_other_credentials_are_not_recorded(api: httpx.Client) -> None:
    for value in ("Basic hidden1", "hidden2", "Bearer hidden3 hidden4"):
        api.get("/livez", headers={"Authorization": value, "Cookie": "session=hidden5"})
    text = api.get("/_mock/requests").text
    assert "hidden" not in text
    assert '"Basic ***"' in text


sizes = st.lists(st.integers(0, 2000), max_size=40)


@given(sizes, st.integers(1, 20), st.integers(0, 5000))
def test_a_journal_keeps_the_latest_requests_and_images(
    files: list[int], entries: int, file_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "MAX_ENTRIES", entries)
        patch.setattr(journal, "MAX_FILE_BYTES", file_bytes)
        kept = Journal(lambda: 0.0)
        for size in files:
            kept.add(Entry(0, "", "POST", "/upscaling", "", {}, file=bytes(size)))
    assert [entry.number for entry in kept.entries] == (
        list(range(1, len(files) + 1))[max(0, len(files) - entries) :]
    )
    assert kept.dropped == max(0, len(files) - entries)
    held = [len(entry.file) for entry in kept.entries if entry.file is not None]
    assert sum(held) <= file_bytes
    latest = files[max(0, len(files) - entries) :]
    if sum(latest) <= file_bytes:
        assert held == latest


def test_dropped_requests_are_counted(
    api: httpx.Client, mock: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_ENTRIES == 1000
    monkeypatch.setattr(journal, "MAX_ENTRIES", 3)
    for _ in range(5):
        api.get("/livez")
    assert [entry["number"] for entry in recorded(api)] == [3, 4, 5]
    assert api.get("/_mock/requests").json()["dropped"] == mock.journal.dropped == 2


# The filters


def test_requests_can_be_filtered(api: httpx.Client, mock: Mock) -> None:
    upscale(api, **SMALL)
    mock.clock.advance(100)
    since = mock.clock()
    upscale(api, **SMALL, model="real-esrgan-x2-plus")
    api.post("/upscaling", json=SMALL, headers={HEADER: "429"})
    api.get("/livez")
    for filters, numbers in (
        ({}, [1, 2, 3, 4]),
        ({"path": "/upscaling"}, [1, 2, 3]),
        ({"route": "upscaling", "status": 200}, [1, 2]),
        ({"method": "GET"}, [4]),
        ({"model": "real-esrgan-x2-plus"}, [2]),
        ({"fault": "429"}, [3]),
        ({"fault": "any"}, [3]),
        ({"since": since}, [2, 3, 4]),
        ({"limit": 2}, [3, 4]),
        ({"limit": 0}, []),
        ({"path": "/upscaling", "limit": 1}, [3]),
        ({"status": 500}, []),
    ):
        assert [entry["number"] for entry in recorded(api, **filters)] == numbers, filters


@pytest.mark.parametrize(
    ("query", "words"),
    [("colour=red", "unknown filter 'colour'"), ("status=ok", "status must be a number"),
     ("since=now", "since must be a number")],
)  # fmt: skip
def test_an_invalid_filter_is_explained(api: httpx.Client, query: str, words: str) -> None:
    answer = api.get(f"/_mock/requests?{query}")
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


def test_the_routes_that_can_have_faults_are_these() -> None:
    assert set(ROUTES) == {"upscaling", "poll", "result", "healthcheck"}


def test_an_entry_without_an_image_is_a_lookup_error() -> None:
    with pytest.raises(LookupError, match="request 0 has no image"):
        _ = Entry(0, "", "GET", "/", "", {}).image
