"""The benchmark: interleaved runs of this engine and its peers on the same weights and image.

Machines are noisy, and times measured minutes apart cannot be compared. So every contender waits in
a process of its own, loaded and warm, and runs once per round; ratios are taken within a round. The
order is shuffled per round, so that no contender always runs after the same one. Only one process
runs at a time: the others are stopped, so that their idle threads do not spin.
"""

import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from upscaler.bench.contenders import Contender, Peer
from upscaler.bench.machine import Machine, describe
from upscaler.bench.process import WorkerProcess
from upscaler.errors import WorkerFailed
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.resize import resize
from upscaler.models import Model, flop
from upscaler.settings import Device

Log = Callable[[str], None]
"""Called with a line of text on the current step."""

MAX_SAMPLE: Final = 255
ROWS_AT_ONCE: Final = 256
"""How many rows of two images are compared at a time, which limits the memory needed."""


@dataclass(frozen=True)
class BenchTask:
    """What to measure.

    `image` is uint8 RGB or RGBA of shape (height, width, channels), `sizes` are the inputs' pixels
    per side, and `memory` is this engine's budget in bytes.
    """

    image: Pixels
    models: Sequence[Model]
    sizes: Sequence[int]
    device: Device
    contenders: Sequence[Contender]
    runs: int = 3
    memory: int | None = None


@dataclass(frozen=True)
class Fidelity:
    """The difference of an image from untiled fp32; `psnr_db` is None if they are equal.

    99.9% of the samples differ by at most `p999`, and all by at most `largest`, in 0..255.
    """

    psnr_db: float | None
    p999: int
    largest: int


@dataclass(frozen=True)
class Row:
    """One contender on one image. With an `error`, the other fields have values from before it.

    `ratios` tell how many times as fast as the baseline it was, one per round. `peak_fraction` is
    the share of the matrix peak in its precision. `peak_bytes` is over the loaded model, and
    `reserved_bytes` is what torch's allocator reserved of a GPU for it. `first_s` is from the start
    of a process to its first, small image and to being prepared for this one. `kernels` and
    `moved_bytes` are what it started on a GPU and what that moved at least: see `traffic`.
    """

    name: str
    version: str
    precision: str
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    median_s: float | None = None
    median_ratio: float | None = None
    megapixels_per_s: float | None = None
    peak_fraction: float | None = None
    peak_bytes: int | None = None
    reserved_bytes: int | None = None
    fidelity: Fidelity | None = None
    load_s: float | None = None
    first_s: float | None = None
    kernels: int | None = None
    moved_bytes: int | None = None
    plan: str | None = None
    overhead: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Case:
    """One model on one image of `size_px` pixels per side.

    `baseline` is the name of the row that `ratios` refer to. `truth` is the reason why there is no
    reference image, None if there is one.
    """

    model: str
    size_px: int
    scale: int
    flop: int
    rows: list[Row]
    baseline: str | None
    truth: str | None


@dataclass(frozen=True)
class Report:
    """The results of a benchmark; `peaks` are FLOP per second by precision, as measured."""

    machine: Machine
    device: Device
    gpu: str | None
    threads: int
    runs: int
    peaks: dict[str, float]
    cases: list[Case]

    @property
    def timing(self) -> str:
        """What a row's time is, for the notes and the plot."""
        return f"median of {self.runs} interleaved runs" if self.runs > 1 else "one run"


def begin(task: BenchTask, log: Log) -> Report:
    """The report of `task` without cases: the machine and its matrix peak.

    Raises WorkerFailed if the peak cannot be measured; then nothing else can be either.
    """
    log("measuring the machine's matrix peak")
    precisions = list(dict.fromkeys(each.matrix_precision for each in task.contenders))
    job = {"role": "machine", "device": task.device, "precisions": precisions}
    with (
        tempfile.TemporaryDirectory() as folder,
        WorkerProcess(job, Path(folder) / "log") as worker,
    ):
        measured = worker.answer()
    return Report(machine=describe(), device=task.device, runs=task.runs, cases=[], **measured)


