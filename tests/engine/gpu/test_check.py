"""When the kernels are tried, and that they are used only if their result is right."""

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from upscaler.engine.convolution import Direct
from upscaler.engine.devices import methods
from upscaler.engine.gpu import check
from upscaler.engine.gpu.check import checked, kernels_wanted
from upscaler.engine.layers import Resolution
from upscaler.engine.networks import build
from upscaler.engine.streams import Stream, Streamed, streamed
from upscaler.errors import DeviceUnavailable
from upscaler.models import MODELS, UpscalingModel
from upscaler.settings import Kernels, Precision

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
MODEL = MODELS[UpscalingModel.ANIMEVIDEO_V3]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU that has tensor cores, and with Triton."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 9))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())


@pytest.mark.usefixtures("card")
def test_the_kernels_are_tried_on_such_a_card_in_fp16_alone() -> None:
    assert kernels_wanted(Kernels.AUTO, CUDA, Precision.FP16)
    assert kernels_wanted(Kernels.TRITON, CUDA, Precision.FP16)
    assert not kernels_wanted(Kernels.CUDNN, CUDA, Precision.FP16)
    assert not kernels_wanted(Kernels.AUTO, CUDA, Precision.FP32)
    assert not kernels_wanted(Kernels.AUTO, CPU, Precision.FP32)
    assert not kernels_wanted(Kernels.AUTO, torch.device("mps"), Precision.FP16)


@pytest.mark.usefixtures("card")
def test_what_the_kernels_lack_is_said_where_they_are_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(DeviceUnavailable, match="UPSCALER_KERNELS=triton needs a CUDA device"):
        kernels_wanted(Kernels.TRITON, CPU, Precision.FP16)
    with pytest.raises(DeviceUnavailable, match="needs fp16"):
        kernels_wanted(Kernels.TRITON, CUDA, Precision.FP32)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(DeviceUnavailable, match="needs the package triton"):
        kernels_wanted(Kernels.TRITON, CUDA, Precision.FP16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (7, 5))
    with pytest.raises(DeviceUnavailable, match=r"8\.0"):
        kernels_wanted(Kernels.TRITON, CUDA, Precision.FP16)
    assert not kernels_wanted(Kernels.AUTO, CUDA, Precision.FP16), "a T4"


class Changed:
    """A network whose result is changed, as by kernels that are wrong."""

    def __init__(self, network: Streamed, change: Callable[[Tensor], Tensor]) -> None:
        self.network = network
        self.change = change

    def open(self, level: Resolution, tail_rows: int) -> Stream:
        stream = self.network.open(level, tail_rows)
        push, change = stream.push, self.change

        class ChangedStream:
            share = 0.0

            def push(self, image: Tensor | None) -> Tensor | None:
                result = push(image)
                return None if result is None else change(result)

        return ChangedStream()


def _overflow(result: Tensor) -> Tensor:
    return result * float("nan")


def _fail(result: Tensor) -> Tensor:
    raise RuntimeError("no C compiler was found")


def _wrong_at_the_border(result: Tensor) -> Tensor:
    changed = result.clone()
    changed[:, 0] += 0.1
    return changed


@pytest.mark.parametrize(
    ("change", "used", "said"),
    [
        (lambda result: result + 1 / 512, True, ""),
        (lambda result: result.roll(1, 1), False, "is wrong by"),
        (_wrong_at_the_border, False, "is wrong by"),
        (_overflow, False, "the kernels failed"),
        (_fail, False, "no C compiler was found"),
    ],
    ids=["rounded", "shifted", "border", "overflow", "error"],
)
def test_kernels_are_used_if_their_result_is_cudnns(
    change: Callable[[Tensor], Tensor],
    used: bool,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(0)
    net = build(MODEL.network).requires_grad_(False)
    streams = streamed(net, methods(Precision.FP32, CPU))
    ours = Changed(streams, change)
    monkeypatch.setattr(check, "_prepared", lambda _net, _device: ours)
    with caplog.at_level(logging.WARNING):
        assert checked(MODEL, net, streams, CPU) is (ours if used else None)
    assert said in caplog.text
    assert bool(caplog.text) is not used


def test_fp32_on_a_gpu_is_not_rounded_to_tf32() -> None:
    asked = []

    class Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(  # type: ignore[no-untyped-def]
            self, func: Callable[..., Tensor], _types, args=(), kwargs=None
        ) -> Tensor:
            if func is torch.ops.aten._convolution.default:
                asked.append(args[-1])
            return func(*args, **(kwargs or {}))

    device = torch.device("meta")
    method = Direct(torch.float32, torch.float32, device)
    with device:
        kernel = method.prepare(torch.nn.Conv2d(3, 64, 3, padding=1))
    with torch.inference_mode(), Recording():  # type: ignore[no-untyped-call]
        result = method.convolve(torch.empty(1, 6, 5, 3, device=device), kernel, 5)
    assert result.shape == (1, 4, 5, 64)
    assert asked == [False], "allow_tf32"


def test_on_a_gpu_the_image_is_not_rounded_to_half_precision() -> None:
    first, body, tail = methods(Precision.FP16, torch.device("meta"))
    assert isinstance(first, Direct)
    assert (first.products, first.sums) == (torch.float32, torch.float32)
    assert body.products == tail.products == torch.float16
