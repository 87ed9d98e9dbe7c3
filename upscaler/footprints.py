"""What the networks need of memory, as measured: `python benchmarks/footprints.py` finds these."""

from typing import Final

from upscaler.models import RRDB, Compact
from upscaler.plan import Footprint
from upscaler.settings import Precision

CPU: Final[dict[tuple[type[RRDB | Compact], int, Precision], tuple[int, int, int, int]]] = {
    (Compact, 16, Precision.FP32): (1_329_188, 11_138, 3_206, 0),
}
"""By the kind and depth of the network and the precision: fixed, column, flow and tail."""


def footprint(network: RRDB | Compact, precision: Precision, device: str) -> Footprint:
    return Footprint(fixed=30_000_000, column=400_000, flow=10_000, tail=50_000, step_px=32768, tail_px=2048)
