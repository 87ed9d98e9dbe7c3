"""Layers as streams: however rows are pushed in, the same come out, each computed once."""

from collections.abc import Iterable
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.properties import examples
from upscaler.engine.convolution import LEAK, Direct, Kernel, Method, Winograd
from upscaler.engine.layers import (
    Chain,
    Chunked,
    ConvertLayout,
    Convolutions,
    Layer,
    NearestUpsample2x,
    Queue,
    Residual,
    Resolution,
)
from upscaler.engine.networks import NUM_FEAT, ResidualDenseBlock, RRDBBlock

CPU = torch.device("cpu")
WINOGRAD = Winograd(torch.float32, CPU)
DIRECT = Direct(torch.float32, torch.float32, CPU)
every_method = pytest.mark.parametrize("method", [WINOGRAD, DIRECT], ids=["winograd", "direct"])


@st.composite
def pushes(draw: st.DrawFn) -> tuple[int, list[int]]:
    """The most rows that may be pushed at once, and how many are, one time after the other."""
    most = draw(st.integers(1, 9))
    return most, draw(st.lists(st.integers(0, most), min_size=1, max_size=12).filter(any))


@cache
def block() -> RRDBBlock:
    torch.manual_seed(1)
    return RRDBBlock().requires_grad_(False)


def dense_kernels(number: int, method: Method) -> list[Kernel]:
    dense: ResidualDenseBlock = getattr(block(), f"rdb{number}")
    growing = (dense.conv1, dense.conv2, dense.conv3, dense.conv4)
    return [*(method.prepare(conv, LEAK) for conv in growing), method.prepare(dense.conv5)]


def dense_block(number: int, method: Method, level: Resolution) -> Residual:
    return Residual(
        Convolutions(dense_kernels(number, method), method, level), 0.2, 5, level, method
    )


def maps(height: int, width: int, channels: int = NUM_FEAT) -> Tensor:
    torch.manual_seed(height)
    return torch.randn(height, width, channels)


def streamed(layer: Layer, method: Method, x: Tensor, counts: Iterable[int], height: int) -> Tensor:
    """All rows of the result, of which there are `height`; 0 in `counts` pushes None."""
    answers = []
    start = 0
    for count in counts:
        rows = method.fold(x[start : start + count]) if count else None
        answers.append(layer.push(rows))
        start += count
    for _ in range(1000):
        if sum(y.shape[1] for y in answers if y is not None) == height:
            break
        answers.append(layer.push(None))
    rows = torch.cat([y for y in answers if y is not None], dim=1)
    assert rows.shape[1] == height
    assert layer.push(None) is None, "there is no row more than that"
    return method.unfold(rows, rows_width(x, rows.shape[1], height))


def rows_width(x: Tensor, rows: int, height: int) -> int:
    assert rows == height
    return x.shape[1] * height // x.shape[0]


def plain(net: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = net.double()(x.double().permute(2, 0, 1)[None])
    net.float()
    return y[0].permute(1, 2, 0)


@every_method
@settings(max_examples=examples(40))
@given(job=pushes(), width=st.integers(1, 11))
def test_a_convolution_in_any_pushes_equals_the_whole_map(
    method: Method, job: tuple[int, list[int]], width: int
) -> None:
    most, counts = job
    height = sum(counts)
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 7, 3, padding=1).requires_grad_(False)
    layer = Convolutions([method.prepare(conv)], method, Resolution(height, width, most))
    x = maps(height, width, 5)
    found = streamed(layer, method, x, counts, height)
    torch.testing.assert_close(found.double(), plain(conv, x), atol=1e-5, rtol=1e-5)


@every_method
@settings(max_examples=examples(25))
@given(job=pushes(), width=st.integers(1, 9))
def test_a_dense_block_in_any_pushes_equals_the_whole_map(
    method: Method, job: tuple[int, list[int]], width: int
) -> None:
    most, counts = job
    height = sum(counts)
    layer = dense_block(1, method, Resolution(height, width, most))
    x = maps(height, width)
    found = streamed(layer, method, x, counts, height)
    torch.testing.assert_close(found.double(), plain(block().rdb1, x), atol=1e-5, rtol=1e-5)
    at_once = dense_block(1, method, Resolution(height, width, height))
    assert torch.allclose(found, streamed(at_once, method, x, [height], height), atol=1e-6)


@every_method
@settings(max_examples=examples(20))
@given(job=pushes(), width=st.integers(1, 9))
def test_dense_blocks_share_the_buffers_of_their_level(
    method: Method, job: tuple[int, list[int]], width: int
) -> None:
    most, counts = job
    height = sum(counts)
    level = Resolution(height, width, most)
    chain = Chain(*(dense_block(number, method, level) for number in (1, 2, 3)))
    layer = Residual(chain, 0.2, 15, level, method)
    x = maps(height, width)
    found = streamed(layer, method, x, counts, height)
    torch.testing.assert_close(found.double(), plain(block(), x), atol=1e-5, rtol=1e-5)
    assert len(level.buffers) == 1


