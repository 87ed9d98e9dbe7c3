"""How much memory a device has free."""

from pathlib import Path
from typing import Final

import psutil
import torch

CGROUP: Final = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use (version 2 of its interface)."""


def free_bytes(device: torch.device) -> int:
    """What can still be had without anything else having to give way, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available: int = psutil.virtual_memory().available
    left = _left_to_container()
    return available if left is None else min(available, left)


def _left_to_container(folder: Path = CGROUP) -> int | None:
    """What the container's limit leaves, None where there is no container or no limit."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = (folder / "memory.current").read_text()
    except OSError:
        return None
    return None if limit == "max" else max(int(limit) - int(used), 0)
