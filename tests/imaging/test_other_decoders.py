"""The files, read by others than the Pillow that has a part in making them.

libpng is in Pillow and OpenCV; libvips brings spng, pypng is Python alone, and a browser has its
own. `tests/imaging/test_encode.py` is for the rest.
"""

import base64
import io
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import png
import pytest
import pyvips
from PIL import Image

from tests.support.image_files import noise
from tests.support.requirements import CHROMIUM, needs_browser
from upscaler.formats import ImageEncoding
from upscaler.imaging import strips
from upscaler.imaging.encode import encode
from upscaler.imaging.pixels import Pixels

pytestmark = pytest.mark.dev

PICTURES = {
    "noise": noise(70, 90, 3),
    "noise with alpha": noise(70, 90, 4),
    "one row": noise(1, 200, 3),
    "one column": noise(200, 1, 4),
    "one pixel": noise(1, 1, 3),
    "black": np.zeros((500, 300, 3), np.uint8),
    "slope": np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 150, 4)),
}


def by_opencv(data: bytes) -> Pixels:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    backwards = [2, 1, 0, 3][: pixels.shape[2]]
    return np.asarray(pixels[..., backwards], np.uint8)


def by_libvips(data: bytes) -> Pixels:
    image = pyvips.Image.new_from_buffer(data, "", access="sequential", fail_on="warning")
    return np.asarray(image.numpy(), np.uint8)


def by_python_alone(data: bytes) -> Pixels:
    width, height, rows, told = png.Reader(bytes=data).read()
    return np.vstack(list(rows)).reshape(height, width, told["planes"])


@pytest.fixture(autouse=True)
def _many_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "STRIP_BYTES", 3000)


@pytest.mark.parametrize("decoder", [by_opencv, by_libvips, by_python_alone])
@pytest.mark.parametrize("name", PICTURES)
def test_every_decoder_reads_a_png_alike(decoder: Callable[[bytes], Pixels], name: str) -> None:
    pixels = PICTURES[name]
    assert np.array_equal(decoder(encode(pixels, ImageEncoding.PNG)), pixels)


def test_every_decoder_reads_a_long_png_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pixels = np.cumsum(noise(700, 4000, 3) % 4, axis=1, dtype=np.uint8)
    data = encode(pixels, ImageEncoding.PNG)
    assert np.array_equal(by_opencv(data), pixels)
    assert np.array_equal(by_libvips(data), pixels)


@pytest.mark.parametrize("decoder", [by_opencv, by_libvips])
@pytest.mark.parametrize("name", [name for name in PICTURES if "alpha" not in name])
def test_every_decoder_reads_a_jpeg_alike(decoder: Callable[[bytes], Pixels], name: str) -> None:
    """To the last bit what it makes of a JPEG that was written in one piece."""
    pixels = PICTURES[name][..., :3]
    data = encode(pixels, ImageEncoding.JPEG)
    assert np.array_equal(decoder(data), decoder(encode_by_pillow(pixels)))


def encode_by_pillow(pixels: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


PAGE = """
<canvas id="canvas"></canvas><img id="image" src="data:image/%s;base64,%s">
<script>
window.onload = () => {
    const [canvas, image] = ["canvas", "image"].map(id => document.getElementById(id));
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const samples = context.getImageData(0, 0, canvas.width, canvas.height).data;
    document.body.textContent = "SEEN " + [canvas.width, canvas.height, ...samples].join() + " END";
};
</script>
"""


def by_browser(data: bytes, kind: str, folder: Path) -> Pixels:
    page = folder / "page.html"
    page.write_text(PAGE % (kind, base64.b64encode(data).decode()))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *options, profile, "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r"SEEN ([\d,]+) END", dom)
    assert found, dom
    width, height, *samples = map(int, found[1].split(","))
    return np.array(samples, np.uint8).reshape(height, width, 4)


@needs_browser
@pytest.mark.parametrize("encoding", ImageEncoding)
def test_a_browser_shows_it(encoding: ImageEncoding, tmp_path: Path) -> None:
    pixels = noise(70, 90, 3)
    data = encode(pixels, encoding)
    seen = by_browser(data, encoding, tmp_path)
    assert seen[..., 3].min() == 255
    if encoding is ImageEncoding.PNG:
        assert np.array_equal(seen[..., :3], pixels)
    else:
        plain = by_browser(encode_by_pillow(pixels), encoding, tmp_path)
        assert np.array_equal(seen, plain)
