"""What this machine is: its processor, its memory and what is installed, without torch.

Linux tells most; elsewhere what is not known is left out.
"""

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CPUINFO: Final = Path("/proc/cpuinfo")
MEMINFO: Final = Path("/proc/meminfo")
TELLING_FLAGS: Final = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "bf16")
"""Which of a processor's many flags decide how fast a convolution is."""
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
    """The machine a figure comes from; `flags` are those of TELLING_FLAGS that it has."""

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
    flags = (info.get("flags") or info.get("Features") or "").split()
    return Machine(
        processor=_processor(info),
        flags=tuple(flag for flag in TELLING_FLAGS if flag in flags),
        cores=_cores(),
        memory_bytes=_meminfo("MemTotal"),
        system=platform.platform(),
        python=platform.python_version(),
        versions=dict(_versions()),
    )


def available_bytes() -> int | None:
    """How much memory a new job can have before the machine swaps or kills."""
    return _meminfo("MemAvailable")


def version(distribution: str) -> str | None:
    """The version of an installed distribution, None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> Iterator[tuple[str, str]]:
    for name in DISTRIBUTIONS:
        found = version(name)
        if found:
            yield name, found


def _cores() -> int:
    """How many cores this process may use, which in a container are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    """What the kernel says of the first processor."""
    if not CPUINFO.is_file():
        return {}
    first = CPUINFO.read_text().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _processor(info: dict[str, str]) -> str:
    name = info.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in info:  # a virtual machine's name for it may be no more than the maker's
        name += f" (family {info['cpu family']}, model {info.get('model', '?')})"
    return name


def _meminfo(key: str) -> int | None:
    if not MEMINFO.is_file():
        return None
    for line in MEMINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return None
