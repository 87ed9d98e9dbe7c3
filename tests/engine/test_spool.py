"""Results that wait in a temporary file, and what they hold of memory."""

import errno
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import networks
from tests.support.networks import largest_difference
from tests.support.properties import examples
from tests.support.scripts import ENGINE, numbers_of
from upscaler import planning
from upscaler.engine import spool as spooling
from upscaler.engine.engine import Engine
from upscaler.engine.networks import Net
from upscaler.engine.spool import BandSpool
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.resize import resize
from upscaler.models import MODELS, Model, UpscalingModel, flop
from upscaler.planning import Footprint, Plan, plans
from upscaler.settings import Precision

FAST = UpscalingModel.ANIMEVIDEO_V3


@cache
def engine() -> Engine:
    return networks.engine(MODELS[FAST])


def noise(height: int, width: int, channels: int) -> Pixels:
    shape = (height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def streamed(pixels: Pixels, bands: int, folder: Path) -> Plan:
    height, width, channels = pixels.shape
    choices = plans(MODELS[FAST], (width, height), channels, engine().footprints[-1], spool=folder)
    return next(
        plan for plan in choices if plan.spool and len(plan.tiles) == bands and plan.rows < 9
    )


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("bands", [1, 2, 3])
def test_bands_in_a_file_are_those_in_memory(
    bands: int, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooling, "SPOOL_BYTES", 30_000)
    pixels = noise(20, 200, channels)
    plan = streamed(pixels, bands, tmp_path)
    in_memory = networks.plan(MODELS[FAST], pixels, bands=bands, rows=plan.rows)
    expected = engine().upscale_by_plan(pixels, in_memory)
    strips = list(engine()._strips(pixels, plan, None))
    assert len(strips) > 1
    assert np.array_equal(torch.cat(strips).numpy(), expected)
    assert not list(tmp_path.iterdir())


def test_strips_take_the_folder_and_resize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Path] = []

    class Noting(BandSpool):
        def __init__(self, folder: Path, *rest: Any) -> None:
            used.append(folder)
            super().__init__(folder, *rest)

    monkeypatch.setattr("upscaler.engine.bands.BandSpool", Noting)
    # So that neither a single band fits nor two with the result, and two alone do.
    monkeypatch.setattr(engine(), "footprints", [Footprint(0, 100_000, 0, 0, 1000, 1)])
    monkeypatch.setattr(planning, "SPOOL_BYTES", 1000)
    pixels = noise(30, 300, 3)
    strips = list(engine().strips(pixels, size=(450, 45), memory=16_900_000, spool=tmp_path))
    assert used == [tmp_path]
    expected = resize(engine().upscale(pixels), (450, 45))
    assert largest_difference(np.concatenate(strips), expected) <= 1
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(BandSpool):
        def write(self, strip: torch.Tensor) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("upscaler.engine.bands.BandSpool", Full)
    pixels = noise(20, 200, 3)
    with pytest.raises(OSError, match="No space left"):
        list(engine()._strips(pixels, streamed(pixels, 2, tmp_path), None))


@settings(max_examples=examples(20))
@given(
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    height=st.integers(1, 12),
    channels=st.sampled_from([1, 3, 4]),
    at_once=st.integers(1, 400),
    data=st.data(),
)
def test_a_spool_returns_what_it_was_given(
    widths: list[int], height: int, channels: int, at_once: int, data: st.DataObject
) -> None:
    image = torch.from_numpy(noise(height, sum(widths), channels))
    spool = BandSpool(Path(), widths, height)
    with pytest.MonkeyPatch.context() as patch, closing(spool):
        patch.setattr(spooling, "SPOOL_BYTES", at_once)
        for band in torch.split(image, widths, dim=1):
            cut = data.draw(st.integers(0, height))
            for strip in (band[:cut], band[cut:]):
                spool.write(strip)
        assert torch.equal(torch.cat(list(spool.strips())), image)


def test_a_spool_that_lacks_rows_is_not_shown(tmp_path: Path) -> None:
    spool = BandSpool(tmp_path, [4], 5)
    spool.write(torch.zeros(4, 4, 3, dtype=torch.uint8))
    with pytest.raises(OSError, match="shorter"):
        list(spool.strips())


def test_a_reader_that_stops_leaves_no_file_open(tmp_path: Path) -> None:
    pixels = noise(20, 200, 3)
    strips = engine()._strips(pixels, streamed(pixels, 2, tmp_path), None)
    next(strips)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert isinstance(strips, Iterator)
    strips.close()  # type: ignore[attr-defined]
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1


BY_COST: list[Model] = sorted(MODELS.values(), key=lambda model: flop(model, 64, 64))


@pytest.mark.first(1)
@pytest.mark.parametrize("model", BY_COST, ids=[model.api_name for model in BY_COST])
@settings(max_examples=examples(5))
@given(height=st.integers(16, 64), width=st.integers(16, 64))
def test_icons_equal_the_plain_network(model: Model, height: int, width: int) -> None:
    pixels = noise(height, width, 3)
    net = lively(model)
    made = Engine(model, net, torch.device("cpu"), Precision.FP32)
    assert largest_difference(made.upscale(pixels), networks.plain(model, net, pixels)) <= 1


@cache
def lively(model: Model) -> Net:
    return networks.lively(model)


PEAK = """
import sys
from pathlib import Path
import numpy as np, torch
from tests.support import networks
from tests.support.checkpoints import small
from upscaler.engine.engine import Engine
from upscaler.settings import Precision

torch.set_num_threads(2)
width, height, channels, memory, *size = map(int, sys.argv[1:])
model = small()
engine = Engine(model, networks.lively(model), torch.device("cpu"), Precision.FP32)
pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
engine.upscale(pixels[:8, :8, :3])
list(engine.strips(pixels[:8, :8], size=(13, 13)))

def status(word):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(word))

Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
rows = 0
for strip in engine.strips(pixels, size=tuple(size) or None, memory=memory, spool=Path()):
    rows += len(strip)
choices = engine._plans(width, height, channels, spool=Path())
plan = next(plan for plan in choices if plan.bytes <= memory)
print(status("VmHWM") - before, plan.bytes, len(plan.tiles), rows)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak since a moment")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "channels", "memory", "bands", "size"),
    [
        ((6000, 300), 4, 2**30, 1, ()),
        ((6000, 300), 4, 9 * 2**25, 1, (9000, 450)),
        ((6000, 300), 3, 9 * 10**7, 2, ()),
        ((6000, 300), 4, 9 * 10**7, 2, ()),
        ((300, 8_000), 3, 2**26, 1, (600, 16_000)),
    ],
)
def test_a_large_image_takes_the_memory_of_its_plan(
    image: tuple[int, int], channels: int, memory: int, bands: int, size: tuple[int, ...]
) -> None:
    """And not that of its result: 86 or 115 MB, with or without a size of its own."""
    numbers = (*image, channels, memory, *size)
    peak, said, found, rows = numbers_of(PEAK, *numbers, forks=ENGINE, timeout_s=300)
    assert found >= bands
    assert rows == (size[1] if size else image[1] * 4)
    assert peak <= 1.15 * said + 16 * 2**20, (peak, said)
