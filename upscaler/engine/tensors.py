"""Convert pixels to a network's input and its output back to pixels, on the device where possible.

The upscaled image is the largest thing to be moved. On a GPU it is therefore reduced to 8 bits per
sample and resized there, and copied to the host while the next rows are computed.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

import numpy as np
import torch
from torch import Tensor

from upscaler.api.sizes import Size
from upscaler.engine.memory import as_out_of_memory
from upscaler.imaging.pixels import Pixels

LUMA: Final = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in grey (ITU-R BT.601), for alpha that a network upscaled."""
LOBES: Final = 3
"""The lobes of the Lanczos window on each side, as many as in Pillow's."""
PART_PX: Final = 2**21
"""About how many pixels are resized in one step on a GPU: enough to keep it busy, and in floats, a
few times over, no more than 100 MB."""
TAPS_BYTES: Final = 2 * (2 * LOBES + 2) * (8 + 4)
"""What the taps of either step take for each sample of the longest side: a place and a weight for
those of a window and two more, where it begins and ends."""
AHEAD: Final = 2
"""How many strips are copied to the host in the background before the first is waited for."""


def reflect_pad(pixels: Pixels, multiple: int) -> Pixels:
    """Pad both sides to a multiple by mirroring the last pixels, as the reference does.

    Pixels that need no padding are returned without a copy, if torch takes them as they are: it
    needs memory that may be written to and that has no negative strides.
    """
    height, width, _ = pixels.shape
    if not height % multiple and not width % multiple:
        return np.require(pixels, requirements=["C", "W"])
    borders = (0, -height % multiple), (0, -width % multiple), (0, 0)
    return np.pad(pixels, borders, mode="reflect")


def to_network(rows: Tensor) -> Tensor:
    """Convert uint8 rows to float32 in 0..1, of the same shape."""
    return rows.float() / 255


def to_uint8(result: Tensor) -> Tensor:
    """Round and clamp a network's output, about 0..1, to 0..255: uint8 of the same shape.

    `result` may be overwritten.
    """
    return result.float().mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def to_gray_uint8(result: Tensor) -> Tensor:
    """The same for grey that was upscaled as three equal channels: shape (height, width, 1)."""
    red, green, blue = torch.split(result.float().clamp_(0, 1), 1, dim=2)
    return to_uint8(red * LUMA[0] + green * LUMA[1] + blue * LUMA[2])


def to_host(strips: Iterable[Tensor], device: torch.device) -> Iterator[Pixels]:
    """Yield `strips` as NumPy arrays, in order.

    From CUDA they are copied to pinned memory on a separate stream, up to AHEAD of them in the
    background, so that computing never waits for copying. Raises OutOfMemory where there is no
    such memory.
    """
    if device.type not in ("cpu", "cuda"):
        yield from (strip.cpu().numpy() for strip in strips)
        return
    # torch.cpu has the same functions, which do nothing: so tests on a CPU run this code, too.
    backend = torch.get_device_module(device)
    copying = backend.Stream()
    under_way: deque[tuple[Tensor, torch.Event]] = deque()
    for strip in strips:
        copying.wait_stream(backend.current_stream())  # until the strip has been computed
        with backend.stream(copying), as_out_of_memory("the result on its way from the GPU"):
            copy = strip.to("cpu", non_blocking=True)  # from CUDA it goes to pinned memory
            copied = backend.Event()
            copied.record(copying)
        if strip.is_cuda:
            # Otherwise torch could reuse the strip's memory for new rows while it is being copied.
            strip.record_stream(copying)
        under_way.append((copy, copied))
        if device.type == "cpu" or len(under_way) > AHEAD:
            yield _arrived(*under_way.popleft())
    while under_way:
        yield _arrived(*under_way.popleft())


def assemble(strips: Iterator[Tensor], height: int) -> Tensor:
    """Join strips to a tensor of `height` rows. A single strip is returned without a copy.

    Raises RuntimeError if the strips have another number of rows in total.
    """
    first = next(strips)
    if len(first) == height:
        return first
    whole = first.new_empty(height, *first.shape[1:])
    row = 0
    for strip in chain([first], strips):
        whole[row : row + len(strip)] = strip
        row += len(strip)
    if row != height:
        raise RuntimeError(f"expected {height} rows and got {row}")
    return whole


