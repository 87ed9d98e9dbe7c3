"""How the mock's process keeps memory: for the next picture, and not for other processes."""

import ctypes
from typing import Final

MIB: Final = 2**20
OPTIONS: Final = {
    -3: 32 * MIB,  # M_MMAP_THRESHOLD: what is larger is always given back; no more can be set
    -1: 256 * MIB,  # M_TRIM_THRESHOLD: of what is free, so much is kept
    -8: 1,  # M_ARENA_MAX: what one thread gave back is there for all
}
"""For mallopt(3), by its numbers in malloc.h."""


def keep_freed_memory() -> None:
    """Let malloc keep what is freed; nothing happens where it is not glibc's.

    It would give the buffers of each picture back to the system, which hands them out again page by
    page, filled with zeros: a quarter of the mock's time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # on macOS, with musl, on Windows
        return
    for option, value in OPTIONS.items():
        mallopt(option, value)
