"""Answers that begin before their picture is there, so that no client and no proxy gives up."""

import asyncio
import io
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
from PIL import Image

from tests.support.raw_http import PATIENCE_S, send
from tests.support.service import GOOD, SETTINGS, Moody, Resizer, Slow, decoded, serving, upscale
from upscaler.errors import OutOfMemory
from upscaler.service import responses
from upscaler.service.backend import UpscaleResult
from upscaler.service.server import connection

FIRST_BYTE_S = 0.2
BEAT_S = 0.1
HURRIED = replace(SETTINGS, first_byte_s=FIRST_BYTE_S, deadline_s=0.6)
FILE = {"Accept": "image/png"}


@pytest.fixture(autouse=True)
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "BEAT_S", BEAT_S)


@contextmanager
def arriving(api: httpx.Client, read_s: float = 5, **fields: object) -> Iterator[httpx.Response]:
    """An answer of which nothing was read yet, for a client that waits so long for each part."""
    timeout = httpx.Timeout(10, read=read_s)
    with api.stream("POST", "/upscaling", json=GOOD | fields, timeout=timeout) as answer:
        yield answer


def test_an_answer_begins_in_time_and_the_picture_comes_when_it_is_there() -> None:
    slow = Slow(2 * PATIENCE_S)
    with serving(slow, HURRIED) as api:
        began_s = time.monotonic()
        with arriving(api) as answer:
            assert time.monotonic() - began_s >= FIRST_BYTE_S
            parts = answer.iter_raw()
            body = b""
            while len(body) < 5 * len(responses.BEAT):
                body += next(parts)
            assert time.monotonic() - began_s >= FIRST_BYTE_S + 4 * BEAT_S
            slow.seconds = 0
            body += b"".join(parts)
    assert answer.headers["Content-Type"] == "application/json"
    assert "Content-Length" not in answer.headers
    assert body.startswith(5 * responses.BEAT), "one every tenth of a second"
    assert body.strip() == upscale_at_once().content
    assert json.loads(body)["removed_for_safety"] is False


def upscale_at_once() -> httpx.Response:
    with serving(Resizer()) as api:
        return upscale(api, **GOOD)


@pytest.mark.slow
def test_a_client_that_waits_half_as_long_as_the_picture_takes_gets_it() -> None:
    """As OctoAI's does, with its 60 seconds for each part."""
    with serving(Slow(6), HURRIED) as api, arriving(api, read_s=3) as answer:
        answer.read()
        assert decoded(answer).size == (608, 512)


def test_the_log_tells_of_its_picture_as_of_any(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), serving(Slow(0.5), HURRIED) as api, arriving(api) as answer:
        answer.read()
    (line,) = [vars(each) for each in caplog.records if each.getMessage() == "POST /upscaling"]
    assert (line["status"], line["input"], line["output"]) == (200, "304x256", "608x512")
    assert line["stages"]["infer"] > 0.4
    assert line["sent_bytes"] == len(answer.content)


@pytest.mark.slow
def test_time_to_make_the_image_does_not_count_against_the_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "RESPONSE_GRACE_S", 4)
    monkeypatch.setattr(connection, "RESPONSE_BYTES_PER_S", 10**9)
    with serving(Slow(5), HURRIED) as api, arriving(api, scale=16) as answer:
        answer.read()
        assert len(answer.content) > 2**22, "more than the system takes before the client does"
        assert decoded(answer).size == (4864, 4096)


def test_with_more_patience_the_same_client_gives_up() -> None:
    patient = replace(HURRIED, first_byte_s=45)
    with serving(Slow(1.2), patient) as api, pytest.raises(httpx.ReadTimeout), arriving(api, 0.6):
        pytest.fail("nothing came of it for so long")


def test_an_image_made_in_time_has_content_length_and_server_timing() -> None:
    with serving(Resizer(), HURRIED) as api:
        answer = upscale(api, **GOOD)
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert "Server-Timing" in answer.headers
    assert answer.content[:1] == b"{"


