"""The examples in Python of README.md and docs/PYTHON.md, run as they stand there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.paths import ROOT
from upscaler.imaging.pixels import Pixels


def run(document: str, photo: Pixels) -> dict[str, Any]:
    """Run the example in this folder, and return its names."""
    section = (ROOT / document).read_text().partition("# From Python")[2]
    Path("docs").symlink_to(ROOT / "docs")
    names: dict[str, Any] = {"pixels": photo[:64, :80]}
    exec(section.partition("```python\n")[2].partition("```")[0], names)
    return names


def test_the_example_in_the_readme(
    photo: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("README.md", photo)["upscaled"].shape == (256, 320, 3)


def test_the_example_in_the_docs(
    photo: Pixels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run("docs/PYTHON.md", photo)
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
