"""Enlarging pictures: a network over tiles, and antialiased Lanczos to the size that was asked for.

An Engine holds a network and nothing of any request, so calls may run at once.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor

from upscaler import tiling, weights
from upscaler.contract import Size, scaled_size
from upscaler.errors import DeviceUnavailable, WeightsUnavailable
from upscaler.images import Pixels, resize
from upscaler.models import MODELS, Model, UpscalingModel
from upscaler.nets import Net
from upscaler.settings import DEFAULT_TILE_PX, Device, Precision, Settings

Progress = Callable[[int, int], None]
"""Called with how many tiles are done, at first 0, and how many there are."""

DTYPES: Final = {
    Precision.FP32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
}
RETRY_AFTER_S: Final = 60.0
"""How long weights that could not be had are not asked for again."""
LUMA: Final = (0.299, 0.587, 0.114)
"""How much red, green and blue count in grey (ITU-R BT.601), for alpha that a network enlarged."""


class Engine:
    """One model on one device, ready to enlarge pictures."""

    def __init__(self, model: Model, net: Net, device: torch.device, dtype: torch.dtype) -> None:
        """Take over `net`, moving it to `device` and `dtype`. `Engine.load` is the usual way in."""
        self.model = model
        self.device = device
        self.dtype = dtype
        # Channels last is the layout that the convolutions of CPUs and tensor cores want.
        self.net = net.to(device, dtype)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(
        cls,
        model: UpscalingModel | str = UpscalingModel.X4_PLUS,
        device: Device | str = Device.AUTO,
        precision: Precision | str = Precision.AUTO,
        *,
        weights_folder: Path | None = None,
        progress: weights.Progress | None = None,
    ) -> Self:
        """The engine of `model`, its weights found or else downloaded.

        `weights_folder` defaults to what the environment says, and `progress` is told of a
        download's bytes. Raises ValueError for an unknown model, device or precision,
        DeviceUnavailable for one that this machine lacks, WeightsUnavailable, and InvalidSetting
        for an environment that cannot be read.
        """
        spec = MODELS[UpscalingModel(model)]
        target = pick_device(Device(device))
        dtype = pick_dtype(Precision(precision), target)
        folder = weights_folder or Settings.from_environment().weights
        return cls(spec, weights.load(spec, folder, progress), target, dtype)

    def upscale(
        self,
        pixels: Pixels,
        outscale: float | None = None,
        *,
        size: Size | None = None,
        tile: int = DEFAULT_TILE_PX,
        halo: int | None = None,
        progress: Progress | None = None,
    ) -> Pixels:
        """An enlarged copy of `pixels`, uint8 RGB or RGBA of shape (height, width, 3 or 4).

        The result is uint8 of exactly `size` (width, height), or of the contract's size for
        `outscale`, or else as large as the network makes it. The network works on tiles of at most
        `tile` input pixels per side, 0 for the whole picture, with `halo` pixels around them, by
        default the model's. Alpha is enlarged by the network too. The result may be a view of a
        larger array. Raises ValueError for anything but such pixels, for an `outscale` that is not
        a positive number, and for both an `outscale` and a `size`.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
            raise ValueError("pixels must be uint8 of shape (height, width, 3 or 4)")
        if outscale is not None and size is not None:
            raise ValueError("give an outscale or a size, not both")
        if outscale is not None and not 0 < outscale < math.inf:
            raise ValueError("outscale must be a positive number")
        height, width, _ = pixels.shape
        wanted = size or scaled_size((width, height), outscale or self.model.scale)
        halo = self.model.halo if halo is None else halo
        return resize(self._enlarge(pixels, tile, halo, progress), wanted)

    def _enlarge(self, pixels: Pixels, tile: int, halo: int, progress: Progress | None) -> Pixels:
        """The network's own enlargement, `scale` times as long on each side."""
        height, width, channels = pixels.shape
        scale, multiple = self.model.scale, self.model.multiple
        # The reference, too, mirrors the picture's last pixels where a side is odd.
        padded = np.pad(
            pixels, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="reflect"
        )
        tiles = tiling.plan(padded.shape[1], padded.shape[0], tile, halo, multiple)
        output = np.empty((padded.shape[0] * scale, padded.shape[1] * scale, channels), np.uint8)
        steps = list(product(tiles, self._passes(padded, output)))
        report = progress or (lambda _done, _total: None)
        report(0, len(steps))
        for done, (part, (source, target, to_samples)) in enumerate(steps, start=1):
            result = self._run(source[part.surround.slices])
            core = part.core.within(part.surround).scaled(scale)
            target[part.core.scaled(scale).slices] = to_samples(result[core.slices])
            report(done, len(steps))
        return output[: height * scale, : width * scale]

    def _passes(
        self, pixels: Pixels, output: Pixels
    ) -> Iterator[tuple[Pixels, Pixels, Callable[[Tensor], Pixels]]]:
        """What the network has to see, where its results go, and how they become samples.

        Alpha is a picture of its own, as in the reference, unless it is the same everywhere.
        """
        yield pixels[:, :, :3], output[:, :, :3], _colours
        if pixels.shape[2] == 3:
            return
        alpha = pixels[:, :, 3:]
        if alpha.min() == alpha.max():
            output[:, :, 3] = alpha.flat[0]
        else:
            yield np.repeat(alpha, 3, axis=2), output[:, :, 3:], _grey

    def _run(self, region: Pixels) -> Tensor:
        """The network's result on one region: float of shape (height, width, 3), about 0..1."""
        x = torch.from_numpy(np.ascontiguousarray(region)).to(self.device)
        x = x.permute(2, 0, 1)[None].to(self.dtype, memory_format=torch.channels_last) / 255
        with torch.inference_mode():
            result: Tensor = self.net(x)
            return result[0].permute(1, 2, 0)


