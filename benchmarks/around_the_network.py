"""How long what lies around the network takes for the largest picture: a table in Markdown.

    python -m benchmarks.around_the_network [--picture FILE] [--rounds N]

Each way runs in a process of its own, one after the other, and that several times over; what is
printed is the median of each. The naive way to an answer is Pillow's default PNG, the standard
library's base64 and json.dumps. Ways whose library is not installed are left out.
"""

import argparse
import base64
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from PIL import Image
from platformdirs import user_cache_path

from upscaler.formats import ImageEncoding
from upscaler.imaging import encode, resize
from upscaler.imaging.pixels import Pixels
from upscaler.service import responses

PHOTO: Final = Path(__file__).parent.parent / "docs" / "photo.png"
SIDE_PX: Final = 8192
RESIZED_PX: Final = 6144
NAIVE: Final = "Pillow, level 6 (its default)"
REFERENCE: Final = "Pillow, the whole picture at once"

Result = dict[str, float]
"""What was measured of one run, by the heading of its column."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--picture", type=Path, help="by default the photo of the README, enlarged")
    parser.add_argument("--model", default="real-esrgan-animevideo-v3", help="that enlarges it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", nargs=2, metavar=("TABLE", "WAY"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    picture = args.picture or enlarged_photo(args.model)
    if args.run:
        print(json.dumps(measured(picture, *args.run)))
        return
    for title, ways in TABLES.items():
        found = rounds(picture, title, list(ways), args.rounds)
        print(f"\n{title}\n\n{table(found)}", flush=True)


def enlarged_photo(model: str) -> Path:
    """The photo, enlarged by `model`, mirrored to 2048x2048 and enlarged again; made only once."""
    path = user_cache_path("octo-upscaler") / "benchmarks" / f"{model}.npy"
    if not path.exists():
        from upscaler.engine.engine import Engine

        engine = Engine.load(model)
        small = np.array(Image.open(PHOTO).convert("RGB"))[:256, 24:280]
        quarter = engine.upscale(small)
        whole = np.pad(quarter, ((0, 1024), (0, 1024), (0, 0)), mode="symmetric")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, engine.upscale(whole))
    return path


def opened(path: Path) -> Pixels:
    """The picture in an .npy file or an image file: uint8 RGB of shape (8192, 8192, 3)."""
    Image.MAX_IMAGE_PIXELS = None
    if path.suffix == ".npy":
        pixels: Pixels = np.load(path)
    else:
        pixels = np.array(Image.open(path).convert("RGB"))
    if pixels.shape != (SIDE_PX, SIDE_PX, 3):
        raise SystemExit(f"{path}: the picture must be RGB of {SIDE_PX}x{SIDE_PX} pixels")
    return pixels


def rounds(picture: Path, title: str, ways: list[str], times: int) -> dict[str, list[Result]]:
    """The results of each way: all of them once, then all of them again, to share their luck."""
    found: dict[str, list[Result]] = {}
    for number in range(times):
        for way in ways:
            print(f"round {number + 1}: {way}", file=sys.stderr)
            command = [sys.executable, "-m", "benchmarks.around_the_network"]
            command += ["--picture", str(picture), "--run", title, way]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            result = json.loads(run.stdout)
            if result:
                found.setdefault(way, []).append(result)
    return found


def table(found: dict[str, list[Result]]) -> str:
    """The median of every column, and of how many times longer the first way took than each."""
    first = next(iter(found.values()))
    columns = list(first[0])
    lines = [["", *columns, "times as fast"], ["---"] * (len(columns) + 2)]
    for way, results in found.items():
        pairs = zip(first, results, strict=True)
        ratio = median(naive["total, s"] / result["total, s"] for naive, result in pairs)
        figures = [f"{median(result[name] for result in results):.4g}" for name in columns]
        lines.append([way, *figures, f"{ratio:.3g}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured(picture: Path, title: str, way: str) -> Result:
    """One run of one way; nothing if its library is not installed."""
    pixels, work = opened(picture), TABLES[title][way]
    try:
        deplete(work(pixels[:512, :512]))  # so that everything is imported
    except ModuleNotFoundError:
        return {}
    before = peak_bytes(anew=True)
    return (resizing if title == RESIZING else answering)(pixels, work, before)


def answering(pixels: Pixels, work: "Way", before: int) -> Result:
    """How long the answer takes, and until the first of it that depends on the pixels."""
    started = time.perf_counter()
    length, firsts = 0, []
    for piece in work(pixels):
        length += len(piece)
        firsts.append(time.perf_counter() - started)
    total = time.perf_counter() - started
    return {
        "total, s": total,
        "first pixels, s": firsts[:2][-1],  # before them, an answer in pieces has a header
        "extra memory, MB": (peak_bytes() - before) / 1e6,
        "file, MB": length * 3 / 4 / 1e6,
    }


def resizing(pixels: Pixels, work: "Way", before: int) -> Result:
    """How long it takes, and how far it is from Pillow."""
    started = time.perf_counter()
    (resized,) = work(pixels)
    total = time.perf_counter() - started
    extra = (peak_bytes() - before) / 1e6
    (reference,) = TABLES[RESIZING][REFERENCE](pixels)
    error = np.square(resized[::8].astype(float) - reference[::8]).mean()
    return {
        "total, s": total,
        "extra memory, MB": extra,
        "PSNR, dB": float(10 * np.log10(255**2 / error)) if error else float("inf"),
    }


def deplete(pieces: Iterable[object]) -> None:
    for _ in pieces:
        pass


def peak_bytes(*, anew: bool = False) -> int:
    """The most memory that this process has had, or `anew` has from now on; by Linux's /proc."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "Linux says it of every process"
    return int(found[1]) * 1024


