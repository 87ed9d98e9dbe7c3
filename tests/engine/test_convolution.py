"""Both ways to convolve, against torch's own convolution in float64."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tests.support.properties import examples
from upscaler.engine.convolution import LEAK, Direct, Kernel, Method, Winograd

CPU = torch.device("cpu")
METHODS: dict[str, Method] = {
    "winograd": Winograd(torch.float32, CPU),
    "direct": Direct(torch.float32, torch.float32, CPU),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
Slope = float | Tensor | None

rows_and_width = {"rows": st.integers(1, 7), "width": st.integers(1, 40)}


@cache
def conv(inputs: int, outputs: int) -> nn.Conv2d:
    torch.manual_seed(inputs * 100 + outputs)
    return nn.Conv2d(inputs, outputs, 3, padding=1).requires_grad_(False)


def slopes(kind: str, channels: int) -> Slope:
    """An activation: none, the RRDB networks' or the compact ones'."""
    return {"none": None, "leak": LEAK, "prelu": torch.linspace(-0.5, 1.5, channels)}[kind]


def maps(rows: int, width: int, channels: int) -> Tensor:
    torch.manual_seed(rows + width)
    return torch.randn(rows, width, channels)


def padded(x: Tensor) -> Tensor:
    """With a row of zeros above and below, as the image ends."""
    return F.pad(x, (0, 0, 0, 0, 1, 1))


def window_of(method: Method, x: Tensor) -> Tensor:
    rows, width, channels = x.shape
    shape = method.planes, rows, method.tiles(width), channels
    window = torch.full(shape, torch.nan, dtype=method.products)
    method.transform(method.fold(x), window)
    return window


def convolved(method: Method, kernel: Kernel, x: Tensor) -> Tensor:
    width = x.shape[1]
    folded = method.convolve(window_of(method, padded(x)), kernel, width)
    assert folded.dtype == (method.products if method.planes == 1 else method.sums)
    return method.unfold(folded, width)


def expected(layer: nn.Conv2d, slope: Slope, x: Tensor) -> Tensor:
    assert layer.bias is not None
    image = x.double().permute(2, 0, 1)[None]
    y = F.conv2d(image, layer.weight.double(), layer.bias.double(), padding=1)
    if slope is not None:
        each = torch.full((y.shape[1],), slope) if isinstance(slope, float) else slope
        y = F.prelu(y, each.double())
    return y[0].permute(1, 2, 0)


def outside(folded: Tensor, width: int) -> Tensor:
    """What a folded map holds in columns that are not the image's."""
    if folded.shape[0] == 1:
        return folded[:, :, width:]
    columns = folded.permute(1, 2, 0, 3).flatten(1, 2)
    return torch.cat((columns[:, :4], columns[:, 4 + width :]), dim=1)


@every_method
@settings(max_examples=examples(60))
@given(
    **rows_and_width,
    channels=st.tuples(st.sampled_from([1, 3, 12, 64]), st.sampled_from([1, 3, 32, 48])),
    activation=st.sampled_from(["none", "leak", "prelu"]),
)
def test_convolutions_equal_torch(
    method: Method, rows: int, width: int, channels: tuple[int, int], activation: str
) -> None:
    inputs, outputs = channels
    x, layer, slope = maps(rows, width, inputs), conv(inputs, outputs), slopes(activation, outputs)
    found = convolved(method, method.prepare(layer, slope), x)
    assert found.shape == (rows, width, outputs)
    torch.testing.assert_close(found.double(), expected(layer, slope, x), atol=2e-5, rtol=1e-5)


@every_method
@given(**rows_and_width)
def test_rows_above_and_below_are_used(method: Method, rows: int, width: int) -> None:
    """They need not be zeros: most often they are other rows of the map."""
    x, layer = maps(rows + 2, width, 3), conv(3, 8)
    folded = method.convolve(window_of(method, x), method.prepare(layer), width)
    inner = expected(layer, None, x)[1:-1]
    torch.testing.assert_close(method.unfold(folded, width).double(), inner, atol=1e-5, rtol=1e-5)


@every_method
@settings(max_examples=examples(25))
@given(width=st.integers(1, 40))
def test_the_largest_kernel_is_as_accurate(method: Method, width: int) -> None:
    x, layer = maps(3, width, 192), conv(192, 64)
    found = convolved(method, method.prepare(layer), x)
    torch.testing.assert_close(found.double(), expected(layer, None, x), atol=2e-5, rtol=1e-5)


