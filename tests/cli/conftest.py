"""A folder of images, and a network that upscales them quickly. It is imported without torch."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from upscaler.imaging.pixels import Pixels

if TYPE_CHECKING:
    from upscaler.engine.weights import Loaded


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
def shallow() -> "Loaded":
    from tests.support import networks
    from tests.support.checkpoints import small
    from upscaler.engine import weights

    return weights.Loaded(networks.lively(small()), "00")


@pytest.fixture
def folder(images: Path, shallow: "Loaded", monkeypatch: pytest.MonkeyPatch) -> Path:
    """`images`, which are upscaled by a network of one convolution: quickly, and not well."""
    monkeypatch.setattr("upscaler.engine.weights.load", lambda *_: shallow)
    return images
