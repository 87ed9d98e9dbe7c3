"""Memory that was never written is in no image, whatever has gone wrong before.

What an allocator gives out holds what somebody else had there: another's image, perhaps. Here it
holds what this file says, and all that comes out must be the same as ever.

    python -m tests.engine.test_uninitialised

prints what comes out. Small networks with random weights do, since it is not their values that
matter but which of them are computed.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from mock_server.backend.nearest import NearestUpscaler
from tests.support import networks
from tests.support.paths import ROOT
from upscaler.engine import engine as module
from upscaler.engine.convolution import Direct, Winograd
from upscaler.engine.engine import Engine, RowProgress
from upscaler.errors import Cancelled, Overflow
from upscaler.formats import ImageEncoding
from upscaler.imaging import comparison
from upscaler.imaging import resize as resizing
from upscaler.imaging.alpha import bleed_colours
from upscaler.imaging.encode import encode_strips
from upscaler.imaging.jpeg_writer import DEFAULT_JPEG, SMALL
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, RRDB, Compact, Model, UpscalingModel
from upscaler.planning import Footprint, Plan
from upscaler.settings import Precision

FOOTPRINT = Footprint(1000, column=1000, flow=500, tail=500, step_px=2000, tail_px=500)
"""With it even small images have many plans."""
KINDS = {
    "compact": (UpscalingModel.ANIMEVIDEO_V3, Compact(scale=4, num_conv=2)),
    "deep": (UpscalingModel.X4_PLUS, RRDB(scale=4, num_block=1)),
    "deep, halved": (UpscalingModel.X2_PLUS, RRDB(scale=2, num_block=1)),
}
NETWORKS = [
    ("compact", Precision.FP32),
    ("compact", Precision.MIXED),
    ("deep", Precision.FP32),
    ("deep, halved", Precision.MIXED),
]
"""Both ways to convolve for both kinds."""
SHAPES = [(23, 17, 3), (5, 9, 4), (37, 11, 4)]


class Failing(Engine):
    """An engine that runs out of memory in the middle of an image, once when it is told to."""

    must_fail = False
    failures = 0

    def _strips(self, pixels: Pixels, plan: Plan, progress: RowProgress | None) -> Iterator[Tensor]:
        for strip in super()._strips(pixels, plan, progress):
            yield strip
            if self.must_fail:
                self.must_fail = False
                self.failures += 1
                raise MemoryError


@cache
def engine(kind: str, precision: Precision) -> Failing:
    name, network = KINDS[kind]
    model = Model(**{**vars(MODELS[name]), "network": network, "halo": 8})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "footprints", networks.ways(FOOTPRINT))
        return Failing(model, networks.lively(model), torch.device("cpu"), precision)


def noise(height: int, width: int, channels: int) -> Pixels:
    shape = (height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def in_rows(engine: Failing, pixels: Pixels) -> Pixels:
    return engine.upscale_by_plan(pixels, networks.plan(engine.model, pixels, rows=5, tail_rows=2))


def in_bands(engine: Failing, pixels: Pixels) -> Pixels:
    return engine.upscale_by_plan(pixels, networks.plan(engine.model, pixels, bands=3, rows=4))


def resized(engine: Failing, pixels: Pixels) -> Pixels:
    return engine.upscale(pixels, size=(57, 61))


def tried_again(engine: Failing, pixels: Pixels) -> Pixels:
    height, width, channels = pixels.shape
    second = sorted({plan.bytes for plan in engine._plans(width, height, channels)})[:2][-1]
    engine.must_fail = True
    pixels = engine.upscale(pixels, memory=second)
    engine.must_fail = False  # where the first strip was the whole image
    return pixels


def after_another_was_given_up(engine: Failing, pixels: Pixels) -> Pixels:
    def give_up(done: int, _total: int) -> None:
        if done:
            raise Cancelled

    for plan in (
        networks.plan(engine.model, pixels, rows=4),
        networks.plan(engine.model, pixels, bands=2, rows=4),
    ):
        with pytest.raises(Cancelled):
            engine.upscale_by_plan(255 - pixels, plan, give_up)
    strips = engine.strips(255 - pixels)
    next(strips)
    del strips
    return in_rows(engine, pixels)


WAYS: tuple[Callable[[Failing, Pixels], Pixels], ...] = (
    in_rows,
    in_bands,
    resized,
    tried_again,
    after_another_was_given_up,
)


def made(kind: str, precision: Precision) -> dict[str, str]:
    """The SHA-256 of every image that a network makes of noise, by how it was made."""
    found = {}
    for shape in SHAPES:
        for way in WAYS:
            pixels = way(engine(kind, precision), noise(*shape))
            name = f"{kind}, {precision}, {way.__name__}, {shape}"
            found[name] = hashlib.sha256(pixels.tobytes()).hexdigest()
    return found


def around() -> dict[str, str]:
    """The same for what is no network: resizing, encoding, and what the mock makes."""
    found: dict[str, str] = {}
    for shape in [(97, 131, 3), (64, 130, 4), (1, 1, 3)]:
        pixels = noise(*shape)
        strips = np.array_split(pixels, min(3, shape[0]))
        files = {
            f"{encoding} {style.quality}": b"".join(
                encode_strips(strips, shape[0], encoding, style)
            )
            for encoding in ImageEncoding
            for style in (DEFAULT_JPEG, SMALL)
        }
        mock = NearestUpscaler().upscale(
            pixels, UpscalingModel.X4_PLUS, (177, 201), lambda _done, _total: None
        )
        files |= {
            "larger": resizing.resize(pixels, (150, 170)).tobytes(),
            "smaller": resizing.resize(pixels, (33, 21)).tobytes(),
            "before and after": comparison.before_after(
                pixels, resizing.resize(pixels, (99, 98))
            ).tobytes(),
            "mock": np.concatenate(list(mock)).tobytes(),
        }
        if shape[2] == 4:
            files["alpha"] = bleed_colours(pixels).tobytes()
        found |= {
            f"{name}, {shape}": hashlib.sha256(file).hexdigest() for name, file in files.items()
        }
    return found


# torch's own memory


@pytest.fixture
def filled() -> Iterator[None]:
    """Let torch write NaN, or the largest number there is, to all memory that it gives out."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def test_torch_fills_uninitialised_memory(filled: None) -> None:
    assert torch.empty(3, 3).isnan().all()
    assert torch.zeros(1, dtype=torch.uint8).new_empty(9).eq(255).all()


@pytest.mark.first(1)
@pytest.mark.parametrize(("kind", "precision"), NETWORKS)
def test_no_network_returns_unwritten_memory(
    kind: str, precision: Precision, request: pytest.FixtureRequest
) -> None:
    expected = made(kind, precision)
    assert engine(kind, precision).failures
    request.getfixturevalue("filled")
    assert made(kind, precision) == expected


def test_an_unwritten_row_would_be_detected(filled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in (Direct, Winograd):
        monkeypatch.setattr(method, "transform", lambda *_: None)
    with pytest.raises(Overflow):
        made("compact", Precision.FP32)


# The C library's memory


def printed(**environment: str) -> dict[str, str]:
    """What this file prints in a process with that environment."""
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(
        command,
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="of glibc's malloc alone (mallopt(3))"
)
def test_the_result_does_not_depend_on_old_memory() -> None:
    """Whichever byte that is full of: these two differ in every bit."""
    one, other = (printed(MALLOC_PERTURB_=byte) for byte in ("85", "170"))
    assert len(one) > 30
    assert one == other


if __name__ == "__main__":
    # No deep one: whatever is allocated is written twice here, and that takes minutes.
    json.dump(around() | made("compact", Precision.FP32), sys.stdout)
