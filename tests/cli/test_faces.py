"""`upscaler image --face-enhance`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import face_nets
from upscaler.cli import main


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


@pytest.mark.parametrize("strength", ["-0.1", "1.5", "much", "nan"])
def test_a_strength_is_from_0_to_1(strength: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["image", "a.png", "--face-enhance", "--face-strength", strength])
    assert "must be a number from 0 to 1" in capsys.readouterr().err
