"""What the mock notes of requests, what it says when a call is not as expected, and its routes."""

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mock_server import Entry, Mock
from mock_server.endpoints import ROUTES
from mock_server.faults.fault import HEADER
from mock_server.journal import journal, middleware
from mock_server.journal.journal import MAX_ENTRIES, MAX_TEXT, Journal
from tests.service.test_auth import CANARY, assert_absent, requests_with
from tests.support.mock_servers import mocked
from tests.support.paths import PHOTO
from tests.support.service import GOOD, upscale
from upscaler.api.request import MAX_BODY_BYTES

SMALL = {**GOOD, "scale": 0.5}
FILE = PHOTO.read_bytes()
DIGEST = hashlib.sha256(FILE).hexdigest()
TOLD = {"bytes": len(FILE), "sha256": DIGEST, "width": 304, "height": 256, "format": "png"}


def noted(api: httpx.Client, **filters: Any) -> list[dict[str, Any]]:
    answer = api.get("/_mock/requests", params=filters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["requests"]
    return found


# What is noted


def test_a_request_is_noted_as_it_was_sent_but_for_picture_and_token(
    api: httpx.Client, mock: Mock
) -> None:
    headers = {"X-User-Request-ID": "mine-1", HEADER: "wrong-size"}
    api.post("/upscaling?a=b", json=SMALL | {"model": "real-esrgan-x4-v3"}, headers=headers)
    (entry,) = noted(api)
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
def test_what_is_refused_is_noted_as_well(
    api: httpx.Client, body: bytes, fields: dict[str, Any] | None
) -> None:
    answer = api.post("/upscaling", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    (entry,) = noted(api)
    assert (entry["fields"], entry["status"]) == (fields, 422)
    assert entry["body_bytes"] == len(body)


def test_what_a_data_prefix_and_line_breaks_stand_around_is_the_file(api: httpx.Client) -> None:
    text = "data:image/png;base64," + base64.encodebytes(FILE).decode()
    assert upscale(api, init_image=text, scale=1).status_code == 200
    assert noted(api)[0]["fields"]["init_image"] == TOLD


def test_each_route_is_noted_and_the_mocks_own_are_not(api: httpx.Client) -> None:
    for path in ("/healthcheck", "/v1/requests/x", "/v1/responses/x", "/nothing", "/metrics"):
        api.get(path)
    api.get("/_mock/requests")
    api.get("/_mock/nothing")
    api.post("/upscaling", headers={"Authorization": "Bearer wrong"})
    assert [(entry["route"], entry["status"]) for entry in noted(api)] == [
        ("healthcheck", 200), ("poll", 404), ("result", 404), (None, 404), (None, 200),
        ("upscaling", 401),
    ]  # fmt: skip


def test_of_an_answer_that_was_faulted_the_body_is_noted(api: httpx.Client) -> None:
    """So that one can compare what a client sends when it tries again."""
    for fault in ("429", "503", "ok"):
        api.post("/upscaling", json=SMALL, headers={HEADER: fault})
    entries = noted(api)
    assert [entry["fields"] for entry in entries] == [{"init_image": TOLD, "scale": 0.5}] * 3
    assert [entry["fault"] for entry in entries] == ["429", "503", None]


def test_a_long_text_is_noted_in_short(api: httpx.Client) -> None:
    upscale(api, model="m" * 40_000, scale=1, **{"f" * 5000: "x"})
    fields = noted(api)[0]["fields"]
    digest = hashlib.sha256(b"m" * 40_000).hexdigest()
    assert fields["model"] == f"{'m' * 20}... (40000 characters, SHA-256 {digest})"
    assert max(map(len, fields)) < MAX_TEXT


def test_a_body_over_the_cap_is_refused_as_ever_and_not_noted(api: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(0, MAX_BODY_BYTES + 1, 2**20):
            yield b" " * 2**20

    headers = {"Content-Type": "application/json"}
    assert api.post("/upscaling", content=pieces(), headers=headers).status_code == 413
    (entry,) = noted(api)
    assert (entry["fields"], entry["status"]) == (None, 413)


def test_beyond_what_may_be_held_a_body_is_not_noted_and_answered_all_the_same(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "MAX_HELD_BYTES", 1000)
    assert upscale(api, **SMALL).status_code == 200
    assert upscale(api, scale=1).status_code == 422
    first, second = noted(api)
    assert (first["fields"], first["status"]) == (None, 200)
    assert first["body_bytes"] > len(FILE)
    assert second["fields"] == {"scale": 1}


def test_no_answer_begins_before_its_request_is_noted(
    mock: Mock, api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though a large body is read for the journal while the picture is being made."""
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


def test_a_token_is_noted_nowhere() -> None:
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


def test_other_credentials_are_not_noted(api: httpx.Client) -> None:
    for value in ("Basic hidden1", "hidden2", "Bearer hidden3 hidden4"):
        api.get("/livez", headers={"Authorization": value, "Cookie": "session=hidden5"})
    text = api.get("/_mock/requests").text
    assert "hidden" not in text
    assert '"Basic ***"' in text


sizes = st.lists(st.integers(0, 2000), max_size=40)


@given(sizes, st.integers(1, 20), st.integers(0, 5000))
def test_a_journal_has_its_bounds(files: list[int], entries: int, file_bytes: int) -> None:
    """The latest requests are kept, and of those the latest pictures."""
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


def test_beyond_its_bounds_the_journal_counts_what_it_forgets(
    api: httpx.Client, mock: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_ENTRIES == 1000
    monkeypatch.setattr(journal, "MAX_ENTRIES", 3)
    for _ in range(5):
        api.get("/livez")
    assert [entry["number"] for entry in noted(api)] == [3, 4, 5]
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
        assert [entry["number"] for entry in noted(api, **filters)] == numbers, filters


@pytest.mark.parametrize(
    ("query", "words"),
    [("colour=red", "unknown filter 'colour'"), ("status=ok", "status must be a number"),
     ("since=now", "since must be a number")],
)  # fmt: skip
def test_a_wrong_filter_is_told(api: httpx.Client, query: str, words: str) -> None:
    answer = api.get(f"/_mock/requests?{query}")
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


# What is expected of calls


def test_calls_are_as_expected(api: httpx.Client, mock: Mock, tmp_path: Path) -> None:
    mock.assert_not_called()
    api.get("/livez")
    mock.assert_not_called()
    upscale(api, **SMALL, output_image_encoding="jpeg")
    upscale(api, **SMALL)
    mock.assert_called_with()
    mock.assert_called_with(scale=0.5, output_image_encoding="jpeg", times=1)
    mock.assert_called_with(scale=0.5, times=2)
    mock.assert_called_with(output_image_encoding=None, model=None, times=1)
    mock.assert_called_with(scale=3, times=0)
    mock.assert_called_with(status=200, fault=None)
    mock.assert_called_with(headers={"content-type": "application/json", "X-None": None})
    mock.assert_called_with(headers={"Authorization": "Bearer mock-token"})
    again = tmp_path / "again.png"
    again.write_bytes(FILE)
    for picture in (FILE, again, str(again), DIGEST, Image.open(PHOTO)):
        mock.assert_called_with(init_image=picture, times=2)


def failure(mock: Mock, **expected: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        mock.assert_called_with(**expected)
    return str(caught.value)


def test_what_differed_is_told_of_the_nearest_call(api: httpx.Client, mock: Mock) -> None:
    upscale(api, **SMALL | {"scale": 3})
    upscale(api, **SMALL, model="real-esrgan-x2-plus")
    upscale(api, scale="2")
    assert failure(mock, scale=2, model="real-esrgan-x2-plus", init_image=FILE) == (
        "expected a matching call, but 0 of 3 matched\n"
        "the closest miss is request 2: POST /upscaling -> 200\n"
        "  scale: expected 2, but was 0.5\n"
        "  as expected: model, init_image"
    )
    assert "scale: expected 2, but was '2'" in failure(mock, scale=2, init_image=None)
    assert "init_image: expected not to be sent, but was {" in failure(
        mock, init_image=None, scale=0.5, model="real-esrgan-x2-plus"
    )
    assert failure(mock, output_image_encoding="jpeg", scale=3) == (
        "expected a matching call, but 0 of 3 matched\n"
        "the closest miss is request 1: POST /upscaling -> 200\n"
        "  output_image_encoding: expected 'jpeg', but was not sent (the default is 'png')\n"
        "  as expected: scale"
    )


def test_true_is_not_one(api: httpx.Client, mock: Mock) -> None:
    upscale(api, **SMALL | {"scale": 1})
    mock.assert_called_with(scale=1.0)
    assert "scale: expected True, but was 1" in failure(mock, scale=True)


def test_pictures_that_are_not_the_expected_one_are_told_apart(
    api: httpx.Client, mock: Mock
) -> None:
    photo = Image.open(PHOTO).convert("RGB")
    upscale(api, **SMALL)
    told = failure(mock, init_image=b"other")
    assert "init_image: expected a file of 5 bytes, SHA-256 " in told
    assert f"but was a file of {len(FILE)} bytes, SHA-256 {DIGEST[:12]}..., 304x256 png" in told
    assert "a file with the SHA-256 000000000000..." in failure(mock, init_image="0" * 64)
    smaller = failure(mock, init_image=photo.crop((0, 0, 300, 256)))
    assert "expected an image of 300x256 pixels, but was 304x256 pixels" in smaller
    changed = photo.copy()
    changed.paste("red", (0, 0, 152, 256))
    assert "% of its pixels differ" in failure(mock, init_image=changed)
    mock.calls[0].file = None
    assert "its file is no longer kept" in failure(mock, init_image=photo)
    with pytest.raises(TypeError, match="bytes, a path"):
        mock.assert_called_with(init_image=7)
    upscale(api, init_image="?", scale=7)
    assert "but was not valid base64" in failure(mock, init_image=DIGEST[::-1], scale=7)


def test_headers_that_are_not_as_expected_are_told(api: httpx.Client, mock: Mock) -> None:
    api.post("/upscaling", json=SMALL, headers={"Accept": "image/png"})
    told = failure(mock, headers={"accept": "image/jpeg", "X-None": "1", "Host": None})
    assert "headers accept: expected 'image/jpeg', but was 'image/png'" in told
    assert "headers X-None: expected '1', but was not sent" in told
    assert "headers Host: expected not to be sent, but was '127.0.0.1:" in told
    told = failure(mock, headers={"Authorization": "Bearer other"})
    assert "another value, but was 'Bearer ***' (the token is not kept)" in told
    assert "mock-token" not in told


def test_a_number_of_calls_is_told(api: httpx.Client, mock: Mock) -> None:
    assert failure(mock) == "expected a matching call, but 0 of 0 matched"
    mock.faults.set("429,ok")
    upscale(api, **SMALL)
    upscale(api, **SMALL)
    assert failure(mock, scale=0.5, times=1) == (
        "expected 1 matching calls, but 2 of 2 matched\n"
        "the matching calls:\n"
        "request 1: POST /upscaling -> 429, fault 429\n"
        "request 2: POST /upscaling -> 200"
    )
    assert failure(mock, status=429, times=2).startswith("expected 2 matching calls, but 1 of 2")
    with pytest.raises(AssertionError, match="expected no calls, but found:\nrequest 1: POST"):
        mock.assert_not_called()


def test_a_call_without_json_is_told_so(api: httpx.Client, mock: Mock) -> None:
    api.post("/upscaling", content=b"abc")
    assert "scale: expected 2, but the body was not a JSON object (3 bytes)" in failure(
        mock, scale=2
    )


def test_what_no_request_has_cannot_be_expected(mock: Mock) -> None:
    with pytest.raises(TypeError, match=r"unknown sclae; what can be expected: init_image,"):
        mock.assert_called_with(sclae=2)


# The routes


def test_the_routes_steer_the_mock(api: httpx.Client, mock: Mock) -> None:
    empty: dict[str, Any] = {"api": {}, "scenario": {}, "random": {}}
    assert api.get("/_mock/faults").json() == empty
    told = api.post("/_mock/faults", json={"sequence": "429x2", "random": {"503": 0.5}}).json()
    assert told == {"api": {"upscaling": "429x2"}, "scenario": {}, "random": {"503": 0.5}}
    assert upscale(api, **SMALL).status_code == 429
    assert api.get("/_mock/faults").json()["api"] == {"upscaling": "429"}
    told = api.post("/_mock/faults", json={"sequence": "ok", "on": "poll"}).json()
    assert told["api"] == {"upscaling": "429", "poll": "ok"}
    assert api.delete("/_mock/faults").json() == empty
    assert upscale(api, **SMALL).status_code == 200
    assert api.delete("/_mock/requests").json() == {"requests": [], "dropped": 0}
    assert noted(api) == []
    assert mock.calls == []


def test_a_reset_is_a_new_beginning(api: httpx.Client, mock: Mock) -> None:
    api.post("/_mock/faults", json={"sequence": "429x*", "random": {"503": 1}})
    api.post("/_mock/clock", json={"advance": 1000})
    api.post("/_mock/progress", json={"pending": 3})
    assert upscale(api, **SMALL).status_code == 429
    assert api.post("/_mock/reset").json() == {"status": "ok"}
    assert noted(api) == []
    assert api.get("/_mock/clock").json()["advanced"] == 0
    assert api.get("/_mock/progress").json() == {"pending": 0, "running": 0, "fails": None}
    assert upscale(api, **SMALL).status_code == 200
    assert noted(api)[0]["number"] == 1


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("faults", "{", "the body is not valid JSON"),
        ("faults", "[]", "send a JSON object"),
        ("faults", "{}", 'send {"sequence": "429x2,ok"}'),
        ("faults", '{"sequence": 429}', "sequence and on must be strings"),
        ("faults", '{"sequence": "teapot"}', "unknown fault 'teapot'"),
        ("faults", '{"sequence": "ok", "on": "tea"}', "unknown route 'tea'"),
        ("faults", '{"random": [1]}', "random must be an object of probabilities"),
        ("faults", '{"random": {"429": 2}}', "must be a number from 0 to 1"),
        ("faults", '{"colour": 1}', "unknown key 'colour'; use one of sequence, on, random"),
        ("clock", "{}", 'send {"advance": 86400}'),
        ("clock", '{"advance": -1}', "a clock can only be advanced"),
        ("clock", '{"advance": true}', 'send {"advance": 86400}'),
        ("progress", '{"pending": -1}', "pending must be a number of polls"),
        ("progress", '{"fails": 200}', "fails must be one of 500, 503"),
        ("progress", '{"colour": 1}', "unknown key 'colour'; use one of pending, running"),
        ("faults", " " * (2**20 + 1), "a body may have at most"),
    ],
)
def test_what_cannot_be_is_told_in_words(
    api: httpx.Client, path: str, body: str, words: str
) -> None:
    before = api.get("/_mock/faults").json()
    answer = api.post(f"/_mock/{path}", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]
    assert api.get("/_mock/faults").json() == before, "and nothing of it is done"


def test_other_paths_and_methods_are_told(api: httpx.Client) -> None:
    for method, path, status in (("GET", "nothing", 404), ("GET", "reset", 405), ("PUT", "", 404)):
        answer = api.request(method, f"/_mock/{path}")
        assert answer.status_code == status
        assert isinstance(answer.json()["detail"], str)
        assert answer.headers["X-User-Request-ID"]


def test_the_routes_are_no_part_of_the_api_and_can_be_left_out(api: httpx.Client) -> None:
    assert "_mock" not in api.get("/openapi.json").text
    with mocked(Mock(admin=False)) as closed:
        for method, path in (("GET", "requests"), ("POST", "reset"), ("POST", "faults")):
            answer = closed.request(method, f"/_mock/{path}")
            assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_the_routes_that_can_have_faults_are_those_of_the_document() -> None:
    assert set(ROUTES) == {"upscaling", "poll", "result", "healthcheck"}


def test_a_picture_of_an_entry_without_one_is_told() -> None:
    with pytest.raises(LookupError, match="request 0 has no image"):
        _ = Entry(0, "", "GET", "/", "", {}).image
