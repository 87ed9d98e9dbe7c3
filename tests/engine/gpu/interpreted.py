"""Each kernel, and whole networks, beside torch's own operators: run by `test_kernels`."""

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from upscaler.engine.gpu import whole_maps as maps
from upscaler.engine.layers import Resolution
from upscaler.engine.networks import NUM_FEAT, Net, RRDBBlock, RRDBNet, SRVGGNetCompact

HALF = 2**-10
"""Half a unit of fp16's last place in 1..2: the rounding of a map's values, which are about 1."""


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1).requires_grad_(False)
    # Weights that fp16 holds exactly, so that only the result is rounded.
    conv.weight.copy_(conv.weight.mul(2).half())
    return conv


def _map(height: int, width: int, channels: int) -> tuple[Tensor, Tensor]:
    """A random map, and its pixels within the border as (1, channels, height, width)."""
    whole = maps.zeros(height, width, channels, torch.device("cpu"))
    pixels = _inner(whole, height, width)
    pixels.copy_(torch.randn(height, width, channels).half())
    return whole, pixels.permute(2, 0, 1)[None].float()


def _inner(whole: Tensor, height: int, width: int) -> Tensor:
    bordered = whole[: (height + 2) * (width + 2)].view(height + 2, width + 2, -1)
    return bordered[1:-1, 1:-1]


def _outside_is_zero(whole: Tensor, height: int, width: int) -> bool:
    rest = whole.clone()
    _inner(rest, height, width).zero_()
    return not rest.any()


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (64, 32),
        pytest.param(96, 32, marks=pytest.mark.slow),
        pytest.param(160, 32, marks=pytest.mark.slow),
        (192, 64),
        pytest.param(64, 64, marks=pytest.mark.slow),
    ],
)
@settings(max_examples=3, phases=[Phase.generate])
@given(
    size=st.tuples(st.integers(1, 5), st.integers(1, 150)),
    residuals=st.integers(0, 2),
    capability=st.sampled_from([80, 90]),
)
def test_a_convolution_is_torchs(
    inputs: int,
    outputs: int,
    size: tuple[int, int],
    residuals: int,
    capability: int,
) -> None:
    height, width = size
    conv = _conv(inputs, outputs)
    source, pixels = _map(height, width, 192)
    old, old_pixels = _map(height, width, 192)
    out = maps.zeros(height, width, 192, torch.device("cpu"))
    start = 192 - outputs
    first, second = (old if residuals > count else None for count in range(2))
    maps.Convolution(conv, maps.tiles(capability), maps.LEAKY)(
        source, out[:, start:], height, width, residual=first, outer=second
    )
    want = F.leaky_relu(conv(pixels[:, :inputs]), 0.2)
    for _ in range(residuals):
        want = old_pixels[:, :outputs] + 0.2 * want
    got = _inner(out, height, width)[:, :, start:].permute(2, 0, 1)[None].float()
    assert torch.allclose(got, want, rtol=HALF, atol=HALF)
    assert _outside_is_zero(out[:, start:], height, width)
    assert not out[:, :start].any()


@settings(max_examples=4, phases=[Phase.generate])
@given(size=st.tuples(st.integers(1, 4), st.integers(1, 140)))
def test_doubling_and_convolving_is_torchs(size: tuple[int, int]) -> None:
    height, width = size
    conv = _conv(64, 64)
    source, pixels = _map(height, width, 64)
    out = maps.zeros(2 * height, 2 * width, 64, torch.device("cpu"))
    maps.DoublingConvolution(conv, maps.tiles(90))(source, out, height, width)
    want = F.leaky_relu(conv(F.interpolate(pixels, scale_factor=2.0)), 0.2)
    got = _inner(out, 2 * height, 2 * width).permute(2, 0, 1)[None].float()
    # The sums of weights are rounded, too.
    assert torch.allclose(got, want, rtol=4 * HALF, atol=4 * HALF)
    assert _outside_is_zero(out, 2 * height, 2 * width)


@pytest.mark.parametrize("fold", [1, 2])
def test_the_first_convolution_is_torchs(fold: int) -> None:
    height, width = 2, maps.IMAGE_COLUMNS + 1
    conv = nn.Conv2d(3 * fold**2, 64, 3, padding=1).requires_grad_(False)
    slopes = torch.rand(64)
    image = torch.rand(height * fold, width * fold, 3)
    out, copy = (maps.zeros(height, width, 192, torch.device("cpu")) for _ in range(2))
    maps.ImageConvolution(conv, fold, slopes)(image, out, height, width, copy=copy)
    want = F.prelu(conv(F.pixel_unshuffle(image.permute(2, 0, 1)[None], fold)), slopes)
    for each in (out, copy):
        got = _inner(each, height, width)[:, :, :64].permute(2, 0, 1)[None].float()
        assert torch.allclose(got, want, rtol=HALF, atol=HALF)
        assert _outside_is_zero(each[:, :64], height, width)
        assert not each[:, 64:].any()


def test_a_dense_block_is_torchs() -> None:
    net = RRDBNet(scale=4, num_block=1).requires_grad_(False)
    for conv in net.modules():
        if isinstance(conv, nn.Conv2d):
            conv.weight.copy_(conv.weight.half())
    height, width = 3, 5
    dense, pixels = _map(height, width, maps.DENSE)
    out = maps.zeros(height, width, maps.DENSE, torch.device("cpu"))
    prepared = maps.whole_maps(net, 90)
    assert isinstance(prepared, maps.WholeMapRRDB)
    maps.dense_block(prepared.blocks[0], dense, out, height, width, outer=None)
    block = net.body[0]
    assert isinstance(block, RRDBBlock)
    want = block.rdb1(pixels[:, :NUM_FEAT])
    got = _inner(out, height, width)[:, :, :NUM_FEAT].permute(2, 0, 1)[None].float()
    assert torch.allclose(got, want, rtol=HALF, atol=HALF)
    for each in (dense, out):
        assert _outside_is_zero(each, height, width)


@pytest.mark.parametrize(
    "net",
    [
        pytest.param(RRDBNet(scale=4, num_block=1), marks=pytest.mark.slow),
        pytest.param(RRDBNet(scale=2, num_block=1), marks=pytest.mark.slow),
        SRVGGNetCompact(scale=4, num_conv=2),
    ],
    ids=["x4", "x2", "compact"],
)
def test_a_network_in_strips_is_the_one_in_fp32(net: Net) -> None:
    net.requires_grad_(False)
    # Strips of four rows, so that two borders are within the map, and one strip is the last row.
    height, width, rows = 9, 3, 4
    prepared = maps.whole_maps(net, 90)
    image = torch.rand(height * prepared.fold, width * prepared.fold, 3)
    stream = prepared.open(Resolution(height, width, height), rows)
    pieces = torch.split(image, 4)
    strips = [stream.push(piece) for piece in pieces]
    while strips[-1] is not None or len(strips) == len(pieces):
        strips.append(stream.push(None))
    got = torch.cat([strip for strip in strips if strip is not None])
    want = net(image.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    assert got.shape == want.shape
    assert len([strip for strip in strips if strip is not None]) == 3
    assert torch.allclose(got, want, atol=2e-3)
