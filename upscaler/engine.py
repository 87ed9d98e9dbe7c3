"""Enlarging pictures: a network over their rows, and antialiased Lanczos to the size asked for.

An Engine holds a network and nothing of any request, so calls may run at once.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor

from upscaler import weights
from upscaler.contract import Size, scaled_size
from upscaler.convolution import Direct, Method, Winograd
from upscaler.errors import DeviceUnavailable, OutOfMemory, WeightsUnavailable
from upscaler.footprints import footprint
from upscaler.images import Pixels, resize
from upscaler.layers import Level
from upscaler.memory import free_bytes
from upscaler.models import MODELS, Model, UpscalingModel
from upscaler.nets import Net
from upscaler.plan import MIB, Plan, cheapest, plans
from upscaler.settings import Device, Precision, Settings
from upscaler.streams import streamed
from upscaler.tiling import Tile

Progress = Callable[[int, int], None]
"""Called with how many rows of the picture are enlarged, at first 0, and how many there are."""

DTYPES: Final = {
    Precision.FP32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
}
ONEDNN_FAILED: Final = "could not create a primitive"
"""What oneDNN says when it gets no memory for the code that it makes. Nothing else makes it fail:
it has no code for these convolutions that depends on more than the processor."""
THREADS_BYTES, THREAD_BYTES = 128 * MIB, 16 * MIB
"""Address space that should be left before threads are started: in all, and for each."""
RETRY_AFTER_S: Final = 60.0
"""How long weights that could not be had are not asked for again."""
LUMA: Final = (0.299, 0.587, 0.114)
"""How much red, green and blue count in grey (ITU-R BT.601), for alpha that a network enlarged."""

log = logging.getLogger(__name__)


class Engine:
    """One model on one device, ready to enlarge pictures."""

    def __init__(self, model: Model, net: Net, device: torch.device, precision: Precision) -> None:
        """Make `net` ready for `device`. `Engine.load` is the usual way in."""
        self.model = model
        self.device = device
        self.precision = precision
        self.footprint = footprint(model.network, precision, device.type)
        self._network = streamed(net.to(device), *_methods(precision, device))

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
        chosen = pick_precision(Precision(precision), target)
        folder = weights_folder or Settings.from_environment().weights
        return cls(spec, weights.load(spec, folder, progress), target, chosen)

    def upscale(
        self,
        pixels: Pixels,
        outscale: float | None = None,
        *,
        size: Size | None = None,
        memory: int | None = None,
        progress: Progress | None = None,
    ) -> Pixels:
        """An enlarged copy of `pixels`, uint8 RGB or RGBA of shape (height, width, 3 or 4).

        The result is uint8 of exactly `size` (width, height), or of the contract's size for
        `outscale`, or else as large as the network makes it. Alpha is enlarged by the network too.
        `memory` is how many bytes this may take over those of the loaded model, by default half of
        what the device has free. The result may be a view of a larger array. Raises ValueError for
        anything but such pixels, for an `outscale` that is not a positive number, and for both an
        `outscale` and a `size`; and OutOfMemory where not even the smallest plan can be carried
        out, after trying smaller and smaller ones.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
            raise ValueError("pixels must be uint8 of shape (height, width, 3 or 4)")
        if outscale is not None and size is not None:
            raise ValueError("give an outscale or a size, not both")
        if outscale is not None and not 0 < outscale < math.inf:
            raise ValueError("outscale must be a positive number")
        height, width, _ = pixels.shape
        wanted = size or scaled_size((width, height), outscale or self.model.scale)
        plan = self.plan(width, height, channels=pixels.shape[2], memory=memory)
        return resize(self._enlarge_within(plan, pixels, progress), wanted)

    def plan(
        self, width: int, height: int, *, channels: int = 3, memory: int | None = None
    ) -> Plan:
        """How a picture of that size in pixels would be enlarged; see `upscale`."""
        choices = self._plans(width, height, channels)
        return cheapest(choices, memory, free_bytes(self.device))

    def enlarge(self, pixels: Pixels, plan: Plan, progress: Progress | None = None) -> Pixels:
        """`pixels` as large as the network makes them, by that plan and no other.

        Raises what torch raises where the memory does not suffice.
        """
        height, width, channels = pixels.shape
        scale = self.model.scale
        padded = _padded(pixels, self.model.multiple)
        output = np.empty((padded.shape[0] * scale, padded.shape[1] * scale, channels), np.uint8)
        passes = list(_passes(padded, output))
        total = len(plan.tiles) * len(passes) * padded.shape[0]
        report = progress or (lambda _done, _total: None)
        report(0, total)
        done = 0
        for tile in plan.tiles:
            for source, target, to_samples in passes:
                columns = tile.core.scaled(scale).slices[1]
                row = 0
                for samples in map(to_samples, self._rows(source, tile, plan)):
                    target[row : row + samples.shape[0], columns] = samples
                    row += samples.shape[0]
                    report(done + row // scale, total)
                assert row == target.shape[0], "every row of the picture has come out"
                done += padded.shape[0]
        return output[: height * scale, : width * scale]

    def _enlarge_within(self, plan: Plan, pixels: Pixels, progress: Progress | None) -> Pixels:
        """Enlarge by `plan`, or by a smaller one wherever the memory runs out.

        Each try begins anew: nothing of one that failed is in the result.
        """
        height, width, channels = pixels.shape
        enlarge = self.enlarge
        while True:
            try:
                return enlarge(pixels, plan, progress)
            except Exception as error:
                if not _is_out_of_memory(error):
                    raise
                reason = str(error)
            # Only here the frames of the failed try, and what they held, are gone.
            log.warning("out of memory (%s), with the plan: %s", reason, plan)
            if ONEDNN_FAILED in reason and enlarge == self.enlarge:
                # Perhaps this thread is to blame alone, since an earlier failure.
                enlarge = self._enlarge_in_a_thread
                continue
            smaller = _smaller(self._plans(width, height, channels), plan)
            if smaller is None:
                raise OutOfMemory(
                    f"there is not enough memory for this picture: the smallest way to do it "
                    f"takes about {plan.bytes / MIB:,.0f} MiB. Free some, or send a smaller one"
                )
            plan = smaller

    def _enlarge_in_a_thread(
        self, pixels: Pixels, plan: Plan, progress: Progress | None = None
    ) -> Pixels:
        """`enlarge` in a new thread: one in which oneDNN ran out of memory makes nothing new.

        Raises OutOfMemory if there is no memory for its threads: OpenMP and the C library end the
        process when they cannot have one.
        """
        if not _has_room_for_threads(torch.get_num_threads()):
            raise OutOfMemory("there is not enough memory to start a thread: free some")
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.enlarge, pixels, plan, progress).result()

    def _plans(self, width: int, height: int, channels: int) -> list[Plan]:
        multiple = self.model.multiple
        width, height = width + -width % multiple, height + -height % multiple
        return plans(self.model, (width, height), channels, self.footprint)

    def _rows(self, source: Pixels, tile: Tile, plan: Plan) -> Iterator[Tensor]:
        """The network's results for a tile's core: float of shape (rows, width, 3), about 0..1."""
        multiple, scale = self.model.multiple, self.model.scale
        region = source[tile.surround.slices]
        height, width, _ = region.shape
        level = Level(height // multiple, width // multiple, plan.rows)
        columns = tile.core.within(tile.surround).scaled(scale).slices[1]
        stream = self._network.open(level, plan.tail_rows)
        given, left = 0, height * scale
        while left:
            with torch.inference_mode():
                rows = region[given : given + plan.rows * multiple]
                given += rows.shape[0]
                result = stream.push(self._samples(rows) if rows.shape[0] else None)
            if result is not None:
                left -= result.shape[0]
                yield result[:, columns]

    def _samples(self, rows: Pixels) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(rows)).to(self.device).float() / 255


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
        self._precision = pick_precision(settings.precision, self._device)
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
        return self.load(model).upscale(pixels, size=size, memory=self.settings.memory)

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
        return Engine(spec, net, self._device, self._precision)


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


