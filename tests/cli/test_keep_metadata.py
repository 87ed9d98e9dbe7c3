"""`upscaler image --keep-metadata`: what a file says about its picture, in the result."""

from pathlib import Path

import pytest
from PIL import Image

from tests.support import networks
from tests.support.checkpoints import small
from tests.support.metadata_files import PLACE, THUMBNAIL, XMP, exif
from upscaler.cli import main
from upscaler.engine import weights
from upscaler.imaging.pixels import Pixels


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_metadata_is_carried_over_only_if_asked_for(
    suffix: str, tmp_path: Path, photo: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "load", lambda *_: weights.Loaded(networks.lively(small()), "00"))
    source = tmp_path / "photo.jpg"
    Image.fromarray(photo[:256, :260]).save(source, exif=b"Exif\0\0" + exif(), xmp=XMP)

    def upscaled(*options: str) -> tuple[Image.Image, bytes]:
        target = tmp_path / f"result{len(options)}.{suffix}"
        command = ["image", "--model", "real-esrgan-animevideo-v3", "--quiet", "--scale", "1"]
        assert main.main([*command, str(source), "-o", str(target), *options]) == 0
        with Image.open(target) as image:
            image.load()
        return image, target.read_bytes()

    image, data = upscaled()
    assert not image.getexif()
    assert not {"xmp", "exif"} & image.info.keys()
    assert PLACE not in data

    image, data = upscaled("--keep-metadata")
    found = image.getexif()
    assert image.size == (256, 260), "upright"
    assert (found[0x0112], found[0x013B]) == (1, "An artist")
    assert found.get_ifd(0x8825)[0x001B] == PLACE
    assert b'tiff:Orientation="1"' in image.info["xmp"]
    assert THUMBNAIL not in data


def test_it_is_refused_for_a_result_that_has_no_place_for_metadata(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.jpg").touch()
    for name in ("x.webp", "x.avif", "x.tiff"):
        command = ["image", str(tmp_path / "photo.jpg"), "-o", str(tmp_path / name)]
        assert main.main([*command, "--keep-metadata"]) == 2
        assert "--keep-metadata writes to jpeg and png, not to " in capsys.readouterr().err


def test_a_picture_whose_metadata_is_not_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "load", lambda *_: weights.Loaded(networks.lively(small()), "00"))
    source = tmp_path / "photo.tiff"
    Image.new("RGB", (40, 30)).save(source)
    target = str(tmp_path / "x.png")
    command = ["image", "--model", "real-esrgan-animevideo-v3", str(source), "-o", target]
    assert main.main([*command, "--keep-metadata", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "its metadata is not carried over" in out
    assert "its metadata is not carried over" in err
