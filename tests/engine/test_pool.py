"""The models of a service: each loaded once, when it is needed, by the settings."""

import platform
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from upscaler.api.sizes import Size
from upscaler.engine import pool as module
from upscaler.engine import weights
from upscaler.engine.cpu.check import kernels_work
from upscaler.engine.networks import Net
from upscaler.engine.pool import EnginePool
from upscaler.errors import Cancelled, DeviceUnavailable, WeightsUnavailable
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, Model, UpscalingModel
from upscaler.planning import Plan, cheapest
from upscaler.settings import Device, Precision, Settings

FAST = UpscalingModel.ANIMEVIDEO_V3


def enlarged(engines: EnginePool, size: Size) -> Pixels:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    return np.concatenate(list(engines.upscale(pixels, FAST, size)))


def test_unsupported_settings_fail_at_once() -> None:
    with pytest.raises(DeviceUnavailable, match="bf16"):
        EnginePool(Settings(device=Device.CPU, precision=Precision.FP16))
    if not torch.cuda.is_available():
        with pytest.raises(DeviceUnavailable, match="cuda"):
            EnginePool(Settings(device=Device.CUDA))


def test_engines_follow_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[int | None] = []

    def noting(choices: list[Plan], memory: int | None, free: int) -> Plan:
        budgets.append(memory)
        return cheapest(choices, memory, free)

    monkeypatch.setattr("upscaler.engine.engine.cheapest", noting)
    settings = Settings(device=Device.CPU, precision=Precision.FP32, memory=2**30)
    engines = EnginePool(settings)
    enlarged(engines, (64, 64))
    enlarged(EnginePool(Settings(device=Device.CPU)), (64, 64))
    assert engines._ready(FAST)[0].precision is Precision.FP32
    assert budgets == [2**30, None]


