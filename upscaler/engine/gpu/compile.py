"""Compile the kernels ahead, for cards that need not be here, so that no start waits for it.

    python -m upscaler.engine.gpu.compile 8.9 9.0

They are written to Triton's cache, whose folder is TRITON_CACHE_DIR: where that folder and the same
version of Triton are, nothing is compiled again. Numbers are CUDA's compute capabilities, such as
8.0 for A100, 8.6 for A10G, 8.9 for L4 and L40S, and 9.0 for H100 and H200.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Final

import torch
import triton
from triton.backends.compiler import GPUTarget

from upscaler.engine.gpu import kernels
from upscaler.engine.gpu.launches import launcher, run
from upscaler.engine.gpu.whole_maps import whole_maps
from upscaler.engine.layers import Resolution
from upscaler.engine.networks import Net, RRDBNet, SRVGGNetCompact

SIDE: Final = 8
"""The side of the map that is as if upscaled: kernels are the same for every size."""
WARP: Final = 32
"""The threads of a warp, on every card."""


def compile_kernels(capability: int) -> list[triton.compiler.CompiledKernel]:
    """Compile every kernel of all networks for a capability such as 89, unless it is in the cache.

    The networks run as on a GPU, with all their arguments, but nothing is launched. So what is
    compiled is what they ask for. It takes about ten seconds.
    """
    nets: tuple[Net, ...] = (
        RRDBNet(scale=4, num_block=1),
        RRDBNet(scale=2, num_block=1),
        SRVGGNetCompact(scale=4, num_conv=1),
    )
    with _as_if_on(capability):
        for net in nets:
            network = whole_maps(net.requires_grad_(False), capability)
            side = SIDE * network.fold
            network.open(Resolution(SIDE, SIDE, SIDE), SIDE).push(torch.zeros(side, side, 3))
    functions = kernels.convolve, kernels.double_and_convolve, kernels.convolve_image
    return [
        kernel
        for function in functions
        for kernel in function.device_caches[capability][0].values()
    ]


@contextmanager
def _as_if_on(capability: int) -> Iterator[None]:
    """Make Triton compile for that card, under whose number as a device it keeps the kernels."""
    stand_in = SimpleNamespace(
        get_current_device=lambda: capability,
        get_current_stream=lambda _device: 0,
        get_current_target=lambda: GPUTarget("cuda", capability, WARP),
    )
    token = launcher.set(partial(run, warmup=True))
    triton.runtime.driver.set_active(stand_in)
    try:
        yield
    finally:
        triton.runtime.driver.set_active(None)  # it is looked for again when it is needed
        launcher.reset(token)


def main() -> None:
    """Compile for the capabilities that the command line names."""
    for name in sys.argv[1:]:
        began_s = time.perf_counter()
        found = compile_kernels(int(name.replace(".", "")))
        print(f"{name}: {len(found)} kernels in {time.perf_counter() - began_s:.1f} s")  # noqa: T201


if __name__ == "__main__":
    main()