def received(answer: httpx.Response) -> bytes:
    """What came of an answer that is cut off."""
    parts: list[bytes] = []
    with pytest.raises(httpx.RemoteProtocolError):
        parts.extend(answer.iter_raw())
    return b"".join(parts)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OutOfMemory("secret"), {"status": 503, "detail": OutOfMemory().detail}),
        (ZeroDivisionError("secret"), {"status": 500, "detail": "Internal Server Error"}),
    ],
)
def test_what_fails_after_the_answer_has_begun_is_no_answer(
    error: Exception, told: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """It is cut off within an object that says why, whether a proxy passes the cut on or not."""
    with serving(Slow(0.5, error), HURRIED) as api:
        with arriving(api) as answer:
            body = received(answer)
        with pytest.raises(ValueError, match="delimiter"):
            json.loads(body)
        assert json.loads(body + b"}") == told
        assert any(record.levelname == "ERROR" for record in caplog.records)
        assert api.get("/livez").status_code == 200


def test_what_fails_in_time_has_its_status() -> None:
    with serving(Moody(), replace(HURRIED, first_byte_s=30)) as api:
        assert upscale(api, **GOOD, model="real-esrgan-x4-v3").status_code == 503
        assert upscale(api, **GOOD, model="real-esrgan-x2-plus").status_code == 500


@pytest.mark.parametrize(("first_byte_s", "received"), [(PATIENCE_S, b""), (0.2, b"HTTP/1.1 200")])
def test_whoever_hangs_up_is_worked_for_no_longer(first_byte_s: float, received: bytes) -> None:
    """Before the answer began, and after."""
    slow = Slow(2 * PATIENCE_S)
    with serving(slow, replace(HURRIED, first_byte_s=first_byte_s)) as api:
        with send(api) as connection:
            assert connection.recv(len(received), socket.MSG_WAITALL) == received
            assert slow.began.wait(PATIENCE_S)
        assert slow.given_up.wait(PATIENCE_S)
        slow.seconds = 0
        assert decoded(upscale(api, **GOOD)).size == (608, 512), "the machine is free again"


def test_a_file_cannot_begin_so_its_client_is_told_what_to_do() -> None:
    slow = Slow(2 * PATIENCE_S)
    with serving(slow, HURRIED) as api:
        began_s = time.monotonic()
        answer = api.post("/upscaling", json=GOOD, headers=FILE, timeout=PATIENCE_S)
        assert time.monotonic() - began_s >= 0.6
        assert answer.status_code == 503
        assert "X-OctoAI-Async: 1" in answer.json()["detail"]
        assert not slow.began.is_set() or slow.given_up.wait(PATIENCE_S)


def test_without_a_deadline_a_file_takes_what_it_takes() -> None:
    with serving(Slow(1.0), replace(HURRIED, deadline_s=None)) as api:
        answer = api.post("/upscaling", json=GOOD, headers=FILE, timeout=PATIENCE_S)
    assert Image.open(io.BytesIO(answer.content)).size == (608, 512)


def test_what_is_held_for_it_is_held_no_longer_than_it_takes() -> None:
    with serving(Slow(0.5), HURRIED) as api:
        with arriving(api) as answer:
            answer.read()
        deadline_s = time.monotonic() + 30  # the last byte is there a little before its end
        while held_bytes(api) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert held_bytes(api) == 0


def held_bytes(api: httpx.Client) -> float:
    text = api.get("/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("upscaler_held_bytes ")]
    return float(line.split()[1])


def test_an_answer_that_nobody_takes_gives_up_what_is_made_for_it() -> None:
    async def act() -> None:
        making: asyncio.Future[UpscaleResult] = asyncio.get_running_loop().create_future()

        async def gone() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def send(_message: object) -> None:
            await asyncio.sleep(0)

        answer = responses.KeepAliveJSONResponse(making, lambda _: None)
        await answer({"type": "http"}, gone, send)
        assert making.cancelled()

    asyncio.run(act())