def pick_precision(precision: Precision, device: torch.device) -> Precision:
    """What to compute in; raises DeviceUnavailable for what the device cannot do or is slow at."""
    if precision is Precision.AUTO:
        if device.type == "cuda":
            return Precision.FP16
        return Precision.MIXED if device.type == "cpu" and _has_bf16() else Precision.FP32
    if precision is Precision.FP16 and device.type == "cpu":
        raise DeviceUnavailable(
            "fp16 is of no use on a CPU: take fp32, or mixed where bf16 is native"
        )
    if precision is Precision.MIXED and device.type != "cpu":
        raise DeviceUnavailable("mixed is for CPUs: take fp16 here")
    return precision


def _has_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware; elsewhere it would be slower than fp32."""
    avx512: bool = torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001  nothing public says it
    amx: bool = torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    return avx512 or amx


def _methods(precision: Precision, device: torch.device) -> tuple[Method, Method]:
    """How the ends of a network and its body are computed (see `upscaler.convolution`)."""
    if precision is Precision.MIXED:
        body = Direct(torch.bfloat16, torch.float32, device)
        return Winograd(torch.float32, device), body
    if precision is Precision.FP32 and device.type == "cpu":
        method: Method = Winograd(torch.float32, device)
    else:
        method = Direct(DTYPES[precision], DTYPES[precision], device)
    return method, method


def _smaller(choices: list[Plan], plan: Plan) -> Plan | None:
    """The cheapest plan for half the memory, or the smallest; None if `plan` is that already."""
    smallest = min(choices, key=lambda choice: choice.bytes)
    if plan.bytes <= smallest.bytes:
        return None
    return next((choice for choice in choices if choice.bytes <= plan.bytes // 2), smallest)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory has run out: torch has a class for that on a GPU, and words on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("DefaultCPUAllocator", "bad_alloc", "out of memory", ONEDNN_FAILED)
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _has_room_for_threads(count: int) -> bool:
    """Whether there is memory enough to start so many, each with a stack and a heap of its own."""
    try:
        np.empty(THREADS_BYTES + count * THREAD_BYTES, np.uint8)
    except MemoryError:
        return False
    return True


def _padded(pixels: Pixels, multiple: int) -> Pixels:
    """Both sides made a multiple by mirroring the last pixels, as the reference does too."""
    height, width, _ = pixels.shape
    borders = (0, -height % multiple), (0, -width % multiple), (0, 0)
    return np.pad(pixels, borders, mode="reflect")


def _passes(
    pixels: Pixels, output: Pixels
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


def _colours(result: Tensor) -> Pixels:
    """Samples from 0..1 to 0..255, clamped and rounded to the nearest: uint8 of the same shape."""
    levels = result.float().mul(255).round_().clamp_(0, 255).to(torch.uint8)
    samples: Pixels = levels.cpu().numpy()
    return samples


def _grey(result: Tensor) -> Pixels:
    """The same for grey that went through as three equal channels: shape (height, width, 1)."""
    luma = result.float().clamp(0, 1) * torch.tensor(LUMA, device=result.device)
    return _colours(luma.sum(dim=2, keepdim=True))