class Counting:
    """A method that counts what is convolved and transformed."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.convolved: list[tuple[int, int]] = []
        self.transformed: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.method, name)

    def transform(self, folded: Tensor, out: Tensor) -> None:
        self.transformed.append((folded.shape[3], folded.shape[1]))
        self.method.transform(folded, out)

    def convolve(self, window: Tensor, kernel: Kernel, width: int) -> Tensor:
        self.convolved.append((kernel.in_channels, window.shape[1] - 2))
        return self.method.convolve(window, kernel, width)


def rows_of(calls: list[tuple[int, int]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for channels, rows in calls:
        found[channels] = found.get(channels, 0) + rows
    return found


@settings(max_examples=examples(25))
@given(job=pushes())
def test_each_row_is_computed_once_within_the_limit(
    job: tuple[int, list[int]],
) -> None:
    most, counts = job
    height = sum(counts)
    counting = Counting(DIRECT)
    layer = Convolutions(dense_kernels(1, DIRECT), counting, Resolution(height, 3, most))  # type: ignore[arg-type]
    streamed(layer, DIRECT, maps(height, 3), counts, height)
    assert rows_of(counting.convolved) == dict.fromkeys((64, 96, 128, 160, 192), height)
    assert rows_of(counting.transformed) == {64: height, 32: 4 * height}
    assert max(rows for _, rows in counting.convolved) <= most


@given(job=pushes())
def test_rows_are_returned_as_soon_as_possible(job: tuple[int, list[int]]) -> None:
    """A convolution is one row behind, a dense block five, until the map has ended."""
    most, counts = job
    height = sum(counts)
    level = Resolution(height, 2, most)
    conv = nn.Conv2d(NUM_FEAT, NUM_FEAT, 3, padding=1).requires_grad_(False)
    layers = [(Convolutions([DIRECT.prepare(conv)], DIRECT, level), 1)]
    layers.append((Convolutions(dense_kernels(1, DIRECT), DIRECT, level), 5))
    for layer, lag in layers:
        given_rows, come = 0, 0
        for count in counts:
            x = torch.zeros(1, count, 2, NUM_FEAT) if count else None
            y = layer.push(x)
            given_rows += count
            come += 0 if y is None else y.shape[1]
            if given_rows < height:
                assert come == max(0, given_rows - lag)
            else:
                assert come >= given_rows - lag


@given(st.integers(1, 12), st.data())
def test_a_queue_returns_rows_in_order(size: int, data: st.DataObject) -> None:
    queue = Queue(torch.full((2, size, 1), -1), dim=1)
    put = taken = 0
    for _ in range(data.draw(st.integers(1, 20))):
        count = data.draw(st.integers(0, size - (put - taken)))
        queue.put(torch.arange(put, put + count).expand(2, count)[..., None])
        put += count
        count = data.draw(st.integers(0, put - taken))
        parts = queue.take(count)
        found = [int(row) for part in parts for row in part[1, :, 0]]
        assert found == list(range(taken, taken + count))
        taken += count


def test_a_queue_raises_on_overflow_and_underflow() -> None:
    queue = Queue(torch.zeros(3, 1), dim=0)
    queue.put(torch.ones(2, 1))
    with pytest.raises(RuntimeError, match="before it was pushed"):
        queue.take(3)
    queue = Queue(torch.zeros(3, 1), dim=0)
    queue.put(torch.ones(2, 1))
    with pytest.raises(RuntimeError, match="too small"):
        queue.put(torch.ones(2, 1))


class Delayed:
    """Repeats its input, a push later."""

    def __init__(self) -> None:
        self.waiting: Tensor | None = None
        self.pushed: list[int] = []

    def push(self, x: Tensor | None) -> Tensor | None:
        self.pushed.append(0 if x is None else x.shape[1])
        y, self.waiting = self.waiting, None if x is None else x.clone()
        return y


def test_a_residual_adds_matching_rows() -> None:
    level = Resolution(6, 3, 2)
    layer = Residual(Delayed(), 0.5, 2, level, DIRECT)
    x = maps(6, 3)
    assert torch.equal(streamed(layer, DIRECT, x, [2, 1, 2, 1], 6), x * 1.5)


@pytest.mark.parametrize(("rows", "pieces"), [(1, [1] * 5), (2, [2, 2, 1]), (9, [5])])
def test_chunked_pushes_one_piece_after_another(rows: int, pieces: list[int]) -> None:
    inner = Delayed()
    layer = Chunked(inner, rows)
    x = maps(5, 3)
    assert layer.push(None) is None
    assert torch.equal(streamed(layer, DIRECT, x, [5], 5), x)
    assert inner.pushed[1 : 1 + len(pieces)] == pieces


@every_method
@given(height=st.integers(1, 5), width=st.integers(1, 9))
def test_doubling_makes_four_pixels_of_each(method: Method, height: int, width: int) -> None:
    level = Resolution(height, width, 3).doubled()
    assert (level.height, level.width, level.rows) == (height * 2, width * 2, 6)
    x = maps(height, width)
    found = streamed(NearestUpsample2x(method, level), method, x, [height], height * 2)
    assert torch.equal(found, x.repeat_interleave(2, 0).repeat_interleave(2, 1))


@given(height=st.integers(1, 5), width=st.integers(1, 9))
def test_convert_layout_unfolds_and_folds(height: int, width: int) -> None:
    level, x = Resolution(height, width, 9), maps(height, width)
    there, back = ConvertLayout(WINOGRAD, DIRECT, level), ConvertLayout(DIRECT, WINOGRAD, level)
    assert there.push(None) is None
    folded = there.push(WINOGRAD.fold(x))
    assert folded is not None
    assert torch.equal(folded, DIRECT.fold(x))
    again = back.push(folded)
    assert again is not None
    assert torch.equal(again, WINOGRAD.fold(x))


def test_none_in_gives_none_out() -> None:
    layer = Convolutions(dense_kernels(1, DIRECT), DIRECT, Resolution(4, 4, 4))
    assert layer.push(None) is None
    assert dense_block(1, DIRECT, Resolution(4, 4, 4)).push(None) is None
