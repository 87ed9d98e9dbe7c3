"""Whether the kernels are used on a GPU, which they earn by a right result on that very card."""

import importlib.util
import logging
from typing import Final

import numpy as np
import torch

from upscaler.engine.bands import BandedNetwork
from upscaler.engine.networks import Net
from upscaler.engine.streams import Streamed
from upscaler.engine.tensors import assemble, to_uint8
from upscaler.errors import DeviceUnavailable
from upscaler.models import Model
from upscaler.planning import Plan, bands
from upscaler.settings import Kernels, Precision

LEAST_CAPABILITY: Final = 8, 0
"""CUDA's compute capability of Ampere: for older cards Triton makes no tensor-core instructions."""
CHECKED_PX: Final = 44, 36
"""The width and height of the image on which the kernels are tried: no multiples of their tiles, so
that borders count, and more than one strip of CHECKED_ROWS, which reach across a strip's border."""
CHECKED_ROWS: Final = 8
MOST_LEVELS: Final = 16
MOST_MEAN_LEVELS: Final = 0.5
"""How far a result may be from cuDNN's, in levels of 255, at most and on average. Both are fp16 and
rounded in other places, by which they differ by a few levels; a tap that is wrong shows in all."""

log = logging.getLogger(__name__)


def kernels_wanted(kernels: Kernels, device: torch.device, precision: Precision) -> bool:
    """Whether the kernels are to be tried. Loads nothing, and compiles nothing.

    Raises DeviceUnavailable for Kernels.TRITON where they cannot run.
    """
    if kernels in (Kernels.CUDNN, Kernels.ONEDNN):
        return False
    obstacle = _obstacle(device, precision)
    if obstacle and kernels is Kernels.TRITON:
        raise DeviceUnavailable(f"UPSCALER_KERNELS=triton needs {obstacle}: use auto")
    return obstacle is None


def checked(model: Model, net: Net, streams: Streamed, device: torch.device) -> Streamed | None:
    """`net` prepared for the kernels, or None where they fail or differ from `streams`' result.

    Then the log says so. Compiling them takes seconds if nobody has done it before.
    """
    try:
        whole = _prepared(net, device)
        ours, theirs = (_try(model, network, device) for network in (whole, streams))
    except Exception:
        # Whatever it is, such as a compiler that is missing: cuDNN computes the same.
        log.warning(
            "%s: the kernels failed on this GPU, so cuDNN is used", model.name, exc_info=True
        )
        return None
    levels = np.abs(ours.astype(np.int16) - theirs)
    if levels.max() > MOST_LEVELS or levels.mean() > MOST_MEAN_LEVELS:
        log.warning(
            "%s: the kernels' result on this GPU is wrong by %d levels at most and %.2f on "
            "average, so cuDNN is used",
            model.name,
            levels.max(),
            levels.mean(),
        )
        return None
    return whole


def _obstacle(device: torch.device, precision: Precision) -> str | None:
    """What the kernels lack, in words, or None."""
    if device.type != "cuda":
        return "a CUDA device"
    if precision is not Precision.FP16:
        return "fp16"
    if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return "a card of compute capability 8.0 (Ampere) or later"
    if importlib.util.find_spec("triton") is None:
        return "the package triton, which comes with torch on Linux"
    return None


def _prepared(net: Net, device: torch.device) -> Streamed:
    from upscaler.engine.gpu.whole_maps import whole_maps

    major, minor = torch.cuda.get_device_capability(device)
    return whole_maps(net, 10 * major + minor)


def _try(model: Model, network: Streamed, device: torch.device) -> np.ndarray:
    """The network's result for an image of noise and edges."""
    width, height = (side * model.multiple for side in CHECKED_PX)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image[height // 3 :] = image[height // 3 :: 2].repeat(2, 0)[: height - height // 3]
    image[:, width // 2 :] //= 4
    tiles = tuple(bands(width, height, 1, model.halo, model.multiple))
    plan = Plan(tiles, rows=CHECKED_PX[1], tail_rows=CHECKED_ROWS, bytes=0, cost=0)
    banded = BandedNetwork(model, network, Precision.FP16)
    strips = banded.upscale(torch.from_numpy(image).to(device), plan, to_uint8)
    return assemble(strips, height * model.scale).cpu().numpy()
