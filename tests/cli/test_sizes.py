"""`upscaler image` with sizes and formats beyond the API's, and what it says beforehand."""

import json
import re
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from tests.cli.test_cli import image, size_of
from tests.support.image_files import noise
from upscaler import planning
from upscaler.api.limits import MAX_INPUT_PX, MAX_OUTPUT_PX
from upscaler.cli import main, sizes
from upscaler.cli.sizes import Forecast, spool_folder
from upscaler.engine.engine import Engine
from upscaler.engine.pool import EnginePool
from upscaler.engine.spool import BandSpool
from upscaler.imaging.decode import EncodedImage
from upscaler.models import UpscalingModel

LOUD = ("image", "--model", "real-esrgan-animevideo-v3")
GIB = 2**30
LITTLE = ("--precision", "fp32", "--memory", "45M")
"""So little that an image of 2000x100 pixels is upscaled in bands that wait on disk."""


def save(path: Path, width: int, height: int, mode: str = "RGB") -> None:
    Image.fromarray(noise(height, width, len(mode))).save(path)


@pytest.mark.parametrize("side", [16, 17, 128])
def test_an_icon_is_upscaled(folder: Path, side: int) -> None:
    save(folder / "icon.png", side, side, "RGBA")
    assert image("icon.png") == 0
    assert size_of(folder / "upscaled" / "icon.png") == (4 * side, 4 * side)


def test_less_than_an_icon_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(folder / "dot.png", 300, 15)
    assert image("dot.png") == 1
    assert (
        "each side must be 16 to 65536 pixels, and this image is 300x15" in capsys.readouterr().err
    )


def test_larger_sides_than_the_apis_are_read_and_written(folder: Path) -> None:
    save(folder / "long.png", MAX_INPUT_PX * 2, 16)
    assert image("long.png", "--width", str(MAX_OUTPUT_PX + 800)) == 0
    assert size_of(folder / "upscaled" / "long.png") == (MAX_OUTPUT_PX + 800, 35)


def test_the_largest_output_has_65536_pixels_a_side(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(folder / "thin.png", 16, 2000)
    assert image("thin.png", "--height", "65536", "-o", "thin.tif") == 0
    with Image.open("thin.tif") as result:
        assert result.size == (524, 65_536)
    assert image("thin.png", "--height", "65537") == 1
    assert "--height: " in (err := capsys.readouterr().err)
    assert "at most 65536 pixels a side" in err


@pytest.mark.parametrize(
    ("name", "most", "others"),
    [
        ("x.webp", 16_383, "more with --encoding jpeg or png or avif or tiff"),
        ("x.jpg", 65_500, "more with --encoding png or tiff"),
        ("x.avif", 32_768, "more with --encoding jpeg or png or tiff"),
    ],
)
def test_a_side_too_long_for_a_format_is_refused_with_those_that_have_it(
    folder: Path, name: str, most: int, others: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(folder / "thin.png", 16, 2000)
    assert image("thin.png", "--height", str(most + 1), "-o", name) == 1
    err = capsys.readouterr().err
    assert f"has at most {most} pixels a side" in err
    assert others in err
    assert not (folder / name).exists()


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("name", "kind"),
    [("x.webp", "WEBP"), ("x.tif", "TIFF"), ("x.TIFF", "TIFF"), ("x.avif", "AVIF")],
)
def test_the_name_or_the_encoding_chooses_another_format(
    folder: Path, name: str, kind: str
) -> None:
    assert image("a.png", "--scale", "1", "-o", name) == 0
    assert image("a.png", "--scale", "1", "--encoding", kind.lower()) == 0
    written = [path for path in (folder / "upscaled").iterdir() if path.stem == "a"]
    for path in (folder / name, *written):
        with Image.open(path) as result:
            assert (result.format, result.size) == (kind, (260, 256))


@pytest.mark.first(2)
@pytest.mark.parametrize("kind", ["gif", "tiff", "bmp", "avif"])
def test_other_formats_are_read(folder: Path, kind: str) -> None:
    Image.open("a.png").save(f"other.{kind}")
    assert image(f"other.{kind}", "--scale", "1") == 0
    with Image.open("upscaled/other.png") as result, Image.open(f"other.{kind}") as source:
        assert result.size == source.size


def test_an_animation_is_read_as_its_first_frame_and_said_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue"))
    first.save("a.gif", save_all=True, append_images=[second])
    assert main.main([*LOUD, "a.gif"]) == 0
    assert "a.gif: the first frame of several is read" in capsys.readouterr().err
    assert image("a.gif", "--json") == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert json.loads(told.out)["note"] == "the first frame of several is read"


def test_a_comparison_holds_the_middle_alone(folder: Path) -> None:
    save(folder / "long.png", 1000, 40)
    assert image("long.png", "--before-after") == 0
    assert size_of(folder / "upscaled" / "long-before-after.png") == (768 * 2 + 8, 160)
    sheet = np.array(Image.open("upscaled/long-before-after.png"))
    result = np.array(Image.open("upscaled/long.png"))
    assert np.array_equal(sheet[40:, 776:], result[40:, 1616 : 1616 + 768])


# What is said beforehand

PHONE = Forecast((4032, 3024), (8064, 6048), UpscalingModel.X4_PLUS, 3 * GIB, 0, 3600.0)


def test_a_long_picture_is_told_with_a_quicker_model() -> None:
    assert re.fullmatch(
        "4032x3024 to 8064x6048 takes about 3.0 GiB of memory, about 60 min; "
        r"with the model real-esrgan-x4-v3 about \d min",
        str(PHONE),
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seconds": 9.0, "memory_bytes": GIB}, ""),
        ({"seconds": 11.0, "memory_bytes": 0}, "about 11 s"),
        ({"seconds": 0.0}, "takes about 3.0 GiB of memory"),
        ({"seconds": 20_000.0}, "about 5.6 h"),
        ({"disk_bytes": 5 * GIB}, "5.0 GiB of disk"),
        ({"seconds": 0.0, "memory_bytes": 0, "size": (40_000, 30_000)}, "to 40000x30000 takes"),
        ({"model": UpscalingModel.X4_V3}, "about 60 min"),
    ],
)
def test_only_what_is_long_or_large_is_told(changes: dict[str, Any], words: str) -> None:
    told = str(replace(PHONE, **changes))
    assert words in told
    assert bool(words) is bool(told)
    if "model" in changes:
        assert "--model" not in told


