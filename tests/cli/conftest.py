"""A folder of images, and a network that upscales them quickly."""

from pathlib import Path

import pytest
from PIL import Image

from tests.support import networks
from tests.support.checkpoints import small
from upscaler.engine import weights
from upscaler.imaging.pixels import Pixels


@pytest.fixture
def images(tmp_path: Path, photo: Pixels, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a photo of 260x256 pixels in two formats and a text file."""
    image = Image.fromarray(photo[:256, :260])
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.JPG", "JPEG")
    (tmp_path / "notes.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def shallow() -> weights.Loaded:
    return weights.Loaded(networks.lively(small()), "00")


@pytest.fixture
def folder(images: Path, shallow: weights.Loaded, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`images`, which are upscaled by a network of one convolution: quickly, and not well."""
    monkeypatch.setattr(weights, "load", lambda *_: shallow)
    return images
