import io

import pytest
from enlarge import enlarge
from PIL import Image


@pytest.fixture(autouse=True)
def service(monkeypatch, upscaling_mock):
    monkeypatch.setenv("UPSCALING_URL", upscaling_mock.url)
    monkeypatch.setenv("UPSCALING_TOKEN", upscaling_mock.token)


@pytest.fixture
def photo():
    file = io.BytesIO()
    Image.new("RGB", (300, 256), "teal").save(file, "PNG")
    return file.getvalue()


def test_both_sides_are_doubled(upscaling_mock, photo):
    assert Image.open(io.BytesIO(enlarge(photo, 2))).size == (600, 512)
    upscaling_mock.assert_called_with(scale=2, init_image=photo, status=200, times=1)


def test_drawings_have_a_model_of_their_own(upscaling_mock, photo):
    """This fails, since `enlarge` asks for no model."""
    enlarge(photo, 2)
    upscaling_mock.assert_called_with(scale=2, model="real-esrgan-x4-plus-anime")
