"""Pixels to what a network takes, and what it makes back to pixels, as far as can be on the device.

An upscaled image is the largest thing there is: on a GPU it becomes eight bits a sample there,
is resized there, and comes to the host while the next rows are computed.
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
"""How much red, green and blue count in grey (ITU-R BT.601), for alpha that a network upscaled."""
LOBES: Final = 3
"""Of the Lanczos window on each side; Pillow's has as many."""
AHEAD: Final = 2
"""How many strips may be on their way to the host before the first of them is waited for."""


def reflect_pad(pixels: Pixels, multiple: int) -> Pixels:
    """Both sides made a multiple by mirroring the last pixels, as the reference does too."""
    height, width, _ = pixels.shape
    borders = (0, -height % multiple), (0, -width % multiple), (0, 0)
    return np.pad(pixels, borders, mode="reflect")


def to_network(rows: Tensor) -> Tensor:
    """Rows of uint8 as float in 0..1, of the same shape."""
    return rows.float() / 255


def to_uint8(result: Tensor) -> Tensor:
    """A network's result, about 0..1, clamped and rounded to 0..255: uint8 of the same shape.

    `result` may be overwritten.
    """
    return result.float().mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def to_gray_uint8(result: Tensor) -> Tensor:
    """The same for grey that went through as three equal channels: shape (height, width, 1)."""
    red, green, blue = torch.split(result.float().clamp_(0, 1), 1, dim=2)
    return to_uint8(red * LUMA[0] + green * LUMA[1] + blue * LUMA[2])


def to_host(strips: Iterable[Tensor], device: torch.device) -> Iterator[Pixels]:
    """`strips` as arrays, in their order.

    From CUDA they are copied on a stream of their own, to pinned memory, and a few are under way
    before the first is waited for: computing never waits for copying.
    """
    if device.type not in ("cpu", "cuda"):
        yield from (strip.cpu().numpy() for strip in strips)
        return
    backend = torch.get_device_module(device)  # torch.cpu has the same names, which do nothing
    copying = backend.Stream()
    under_way: deque[tuple[Tensor, torch.Event]] = deque()
    for strip in strips:
        copying.wait_stream(backend.current_stream())
        with backend.stream(copying):
            copy = strip.to("cpu", non_blocking=True)  # to pinned memory, if it comes from CUDA
            copied = backend.Event()
            copied.record(copying)
        if strip.is_cuda:
            strip.record_stream(copying)  # or its memory were used again while it is being read
        under_way.append((copy, copied))
        if device.type == "cpu" or len(under_way) > AHEAD:
            yield _arrived(*under_way.popleft())
    while under_way:
        yield _arrived(*under_way.popleft())


def assemble(strips: Iterator[Tensor], height: int) -> Tensor:
    """One tensor of `height` rows from its strips. A single strip is returned as it is."""
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
    """`pixels` at `size` as `images.resize` would make them, to a level: uint8 on the same device.

    Antialiased Lanczos, first along the rows and then along the columns.
    """
    samples = pixels.float()
    if pixels.shape[2] == 4:  # transparent pixels lend no colour to others
        samples[:, :, :3] = (samples[:, :, :3] * samples[:, :, 3:] / 255).round_()
    for dim, length in ((1, size[0]), (0, size[1])):
        samples = _resampled(samples, dim, length).round_().clamp_(0, 255)
    if pixels.shape[2] == 4:
        alpha = samples[:, :, 3:]
        samples[:, :, :3] *= torch.where(alpha > 0, 255 / alpha, 0)
    return samples.round_().clamp_(0, 255).to(torch.uint8)


def _resampled(samples: Tensor, dim: int, length: int) -> Tensor:
    """One dimension made `length` long: each sample of the result is a weighted mean of some."""
    step = samples.shape[dim] / length
    stretch = max(step, 1.0)
    reach = LOBES * stretch
    centers = (torch.arange(length, dtype=torch.float64, device="cpu") + 0.5) * step
    first = (centers - reach + 0.5).floor().long()
    places = first[:, None] + torch.arange(math.ceil(2 * reach) + 1)
    distances = (places + 0.5 - centers[:, None]) / stretch
    weights = torch.sinc(distances) * torch.sinc(distances / LOBES) * (distances.abs() < LOBES)
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
