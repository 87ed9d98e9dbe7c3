"""Resizing where the network ran, as on a GPU: only with room for it, which plans count."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from tests.support import networks
from tests.support.networks import largest_difference
from upscaler.api.sizes import Size
from upscaler.engine import engine as module
from upscaler.engine.tensors import lanczos, lanczos_bytes
from upscaler.imaging.resize import resize
from upscaler.models import MODELS, UpscalingModel

MODEL = MODELS[UpscalingModel.ANIMEVIDEO_V3]


@pytest.mark.parametrize("spooled", [False, True])
def test_a_result_is_resized_on_the_device_if_that_fits_into_the_memory(
    spooled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[Size] = []

    def noting(image: Tensor, size: Size) -> Tensor:
        there.append(size)
        return lanczos(image, size)

    monkeypatch.setattr(module, "lanczos", noting)
    engine = networks.engine(MODEL)
    engine.footprints = [replace(engine.footprints[0], fixed=0)]
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    native, size = (96, 80), (500, 400)
    after = lanczos_bytes(native, size, 3)
    enough = min(plan.bytes for plan in engine._plans(24, 20, 3, after=after))
    # Without its threads' scratch the network takes less: it is this, and the image itself.
    assert enough == after + native[0] * native[1] * 3
    spool = tmp_path if spooled else None
    expected = resize(engine.upscale(pixels), size)
    for on_gpu, memory, resized in (
        (False, enough, False),
        (True, enough - 1, False),
        (True, enough, True),
    ):
        monkeypatch.setattr(module, "_resizes", lambda _device, on_gpu=on_gpu: on_gpu)
        there.clear()
        found = np.concatenate(list(engine.strips(pixels, size=size, memory=memory, spool=spool)))
        assert bool(there) is resized
        assert largest_difference(found, expected) <= 1