def test_a_long_picture_begins_with_what_it_takes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sizes, "MEASURED_FLOP", 0)
    monkeypatch.setattr(Engine, "estimate_s", lambda *_: 1234.0)
    assert main.main([*LOUD, "a.png", "--scale", "1"]) == 0
    assert re.search(r"a\.png: 260x256 to 260x256 takes .*about 21 min", capsys.readouterr().err)
    assert image("a.png", "--scale", "1", "--json") == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert json.loads(told.out)["forecast"]["seconds"] == 1234.0


def test_an_estimate_grows_with_the_picture(folder: Path) -> None:
    from upscaler.settings import Settings

    pool = EnginePool(Settings())
    engine, _ = pool._ready(UpscalingModel.ANIMEVIDEO_V3)
    small, large = (engine.plan(side, side) for side in (64, 2048))
    assert engine.estimate_s(large, 3) > 20 * engine.estimate_s(small, 3) > 0


def test_memory_that_is_not_free_is_told_before_anything_is_decoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(EnginePool, "free_bytes", lambda _: 2**20)
    monkeypatch.setattr(EncodedImage, "pixels", lambda _: pytest.fail("it was decoded"))
    Image.new("RGB", (700, 700)).save(folder / "large.png")
    assert image("large.png") == 1
    assert re.search(
        r"large\.png: .* needs 1\.4 MiB of memory to be read, and 1\.0 MiB are free",
        capsys.readouterr().err,
    )


def test_a_format_that_holds_the_whole_result_needs_the_memory_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("upscaler.engine.pool.free_bytes", lambda _: 3 * 2**26)
    save(folder / "wide.png", 1600, 300)
    assert image("wide.png", "-o", "wide.tif") == 0
    assert image("wide.png", "-o", "wide.webp") == 1
    assert "of memory to be upscaled, and 192.0 MiB are free" in capsys.readouterr().err


def test_a_disk_too_small_for_what_waits_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 2**20))
    monkeypatch.setattr(planning, "SPOOL_BYTES", 2**16)
    save(folder / "wide.png", 2000, 100)
    assert image("wide.png", *LITTLE) == 1
    assert re.search(r"needs 9\.2 MiB of disk in .* and 1\.0 MiB are free", capsys.readouterr().err)


def test_what_waits_is_beside_the_output(tmp_path: Path) -> None:
    assert spool_folder(tmp_path / "new" / "deeper" / "x.png") == tmp_path
    assert spool_folder(Path("x.png")) == Path.cwd()


@pytest.mark.slow
def test_bands_that_wait_on_disk_give_the_same_picture(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "SPOOL_BYTES", 2**16)
    save(folder / "wide.png", 2000, 100)
    used: list[BandSpool] = []
    write = BandSpool.write

    def noting(spool: BandSpool, strip: Tensor) -> None:
        used.append(spool)
        write(spool, strip)

    monkeypatch.setattr(BandSpool, "write", noting)
    assert image("wide.png", "--precision", "fp32", "-o", "whole.png") == 0
    assert not used
    assert image("wide.png", *LITTLE, "-o", "bands.png") == 0
    assert used
    whole, bands = (np.array(Image.open(name)).astype(int) for name in ("whole.png", "bands.png"))
    assert np.abs(whole - bands).max() <= 1
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []
