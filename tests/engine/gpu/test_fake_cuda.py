"""The whole engine on a CUDA device that computes nothing: see tests/support/fake_cuda.py."""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.fake_cuda import CUDA, Card, fake_cuda, without_modes
from tests.support.fake_streams import Stream
from upscaler.bench import worker
from upscaler.engine import bands, tensors
from upscaler.engine.engine import Engine
from upscaler.engine.networks import build
from upscaler.errors import DeviceUnavailable, OutOfMemory
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, RRDB, Compact, UpscalingModel
from upscaler.planning import MIB
from upscaler.settings import Kernels, Precision

Plant = Callable[[pytest.MonkeyPatch], None]

whole_maps: Final[Any] = pytest.importorskip(
    "upscaler.engine.gpu.whole_maps", reason="Triton is made for Linux alone", exc_type=ImportError
)

QUICK: Final = UpscalingModel.ANIMEVIDEO_V3
WAYS: Final = [Kernels.TRITON, pytest.param(Kernels.CUDNN, marks=pytest.mark.slow)]
DEEP: Final = [UpscalingModel.X4_PLUS, UpscalingModel.X2_PLUS]
KINDS: Final = [
    # X4_V3_WDN has the network of X4_V3.
    (QUICK, Kernels.TRITON),
    *(
        pytest.param(*kind, marks=pytest.mark.slow)
        for kind in (
            *((name, Kernels.TRITON) for name in UpscalingModel if "v3" not in name),
            (UpscalingModel.X4_V3, Kernels.TRITON),
            # Without their depth the others are as these are.
            *((name, Kernels.CUDNN) for name in (QUICK, *DEEP)),
        )
    ),
]


def engine_of(
    name: UpscalingModel, kernels: Kernels = Kernels.TRITON, *, shallow: bool = False
) -> Engine:
    model = MODELS[name]
    if shallow:
        # Thousands of small steps: a block or two layers are as good as 23 or 32.
        network = model.network
        small = RRDB(network.scale, 1) if isinstance(network, RRDB) else Compact(network.scale, 2)
        model = replace(model, network=small)
    with without_modes():  # a module of fake tensors cannot be moved
        net = build(model.network).requires_grad_(False)
    return Engine(model, net, CUDA, Precision.FP16, kernels)


def picture(width: int, height: int, channels: int = 3) -> Pixels:
    shape = height, width, channels
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def grey(width: int, height: int) -> Pixels:
    return picture(width, height)[:, :, :1].repeat(3, 2)


def upscaled(card: Card, engine: Engine, pixels: Pixels, **wanted: Any) -> tuple[int, ...]:
    """The shape of the result, whose memory and streams were in order."""
    card.reset()
    strips = list(engine.strips(pixels, **wanted))
    assert all(strip.dtype == np.uint8 for strip in strips)
    assert card.problems == []
    return sum(map(len, strips)), *strips[0].shape[1:]


@pytest.mark.parametrize(("name", "kernels"), KINDS)
def test_every_picture_comes_through(
    name: UpscalingModel, kernels: Kernels, tmp_path: Path
) -> None:
    with fake_cuda() as card:
        engine = engine_of(name, kernels, shallow=name in DEEP or kernels is Kernels.CUDNN)
        scale = engine.model.scale
        sizes = (64, 64, 3), (1, 1, 3), (47, 33, 3), (33, 47, 4)
        for pixels in (*(picture(*size) for size in sizes), grey(20, 30)):
            height, width, channels = pixels.shape
            shape = upscaled(card, engine, pixels)
            assert shape == (height * scale, width * scale, channels)
            # All that the host waits for: the picture's way to the card, and at each end a number.
            passes = channels - 2
            assert card.waits == {"a copy from the host": 1, "a value": passes}
            assert card.peak - card.live <= engine.plan(width, height, channels=channels).bytes
            # fp16, but for the first convolution, which reads the picture.
            assert {dtype for inputs, dtype in card.convolutions if inputs > 12} <= {torch.float16}
        assert upscaled(card, engine, picture(47, 33, 4), size=(90, 51)) == (51, 90, 4)
        wide = picture(200, 12, 4)
        least = min(plan.bytes for plan in engine._plans(200, 12, 4))
        assert upscaled(card, engine, wide, memory=least) == (12 * scale, 200 * scale, 4)
        spooled = upscaled(card, engine, wide, memory=least, spool=tmp_path)
        assert spooled == (12 * scale, 200 * scale, 4)


