"""Counts what a GPU is asked to do: the kernels that are started, and the bytes that they move."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, Final, NamedTuple

from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from upscaler.engine.gpu.launches import Launch, described, launcher

NO_KERNEL: Final = frozenset(
    {
        "_local_scalar_dense",
        "_unsafe_view",
        "empty",
        "empty_like",
        "empty_strided",
        "is_pinned",
        "lift_fresh",
        "new_empty",
        "new_empty_strided",
        "record_stream",
        "set_",
    }
)
"""Operators that start none, besides views."""


class Operation(NamedTuple):
    """An operator of torch's that was called: its arguments by name, and its tensors."""

    func: OpOverload
    given: dict[str, Any]
    reads: list[Tensor]
    writes: list[Tensor]

    @property
    def name(self) -> str:
        """Without its overload."""
        return str(self.func.overloadpacket.__name__)

    @property
    def moved(self) -> int:
        """The bytes of all these on a GPU; an expanded dimension is in memory once."""
        return sum(
            each.element_size()
            * prod(size for size, step in zip(each.shape, each.stride(), strict=True) if step)
            for each in self.reads + self.writes
            if each.device.type != "cpu"
        )


class Traffic(TorchDispatchMode):
    """All that this thread starts on GPUs while it is `watched`, by operator and by our kernels.

    `kernels` is how many, and `moved` the bytes of the tensors that they read and write. Each of
    torch's operators counts as one kernel that touches each of its tensors once, so both are what
    there is at least: a convolution of cuDNN may first copy its input.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels = Counter[str]()
        self.moved = Counter[str]()

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if func.namespace == "prim":  # such as a question for the device
            return func(*args, **kwargs)
        # In inference mode what is made of other operators comes here as a whole.
        with self:
            result = func.decompose(*args, **kwargs)
        if result is NotImplemented:
            result = func(*args, **kwargs)
            if not func.is_view:
                self.ran(_operation(func, args, kwargs, result))
        return result

    def ran(self, operation: Operation) -> None:
        """Count one of torch's operators if it was on a GPU."""
        tensors = operation.reads + operation.writes
        if operation.name not in NO_KERNEL and any(each.is_cuda for each in tensors):
            self.count(operation.name, operation.moved)

    def launched(self, launch: Launch) -> None:
        """Count one of this project's kernels."""
        self.count(launch.name, launch.moved)

    def count(self, name: str, moved: int) -> None:
        """Count a kernel that moves so many bytes."""
        self.kernels[name] += 1
        self.moved[name] += moved


@contextmanager
def watched(traffic: Traffic) -> Iterator[Traffic]:
    """Within, `traffic` sees what this thread starts."""
    proceed = launcher.get()

    def launch(
        kernel: Any,  # noqa: ANN401  Triton has no types
        grid: tuple[int, ...],
        *arguments: object,
        **options: object,
    ) -> None:
        traffic.launched(described(kernel, grid, arguments, options))
        proceed(kernel, grid, *arguments, **options)

    token = launcher.set(launch)
    try:
        with traffic:
            yield traffic
    finally:
        launcher.reset(token)


def _operation(
    func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], result: object
) -> Operation:
    arguments = func._schema.arguments  # noqa: SLF001  there is no public way
    given = dict(zip((each.name for each in arguments), args, strict=False)) | kwargs
    changed = {each.name for each in arguments if each.alias_info and each.alias_info.is_write}
    writes = _tensors(given.get(name) for name in changed) or _tensors(result)
    # Not read is what an operator only fills, and what torch gives as its place for a result.
    unread = changed if _fills(func) else changed & {"out"}
    reads = _tensors(value for name, value in given.items() if name not in unread)
    return Operation(func, given, reads, writes)


def _tensors(value: object) -> list[Tensor]:
    """All tensors in nested lists."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [found for each in value for found in _tensors(each)]
    return []


def _fills(func: OpOverload) -> bool:
    return func.overloadpacket.__name__ in ("copy_", "fill_", "zero_")