def cases(task: BenchTask, peaks: dict[str, float], log: Log) -> Iterator[Case]:
    """Measure every model at every size, small sizes first; yield each case when it is done.

    `peaks` are those of the report that `begin` returned.
    """
    for model in task.models:
        for size in sorted(set(task.sizes)):
            with tempfile.TemporaryDirectory(prefix="upscaler-bench-") as folder:
                yield _Case(task, model, size, Path(folder), log).run(peaks)


@dataclass
class _Case:
    """One case while it is being measured; its images and logs are in `folder`."""

    task: BenchTask
    model: Model
    size: int
    folder: Path
    log: Log

    def run(self, peaks: dict[str, float]) -> Case:
        np.save(self.folder / "image.npy", square(self.task.image, self.size))
        truth = self._truth()
        rows = [
            Row(each.name, each.version, each.matrix_precision) for each in self.task.contenders
        ]
        with ExitStack() as workers:
            running: dict[int, WorkerProcess] = {}
            for index, contender in enumerate(self.task.contenders):
                rows[index] = self._load(rows[index], contender, index, running, workers)
            for number in range(self.task.runs):
                for index in shuffled(running, number):
                    rows[index] = self._measure(rows[index], number, index, running)
        operations = flop(self.model, self.size, self.size)
        pixels = (self.size * self.model.scale) ** 2
        baseline = _baseline(self.task.contenders, rows)
        return Case(
            model=self.model.name,
            size_px=self.size,
            scale=self.model.scale,
            flop=operations,
            rows=[with_statistics(row, baseline, operations, pixels, peaks) for row in rows],
            baseline=baseline.name if baseline else None,
            truth=truth,
        )

    def _truth(self) -> str | None:
        """Write the reference image; return the error message if that failed."""
        self._log("untiled fp32, as the reference")
        try:
            with self._worker("truth", result=self._path("truth")) as worker:
                worker.answer()
        except WorkerFailed as failure:
            return str(failure)
        return None

    def _load(
        self,
        row: Row,
        contender: Contender,
        index: int,
        running: dict[int, WorkerProcess],
        workers: ExitStack,
    ) -> Row:
        """The row with the load time; a contender that fails is not added to `running`."""
        self._log(f"loading {row.name}")
        job = {"contender": asdict(contender), "memory": self.task.memory}
        began_s = time.perf_counter()
        worker = workers.enter_context(self._worker("contender", name=str(index), **job))
        try:
            row = replace(row, **worker.answer(), first_s=time.perf_counter() - began_s)
        except WorkerFailed as failure:
            return self._failed(row, failure)
        running[index] = worker
        return row

    def _measure(self, row: Row, number: int, index: int, running: dict[int, WorkerProcess]) -> Row:
        """The row with one more run; a contender that fails is removed from `running`."""
        result = self._path("result") if number == 0 else None  # one image is enough to compare
        try:
            answer = running[index].ask(result=result)
            self._check_shape(answer["shape"])
        except WorkerFailed as failure:
            running.pop(index).end()
            return self._failed(row, failure)
        seconds = answer["seconds"]
        self._log(f"round {number + 1} of {self.task.runs}: {row.name} {seconds:.3g} s")
        if result and Path(self._path("truth")).is_file():
            row = replace(row, fidelity=fidelity(self._path("truth"), result))
        if result:
            row = replace(row, kernels=answer["kernels"], moved_bytes=answer["moved_bytes"])
        return replace(
            row,
            seconds=[*row.seconds, seconds],
            peak_bytes=_max_known(row.peak_bytes, answer["peak_bytes"]),
            reserved_bytes=_max_known(row.reserved_bytes, answer["reserved_bytes"]),
        )

    def _check_shape(self, shape: list[int]) -> None:
        """Raise WorkerFailed if an image does not have the size that the network makes."""
        side = self.size * self.model.scale
        if shape != [side, side, 3]:
            raise WorkerFailed(f"its image has the shape {shape}")

    def _failed(self, row: Row, failure: WorkerFailed) -> Row:
        self._log(f"{row.name} failed: {failure}")
        return replace(row, error=str(failure))

    def _worker(self, role: str, name: str = "truth", **job: object) -> WorkerProcess:
        described = {
            "role": role,
            "model": self.model.name,
            "device": self.task.device,
            "image": self._path("image"),
            **job,
        }
        return WorkerProcess(described, self.folder / f"{name}.log")

    def _path(self, name: str) -> str:
        return str(self.folder / f"{name}.npy")

    def _log(self, text: str) -> None:
        self.log(f"{self.model.name} {self.size}x{self.size}: {text}")


