"""What is recorded is judged by the same rules, and nothing is sent."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from PIL import Image

from contract_tests.cli import main
from mock_server.journal.har import HarFile, HarMiddleware
from mock_server.mock import Mock
from mock_server.serving.connection import MockConnection
from tests.support.contract_cli import TOKEN
from tests.support.mock_servers import mock_child
from tests.support.paths import ROOT
from tests.support.service import running

PHOTO: Final = (ROOT / "docs" / "photo.png").read_bytes()
SENT: Final = {"init_image": base64.b64encode(PHOTO).decode(), "scale": 0.5}
HEADERS: Final = {"Authorization": f"Bearer {TOKEN}"}


@contextmanager
def recording(file: Path) -> Iterator[httpx.Client]:
    """A client of a mock whose exchanges are written to `file`."""
    mock, written = Mock(tokens=[TOKEN]), HarFile(file)
    try:
        with (
            running(HarMiddleware(mock.app, written, mock.tokens), MockConnection) as url,  # type: ignore[arg-type]
            httpx.Client(base_url=url, headers=HEADERS, timeout=30) as client,
        ):
            yield client
    finally:
        written.close()


def judged(file: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit status and the JSON report."""
    report = file.with_suffix(".json")
    status = main(["--har", str(file), "--report", str(report), *options])
    return status, json.loads(report.read_text())


def test_a_report_of_recorded_traffic_shows_nothing_that_would_be_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    file = written(tmp_path / "a.har", entry(), entry(request={"url": "https://a.example/other"}))
    _, report = judged(file, "--html", str(page))
    assert report["recorded"] is True
    shown = page.read_text()
    assert "recorded, and nothing sent" in shown
    assert not [word for word in ("<dt>Spent", "<dt>Examples", "<dt>Requests") if word in shown]
    assert "left out: 1 exchange of other URLs or methods" in capsys.readouterr().out


def test_what_the_mock_refuses_for_its_own_headers_is_not_recorded(tmp_path: Path) -> None:
    file = tmp_path / "traffic.har"
    with recording(file) as api:
        for wrong in ({"X-Mock-Session": "a b"}, {"X-Mock-Fault": "no-fault"}):
            assert api.post("/upscaling", json=SENT, headers=wrong).status_code == 400
        api.post("/upscaling", json=SENT, headers={"X-Mock-Session": "a"})
    recorded = json.loads(file.read_text())["log"]["entries"]
    assert [each["response"]["status"] for each in recorded] == [200]


@pytest.mark.parametrize("level", ["documented", "strict"])
def test_nothing_is_found_wrong_with_what_the_mock_recorded(
    tmp_path: Path, level: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "traffic.har"
    with (
        mock_child(tmp_path, "--token", TOKEN, "--verify-log", str(file)) as mock,
        httpx.Client(base_url=mock.url, headers=HEADERS, timeout=30) as api,
    ):
        api.get("/healthcheck")
        api.get("/_mock/requests")
        api.post("/upscaling", json=SENT)
        api.post("/upscaling", json=SENT, headers={"Accept": "image/png"})
        api.post("/upscaling", json=SENT, headers={"X-OctoAI-Async": "1"})
        api.post("/upscaling", json=SENT | {"scale": "two", "note": TOKEN})
        api.post("/upscaling", content=b"\xff", headers={"Content-Type": "application/json"})
        api.post("/upscaling", json=SENT, headers={"Authorization": "Bearer another"})
        api.post("/upscaling", json=SENT, headers={"X-Mock-Fault": "429"})
        api.request("OPTIONS", "/upscaling")
        entries = json.loads(file.read_text())["log"]["entries"]
        assert len(entries) == 9, "the file is complete at any time"
    status, report = judged(file, "--level", level)
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert TOKEN not in file.read_text()
    assert [test["outcome"] for test in report["tests"]] == ["passed"] * 7
    assert sum(report["left_out"].values()) == 2
    verdicts = {rule["id"]: rule["verdict"] for rule in report["rules"]}
    conforming = {rule for rule, verdict in verdicts.items() if verdict == "conforms"}
    assert {"REQ-1", "REQ-2", "REQ-16", "RES-1", "RES-2", "RES-4", "RES-9", "ASY-1"} <= conforming
    assert verdicts["ASY-2"] == "not tested"
    assert "recorded  7 exchanges that can be judged, 0 of them against a rule" in printed


WRONG: Final = {
    "wrong-size": "REQ-16",
    "wrong-encoding": "REQ-9",
    "bad-base64": "RES-2",
    "malformed": "RES-1",
    "404": "RES-1",
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_wrong_in_a_recording_is_found(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "traffic.har"
    fields = SENT | {"output_image_encoding": "png"}
    with recording(file) as api:
        api.post("/upscaling", json=fields)
        api.post("/upscaling", json=fields, headers={"X-Mock-Fault": fault})
    status, report = judged(file, "--level", "strict")
    printed = capsys.readouterr().out
    assert status == 1, printed
    assert [found["rule"] for test in report["tests"] for found in test["findings"]] == [
        WRONG[fault]
    ]
    assert report["tests"][1]["findings"], "it is of the second exchange"
    assert "repeat:   " in printed
    assert TOKEN not in printed


def photo(change: Callable[[Image.Image], Image.Image], file: Path) -> dict[str, object]:
    """The fields of a request for a photo that was changed."""
    change(Image.open(ROOT / "docs" / "photo.png").convert("RGB")).save(file, "PNG")
    return {"init_image": base64.b64encode(file.read_bytes()).decode(), "scale": 0.5}


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        lambda image: Image.eval(image, lambda value: 255 - value),
        lambda image: Image.new("RGB", image.size, "white"),
    ],
    ids=["upside down", "negative", "blank"],
)
def test_an_image_of_another_request_is_found(
    tmp_path: Path, change: Callable[[Image.Image], Image.Image]
) -> None:
    file = tmp_path / "traffic.har"
    with recording(file) as api:
        api.post("/upscaling", json=SENT)
        api.post("/upscaling", json=photo(change, tmp_path / "changed.png"))
    assert judged(file)[0] == 0
    har = json.loads(file.read_text())
    one, two = har["log"]["entries"]
    one["response"], two["response"] = two["response"], one["response"]
    file.write_text(json.dumps(har))
    status, report = judged(file)
    assert status == 1
    assert {found["rule"] for test in report["tests"] for found in test["findings"]} == {"RES-2"}


def entry(status: int = 200, **more: Any) -> dict[str, Any]:
    """An entry as browsers write it, without the token."""
    answer = {"image_b64": SENT["init_image"], "removed_for_safety": False}
    content = {"size": 1, "mimeType": "application/json", "text": json.dumps(answer)}
    asked = {
        "method": "POST",
        "url": "https://api.example/v1/upscaling",
        "headers": [{"name": "content-type", "value": "application/json"}],
        "bodySize": 1,
        "postData": {"mimeType": "application/json", "text": json.dumps(SENT | {"scale": 1})},
    }
    told = {
        "status": status,
        "headers": [
            {"name": "Content-Type", "value": "application/json"},
            {"name": "content-encoding", "value": "br"},
            {"name": "x-user-request-id", "value": "1"},
        ],
        "content": content,
    }
    return {"request": asked | more.get("request", {}), "response": told | more.get("response", {})}


def written(file: Path, *entries: Any) -> Path:
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps({"log": {"entries": entries}}).encode())
    return file


