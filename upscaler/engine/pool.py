"""All models on one device, each loaded on first use, for the service and the command line."""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch

from upscaler.api.sizes import Size
from upscaler.engine import weights
from upscaler.engine.cpu.check import compiled_wanted
from upscaler.engine.device_thread import DeviceThread
from upscaler.engine.devices import (
    footprints,
    name_of,
    pick_device,
    pick_devices,
    pick_precision,
)
from upscaler.engine.engine import Engine, RowProgress
from upscaler.engine.faces.loading import load as load_faces
from upscaler.engine.faces.pasting import paste
from upscaler.engine.faces.restoration import FaceRestorer, face_bytes
from upscaler.engine.memory import CPU, free_bytes, trim_heap
from upscaler.errors import Cancelled, OutOfMemory, WeightsUnavailable
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, UpscalingModel
from upscaler.planning import MIB, Plan, cheapest, plans_by
from upscaler.settings import KernelUse, Settings

WARM_UP_PX: Final = 256
"""The sides of the images that are upscaled for nobody."""
RETRY_AFTER_S: Final = 60.0
"""How long a failure to load weights is repeated before the next attempt."""

log = logging.getLogger(__name__)


class EnginePool:
    """The `Upscaler` of `service.backend`: it loads each model on first use and keeps it.

    Networks are prepared, tried and run in the device's one thread, whichever thread asks for it:
    see `DeviceThread`. Only how much memory is free is asked anywhere: that is of no thread, and an
    answer should not wait for an image.
    """

    face_enhance = True

    def __init__(
        self,
        settings: Settings,
        read: Mapping[UpscalingModel, weights.Loaded] | None = None,
        *,
        device: torch.device | None = None,
        share: int = 1,
    ) -> None:
        """Check the settings, and load nothing. `read` has networks that are already in memory.

        `device` is by default the one of the settings. `share` is how many pools have that device.
        Raises DeviceUnavailable and WeightsUnavailable for settings that this machine cannot
        fulfil, so that they fail here and not at the first image.
        """
        self.settings = settings
        self._device = device or pick_device(settings.device)
        self._share = share
        self._precision = pick_precision(settings.precision, self._device, settings.kernels)
        # Kernels are compiled here if nobody has done it before, and not while a client waits.
        compiled_wanted(settings.kernels, self._device, self._precision)
        self._read = dict(read or {})
        if not self._read:
            weights.find(MODELS[UpscalingModel.X4_PLUS], settings.weights)
        self._loaded: dict[UpscalingModel, tuple[Engine, str]] = {}
        self._failures: dict[UpscalingModel, tuple[float, WeightsUnavailable]] = {}
        self._loading = {name: threading.Lock() for name in UpscalingModel}
        self._faces: FaceRestorer | None = None
        self._faces_failed: tuple[float, WeightsUnavailable | None] = -math.inf, None
        self._loading_faces = threading.Lock()
        self._thread = DeviceThread(self._device)

    def close(self) -> None:
        """End the device's thread. Nothing is loaded or upscaled afterwards."""
        self._thread.close()

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU, of whatever kind."""
        return self._device.type != "cpu"

    @property
    def device_name(self) -> str:
        """The device's name, such as NVIDIA L4."""
        return name_of(self._device)

    def load(self, model: UpscalingModel, progress: weights.DownloadProgress | None = None) -> str:
        """Load `model` unless it is loaded; return the SHA-256 of its weights' file in hex.

        Thread-safe: one thread loads a model, the others wait. `progress` is called with the bytes
        of a download. Raises WeightsUnavailable, and repeats it for RETRY_AFTER_S without another
        attempt, so that requests do not queue behind a network that is down.
        """
        return self._ready(model, progress)[1]

    def warm_up(self) -> None:
        """Upscale an image by each model whose weights are on this machine; log how long that took.

        On a GPU the first image by a model waits until its kernels are compiled, unless they were
        before, compared with cuDNN's, and loaded, and the first one that is resized for others. On
        the project's own kernels other sizes are no others; cuDNN has to plan each anew. A model
        that cannot be loaded is left to the requests for it. Raises DeviceUnavailable for kernels
        that were insisted on and fail.
        """
        began_s = time.perf_counter()
        found = [
            model
            for model, spec in MODELS.items()
            if model in self._loaded or weights.find(spec, self.settings.weights)
        ]
        pixels = np.random.default_rng(0).integers(0, 256, (WARM_UP_PX, WARM_UP_PX, 3), np.uint8)
        for model in found:
            # The network's own size, and one that is resized.
            sides = {WARM_UP_PX * MODELS[model].scale, *([WARM_UP_PX] if model is found[0] else [])}
            try:
                for side in sides:
                    deque(self.upscale(pixels, model, (side, side)), maxlen=0)
            except (WeightsUnavailable, OutOfMemory) as error:
                log.warning("%s could not be tried: %s", model, error)
        facts = {"device": self.device_name, "models": len(found)}
        log.info("warmed up", extra=facts | {"seconds": round(time.perf_counter() - began_s, 3)})

    def estimate_s(self, model: UpscalingModel, plan: Plan, channels: int) -> float:
        """About how many seconds an image takes by that plan: see `Engine.estimate_s`."""
        engine, _ = self._ready(model)
        return self._thread.run(engine.estimate_s, plan, channels)

    def bands(self, model: UpscalingModel, size: Size, channels: int) -> int:
        """The number of bands for an image of that size in pixels. Loads nothing.

        Raises OutOfMemory if no plan fits into the memory that the settings allow.
        """
        return len(self.plan(model, size, channels).tiles)

    def plan(
        self, model: UpscalingModel, size: Size, channels: int, spool: Path | None = None
    ) -> Plan:
        """The plan by which an image of that size would be upscaled. Loads nothing.

        `spool` is that of `Engine.strips`. Raises OutOfMemory if no plan fits into the memory that
        the settings allow.
        """
        spec = MODELS[model]
        kernels = self.settings.kernels
        needs = footprints(spec.network, self._device, self._precision, kernels)
        choices = plans_by(spec, size, channels, needs, spool=spool)
        return cheapest(choices, self.settings.memory, free_bytes(self._device) // self._share)

    def kernels(self) -> list[KernelUse]:
        """What convolves, for each model that is loaded."""
        return [engine.kernels for engine, _ in list(self._loaded.values())]

    def free_bytes(self) -> int:
        """The memory of this machine, not of its GPU, that is free."""
        return free_bytes(CPU)

    def upscale(
        self,
        pixels: Pixels,
        model: UpscalingModel,
        size: Size,
        progress: RowProgress | None = None,
        spool: Path | None = None,
    ) -> Iterator[Pixels]:
        """Upscale `pixels` by `model` to exactly `size` and yield strips, as `Engine.strips` does.

        When the iterator ends, the memory of the image is returned to the operating system. If it
        is closed before, or its thread interrupted, the work ends at the next progress.
        """
        given_up = threading.Event()

        def report(done: int, total: int) -> None:
            if given_up.is_set():
                raise Cancelled("nobody waits for this image any more")
            if progress:
                progress(done, total)

        try:
            engine, _ = self._ready(model)
            yield from self._thread.iterate(
                lambda: engine.strips(
                    pixels, size=size, memory=self.settings.memory, progress=report, spool=spool
                ),
                given_up.set,
            )
        finally:
            trim_heap()

    def load_faces(self, progress: weights.DownloadProgress | None = None) -> None:
        """Load what restores faces, as `load` does it for a model, and raise what it raises."""
        self._restorer(progress)

    def find_faces(self, pixels: Pixels) -> list[tuple[int, int, int, int]]:
        """The left, top, right and bottom of each face in `pixels` that `enhance_faces` restores.

        In pixels, within the image. Raises what that raises.
        """
        self._check_face_memory(pixels)
        height, width, _ = pixels.shape
        try:
            found = self._thread.run(self._restorer().find, pixels)
        finally:
            trim_heap()
        corners = np.array([face.box for face in found]).reshape(-1, 4)
        inside = np.clip(np.rint(corners), 0, (width, height, width, height)).astype(int).tolist()
        return [(left, top, right, bottom) for left, top, right, bottom in inside]

    def enhance_faces(
        self,
        pixels: Pixels,
        size: Size,
        strips: Iterable[Pixels],
        check: Callable[[], object] = lambda: None,
        *,
        strength: float = 1.0,
    ) -> tuple[int, Iterable[Pixels]]:
        """Restore the faces of `pixels`: how many there are, and `strips` with them pasted in.

        `pixels` are the input, uint8 of shape (height, width, 3 or 4), and `strips` what `upscale`
        yields for them at `size`. A restored face is mixed with the upscaled one by `strength`, in
        0..1. Faces are restored here, before the first strip is asked for; `check` is called before
        each batch of them.

        Raises InvalidRequest for more faces than are restored, OutOfMemory, also if the settings
        allow too little of it, WeightsUnavailable and Overflow.
        """
        self._check_face_memory(pixels)
        restorer, allowed = self._restorer(), self.settings.memory
        try:
            faces = self._thread.run(restorer.find, pixels)
            restored = self._thread.run(
                restorer.restore,
                pixels,
                faces,
                size,
                strength,
                check,
                memory=allowed or free_bytes(self._device) // self._share // 2,
            )
        finally:
            trim_heap()
        return len(faces), paste(strips, restored)

    def face_bytes(self, size: Size) -> int:
        """At least how many bytes it takes to restore faces in an image of that size in pixels."""
        return face_bytes(size)

    def _check_face_memory(self, pixels: Pixels) -> None:
        allowed, needed = self.settings.memory, self.face_bytes(pixels.shape[1::-1])
        if allowed is not None and needed > allowed:
            raise OutOfMemory(
                f"to restore faces takes {needed / MIB:,.0f} MiB for this image: allow it more, or "
                "leave face_enhance out"
            )

    def _restorer(self, progress: weights.DownloadProgress | None = None) -> FaceRestorer:
        with self._loading_faces:
            if self._faces:
                return self._faces
            failed_s, failure = self._faces_failed
            if failure and time.monotonic() - failed_s < RETRY_AFTER_S:
                raise failure
            detector, folder = self.settings.face_detector, self.settings.weights
            try:
                nets = load_faces(detector, folder, progress)
                self._faces = self._thread.run(FaceRestorer, nets, self._device)
            except WeightsUnavailable as error:
                self._faces_failed = time.monotonic(), error
                raise
            return self._faces

    def _ready(
        self, model: UpscalingModel, progress: weights.DownloadProgress | None = None
    ) -> tuple[Engine, str]:
        # A lock per model: loading one of them does not delay requests for the others.
        with self._loading[model]:
            if model in self._loaded:
                return self._loaded[model]
            failed_s, failure = self._failures.get(model, (-math.inf, None))
            if failure and time.monotonic() - failed_s < RETRY_AFTER_S:
                raise failure
            spec = MODELS[model]
            try:
                loaded = self._read.pop(model, None)
                loaded = loaded or weights.load(spec, self.settings.weights, progress)
                engine = self._thread.run(
                    Engine.from_weights,
                    spec,
                    loaded,
                    self._device,
                    self._precision,
                    self.settings.kernels,
                    share=self._share,
                )
            except WeightsUnavailable as error:
                self._failures[model] = time.monotonic(), error
                raise
            self._loaded[model] = engine, loaded.sha256
            return self._loaded[model]


def engine_pools(settings: Settings) -> list[EnginePool]:
    """A pool for each device of the settings, so that as many images are upscaled at once.

    Several on a CPU divide the threads of torch, in the whole process, and the memory that is free.
    Raises what EnginePool raises.
    """
    devices = pick_devices(settings.device)
    share = len(devices) if devices[0].type == "cpu" else 1
    if share > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // share))
    return [EnginePool(settings, device=device, share=share) for device in devices]