def _arrived(copy: Tensor, copied: torch.Event) -> Pixels:
    copied.synchronize()
    pixels: Pixels = copy.numpy()
    return pixels


def lanczos(pixels: Tensor, size: Size) -> Tensor:
    """Resize `pixels` to `size` (width, height) on their device: uint8, the same channels.

    Antialiased Lanczos, first along the rows and then along the columns. The result is within one
    level of `imaging.resize.resize`, which is Pillow's. Takes what `lanczos_bytes` says.
    """
    (height, width, channels), (new_width, new_height) = pixels.shape, size
    # As in Pillow, what lies between the two steps is uint8; in floats it would take four times as
    # much, and is for a part of the image only.
    between = pixels.new_empty(height, new_width, channels)
    taps = _taps(width, new_width, pixels.device)
    for part in _parts(height, max(width, new_width)):
        between[part] = _resample(_premultiplied(pixels[part].float()), 1, *taps)
    result = pixels.new_empty(new_height, new_width, channels)
    taps = _taps(height, new_height, pixels.device)
    for part in _parts(new_width, max(height, new_height)):
        result[:, part] = _straight(_resample(between[:, part].float(), 0, *taps))
    return result


def lanczos_bytes(source: Size, size: Size, channels: int) -> int:
    """At most how many bytes `lanczos` allocates, besides the image that it is given.

    Its two images in bytes, and of a part three in fp32: the source, the sums, and the samples that
    are added to them. TAPS_BYTES is for the places and weights of each column or row.
    """
    between, result = size[0] * source[1], size[0] * size[1]
    longest = max(*source, *size)
    part = min(max(PART_PX, longest), max(math.prod(source), between, result))
    return channels * (between + result + 3 * 4 * part) + longest * TAPS_BYTES


def _parts(count: int, length: int) -> Iterator[slice]:
    """The rows or columns, `count` of them with so many pixels each, in parts of PART_PX."""
    step = max(1, PART_PX // length)
    return (slice(start, start + step) for start in range(0, count, step))


def _premultiplied(samples: Tensor) -> Tensor:
    """`samples`, in place, with colours multiplied by alpha, if there is one.

    So the colour of transparent pixels does not bleed into others. Rounded, as Pillow's are.
    """
    if samples.shape[2] == 4:
        samples[:, :, :3].mul_(samples[:, :, 3:]).div_(255).round_()
    return samples


def _straight(samples: Tensor) -> Tensor:
    """The opposite of `_premultiplied`, in place."""
    if samples.shape[2] == 4:
        alpha = samples[:, :, 3:]
        samples[:, :, :3].mul_(torch.where(alpha > 0, 255 / alpha, 0)).round_().clamp_(0, 255)
    return samples


def _taps(old: int, new: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which of `old` samples are added to each of `new`, and by which weights: (taps, new) both."""
    step = old / new
    stretch = max(step, 1.0)  # when shrinking the window is widened: that is the antialiasing
    reach = LOBES * stretch
    # Positions are computed on the CPU, in float64, which not every device has.
    centers = (torch.arange(new, dtype=torch.float64, device="cpu") + 0.5) * step
    first = (centers - reach + 0.5).floor().long()
    places = first[:, None] + torch.arange(math.ceil(2 * reach) + 1)
    distances = (places + 0.5 - centers[:, None]) / stretch
    weights = torch.sinc(distances) * torch.sinc(distances / LOBES) * (distances.abs() < LOBES)
    # Beyond the border there is nothing: the weights of the samples that exist add up to 1.
    weights *= (places >= 0) & (places < old)
    weights /= weights.sum(dim=1, keepdim=True)
    return places.clamp(0, old - 1).T.to(device), weights.T.to(device, torch.float32)


def _resample(samples: Tensor, dim: int, places: Tensor, weights: Tensor) -> Tensor:
    """Resize one dimension by its taps: whole numbers in 0..255 as floats."""
    shape = [1, 1, 1]
    shape[dim] = places.shape[1]
    result = samples.new_zeros([*samples.shape[:dim], shape[dim], *samples.shape[dim + 1 :]])
    for place, weight in zip(places, weights, strict=True):
        result.addcmul_(samples.index_select(dim, place), weight.view(shape))
    return result.round_().clamp_(0, 255)
