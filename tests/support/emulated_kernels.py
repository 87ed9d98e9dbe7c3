"""The GPU's kernels in torch's own operators: launches on tensors in the host's memory.

They store what the kernels store, in fp16, and add up in fp32. `interpreted.py` holds that the
kernels do the same; these take whole networks and pictures, as an interpreter does not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from upscaler.engine.gpu.launches import described, launcher
from upscaler.engine.networks import RESIDUAL


@contextmanager
def emulated_kernels() -> Iterator[None]:
    """Within, `engine.gpu.whole_maps` computes on the CPU."""
    token = launcher.set(_launch)
    try:
        yield
    finally:
        launcher.reset(token)


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: object, **options: object) -> None:
    launch = described(kernel, grid, arguments, options)
    KERNELS[launch.name](**launch.given, programs=grid[0])


def _convolve(
    *, source: Tensor, weights: Tensor, bias: Tensor, slopes: Tensor, out: Tensor, residual: Tensor,
    outer: Tensor, height: int, pitch: int, IN: int, OUT: int, ACTIVATION: int, RESIDUALS: int,  # noqa: N803
    ALPHA: float, IMAGE: int, **_: object,  # noqa: N803
) -> None:  # fmt: skip
    taps = weights.view(3, 3, IN, OUT).permute(3, 2, 0, 1).float()
    sums = F.conv2d(_map(source[:, :IN], height, pitch).permute(2, 0, 1)[None].float(), taps, bias)
    sums = _activated(sums, slopes, ACTIVATION)[0].permute(1, 2, 0)
    if not IMAGE:
        for old in (residual, outer)[:RESIDUALS]:
            sums = _inner(old, height, pitch)[:, :, :OUT].float() + ALPHA * sums
        _inner(out, height, pitch)[:, :, :OUT] = sums
        return
    width = pitch - 2
    sums = sums[:, :, : IMAGE**2 * 3]
    if IMAGE > 1:
        sums = sums + residual[:height].repeat(1, 1, IMAGE**2)
    blocks = sums.reshape(height, width, IMAGE, IMAGE, 3).transpose(1, 2)
    out.copy_(blocks.reshape(height * IMAGE, width * IMAGE, 3))


def _double_and_convolve(
    *, source: Tensor, weights: Tensor, bias: Tensor, out: Tensor, pitch: int, blocks: int,
    programs: int, CHANNELS: int, **_: object,  # noqa: N803
) -> None:  # fmt: skip
    height = programs // blocks
    image = _map(source, height, pitch).permute(2, 0, 1)[None].float()
    phases = weights.view(2, 2, 2, 2, CHANNELS, CHANNELS).permute(0, 1, 5, 4, 2, 3).float()
    doubled = _inner(out, 2 * height, 2 * pitch - 2)
    for down in (0, 1):
        for right in (0, 1):
            part = image[:, :, down : down + height + 1, right : right + pitch - 1]
            sums = F.leaky_relu(F.conv2d(part, phases[down, right], bias), 0.2)
            doubled[down::2, right::2] = sums[0].permute(1, 2, 0)


def _convolve_image(
    *, image: Tensor, weights: Tensor, bias: Tensor, slopes: Tensor, out: Tensor, copy: Tensor,
    height: int, pitch: int, FOLD: int, OUT: int, ACTIVATION: int, COPY: bool, **_: object,  # noqa: N803
) -> None:  # fmt: skip
    folded = F.pixel_unshuffle(image.permute(2, 0, 1)[None], FOLD)
    taps = weights.view(3, 3, -1, OUT).permute(3, 2, 0, 1)
    sums = _activated(F.conv2d(folded, taps, bias, padding=1), slopes, ACTIVATION)
    for each in (out, copy)[: 1 + COPY]:
        _inner(each, height, pitch)[:, :, :OUT] = sums[0].permute(1, 2, 0)


def _activated(sums: Tensor, slopes: Tensor, activation: int) -> Tensor:
    if activation == 2:
        return F.prelu(sums, slopes)
    return F.leaky_relu(sums, RESIDUAL) if activation else sums


def _map(whole: Tensor, height: int, pitch: int) -> Tensor:
    """A map with its border: (height + 2, pitch, channels)."""
    bordered = whole[: (height + 2) * pitch]
    return bordered.view(height + 2, pitch, whole.shape[1])


def _inner(whole: Tensor, height: int, pitch: int) -> Tensor:
    return _map(whole, height, pitch)[1:-1, 1:-1]


KERNELS: Final[dict[str, Callable[..., None]]] = {
    "convolve": _convolve,
    "double_and_convolve": _double_and_convolve,
    "convolve_image": _convolve_image,
}
