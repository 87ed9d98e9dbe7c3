"""How fast the parts of the CPU's kernels are on this processor, on one core, and why they are so.

    python -m benchmarks.cpu_kernels

Products are held against those of torch's libraries of the same shapes, in the same minute. What is
said of a dense block counts the operations of direct convolutions, as `upscaler bench` does.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import nn

from upscaler.engine.cpu import kernels, whole_maps
from upscaler.engine.networks import ResidualDenseBlock

TILES: Final = 48
SHAPES: Final = ((64, 32), (96, 32), (128, 32), (160, 32), (192, 64))
"""The channels in and out of a dense block's convolutions."""
ROUNDS: Final = 30
SIDE: Final = 384
"""The side of the map of which whole dense blocks are computed."""
FLOP_A_PIXEL: Final = 2 * 9 * sum(inputs * outputs for inputs, outputs in SHAPES)


def seconds(run: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The median of some runs after a first one, in seconds of this process's work."""
    run()
    took = []
    for _ in range(rounds):
        began = time.process_time()
        run()
        took.append(time.process_time() - began)
    return statistics.median(took)


def main() -> None:
    torch.set_num_threads(1)
    print(
        f"{os.cpu_count()} cores, vectors of {kernels.LANES} numbers, products of {kernels.ROWS} "
        f"tiles and {kernels.WIDTH} channels in registers, torch {torch.__version__}"
    )
    numbers = np.random.default_rng(0)
    planes = numbers.normal(size=(36, kernels.room(TILES) + 1, 192)).astype(np.float32)
    sums = np.zeros((36, kernels.room(TILES) + 1, 64), np.float32)
    with torch.inference_mode():
        products(planes, sums)
        transforms(planes, sums)
        dense_blocks()
    starts()


def products(planes: whole_maps.Map, sums: whole_maps.Map) -> None:
    print("\n| channels in, out | these products | torch.bmm | a 3x3 convolution by torch |")
    print("| --- | ---: | ---: | ---: |")
    for inputs, outputs in SHAPES:
        conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        conv.weight.copy_(conv.weight.contiguous(memory_format=torch.channels_last))
        filters = whole_maps.Convolution(conv).filters
        ours = seconds(partial(kernels.multiply_row, planes, 0, TILES, filters, sums))
        left = torch.from_numpy(planes[:, :TILES, :inputs])
        right, out = torch.rand(36, inputs, outputs), torch.empty(36, TILES, outputs)
        theirs = seconds(partial(torch.bmm, left, right, out=out))
        image = torch.rand(1, inputs, 32, 96).to(memory_format=torch.channels_last)
        direct = seconds(partial(conv, image))
        product = 2 * 36 * TILES * inputs * outputs
        pixels = 2 * 9 * inputs * outputs * 32 * 96
        print(
            f"| {inputs}, {outputs} | {product / ours / 1e9:.0f} GFLOP/s "
            f"| {product / theirs / 1e9:.0f} | {pixels / direct / 1e9:.0f} |"
        )


def transforms(planes: whole_maps.Map, sums: whole_maps.Map) -> None:
    line = whole_maps.empty_map((4, 4 * TILES), 64)
    bias, rows = np.zeros(64, np.float32), (0, 1, 2, 3, 4, 5)
    load = seconds(partial(kernels.load_row, line, rows, 0, TILES, planes, 0))
    store = seconds(partial(kernels.store_row, sums, bias, bias, line, 1, 1, TILES))
    print(
        f"\nTransforms of a tile of 64 channels: {load / TILES * 1e9:.0f} ns to planes, "
        f"{store / TILES * 1e9:.0f} ns to results"
    )


def starts() -> None:
    """How long a process takes to have the kernels, after torch."""
    script = (
        "import time, torch; began = time.perf_counter();"
        "from upscaler.engine.cpu.check import kernels_work; assert kernels_work();"
        "print(time.perf_counter() - began)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        took = [
            float(subprocess.check_output([sys.executable, "-c", script], env=environment))
            for _ in range(6)
        ]
    print(
        f"\nTo have them and to check them: {took[0]:.1f} s the first time, then "
        f"{statistics.median(took[1:]):.2f} s"
    )


def dense_blocks() -> None:
    block = whole_maps.DenseBlock(ResidualDenseBlock())
    source, out = (whole_maps.empty_map((SIDE, SIDE)) for _ in range(2))
    source[1:-1, 1:-1] = np.random.default_rng(0).normal(size=(SIDE, SIDE, 64))
    print("\n| a dense block, tiles of a row at once | GFLOP/s of direct convolutions |")
    print("| ---: | ---: |")
    for most in (14, 26, 38, 50, 98):
        vars(whole_maps)["MOST_TILES"] = most
        with whole_maps.Workers() as workers:
            took = seconds(partial(workers.add_dense, block, source, out, (SIDE, SIDE)), 9)
        print(f"| {most} | {FLOP_A_PIXEL * SIDE * SIDE / took / 1e9:.0f} |")


if __name__ == "__main__":
    main()
