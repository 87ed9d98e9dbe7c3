"""The worker process of a benchmark, one for each contender.

`python -m upscaler.bench.worker JOB`, where JOB is a JSON object with a `role`. It writes one JSON
object per line to standard output. A contender answers once when it is loaded, and then upscales
the image for every line that it reads, and answers with the time and memory that this took. The
other roles answer once. After a failure the answer has an `error`.
"""

import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
import torch

from upscaler.bench import adapters, peak
from upscaler.bench.contenders import Contender, Peer
from upscaler.bench.traffic import Traffic, watched
from upscaler.engine.memory import trim_heap
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, UpscalingModel
from upscaler.settings import Precision

Answer = Callable[..., None]
"""Writes one answer: a JSON object with the keyword arguments as its fields."""

WARM_UP_PX: Final = 64
"""The longest side of the image that each contender is warmed up with."""
QUICK_S: Final = 1.0
"""A shorter run is repeated, and the second one counts."""
PR_SET_PDEATHSIG: Final = 1
"""The option of Linux's prctl for the signal to receive when the parent dies."""


def main() -> int:
    """Do the job in the arguments; return 1 if it fails."""
    job = json.loads(sys.argv[1])
    answers = _private_stdout()

    def answer(**fields: object) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    _configure_process()
    try:
        {"machine": _machine, "truth": _truth, "contender": _contender}[job["role"]](job, answer)
    except Exception as error:  # any error: it must not stop the other contenders
        first_line = str(error).strip().partition("\n")[0]
        answer(error=f"{type(error).__name__}: {first_line}")
        return 1
    return 0


def _machine(job: dict[str, Any], answer: Answer) -> None:
    """Measure the machine's matrix peak; answer with it, the number of threads and the GPU."""
    device = torch.device(job["device"])
    fields: dict[str, object] = {"threads": torch.get_num_threads(), "gpu": None}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        fields["gpu"] = f"{card.name}, {card.total_memory / 1e9:.1f} GB, CUDA {torch.version.cuda}"
    answer(peaks=peak.measure(device, job["precisions"]), **fields)


def _truth(job: dict[str, Any], answer: Answer) -> None:
    """Write the reference image: the plain network's output."""
    truth = adapters.Truth(MODELS[UpscalingModel(job["model"])], torch.device(job["device"]))
    np.save(job["result"], truth.run(np.load(job["image"])))
    answer()


def _contender(job: dict[str, Any], answer: Answer) -> None:
    """Load a contender, and upscale the image once per line of standard input."""
    described = job["contender"]
    contender = Contender(
        Peer(described["peer"]) if described["peer"] else None,
        Precision(described["precision"]),
        described["tile"],
    )
    device = torch.device(job["device"])
    pixels = np.load(job["image"])
    started = time.perf_counter()
    runner = adapters.load(contender, MODELS[UpscalingModel(job["model"])], device, job["memory"])
    load_s = time.perf_counter() - started
    # Loads kernels and starts threads, which is neither time nor memory of an image.
    warm_up = np.ascontiguousarray(pixels[:WARM_UP_PX, :WARM_UP_PX])
    runner.prepare(warm_up.shape[1], warm_up.shape[0])
    runner.run(warm_up)
    memory = _Memory.now(device)
    runner.prepare(pixels.shape[1], pixels.shape[0])
    answer(load_s=load_s, plan=runner.plan, overhead=runner.overhead)
    for line in sys.stdin:
        answer(**_measure(runner, pixels, memory, json.loads(line)["result"]))


def _measure(
    runner: adapters.Runner, pixels: Pixels, memory: "_Memory", result: str | None
) -> dict[str, object]:
    """Measure one run, and write its image to `result` if that is a path."""
    memory.reset()
    seconds, upscaled = _timed_run(runner, pixels, memory.device)
    # The other contenders have replaced what was in the caches, which a short run would notice. On
    # CUDA the first run also has to allocate what `empty_cache` below gave back.
    if seconds < QUICK_S or memory.device.type == "cuda":
        seconds, upscaled = _timed_run(runner, pixels, memory.device)
    peaks = memory.peaks()
    started: dict[str, int | None] = {"kernels": None, "moved_bytes": None}
    if result:
        np.save(result, upscaled)
        if memory.device.type == "cuda":
            started = _traffic(runner, pixels)
    if memory.device.type == "cuda":
        torch.cuda.empty_cache()  # all contenders share the card
    return {"seconds": seconds, "shape": upscaled.shape, **peaks, **started}


def _traffic(runner: adapters.Runner, pixels: Pixels) -> dict[str, int | None]:
    """The kernels that a run starts and the bytes that they move; counting them takes time."""
    with watched(Traffic()) as traffic:
        runner.run(pixels)
    return {"kernels": traffic.kernels.total(), "moved_bytes": traffic.moved.total()}


def _timed_run(
    runner: adapters.Runner, pixels: Pixels, device: torch.device
) -> tuple[float, Pixels]:
    """The seconds that a run took, and its image."""
    started = time.perf_counter()
    upscaled = runner.run(pixels)
    if device.type == "cuda":
        torch.cuda.synchronize()  # CUDA's calls return before the GPU has done the work
    return time.perf_counter() - started, upscaled


@dataclass(frozen=True)
class _Memory:
    """The memory that a process uses with its model loaded; peaks are relative to it."""

    device: torch.device
    bytes: int | None

    @classmethod
    def now(cls, device: torch.device) -> "_Memory":
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            return cls(device, torch.cuda.memory_allocated())
        trim_heap()
        return cls(device, _status_bytes("VmRSS"))

    def reset(self) -> None:
        """Forget the peak so far."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return
        trim_heap()  # freed memory that the allocator keeps would hide a part of the next peak
        if sys.platform == "linux":
            # If this is not permitted, the peak of loading the model counts as well.
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM

    def peaks(self) -> dict[str, int | None]:
        """The peak since `reset`; torch may have reserved more of a GPU than it allocated."""
        if self.device.type == "cuda":
            most, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
            return {"peak_bytes": self._over(most), "reserved_bytes": self._over(reserved)}
        return {"peak_bytes": self._over(_status_bytes("VmHWM")), "reserved_bytes": None}

    def _over(self, peak_bytes: int | None) -> int | None:
        if peak_bytes is None or self.bytes is None:
            return None
        return max(peak_bytes - self.bytes, 0)


def _status_bytes(key: str) -> int | None:
    """The value of a line in /proc/self/status in bytes; None on other systems than Linux."""
    if sys.platform != "linux":
        return None
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return None


def _private_stdout() -> TextIO:
    """A file that writes to standard output, while all that is printed goes to standard error.

    Redirected as file descriptors, because native libraries print as well.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def _configure_process() -> None:
    """Ignore Ctrl+C, die with the parent, and be the OOM killer's first choice."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent has to survive, so that it can report which contender ran out of memory.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    sys.exit(main())
