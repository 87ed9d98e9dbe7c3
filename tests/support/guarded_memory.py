"""Runs the networks on a CPU with maps that end, or begin, at memory that nobody may touch.

Run as a program: whoever reads or writes beside a map ends it by SIGSEGV. Elsewhere such a mistake
ends a process now and then, when there happens to be no memory.
"""

import ctypes
import mmap
from typing import Final

import numpy as np
import torch

from tests.support.networks import lively
from upscaler.engine.cpu import whole_maps
from upscaler.models import MODELS, RRDB, Compact, Model, UpscalingModel

PAGE: Final = mmap.PAGESIZE
PROT_NONE: Final = 0
"""Of mprotect(2): no access."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def guarded(shape: tuple[int, int, int], *, at_end: bool) -> whole_maps.Map:
    """An array of fp32 zeros that ends at, or begins behind, a page that cannot be touched."""
    size = 4 * int(np.prod(shape))
    pages = -(-size // PAGE) * PAGE
    memory = mmap.mmap(-1, pages + 2 * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (address, address + PAGE + pages):
        if _LIBC.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(PAGE), PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    begin = PAGE + (pages - size if at_end else 0)
    return np.frombuffer(memory, np.float32, size // 4, begin).reshape(shape)


def run(network: RRDB | Compact, *, at_end: bool) -> None:
    """Upscale pictures of many heights, with tails in strips of 4 and 8 rows."""
    model = Model(**{**vars(MODELS[UpscalingModel.X4_PLUS]), "network": network})
    prepared = whole_maps.whole_maps(lively(model))

    def empty_map(size: whole_maps.Size, channels: int = 64) -> whole_maps.Map:
        rows, columns = (side + -side % 4 + 2 for side in size)
        return guarded((rows, columns, channels), at_end=at_end)

    whole_maps.empty_map = empty_map
    fold = prepared.fold
    for height in (*range(1, 14), 16, 20):
        image = torch.rand(height * fold, (height % 7 + 3) * fold, 3)
        for rows in (4, 8):
            for _ in prepared.strips(image, height, image.shape[1] // fold, rows):
                pass


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Of an even number of blocks: with an odd one the last map of the body is a copy of another.
    shapes = RRDB(scale=4, num_block=2), RRDB(scale=2, num_block=2), Compact(scale=4, num_conv=7)
    with torch.inference_mode():
        for shape in shapes:
            run(shape, at_end=True)
            run(shape, at_end=False)
