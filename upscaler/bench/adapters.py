"""The contenders of a benchmark behind one interface: uint8 pixels in, uint8 pixels out.

Each is configured as its own documentation recommends for one image at a time, with as many threads
as torch has. All load the same weights with `weights.load`. The conversions between uint8 and the
network's floats are part of the measured time.
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
"""The largest tensor that libraries with signed 32-bit indices can address."""
EXAMPLE_PX = 64
"""The sides of the image that a network is traced with; the traced network accepts any size."""
OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
"""The values of OpenVINO's INFERENCE_PRECISION_HINT."""


class Runner(Protocol):
    """A loaded contender.

    `plan` describes in one line how it tiles the image that it was last prepared for. `overhead` is
    the share of input pixels that it computes more than once. Both are None if unknown.
    """

    plan: str | None
    overhead: float | None

    def prepare(self, width: int, height: int) -> None:
        """Do the work that is needed once per image size, in input pixels; it is not timed."""

    def run(self, pixels: Pixels) -> Pixels:
        """Upscale uint8 RGB of shape (height, width, 3) by the network's own scale."""


def load(contender: Contender, model: Model, device: torch.device, memory: int | None) -> Runner:
    """The contender with the weights of `model`; `memory` is this engine's budget in bytes.

    Raises WeightsUnavailable, DeviceUnavailable, or ImportError if a package is not installed.
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
    """The project's own engine, which plans its own tiles."""

    def __init__(
        self, contender: Contender, model: Model, device: torch.device, memory: int | None
    ) -> None:
        self.engine = Engine.load(model.name, device.type, contender.precision)
        self.memory = memory
        self.plan: str | None = None
        self.overhead: float | None = None
        self._plan: Plan | None = None

    def prepare(self, width: int, height: int) -> None:
        """Plan before other contenders allocate memory: a plan depends on how much is free."""
        plan = self.engine.plan(width, height, memory=self.memory)
        self._plan, self.plan, self.overhead = plan, str(plan), plan.overhead

    def run(self, pixels: Pixels) -> Pixels:
        assert self._plan, "call prepare() first"
        return self.engine.upscale_by_plan(pixels, self._plan)


class RealESRGANer:
    """`realesrgan.RealESRGANer`, in half precision on CUDA, with customary tiles or untiled."""

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
            pixels = self._tiled_length(width) * self._tiled_length(height)
            self.overhead = pixels / (width * height) - 1

    def _tiled_length(self, length: int) -> int:
        """The sum of all tiles' sides, padding included, along a side of `length` pixels."""
        edges = -(-length // self.tile) - 1
        last = length - edges * self.tile
        # Padding ends at the image's edge, so a narrow last tile shortens its neighbour's.
        return length + edges * 2 * CUSTOMARY_PAD_PX - max(CUSTOMARY_PAD_PX - last, 0)

    def run(self, pixels: Pixels) -> Pixels:
        return reference.enhance(self.upsampler, pixels)


class Converted:
    """The common part of OpenVINO and onnxruntime: whole images as fp32 arrays."""

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
        upscaled = to_pixels(torch.from_numpy(self.infer(x.numpy())))
        return upscaled[: height * self.model.scale, : width * self.model.scale]


class OpenVINO(Converted):
    """OpenVINO on the CPU with its latency hint, compiled for exactly the image's size."""

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
            # OpenVINO traces with torch.jit, which warns.
            warnings.simplefilter("ignore")
            self.network = openvino.convert_model(
                net, example_input=_example(), input=[1, 3, -1, -1]
            )

    def prepare(self, width: int, height: int) -> None:
        multiple = self.model.multiple
        shape = [1, 3, height + -height % multiple, width + -width % multiple]
        self.network.reshape(shape)
        request = self.core.compile_model(self.network, "CPU", self.options).create_infer_request()
        # Sharing inputs and outputs is OpenVINO's documented way to avoid copies.
        self.infer = lambda x: request.infer([x], share_inputs=True, share_outputs=True)[0]


class OnnxRuntime(Converted):
    """onnxruntime's CPU provider in fp32, with all graph optimizations, its default level."""

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
    """The plain network on the whole image in fp32: all contenders are compared with its output."""

    def __init__(self, model: Model, device: torch.device) -> None:
        # TF32 multiplies with 10 bits of fraction instead of 23, and cuDNN uses it by default.
        torch.backends.cudnn.allow_tf32 = False
        self.model = model
        self.device = device
        self.net = weights.load(model, Settings.from_environment().weights).net.to(device)

    def run(self, pixels: Pixels) -> Pixels:
        """Upscale; raises MemoryError before it starts if the device has too little memory."""
        height, width, _ = pixels.shape
        x = to_tensor(_padded(pixels, self.model.multiple))
        self._check_memory(largest_map(self.model, x.shape[3], x.shape[2]))
        with torch.inference_mode():
            upscaled = to_pixels(self.net(x.to(self.device)))
        return upscaled[: height * self.model.scale, : width * self.model.scale]

    def _check_memory(self, values: int) -> None:
        """Raise MemoryError if there is too little; `values` is the size of the largest map."""
        # Checked in advance: where main memory runs out, the system kills without an exception.
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
    """The networks' input: contiguous float32 of shape (1, 3, height, width) in 0..1."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    return x.float().div_(255).contiguous()


def to_pixels(output: Tensor) -> Pixels:
    """A network's output, float of shape (1, 3, height, width), as uint8 (height, width, 3)."""
    rounded = output[0].permute(1, 2, 0).mul(255).round_().clamp_(0, 255).to(torch.uint8)
    pixels: Pixels = rounded.cpu().contiguous().numpy()
    return pixels


def _padded(pixels: Pixels, multiple: int) -> Pixels:
    """Pad the sides to multiples of `multiple` by reflection, as RealESRGANer does."""
    height, width, _ = pixels.shape
    return np.pad(pixels, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="reflect")


def _example() -> Tensor:
    return torch.zeros(1, 3, EXAMPLE_PX, EXAMPLE_PX)


def _onnx(net: nn.Module) -> bytes:
    """The network as an ONNX file.

    By torch's older exporter: the newer one needs another package, and both produce the same graph
    of convolutions.
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