class Engines:
    """The six models on one device, each loaded when it is first asked for and then kept.

    This is what the service runs on: the `Backend` of `upscaler.app`.
    """

    face_enhance = False

    def __init__(self, settings: Settings) -> None:
        """Take note of what to load and how.

        Raises DeviceUnavailable and WeightsUnavailable at once for settings that cannot be met,
        not at the first picture.
        """
        self.settings = settings
        self._device = pick_device(settings.device)
        self._dtype = pick_dtype(settings.precision, self._device)
        weights.find(MODELS[UpscalingModel.X4_PLUS], settings.weights)
        self._engines: dict[UpscalingModel, Engine] = {}
        self._failures: dict[UpscalingModel, tuple[float, WeightsUnavailable]] = {}
        self._loading = {name: threading.Lock() for name in UpscalingModel}

    def load(self, model: UpscalingModel, progress: weights.Progress | None = None) -> Engine:
        """The engine of `model`, loaded once however many threads ask; others need not wait.

        `progress` is told of a download's bytes. Raises WeightsUnavailable, and for a minute
        raises it again without another try, so that requests do not queue behind a dead network.
        """
        with self._loading[model]:
            if model not in self._engines:
                self._engines[model] = self._load(model, progress)
            return self._engines[model]

    def upscale(self, pixels: Pixels, model: UpscalingModel, size: Size) -> Pixels:
        """`pixels` enlarged by `model` to exactly `size` (width, height)."""
        return self.load(model).upscale(pixels, size=size, tile=self.settings.tile)

    def _load(self, model: UpscalingModel, progress: weights.Progress | None) -> Engine:
        failed_s, failure = self._failures.get(model, (-math.inf, None))
        if failure and time.monotonic() - failed_s < RETRY_AFTER_S:
            raise failure
        spec = MODELS[model]
        try:
            net = weights.load(spec, self.settings.weights, progress)
        except WeightsUnavailable as error:
            self._failures[model] = time.monotonic(), error
            raise
        return Engine(spec, net, self._device, self._dtype)


def pick_device(device: Device) -> torch.device:
    """The torch device; raises DeviceUnavailable if this machine has no such one."""
    there = {
        Device.CUDA: torch.cuda.is_available(),
        Device.MPS: torch.backends.mps.is_available(),
        Device.CPU: True,
    }
    if device is Device.AUTO:
        device = next(name for name, available in there.items() if available)
    if not there[device]:
        raise DeviceUnavailable(f"torch finds no {device} device here: use --device cpu or auto")
    return torch.device(device)


def pick_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """What to compute in; raises DeviceUnavailable for fp16 on a CPU, which is slower than fp32."""
    if precision is Precision.AUTO:
        precision = Precision.FP16 if device.type == "cuda" else Precision.FP32
    if precision is Precision.FP16 and device.type == "cpu":
        raise DeviceUnavailable("fp16 is of no use on a CPU: take fp32, or bf16 where it is native")
    return DTYPES[precision]


def _colours(result: Tensor) -> Pixels:
    """Samples from 0..1 to 0..255, clamped and rounded to the nearest: uint8 of the same shape."""
    levels = result.float().mul(255).round_().clamp_(0, 255).to(torch.uint8)
    samples: Pixels = levels.cpu().numpy()
    return samples


def _grey(result: Tensor) -> Pixels:
    """The same for grey that went through as three equal channels: shape (height, width, 1)."""
    luma = result.float().clamp(0, 1) * torch.tensor(LUMA, device=result.device)
    return _colours(luma.sum(dim=2, keepdim=True))
