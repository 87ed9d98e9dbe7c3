"""Enlarging pictures: a network over their rows, and antialiased Lanczos to the size asked for.

An Engine holds a network and nothing of any request, so calls may run at once.
"""

import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor

from upscaler.api.sizes import Size, scaled_size
from upscaler.engine import weights
from upscaler.engine.devices import methods, pick_device, pick_precision
from upscaler.engine.layers import Resolution
from upscaler.engine.memory import (
    ONEDNN_FAILED,
    as_out_of_memory,
    free_bytes,
    is_out_of_memory,
    room_for_threads,
)
from upscaler.engine.networks import Net
from upscaler.engine.streams import streamed
from upscaler.engine.tensors import (
    lanczos,
    reflect_pad,
    to_gray_uint8,
    to_host,
    to_network,
    to_uint8,
)
from upscaler.errors import OutOfMemory, Overflow, WeightsUnavailable
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.resize import resize
from upscaler.models import MODELS, Model, UpscalingModel
from upscaler.planning import MIB, Plan, Tile, cheapest, footprint, plans
from upscaler.settings import Device, Precision, Settings

Progress = Callable[[int, int], None]
"""Called with how many rows of the picture are enlarged, at first 0, and how many there are."""

PROBE_PX: Final = 16
"""Weights are tried out on a square of so many pixels a side. On two cores that takes a compact
network 30 to 70 ms and the largest up to 0.8 s: too long where the weights are known to be good."""

log = logging.getLogger(__name__)