MOST: Final = {
    # What was to be reached; it takes 385 and 37.5.
    UpscalingModel.X4_PLUS: (400, 45),
    # What they take, and 5% more.
    UpscalingModel.X2_PLUS: (392, 10.1),
    UpscalingModel.X4_PLUS_ANIME: (136, 13.4),
    UpscalingModel.X4_V3: (63, 2.94),
    UpscalingModel.X4_V3_WDN: (63, 2.94),
    UpscalingModel.ANIMEVIDEO_V3: (46, 1.80),
}
"""The kernels of each model for a picture of 512x512, torch's operators among them, and the GB that
they move."""


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in (QUICK, UpscalingModel.X4_PLUS)
        else pytest.param(name, marks=pytest.mark.slow)
        for name in MOST
    ],
)
def test_a_picture_takes_so_many_kernels_and_bytes(
    name: UpscalingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the kernels had been tried, without what they are compared with.
    monkeypatch.setattr(
        "upscaler.engine.engine.checked", lambda _, net, *__: whole_maps.whole_maps(net, 90)
    )
    monkeypatch.setattr("upscaler.engine.engine.streamed", lambda net, _: net)
    with fake_cuda() as card:
        engine = engine_of(name)
        upscaled(card, engine, picture(512, 512))
        kernels, gigabytes = MOST[name]
        assert kernels * 0.9 < card.kernels.total() <= kernels
        assert gigabytes * 0.8 < card.moved.total() / 1e9 <= gigabytes


PLANTED: Final[dict[str, Plant]] = {}
"""Mistakes, by what is said of them. Each is made in one place of the engine."""


def planted(said: str) -> Callable[[Plant], Plant]:
    def keep(plant: Plant) -> Plant:
        PLANTED[said] = plant
        return plant

    return keep


@planted("a buffer is used again before the copy to it has ended")
def _one_buffer_for_all_strips(patch: pytest.MonkeyPatch) -> None:
    buffers: dict[object, Tensor] = {}
    to = Tensor.to

    def into_the_buffer(tensor: Tensor, *given: Any, **options: Any) -> Tensor:
        if not options.get("non_blocking"):
            return to(tensor, *given, **options)
        if tensor.shape not in buffers:
            buffers[tensor.shape] = to(tensor, *given, **options)
            return buffers[tensor.shape]
        return buffers[tensor.shape].copy_(tensor, non_blocking=True)

    patch.setattr(Tensor, "to", into_the_buffer)


@planted("memory is freed that a stream may be using")
def _freed_while_it_is_copied(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tensor, "record_stream", lambda *_: None)


@planted("numpy on the host reads what a stream may be using")
def _read_before_it_has_arrived(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tensors, "_arrived", lambda copy, _copied: copy.numpy())


@planted("copy to the host on a stream reads what the default stream may be using")
def _copied_before_it_is_computed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Stream, "wait_stream", lambda *_: None)


@planted("waits 2 times for a copy from the host")
def _each_step_comes_from_the_host(patch: pytest.MonkeyPatch) -> None:
    convert = tensors.to_network
    patch.setattr(
        bands, "to_network", lambda rows: convert(torch.zeros(rows.shape).to(rows.device))
    )


@planted("gets bias on cpu")
def _weights_on_the_host(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(whole_maps, "_bias", lambda conv: torch.zeros(len(conv.bias), device="cpu"))


@planted("gets source in torch.float32")
def _maps_in_single_precision(patch: pytest.MonkeyPatch) -> None:
    zeros = whole_maps.zeros
    patch.setattr(whole_maps, "zeros", lambda *given: zeros(*given).float())


@planted("a copy is on the stream that computes")
def _copied_where_it_is_computed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())


@planted("reads beyond the end of its map")
def _no_row_to_spare(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(whole_maps, "SPARE_ROWS", 0)
    patch.setattr(whole_maps, "MOST_COLUMNS", 0)


@pytest.mark.parametrize("said", PLANTED)
def test_each_mistake_is_found(said: str) -> None:
    with fake_cuda() as card, pytest.MonkeyPatch.context() as patch:
        PLANTED[said](patch)
        with suppress(DeviceUnavailable):  # where it shows while the kernels are tried
            engine = engine_of(QUICK)
            card.reset()
            assert len(list(engine.strips(picture(500, 1023)))) == 4
        waits = [f"waits {count} times for {what}" for what, count in card.waits.items()]
        found = card.problems + waits
        assert any(said in problem for problem in found), found


def test_memory_that_runs_out_leads_to_a_smaller_plan() -> None:
    with fake_cuda(64 * MIB) as card:
        engine = engine_of(QUICK)
        loaded = card.live
        assert upscaled(card, engine, picture(700, 512), memory=2**40) == (2048, 2800, 3)
        assert card.refused
        assert card.live == loaded, "a failed try is freed"


@pytest.mark.parametrize("kernels", WAYS)
def test_each_kernel_may_find_no_memory(kernels: Kernels) -> None:
    with fake_cuda() as card:
        engine = engine_of(QUICK, kernels)
        card.failure = "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"
        loaded = card.live
        pixels = picture(150, 8)
        upscaled(card, engine, pixels, memory=2**40)
        count = card.kernels.total()
        for number in (0, count // 2, count - 2):  # the last one is a copy to the host
            card.fails = number.__eq__
            assert upscaled(card, engine, pixels, memory=2**40) == (32, 600, 3)
            assert card.kernels.total() > number + 1, "it was tried again"
            assert card.live == loaded
        for fails in ((count - 1).__eq__, lambda _: True):
            card.fails = fails
            with pytest.raises(OutOfMemory):
                upscaled(card, engine, pixels, memory=2**40)


class Runner:
    """A contender of a benchmark."""

    plan: str | None = None
    overhead: float | None = None

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def prepare(self, width: int, height: int) -> None: ...

    def run(self, pixels: Pixels) -> Pixels:
        return self.engine.upscale(pixels)


def test_a_benchmark_counts_what_the_card_does() -> None:
    with fake_cuda() as card:
        runner = Runner(engine_of(QUICK))
        card.reset()
        assert worker._traffic(runner, picture(64, 64)) == {
            "kernels": card.kernels.total(),
            "moved_bytes": card.moved.total(),
        }
        assert card.kernels["convolve"] == 17, "16 and the last one"
