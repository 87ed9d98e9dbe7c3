"""How much memory a device has free, and what running out of it looks like."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import torch

from upscaler.errors import OutOfMemory

CGROUP: Final = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use."""
LIMIT_AND_USE: Final = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""The files there that say it, in the second and the first version of this interface."""
ONEDNN_FAILED: Final = "could not create a primitive"
"""What oneDNN says when it gets no memory for the code that it makes. Nothing else makes it fail:
it has no code for these convolutions that depends on more than the processor."""
THREADS_BYTES, THREAD_BYTES = 2**27, 2**24
"""Address space that should be left before threads are started: in all, and for each."""


def free_bytes(device: torch.device) -> int:
    """How many bytes can be allocated without anything else being evicted."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept  # by torch, for what comes next
    available: int = psutil.virtual_memory().available
    left = _left_to_container()
    return available if left is None else min(available, left)


def trim_heap() -> None:
    """Return memory that was freed to the operating system, where the C library can do so.

    It takes milliseconds. Without it a process keeps the memory of its largest image, and its heap
    grows with each image that follows, as it becomes fragmented.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim:  # only in glibc
        trim(0)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: torch has a class for that on GPUs, but only a message on CPUs."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("DefaultCPUAllocator", "bad_alloc", "out of memory", ONEDNN_FAILED)
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def room_for_threads(count: int) -> bool:
    """Whether there is enough memory to start `count` threads, each with its stack and heap."""
    try:
        np.empty(THREADS_BYTES + count * THREAD_BYTES, np.uint8)
    except MemoryError:
        return False
    return True


@contextmanager
def as_out_of_memory(what: str) -> Iterator[None]:
    """Raise OutOfMemory, naming `what` there was no memory for, if it runs out in the block."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"there is not enough memory for {what}: free some, or use a smaller image"
        ) from error


def _left_to_container(folder: Path = CGROUP) -> int | None:
    """What the container's limit leaves, None where there is no container or no limit."""
    for limit_name, use_name in LIMIT_AND_USE:
        try:
            limit, used = (folder / limit_name).read_text(), (folder / use_name).read_text()
        except OSError:
            continue
        return None if limit.strip() == "max" else max(int(limit) - int(used), 0)
    return None
