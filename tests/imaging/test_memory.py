"""What reading and writing an image takes of memory, and what is said beforehand."""

import sys

import pytest

from tests.support.scripts import numbers_of

pytestmark = [
    pytest.mark.dev,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak since a moment"),
]

PEAK = """
import ctypes, io, sys
from pathlib import Path
import numpy as np
from PIL import Image, ImageCms
from upscaler.formats import FILE_FORMATS
from upscaler.imaging.other_formats import read_any
from upscaler.imaging.other_writers import WHOLE_BYTES, write_image

SIDE = 2500
way, kind, mode, turned, profile = sys.argv[1:]
slope = np.asarray(Image.linear_gradient("L").resize((SIDE, SIDE)))
pixels = np.dstack((slope, slope.T, 255 - slope, slope))[..., : len(mode)]
exif = Image.Exif()
exif[0x0112] = int(turned)
icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
options = {"icc_profile": icc} if int(profile) else {}
file = io.BytesIO()
if way == "read":
    image = Image.fromarray(pixels[..., 0] if mode == "L" else pixels)
    image.save(file, kind, exif=exif, **options)
    del image
    image = read_any(file.getvalue())

def status(word):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(word))

ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
if way == "read":
    image.pixels()
    said = image.most_bytes
else:
    strips = (pixels[top : top + 50] for top in range(0, SIDE, 50))
    write_image(io.BytesIO(), strips, SIDE, FILE_FORMATS[kind])
    said = SIDE**2 * WHOLE_BYTES.get(FILE_FORMATS[kind], 0)
print(status("VmHWM") - before, said)
"""


@pytest.mark.parametrize(
    "case",
    [
        *("read PNG RGB 1 0", "read PNG RGBA 1 1", "read PNG L 6 0", "read PNG RGB 6 0"),
        *("read JPEG RGB 1 0", "read JPEG RGB 6 1", "read WEBP RGB 1 0", "read TIFF RGBA 6 1"),
        *("read BMP L 1 0", "read AVIF RGB 6 0"),
        *("write webp RGBA 1 0", "write avif RGBA 1 0", "write tiff RGBA 1 0", "write png RGB 1 0"),
    ],
)
def test_an_image_takes_no_more_than_is_said(case: str) -> None:
    """But for 16 MiB, by which heaps differ and which strips and threads take."""
    peak, said = numbers_of(PEAK, *case.split())
    assert peak <= 1.1 * said + 2**24, (peak / 2500**2, said / 2500**2)
