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
from upscaler.imaging.pixels import Pixels

LUMA: Final = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in grey (ITU-R BT.601), for alpha that a network upscaled."""
LOBES: Final = 3
"""The lobes of the Lanczos window on each side, as many as in Pillow's."""
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
    background, so that computing never waits for copying.
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
        with backend.stream(copying):
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
    level of `imaging.resize.resize`, which is Pillow's.
    """
    samples = pixels.float()
    if pixels.shape[2] == 4:
        # Premultiplied by alpha, so that the colour of transparent pixels does not bleed into
        # others; and rounded after each step, as Pillow does, whose intermediate images are uint8.
        samples[:, :, :3] = (samples[:, :, :3] * samples[:, :, 3:] / 255).round_()
    for dim, length in ((1, size[0]), (0, size[1])):
        samples = _resample(samples, dim, length).round_().clamp_(0, 255)
    if pixels.shape[2] == 4:
        alpha = samples[:, :, 3:]
        samples[:, :, :3] *= torch.where(alpha > 0, 255 / alpha, 0)
    return samples.round_().clamp_(0, 255).to(torch.uint8)


def _resample(samples: Tensor, dim: int, length: int) -> Tensor:
    """Resize one dimension to `length`: each output sample is a weighted mean of nearby samples."""
    step = samples.shape[dim] / length
    stretch = max(step, 1.0)  # when shrinking the window is widened: that is the antialiasing
    reach = LOBES * stretch
    # Positions are computed on the CPU, in float64, which not every device has.
    centers = (torch.arange(length, dtype=torch.float64, device="cpu") + 0.5) * step
    first = (centers - reach + 0.5).floor().long()
    places = first[:, None] + torch.arange(math.ceil(2 * reach) + 1)
    distances = (places + 0.5 - centers[:, None]) / stretch
    weights = torch.sinc(distances) * torch.sinc(distances / LOBES) * (distances.abs() < LOBES)
    # Beyond the border there is nothing: the weights of the samples that exist add up to 1.
    weights *= (places >= 0) & (places < samples.shape[dim])
    weights /= weights.sum(dim=1, keepdim=True)
    weights = weights.to(samples)
    places = places.clamp(0, samples.shape[dim] - 1).to(samples.device)
    shape = [1, 1, 1]
    shape[dim] = length
    result = samples.new_zeros([*samples.shape[:dim], length, *samples.shape[dim + 1 :]])
    for place, weight in zip(places.T, weights.T, strict=True):
        result += samples.index_select(dim, place) * weight.view(shape)
    return result
