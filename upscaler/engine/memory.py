"""How much memory a device has free, and how to recognise that it has run out."""

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

CPU: Final = torch.device("cpu")
CGROUP: Final = Path("/sys/fs/cgroup")
"""Where Linux publishes the memory limit of a container."""
LIMIT_AND_USE: Final = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""The files there with the limit and the current use: of cgroup v2, then of cgroup v1."""
ALLOCATOR_FAILED: Final = ("DefaultCPUAllocator", "bad_alloc", "out of memory")
NO_THREAD: Final = "can't start new thread"
"""Python's message when a thread gets no memory for its stack, or the system allows no more."""
ONEDNN_FAILED: Final = "could not create a primitive"
"""oneDNN's message when it cannot allocate memory for the code that it generates. It fails for no
other reason here: whether it has code for these convolutions depends on the processor alone."""
CUDNN_FAILED: Final = ("unable to find an engine", "STATUS_ALLOC_FAILED", "_ALLOCATION_FAILED")
"""Messages of cuDNN and cuBLAS when they get no memory: every engine that it knows for a
convolution was refused, or the status of either library. cuDNN 9 has two others."""
THREADS_BYTES, THREAD_BYTES = 2**27, 2**24
"""The address space that must be free before threads are started: in total, and per thread."""


def free_bytes(device: torch.device) -> int:
    """How many bytes can be allocated on `device` without swapping or evicting anything.

    On CUDA that includes what torch's allocator keeps cached for its next tensors. Elsewhere it is
    the machine's available memory, or less if this process is in a container with a limit.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    # psutil sees the whole machine, not the container's limit.
    available: int = psutil.virtual_memory().available
    left = _left_to_container()
    return available if left is None else min(available, left)


def trim_heap() -> None:
    """Return freed memory to the operating system, where the C library can (glibc).

    It takes milliseconds. Without it a process keeps the memory of its largest image, and its heap
    becomes fragmented and grows with every further image.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim:
        trim(0)


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` means that memory ran out, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # On CPUs torch raises a plain RuntimeError, and so it does for what cuDNN and cuBLAS say when
    # they find no room for a workspace: only its message tells.
    words = (*ALLOCATOR_FAILED, NO_THREAD, ONEDNN_FAILED, *CUDNN_FAILED)
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def room_for_threads(count: int) -> bool:
    """Whether there is enough memory to start `count` threads, each with its stack and heap."""
    # Allocated and freed at once: np.empty reserves address space without touching its pages.
    try:
        np.empty(THREADS_BYTES + count * THREAD_BYTES, np.uint8)
    except MemoryError:
        return False
    return True


@contextmanager
def as_out_of_memory(what: str) -> Iterator[None]:
    """Turn any out-of-memory error in the block into OutOfMemory: no memory for `what`."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"there is not enough memory for {what}: free some, or use a smaller image"
        ) from error


def _left_to_container(folder: Path = CGROUP) -> int | None:
    """The bytes that the container's limit leaves; None outside a container or without a limit."""
    for limit_name, use_name in LIMIT_AND_USE:
        try:
            limit, used = (folder / limit_name).read_text(), (folder / use_name).read_text()
        except OSError:
            continue
        return None if limit.strip() == "max" else max(int(limit) - int(used), 0)
    return None