def shuffled(running: Iterable[int], number: int) -> list[int]:
    """The contenders in the order of round `number`, which is the same in every benchmark."""
    order = sorted(running)
    # Seeded with the round, so that a benchmark can be repeated exactly.
    random.Random(number).shuffle(order)  # noqa: S311  not for security
    return order


def square(pixels: Pixels, side: int) -> Pixels:
    """The central square of RGB or RGBA `pixels` as RGB, resized to `side` pixels by Lanczos."""
    height, width = pixels.shape[:2]
    length = min(height, width)
    top, left = (height - length) // 2, (width - length) // 2
    middle = pixels[top : top + length, left : left + length, :3]
    return np.ascontiguousarray(resize(np.ascontiguousarray(middle), (side, side)))


def fidelity(truth: str, result: str) -> Fidelity:
    """Compare the image in the .npy file `result` with that in `truth`, of the same shape."""
    # A histogram of the differences is enough for all three values, and small for any image.
    counts = np.zeros(MAX_SAMPLE + 1, np.int64)
    for one, other in zip(_strips(truth), _strips(result), strict=True):
        difference = np.abs(one.astype(np.int16) - other).ravel()
        counts += np.bincount(difference, minlength=len(counts))
    total = counts.sum()
    squared_error = float(counts @ np.arange(len(counts)) ** 2 / total)
    return Fidelity(
        psnr_db=float(10 * np.log10(MAX_SAMPLE**2 / squared_error)) if squared_error else None,
        p999=int(np.searchsorted(counts.cumsum(), 0.999 * total)),
        largest=int(np.flatnonzero(counts)[-1]),
    )


def _strips(path: str) -> Iterator[Pixels]:
    pixels = np.load(path, mmap_mode="r")
    for top in range(0, len(pixels), ROWS_AT_ONCE):
        yield pixels[top : top + ROWS_AT_ONCE]


def with_statistics(
    row: Row, baseline: Row | None, operations: int, pixels: int, peaks: dict[str, float]
) -> Row:
    """The row with the fields that are computed from its seconds.

    `operations` are those of the network for the image, and `pixels` those of the result.
    """
    if row.error or not row.seconds:
        return row
    median_s = median(row.seconds)
    ratios = [b / own for b, own in zip(baseline.seconds if baseline else [], row.seconds)]  # noqa: B905
    return replace(
        row,
        median_s=median_s,
        ratios=ratios,
        median_ratio=median(ratios) if ratios else None,
        megapixels_per_s=pixels / 1e6 / median_s,
        peak_fraction=operations / median_s / peaks[row.precision],
    )


def _baseline(contenders: Sequence[Contender], rows: Sequence[Row]) -> Row | None:
    """The row that others are compared with: RealESRGANer's first that did not fail, or any first.

    Its variant with tiles comes first, which is how it is commonly used.
    """
    succeeded = [(c, row) for c, row in zip(contenders, rows, strict=True) if not row.error]
    peers = [row for contender, row in succeeded if contender.peer is Peer.REALESRGAN]
    return next(iter(peers or [row for _, row in succeeded]), None)


def _max_known(one: int | None, other: int | None) -> int | None:
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)


def photograph() -> Path:
    """The path of the default photo, in the installed package or else in the repository."""
    package = Path(__file__).parents[1]
    packaged = package / "photo.png"  # pyproject.toml adds it to the wheel
    return packaged if packaged.is_file() else package.parent / "docs" / "photo.png"
