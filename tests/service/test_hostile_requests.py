"""Whatever a client sends, it is not answered with a fault of ours, and the next one is served."""

import base64
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from tests.support.hostile_requests import SHARED
from tests.support.raw_http import CLOSE, END, HEAD, answers, exchange, request
from tests.support.request_literals import ANY_FIELDS
from tests.support.service import GOOD, PHOTO_B64

SMALL = {**GOOD, "scale": 0.9}
VALID = request(SMALL, HEAD + CLOSE)


@pytest.fixture(autouse=True)
def no_fault_of_ours(api: httpx.Client, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert api.get("/livez").status_code == 200
    assert [r for r in caplog.get_records("call") if r.levelno >= logging.ERROR] == []


def answered(api: httpx.Client, data: bytes) -> bytes:
    """What comes back.

    A server may rightly wait for the rest of a request; a fault that is told later than this is
    still in the log.
    """
    return exchange(api, data, patience_s=0.1)


def assert_ours(data: bytes) -> None:
    """Answers of the contract's, in its shape, to what may not even be HTTP; or none."""
    for answer in answers(data):
        assert answer.status in (200, 400, 401, 404, 405, 406, 413, 422, 431), data[:300]
        assert answer.headers["x-user-request-id"]
        if answer.status >= 400 and answer.status != 422:
            assert answer.detail


def assert_told(answer: httpx.Response) -> None:
    """A client's fault in the contract's shape (RES-4, RES-7), or a picture."""
    assert answer.status_code in (200, 401, 404, 405, 406, 413, 422), answer.text[:200]
    if answer.headers["Content-Type"].startswith("image/"):
        return
    body = answer.json()
    if answer.status_code == 422:
        assert all(error.keys() == {"loc", "msg", "type"} for error in body["detail"])
        assert all(error["loc"][0] in ("body", "header") for error in body["detail"])
    elif answer.status_code != 200:
        assert isinstance(body["detail"], str)


@pytest.mark.slow
@SHARED
@given(st.binary(max_size=400))
@example(b"")
@example(b"GET / HTTP/9.9\r\n\r\n")
@example(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # a greeting in TLS
@example(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
@example(b"GET /healthcheck HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" * 20)
def test_what_is_not_http_harms_nobody(api: httpx.Client, data: bytes) -> None:
    assert_ours(answered(api, data))


@SHARED
@given(st.integers(0, len(VALID)), st.integers(0, 60), st.binary(max_size=60))
def test_a_request_that_is_damaged_anywhere_harms_nobody(
    api: httpx.Client, at: int, gone: int, new: bytes
) -> None:
    assert_ours(answered(api, VALID[:at] + new + VALID[at + gone :]))


@pytest.mark.slow
@SHARED
@given(st.integers(0, len(HEAD) + 200), st.integers(0, 60), st.binary(max_size=60))
def test_a_head_that_is_damaged_anywhere_harms_nobody(
    api: httpx.Client, at: int, gone: int, new: bytes
) -> None:
    assert_ours(answered(api, VALID[:at] + new + VALID[at + gone :]))


header_values = st.one_of(
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0")).map(str.strip),
    st.sampled_from(
        ["1", "0", "*/*", "application/json", "image/png", "9" * 40, "a,b;q=2", "\xff"]
    ),
)
KNOWN_HEADERS = (
    "Accept",
    "Content-Type",
    "X-OctoAI-Async",
    "X-Upscaler-Dry-Run",
    "X-User-Request-ID",
    "Authorization",
    "X-Forwarded-Proto",
    "Host",
    "Expect",
    "Range",
    "If-None-Match",
    "Cookie",
)


@SHARED
@given(st.dictionaries(st.sampled_from(KNOWN_HEADERS), header_values, max_size=4))
def test_no_header_is_a_fault_of_ours(api: httpx.Client, headers: dict[str, str]) -> None:
    lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers.items())
    first, _, rest = VALID.partition(b"\r\n")
    kept = [
        line
        for line in rest.partition(b"\r\n\r\n")[0].split(b"\r\n")
        if line.partition(b":")[0].decode() not in headers
    ]
    head = b"\r\n".join([first, *kept]) + b"\r\n" + lines + b"\r\n"
    assert_ours(answered(api, head + VALID.partition(END)[2]))


@SHARED
@given(ANY_FIELDS)
def test_no_field_is_a_fault_of_ours(api: httpx.Client, fields: dict[str, Any]) -> None:
    """NaN, Infinity and halves of surrogate pairs among them, which are no JSON."""
    headers = {"Content-Type": "application/json"}
    for base in ({}, {"init_image": PHOTO_B64, "scale": 0.9}):
        body = json.dumps(base | fields).encode()
        assert_told(api.post("/upscaling", content=body, headers=headers))


@SHARED
@given(st.binary(max_size=300), st.sampled_from(["application/json", "multipart/form-data", "a/b"]))
def test_no_body_is_a_fault_of_ours(api: httpx.Client, body: bytes, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    assert_told(api.post("/upscaling", content=body, headers=headers))


def files() -> list[bytes]:
    """One file of each kind, of pixels that do not compress well."""
    pixels = np.random.default_rng(0).integers(0, 256, (260, 270, 4), dtype=np.uint8)
    found = []
    for kind, channels in (("PNG", 4), ("PNG", 3), ("JPEG", 3), ("WEBP", 4)):
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels[:, :, :channels])).save(file, kind)
        found.append(file.getvalue())
    return found


FILES = files()


@SHARED
@given(st.sampled_from(FILES), st.data())
def test_no_image_that_is_damaged_is_a_fault_of_ours(
    api: httpx.Client, file: bytes, data: st.DataObject
) -> None:
    near_the_start = st.integers(0, 200)
    at = data.draw(near_the_start | st.integers(0, len(file)))
    new, gone = data.draw(st.binary(max_size=20)), data.draw(st.integers(0, 20))
    damaged = file[:at] + new + file[at + gone :]
    fields = {"init_image": base64.b64encode(damaged).decode(), "scale": 0.9}
    if damaged:
        assert_told(api.post("/upscaling", json=fields))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, 64))
@pytest.mark.parametrize("file", FILES, ids=["png-alpha", "png", "jpeg", "webp"])
def test_a_file_cut_off_anywhere_is_refused(api: httpx.Client, file: bytes, part: int) -> None:
    """At every 1/64 of its length: half a picture is no picture."""
    cut = file[: len(file) * part // 64]
    fields = {"init_image": base64.b64encode(cut).decode(), "scale": 1}
    answer = api.post("/upscaling", json=fields)
    assert answer.status_code == 422
    (error,) = answer.json()["detail"]
    assert error["loc"] == ["body", "init_image"]
    assert error["type"] in ("image_damaged", "image_unreadable")
