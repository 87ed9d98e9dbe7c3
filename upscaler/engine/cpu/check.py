"""Whether the kernels are used on a CPU, which they earn by a right result on that processor."""

import logging
from functools import cache
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so

from upscaler.engine.convolution import LEAK
from upscaler.engine.networks import NUM_FEAT, Net, ResidualDenseBlock
from upscaler.engine.streams import Streamed
from upscaler.settings import Kernels, Precision

CHECKED_PX: Final = 13, 18
"""The rows and columns of the map on which the kernels are tried: no multiples of their tiles."""
MOST_DIFFERENCE: Final = 1e-4
"""How far a result may be from torch's, of values of about 1: both are rounded, by 1e-6."""

log = logging.getLogger(__name__)


def compiled_wanted(kernels: Kernels, device: torch.device, precision: Precision) -> bool:
    """Whether the kernels are used. Compiling them takes seconds if nobody has done it before."""
    return compiled_asked(kernels, device, precision) and kernels_work()


def compiled_asked(kernels: Kernels, device: torch.device, precision: Precision) -> bool:
    """Whether the kernels are used if they work. Compiles nothing."""
    return device.type == "cpu" and precision is Precision.FP32 and kernels is not Kernels.ONEDNN


def compiled(net: Net) -> Streamed:
    """`net` prepared for the kernels. Copies its weights."""
    from upscaler.engine.cpu.whole_maps import whole_maps

    return whole_maps(net)


@cache
def kernels_work() -> bool:
    """Whether the kernels are there and right; if they are not, the log says why."""
    try:
        difference = _difference()
    except Exception:
        # Whatever it is, such as a processor that numba does not know: torch computes the same.
        log.warning("the kernels failed on this processor, so oneDNN is used", exc_info=True)
        return False
    # Not the other way round, since a difference that is no number is none of the smaller ones.
    if difference < MOST_DIFFERENCE:
        return True
    log.warning(
        "the kernels' result on this processor is wrong by %g, so oneDNN is used", difference
    )
    return False


@torch.inference_mode()
def _difference() -> float:
    """The largest difference from torch's results: of a dense block and three convolutions."""
    from upscaler.engine.cpu.whole_maps import Convolution, DenseBlock, Several, Workers, empty_map

    # The numbers of torch's generator are the caller's.
    with torch.random.fork_rng(devices=[]):
        dense, conv = ResidualDenseBlock(), nn.Conv2d(NUM_FEAT, NUM_FEAT, 3, padding=1)
    numbers = np.random.default_rng(0)
    for parameter in (*dense.parameters(), *conv.parameters()):
        parameter.copy_(torch.from_numpy(numbers.normal(0, 0.05, parameter.shape)))
    rows, columns = CHECKED_PX
    source, middle, result = (empty_map(CHECKED_PX) for _ in range(3))
    inside = slice(1, rows + 1), slice(1, columns + 1)
    source[inside] = numbers.normal(size=(rows, columns, NUM_FEAT))
    with Workers() as workers:
        workers.add_dense(DenseBlock(dense), source, middle, CHECKED_PX)
        workers.convolve(Convolution(conv), middle, result, CHECKED_PX)
        workers.chain(Several([Convolution(conv, LEAK)] * 2), result, middle, CHECKED_PX)
    expected = conv(dense(torch.from_numpy(source[inside]).permute(2, 0, 1)[None]))
    for _ in range(2):
        expected = F.leaky_relu(conv(expected), LEAK)
    return float(np.abs(middle[inside] - expected[0].permute(1, 2, 0).numpy()).max())
