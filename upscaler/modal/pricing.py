"""Modal's prices for containers, in dollars per second, as published in November 2026."""

from typing import Final

OCTOAI_USD: Final = 0.004
"""OctoAI's price per request (docs/CONTRACT.md)."""
USD_PER_CORE_S: Final = 0.000_013_1
USD_PER_GIB_S: Final = 0.000_002_22
GPU_USD_PER_S: Final = {
    "T4": 0.000_164,
    "L4": 0.000_222,
    "A10": 0.000_306,
    "L40S": 0.000_542,
    "A100-40GB": 0.000_583,
    "A100-80GB": 0.000_694,
    "H100": 0.001_097,
}
"""By Modal's name of the GPU."""


def card(device: str) -> str | None:
    """Modal's name for a GPU, from CUDA's name such as NVIDIA L4; None for an unknown GPU.

    It is the first word, except that some A10s are called A10G, and that Modal distinguishes A100s
    by their memory, which follows other words.
    """
    words = device.removeprefix("NVIDIA ").removeprefix("Tesla ")
    first = words.replace("-", " ").partition(" ")[0]
    if first == "A100":
        return "A100-40GB" if "40GB" in words else "A100-80GB"
    name = "A10" if first == "A10G" else first
    return name if name in GPU_USD_PER_S else None


def container_usd_per_s(device: str, cores: float, memory_gib: float) -> float | None:
    """The price of a container with that device in dollars per second; None if it is unknown."""
    name = card(device)
    if name is None and device != "cpu":
        return None
    gpu = GPU_USD_PER_S[name] if name else 0.0
    return gpu + cores * USD_PER_CORE_S + memory_gib * USD_PER_GIB_S