@every_method
@given(**rows_and_width, channels=st.integers(1, 5))
def test_unfold_reverses_fold(method: Method, rows: int, width: int, channels: int) -> None:
    x = maps(rows, width, channels)
    folded = method.fold(x)
    assert torch.equal(method.unfold(folded, width), x)
    assert folded.shape == method.empty(rows, width, channels).shape
    assert folded.dtype == method.empty(rows, width, channels).dtype == method.sums


@every_method
@given(**rows_and_width, channels=st.integers(1, 5))
def test_doubling_repeats_every_row_and_column(
    method: Method, rows: int, width: int, channels: int
) -> None:
    x = maps(rows, width, channels)
    doubled = method.double(method.fold(x), width * 2)
    twice = x.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(method.unfold(doubled, width * 2), twice)
    assert torch.equal(doubled, method.fold(twice))


@every_method
@given(**rows_and_width, activation=st.sampled_from(["none", "leak", "prelu"]))
def test_columns_outside_the_image_stay_zero(
    method: Method, rows: int, width: int, activation: str
) -> None:
    """Whatever the bias: the next convolution pads with them."""
    kernel = method.prepare(conv(3, 8), slopes(activation, 8))
    result = method.convolve(window_of(method, padded(maps(rows, width, 3))), kernel, width)
    for folded in (result, method.fold(maps(rows, width, 3)), method.double(result, width * 2)):
        columns = width * 2 if folded.shape[1] == rows * 2 else width
        assert not outside(folded, columns).any()


@every_method
@given(**rows_and_width)
def test_transform_can_write_to_a_slice_of_channels(method: Method, rows: int, width: int) -> None:
    x = maps(rows, width, 4)
    larger = torch.full((method.planes, rows, method.tiles(width), 10), 7.0)
    method.transform(method.fold(x), larger[..., 3:7])
    assert torch.equal(larger[..., 3:7], window_of(method, x))
    assert torch.all(larger[..., :3] == 7)
    assert torch.all(larger[..., 7:] == 7)


@every_method
@given(**rows_and_width)
def test_a_convolution_does_not_change_its_window(method: Method, rows: int, width: int) -> None:
    window = window_of(method, padded(maps(rows, width, 3)))
    before = window.clone()
    method.convolve(window, method.prepare(conv(3, 8), LEAK), width)
    assert torch.equal(window, before)


@pytest.mark.parametrize("sums", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["none", "leak", "prelu"])
def test_bf16_products_are_equal_to_rounding(sums: torch.dtype, activation: str) -> None:
    """It has 8 bits: a relative error of 1/256 for what is put in and for what comes out."""
    method = Direct(torch.bfloat16, sums, CPU)
    x, layer, slope = maps(5, 21, 64), conv(64, 32), slopes(activation, 32)
    found = convolved(method, method.prepare(layer, slope), x).double()
    exact = expected(layer, slope, x)
    assert (found - exact).abs().max() < 0.02 * exact.abs().max()
    assert (found - exact).abs().max() > 1e-4, "and not in fp32 by mistake"


def test_winograd_can_multiply_in_bf16() -> None:
    method = Winograd(torch.bfloat16, CPU)
    x, layer = maps(5, 21, 64), conv(64, 32)
    found = convolved(method, method.prepare(layer, LEAK), x).double()
    exact = expected(layer, LEAK, x)
    assert (found - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("activation", ["none", "leak", "prelu"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Winograd(torch.float32, CPU),
        lambda: Direct(torch.float32, torch.float32, CPU),
    ],
    ids=METHODS,
)
def test_results_without_onednn_are_equal(
    make: Callable[[], Method], activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, layer, slope = maps(5, 23, 12), conv(12, 48), slopes(activation, 48)
    method = make()
    packed = convolved(method, method.prepare(layer, slope), x)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    plain = convolved(method, method.prepare(layer, slope), x)
    torch.testing.assert_close(plain, packed, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.double(), expected(layer, slope, x), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("there", [True, False])
def test_onednn_is_used_if_available(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed weights are what makes a convolution fast, and nothing but time would show it."""
    plain: list[None] = []
    plain_convolution = torch.ops.aten._convolution

    def counting(*args: Any) -> Any:
        plain.append(None)
        return plain_convolution(*args)

    monkeypatch.setattr(torch.ops.aten, "_convolution", counting)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: there)
    method = METHODS["winograd"]
    convolved(method, method.prepare(conv(3, 8)), maps(4, 9, 3))
    assert bool(plain) is not there


@every_method
def test_a_kernel_copies_its_weights(method: Method) -> None:
    layer = nn.Conv2d(3, 8, 3, padding=1).requires_grad_(False)
    x = maps(4, 9, 3)
    kernel = method.prepare(layer)
    before = convolved(method, kernel, x)
    layer.weight.zero_()
    assert torch.equal(convolved(method, kernel, x), before)
