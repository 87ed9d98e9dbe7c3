"""The benchmark: this engine and its peers on the same weights and image, taking turns in one run.

Machines are noisy, and times measured minutes apart cannot be compared. So every contender waits in
a process of its own, loaded and warm, and runs once per round; ratios are taken within a round. The
order is shuffled per round, so that no contender always runs after the same one. Only one works at
a time: the waiting processes are stopped, so that none of their idle threads spins.
"""

import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

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
"""Called with a line of text on what is being done."""

PSNR_LEVELS: Final = 255
ROWS_AT_ONCE: Final = 256
"""How many rows of two images are compared at a time, so that it needs little memory."""


@dataclass(frozen=True)
class BenchTask:
    """What to measure; `sizes` are in pixels per side, `memory` this engine's budget in bytes."""

    image: Pixels
    models: Sequence[Model]
    sizes: Sequence[int]
    device: Device
    contenders: Sequence[Contender]
    runs: int = 3
    memory: int | None = None


@dataclass(frozen=True)
class Fidelity:
    """How far an image is from untiled fp32, in levels of 255; `psnr_db` is None if equal."""

    psnr_db: float | None
    p999: int
    largest: int


@dataclass(frozen=True)
class Row:
    """One contender on one image. With an `error`, the other fields are from before it.

    `ratios` are how many times faster it was than the baseline, round by round, and `peak_fraction`
    is of the matrix peak in its precision.
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
    plan: str | None = None
    overhead: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Case:
    """One model on one image of `size_px` pixels per side; `truth` is why there is no reference."""

    model: str
    size_px: int
    scale: int
    flop: int
    rows: list[Row]
    baseline: str | None
    truth: str | None


@dataclass(frozen=True)
class Report:
    """The results of a benchmark; `peaks` are FLOP per second by precision."""

    machine: Machine
    device: Device
    gpu: str | None
    threads: int
    runs: int
    peaks: dict[str, float]
    cases: list[Case]


def begin(task: BenchTask, log: Log) -> Report:
    """The report of `task` without any case yet: what the machine is, and its matrix peak.

    Raises WorkerFailed if that cannot be measured, and then nothing else can.
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
    """Every model at every size, small ones first, each as soon as it is measured.

    `peaks` are those of `begin`, and `log` is called at every step.
    """
    for model in task.models:
        for size in sorted(set(task.sizes)):
            with tempfile.TemporaryDirectory(prefix="upscaler-bench-") as folder:
                yield _Case(task, model, size, Path(folder), log).run(peaks)


