"""The contenders of a benchmark behind one small interface: pixels in, pixels out.

Each is set up as its own documentation says is best for one image at a time, with as many threads
as torch has, and each gets its weights from `weights.load`. What it does from uint8 pixels to uint8
pixels counts, conversions and all.
"""

import io
import warnings
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upscaler.bench import machine, reference
from upscaler.bench.contenders import CUSTOMARY_PAD_PX, MAPS_AT_ONCE, Contender, Peer, largest_map
from upscaler.engine import weights
from upscaler.engine.engine import Engine
from upscaler.imaging.pixels import Pixels
from upscaler.models import Model
from upscaler.planning import Plan
from upscaler.settings import Settings

MOST_VALUES = 2**31
"""Of one tensor, for libraries that count with 32 bits."""
EXAMPLE_PX = 64
"""The sides of what a network is traced with; what comes of it takes any size."""
OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
"""The values of OpenVINO's INFERENCE_PRECISION_HINT."""


class Runner(Protocol):
    """A contender that is loaded.

    `plan` says in a line how it divides the last image it was prepared for, and `overhead` which
    share of its pixels it computes more than once; None where nobody knows.
    """

    plan: str | None
    overhead: float | None

    def prepare(self, width: int, height: int) -> None:
        """Do once whatever an image of that size needs done once."""

    def run(self, pixels: Pixels) -> Pixels:
        """Upscale uint8 RGB of shape (height, width, 3) by the network's own scale."""


def load(contender: Contender, model: Model, device: torch.device, memory: int | None) -> Runner:
    """The contender with the weights of `model`; `memory` is this engine's budget in bytes.

    Raises WeightsUnavailable, DeviceUnavailable, and ImportError for what is not installed.
    """
    if contender.peer is None:
        return ThisEngine(contender, model, device, memory)
    net = weights.load(model, Settings.from_environment().weights).net
    if contender.peer is Peer.REALESRGAN:
        return RealESRGANer(contender, model, net, device)
    if contender.peer is Peer.OPENVINO:
        return OpenVINO(contender, model, net)
    return OnnxRuntime(model, net)


class ThisEngine:
    """`upscaler.engine.engine`, by the plan that it makes for itself."""

    def __init__(
        self, contender: Contender, model: Model, device: torch.device, memory: int | None
    ) -> None:
        self.engine = Engine.load(model.name, device.type, contender.precision)
        self.memory = memory
        self.plan: str | None = None
        self.overhead: float | None = None
        self._plan: Plan | None = None

    def prepare(self, width: int, height: int) -> None:
        """Plan now, before other contenders take memory: a plan depends on what is free."""
        plan = self.engine.plan(width, height, memory=self.memory)
        self._plan, self.plan, self.overhead = plan, str(plan), plan.overhead

    def run(self, pixels: Pixels) -> Pixels:
        assert self._plan, "prepared first"
        return self.engine.upscale_by_plan(pixels, self._plan)


