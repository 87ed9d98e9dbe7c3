"""How fast each convolution of the GPU's kernels is in tiles of several shapes, on this card.

    python -m benchmarks.gpu_tiles

For every convolution it prints the fastest tiles, as columns, depth, warps and stages, and TFLOP/s.
`upscaler.engine.gpu.whole_maps` has the best as tables. Compiling them all takes two minutes.
"""

import itertools
import sys
from collections.abc import Callable

import torch
from torch import nn

from upscaler.engine.gpu import whole_maps
from upscaler.engine.gpu.whole_maps import LEAKY, Tile, tiles, zeros

SIDE = 512
"""The side of the body's map; the tail's last maps are four times as large."""
CONVOLUTIONS = (
    (64, 32, 0, SIDE),
    (96, 32, 0, SIDE),
    (128, 32, 0, SIDE),
    (160, 32, 0, SIDE),
    (192, 64, 0, SIDE),
    (64, 64, 0, SIDE),
    (64, 64, 0, 4 * SIDE),
    (64, 3, 1, 4 * SIDE),
    (64, 48, 4, SIDE),
)
"""Channels in and out, what a pixel becomes (0 is a map), and the side."""
LAUNCHES = 12
SHOWN = 5


def main() -> int:
    if not torch.cuda.is_available():
        print("this measures a CUDA device, and torch finds none", file=sys.stderr)
        return 1
    major, minor = torch.cuda.get_device_capability()
    best = tiles(10 * major + minor)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    with torch.inference_mode(), torch.device("cuda"):
        for inputs, outputs, image, side in CONVOLUTIONS:
            conv = nn.Conv2d(inputs, outputs, 3, padding=1).requires_grad_(False)
            prepared = whole_maps.Convolution(conv, best, LEAKY, image=image)
            device = conv.weight.device
            source = zeros(side, side, inputs, device).normal_()
            near = torch.rand(side, side, 3) if image > 1 else None
            out = zeros(side, side, outputs, device)
            if image:
                out = torch.empty(side * image, side * image, 3)

            def run(
                prepared: whole_maps.Convolution = prepared,
                source: torch.Tensor = source,
                out: torch.Tensor = out,
                side: int = side,
                near: torch.Tensor | None = near,
            ) -> None:
                prepared(source, out, side, side, residual=near)

            flop = 18 * inputs * outputs * side**2
            found = []
            for tile in _tiles(inputs):
                prepared.tile = tile
                seconds = _seconds(run)
                if seconds is not None:
                    found.append((flop / seconds / 1e12, tuple(tile)))
            fastest = ", ".join(
                f"{tile} {rate:.0f}" for rate, tile in sorted(found)[: -SHOWN - 1 : -1]
            )
            print(f"{inputs} to {outputs}, {side}x{side}, image {image}: {fastest}", flush=True)
    return 0


def _tiles(inputs: int) -> list[Tile]:
    """The tiles to try: as many columns as warps can share, and a depth that divides the inputs."""
    shapes = itertools.product((32, 64, 128), (32, 64), (4, 8), (2, 3, 4))
    return [
        Tile(*each) for each in shapes if inputs % each[1] == 0 and each[0] >= 16 * each[2] // 2
    ]


def _seconds(run: Callable[[], None]) -> float | None:
    """The least time of one launch, or None if the card has not enough shared memory for it."""
    try:
        run()
    except Exception as error:  # Triton's, which it does not export
        if "out of resource" in str(error):
            return None
        raise
    times = []
    for _ in range(3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        for _ in range(LAUNCHES):
            run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / LAUNCHES / 1e3)
    return float(min(times))


if __name__ == "__main__":
    sys.exit(main())
