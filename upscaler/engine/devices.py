"""Which device and precision to use, and which convolution methods follow from them."""

from dataclasses import replace
from typing import Final

import torch

from upscaler.engine.convolution import Direct, Winograd, has_onednn
from upscaler.engine.cpu.check import compiled_wanted
from upscaler.engine.gpu.check import kernels_wanted
from upscaler.engine.memory import CPU
from upscaler.engine.streams import Methods
from upscaler.errors import DeviceUnavailable
from upscaler.models import RRDB, Compact
from upscaler.planning import (
    STREAMS_COST,
    Footprint,
    compiled_footprint,
    footprint,
    whole_footprint,
)
from upscaler.settings import Device, Kernels, Precision

DTYPES: Final = {
    Precision.FP32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
}


def pick_device(name: str) -> torch.device:
    """The torch device for one that `settings.parse_device` takes.

    AUTO picks the first available of CUDA, MPS and CPU.
    Raises DeviceUnavailable if this machine does not have the device, and for several.
    """
    if "," in name:
        raise DeviceUnavailable(f"{name}: only upscaler serve takes several devices: name one")
    available = {
        Device.CUDA: torch.cuda.is_available(),
        Device.MPS: torch.backends.mps.is_available(),
        Device.CPU: True,
    }
    if name == Device.AUTO:
        name = next(device for device, usable in available.items() if usable)
    kind, _, number = name.partition(":")
    if not available[Device(kind)]:
        raise DeviceUnavailable(f"torch finds no {kind} device on this machine: use cpu or auto")
    if number and int(number) >= (count := torch.cuda.device_count()):
        raise DeviceUnavailable(f"there is no {name} here: the last card is cuda:{count - 1}")
    return torch.device(name)


def pick_devices(names: str) -> list[torch.device]:
    """The torch devices for one or several names; for `cuda`, also by AUTO, all cards.

    Raises DeviceUnavailable if this machine does not have one of them.
    """
    if "," in names:
        return [pick_device(name) for name in names.split(",")]
    device = pick_device(names)
    if str(device) == Device.CUDA:
        return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    return [device]


def name_of(device: torch.device) -> str:
    """The name of a CUDA device, such as "NVIDIA L4"; for others the type, such as "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def pick_precision(
    precision: Precision, device: torch.device, kernels: Kernels = Kernels.AUTO
) -> Precision:
    """The precision for a setting.

    AUTO is FP16 on CUDA, MIXED on a CPU that multiplies bf16 in hardware where that is faster, and
    FP32 elsewhere.
    Raises DeviceUnavailable for a precision that the device does not support or is slow at.
    """
    if precision is Precision.AUTO:
        if device.type == "cuda":
            return Precision.FP16
        return (
            Precision.MIXED if device.type == "cpu" and _bf16_is_faster(kernels) else Precision.FP32
        )
    if precision is Precision.FP16 and device.type == "cpu":
        raise DeviceUnavailable(
            "fp16 is not supported on CPUs: use fp32, or mixed where bf16 is native"
        )
    in_bf16 = precision in (Precision.MIXED, Precision.BF16)
    if in_bf16 and device.type == "cpu" and not has_onednn(torch.bfloat16):
        raise DeviceUnavailable(
            f"{precision} computes in bf16, which is slow on this CPU without AVX-512: use fp32"
        )
    if precision is Precision.BF16 and device.type == "cuda" and not _multiplies_bf16():
        raise DeviceUnavailable("this GPU does not multiply in bf16: use fp16")
    if precision is Precision.MIXED and device.type != "cpu":
        raise DeviceUnavailable(f"mixed is for CPUs: use fp16 on {device.type}")
    return precision


def _bf16_is_faster(kernels: Kernels) -> bool:
    """Whether this CPU multiplies bf16 in hardware, and faster than the kernels multiply fp32.

    AVX-512's bf16 does not: see docs/PERFORMANCE.md. AMX, which has not been measured, multiplies
    eight times as much at once.
    """
    avx512: bool = torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001  there is no public way
    amx: bool = torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    return amx or (avx512 and not compiled_wanted(kernels, CPU, Precision.FP32))


def footprints(
    network: RRDB | Compact, device: torch.device, precision: Precision, kernels: Kernels
) -> list[Footprint]:
    """What each way that this device has to run a network needs, the fastest first.

    Raises DeviceUnavailable for Kernels.TRITON where they cannot run.
    """
    by_streams = footprint(network, precision, device.type)
    if kernels_wanted(kernels, device, precision):
        return [whole_footprint(network)]
    if compiled_wanted(kernels, device, precision):
        whole = compiled_footprint(network, torch.get_num_threads())
        return [whole, replace(by_streams, cost=STREAMS_COST)]
    return [by_streams]


def _multiplies_bf16() -> bool:
    """Whether the GPU multiplies bf16 in hardware: Ampere and later do."""
    native: bool = torch.cuda.is_bf16_supported(including_emulation=False)
    return native


def methods(precision: Precision, device: torch.device) -> Methods:
    """The convolution methods for the parts of a network.

    bf16 has 8 significant bits, as many as a sample of an image, so rounding to it shows. On a CPU
    the first convolution, which reads the image, and the sums of the body are therefore always
    fp32; they take little of the time. The tail takes more: MIXED computes it in fp32, BF16 does
    not.
    """
    if device.type != "cpu":
        # Half precision in the first convolution, too, would round the image itself.
        first = Direct(torch.float32, torch.float32, device)
        others = Direct(DTYPES[precision], DTYPES[precision], device)
        return Methods(first, others, others)
    # bf16 is computed directly: there Winograd gained less in speed than it lost in accuracy.
    winograd = Winograd(torch.float32, device)
    if precision is Precision.FP32:
        return Methods(winograd, winograd, winograd)
    first = Direct(torch.float32, torch.float32, device)
    body = Direct(torch.bfloat16, torch.float32, device)
    if precision is Precision.MIXED:
        return Methods(first, body, winograd)
    return Methods(first, body, Direct(torch.bfloat16, torch.bfloat16, device))