class RealESRGANer:
    """`realesrgan.RealESRGANer`, in half precision on CUDA, with tiles as customary or without."""

    def __init__(
        self, contender: Contender, model: Model, net: nn.Module, device: torch.device
    ) -> None:
        self.tile = contender.tile
        self.plan: str | None = None
        self.overhead: float | None = 0.0
        half = contender.precision == "fp16"
        self.upsampler = reference.upsampler(
            model, net, device, tile=self.tile, tile_pad=CUSTOMARY_PAD_PX, half=half
        )

    def prepare(self, width: int, height: int) -> None:
        if self.tile:
            pixels = self._shown(width) * self._shown(height)
            self.overhead = pixels / (width * height) - 1

    def _shown(self, length: int) -> int:
        """The sides of all tiles and their padding along an image's side, in pixels."""
        edges = -(-length // self.tile) - 1
        last = length - edges * self.tile
        # The tile before the last may find less to its right than its padding.
        return length + edges * 2 * CUSTOMARY_PAD_PX - max(CUSTOMARY_PAD_PX - last, 0)

    def run(self, pixels: Pixels) -> Pixels:
        return reference.enhance(self.upsampler, pixels)


class Converted:
    """What OpenVINO and onnxruntime have in common: fp32 arrays of a whole image in and out."""

    plan: str | None = None
    overhead: float | None = 0.0
    infer: Callable[[NDArray[np.float32]], NDArray[np.float32]]

    def __init__(self, model: Model) -> None:
        self.model = model

    def prepare(self, width: int, height: int) -> None:
        """Nothing: the network takes any size."""

    def run(self, pixels: Pixels) -> Pixels:
        height, width, _ = pixels.shape
        x = to_tensor(_padded(pixels, self.model.multiple))
        levels = to_pixels(torch.from_numpy(self.infer(x.numpy())))
        return levels[: height * self.model.scale, : width * self.model.scale]


class OpenVINO(Converted):
    """OpenVINO on the CPU with the hint for latency, compiled for the image's very size."""

    def __init__(self, contender: Contender, model: Model, net: nn.Module) -> None:
        import openvino

        super().__init__(model)
        self.core = openvino.Core()
        self.options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": OPENVINO_PRECISIONS[contender.precision],
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.jit, which OpenVINO traces with
            self.network = openvino.convert_model(
                net, example_input=_example(), input=[1, 3, -1, -1]
            )

    def prepare(self, width: int, height: int) -> None:
        multiple = self.model.multiple
        shape = [1, 3, height + -height % multiple, width + -width % multiple]
        self.network.reshape(shape)
        request = self.core.compile_model(self.network, "CPU", self.options).create_infer_request()
        # The result is read where it lies, which is the documented way without a copy.
        self.infer = lambda x: request.infer([x], share_inputs=True, share_outputs=True)[0]


class OnnxRuntime(Converted):
    """onnxruntime's CPU provider with all its optimizations of the graph, in fp32."""

    def __init__(self, model: Model, net: nn.Module) -> None:
        import onnxruntime

        super().__init__(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            _onnx(net), options, providers=["CPUExecutionProvider"]
        )
        self.infer = lambda x: session.run(None, {"x": x})[0]


class Truth:
    """The plain network over the whole image in fp32: what all others are held against."""

    def __init__(self, model: Model, device: torch.device) -> None:
        torch.backends.cudnn.allow_tf32 = False  # or what is called fp32 has ten bits of fraction
        self.model = model
        self.device = device
        self.net = weights.load(model, Settings.from_environment().weights).net.to(device)

    def run(self, pixels: Pixels) -> Pixels:
        """The image. Raises MemoryError at once where the device has not what it takes."""
        height, width, _ = pixels.shape
        x = to_tensor(_padded(pixels, self.model.multiple))
        self._check_memory(largest_map(self.model, x.shape[3], x.shape[2]))
        with torch.inference_mode():
            levels = to_pixels(self.net(x.to(self.device)))
        return levels[: height * self.model.scale, : width * self.model.scale]

    def _check_memory(self, values: int) -> None:
        """`values` are those of the network's largest map."""
        need = MAPS_AT_ONCE * 4 * values
        cuda = self.device.type == "cuda"
        free = torch.cuda.mem_get_info()[0] if cuda else machine.available_bytes()
        if free is not None and need > free:
            raise MemoryError(
                f"it takes about {need / 1e9:.0f} GB, and {self.device} has {free / 1e9:.0f} GB"
            )
        if cuda and values > MOST_VALUES:
            raise MemoryError("on CUDA, maps of more than 2^31 values cannot be relied on")


def to_tensor(pixels: Pixels) -> Tensor:
    """Pixels as the networks take them: contiguous float of shape (1, 3, height, width) in 0..1."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    return x.float().div_(255).contiguous()


def to_pixels(output: Tensor) -> Pixels:
    """A network's output, float of shape (1, 3, height, width), as uint8 (height, width, 3)."""
    levels = output[0].permute(1, 2, 0).mul(255).round_().clamp_(0, 255).to(torch.uint8)
    pixels: Pixels = levels.cpu().contiguous().numpy()
    return pixels


def _padded(pixels: Pixels, multiple: int) -> Pixels:
    """With sides that divide by `multiple`, the last pixels mirrored, as the reference does it."""
    height, width, _ = pixels.shape
    return np.pad(pixels, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="reflect")


def _example() -> Tensor:
    return torch.zeros(1, 3, EXAMPLE_PX, EXAMPLE_PX)


def _onnx(net: nn.Module) -> bytes:
    """The network as an ONNX file.

    By torch's older exporter: the newer one needs a package more, and both give the same graph of
    convolutions.
    """
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            net,
            (_example(),),
            file,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {2: "height", 3: "width"}},
        )
    return file.getvalue()
