"""The reference: the `realesrgan` and `basicsr` packages, brought to import with a current torch.

Neither package's `__init__` can run: they import training code, a part of torchvision that is gone,
and compiled extensions. What is compared with needs none of that, so the packages are entered in
`sys.modules` as bare containers of their files, and the one module that would pull in the rest is
replaced by the few functions that the networks use of it.
"""

import contextlib
import importlib.metadata
import io
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Final, Protocol

import numpy as np
import torch
from torch import nn

from upscaler.imaging.pixels import Pixels
from upscaler.models import RRDB, Model

PACKAGES: Final = ("basicsr", "basicsr.archs", "basicsr.utils", "realesrgan", "realesrgan.archs")


class Upsampler(Protocol):
    """What is used of `RealESRGANer`."""

    def enhance(self, img: Pixels) -> tuple[Pixels, str]:
        """Enlarged pixels, channels in OpenCV's order in and out, and what kind they are."""


def network(model: Model) -> nn.Module:
    """The reference's own network of `model`, its weights not yet read.

    Raises importlib.metadata.PackageNotFoundError where the packages are not installed.
    """
    _enter_packages()
    from basicsr.archs.rrdbnet_arch import RRDBNet
    from realesrgan.archs.srvgg_arch import SRVGGNetCompact

    shape = model.network
    if isinstance(shape, RRDB):
        net: nn.Module = RRDBNet(3, 3, scale=shape.scale, num_block=shape.num_block)
    else:
        net = SRVGGNetCompact(3, 3, num_conv=shape.num_conv, upscale=shape.scale)
    return net.eval().requires_grad_(False)


def upsampler(
    model: Model,
    weights: nn.Module,
    device: torch.device,
    *,
    tile: int = 0,
    tile_pad: int = 10,
    half: bool = False,
) -> Upsampler:
    """A `RealESRGANer` with those weights, otherwise as Real-ESRGAN's own script sets it up.

    `tile` and `tile_pad` are in input pixels per side, and `tile` 0 takes the image whole. It
    keeps the state of a call in itself: one call at a time.
    """
    net = network(model)
    from realesrgan.utils import RealESRGANer

    with tempfile.TemporaryDirectory() as folder:
        # A checkpoint in the official layout is the only thing it reads.
        checkpoint = Path(folder) / "reference.pth"
        torch.save({"params_ema": weights.state_dict()}, checkpoint)
        whole: Upsampler = RealESRGANer(
            model.scale,
            str(checkpoint),
            model=net,
            tile=tile,
            tile_pad=tile_pad,
            pre_pad=0,
            half=half,
            device=device,
        )
    return whole


def enhance(upsampler: Upsampler, pixels: Pixels) -> Pixels:
    """What a `RealESRGANer` makes of RGB or RGBA `pixels`, as large as its network makes it.

    Raises RuntimeError for a tile that failed: it only prints that, and shows the tile before.
    """
    printed = io.StringIO()
    upscaled: Pixels | None = None
    # Without a tile before the one that failed, it stumbles over a name without a value.
    with contextlib.redirect_stdout(printed), contextlib.suppress(UnboundLocalError):
        upscaled, _ = upsampler.enhance(_swap_red_and_blue(pixels))
    failures = [line for line in printed.getvalue().splitlines() if line.startswith("Error")]
    if failures or upscaled is None:
        raise RuntimeError(f"RealESRGANer lost {len(failures)} tiles: {failures[:1]}")
    return _swap_red_and_blue(upscaled)


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
