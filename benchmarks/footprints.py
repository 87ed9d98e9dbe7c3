"""Measure what streams need of memory, and fit the figures of `upscaler/planning.py` to it.

    python benchmarks/footprints.py [MODEL ...]

Every measurement is a process of its own (Linux only): the peak of its resident memory while it
enlarges noise by a given plan, over what it held with the model loaded, less the enlarged picture.
Weights are random, since memory does not depend on them.
"""

import argparse
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from upscaler.engine.engine import Engine
from upscaler.engine.memory import trim_heap
from upscaler.engine.networks import build
from upscaler.models import MODELS, RRDB, Compact, Model, UpscalingModel
from upscaler.planning import Plan, bands
from upscaler.settings import Kernels, Precision

NETWORKS = (
    UpscalingModel.ANIMEVIDEO_V3,
    UpscalingModel.X4_V3,
    UpscalingModel.X4_PLUS_ANIME,
    UpscalingModel.X4_PLUS,
)
"""One model for each shape of network; the two others share theirs."""
PRECISIONS = (Precision.FP32, Precision.MIXED, Precision.BF16)
CASES = {
    RRDB: (
        *((128, 4, 1), (128, 64, 8), (256, 16, 1), (256, 64, 4), (256, 128, 8)),
        *((512, 8, 1), (512, 64, 1), (512, 64, 4)),
    ),
    Compact: ((512, 4, 1), (512, 64, 1), (1024, 8, 1), (1024, 32, 1), (2048, 4, 1), (2048, 16, 1)),
}
"""Width, rows at once and rows at once in the tail: of the smallest map."""
Figures = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="*", default=NETWORKS, type=UpscalingModel)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        precision, *numbers = args.measure
        width, rows, tail_rows = map(int, numbers)
        model = MODELS[args.model[0]]
        print(measured(model, Precision(precision), width, rows, tail_rows))
        return
    for name, precision in product(args.model, PRECISIONS):
        fit(name, precision)


def fit(name: UpscalingModel, precision: Precision) -> None:
    """Print the figures that fit best, and how far each measurement is from them."""
    cases = CASES[type(MODELS[name].network)]
    peaks = np.array([in_a_process(name, precision, *case) for case in cases], dtype=float)
    terms = np.array([(1, w, w * rows, w * tail) for w, rows, tail in cases], dtype=float)
    if isinstance(MODELS[name].network, Compact):
        terms[:, 3] = 0  # there is no tail
    # Relative errors count, so every equation is divided by what was measured.
    figures = least_squares(terms / peaks[:, None], np.ones(len(cases)))
    errors = ", ".join(f"{error:+.0%}" for error in terms @ figures / peaks - 1)
    print(f"{name} {precision}: {', '.join(f'{figure:_.0f}' for figure in figures)}  # {errors}")
    sys.stdout.flush()


def least_squares(terms: Figures, values: Figures) -> Figures:
    """The factors of `terms` that give `values` best and of which none is negative."""
    chosen = [column for column in range(terms.shape[1]) if terms[:, column].any()]
    while True:
        factors, *_ = np.linalg.lstsq(terms[:, chosen], values, rcond=None)
        if factors.min() >= 0:
            break
        del chosen[int(factors.argmin())]
    result = np.zeros(terms.shape[1])
    result[chosen] = factors
    return result


def in_a_process(name: UpscalingModel, precision: Precision, *case: int) -> int:
    command = [sys.executable, __file__, name, "--measure", precision, *map(str, case)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measured(model: Model, precision: Precision, width: int, rows: int, tail_rows: int) -> int:
    """The bytes one plan takes, in this process; tall enough for all layers to be busy at once."""
    torch.manual_seed(0)
    net = build(model.network).requires_grad_(False)
    engine = Engine(model, net, torch.device("cpu"), precision, Kernels.ONEDNN)
    del net
    height = model.receptive_field // model.multiple + 2 * rows
    size = width * model.multiple, height * model.multiple
    plan = Plan(tuple(bands(*size, 1, 0, model.multiple)), rows, tail_rows, 0, 0)
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    tiny = Plan(tuple(bands(8, 8, 1, 0, model.multiple)), 8, 8, 0, 0)
    engine.upscale_by_plan(noise[:8, :8], tiny)
    trim_heap()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    enlarged = engine.upscale_by_plan(noise, plan)
    return resident("VmHWM") - before - enlarged.nbytes


def resident(line: str) -> int:
    """A line of /proc/self/status in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{line}:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main()