def test_a_recording_of_a_browser_is_judged(tmp_path: Path) -> None:
    file = written(tmp_path / "x.har", entry())
    assert judged(file)[0] == 0
    assert judged(file, "--base-url", "https://api.example/v1")[0] == 0
    for other in ("https://other.example", "https://api.example/v"):
        status, report = judged(file, "--base-url", other)
        assert (status, report["left_out"]) == (3, {"of other URLs or methods": 1})


def test_a_token_is_recorded_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "traffic.har"
    with recording(file) as api:
        api.get(f"/healthcheck?token={TOKEN}", headers={"X-Note": TOKEN})
    assert len(json.loads(file.read_text())["log"]["entries"]) == 1
    assert TOKEN not in file.read_text()


LEFT_OUT: Final = {
    "another method": entry(request={"method": "OPTIONS"}),
    "another path": entry(request={"url": "https://api.example/v1/requests/1"}),
    "a query": entry(request={"url": "https://api.example/upscaling?x=1"}),
    "busy": entry(503),
    "failed once": entry(500),
    "aborted": entry(0),
    "moved": entry(301),
    "no content": entry(response={"content": {"size": 5}}),
    "no body": entry(request={"postData": {}}),
    "a key": entry(request={"headers": [{"name": "Idempotency-Key", "value": "1"}]}),
    "events": entry(request={"headers": [{"name": "Accept", "value": "text/event-stream"}]}),
    "a coding": entry(request={"headers": [{"name": "Content-Encoding", "value": "gzip"}]}),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_cannot_be_judged_is_left_out(name: str, tmp_path: Path) -> None:
    status, report = judged(written(tmp_path / "x.har", LEFT_OUT[name]))
    assert status == 3
    assert list(report["left_out"].values()) == [1]
    assert judged(written(tmp_path / "x.har", LEFT_OUT[name], entry()))[0] == 0


def test_a_refusal_without_a_token_is_right_and_of_a_valid_request_is_not(tmp_path: Path) -> None:
    for status, expected in ((401, 0), (403, 0), (400, 1)):
        told = judged(written(tmp_path / "x.har", entry(status)), "--level", "documented")
        assert told[0] == expected


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"log": {"entries": {}}}', b'{"log": {"entries": [{}]}}', b"\xff"],
)
def test_a_file_that_is_no_archive_is_a_usage_error(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.har"
    file.write_bytes(content)
    assert main(["--har", str(file)]) == 2
    assert capsys.readouterr().err.startswith("upscaler-contract: ")
    assert main(["--har", str(tmp_path / "none.har")]) == 2


@pytest.mark.parametrize("option", [("--plan",), ("--junit", "x.xml"), ("--diff", "http://x")])
def test_a_recording_is_not_sent_again(option: tuple[str, ...], tmp_path: Path) -> None:
    assert main(["--har", str(written(tmp_path / "x.har", entry())), *option]) == 2
