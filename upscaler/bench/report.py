"""The results of a benchmark, as Markdown tables for people and as JSON for programs."""

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from upscaler.bench.contenders import INSTALL, TITLES, installed, supported_peers
from upscaler.bench.runner import Case, Report, Row
from upscaler.settings import Device

HEADINGS = (
    "engine",
    "time",
    "Mpx/s",
    "faster",
    "of peak",
    "memory",
    "overhead",
    "PSNR",
    "99.9%",
    "largest",
)
ON_A_GPU = "first", "kernels", "moved"
"""The headings of columns that only a table of a GPU has."""
GPU_NOTES = (
    " first: from the start of a process to its first image, of 64 pixels a side. kernels: what a "
    "run starts on the GPU, by torch's operators. moved: the bytes that these read and write at "
    "least, each tensor once."
)
UNKNOWN = "-"


def to_json(report: Report) -> str:
    """All results, with the seconds of each run; unknown values are null."""
    return json.dumps(asdict(report), indent=2) + "\n"


def notes(report: Report) -> str:
    """An explanation of the table's columns."""
    return textwrap.fill(
        f"time: {report.timing}, pixels to pixels. Mpx/s: output. "
        "faster: than the row with 1, round by round: median (least to most). "
        "of peak: direct-convolution FLOP per second over the measured matrix peak; an engine that "
        "transforms convolutions needs fewer, and may have more than 100%. memory: peak over the "
        "loaded model. overhead: input pixels computed more than once. PSNR, and the difference "
        "that 99.9% of samples keep to and the largest, in levels of 255: against untiled fp32."
        + (GPU_NOTES if report.device is Device.CUDA else ""),
        width=100,
    )


def heading(report: Report) -> str:
    """A list of the machine, its versions, its matrix peak, and the peers not installed."""
    machine = report.machine
    facts = [machine.processor, *machine.flags]
    facts += [f"{machine.cores} cores", f"{report.threads} threads"]
    if machine.memory_bytes:
        facts.append(f"{machine.memory_bytes / 1e9:.1f} GB")
    facts += [machine.system, f"Python {machine.python}"]
    lines = [report.gpu or "", ", ".join(facts)]
    lines.append(", ".join(f"{name} {version}" for name, version in machine.versions.items()))
    rates = ", ".join(f"{name} {_rate(rate)}" for name, rate in report.peaks.items())
    lines.append(f"Matrix peak measured on {report.device}: {rates}")
    lines += [
        f"Not installed: {TITLES[peer]} ({INSTALL[peer]})"
        for peer in supported_peers(report.device)
        if not installed(peer)
    ]
    return "\n".join(f"- {line}" for line in lines if line)


def section(case: Case) -> str:
    """One case in Markdown: a table, then failures and plans."""
    side = case.size_px * case.scale
    title = (
        f"### {case.model}, {case.size_px}x{case.size_px} to {side}x{side}, "
        f"{significant(case.flop / 1e12)} TFLOP"
    )
    on_a_gpu = any(row.kernels is not None for row in case.rows)
    headings = (*HEADINGS, *ON_A_GPU) if on_a_gpu else HEADINGS
    parts = [title, table([_cells(row)[: len(headings)] for row in case.rows], headings)]
    remarks = [f"{row.name} failed: {row.error}" for row in case.rows if row.error]
    remarks += [f"Plan of {row.name}: {row.plan}" for row in case.rows if row.plan]
    if case.truth:
        remarks.append(f"Nothing is compared with untiled fp32: {case.truth}")
    if remarks:
        parts.append("\n".join(f"- {remark}" for remark in remarks))
    return "\n\n".join(parts)


def table(rows: Sequence[Sequence[str]], headings: Sequence[str] = HEADINGS) -> str:
    """A Markdown table under `headings`, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(aligned)} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(headings), line(rule), *map(line, rows)])


def _cells(row: Row) -> list[str]:
    if row.error:
        return [row.name, "failed", *[UNKNOWN] * (len(HEADINGS + ON_A_GPU) - 2)]
    return [
        row.name,
        UNKNOWN if row.median_s is None else _time(row.median_s),
        UNKNOWN if row.megapixels_per_s is None else significant(row.megapixels_per_s),
        _faster(row),
        UNKNOWN if row.peak_fraction is None else f"{row.peak_fraction:.0%}",
        UNKNOWN if row.peak_bytes is None else _bytes(row.peak_bytes),
        UNKNOWN if row.overhead is None else f"{row.overhead:.1%}",
        *_fidelity(row),
        UNKNOWN if row.first_s is None else _time(row.first_s),
        UNKNOWN if row.kernels is None else f"{row.kernels:,}",
        UNKNOWN if row.moved_bytes is None else _bytes(row.moved_bytes),
    ]


def _fidelity(row: Row) -> list[str]:
    if row.fidelity is None:
        return [UNKNOWN] * 3
    psnr = row.fidelity.psnr_db
    words = "equal" if psnr is None else f"{psnr:.1f} dB"
    return [words, str(row.fidelity.p999), str(row.fidelity.largest)]


def _faster(row: Row) -> str:
    if row.median_ratio is None:
        return UNKNOWN
    if set(row.ratios) == {1}:
        return "1"
    least, most = significant(min(row.ratios)), significant(max(row.ratios))
    middle = significant(row.median_ratio)
    return middle if len(row.ratios) == 1 else f"{middle} ({least} to {most})"


def _time(seconds: float) -> str:
    return f"{significant(seconds)} s" if seconds >= 1 else f"{significant(1000 * seconds)} ms"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _rate(flop_per_s: float) -> str:
    if flop_per_s >= 1e12:
        return f"{significant(flop_per_s / 1e12)} TFLOP/s"
    return f"{significant(flop_per_s / 1e9)} GFLOP/s"


def significant(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value <= 0:
        return "0"
    # Rounded first: 9.996 becomes 10, which has one decimal fewer.
    rounded = float(f"{value:.3g}")
    return f"{rounded:.{max(2 - math.floor(math.log10(rounded)), 0)}f}"
