"""Which device and precision to compute with, and what follows from that for the convolutions."""

from typing import Final

import torch

from upscaler.engine.convolution import Direct, Winograd, has_onednn
from upscaler.engine.streams import Methods
from upscaler.errors import DeviceUnavailable
from upscaler.settings import Device, Precision

DTYPES: Final = {
    Precision.FP32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
}


def pick_device(device: Device) -> torch.device:
    """The torch device; raises DeviceUnavailable if this machine has none."""
    there = {
        Device.CUDA: torch.cuda.is_available(),
        Device.MPS: torch.backends.mps.is_available(),
        Device.CPU: True,
    }
    if device is Device.AUTO:
        device = next(name for name, available in there.items() if available)
    if not there[device]:
        raise DeviceUnavailable(f"torch finds no {device} device on this machine: use cpu or auto")
    return torch.device(device)


def name_of(device: torch.device) -> str:
    """The device's name, such as NVIDIA L4; for a CPU just cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def pick_precision(precision: Precision, device: torch.device) -> Precision:
    """What to compute in; raises DeviceUnavailable for what the device cannot do or is slow at."""
    if precision is Precision.AUTO:
        if device.type == "cuda":
            return Precision.FP16
        return Precision.MIXED if device.type == "cpu" and _has_bf16() else Precision.FP32
    if precision is Precision.FP16 and device.type == "cpu":
        raise DeviceUnavailable(
            "fp16 is not supported on CPUs: use fp32, or mixed where bf16 is native"
        )
    in_bf16 = precision in (Precision.MIXED, Precision.BF16)
    if in_bf16 and device.type == "cpu" and not has_onednn(torch.bfloat16):
        raise DeviceUnavailable(
            f"{precision} computes in bf16, which is slow on this CPU without AVX-512: use fp32"
        )
    if precision is Precision.MIXED and device.type != "cpu":
        raise DeviceUnavailable(f"mixed is for CPUs: use fp16 on {device.type}")
    return precision


def _has_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware; elsewhere it would be slower than fp32."""
    avx512: bool = torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001  nothing public says it
    amx: bool = torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    return avx512 or amx


def methods(precision: Precision, device: torch.device) -> Methods:
    """How the parts of a network are computed.

    In bf16 the image itself would lose its last bits, so the first convolution is never computed
    in it, nor are the sums of the body: neither takes much of the time. The tail does.
    """
    if device.type != "cpu":
        same = Direct(DTYPES[precision], DTYPES[precision], device)
        return Methods(same, same, same)
    winograd = Winograd(torch.float32, device)
    if precision is Precision.FP32:
        return Methods(winograd, winograd, winograd)
    first = Direct(torch.float32, torch.float32, device)
    body = Direct(torch.bfloat16, torch.float32, device)
    if precision is Precision.MIXED:
        return Methods(first, body, winograd)
    return Methods(first, body, Direct(torch.bfloat16, torch.bfloat16, device))