HELD = """
from collections import deque
from pathlib import Path
import numpy as np
from upscaler.engine.pool import EnginePool
from upscaler.models import UpscalingModel
from upscaler.settings import Device, Precision, Settings

def held(line):
    return int(Path("/proc/self/status").read_text().partition(line)[2].split()[0]) // 1024

def upscale(width):
    pixels = np.random.default_rng(0).integers(0, 256, (256, width, 3), dtype=np.uint8)
    deque(engines.upscale(pixels, UpscalingModel.ANIMEVIDEO_V3, (width * 4, 1024)), maxlen=0)

engines = EnginePool(Settings(device=Device.CPU, precision=Precision.FP32))
upscale(8)
before = held("VmRSS:")
for _ in range(3):
    upscale(512)
print(before, held("VmHWM:"), held("VmRSS:"))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another keeps memory differently")
def test_the_memory_of_an_image_is_released() -> None:
    command = [sys.executable, "-c", HELD]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    before, most, after = map(int, done.stdout.split())
    assert most - before > 80, "MiB while it was enlarged"
    assert after - before < 25


def test_engines_are_loaded_once_by_concurrent_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[UpscalingModel] = []
    load = weights.load

    def counting(model: Model, *args: Any) -> weights.Loaded:
        loaded.append(model.name)
        return load(model, *args)

    monkeypatch.setattr(weights, "load", counting)
    engines = EnginePool(Settings(device=Device.CPU))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(engines._ready, [FAST] * 4))
    assert loaded == [FAST]
    assert len(set(found)) == 1
    assert enlarged(engines, (33, 44)).shape == (44, 33, 3)


def test_loading_a_model_does_not_block_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, arrived = threading.Event(), threading.Event()
    load = weights.load

    def slow(model: Model, *args: Any) -> weights.Loaded:
        if model.name is not FAST:
            asked.set()
            assert arrived.wait(30)
            raise WeightsUnavailable("it never came")
        return load(model, *args)

    monkeypatch.setattr(weights, "load", slow)
    engines = EnginePool(Settings(device=Device.CPU))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(engines.load, UpscalingModel.X2_PLUS)
        assert asked.wait(30)
        assert enlarged(engines, (32, 32)).shape == (32, 32, 3)
        arrived.set()
        assert isinstance(waiting.exception(), WeightsUnavailable)


def test_a_failure_to_load_is_repeated_for_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries: list[UpscalingModel] = []

    def failing(model: Model, *args: object) -> Net:
        tries.append(model.name)
        raise WeightsUnavailable("no network")

    monkeypatch.setattr(weights, "load", failing)
    engines = EnginePool(Settings(device=Device.CPU))
    for seconds, tried in [(1000.0, 1), (1001.0, 1), (1059.0, 1), (1061.0, 2), (1062.0, 2)]:
        monkeypatch.setattr("time.monotonic", lambda now=seconds: now)
        with pytest.raises(WeightsUnavailable, match="no network"):
            engines.load(FAST)
        assert tries == [FAST] * tried


def test_a_failure_of_one_model_does_not_affect_others(tmp_path: Path) -> None:
    (tmp_path / f"{UpscalingModel.X4_V3}.pth").write_bytes(b"half of it")
    engines = EnginePool(Settings(device=Device.CPU, weights=tmp_path))
    with pytest.raises(WeightsUnavailable, match="does not hold the weights"):
        engines.load(UpscalingModel.X4_V3)
    assert engines._ready(FAST)[0].model.name is FAST


def test_a_missing_folder_of_weights_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match="not a folder"):
        EnginePool(Settings(weights=tmp_path / "gone"))


def test_load_returns_the_sha256_of_the_weights(tmp_path: Path) -> None:
    engines = EnginePool(Settings(device=Device.CPU))
    found = weights.find(MODELS[FAST])
    assert found is not None
    assert engines.load(FAST) == engines.load(FAST) == weights.sha256(found.path)


@pytest.mark.parametrize("memory", [None, 2**28, 2**27])
@pytest.mark.parametrize("channels", [3, 4])
def test_bands_are_those_of_the_engines_plan(memory: int | None, channels: int) -> None:
    engines = EnginePool(Settings(device=Device.CPU, memory=memory))
    for size in ((304, 256), (2048, 300), (511, 333)):
        plan = engines._ready(FAST)[0].plan(*size, channels=channels, memory=memory)
        assert engines.bands(FAST, size, channels) == len(plan.tiles)


def test_counting_bands_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "load", lambda *_: pytest.fail("it was loaded"))
    engines = EnginePool(Settings(device=Device.CPU, memory=2**29))
    assert engines.bands(UpscalingModel.X4_PLUS, (256, 256), 3) == 1
    assert engines.bands(UpscalingModel.X4_PLUS, (2048, 256), 3) > 1


def test_a_progress_callback_can_abort_the_work() -> None:
    engines = EnginePool(Settings(device=Device.CPU))
    pixels = np.zeros((2048, 32, 3), np.uint8)

    def enough(done: int, total: int) -> None:
        if 0 < done < total:
            raise Cancelled("enough")

    for size in ((128, 8192), (64, 4096)):
        with pytest.raises(Cancelled):
            deque(engines.upscale(pixels, FAST, size, enough), maxlen=0)


def test_kernels_are_compiled_before_the_first_picture() -> None:
    kernels_work.cache_clear()
    EnginePool(Settings(device=Device.CPU, precision=Precision.FP32))
    assert kernels_work.cache_info().currsize == 1


def test_warming_up_tries_each_model_that_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And none that would be downloaded. One that is damaged is said, and stops no other."""
    (tmp_path / f"{UpscalingModel.X4_V3}.pth").write_bytes(b"half of it")
    engines = EnginePool(Settings(device=Device.CPU, weights=tmp_path))
    here, find = {FAST, UpscalingModel.X4_V3}, weights.find
    monkeypatch.setattr(
        weights, "find", lambda spec, *folder: find(spec, *folder) if spec.name in here else None
    )
    monkeypatch.setattr(module, "WARM_UP_PX", 16)
    with caplog.at_level("INFO"):
        engines.warm_up()
    assert engines._loaded.keys() == {FAST}
    warning, line = caplog.records
    assert f"{UpscalingModel.X4_V3} could not be tried: " in warning.getMessage()
    assert (line.getMessage(), vars(line)["models"]) == ("warmed up", 2)
