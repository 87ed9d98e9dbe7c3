"""The reference: the `realesrgan` and `basicsr` packages, made importable with a current torch.

Neither package's `__init__` can run: they import training code, a removed part of torchvision, and
compiled extensions. The networks and `RealESRGANer` need none of that. So the packages are added to
`sys.modules` as empty modules with the right search path, and the one module that would import the
rest is replaced by a stub with the few functions that the networks use.
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
    """The part of `RealESRGANer` that is used here."""

    def enhance(self, img: Pixels) -> tuple[Pixels, str]:
        """Upscaled pixels and their mode, such as RGB; channels are in OpenCV's order (BGR)."""


def network(model: Model) -> nn.Module:
    """The reference's own network of `model`, without its weights.

    Raises importlib.metadata.PackageNotFoundError if the packages are not installed.
    """
    _register_packages()
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
    """A `RealESRGANer` with these weights, otherwise configured as by Real-ESRGAN's own script.

    `tile` and `tile_pad` are in input pixels per side, and `tile` 0 means untiled. It keeps the
    state of a call in its attributes, so only one call at a time is safe.
    """
    net = network(model)
    from realesrgan.utils import RealESRGANer

    with tempfile.TemporaryDirectory() as folder:
        # RealESRGANer loads weights only from a checkpoint file in the official layout.
        checkpoint = Path(folder) / "reference.pth"
        torch.save({"params_ema": weights.state_dict()}, checkpoint)
        created: Upsampler = RealESRGANer(
            model.scale,
            str(checkpoint),
            model=net,
            tile=tile,
            tile_pad=tile_pad,
            pre_pad=0,
            half=half,
            device=device,
        )
    return created


def enhance(upsampler: Upsampler, pixels: Pixels) -> Pixels:
    """Upscale RGB or RGBA `pixels` with a `RealESRGANer`, by its network's own scale.

    Raises RuntimeError if a tile failed: RealESRGANer only prints the error, and repeats the pixels
    of the previous tile.
    """
    printed = io.StringIO()
    upscaled: Pixels | None = None
    # If the first tile fails, it uses a variable that is not assigned yet.
    with contextlib.redirect_stdout(printed), contextlib.suppress(UnboundLocalError):
        upscaled, _ = upsampler.enhance(_swap_red_and_blue(pixels))
    failures = [line for line in printed.getvalue().splitlines() if line.startswith("Error")]
    if failures or upscaled is None:
        raise RuntimeError(f"RealESRGANer lost {len(failures)} tiles: {failures[:1]}")
    return _swap_red_and_blue(upscaled)


def _swap_red_and_blue(pixels: Pixels) -> Pixels:
    """Convert RGB(A) to OpenCV's order of channels, or back."""
    return np.ascontiguousarray(pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]])


def _pixel_unshuffle(x: torch.Tensor, scale: int) -> torch.Tensor:
    """Move blocks of `scale` x `scale` pixels into channels; one channel's pixels stay adjacent."""
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels, height // scale, scale, width // scale, scale)
    folded = blocks.permute(0, 1, 3, 5, 2, 4)
    return folded.reshape(batch, channels * scale**2, height // scale, width // scale)


def _register_packages() -> None:
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
        # The initial weights do not matter: a checkpoint replaces them.
        default_init_weights=lambda *_args, **_options: None,
    )
    sys.modules[helpers.__name__] = helpers
    # Imported by realesrgan.utils, but only called for a model path that is a URL.
    download = ModuleType("basicsr.utils.download_util")
    download.__dict__["load_file_from_url"] = None
    sys.modules[download.__name__] = download
