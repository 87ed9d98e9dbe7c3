"""How long it takes to read the largest picture that may be sent: tables in Markdown.

    python -m benchmarks.reading [--rounds N]

The photo of the README, enlarged to 2048x2048 pixels, from the bytes of a file to an array. All
ways take turns in one process; what is printed is the median of each. Only the first one also finds
out whether the file is whole. Ways whose library is not installed are left out.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from PIL import Image

from upscaler.bench.machine import describe
from upscaler.imaging.decode import read_header
from upscaler.imaging.pixels import Pixels

PHOTO: Final = Path(__file__).parent.parent / "docs" / "photo.png"
SIDE_PX: Final = 2048
FILES: Final[dict[str, dict[str, int]]] = {
    "PNG": {},
    "JPEG": {"quality": 90},
    "progressive JPEG": {"quality": 90, "progressive": 1},
}
"""What is read, by Pillow's options."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()
    machine = describe()
    print(f"{machine.processor}, {machine.cores} cores, Python {machine.python}")
    for name, options in FILES.items():
        data = file(name.rpartition(" ")[2], **options)
        seconds: dict[str, list[float]] = {}
        for _ in range(1 + args.rounds):  # the first finds nothing loaded
            for way, read in WAYS.items():
                if took_s := timed(read, data):
                    seconds.setdefault(way, []).append(took_s)
        heading = f"{name} of {len(data) / 1e6:.1f} MB"
        print(f"\n| {heading} | milliseconds | times as fast |\n|---|---|---|")
        pillow = seconds["Pillow"]
        for way, took in seconds.items():
            ratio = median(a / b for a, b in list(zip(pillow, took, strict=True))[1:])
            print(f"| {way} | {1000 * median(took[1:]):.0f} | {ratio:.2g} |")


def file(kind: str, **options: int) -> bytes:
    out = io.BytesIO()
    photo = Image.open(PHOTO).convert("RGB").crop((0, 0, 256, 256))
    photo.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS).save(out, kind, **options)
    return out.getvalue()


def timed(read: Callable[[bytes], Pixels], data: bytes) -> float | None:
    """How many seconds it took, or None if its library is not installed."""
    began_s = time.perf_counter()
    try:
        pixels = read(data)
    except ModuleNotFoundError:
        return None
    took_s = time.perf_counter() - began_s
    assert np.shape(pixels) == (SIDE_PX, SIDE_PX, 3)
    return took_s


def by_opencv(data: bytes) -> Pixels:
    import cv2

    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def by_libvips(data: bytes) -> Pixels:
    import pyvips

    return np.asarray(pyvips.Image.new_from_buffer(data, "").numpy(), np.uint8)


def by_one_format(data: bytes) -> Pixels:
    if data.startswith(b"\x89PNG"):
        import pyspng

        return np.asarray(pyspng.load(data), np.uint8)
    import simplejpeg

    return np.asarray(simplejpeg.decode_jpeg(data), np.uint8)


WAYS: Final[dict[str, Callable[[bytes], Pixels]]] = {
    "`upscaler.imaging.decode`": lambda data: read_header(data).pixels(),
    "Pillow": lambda data: np.array(Image.open(io.BytesIO(data))),
    "OpenCV": by_opencv,
    "libvips": by_libvips,
    "pyspng or simplejpeg, each by itself": by_one_format,
}


if __name__ == "__main__":
    main()