Way = Callable[[Pixels], Iterable[Any]]
"""From the picture to the pieces of an answer, or to the resized picture alone."""


def in_one_piece(file: Callable[[Pixels], bytes]) -> Way:
    """The answer by the standard library, around a file by whatever makes one."""

    def answer(pixels: Pixels) -> Iterator[bytes]:
        text = base64.b64encode(file(pixels)).decode()
        yield json.dumps({"image_b64": text, "removed_for_safety": False}).encode()

    return answer


def by_pillow(kind: str, **options: int) -> Callable[[Pixels], bytes]:
    def file(pixels: Pixels) -> bytes:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, kind, **options)
        return out.getvalue()

    return file


def by_opencv(pixels: Pixels) -> bytes:
    import cv2

    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95, *sampling])[1].tobytes()


def by_simplejpeg(pixels: Pixels) -> bytes:
    import simplejpeg

    data = np.ascontiguousarray(pixels)
    return bytes(simplejpeg.encode_jpeg(data, 95, "RGB", "444", fastdct=False))


def by_imagecodecs(pixels: Pixels) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpeg8_encode(pixels, 95, subsampling="444"))


def png_by_libvips(pixels: Pixels) -> bytes:
    import pyvips

    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels), interpretation="srgb")
    return bytes(image.write_to_buffer(".png", compression=1, filter="up"))


def ours(wanted: ImageEncoding) -> Way:
    return lambda pixels: responses.in_json(encode.encode_strips([pixels], len(pixels), wanted))


def resized_by_pillow(pixels: Pixels) -> Iterator[Pixels]:
    size = (RESIZED_PX, RESIZED_PX)
    yield np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def resized_by_us(pixels: Pixels) -> Iterator[Pixels]:
    yield resize.resize(pixels, (RESIZED_PX, RESIZED_PX))


def resized_by_libvips(pixels: Pixels) -> Iterator[Pixels]:
    import pyvips

    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels), interpretation="srgb")
    yield image.resize(RESIZED_PX / len(pixels), kernel="lanczos3").numpy()


def resized_by_opencv(pixels: Pixels) -> Iterator[Pixels]:
    import cv2

    size = (RESIZED_PX, RESIZED_PX)
    yield np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LANCZOS4), np.uint8)


RESIZING: Final = f"Resizing to {RESIZED_PX}x{RESIZED_PX}"
TABLES: Final[dict[str, dict[str, Way]]] = {
    "From pixels to an answer with a PNG": {
        NAIVE: in_one_piece(by_pillow("PNG")),
        "Pillow, level 1": in_one_piece(by_pillow("PNG", compress_level=1)),
        "libvips, level 1, filter up": in_one_piece(png_by_libvips),
        "`upscaler.imaging.encode`": ours(ImageEncoding.PNG),
    },
    "From pixels to an answer with a JPEG": {
        "Pillow": in_one_piece(by_pillow("JPEG", quality=95, subsampling=0)),
        "OpenCV": in_one_piece(by_opencv),
        "imagecodecs": in_one_piece(by_imagecodecs),
        "simplejpeg": in_one_piece(by_simplejpeg),
        "`upscaler.imaging.encode`": ours(ImageEncoding.JPEG),
    },
    RESIZING: {
        REFERENCE: resized_by_pillow,
        "`upscaler.imaging.resize.resize`": resized_by_us,
        "OpenCV, LANCZOS4, which aliases": resized_by_opencv,
        "libvips, lanczos3": resized_by_libvips,
    },
}
"""The ways to each end; the first of each is what the others are compared with."""


if __name__ == "__main__":
    main()