class Engine:
    """One model on one device, ready to enlarge pictures."""

    def __init__(self, model: Model, net: Net, device: torch.device, precision: Precision) -> None:
        """Make `net` ready for `device`. `Engine.load` is the usual way in."""
        self.model = model
        self.device = device
        self.precision = precision
        self.footprint = footprint(model.network, precision, device.type)
        self._network = streamed(net.to(device), methods(precision, device))

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
        return cls.of(spec, weights.load(spec, folder, progress), target, chosen)

    @classmethod
    def of(
        cls, model: Model, loaded: weights.Loaded, device: torch.device, precision: Precision
    ) -> Self:
        """The engine of weights that were read.

        A user's own are tried out, which those that were published need not be. Raises
        WeightsUnavailable if what they make of any picture is no number.
        """
        engine = cls(model, loaded.net, device, precision)
        if loaded.own is None:
            return engine
        probe = _probe()
        try:
            engine.upscale(probe)
        except Overflow as error:
            fault = f"{loaded.own} makes no picture: what it computes overflows in {precision}"
            with torch.inference_mode():
                picture = to_network(torch.from_numpy(probe).to(device)).permute(2, 0, 1)[None]
                exact = loaded.net(picture)
            advice = ", and not in fp32: take that" if exact.isfinite().all() else ""
            raise WeightsUnavailable(fault + advice) from error
        return engine

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
        strips = self.strips(pixels, outscale, size=size, memory=memory, progress=progress)
        _, height = self._wanted(pixels, outscale, size)
        with as_out_of_memory("the enlarged picture"):
            return _assembled(map(torch.from_numpy, strips), height).numpy()

    def strips(
        self,
        pixels: Pixels,
        outscale: float | None = None,
        *,
        size: Size | None = None,
        memory: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Pixels]:
        """What `upscale` returns, in strips from top to bottom, each as soon as it is known.

        They come while the rows below are still to be computed, unless the picture has to be
        resized or is done in bands. Raises what `upscale` raises, at once or on the way.
        """
        wanted = self._wanted(pixels, outscale, size)
        height, width, channels = pixels.shape
        plan = self.plan(width, height, channels=channels, memory=memory)
        strips = self._strips_within(plan, pixels, progress)
        native = width * self.model.scale, height * self.model.scale
        if wanted == native:
            return to_host(strips, self.device)
        return self._resized(strips, native[1], wanted)

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
        strips = to_host(self._strips(pixels, plan, progress), self.device)
        height = len(pixels) * self.model.scale
        return _assembled(map(torch.from_numpy, strips), height).numpy()

    def _wanted(self, pixels: Pixels, outscale: float | None, size: Size | None) -> Size:
        """The size (width, height) of the result; raises ValueError as `upscale` says."""
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
            raise ValueError("pixels must be uint8 of shape (height, width, 3 or 4)")
        if outscale is not None and size is not None:
            raise ValueError("give an outscale or a size, not both")
        if outscale is not None and not 0 < outscale < math.inf:
            raise ValueError("outscale must be a positive number")
        height, width, _ = pixels.shape
        return size or scaled_size((width, height), outscale or self.model.scale)

    def _resized(self, strips: Iterator[Tensor], height: int, size: Size) -> Iterator[Pixels]:
        """The picture that `strips` make up, at `size`: on a GPU there, where it is quickest."""
        with as_out_of_memory("the picture at the size that was asked for"):
            whole = _assembled(strips, height)
            if self.device.type == "cuda":
                yield lanczos(whole, size).cpu().numpy()
            else:
                yield resize(whole.cpu().numpy(), size)

    def _strips_within(
        self, plan: Plan, pixels: Pixels, progress: Progress | None
    ) -> Iterator[Tensor]:
        """Enlarge by `plan`, or by a smaller one wherever the memory runs out.

        Each try begins anew, and what it makes is given out from where the one before it failed:
        up to there the rows are the same, to rounding.
        """
        height, width, channels = pixels.shape
        strips = self._strips
        given = 0
        while True:
            try:
                for strip in _below(given, strips(pixels, plan, progress)):
                    given += len(strip)
                    yield strip
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error)
            else:
                return
            # Only here the frames of the failed try, and what they held, are gone.
            log.warning("out of memory (%s), with the plan: %s", reason, plan)
            if ONEDNN_FAILED in reason and strips == self._strips:
                # Perhaps this thread is to blame alone, since an earlier failure.
                strips = self._strips_in_a_thread
                continue
            smaller = _smaller(self._plans(width, height, channels), plan)
            if smaller is None:
                raise OutOfMemory(
                    f"there is not enough memory for this picture: the smallest way to do it "
                    f"takes about {plan.bytes / MIB:,.0f} MiB. Free some, or send a smaller one"
                )
            plan = smaller

    def _strips_in_a_thread(
        self, pixels: Pixels, plan: Plan, progress: Progress | None
    ) -> Iterator[Tensor]:
        """`_strips` in a new thread: one in which oneDNN ran out of memory makes nothing new.

        Raises OutOfMemory if there is no memory for its threads: OpenMP and the C library end the
        process when they cannot have one.
        """
        if not room_for_threads(torch.get_num_threads()):
            raise OutOfMemory("there is not enough memory to start a thread: free some")
        strips = self._strips(pixels, plan, progress)
        with ThreadPoolExecutor(1) as pool:
            while (strip := pool.submit(next, strips, None).result()) is not None:
                yield strip

    def _plans(self, width: int, height: int, channels: int) -> list[Plan]:
        return plans(self.model, (width, height), channels, self.footprint)

    def _strips(self, pixels: Pixels, plan: Plan, progress: Progress | None) -> Iterator[Tensor]:
        """What `enlarge` returns, in uint8 strips on the device, from top to bottom.

        Alpha is a picture of its own, as in the reference, unless it is the same everywhere.
        """
        height, width, channels = pixels.shape
        scale = self.model.scale
        padded = reflect_pad(pixels, self.model.multiple)
        # All of it at once: copying to a GPU row by row would wait for what it computes.
        source = torch.from_numpy(padded).to(self.device)
        colours, alpha = source[:, :, :3], source[:, :, 3:]
        uniform = channels == 3 or padded[:, :, 3].min() == padded[:, :, 3].max()
        total = len(plan.tiles) * len(padded) * (1 if uniform else 2)
        report = progress or (lambda _done, _total: None)
        report(0, total)
        done = 0

        def told(rows: Tensor) -> Tensor:
            nonlocal done
            done += len(rows)
            report(done // scale, total)
            return rows

        opacity = None
        if not uniform:
            grey = alpha.expand(-1, -1, 3)
            strips = self._pass(grey, plan, lambda rows: to_gray_uint8(told(rows)))
            opacity = _assembled(strips, len(padded) * scale)
        elif channels == 4:
            opacity = alpha[:1, :1].expand(len(padded) * scale, padded.shape[1] * scale, 1)
        row = 0
        for rows in self._pass(colours, plan, lambda rows: to_uint8(told(rows))):
            strip = rows if opacity is None else torch.cat((rows, opacity[row:][: len(rows)]), 2)
            visible = min(len(rows), height * scale - row)  # what was added below is left out
            if visible > 0:
                yield strip[:visible, : width * scale]
            row += len(rows)

    def _pass(
        self, source: Tensor, plan: Plan, convert: Callable[[Tensor], Tensor]
    ) -> Iterator[Tensor]:
        """Strips of `source`, three channels, through the network: only one if it is in bands."""
        if len(plan.tiles) == 1:
            yield from self._rows(source, plan.tiles[0], plan, convert)
            return
        scale = self.model.scale
        whole: Tensor | None = None
        for tile in plan.tiles:
            columns = tile.core.scaled(scale).slices[1]
            row = 0
            for strip in self._rows(source, tile, plan, convert):
                if whole is None:
                    height, width, _ = source.shape
                    whole = strip.new_empty(height * scale, width * scale, strip.shape[2])
                whole[row : row + len(strip), columns] = strip
                row += len(strip)
        assert whole is not None
        yield whole

    def _rows(
        self, source: Tensor, tile: Tile, plan: Plan, convert: Callable[[Tensor], Tensor]
    ) -> Iterator[Tensor]:
        """The network's results for a tile's core, each made samples of by `convert`."""
        multiple, scale = self.model.multiple, self.model.scale
        region = source[tile.surround.slices]
        height, width, _ = region.shape
        level = Resolution(height // multiple, width // multiple, plan.rows)
        columns = tile.core.within(tile.surround).scaled(scale).slices[1]
        stream = self._network.open(level, plan.tail_rows)
        given, left = 0, height * scale
        total = torch.zeros((), device=self.device)
        while left:
            with torch.inference_mode():
                rows = region[given : given + plan.rows * multiple]
                given += len(rows)
                result = stream.push(to_network(rows) if len(rows) else None)
                if result is None:
                    continue
                core = result[:, columns]
                total += core.sum(dtype=torch.float32)
                samples = convert(core)
            left -= len(samples)
            # Only here, since a GPU is waited for: one value that is no number makes the sum none.
            if not left and not total.isfinite():
                raise Overflow(
                    f"{self.model.name} overflows on this picture in {self.precision}: "
                    "take fp32, or other weights"
                )
            yield samples


def _probe() -> Pixels:
    """A small picture with all that is hard on a network: black, white, both in turn, and noise."""
    probe = np.random.default_rng(0).integers(0, 256, (PROBE_PX, PROBE_PX, 3), np.uint8)
    probe[: PROBE_PX // 4] = 0
    probe[PROBE_PX // 4 : PROBE_PX // 2] = 255
    probe[: PROBE_PX // 2 : 2, ::2] ^= 255
    return probe


def _smaller(choices: list[Plan], plan: Plan) -> Plan | None:
    """The cheapest plan for half the memory, or the smallest; None if `plan` is that already."""
    smallest = min(choices, key=lambda choice: choice.bytes)
    if plan.bytes <= smallest.bytes:
        return None
    return next((choice for choice in choices if choice.bytes <= plan.bytes // 2), smallest)


def _assembled(strips: Iterator[Tensor], height: int) -> Tensor:
    """The whole of which `strips` are the rows, as an array of its own if they are several."""
    first = next(strips)
    if len(first) == height:
        return first
    whole = first.new_empty(height, *first.shape[1:])
    row = 0
    for strip in chain([first], strips):
        whole[row : row + len(strip)] = strip
        row += len(strip)
    if row != height:
        raise RuntimeError(f"{row} rows came out, and {height} are wanted")
    return whole


def _below(row: int, strips: Iterator[Tensor]) -> Iterator[Tensor]:
    """`strips` without the first `row` of their rows."""
    for strip in strips:
        if row < len(strip):
            yield strip[row:]
        row = max(0, row - len(strip))