@dataclass
class _Case:
    """One case while it is being measured; `folder` is a folder for its images."""

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
                    rows[index] = self._turn(rows[index], number, index, running)
        operations = flop(self.model, self.size, self.size)
        pixels = (self.size * self.model.scale) ** 2
        baseline = _baseline(self.task.contenders, rows)
        return Case(
            model=self.model.name,
            size_px=self.size,
            scale=self.model.scale,
            flop=operations,
            rows=[summed_up(row, baseline, operations, pixels, peaks) for row in rows],
            baseline=baseline.name if baseline else None,
            truth=truth,
        )

    def _truth(self) -> str | None:
        """Write the reference image; return the error if that failed."""
        self._log("untiled fp32, to compare with")
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
        worker = workers.enter_context(self._worker("contender", name=str(index), **job))
        try:
            row = replace(row, **worker.answer())
        except WorkerFailed as failure:
            return self._failed(row, failure)
        running[index] = worker
        return row

    def _turn(self, row: Row, number: int, index: int, running: dict[int, WorkerProcess]) -> Row:
        """The row after one more run. Only the first image is kept and compared."""
        result = self._path("result") if number == 0 else None
        try:
            answer = self._checked(running[index].ask(result=result))
        except WorkerFailed as failure:
            running.pop(index).end()
            return self._failed(row, failure)
        seconds = answer["seconds"]
        self._log(f"round {number + 1} of {self.task.runs}: {row.name} {seconds:.3g} s")
        if result and Path(self._path("truth")).is_file():
            row = replace(row, fidelity=fidelity(self._path("truth"), result))
        return replace(
            row,
            seconds=[*row.seconds, seconds],
            peak_bytes=_more(row.peak_bytes, answer["peak_bytes"]),
            reserved_bytes=_more(row.reserved_bytes, answer["reserved_bytes"]),
        )

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer. Raises WorkerFailed if its image has another shape than the network makes."""
        side = self.size * self.model.scale
        if answer["shape"] != [side, side, 3]:
            raise WorkerFailed(f"its image has the shape {answer['shape']}")
        return answer

    def _failed(self, row: Row, failure: WorkerFailed) -> Row:
        self._log(f"{row.name} failed: {failure}")
        return replace(row, error=str(failure))

    def _worker(self, role: str, name: str = "truth", **job: object) -> WorkerProcess:
        whole = {
            "role": role,
            "model": self.model.name,
            "device": self.task.device,
            "image": self._path("image"),
            **job,
        }
        return WorkerProcess(whole, self.folder / f"{name}.log")

    def _path(self, name: str) -> str:
        return str(self.folder / f"{name}.npy")

    def _log(self, text: str) -> None:
        self.log(f"{self.model.name} {self.size}x{self.size}: {text}")


def shuffled(running: Iterable[int], number: int) -> list[int]:
    """The contenders in the order of round `number`, which is the same in every benchmark."""
    order = sorted(running)
    random.Random(number).shuffle(order)  # noqa: S311  not for security
    return order


def square(pixels: Pixels, side: int) -> Pixels:
    """The middle square of RGB or RGBA `pixels` as RGB at `side` pixels, by Lanczos."""
    height, width = pixels.shape[:2]
    length = min(height, width)
    top, left = (height - length) // 2, (width - length) // 2
    middle = pixels[top : top + length, left : left + length, :3]
    return np.ascontiguousarray(resize(np.ascontiguousarray(middle), (side, side)))


def fidelity(truth: str, result: str) -> Fidelity:
    """How far the image in the .npy file `result` is from that in `truth`, of the same shape."""
    levels = np.zeros(PSNR_LEVELS + 1, np.int64)
    for one, other in zip(_strips(truth), _strips(result), strict=True):
        difference = np.abs(one.astype(np.int16) - other).ravel()
        levels += np.bincount(difference, minlength=len(levels))
    total = levels.sum()
    error = float(levels @ np.arange(len(levels)) ** 2 / total)
    return Fidelity(
        psnr_db=float(10 * np.log10(PSNR_LEVELS**2 / error)) if error else None,
        p999=int(np.searchsorted(levels.cumsum(), 0.999 * total)),
        largest=int(np.flatnonzero(levels)[-1]),
    )


def _strips(path: str) -> Iterator[Pixels]:
    pixels = np.load(path, mmap_mode="r")
    for top in range(0, len(pixels), ROWS_AT_ONCE):
        yield pixels[top : top + ROWS_AT_ONCE]


def summed_up(
    row: Row, baseline: Row | None, operations: int, pixels: int, peaks: dict[str, float]
) -> Row:
    """The row with all that follows from its measurements; `pixels` are those of the result."""
    if row.error or not row.seconds:
        return row
    middle = median(row.seconds)
    ratios = [b / own for b, own in zip(baseline.seconds if baseline else [], row.seconds)]  # noqa: B905
    return replace(
        row,
        median_s=middle,
        ratios=ratios,
        median_ratio=median(ratios) if ratios else None,
        megapixels_per_s=pixels / 1e6 / middle,
        peak_fraction=operations / middle / peaks[row.precision],
    )


def _baseline(contenders: Sequence[Contender], rows: Sequence[Row]) -> Row | None:
    """What the others are compared with: RealESRGANer with the usual tiles, if it did not fail."""
    fine = [(c, row) for c, row in zip(contenders, rows, strict=True) if not row.error]
    peers = [row for contender, row in fine if contender.peer is Peer.REALESRGAN]
    return next(iter(peers or [row for _, row in fine]), None)


def _more(one: int | None, other: int | None) -> int | None:
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)


def photograph() -> Path:
    """The default photo: the repository's, or its copy in a wheel."""
    package = Path(__file__).parents[1]
    packaged = package / "photo.png"
    return packaged if packaged.is_file() else package.parent / "docs" / "photo.png"
