"""All models on one device, each loaded on first use, for the service and the command line."""

import math
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from upscaler.api.sizes import Size
from upscaler.engine import weights
from upscaler.engine.cpu.check import compiled_wanted
from upscaler.engine.devices import footprints, name_of, pick_device, pick_precision
from upscaler.engine.engine import Engine, RowProgress
from upscaler.engine.memory import CPU, free_bytes, trim_heap
from upscaler.errors import WeightsUnavailable
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, UpscalingModel
from upscaler.planning import Plan, cheapest, plans_by
from upscaler.settings import Settings

RETRY_AFTER_S: Final = 60.0
"""How long a failure to load weights is repeated before the next attempt."""


class EnginePool:
    """The `Upscaler` of `service.backend`: it loads each model on first use and keeps it."""

    face_enhance = False

    def __init__(
        self, settings: Settings, read: Mapping[UpscalingModel, weights.Loaded] | None = None
    ) -> None:
        """Check the settings, and load nothing. `read` has networks that are already in memory.

        Raises DeviceUnavailable and WeightsUnavailable for settings that this machine cannot
        fulfil, so that they fail here and not at the first image.
        """
        self.settings = settings
        self._device = pick_device(settings.device)
        self._precision = pick_precision(settings.precision, self._device, settings.kernels)
        # Kernels are compiled here if nobody has done it before, and not while a client waits.
        compiled_wanted(settings.kernels, self._device, self._precision)
        self._read = dict(read or {})
        if not self._read:
            weights.find(MODELS[UpscalingModel.X4_PLUS], settings.weights)
        self._loaded: dict[UpscalingModel, tuple[Engine, str]] = {}
        self._failures: dict[UpscalingModel, tuple[float, WeightsUnavailable]] = {}
        self._loading = {name: threading.Lock() for name in UpscalingModel}

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

    def engine(self, model: UpscalingModel) -> Engine:
        """The engine of `model`, loaded if necessary. Raises what `load` raises."""
        return self._ready(model)[0]

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
        return cheapest(choices, self.settings.memory, free_bytes(self._device))

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

        When the iterator ends, the memory of the image is returned to the operating system.
        """
        memory = self.settings.memory
        try:
            engine = self.engine(model)
            yield from engine.strips(
                pixels, size=size, memory=memory, progress=progress, spool=spool
            )
        finally:
            trim_heap()

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
                engine = Engine.from_weights(
                    spec, loaded, self._device, self._precision, self.settings.kernels
                )
            except WeightsUnavailable as error:
                self._failures[model] = time.monotonic(), error
                raise
            self._loaded[model] = engine, loaded.sha256
            return self._loaded[model]
