"""Two ways to compute a 3x3 convolution over some rows of a feature map: direct and Winograd.

Each method stores a map of shape (rows, width, channels) in a layout of its own, called folded, of
shape (phases, rows, tiles, channels). Before a convolution the folded map is transformed once into
a window of shape (planes, rows, tiles, channels). Rows are independent of each other in both
layouts, so a map can be processed a few rows at a time. Columns outside the image are zero, which
is how the networks pad.

    method    phases   planes   tiles
    Direct         1        1   width          both layouts are the map itself
    Winograd       4        6   width / 4      a folded map has one more tile of zeros at both ends
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so

LEAK: Final = 0.2
"""The slope of the leaky ReLU for negative values in every RRDB network (networks.py)."""
FILTER_TRANSFORM: Final = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
"""The filter transform G of F(4, 3). Winograd.transform and Winograd.convolve apply the matrices B
and A that belong to it (Lavin and Gray, arXiv:1509.09308, section 4.3)."""
HINT: Final = (34, 128)
"""The rows and tiles that oneDNN packs weights for. The result is valid for any other shape."""

Convolve = Callable[[Tensor], Tensor]
"""A prepared convolution: (rows + 2, tiles, in_channels) to (rows, tiles, out_channels)."""


@dataclass(frozen=True)
class Kernel:
    """A prepared convolution layer: one function per plane, and the activation.

    `slope` is the activation's slope for negative values: a number for leaky ReLU, a tensor of
    shape (out_channels,) for PReLU, and None for no activation.
    """

    planes: tuple[Convolve, ...]
    in_channels: int
    out_channels: int
    slope: float | Tensor | None


class Method(Protocol):
    """A way to compute convolutions.

    `products` is the dtype of windows, weights and the output of each plane's convolution. `sums`
    is the dtype of the maps that residual connections add up.
    """

    device: torch.device
    planes: int
    products: torch.dtype
    sums: torch.dtype

    def prepare(self, conv: nn.Conv2d, slope: float | Tensor | None = None) -> Kernel:
        """Prepare `conv`, which must be 3x3 with a bias, for `convolve`."""

    def tiles(self, width: int) -> int:
        """The number of tiles in a window of a map of `width` columns."""

    def empty(self, rows: int, width: int, channels: int) -> Tensor:
        """A folded map of that size, uninitialised."""

    def fold(self, rows: Tensor) -> Tensor:
        """Fold a map of shape (rows, width, channels)."""

    def unfold(self, folded: Tensor, width: int) -> Tensor:
        """The inverse of `fold`."""

    def double(self, folded: Tensor, width: int) -> Tensor:
        """Repeat every row and column of a folded map once; `width` is that of the result."""

    def transform(self, folded: Tensor, out: Tensor) -> None:
        """Write the window of a folded map to `out`, which may be a slice of channels."""

    def convolve(self, window: Tensor, kernel: Kernel, width: int) -> Tensor:
        """Convolve a window of `rows + 2` rows, and apply the activation: a folded map of `rows`.

        Rows are not padded: the first and the last row of the window are the context above and
        below. `width` is the map's number of columns.
        """


class Direct:
    """Convolution as it is defined, with a single plane: the map itself."""

    planes = 1

    def __init__(self, products: torch.dtype, sums: torch.dtype, device: torch.device) -> None:
        self.device = device
        self.products = products
        self.sums = sums

    def prepare(self, conv: nn.Conv2d, slope: float | Tensor | None = None) -> Kernel:
        assert conv.bias is not None, "every convolution of these networks has one"
        # A leaky ReLU is fused into the convolution. A PReLU, whose slopes are a tensor, is applied
        # by `convolve` below.
        leak = slope if isinstance(slope, float) else None
        convolve = _prepare(conv.weight.to(self.products), conv.bias.to(self.products), 1, leak)
        return Kernel((convolve,), conv.in_channels, conv.out_channels, slope)

    def tiles(self, width: int) -> int:
        return width

    def empty(self, rows: int, width: int, channels: int) -> Tensor:
        return torch.empty(1, rows, width, channels, dtype=self.sums, device=self.device)

    def fold(self, rows: Tensor) -> Tensor:
        return rows[None].to(self.sums)

    def unfold(self, folded: Tensor, width: int) -> Tensor:
        assert folded.shape[2] == width, "the direct layout pads no columns"
        return folded[0]

    def double(self, folded: Tensor, width: int) -> Tensor:
        doubled = folded.repeat_interleave(2, 1).repeat_interleave(2, 2)
        assert doubled.shape[2] == width, "the direct layout pads no columns"
        return doubled

    def transform(self, folded: Tensor, out: Tensor) -> None:
        out.copy_(folded)

    def convolve(self, window: Tensor, kernel: Kernel, width: int) -> Tensor:
        assert window.shape[2] == width, "the direct layout pads no columns"
        result = kernel.planes[0](window[0])[None]
        return _prelu(result, kernel.slope) if isinstance(kernel.slope, Tensor) else result


class Winograd:
    """Winograd's F(4, 3) along the width: four outputs from six products instead of twelve.

    Column 4 * t + p of a map is phase p of tile t. A folded map has a tile of zeros at both ends,
    which is the padding of the columns. Sums are always fp32: in a lower precision the transforms
    would lose too much to rounding.
    """

    planes = 6
    sums = torch.float32

    def __init__(self, products: torch.dtype, device: torch.device) -> None:
        self.device = device
        self.products = products

    def prepare(self, conv: nn.Conv2d, slope: float | Tensor | None = None) -> Kernel:
        assert conv.bias is not None, "every convolution of these networks has one"
        # In fp64, since sixths and twelfths are not exact: weights are rounded once, at the end.
        transform = torch.tensor(FILTER_TRANSFORM, dtype=torch.float64)
        filters = torch.einsum("pk,oihk->poih", transform, conv.weight.double())
        # The bias is added in plane 1 alone: A's column for that plane is all ones, so it reaches
        # each of the four outputs exactly once.
        planes = tuple(
            _prepare(
                weight[..., None].to(self.products).contiguous(),
                conv.bias.to(self.products) if plane == 1 else None,
                0,
                None,
            )
            for plane, weight in enumerate(filters)
        )
        return Kernel(planes, conv.in_channels, conv.out_channels, slope)

    def tiles(self, width: int) -> int:
        return -(-width // 4)

    def empty(self, rows: int, width: int, channels: int) -> Tensor:
        shape = 4, rows, self.tiles(width) + 2, channels
        return torch.empty(shape, dtype=self.sums, device=self.device)

    def fold(self, rows: Tensor) -> Tensor:
        height, width, channels = rows.shape
        padded = F.pad(rows.to(self.sums), (0, 0, 0, -width % 4))
        phases = padded.view(height, self.tiles(width), 4, channels).permute(2, 0, 1, 3)
        return F.pad(phases, (0, 0, 1, 1))

    def unfold(self, folded: Tensor, width: int) -> Tensor:
        rows = folded[:, :, 1:-1].permute(1, 2, 0, 3)  # (rows, tiles, phases, channels)
        return rows.reshape(rows.shape[0], -1, rows.shape[3])[:, :width]

    def double(self, folded: Tensor, width: int) -> Tensor:
        _, rows, tiles, channels = folded.shape
        # Phases 0 and 1 of a tile become one tile of the result, phases 2 and 3 the next one. So
        # `halves` is (2 phases, rows, tiles, 2 halves, channels).
        halves = folded[:, :, 1:-1].view(2, 2, rows, tiles - 2, channels).permute(1, 2, 3, 0, 4)
        twice = halves.reshape(2, 1, rows, 1, (tiles - 2) * 2, channels)[
            ..., : self.tiles(width), :
        ]
        doubled = folded.new_zeros(2, 2, rows, 2, self.tiles(width) + 2, channels)
        doubled[:, :, :, :, 1:-1] = twice
        return doubled.view(4, rows * 2, -1, channels)

    def transform(self, folded: Tensor, out: Tensor) -> None:
        """Multiply by B: (4, rows, tiles + 2, channels) to (6, rows, tiles, channels).

        Tile t reads six columns, d0 to d5: the last one of tile t - 1, its own four, and the first
        one of tile t + 1.
        """
        exact = out if out.dtype == self.sums else torch.empty(out.shape, dtype=self.sums)
        d0, d5 = folded[3, :, :-2], folded[0, :, 2:]
        d1, d2, d3, d4 = folded[:, :, 1:-1]
        even, odd = torch.sub(d4, d2, alpha=4), torch.sub(d3, d1, alpha=4)
        torch.add(even, odd, out=exact[1])
        torch.sub(even, odd, out=exact[2])
        # From here on `even` and `odd` are not needed any more: their memory is used again.
        outer, inner = torch.sub(d4, d2, out=even), torch.sub(d3, d1, out=odd)
        torch.add(outer, inner, alpha=2, out=exact[3])
        torch.sub(outer, inner, alpha=2, out=exact[4])
        torch.add(outer, d0 - d2, alpha=4, out=exact[0])
        torch.sub(d5 - d3, inner, alpha=4, out=exact[5])
        if exact is not out:
            out.copy_(exact)

    def convolve(self, window: Tensor, kernel: Kernel, width: int) -> Tensor:
        """Convolve plane by plane, and multiply the results by A."""
        planes = zip(kernel.planes, window, strict=True)
        m0, m1, m2, m3, m4, m5 = (convolve(plane).to(self.sums) for convolve, plane in planes)
        rows, tiles, channels = m0.shape
        folded = m0.new_empty(4, rows, tiles + 2, channels)
        folded[:, :, 0] = folded[:, :, -1] = 0
        y0, y1, y2, y3 = folded[:, :, 1:-1]
        # In place where a plane is not needed any more, which saves allocations: m1 + m2 is
        # computed before m1 is overwritten.
        near, near_odd = m1 + m2, m1.sub_(m2)
        far, far_odd = m3 + m4, m3.sub_(m4)
        torch.add(m0.add_(near), far, out=y0)
        torch.add(near_odd, far_odd, alpha=2, out=y1)
        torch.add(near, far, alpha=4, out=y2)
        torch.add(m5.add_(near_odd), far_odd, alpha=8, out=y3)
        if width % 4:
            # The last tile reaches beyond the image. The next convolution pads with these columns,
            # so they must be zero; here they hold at least the bias.
            folded[width % 4 :, :, -2] = 0
        if isinstance(kernel.slope, Tensor):
            return _prelu(folded, kernel.slope)
        return folded if kernel.slope is None else F.leaky_relu_(folded, kernel.slope)


def _prelu(folded: Tensor, slopes: Tensor) -> Tensor:
    """Parametric ReLU with a slope per channel. torch expects the channels in dimension 1."""
    return F.prelu(folded.permute(0, 3, 1, 2), slopes.to(folded)).permute(0, 2, 3, 1)


def _prepare(weight: Tensor, bias: Tensor | None, padding: int, leak: float | None) -> Convolve:
    """A function that convolves with `weight` and applies leaky ReLU unless `leak` is None.

    `padding` is the number of zero columns on each side; rows are not padded.
    """
    if weight.device.type == "cpu" and has_onednn(weight.dtype):
        return _prepare_onednn(weight, bias, padding, leak)
    # Maps keep their channels innermost (NHWC), so the weights do, too.
    weight = weight.contiguous(memory_format=torch.channels_last)

    # The public function, but for its last argument: on CUDA torch lets fp32 be rounded to TF32,
    # which has 10 bits, unless a switch is set for the whole process. The others are those of
    # torch.backends.cudnn: benchmark, deterministic, enabled.
    options = [1, 1], [0, padding], [1, 1], False, [0, 0], 1, False, False, True, False

    def convolve(rows: Tensor) -> Tensor:
        image = rows.permute(2, 0, 1)[None]
        result = torch.ops.aten._convolution(image, weight, bias, *options)  # noqa: SLF001
        activated = result if leak is None else F.leaky_relu_(result, leak)
        return activated[0].permute(1, 2, 0)

    return convolve


def has_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN is available and convolves in `dtype`. For bf16 it needs AVX-512 or similar.

    Without it convolutions are still correct: in bf16 an image took five times as long as in fp32.
    """
    ops = torch.ops.mkldnn
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    usable = available and hasattr(ops, "_convolution_pointwise")
    return usable and (dtype != torch.bfloat16 or bool(ops._is_mkldnn_bf16_supported()))  # noqa: SLF001


def _prepare_onednn(
    weight: Tensor, bias: Tensor | None, padding: int, leak: float | None
) -> Convolve:
    """The same by oneDNN, with the weights packed in advance into the layout that it prefers.

    The two operators are those to which `torch.compile` lowers a convolution on a CPU. They are not
    public, but `F.conv2d` would pack the weights again at every call.
    """
    options = [0, padding], [1, 1], [1, 1], 1  # padding, stride, dilation, groups
    shape = [1, weight.shape[1], *HINT]
    weights = torch.ops.aten.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *options, shape)
    activation = ("none", [], "") if leak is None else ("leaky_relu", [leak], "")
    run = torch.ops.mkldnn._convolution_pointwise  # noqa: SLF001

    def convolve(rows: Tensor) -> Tensor:
        result: Tensor = run(rows.permute(2, 0, 1)[None], weights, bias, *options, *activation)
        return result[0].permute(1, 2, 0)

    return convolve
