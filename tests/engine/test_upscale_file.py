"""`Engine.upscale_file`: from one image file to another, with a small network."""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support import networks
from upscaler.engine.engine import Engine
from upscaler.errors import FileRefused, OutOfMemory
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, UpscalingModel
from upscaler.settings import Precision


@cache
def engine() -> Engine:
    model = MODELS[UpscalingModel.ANIMEVIDEO_V3]
    return Engine(model, networks.network(model), torch.device("cpu"), Precision.FP32)


@pytest.fixture
def source(tmp_path: Path, photo: Pixels) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(photo[:40, :50]).save(path)
    return path


def pixels_of(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.array(image)


def test_a_png_has_the_pixels_of_upscale(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "result.png"
    engine().upscale_file(str(source), str(target))
    assert np.array_equal(pixels_of(target), engine().upscale(pixels_of(source)))


@pytest.mark.slow
def test_the_size_arguments_are_those_of_upscale(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "result.png"
    engine().upscale_file(source, target, 1.5)
    assert pixels_of(target).shape == (60, 75, 3)
    engine().upscale_file(source, target, size=(70, 90))
    assert pixels_of(target).shape == (90, 70, 3)
    with pytest.raises(ValueError, match="an outscale or a size"):
        engine().upscale_file(source, target, 2, size=(70, 90))
    with pytest.raises(ValueError, match="positive"):
        engine().upscale_file(source, target, -1)


@pytest.mark.first(3)
@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
@pytest.mark.parametrize("kind", ["TIFF", "PNG", "JPEG", "WEBP", "BMP", "GIF", "AVIF"])
def test_formats_are_read_by_content_and_written_by_suffix(
    kind: str, suffix: str, source: Path, tmp_path: Path
) -> None:
    other, target = tmp_path / "other", tmp_path / f"result{suffix}"
    Image.fromarray(pixels_of(source)).save(other, kind)
    engine().upscale_file(other, target, 1)
    with Image.open(target) as image:
        assert (image.format, image.size) == ("JPEG", (50, 40))


@pytest.mark.parametrize("suffix", [".webp", ".avif", ".tif"])
def test_the_formats_of_the_command_line_are_written(
    suffix: str, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / f"result{suffix}"
    engine().upscale_file(source, target, 1)
    with Image.open(target) as image:
        assert image.size == (50, 40)
        assert str(image.format).lower().startswith(suffix[1:])


def test_alpha_is_kept(source: Path, tmp_path: Path) -> None:
    image = Image.fromarray(pixels_of(source))
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(source)
    engine().upscale_file(source, tmp_path / "result.png", 2)
    assert pixels_of(tmp_path / "result.png").shape == (80, 100, 4)


def test_progress_counts_the_rows(source: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    engine().upscale_file(source, tmp_path / "a.png", progress=lambda *call: calls.append(call))
    assert calls[0] == (0, 40)
    assert calls[-1] == (40, 40)
    assert all(one <= other for one, other in pairwise(calls))


def test_sources_that_are_not_images_are_refused(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "result.png"
    text, cut = tmp_path / "notes.png", tmp_path / "cut.png"
    text.write_text("no image")
    cut.write_bytes(source.read_bytes()[:-100])
    for path, reason in (
        (
            text,
            "this is not an image in a format that is read",
        ),
        (cut, "this PNG is cut off after row"),
        (tmp_path / "gone.png", "No such file or directory"),
        (tmp_path, "Is a directory|that is a folder"),
    ):
        with pytest.raises(FileRefused, match=f"^{re.escape(str(path))}: ({reason})"):
            engine().upscale_file(path, target)
    assert not target.exists()


@pytest.mark.parametrize("name", ["result.gif", "result", "result.bmp"])
def test_targets_with_another_suffix_are_refused(name: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match=r"the suffix must be one of \.jpg, \.jpeg, .*\.png"):
        engine().upscale_file(source, tmp_path / name)


def test_a_source_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    link = tmp_path / "link.png"
    link.symlink_to(source)
    for target in (source, link):
        with pytest.raises(FileRefused, match="overwrite its source"):
            engine().upscale_file(source, target)
    assert source.read_bytes() == before


def test_a_failure_does_not_change_the_target(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "result.png"
    target.write_bytes(b"an earlier result")

    def stop(done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine().upscale_file(source, target, progress=stop)
    with pytest.raises(OutOfMemory):
        engine().upscale_file(source, target, memory=1)
    assert target.read_bytes() == b"an earlier result"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png", "result.png"]
