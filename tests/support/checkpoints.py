"""Small models and checkpoints for tests of weights."""

import functools
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from upscaler.engine.networks import Net, build
from upscaler.engine.weights import cache_folder
from upscaler.models import MODELS, RRDB, Checkpoint, Compact, Model, UpscalingModel

Tensors = Mapping[str, Tensor]
Answer = Callable[[BaseHTTPRequestHandler], None]
"""What a server in a test does with a request."""
NAME = UpscalingModel.X4_V3
STEM = "realesr-general-x4v3"
SMALL = Compact(scale=4, num_conv=1)
IN_PACKAGE = [model for model in MODELS.values() if model.ncnn]
TAG = bytes.fromhex("476b3001")
"""0x01306B47, little-endian: what ncnn puts before fp16 weights."""


def tensors(seed: int, network: RRDB | Compact = SMALL) -> dict[str, Tensor]:
    """Random weights for a network of that shape, by seed."""
    torch.manual_seed(seed)
    return {name: torch.randn(like.shape) for name, like in build(network).state_dict().items()}


def pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@functools.cache
def released() -> bytes:
    """The file that the release of `small()` has: about 270 kB."""
    return pickled({"params": tensors(0)})


def published(path: str, data: bytes) -> Checkpoint:
    return Checkpoint(path, len(data), hashlib.sha256(data).hexdigest())


def small(network: RRDB | Compact = SMALL) -> Model:
    """A model like real-esrgan-x4-v3, but smaller, and so faster to build and download."""
    official = published(f"v9.9/{STEM}.pth", released())
    return replace(MODELS[NAME], network=network, official=official)


def equal(net: Net, expected: Tensors) -> bool:
    state = net.state_dict()
    return state.keys() == expected.keys() and all(
        torch.equal(state[name], expected[name]) for name in state
    )


def cached(data: bytes) -> Path:
    """Put `data` where the cache keeps the file of `small()`."""
    path = cache_folder() / f"{STEM}.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def in_cache() -> list[str]:
    """The names of all files there, partial and hidden ones too."""
    return sorted(path.name for path in cache_folder().glob("*"))


def assert_ready(net: Net) -> None:
    assert not any(module.training for module in net.modules())
    for tensor in net.state_dict().values():
        assert tensor.dtype == torch.float32
        assert tensor.device.type == "cpu"
    assert not any(parameter.requires_grad for parameter in net.parameters())


def ncnn(content: Tensors) -> bytes:
    """`content` as ncnn stores it: weights after a tag in fp16, all else in bare fp32."""
    parts = []
    for tensor in content.values():
        values = tensor.numpy()
        if tensor.ndim == 4:
            stored = TAG + values.astype("<f2").tobytes()
            parts.append(stored + bytes(-len(stored) % 4))
        else:
            parts.append(values.astype("<f4").tobytes())
    return b"".join(parts)


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Tensor]:
    """Convolutions of any size, an odd number of values among them, each with slopes or not."""
    content = {}
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = st.tuples(*[st.integers(1, 4)] * 3)
    for number, (wide, deep, side) in enumerate(draw(st.lists(sizes, min_size=1, max_size=4))):
        shapes = {"weight": (wide, deep, side, side), "bias": (wide,), "slopes": (wide,)}
        for name in list(shapes)[: draw(st.integers(2, 3))]:
            values = random.normal(size=shapes[name]).astype(np.float32)
            content[f"{number}.{name}"] = torch.from_numpy(values)
    return content


def whole(handler: BaseHTTPRequestHandler) -> None:
    answer(released())(handler)


def answer(body: bytes = b"", status: int = 200, size: int | None = None, **more: str) -> Answer:
    """A response that declares `size` bytes, by default as many as it sends."""
    headers = {"Content-Length": str(len(body) if size is None else size)}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return send
