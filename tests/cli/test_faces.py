"""`upscaler image --face-enhance`."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import face_nets
from upscaler.cli import main, sizes
from upscaler.engine.pool import EnginePool
from upscaler.formats import ImageEncoding
from upscaler.models import UpscalingModel
from upscaler.settings import Device, Settings


def upscaled(folder: Path, name: str, *options: str) -> np.ndarray:
    command = ["image", "a.png", "--scale", "1", "--quiet", "-o", name, *options]
    assert main.main(command) == 0
    return np.array(Image.open(folder / name)).astype(int)


def test_a_face_is_restored_and_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("upscaler.engine.pool.load_faces", lambda *_: face_nets.nets())
    plain = upscaled(folder, "plain.png", "--json")
    full = upscaled(folder, "full.png", "--json", "--face-enhance")
    half = upscaled(folder, "half.png", "--json", "--face-enhance", "--face-strength", "0.5")
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each.get("faces") for each in told] == [None, 1, 1]
    changed = (plain != full).any(axis=2)
    assert 0.02 < changed.mean() < 0.5
    assert np.abs(half - (plain + full) / 2).max() <= 1


def test_the_memory_for_faces_is_forecast(tmp_path: Path) -> None:
    engines = EnginePool(Settings(device=Device.CPU))
    picture = Image.new("RGB", (300, 200))
    file = io.BytesIO()
    picture.save(file, "PNG")
    forecasts = [
        sizes.forecast(
            sizes.read_picture(file.getvalue(), None, engines),
            (300, 200),
            UpscalingModel.ANIMEVIDEO_V3,
            ImageEncoding.PNG,
            spool=tmp_path,
            engines=engines,
            faces=faces,
        ).memory_bytes
        for faces in (False, True)
    ]
    assert forecasts[0] < engines.face_bytes((300, 200)) <= forecasts[1]
    assert engines.face_bytes((2000, 1500)) > engines.face_bytes((300, 200)), "to find them"


@pytest.mark.parametrize("strength", ["-0.1", "1.5", "much", "nan"])
def test_a_strength_is_from_0_to_1(strength: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["image", "a.png", "--face-enhance", "--face-strength", strength])
    assert "must be a number from 0 to 1" in capsys.readouterr().err
