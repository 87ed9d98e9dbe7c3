"""Which engines a benchmark compares, and how much there is to compute. Needs no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from upscaler.bench.machine import Machine, version
from upscaler.errors import Unavailable
from upscaler.models import RRDB, Model
from upscaler.settings import Device, Precision

BF16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""CPU flags for bf16 multiplication in hardware; the last is ARM's."""
CUSTOMARY_TILE_PX: Final = 400
"""The tile size that users of `RealESRGANer` commonly choose."""
CUSTOMARY_PAD_PX: Final = 10
"""The `tile_pad` that `RealESRGANer` has by default."""
MAPS_AT_ONCE: Final = 4
"""How many of its largest maps a plain network holds: what a convolution reads and writes, and a
copy of each in the layout that it is computed in."""


class Peer(StrEnum):
    """What this engine can be compared with."""

    REALESRGAN = "realesrgan"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"


TITLES: Final = {
    Peer.REALESRGAN: "RealESRGANer",
    Peer.OPENVINO: "OpenVINO",
    Peer.ONNXRUNTIME: "onnxruntime",
}
DISTRIBUTIONS: Final = {
    Peer.REALESRGAN: ("realesrgan", "basicsr"),
    Peer.OPENVINO: ("openvino",),
    Peer.ONNXRUNTIME: ("onnxruntime", "onnx"),
}
"""What has to be installed; the first is the one whose version counts."""
INSTALL: Final = {
    Peer.REALESRGAN: (
        "pip install 'octo-upscaler[reference]', then "
        "pip install --no-deps --no-build-isolation basicsr==1.4.2 realesrgan==0.3.0"
    ),
    Peer.OPENVINO: "pip install 'octo-upscaler[bench]'",
    Peer.ONNXRUNTIME: "pip install 'octo-upscaler[bench]'",
}


@dataclass(frozen=True)
class Contender:
    """One engine at one precision; `peer` is None for this engine.

    `tile` is in input pixels per side, 0 for the image in one piece. It is for RealESRGANer:
    this engine plans by itself, and the others are given the image whole.
    """

    peer: Peer | None
    precision: Precision
    tile: int = 0

    @property
    def name(self) -> str:
        """Its name in tables."""
        name = f"{TITLES[self.peer] if self.peer else 'upscaler'} {self.precision}"
        if self.peer is Peer.REALESRGAN:
            name += f", tile {self.tile}" if self.tile else ", untiled"
        return name

    @property
    def version(self) -> str:
        """The version of the package it comes from."""
        return version(DISTRIBUTIONS[self.peer][0] if self.peer else "octo-upscaler") or "?"

    @property
    def matrix_precision(self) -> str:
        """The precision of the bulk of its multiplications, fp32, bf16 or fp16."""
        return "bf16" if self.precision == "mixed" else str(self.precision)


def native_bf16(machine: Machine) -> bool:
    """Whether the CPU multiplies bf16 in hardware; without that bf16 is slower than fp32."""
    return not BF16_FLAGS.isdisjoint(machine.flags)


def installed(peer: Peer) -> bool:
    """Whether everything that `peer` needs is installed."""
    return all(version(name) for name in DISTRIBUTIONS[peer])


def possible(device: Device) -> list[Peer]:
    """The peers that run on `device`, installed or not."""
    return [Peer.REALESRGAN] if device is Device.CUDA else list(Peer)


def field(
    device: Device,
    *,
    bf16: bool,
    precisions: Iterable[Precision] = (),
    peers: Iterable[Peer] | None = None,
) -> list[Contender]:
    """The contenders on `device`, this engine first.

    `precisions` are this engine's, by default all that the machine can do; `peers` are by default
    those installed. Raises Unavailable for a peer that is asked for and cannot be had.
    """
    wanted = [peer for peer in possible(device) if installed(peer)] if peers is None else peers
    own = list(precisions) or _precisions(device, bf16=bf16)
    contenders = [Contender(None, precision) for precision in own]
    for peer in wanted:
        if peer not in possible(device):
            raise Unavailable(f"{TITLES[peer]} does not run on {device}: leave out --peer {peer}")
        if not installed(peer):
            raise Unavailable(f"{TITLES[peer]} is not installed: {INSTALL[peer]}")
        contenders += variants(peer, device, bf16=bf16)
    return contenders


def _precisions(device: Device, *, bf16: bool) -> list[Precision]:
    """What this engine can compute in on such a machine."""
    words = ["fp32", "fp16"] if device is Device.CUDA else ["fp32"]
    if device is Device.CPU and bf16:
        words += ["mixed", "bf16"]
    return [Precision(word) for word in words if word in list(Precision)]


def variants(peer: Peer, device: Device, *, bf16: bool) -> Sequence[Contender]:
    """What `peer` can be on `device`: its ways to tile, or its precisions."""
    if peer is Peer.REALESRGAN:
        precision = Precision.FP16 if device is Device.CUDA else Precision.FP32
        return [Contender(peer, precision, tile) for tile in (CUSTOMARY_TILE_PX, 0)]
    if peer is Peer.OPENVINO and bf16:
        return [Contender(peer, Precision.FP32), Contender(peer, Precision.BF16)]
    return [Contender(peer, Precision.FP32)]


def largest_map(model: Model, width: int, height: int) -> int:
    """How many values the network's largest map has, of 64 channels, in one piece."""
    shape = model.network
    scale = shape.scale if isinstance(shape, RRDB) else 1  # the compact ones upscale at the end
    return 64 * width * height * scale**2
