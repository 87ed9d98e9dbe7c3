"""Enlarge the largest picture that the API takes, and say what it took (Linux only).

    python -m benchmarks.largest [--model NAME] [--precision NAME] [--memory N] [--height PX]

The picture is the photo of the README, mirrored to 2048 pixels on each side. A smaller `--height`
takes less time and as much memory, but for that of the enlarged picture.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.footprints import resident
from upscaler.api.limits import MAX_INPUT_PX
from upscaler.bench.runner import photograph
from upscaler.engine.engine import Engine
from upscaler.engine.memory import trim_heap
from upscaler.imaging.decode import read_header
from upscaler.models import UpscalingModel
from upscaler.planning import MIB
from upscaler.settings import Precision, parse_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=UpscalingModel, default=UpscalingModel.X4_PLUS)
    parser.add_argument("--precision", type=Precision, default=Precision.AUTO)
    parser.add_argument("--memory", type=parse_bytes, default=parse_bytes("2G"))
    parser.add_argument("--height", type=int, default=MAX_INPUT_PX)
    args = parser.parse_args()
    photo = read_header(photograph().read_bytes()).pixels()
    borders = (0, args.height - photo.shape[0]), (0, MAX_INPUT_PX - photo.shape[1]), (0, 0)
    picture = np.pad(photo, borders, mode="symmetric")
    engine = Engine.load(args.model, precision=args.precision)
    engine.upscale(photo[:8, :8])
    plan = engine.plan(MAX_INPUT_PX, args.height, memory=args.memory)
    print(f"{args.model}, {engine.precision}: {plan}", flush=True)
    trim_heap()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, started = resident("VmRSS"), time.perf_counter()
    enlarged = engine.upscale(picture, memory=args.memory)
    took = time.perf_counter() - started
    peak = resident("VmHWM") - before
    height, width, _ = enlarged.shape
    print(f"{width}x{height} in {took:,.0f} s, {peak / MIB:,.0f} MiB over the loaded model")


if __name__ == "__main__":
    main()
