"""Makes glibc's malloc keep freed memory for the next image."""

import ctypes
from typing import Final

MIB: Final = 2**20
OPTIONS: Final = {
    -3: 32 * MIB,  # M_MMAP_THRESHOLD: larger blocks are always returned; this is the maximum
    -1: 256 * MIB,  # M_TRIM_THRESHOLD: how much free memory is kept
    -8: 1,  # M_ARENA_MAX: one arena, so that any thread can use what another one freed
}
"""For mallopt(3), by the numbers in malloc.h."""


def keep_freed_memory() -> None:
    """Let malloc keep freed memory; does nothing without glibc.

    By default the buffers of each image go back to the system, which hands them out again page by
    page, filled with zeros: that was a quarter of the mock's time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return
    for option, value in OPTIONS.items():
        mallopt(option, value)
