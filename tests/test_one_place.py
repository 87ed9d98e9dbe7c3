"""One place for one fact: what a new model, format or limit takes, on a copy of the code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.timeout(120)

SEVENTH = """
    X8 = Model(
        "real-esrgan-seventh",
        "For tests.",
        Compact(scale=4, num_conv=24),
        receptive_field=26,
        halo=26,
        official=Checkpoint("v9/seventh.pth", 1000, "0" * 64),
    )
"""
USE_SEVENTH = """
import base64, io, json
from PIL import Image
from fastapi.testclient import TestClient
from mock_server import Mock
from upscaler.cli.options import parser
from upscaler.models import MODELS, UpscalingModel
from upscaler.planning import footprint
from upscaler.service.playground import config
from upscaler.settings import Precision

name = "real-esrgan-seventh"
assert parser().parse_args(["image", "a.png", "--model", name]).model == name
assert name in parser().parse_args(["weights", "fetch", name]).models
assert {"name": name, "scale": 4, "description": "For tests."} in config()["models"]
sizes = [footprint(MODELS[model].network, Precision.FP32, "cpu").column for model in (
    UpscalingModel.ANIMEVIDEO_V3, UpscalingModel(name), UpscalingModel.X4_V3)]
assert sizes == sorted(set(sizes)), sizes

file = io.BytesIO()
Image.new("RGB", (256, 300), "red").save(file, "PNG")
fields = {"init_image": base64.b64encode(file.getvalue()).decode(), "scale": 2, "model": name}
with TestClient(Mock(tokens=["token"]).app) as client:
    headers = {"Authorization": "Bearer token"}
    response = client.post("/upscaling", json=fields, headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["X-Upscaler-Model"] == name
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert name in schemas["UpscalingModel"]["enum"]
    refused = client.post("/upscaling", json={**fields, "model": "no"}, headers=headers)
    assert name in refused.text
"""
LARGER = """
import base64, io
from PIL import Image
from fastapi.testclient import TestClient
from mock_server import Mock
from upscaler.cli.options import parser
from upscaler.service.playground import config

assert config()["max_output_px"] == 10_000
file = io.BytesIO()
Image.new("RGB", (256, 300), "red").save(file, "PNG")
fields = {"init_image": base64.b64encode(file.getvalue()).decode()}
with TestClient(Mock(tokens=["token"]).app) as client:
    headers = {"Authorization": "Bearer token"}
    dry = headers | {"X-Upscaler-Dry-Run": "1"}
    largest = fields | {"output_image_height": 10_000}
    response = client.post("/upscaling", json=largest, headers=dry)
    assert response.status_code == 200, response.text
    larger = fields | {"output_image_height": 10_001}
    response = client.post("/upscaling", json=larger, headers=dry)
    assert response.status_code == 422
    assert "10000" in response.text and "8192" not in response.text, response.text
try:
    parser().parse_args(["image", "--help"])
except SystemExit:
    pass
"""


def edited(folder: Path, file: str, old: str, new: str) -> dict[str, str]:
    """A copy of the packages with one edit, as the environment of a process that uses it."""
    for package in ("upscaler", "mock_server"):
        shutil.copytree(ROOT / package, folder / package)
    path = folder / file
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} is not once in {file}"
    path.write_text(text.replace(old, new))
    return {**os.environ, "PYTHONPATH": str(folder)}


def run(
    program: str, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_seventh_model_is_one_entry(tmp_path: Path) -> None:
    place = "\n    def __new__(cls, row: str | Model)"
    environment = edited(tmp_path, "upscaler/models.py", place, SEVENTH + place)
    done = run(USE_SEVENTH, tmp_path, environment)
    assert done.returncode == 0, done.stderr


def test_a_larger_output_is_one_constant(tmp_path: Path) -> None:
    environment = edited(
        tmp_path,
        "upscaler/api/limits.py",
        "MAX_OUTPUT_PX: Final = 8192",
        "MAX_OUTPUT_PX: Final = 10_000",
    )
    done = run(LARGER, tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert "at most 10000" in " ".join(done.stdout.split())
    assert "8192" not in done.stdout


def test_a_format_without_a_writer_fails_at_import(tmp_path: Path) -> None:
    place = "\n    def __new__(cls, row: str | OutputFormat)"
    row = '    WEBP = OutputFormat("webp", "image/webp", (".webp",), 16_383)\n'
    environment = edited(tmp_path, "upscaler/formats.py", place, row + place)
    done = run("import upscaler.imaging.encode", tmp_path, environment)
    assert done.returncode == 1
    assert "formats without a writer in upscaler.imaging.encode: webp" in done.stderr
