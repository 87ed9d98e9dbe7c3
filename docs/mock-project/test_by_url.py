"""The same where the mock is a process of its own, as by the GitHub Action."""

import io
import os

import httpx
import pytest
from enlarge import enlarge
from PIL import Image


@pytest.fixture
def photo():
    file = io.BytesIO()
    Image.new("RGB", (300, 256), "teal").save(file, "PNG")
    return file.getvalue()


def last_request():
    url = os.environ["UPSCALING_URL"] + "/_mock/requests?route=upscaling&limit=1"
    return httpx.get(url).json()["requests"][0]


def test_both_sides_are_doubled(photo):
    assert Image.open(io.BytesIO(enlarge(photo, 2))).size == (600, 512)
    assert last_request()["fields"]["scale"] == 2


def test_drawings_have_a_model_of_their_own(photo):
    """This fails, since `enlarge` asks for no model."""
    enlarge(photo, 2)
    assert last_request()["fields"].get("model") == "real-esrgan-x4-plus-anime"
