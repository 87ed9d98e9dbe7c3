"""What the networks need of memory, as measured: `python benchmarks/footprints.py` finds these."""

from typing import Final

from upscaler.models import RRDB, Compact
from upscaler.planning import MIB, Footprint
from upscaler.settings import Device, Precision

MEASURED: Final = {
    (Compact, 16, Precision.FP32): (0, 21_712, 3_305, 0),
    (Compact, 16, Precision.MIXED): (1_770_389, 5_775, 1_718, 0),
    (Compact, 16, Precision.BF16): (1_550_468, 7_453, 1_487, 0),
    (Compact, 32, Precision.FP32): (0, 42_707, 3_469, 0),
    (Compact, 32, Precision.MIXED): (1_924_781, 12_017, 1_851, 0),
    (Compact, 32, Precision.BF16): (1_566_521, 14_450, 1_618, 0),
    (RRDB, 6, Precision.FP32): (4_396_507, 248_309, 7_619, 30_312),
    (RRDB, 6, Precision.MIXED): (7_824_912, 132_604, 5_109, 21_999),
    (RRDB, 6, Precision.BF16): (3_431_752, 127_329, 5_485, 5_251),
    (RRDB, 23, Precision.FP32): (17_027_351, 789_644, 10_692, 40_995),
    (RRDB, 23, Precision.MIXED): (9_767_465, 415_943, 8_426, 23_625),
    (RRDB, 23, Precision.BF16): (10_490_740, 383_809, 8_484, 10_633),
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
