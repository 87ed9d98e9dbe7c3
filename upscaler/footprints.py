"""What the networks need of memory, as measured: `python benchmarks/footprints.py` finds these."""

from typing import Final

from upscaler.models import RRDB, Compact
from upscaler.plan import MIB, Footprint
from upscaler.settings import Device, Precision

MEASURED: Final = {
    (Compact, 16, Precision.FP32): (0, 22_268, 3_429, 0),
    (Compact, 16, Precision.MIXED): (242_705, 9_562, 2_201, 0),
    (Compact, 16, Precision.BF16): (0, 7_344, 1_564, 0),
    (Compact, 32, Precision.FP32): (1_858_382, 41_364, 3_487, 0),
    (Compact, 32, Precision.MIXED): (416_994, 14_254, 2_457, 0),
    (Compact, 32, Precision.BF16): (58_425, 17_882, 1_521, 0),
    (RRDB, 6, Precision.FP32): (6_720_891, 240_962, 6_982, 32_344),
    (RRDB, 6, Precision.MIXED): (1_508_714, 152_538, 4_716, 28_719),
    (RRDB, 6, Precision.BF16): (4_083_295, 85_799, 4_552, 6_383),
    (RRDB, 23, Precision.FP32): (9_602_882, 836_324, 9_809, 45_484),
    (RRDB, 23, Precision.MIXED): (6_608_378, 443_641, 8_227, 31_186),
    (RRDB, 23, Precision.BF16): (9_001_579, 292_426, 6_181, 5_145),
}
"""The bytes of a Footprint on a CPU: fixed, column, flow and tail, by the kind of network, how many
blocks or convolutions it has, and the precision."""
HEAP_BYTES: Final = 8 * MIB
"""On top of that: by about so much the same picture takes more at one time than at another."""
AT_ONCE_PX: Final = {Device.CPU: (2**15, 2**11), Device.CUDA: (2**20, 2**16)}
"""How many pixels the body and the tail should take at once. On two cores of a CPU times are within
a few percent from half to twice as many. Those for GPUs keep thousands of cores busy and are not
measured yet."""


def footprint(network: RRDB | Compact, precision: Precision, device: str) -> Footprint:
    """What `network` needs in that precision on `device`, a torch device's type.

    Sums are as wide as products on a GPU and nothing is transformed, so what was measured on a CPU
    for bf16, or for fp32, is an upper bound there.
    """
    depth = network.num_block if isinstance(network, RRDB) else network.num_conv
    alike = Precision.BF16 if precision is Precision.FP16 else precision
    fixed, column, flow, tail = MEASURED[type(network), depth, alike]
    at_once = AT_ONCE_PX[Device.CPU if device == Device.CPU else Device.CUDA]
    return Footprint(fixed + HEAP_BYTES, column, flow, tail, *at_once)
