"""How long a container takes from nothing to its first picture, as far as this machine can tell.

    python -m benchmarks.cold_start [--runs N]

Each run is a process of its own, as a container is: one becomes the front, and one the class with
the engine, which reads all six models, brings them to the device and enlarges a first picture by
each. On Modal a snapshot saves what comes before `to device`. What Modal itself takes cannot be
measured here, nor can a GPU.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from upscaler.bench.machine import describe

PICTURE_PX: Final = 512

Times = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(CHILDREN[args.child]()))
        return
    machine = describe()
    print(f"{machine.processor}, {machine.cores} cores\n")
    print("| container | step | seconds: median (least to most) |\n|---|---|---|")
    for child in CHILDREN:
        found = [run(child) for _ in range(args.runs)]
        for step in found[0]:
            times = sorted(each[step] for each in found)
            median = statistics.median(times)
            print(f"| {child} | {step} | {median:.3f} ({times[0]:.3f} to {times[-1]:.3f}) |")


def run(child: str) -> Times:
    """What a process of that kind says of its steps, in seconds."""
    command = [sys.executable, "-m", "benchmarks.cold_start", "--child", child]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    times: Times = json.loads(done.stdout)
    return times


def front() -> Times:
    """Do what `modal_app.web` does."""
    times: Times = {}
    with step(times, "imports"):
        from upscaler.service.app import create_app
        from upscaler.service.backend import LocalBackend
        from upscaler.settings import Settings
    with step(times, "the app"):
        nowhere: Any = SimpleNamespace(face_enhance=False, bands=None)
        create_app(LocalBackend(nowhere), Settings(tokens=("token",)))
    return times


def worker() -> Times:
    """Do what `modal_app.Upscaler` does."""
    times: Times = {}
    with step(times, "imports"):
        from upscaler.engine.pool import WARM_UP_PX
        from upscaler.modal.worker import Worker
        from upscaler.models import MODELS, UpscalingModel
    worker = Worker()
    with step(times, "weights of six models"):
        worker.load_weights()
    with step(times, "to device"):
        worker.move_to_device()
    with step(times, f"warm-up: {WARM_UP_PX}x{WARM_UP_PX} by each model"):
        worker.engines.warm_up()
    pixels = np.zeros((PICTURE_PX, PICTURE_PX, 3), np.uint8)
    side = PICTURE_PX * MODELS[UpscalingModel.X4_PLUS].scale
    with step(times, f"first rows of {PICTURE_PX}x{PICTURE_PX}"):
        next(iter(worker.engines.upscale(pixels, UpscalingModel.X4_PLUS, (side, side))))
    return times


CHILDREN: Final = {"front": front, "class": worker}


@contextmanager
def step(times: Times, name: str) -> Iterator[None]:
    """Take note of how long a block took."""
    began_s = time.perf_counter()
    yield
    times[name] = time.perf_counter() - began_s


if __name__ == "__main__":
    main()
