"""How the kernels are launched, and how many bytes each launch has to move.

Needs no Triton. What stands in for a launch counts it, or compiles the kernel alone.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

Launcher = Callable[..., None]
"""Called with a kernel, its grid, and the arguments of both kinds."""
Given = Mapping[str, Any]
"""A kernel's arguments by name, those that it is compiled for among them."""


class Launch(NamedTuple):
    """A launch: the kernel's name, grid and arguments, and the bytes that it touches by tensor.

    A byte is counted once, however many programs read it: the others find it in the cache.
    """

    name: str
    grid: tuple[int, ...]
    given: Given
    reads: dict[str, int]
    writes: dict[str, int]

    @property
    def moved(self) -> int:
        """All of these bytes."""
        return sum(self.reads.values()) + sum(self.writes.values())


def run(
    kernel: Any,  # noqa: ANN401  Triton has no types
    grid: tuple[int, ...],
    *arguments: object,
    warmup: bool = False,
    **options: object,
) -> None:
    """Launch a kernel on the current stream; with `warmup` only compile it, which needs no GPU."""
    kernel.run(*arguments, grid=grid, warmup=warmup, **options)


launcher: Final[ContextVar[Launcher]] = ContextVar("launcher", default=run)
"""What is called for each launch."""


def described(
    kernel: Any,  # noqa: ANN401  the same
    grid: tuple[int, ...],
    arguments: tuple[object, ...],
    options: Given,
) -> Launch:
    """What a launch with those arguments is."""
    given = {**dict(zip(kernel.arg_names, arguments, strict=False)), **options}
    name: str = kernel.__name__
    return Launch(name, grid, given, *_TRAFFIC[name](given, grid))


def _convolve(given: Given, _grid: tuple[int, ...]) -> tuple[dict[str, int], dict[str, int]]:
    height, pitch, image = given["height"], given["pitch"], given["IMAGE"]
    pixels = height * (pitch - 2)
    reads = {"source": (height + 2) * pitch * given["IN"] * 2, "weights": given["weights"].nbytes}
    if image > 1:
        reads["residual"] = pixels * 3 * 4
    else:
        for name in ("residual", "outer")[: given["RESIDUALS"]]:
            reads[name] = pixels * given["OUT"] * 2
    return reads, {"out": pixels * (image**2 * 3 * 4 if image else given["OUT"] * 2)}


def _double_and_convolve(
    given: Given, grid: tuple[int, ...]
) -> tuple[dict[str, int], dict[str, int]]:
    height, pitch = grid[0] // given["blocks"], given["pitch"]
    pixel = given["CHANNELS"] * 2
    reads = {"source": (height + 2) * pitch * pixel, "weights": given["weights"].nbytes}
    return reads, {"out": 4 * height * (pitch - 2) * pixel}


def _convolve_image(given: Given, _grid: tuple[int, ...]) -> tuple[dict[str, int], dict[str, int]]:
    out = given["height"] * (given["pitch"] - 2) * given["OUT"] * 2
    writes = {"out": out, "copy": out} if given["COPY"] else {"out": out}
    return {"image": given["image"].nbytes, "weights": given["weights"].nbytes}, writes


_TRAFFIC: Final = {
    "convolve": _convolve,
    "double_and_convolve": _double_and_convolve,
    "convolve_image": _convolve_image,
}
