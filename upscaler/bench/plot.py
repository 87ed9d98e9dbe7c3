"""The plot of a benchmark: time and memory over the size of the input."""

import io
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from upscaler.bench.runner import Case, Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OWN: Final = ("#0b5fa5", "#1f8fd6", "#63b8ee", "#0a8f8f")
"""Shades of blue, so that this engine stands out from the peers in grey and other colours."""
PEERS: Final = {
    "RealESRGANer": ("#4d4d4d", "#9a9a9a"),
    "OpenVINO": ("#c4570c", "#f0a04b"),
    "onnxruntime": ("#8a3ab0",),
}
PANEL_INCHES: Final = (7.2, 4.4)
LABEL_GAP: Final = 0.058
"""The minimum distance of two labels, as a share of the panel's height."""
INK: Final = "#222222"
FAINT: Final = "#dddddd"

Value = Callable[[Row], float | None]


def png(report: Report) -> bytes:
    """A PNG file: a row of two panels per model, a line per contender, all axes logarithmic.

    Raises ModuleNotFoundError without matplotlib.
    """
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(case.model for case in report.cases))
    width, height = PANEL_INCHES
    figure = Figure(figsize=(2 * width, height * len(models) + 0.9), dpi=150, facecolor="white")
    grid = figure.subplots(len(models), 2, squeeze=False)
    for (left, right), model in zip(grid, models, strict=True):
        cases = [case for case in report.cases if case.model == model]
        _panel(left, cases, f"{model}: time per image", _seconds_label, lambda row: row.median_s)
        # Zero has no place on a logarithmic axis.
        _panel(
            right, cases, f"{model}: peak memory", _bytes_label, lambda row: row.peak_bytes or None
        )
    # The title and the bottom labels have a fixed height in inches, whatever the number of rows.
    total = figure.get_figheight()
    figure.subplots_adjust(
        left=0.05, right=0.84, wspace=0.68, hspace=0.36, top=1 - 0.95 / total, bottom=0.55 / total
    )
    machine = report.machine
    processor = report.gpu or f"{machine.processor}, {report.threads} threads"
    title = (
        f"{processor}, torch {machine.versions.get('torch', '?')}\n"
        f"{report.timing.capitalize()}; memory over the loaded model"
    )
    figure.text(0.012, 1 - 0.18 / total, title, color=INK, size=9.5, va="top", linespacing=1.5)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _panel(
    axes: "Axes", cases: list[Case], title: str, label: Callable[[float], str], value: Value
) -> None:
    sizes = sorted({case.size_px for case in cases})
    names = list(dict.fromkeys(row.name for case in cases for row in case.rows))
    colours = _colours(names)
    ends = []
    for name in names:
        points = [
            (case.size_px, found)
            for case in cases
            for row in case.rows
            if row.name == name and not row.error and (found := value(row)) is not None
        ]
        if points:
            x, y = zip(*points, strict=True)
            own = name.startswith("upscaler")
            axes.plot(x, y, "o-", color=colours[name], ms=5, lw=2.4 if own else 1.5,
                      zorder=3 if own else 2, mec="white", mew=0.8)  # fmt: skip
            ends.append((y[-1], x[-1], name))
    _style(axes, title, sizes, label)
    _label(axes, ends, colours)


def _colours(names: Iterable[str]) -> dict[str, str]:
    """A colour per contender; the variants of one engine have shades of one colour."""
    used: dict[str, int] = {}
    colours = {}
    for name in names:
        engine = name.split()[0]
        shades = PEERS.get(engine, OWN)
        colours[name] = shades[used.get(engine, 0) % len(shades)]
        used[engine] = used.get(engine, 0) + 1
    return colours


def _style(axes: "Axes", title: str, sizes: list[int], label: Callable[[float], str]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(sizes[0] / 1.12, sizes[-1] * 1.12)
    axes.margins(y=0.12)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: label(y)))
    axes.grid(color=FAINT, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK, labelsize=9)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(title, loc="left", size=11.5, color=INK, weight="bold", pad=10)
    axes.set_xlabel("input, pixels per side", size=9, color=INK)


def _label(axes: "Axes", ends: list[tuple[float, int, str]], colours: dict[str, str]) -> None:
    """Write each line's name to the right of the panel, as close to the line's end as fits.

    A thin line connects the two, for names that had to move.
    """
    to_share: Any = axes.transScale + axes.transLimits
    ends = sorted(ends)
    wanted = [float(to_share.transform((x, y))[1]) for y, x, _ in ends]
    for (y, x, name), height in zip(ends, spread(wanted, LABEL_GAP), strict=True):
        axes.annotate(
            name,
            (x, y),
            xytext=(1.05, height),
            textcoords="axes fraction",
            color=colours[name],
            size=9,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": colours[name], "lw": 0.6, "alpha": 0.6,
                "shrinkA": 1, "shrinkB": 4, "relpos": (0, 0.5),
            },
        )  # fmt: skip


def spread(wanted: list[float], gap: float) -> list[float]:
    """Heights at least `gap` apart, close to `wanted` and in its ascending order.

    Heights that are too close are spaced evenly around their mean, and all are kept at most 1.
    """
    # The middle and the number of heights of each group. A new height joins groups it overlaps.
    groups: list[tuple[float, int]] = []
    for height in wanted:
        middle, count = height, 1
        while groups and groups[-1][0] + gap * (groups[-1][1] + count) / 2 > middle:
            below, others = groups.pop()
            middle = (below * others + middle * count) / (others + count)
            count += others
        groups.append((middle, count))
    heights = [
        middle + gap * (place - (count - 1) / 2)
        for middle, count in groups
        for place in range(count)
    ]
    highest = 1.0
    for place in reversed(range(len(heights))):
        heights[place] = min(heights[place], highest)
        highest = heights[place] - gap
    return heights


def _seconds_label(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{_plain(1000 * seconds)} ms"


def _bytes_label(count: float) -> str:
    return f"{_plain(count / 1e9)} GB" if count >= 0.999e9 else f"{_plain(count / 1e6)} MB"


def _plain(value: float) -> str:
    """A value of the axis without the rounding error that its logarithm left."""
    return f"{round(value, 3 - math.floor(math.log10(value))):g}"
