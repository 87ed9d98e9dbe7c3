"""Assertions about requests, and their messages."""

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from mock_server import Mock
from tests.support.mock_servers import SMALL
from tests.support.paths import PHOTO
from tests.support.service import upscale

FILE = PHOTO.read_bytes()
DIGEST = hashlib.sha256(FILE).hexdigest()


def test_matching_calls_pass(api: httpx.Client, mock: Mock, tmp_path: Path) -> None:
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


def test_the_closest_miss_is_shown(api: httpx.Client, mock: Mock) -> None:
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


def test_true_is_not_1(api: httpx.Client, mock: Mock) -> None:
    upscale(api, **SMALL | {"scale": 1})
    mock.assert_called_with(scale=1.0)
    assert "scale: expected True, but was 1" in failure(mock, scale=True)


def test_different_images_are_described(api: httpx.Client, mock: Mock) -> None:
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


def test_different_headers_are_described(api: httpx.Client, mock: Mock) -> None:
    api.post("/upscaling", json=SMALL, headers={"Accept": "image/png"})
    told = failure(mock, headers={"accept": "image/jpeg", "X-None": "1", "Host": None})
    assert "headers accept: expected 'image/jpeg', but was 'image/png'" in told
    assert "headers X-None: expected '1', but was not sent" in told
    assert "headers Host: expected not to be sent, but was '127.0.0.1:" in told
    told = failure(mock, headers={"Authorization": "Bearer other"})
    assert "another value, but was 'Bearer ***' (the token is not kept)" in told
    assert "mock-token" not in told


def test_the_number_of_calls_is_compared(api: httpx.Client, mock: Mock) -> None:
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


def test_a_body_that_is_not_json_is_described(api: httpx.Client, mock: Mock) -> None:
    api.post("/upscaling", content=b"abc")
    assert "scale: expected 2, but the body was not a JSON object (3 bytes)" in failure(
        mock, scale=2
    )


def test_an_unknown_name_is_a_type_error(mock: Mock) -> None:
    with pytest.raises(TypeError, match=r"unknown sclae; what can be expected: init_image,"):
        mock.assert_called_with(sclae=2)
