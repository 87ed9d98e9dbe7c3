"""The machine's processor, memory and installed versions, without torch.

Most of it comes from Linux's /proc; on other systems unknown facts are left out.
"""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CPUINFO: Final = Path("/proc/cpuinfo")
MEMINFO: Final = Path("/proc/meminfo")
TELLING_FLAGS: Final = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "bf16")
"""The processor flags that decide how fast a convolution is."""
DISTRIBUTIONS: Final = (
    "octo-upscaler",
    "torch",
    "realesrgan",
    "basicsr",
    "openvino",
    "onnxruntime",
)


@dataclass(frozen=True)
class Machine:
    """The machine that was measured; `flags` are those of TELLING_FLAGS that it has."""

    processor: str
    flags: tuple[str, ...]
    cores: int
    memory_bytes: int | None
    system: str
    python: str
    versions: dict[str, str]


def describe() -> Machine:
    """The machine that this runs on."""
    info = _cpuinfo()
    flags = (info.get("flags") or info.get("Features") or "").split()  # on x86, on ARM
    processor = info.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in info:
        # In a virtual machine the model name may be no more than the maker's name.
        processor += f" (family {info['cpu family']}, model {info.get('model', '?')})"
    # A container or taskset may allow this process fewer cores than the machine has.
    affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    versions = {name: version(name) for name in DISTRIBUTIONS}
    return Machine(
        processor=processor,
        flags=tuple(flag for flag in TELLING_FLAGS if flag in flags),
        cores=cores,
        memory_bytes=_meminfo("MemTotal"),
        system=platform.platform(),
        python=platform.python_version(),
        versions={name: found for name, found in versions.items() if found},
    )


def available_bytes() -> int | None:
    """The memory that can be allocated without swapping or being killed; None if unknown."""
    # MemFree would not count the page cache, which the kernel gives up when memory is needed.
    return _meminfo("MemAvailable")


def version(distribution: str) -> str | None:
    """The version of an installed distribution, None if it is not installed."""
    import importlib.metadata  # noqa: PLC0415  takes a while, and `upscaler --help` has no use for it

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpuinfo() -> dict[str, str]:
    """The kernel's description of the first processor; empty where there is no /proc/cpuinfo."""
    if not CPUINFO.is_file():
        return {}
    first = CPUINFO.read_text().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _meminfo(key: str) -> int | None:
    if not MEMINFO.is_file():
        return None
    for line in MEMINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return None
