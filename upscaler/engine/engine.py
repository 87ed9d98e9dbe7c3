"""The engine: upscale images with a network, then resize to the requested size by Lanczos."""

import math
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor

from upscaler import files
from upscaler.api.sizes import Size, scaled_size
from upscaler.engine import weights
from upscaler.engine.bands import BandedNetwork
from upscaler.engine.cpu.check import compiled, compiled_asked, compiled_wanted
from upscaler.engine.devices import footprints, methods, pick_device, pick_precision
from upscaler.engine.gpu.check import checked, kernels_wanted
from upscaler.engine.memory import CPU, as_out_of_memory, free_bytes
from upscaler.engine.networks import Net
from upscaler.engine.retry import strips_with_retries
from upscaler.engine.streams import Streamed, streamed
from upscaler.engine.tensors import (
    assemble,
    lanczos,
    lanczos_bytes,
    reflect_pad,
    to_gray_uint8,
    to_host,
    to_network,
    to_uint8,
)
from upscaler.errors import (
    DeviceUnavailable,
    FileRefused,
    ImageError,
    OutOfMemory,
    Overflow,
    WeightsUnavailable,
)
from upscaler.formats import FILE_FORMATS
from upscaler.imaging.alpha import bleed_colours
from upscaler.imaging.other_formats import read_any
from upscaler.imaging.other_writers import write_image
from upscaler.imaging.pixels import Pixels, is_gray
from upscaler.imaging.resize import resized_strips
from upscaler.models import MODELS, Model, UpscalingModel, flop
from upscaler.planning import Plan, cheapest, fits, plans_by
from upscaler.settings import Device, Kernels, KernelUse, Precision, Settings

RowProgress = Callable[[int, int], None]
"""Called with the rows of the image that are done, at first 0, and the rows in total. Each band
counts its own rows, and so does alpha, so the total may exceed the image's height."""

PROBE_PX: Final = 16
"""The side of the image on which a user's own weights are tried. On two cores it takes a compact
network 30 to 70 ms and the largest up to 0.8 s: too long for weights that are known to be good."""
ESTIMATE_FLOP: Final = 15 * 10**10
"""What is computed for an estimate of the time: about a second's work on two cores."""


