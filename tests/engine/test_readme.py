"""The README's example in Python, run as it stands there."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.paths import ROOT
from upscaler.imaging.pixels import Pixels


def test_the_example_in_python(
    photo: Pixels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    section = (ROOT / "README.md").read_text().partition("## From Python")[2]
    example = section.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    names = {"pixels": photo[:64, :80]}
    exec(example, names)
    height, width, _ = photo.shape
    with Image.open(tmp_path / "photo-x2.png") as image:
        assert image.size == (2 * width, 2 * height)
    assert names["upscaled"].shape == (256, 320, 3)
    assert names["upscaled"].dtype == np.uint8
    printed = capsys.readouterr().out.splitlines()
    assert {"0 64", "64 64"} <= set(printed)  # rows done, and rows in all
    shapes = [eval(line) for line in printed if line.startswith("(")]
    assert sum(rows for rows, _, _ in shapes) == 3 * 64
    assert {shape[1:] for shape in shapes} == {(240, 3)}
