"""A CUDA device in a torch that has none: tensors without values, and everything else for real.

Tensors are torch's FakeTensors that say they are on cuda:0. They have shapes, strides, dtypes,
devices and memory that they share, and no values: so what would raise on a card raises, and
networks of any size take no time. The kernels of this project are not run either: what they are
asked to do is checked and counted where they are launched. Streams and events are those of
`fake_streams`.

What it cannot see: values, real time, what cuDNN chooses, and faults of the driver.
"""

import ctypes
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from tests.support.fake_streams import (
    DEFAULT,
    HOST,
    Event,
    Memory,
    Queue,
    Stream,
    current_stream,
    on_stream,
)
from upscaler.bench.traffic import NO_KERNEL, Operation, Traffic, watched
from upscaler.engine.gpu.launches import Launch, launcher

CUDA: Final = torch.device("cuda", 0)
GIB: Final = 2**30
SCALARS: Final = ("_local_scalar_dense", "item", "is_nonzero")
NUMPY: Final = {torch.uint8: np.uint8, torch.float32: np.float32}


class Card(Traffic):  # type: ignore[no-untyped-call]
    """What happened on the card since `reset`, and what was wrong with it.

    `waits` is what the host waited for, `convolutions` the channels and dtypes of torch's own,
    `peak` the most memory that was allocated at one time, and `refused` how often there was none.
    Kernels whose number `fails` raise `failure`.
    """

    def __init__(self, memory_bytes: int = 139 * GIB) -> None:
        super().__init__()
        self.memory_bytes = memory_bytes
        self.waits = Counter[str]()
        self.problems: list[str] = []
        self.convolutions: set[tuple[int, torch.dtype]] = set()
        self.fails: Callable[[int], bool] = lambda _: False
        self.failure = ""
        self.live = self.peak = self.refused = 0
        self.memories: dict[int, Memory] = {}
        self.pinned: set[int] = set()
        self.arrays: dict[int, Callable[[], object]] = {}

    def reset(self) -> None:
        """Forget what was counted, after all of it has ended."""
        DEFAULT.synchronize()
        for counted in (self.kernels, self.moved, self.waits, self.problems, self.convolutions):
            counted.clear()
        self.peak = self.live

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        if name not in SCALARS:
            return super().__torch_dispatch__(func, types, args, kwargs)
        [tensor] = args
        queue = current_stream() if tensor.is_cuda else HOST
        self.work(queue, name, [tensor], [])
        if tensor.is_cuda:
            self.wait(queue, "a value")
        return True

    def ran(self, operation: Operation) -> None:
        name, reads, writes = operation.name, operation.reads, operation.writes
        kinds = {each.device.type for each in (*reads, *writes)}
        if name == "_convolution":
            self.convolutions.add((reads[0].shape[1], reads[0].dtype))
        if name in NO_KERNEL:
            for tensor in writes:
                self.memory(tensor)
        elif name in ("_to_copy", "copy_") and kinds == {"cpu", "cuda"}:
            self.copy(operation)
        elif "cuda" in kinds:
            self.start(name, reads, writes, operation.moved)
        else:
            self.work(HOST, name, reads, writes)

    def launched(self, launch: Launch) -> None:
        tensors = {name: it for name, it in launch.given.items() if isinstance(it, Tensor)}
        for name, tensor in tensors.items():
            if tensor.device != CUDA:
                self.problems.append(f"{launch.name} gets {name} on {tensor.device}")
                raise ValueError("Pointer argument cannot be accessed from Triton (cpu tensor?)")
            if tensor.dtype != _promised(name, launch):
                self.problems.append(f"{launch.name} gets {name} in {tensor.dtype}")
        if _pixels_read(launch) > len(launch.given.get("source", ())):
            self.problems.append(f"{launch.name} reads beyond the end of its map")
        reads, writes = ([tensors[name] for name in each] for each in (launch.reads, launch.writes))
        self.start(launch.name, reads, writes, launch.moved)

    def copy(self, operation: Operation) -> None:
        """A copy from the host to the card or back, which waits where memory is not pinned."""
        [source], [target] = operation.reads, operation.writes
        asynchronous, stream = operation.given.get("non_blocking"), current_stream()
        host, way = (target, "to the host") if source.is_cuda else (source, "from the host")
        key = host.untyped_storage()._cdata
        if source.is_cuda and key in self.memories:
            if self.memories[key].written - HOST.clock:
                self.problems.append("a buffer is used again before the copy to it has ended")
            if self.arrays.get(key, lambda: None)() is not None:
                self.problems.append("a buffer is used again while an array shows it")
        elif source.is_cuda and asynchronous:
            self.pinned.add(key)  # as torch allocates what it makes for such a copy
        self.start(f"copy {way}", [source], [target], operation.moved)
        if not asynchronous or key not in self.pinned:
            self.wait(stream, f"a copy {way}")
        elif stream is DEFAULT:
            self.problems.append("a copy is on the stream that computes")

    def start(self, name: str, reads: list[Tensor], writes: list[Tensor], moved: int) -> None:
        """A kernel on the current stream."""
        number = self.kernels.total()
        self.count(name, moved)
        if self.fails(number):
            raise RuntimeError(self.failure)
        stream = current_stream()
        stream.follow(HOST.clock)
        self.work(stream, name, reads, writes)

    def work(self, queue: Queue, name: str, reads: list[Tensor], writes: list[Tensor]) -> None:
        """The next piece of work of a queue."""
        queue.clock[queue] += 1
        for tensors, write in ((reads, False), (writes, True)):
            for tensor in tensors:
                late = self.memory(tensor).touch(queue, write=write)
                if late:
                    verb = "writes" if write else "reads"
                    self.problems.append(
                        f"{name} on {queue.name} {verb} what {late.name} may be using"
                    )

    def wait(self, queue: Queue, what: str) -> None:
        """The host waits for all that the queue has to do."""
        self.waits[what] += 1
        HOST.follow(queue.clock)

    def memory(self, tensor: Tensor) -> Memory:
        """A tensor's memory; raises what torch raises if it is new and there is too little."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.memories:
            size = storage.nbytes() if tensor.is_cuda else 0
            self.memories[key] = Memory(current_stream() if tensor.is_cuda else HOST)
            self.live += size
            weakref.finalize(storage, self.freed, key, size)
            if self.live > self.memory_bytes:
                self.refused += 1
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
            self.peak = max(self.peak, self.live)
        return self.memories[key]

    def freed(self, key: int, size: int) -> None:
        memory = self.memories.pop(key)
        self.pinned.discard(key)
        self.arrays.pop(key, None)
        self.live -= size
        # Pinned memory is not used again by torch before all copies to it have ended.
        late = memory.used_after_free() if size else None
        if late:
            self.problems.append(f"memory is freed that {late.name} may be using")

    def array(self, tensor: Tensor) -> NDArray[Any]:
        """In place of Tensor.numpy, for a FakeTensor: zeros."""
        if tensor.device.type != "cpu":
            raise TypeError(f"can't convert {tensor.device} device type tensor to numpy")
        self.work(HOST, "numpy", [tensor], [])
        result = np.zeros(tuple(tensor.shape), NUMPY[tensor.dtype])
        self.arrays[tensor.untyped_storage()._cdata] = weakref.ref(result)
        return result


def _promised(name: str, launch: Launch) -> torch.dtype:
    """What `kernels` says of an argument: maps and weights are fp16, images and sums fp32."""
    single = (
        name in ("bias", "slopes", "image")
        or (name == "weights" and "image" in launch.given)
        or (name in ("out", "residual", "outer") and launch.given.get("IMAGE"))
    )
    return torch.float32 if single else torch.float16


def _pixels_read(launch: Launch) -> int:
    """The pixels of `source` up to the last one that is read, beyond borders and columns too."""
    given = launch.given
    blocks = given["blocks"]
    if launch.name == "convolve_image":
        return 0
    # Results are made two rows at a time, or of two rows, and in blocks; each reads its neighbours.
    rows = {"convolve": 2, "double_and_convolve": 1}[launch.name] * (launch.grid[0] // blocks) + 2
    return (rows - 1) * given["pitch"] + blocks * given["COLUMNS"] + 2  # type: ignore[no-any-return]


class WithoutDriver(FakeTensorMode):  # type: ignore[no-untyped-call]
    """It asks no driver, though there seems to be a device."""

    avoid_device_init = True


@contextmanager
def fake_cuda(
    memory_bytes: int = 139 * GIB, capability: tuple[int, int] = (9, 0)
) -> Iterator[Card]:
    """Within, torch has one CUDA device, on which nothing is computed."""
    card = Card(memory_bytes)
    names = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda _device=None: "fake",
        "get_device_capability": lambda _device=None: capability,
        "Stream": Stream,
        "Event": Event,
        "stream": on_stream,
        "current_stream": current_stream,
        "default_stream": lambda _device=None: DEFAULT,
        "synchronize": lambda _device=None: card.wait(current_stream(), "everything"),
        "memory_reserved": lambda _device=None: card.live,
        "memory_allocated": lambda _device=None: card.live,
        "mem_get_info": lambda _device=None: (memory_bytes - card.live, memory_bytes),
        "empty_cache": lambda: None,
    }
    with pytest.MonkeyPatch.context() as patch, fake_tensors("cuda", card):
        for name, value in names.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(Tensor, "record_stream", lambda it, to: card.memory(it).recorded.add(to))
        yield card


@contextmanager
def fake_tensors(kind: str, card: Card) -> Iterator[None]:
    """Within, there seems to be a device of that kind, whose operators `card` sees."""
    numpy = Tensor.numpy

    def array(tensor: Tensor, **options: Any) -> NDArray[Any]:
        fake = isinstance(tensor, FakeTensor)
        return card.array(tensor) if fake else numpy(tensor, **options)

    for queue in (HOST, DEFAULT):
        queue.clock.clear()
    token = launcher.set(lambda *_, **__: None)
    try:
        with pytest.MonkeyPatch.context() as patch, _guard(kind):
            patch.setattr(Tensor, "numpy", array)
            with WithoutDriver(allow_non_fake_inputs=True), watched(card):
                yield
    finally:
        launcher.reset(token)


@contextmanager
def without_modes() -> Iterator[None]:
    """Within the two above, tensors are torch's own again."""
    with _disable_current_modes():
        yield


@contextmanager
def _guard(kind: str) -> Iterator[None]:
    """Lend a kind of device the CPU's guard, which does nothing.

    Without one, a build of torch that lacks that kind refuses even a slice.
    """
    place = {"cuda": 1, "mps": 13}[kind]  # c10/core/DeviceType.h
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * 16).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    before = guards[place]
    guards[place] = before or guards[0]
    try:
        yield
    finally:
        guards[place] = before