class Engine:
    """One model on one device, ready to upscale images.

    It keeps no state of any image, so several threads may use it at the same time.

        import numpy as np
        from PIL import Image
        from upscaler import Engine

        engine = Engine.load("real-esrgan-x4-plus")
        larger = engine.upscale(np.array(Image.open("photo.png").convert("RGB")), outscale=2)
        engine.upscale_file("photo.png", "photo-x4.png")

    Pixels are NumPy arrays, uint8 in 0..255, of shape (height, width, 3) for RGB or (height,
    width, 4) for RGBA with straight alpha, in sRGB. Sizes are (width, height) in pixels.
    """

    def __init__(
        self,
        model: Model,
        net: Net,
        device: torch.device,
        precision: Precision,
        kernels: Kernels = Kernels.AUTO,
        *,
        share: int = 1,
    ) -> None:
        """Move `net` to `device` and prepare it. Use `Engine.load` unless you have a network.

        `share` is how many engines divide the memory that the device has free.
        Raises DeviceUnavailable for Kernels.TRITON where they cannot run or fail.
        """
        self.model = model
        self.device = device
        self.precision = precision
        self.share = share
        self.footprints = footprints(model.network, device, precision, kernels)
        # Prepared when a plan needs it: beside whole maps that is where there is little memory.
        self._streams = cache(lambda: streamed(net.to(device), methods(precision, device)))
        self._whole: Streamed | None = None
        asked = compiled_asked(kernels, device, precision)
        if compiled_wanted(kernels, device, precision):
            self._whole = compiled(net)
        elif kernels_wanted(kernels, device, precision):
            asked = True
            self._whole = checked(model, net, self._streams(), device)
            if self._whole is None:
                if kernels is Kernels.TRITON:
                    raise DeviceUnavailable("the kernels fail on this GPU: the log says why")
                self.footprints = footprints(model.network, device, precision, Kernels.CUDNN)
        if self._whole is None:
            self._streams()
        own = self._whole is not None
        self.kernels = KernelUse(str(device), model.api_name, own, refused=asked and not own)

    @classmethod
    def load(
        cls,
        model: UpscalingModel | str = UpscalingModel.X4_PLUS,
        device: Device | str = Device.AUTO,
        precision: Precision | str = Precision.AUTO,
        *,
        weights_folder: Path | None = None,
        progress: weights.DownloadProgress | None = None,
    ) -> Self:
        """Load a model; its weights are downloaded if they are not on this machine.

        `model`, `device` and `precision` are the API's names, such as "real-esrgan-x4-plus", "cuda"
        and "fp16"; "auto" picks the fastest that the machine has. `weights_folder` is searched
        first and defaults to UPSCALER_WEIGHTS. `progress` is called with the bytes downloaded so
        far and the bytes in total.

        Raises ValueError for an unknown name, DeviceUnavailable for a device or precision that this
        machine lacks, WeightsUnavailable for weights that are damaged or cannot be downloaded, and
        InvalidSetting for an environment variable that cannot be read.
        """
        spec = MODELS[UpscalingModel(model)]
        target = pick_device(Device(device))
        settings = Settings.from_environment()
        chosen = pick_precision(Precision(precision), target, settings.kernels)
        loaded = weights.load(spec, weights_folder or settings.weights, progress)
        return cls.from_weights(spec, loaded, target, chosen, settings.kernels)

    @classmethod
    def from_weights(
        cls,
        model: Model,
        loaded: weights.Loaded,
        device: torch.device,
        precision: Precision,
        kernels: Kernels = Kernels.AUTO,
        *,
        share: int = 1,
    ) -> Self:
        """Make an engine of a network with its weights, as `weights.load` returns it.

        A user's own weights are tried on a small image; published ones are known to work. Raises
        WeightsUnavailable if the network overflows with them in `precision`.
        """
        engine = cls(model, loaded.net, device, precision, kernels, share=share)
        if loaded.own is None:
            return engine
        probe = _probe_image()
        try:
            engine.upscale(probe)
        except Overflow as error:
            fault = f"{loaded.own} cannot be used: what it computes overflows in {precision}"
            # Tried in fp32 too, to tell whether the precision or the weights are the cause.
            with torch.inference_mode():
                image = to_network(torch.from_numpy(probe).to(device)).permute(2, 0, 1)[None]
                exact = loaded.net(image)
            advice = ", and not in fp32: use fp32" if exact.isfinite().all() else ""
            raise WeightsUnavailable(fault + advice) from error
        return engine

    def upscale(
        self,
        pixels: Pixels,
        outscale: float | None = None,
        *,
        size: Size | None = None,
        memory: int | None = None,
        progress: RowProgress | None = None,
    ) -> Pixels:
        """Upscale `pixels`: returns uint8 with the same number of channels.

        Both sides become `outscale` times as long, rounded half up (any factor above 0, such as
        1.5), or the result has exactly `size` (width, height). By default it has the network's own
        size, `model.scale` times. Alpha is upscaled by the network, too. The colours of transparent
        pixels do not count, and a grey image stays grey. `memory` is how many bytes this may take
        beyond the loaded model, by default half of what the device has free. `progress` is called
        with the rows that are done and the rows in total. The result may be a view of a larger
        array.

        Raises ValueError for pixels of another dtype or shape, for an `outscale` that is not a
        positive number, and for both `outscale` and `size`; OutOfMemory when memory runs out even
        with the smallest plan; and Overflow when the network's output is infinite or NaN.
        """
        strips = self.strips(pixels, outscale, size=size, memory=memory, progress=progress)
        _, height = self._output_size(pixels, outscale, size)
        with as_out_of_memory("the upscaled image"):
            return assemble(map(torch.from_numpy, strips), height).numpy()

    def strips(
        self,
        pixels: Pixels,
        outscale: float | None = None,
        *,
        size: Size | None = None,
        memory: int | None = None,
        progress: RowProgress | None = None,
        spool: Path | None = None,
    ) -> Iterator[Pixels]:
        """What `upscale` returns, as strips of rows from top to bottom.

        Each strip is uint8 of shape (any number of rows, width, channels) and is yielded as soon as
        it is computed. If the image is upscaled in bands, there is a single strip; but with
        `spool`, a folder, the result is never in memory as a whole: bands that are too large for it
        wait in a temporary file there. Raises what `upscale` raises: ValueError at once, the others
        during iteration; and OSError if that file cannot be written.
        """
        # Not a generator itself, so that wrong arguments are refused here, not at the first strip.
        wanted = self._output_size(pixels, outscale, size)
        height, width, channels = pixels.shape
        native = width * self.model.scale, height * self.model.scale
        free = free_bytes(self.device) // self.share
        choices: list[Plan] = []
        if wanted != native and _resizes(self.device):
            # There the whole image is held beside what it is resized in. That may be too much.
            after = lanczos_bytes(native, wanted, channels)
            choices = fits(self._plans(width, height, channels, after=after), memory, free)
        there = bool(choices)
        choices = choices or self._plans(width, height, channels, spool=spool)
        plan = cheapest(choices, memory, free)
        strips = strips_with_retries(
            lambda plan: self._strips(pixels, plan, progress), plan, choices
        )
        if wanted == native:
            return to_host(strips, self.device)
        if there:
            return self._resized(strips, native[1], wanted)
        return resized_strips(to_host(strips, self.device), native, wanted)

    def upscale_file(
        self,
        source: Path | str,
        target: Path | str,
        outscale: float | None = None,
        *,
        size: Size | None = None,
        memory: int | None = None,
        progress: RowProgress | None = None,
    ) -> None:
        """Upscale the image file `source` and write the result to `target`.

        `source` is a PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF file, or HEIC or JPEG XL if Pillow's
        plugin is installed, turned upright by its EXIF orientation and converted to sRGB by its
        profile. Of several frames or pages the first is read. The suffix of `target` (.png, .jpg,
        .jpeg, .webp, .avif, .tif or .tiff) is its format; JPEG shows transparency as white. It is
        written while the rows are computed and replaces an existing file only when it is complete;
        missing folders are created. The other arguments are those of `upscale`.

        Raises FileRefused for a source that cannot be read or decoded, and for a target with
        another suffix or that is the source itself; OSError where the target cannot be written;
        and what `upscale` raises.
        """
        source, target = Path(source), Path(target)
        by_suffix = {
            suffix: encoding for encoding in FILE_FORMATS.values() for suffix in encoding.suffixes
        }
        encoding = by_suffix.get(target.suffix.lower())
        if encoding is None:
            raise FileRefused(str(target), f"the suffix must be one of {', '.join(by_suffix)}")
        if files.identity(source) == files.identity(target):
            raise FileRefused(str(target), "the result would overwrite its source")
        try:
            free = free_bytes(CPU)
            image = read_any(files.read_image_file(source, free // 2))
            if image.most_bytes > free:
                raise OutOfMemory(f"{source}: this image takes more memory to be read than is free")
            pixels = image.pixels()
        except ImageError as error:
            raise FileRefused(str(source), str(error)) from error
        strips = self.strips(pixels, outscale, size=size, memory=memory, progress=progress)
        _, height = self._output_size(pixels, outscale, size)
        with files.atomic_write(target) as file:
            write_image(file, strips, height, encoding)

    def plan(
        self, width: int, height: int, *, channels: int = 3, memory: int | None = None
    ) -> Plan:
        """The plan by which `upscale` would process an image of that size within `memory` bytes."""
        choices = self._plans(width, height, channels)
        return cheapest(choices, memory, free_bytes(self.device) // self.share)

    def estimate_s(self, plan: Plan, channels: int) -> float:
        """About how many seconds an image takes by that plan; it takes about a second itself.

        Measured on a small image: what else the machine has to do later is not known.
        """
        probe = _probe_image()
        self.upscale(probe)  # the first image ever takes longer
        count = max(2, math.isqrt(ESTIMATE_FLOP // flop(self.model, PROBE_PX, PROBE_PX)))
        probe = np.tile(probe, (count, count, 1))
        started_s = time.perf_counter()
        self.upscale(probe)
        elapsed_s = time.perf_counter() - started_s
        computed_px = sum(tile.surround.width * tile.surround.height for tile in plan.tiles)
        return elapsed_s * computed_px / (count * PROBE_PX) ** 2 * (channels - 2)

    def upscale_by_plan(
        self, pixels: Pixels, plan: Plan, progress: RowProgress | None = None
    ) -> Pixels:
        """Upscale `pixels` to the network's own size by that plan, without retries.

        Raises what torch raises when memory runs out.
        """
        strips = to_host(self._strips(pixels, plan, progress), self.device)
        height = len(pixels) * self.model.scale
        return assemble(map(torch.from_numpy, strips), height).numpy()

    def _output_size(self, pixels: Pixels, outscale: float | None, size: Size | None) -> Size:
        """The size of the result in pixels; raises the ValueErrors of `upscale`."""
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
            raise ValueError("pixels must be uint8 of shape (height, width, 3 or 4)")
        if outscale is not None and size is not None:
            raise ValueError("give an outscale or a size, not both")
        if outscale is not None and not 0 < outscale < math.inf:
            raise ValueError("outscale must be a positive number")
        height, width, _ = pixels.shape
        return size or scaled_size((width, height), outscale or self.model.scale)

    def _plans(
        self,
        width: int,
        height: int,
        channels: int,
        *,
        spool: Path | None = None,
        after: int = 0,
    ) -> list[Plan]:
        size = width, height
        return plans_by(self.model, size, channels, self.footprints, spool=spool, after=after)

    def _resized(self, strips: Iterator[Tensor], height: int, size: Size) -> Iterator[Pixels]:
        """Join `strips` to an image and resize it to `size` on the device; yield it as one strip.

        It is resized before it is copied to the host, since a GPU resizes faster than it copies.
        """
        with as_out_of_memory("the image at the requested size"):
            yield lanczos(assemble(strips, height), size).cpu().numpy()

    def _strips(self, pixels: Pixels, plan: Plan, progress: RowProgress | None) -> Iterator[Tensor]:
        """What `upscale_by_plan` returns, as uint8 strips from top to bottom.

        They are on the device, or in the host's memory if they were in a file. Alpha is upscaled by
        the network as a grey image of its own, as in the reference, unless it is the same
        everywhere. Unlike there, colours beneath transparency are replaced before, and the
        network's output for a grey image is made grey again.
        """
        height, width, channels = pixels.shape
        scale = self.model.scale
        if channels == 4:
            pixels = bleed_colours(pixels)
        convert = to_gray_uint8 if is_gray(pixels) else to_uint8
        padded = reflect_pad(pixels, self.model.multiple)
        # The whole image is copied at once. A copy per step would wait for the GPU to compute.
        source = torch.from_numpy(padded).to(self.device)
        colours, alpha = source[:, :, :3], source[:, :, 3:]
        uniform = channels == 3 or padded[:, :, 3].min() == padded[:, :, 3].max()
        passes = [0.0] if uniform else [0.0, 0.0]
        total = len(passes) * len(plan.tiles) * len(padded)
        report = progress or (lambda _done, _total: None)
        report(0, total)
        done = 0

        def advance(number: int, bands: float) -> None:
            """Report that so many bands of a pass are done."""
            nonlocal done
            passes[number] = bands
            # Whole rows, with what rounding has lost of the last one.
            rows = int(sum(passes) * len(padded) + 1e-6)
            if rows > done:
                done = rows
                report(done, total)

        prepared = self._whole if plan.whole else self._streams()
        assert prepared is not None, "a plan for whole maps is made where they are prepared"
        network = BandedNetwork(self.model, prepared, self.precision)

        # The whole alpha comes first, since each strip of the result needs its rows; or, to hold
        # none of it, along with the colours, in strips of the same rows since the plan is the same.
        opacity, alphas = None, None
        if not uniform:
            grey = alpha.expand(-1, -1, 3)
            alphas = network.upscale(grey, plan, to_gray_uint8, partial(advance, 1))
            opacity = None if plan.spool else assemble(alphas, len(padded) * scale)
        elif channels == 4:
            opacity = alpha[:1, :1].expand(len(padded) * scale, padded.shape[1] * scale, 1)
        row = 0
        for rows in network.upscale(colours, plan, convert, partial(advance, 0)):
            # Grey rows have one channel so far.
            strip = rows if rows.shape[2] == 3 else rows.repeat(1, 1, 3)
            if opacity is not None:
                strip = torch.cat((strip, opacity[row:][: len(rows)].to(rows.device)), 2)
            elif alphas is not None:
                strip = torch.cat((strip, next(alphas)), 2)
            visible = min(len(rows), height * scale - row)  # without the rows of the padding
            if visible > 0:
                yield strip[:visible, : width * scale]
            row += len(rows)


def _resizes(device: torch.device) -> bool:
    """Whether a result is resized on `device` where it has room: faster than it could be copied."""
    return device.type == "cuda"


def _probe_image() -> Pixels:
    """A small image that is hard on a network: black, white, a checkerboard, and noise."""
    probe = np.random.default_rng(0).integers(0, 256, (PROBE_PX, PROBE_PX, 3), np.uint8)
    probe[: PROBE_PX // 4] = 0
    probe[PROBE_PX // 4 : PROBE_PX // 2] = 255
    probe[: PROBE_PX // 2 : 2, ::2] ^= 255
    return probe
