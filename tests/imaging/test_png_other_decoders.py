"""PNGs with colours of their own and with faults, as a browser, libvips and OpenCV show them."""

import base64
import json
import re
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import pyvips
from PIL import ImageCms

from tests.support.colour_spaces import (
    ADOBE,
    BT_2020,
    PROPHOTO,
    SRGB,
    chrm,
    cicp,
    gama,
    intent,
)
from tests.support.image_files import (
    DISPLAY_P3,
    GREY,
    INDEXED,
    NOISE,
    P3,
    RGB,
    RGB_ALPHA,
    Samples,
    chunk,
    decode,
    iccp,
    idat,
    matrix_profile,
    noise,
    off_by,
    png,
    png_file,
    tiff,
)
from tests.support.requirements import CHROMIUM, needs_browser

pytestmark = pytest.mark.dev

PAGE = """
<body><script>
window.onload = async () => {
    const seen = {};
    for (const [name, file] of Object.entries(%s)) {
        const image = new Image();
        await new Promise(done => {
            image.onload = image.onerror = done;
            image.src = "data:image/png;base64," + file;
        });
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        const samples = context.getImageData(0, 0, canvas.width, canvas.height).data;
        seen[name] = [canvas.width, canvas.height, ...samples];
    }
    document.body.textContent = "SEEN " + JSON.stringify(seen) + " END";
};
</script></body>
"""


