"""The matrix peak of a machine: the most operations per second that torch reaches on it.

Tried are large products of matrices and, on a CPU, convolutions of the networks' own shape on
images small enough for its caches. The best rate counts, so that what disturbs a measurement
makes it lower and a fraction of the peak higher, never the other way round.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so

SECONDS: Final = 0.2
"""How long each shape is tried."""
CPU_SIDES: Final = (1024, 2048)
CUDA_SIDES: Final = (4096, 8192)
"""Of square matrices, large enough that the multiplications outweigh all else."""
PICTURE_SIDES: Final = (32, 48, 64, 96)
CHANNELS: Final = 64

Work = Callable[[], Tensor]


def measure(device: torch.device, precisions: list[str]) -> dict[str, float]:
    """FLOP per second of `device` in each of `precisions`: fp32, bf16 or fp16."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    with torch.inference_mode():
        return {name: _best(device, dtypes[name]) for name in precisions}


def _best(device: torch.device, dtype: torch.dtype) -> float:
    return max(flop / _seconds(work, device) for flop, work in _works(device, dtype))


def _works(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[int, Work]]:
    """Operations, and what performs them."""
    for side in CUDA_SIDES if device.type == "cuda" else CPU_SIDES:
        a = torch.randn(side, side, device=device).to(dtype)
        yield 2 * side**3, lambda a=a: a @ a  # type: ignore[misc]
    if device.type == "cuda":
        return
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3).to(dtype)
    for side in PICTURE_SIDES:
        x = torch.randn(1, CHANNELS, side, side).to(dtype, memory_format=torch.channels_last)
        flop = 2 * 9 * CHANNELS**2 * side**2
        yield flop, lambda x=x: F.conv2d(x, weight, padding=1)  # type: ignore[misc]


def _seconds(work: Work, device: torch.device) -> float:
    """The shortest time of many; on CUDA the clock starts and stops on the device."""
    work()
    best = float("inf")
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        best = min(best, _once(work, device))
    return best


def _once(work: Work, device: torch.device) -> float:
    if device.type == "cuda":
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record()
        work()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
