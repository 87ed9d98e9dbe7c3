"""Apple's GPUs without one: each operator of the engine is one that torch has there."""

import re
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch

from tests.support.fake_cuda import Card, fake_tensors, without_modes
from upscaler.bench import peak
from upscaler.bench.traffic import Operation
from upscaler.engine import bands
from upscaler.engine.devices import pick_device, pick_precision
from upscaler.engine.engine import Engine
from upscaler.engine.networks import build
from upscaler.engine.tensors import to_network
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, RRDB, UpscalingModel
from upscaler.settings import Device, Precision

MPS: Final = torch.device("mps", 0)
QUICK: Final = UpscalingModel.ANIMEVIDEO_V3
ANYWHERE: Final = re.compile(r"MPS|CompositeExplicitAutograd")
"""The dispatch keys of kernels that MPS has, or that are made of others."""
NOT_THERE: Final = {torch.float64, torch.complex128}
"""Metal has no such numbers."""


class AppleGPU(Card):  # type: ignore[no-untyped-call]
    """Notes what torch would refuse there."""

    def ran(self, operation: Operation) -> None:
        there = [
            each.dtype for each in operation.reads + operation.writes if each.device.type == "mps"
        ]
        if not there:
            return
        name: str = operation.func.name()  # type: ignore[no-untyped-call]
        self.count(name, 0)
        if not has_kernel(name.removeprefix("aten::")):
            self.problems.append(f"{name} has no kernel")
        if not NOT_THERE.isdisjoint(there):
            self.problems.append(f"{name} in float64")


@cache
def declared() -> dict[str, str]:
    """torch's declarations of its operators, by their names."""
    text = (files("torchgen") / "packaged/ATen/native/native_functions.yaml").read_text()
    entries = re.split(r"^- func: ", text, flags=re.MULTILINE)[1:]
    return {entry.partition("(")[0]: entry for entry in entries}


def has_kernel(name: str) -> bool:
    """Whether torch declares a kernel of that operator for MPS."""
    entry = declared()[name]
    delegate = re.search(r"structured_delegate: (\S+)", entry)
    if delegate:
        return has_kernel(delegate[1])
    kernels = re.findall(r"^    ([\w, ]+): \w+", entry.partition("  dispatch:\n")[2], re.MULTILINE)
    return any(ANYWHERE.fullmatch(key) for line in kernels for key in line.split(", "))


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        (QUICK, Precision.FP32),
        pytest.param(QUICK, Precision.FP16, marks=pytest.mark.slow),
        pytest.param(UpscalingModel.X2_PLUS, Precision.FP32, marks=pytest.mark.slow),
        pytest.param(UpscalingModel.X2_PLUS, Precision.BF16, marks=pytest.mark.slow),
    ],
)
def test_every_operator_is_there(
    name: UpscalingModel, precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device(Device.MPS).type == "mps"
    assert pick_precision(precision, MPS) is precision
    with fake_tensors("mps", card := AppleGPU()):
        engine = engine_of(name, precision)
        engine.upscale(picture(23, 17, 4), size=(50, 31))
        engine.upscale(picture(8, 6)[:, :, :1].repeat(3, 2))
        wide = picture(130, 4)
        least = min(plan.bytes for plan in engine._plans(130, 4, 3))
        assert engine.upscale(wide, memory=least).shape == (
            4 * engine.model.scale,
            130 * engine.model.scale,
            3,
        )
        list(engine.strips(wide, memory=least, spool=tmp_path))
    assert card.kernels.total() > 100
    assert card.problems == []


def engine_of(name: UpscalingModel, precision: Precision) -> Engine:
    model = MODELS[name]
    if isinstance(model.network, RRDB):  # a block is as good as 23
        model = replace(model, network=replace(model.network, num_block=1))
    with without_modes():  # a module of fake tensors cannot be moved
        net = build(model.network).requires_grad_(False)
    return Engine(model, net, MPS, precision)


def picture(width: int, height: int, channels: int = 3) -> Pixels:
    shape = height, width, channels
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_a_benchmark_waits_for_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[None] = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append(None))
    with fake_tensors("mps", AppleGPU()):
        peak._time_once(lambda: torch.ones(2, device=MPS), MPS)
    assert len(waited) == 1


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lambda rows: rows.double().float(), "in float64"),
        (lambda rows: rows.heaviside(rows), "no kernel"),
    ],
)
def test_what_is_not_there_is_found(
    mistake: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = to_network
    monkeypatch.setattr(bands, "to_network", lambda rows: mistake(convert(rows)))
    with fake_tensors("mps", card := AppleGPU()):
        engine_of(QUICK, Precision.FP32).upscale(picture(8, 6))
    assert any(said in problem for problem in card.problems)
