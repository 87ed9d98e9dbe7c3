"""The matrix peak of a machine: the highest rate of operations that torch reaches on it.

It is measured on large matrix products and, on a CPU, on convolutions of the networks' shape on
images that fit into its caches. The best rate counts. A disturbed measurement can only lower it,
and then the reported fractions of the peak are too high, never too low.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so

SECONDS: Final = 0.2
"""How long each shape is repeated."""
CPU_SIDES: Final = (1024, 2048)
CUDA_SIDES: Final = (4096, 8192)
"""The sides of square matrices, large enough that overhead besides multiplication is negligible."""
IMAGE_SIDES: Final = (32, 48, 64, 96)
CHANNELS: Final = 64

Work = Callable[[], Tensor]


def measure(device: torch.device, precisions: list[str]) -> dict[str, float]:
    """FLOP per second of `device` in each of `precisions`: fp32, bf16 or fp16."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    with torch.inference_mode():
        return {
            name: max(
                flop / _shortest_time(work, device)
                for flop, work in _workloads(device, dtypes[name])
            )
            for name in precisions
        }


def _workloads(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[int, Work]]:
    """Pairs of a number of operations and the function that performs them."""
    for side in CUDA_SIDES if device.type == "cuda" else CPU_SIDES:
        a = torch.randn(side, side, device=device).to(dtype)
        # Bound as a default: the next round would rebind a name that the lambda only refers to.
        yield 2 * side**3, lambda a=a: a @ a  # type: ignore[misc]
    if device.type == "cuda":
        return
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3).to(dtype)
    for side in IMAGE_SIDES:
        x = torch.randn(1, CHANNELS, side, side).to(dtype, memory_format=torch.channels_last)
        flop = 2 * 9 * CHANNELS**2 * side**2
        yield flop, lambda x=x: F.conv2d(x, weight, padding=1)  # type: ignore[misc]


def _shortest_time(work: Work, device: torch.device) -> float:
    """The shortest time of `work` in seconds, over many runs."""
    work()  # the first run is slower: kernels are loaded and memory is allocated
    best = float("inf")
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        best = min(best, _time_once(work, device))
    return best


def _time_once(work: Work, device: torch.device) -> float:
    if device.type == "cuda":
        # Kernels run asynchronously, so the device itself has to take the time.
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record()
        work()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000
    started = time.perf_counter()
    work()
    if device.type == "mps":
        torch.mps.synchronize()  # its calls, too, return before the work is done
    return time.perf_counter() - started
