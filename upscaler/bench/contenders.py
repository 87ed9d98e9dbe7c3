"""Which engines a benchmark compares, and how large their networks' maps are. Needs no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from upscaler.bench.machine import Machine, version
from upscaler.errors import Unavailable
from upscaler.install import install_command
from upscaler.models import RRDB, Model
from upscaler.settings import Device, Precision

BF16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""CPU flags for bf16 multiplication in hardware; the last is ARM's."""
CUSTOMARY_TILE_PX: Final = 400
"""The tile size that users of `RealESRGANer` commonly choose."""
CUSTOMARY_PAD_PX: Final = 10
"""The `tile_pad` that `RealESRGANer` has by default."""
MAPS_AT_ONCE: Final = 4
"""How many of its largest maps a plain network holds at once: a convolution's input and output, and
a copy of each in the memory layout that the convolution uses."""


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
"""The packages that each needs; the version of the first is reported."""
INSTALL: Final = {
    Peer.REALESRGAN: (
        f"{install_command('reference')}, then "
        "pip install --no-deps --no-build-isolation basicsr==1.4.2 realesrgan==0.3.0"
    ),
    Peer.OPENVINO: install_command("bench"),
    Peer.ONNXRUNTIME: install_command("bench"),
}


@dataclass(frozen=True)
class Contender:
    """One engine at one precision; `peer` is None for this engine.

    `tile` is in input pixels per side, and 0 means untiled. Only RealESRGANer uses it: this engine
    plans its own tiles, and the others run untiled.
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
        """The precision of most of its multiplications: fp32, bf16 or fp16."""
        # In `mixed` the tail of a deep network, at most a quarter of its work, is fp32.
        return "bf16" if self.precision == "mixed" else str(self.precision)


def native_bf16(machine: Machine) -> bool:
    """Whether the CPU multiplies bf16 in hardware; without that, bf16 is slower than fp32."""
    return not BF16_FLAGS.isdisjoint(machine.flags)


def installed(peer: Peer) -> bool:
    """Whether everything that `peer` needs is installed."""
    return all(version(name) for name in DISTRIBUTIONS[peer])


def supported_peers(device: Device) -> list[Peer]:
    """The peers that run on `device`, installed or not."""
    return [Peer.REALESRGAN] if device is Device.CUDA else list(Peer)


def select(
    device: Device,
    *,
    bf16: bool,
    precisions: Iterable[Precision] = (),
    peers: Iterable[Peer] | None = None,
) -> list[Contender]:
    """The contenders on `device`, this engine first.

    `precisions` are this engine's, by default all that are useful on the machine, where `bf16` is
    whether its CPU has native bf16. `peers` are by default all that are installed. Raises
    Unavailable for a requested peer that does not run on `device` or is not installed.
    """
    supported = supported_peers(device)
    if peers is None:
        peers = [peer for peer in supported if installed(peer)]
    own = list(precisions) or _useful_precisions(device, bf16=bf16)
    contenders = [Contender(None, precision) for precision in own]
    for peer in peers:
        if peer not in supported:
            raise Unavailable(f"{TITLES[peer]} does not run on {device}: leave out --peer {peer}")
        if not installed(peer):
            raise Unavailable(f"{TITLES[peer]} is not installed: {INSTALL[peer]}")
        contenders += variants(peer, device, bf16=bf16)
    return contenders


def _useful_precisions(device: Device, *, bf16: bool) -> list[Precision]:
    """The precisions in which this engine is fast on such a machine."""
    if device is Device.CUDA:
        return [Precision.FP32, Precision.FP16]
    if device is Device.CPU and bf16:
        return [Precision.FP32, Precision.MIXED, Precision.BF16]
    return [Precision.FP32]


def variants(peer: Peer, device: Device, *, bf16: bool) -> Sequence[Contender]:
    """The variants of `peer` to measure on `device`: tiled and untiled, or its precisions."""
    if peer is Peer.REALESRGAN:
        precision = Precision.FP16 if device is Device.CUDA else Precision.FP32
        return [Contender(peer, precision, tile) for tile in (CUSTOMARY_TILE_PX, 0)]
    if peer is Peer.OPENVINO and bf16:
        return [Contender(peer, Precision.FP32), Contender(peer, Precision.BF16)]
    return [Contender(peer, Precision.FP32)]


def largest_map(model: Model, width: int, height: int) -> int:
    """The number of values in the network's largest map of 64 channels, for an untiled image."""
    shape = model.network
    # The compact networks compute at the input's size, and upscale by one shuffle at the end.
    scale = shape.scale if isinstance(shape, RRDB) else 1
    return 64 * width * height * scale**2