def by_browser(files: dict[str, bytes], folder: Path) -> dict[str, Samples]:
    """What a browser shows of each, as RGBA."""
    page = folder / "page.html"
    encoded = {name: base64.b64encode(data).decode() for name, data in files.items()}
    page.write_text(PAGE % json.dumps(encoded))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]
    profile = f"--user-data-dir={folder / 'profile'}"
    patience = "--virtual-time-budget=60000"
    command = [CHROMIUM, *options, profile, patience, "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r"SEEN (\{.*\}) END", dom)
    assert found, dom
    return {
        name: np.array(samples, np.uint8).reshape(height, width, 4)
        for name, (width, height, *samples) in json.loads(found[1]).items()
    }


def damaged(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def rgb(before: bytes, after: bytes = b"") -> bytes:
    return png(NOISE, 8, RGB, before=before, after=after)


RAMP: Samples = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
GAMMAS = (16, 20_000, 30_000, 43_000, 43_200, 45_455, 47_600, 47_800, 55_556, 100_000, 500_000)
KEY = chunk(b"tRNS", NOISE[0, 0].astype(">u2").tobytes())
INDICES = noise(24, 40, 1, bits=4)
PALETTE = chunk(b"PLTE", noise(16, 3).tobytes())
TURN = chunk(b"eXIf", tiff(6))

SEEN = {
    **{f"gamma-{value}": png(RAMP, 8, GREY, before=gama(value)) for value in GAMMAS},
    **{f"gamma-{value}-rgb": rgb(gama(value)) for value in GAMMAS},
    "gamma-0": rgb(gama(0)),
    # A browser takes the gamma of sRGB beside its primaries for a power, and no one else does.
    "srgb-primaries": rgb(gama(50_000) + chrm(SRGB)),
    "adobe": rgb(gama(45_455) + chrm(ADOBE)),
    "prophoto": rgb(gama(55_556) + chrm(PROPHOTO)),
    "primaries-alone": rgb(chrm(ADOBE)),
    "bt-2020": rgb(gama(41_667) + chrm(BT_2020)),
    **{f"cicp-primaries-{i}": rgb(cicp(i, 13)) for i in (1, 4, 5, 6, 7, 8, 9, 11, 12, 22)},
    **{f"cicp-curve-{i}": rgb(cicp(12, i)) for i in (1, 4, 5, 6, 7, 8, 11, 13, 14, 15, 17)},
    "cicp-over-others": rgb(iccp(P3) + intent(0) + gama(100_000) + cicp(9, 13)),
    "cicp-short": rgb(chunk(b"cICP", bytes((12, 13, 0)))),
    "cicp-unknown": rgb(cicp(99, 13) + gama(100_000)),
    "iccp": rgb(iccp(P3) + gama(100_000)),
    "iccp-over-srgb": rgb(iccp(P3) + intent(0)),
    "iccp-damaged": rgb(damaged(iccp(P3))),
    "iccp-damaged-first": rgb(damaged(iccp(P3)) + iccp(P3)),
    "iccp-damaged-with-gamma": rgb(damaged(iccp(P3)) + gama(100_000)),
    "iccp-twice": rgb(iccp(P3) * 2),
    "iccp-late": rgb(b"", iccp(P3)),
    "iccp-of-nothing": rgb(iccp(b"")),
    "iccp-other-method": rgb(chunk(b"iCCP", b"name\0\1" + bytes(90))),
    "iccp-no-profile": rgb(iccp(b"x" * 500) + gama(100_000)),
    "srgb-over-gamma": rgb(intent(0) + gama(100_000)),
    "srgb-no-intent": rgb(intent(9) + gama(100_000)),
    "gamma-twice": rgb(gama(100_000) + gama(45_455)),
    "key": rgb(KEY),
    "key-damaged": rgb(damaged(KEY)),
    "key-short": rgb(chunk(b"tRNS", b"\0")),
    "key-long": rgb(chunk(b"tRNS", KEY[8:14] + b"\0")),
    "key-late": rgb(b"", KEY),
    "key-beside-alpha": png(noise(24, 40, 4) | np.uint8(128), 8, RGB_ALPHA, before=KEY),
    "unknown-damaged": rgb(damaged(chunk(b"abCD", b"x"))),
    "exif": rgb(TURN),
    "exif-damaged": rgb(damaged(TURN)),
    "exif-late": rgb(b"", TURN),
    "exif-damaged-first": rgb(damaged(TURN) + TURN),
    "alphas": png(INDICES, 4, INDEXED, before=PALETTE + chunk(b"tRNS", b"\xff\0")),
    "alphas-first": png(INDICES, 4, INDEXED, before=chunk(b"tRNS", b"\xff\0") + PALETTE),
    "alphas-of-more": png(INDICES, 4, INDEXED, before=PALETTE + chunk(b"tRNS", b"\xff" * 17)),
    "alphas-too-many": png(INDICES, 4, INDEXED, before=PALETTE + chunk(b"tRNS", bytes(257))),
    "16-bits": png(noise(24, 40, 3, bits=16), 16, RGB),
}
"""Files that a browser must show as we do."""


@needs_browser
def test_a_browser_shows_the_same_colours(tmp_path: Path) -> None:
    """Within what its matrices of 32 bits, and ours, are rounded to."""
    for name, seen in by_browser(SEEN, tmp_path).items():
        pixels = decode(SEEN[name])
        if pixels.shape[2] == 4:  # the canvas keeps colours multiplied by their alpha
            assert np.array_equal(pixels[..., 3], seen[..., 3]), name
            opaque = pixels[..., 3] == 255
            assert off_by(pixels[opaque][None], seen[opaque][None]) <= 1, name
        else:
            assert seen[..., 3].min() == 255, name
            assert off_by(pixels, seen[..., :3]) <= (2 if "iccp" in name else 1), name


# libvips and OpenCV apply no gAMA, cHRM and cICP; faults they ignore like us.

FAULTS = {
    **{name: SEEN[name] for name in SEEN if name.startswith(("key", "alphas", "unknown"))},
    "iccp-twice": rgb(iccp(P3) * 2),
    "animation-late": rgb(b"", chunk(b"acTL", bytes((0, 0, 0, 2, 0, 0, 0, 0)))),
    "palette-suggested": rgb(damaged(chunk(b"PLTE", bytes(10)))),
    "palette-suggested-twice": rgb(chunk(b"PLTE", bytes(9)) * 2),
    "index-beyond": png(INDICES, 4, INDEXED, before=chunk(b"PLTE", noise(9, 3).tobytes())),
    "index-beyond-with-alpha": png_file(
        (40, 24),
        4,
        INDEXED,
        chunk(b"PLTE", noise(9, 3).tobytes()) + chunk(b"tRNS", b"\0\x80"),
        idat(INDICES, 4),
    ),
}
LONG = ("key-long", "alphas-of-more")
"""Both are ignored by libpng, and used by browsers."""


def to_rgba(samples: Samples) -> Samples:
    return (
        samples
        if samples.shape[2] == 4
        else np.dstack([samples, np.full_like(samples[..., 0], 255)])
    )


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in LONG])
def test_opencv_ignores_the_same_faults(name: str) -> None:
    pixels = cv2.imdecode(np.frombuffer(FAULTS[name], np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    seen = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    plain = FAULTS[name].replace(iccp(P3), b"")  # OpenCV applies no profile
    assert off_by(to_rgba(decode(plain)), to_rgba(seen)) == 0


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in (*LONG, "key-damaged")])
def test_libvips_ignores_the_same_faults(name: str) -> None:
    """It does not verify the checksum of tRNS."""
    seen = pyvips.Image.new_from_buffer(FAULTS[name], "").numpy()
    plain = FAULTS[name].replace(iccp(P3), b"")
    assert off_by(to_rgba(decode(plain)), to_rgba(seen)) == 0


# Profiles at 16 bits


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
@pytest.mark.parametrize("dark", [False, True])
def test_libvips_converts_16_bits_alike(gamma: float, *, dark: bool, tmp_path: Path) -> None:
    """Colours inside of sRGB: for those at its edge Little CMS, in libvips, has too few steps."""
    srgb = tmp_path / "srgb.icc"
    srgb.write_bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    grey = np.arange(0, 65_536 // 50 if dark else 65_536, 1 if dark else 37, dtype=np.uint16)
    samples = grey.reshape(1, -1, 1).repeat(3, axis=2)
    data = png(samples, 16, RGB, before=iccp(matrix_profile(DISPLAY_P3, gamma)))
    image = pyvips.Image.new_from_buffer(data, "")
    seen = image.icc_transform(str(srgb), embedded=True, depth=16, intent="relative").numpy()
    assert off_by(decode(data), seen / 257) <= 2
