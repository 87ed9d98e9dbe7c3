"""The reference: the `realesrgan` and `basicsr` packages, brought to import with a current torch.

Neither package's `__init__` can run: they import training code, a part of torchvision that is gone,
and compiled extensions. What is compared with needs none of that, so the packages are entered in
`sys.modules` as bare containers of their files, and the one module that would pull in the rest is
replaced by the few functions that the networks use of it.
"""

import importlib.metadata
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from upscaler.images import Pixels
from upscaler.models import RRDB, Model

PACKAGES = ("basicsr", "basicsr.archs", "basicsr.utils", "realesrgan", "realesrgan.archs")


def _installed() -> bool:
    """Whether both packages are there. Where CI demands them, their absence is a failure."""
    try:
        importlib.metadata.version("basicsr")
        importlib.metadata.version("realesrgan")
    except importlib.metadata.PackageNotFoundError:
        if os.environ.get("REQUIRE_REFERENCE"):
            raise
        return False
    return True


needs_reference = pytest.mark.skipif(
    not _installed(), reason="the packages realesrgan and basicsr cannot be installed here"
)


def network(model: Model) -> nn.Module:
    """The reference's own network of `model`, its weights not yet read."""
    _enter_packages()
    from basicsr.archs.rrdbnet_arch import RRDBNet
    from realesrgan.archs.srvgg_arch import SRVGGNetCompact

    shape = model.network
    if isinstance(shape, RRDB):
        net: nn.Module = RRDBNet(3, 3, scale=shape.scale, num_block=shape.num_block)
    else:
        net = SRVGGNetCompact(3, 3, num_conv=shape.num_conv, upscale=shape.scale)
    return net.eval().requires_grad_(False)


def enhance(model: Model, weights: nn.Module, pixels: Pixels, folder: Path) -> Pixels:
    """What `RealESRGANer` makes of RGB or RGBA `pixels` with those weights, without tiles.

    `folder` is for a checkpoint in the official layout, which is the only thing it reads.
    """
    net = network(model)
    from realesrgan.utils import RealESRGANer

    checkpoint = folder / "reference.pth"
    torch.save({"params_ema": weights.state_dict()}, checkpoint)
    upsampler = RealESRGANer(model.scale, str(checkpoint), model=net, tile=0, pre_pad=0)
    enlarged, _ = upsampler.enhance(_swap_red_and_blue(pixels))
    return _swap_red_and_blue(enlarged)


def _swap_red_and_blue(pixels: Pixels) -> Pixels:
    """RGB from OpenCV's order of channels, or the other way round."""
    return np.ascontiguousarray(pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]])


def _pixel_unshuffle(x: torch.Tensor, scale: int) -> torch.Tensor:
    """Fold blocks of `scale` x `scale` pixels into channels, each channel's pixels together."""
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels, height // scale, scale, width // scale, scale)
    folded = blocks.permute(0, 1, 3, 5, 2, 4)
    return folded.reshape(batch, channels * scale**2, height // scale, width // scale)


def _enter_packages() -> None:
    if "basicsr" in sys.modules:
        return
    for name in PACKAGES:
        distribution = importlib.metadata.distribution(name.partition(".")[0])
        module = ModuleType(name)
        module.__path__ = [str(distribution.locate_file(name.replace(".", "/")))]
        sys.modules[name] = module
    helpers = ModuleType("basicsr.archs.arch_util")
    helpers.__dict__.update(
        make_layer=lambda block, count, **options: nn.Sequential(
            *(block(**options) for _ in range(count))
        ),
        pixel_unshuffle=_pixel_unshuffle,
        default_init_weights=lambda *_args, **_options: None,
    )
    sys.modules[helpers.__name__] = helpers
    download = ModuleType("basicsr.utils.download_util")
    download.__dict__["load_file_from_url"] = None
    sys.modules[download.__name__] = download
