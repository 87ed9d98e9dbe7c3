"""The geometry of the page's charts: how many rules got which verdict, and response times.

The page's template draws them as SVG.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from contract_tests.report.report import Report, RuleVerdict, Times

WIDTH: Final = 480
"""The width of a chart of times, in SVG's units."""
HEIGHT: Final = 96
"""The height of its highest column."""
COLUMNS: Final = 32
SHORTEST_S: Final = 1e-4
"""Times have this resolution, and zero has no logarithm."""
LABEL_WIDTH: Final = 60
"""Labels on the axis that are closer than this would overlap."""


@dataclass(frozen=True)
class Segment:
    """One part of a bar, in percent of its width."""

    verdict: RuleVerdict
    count: int
    left: float
    width: float


@dataclass(frozen=True)
class Column:
    """A bar of a histogram, in SVG's units."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Tick:
    """A labelled time on the axis."""

    x: float
    label: str


@dataclass(frozen=True)
class Distribution:
    """A histogram of times on a logarithmic axis."""

    columns: tuple[Column, ...]
    median_x: float
    p95_x: float
    ticks: tuple[Tick, ...]


def bar(report: Report) -> list[Segment]:
    """One bar for all rules, with a segment for each verdict."""
    counts = Counter(rule.verdict for rule in report.rules)
    segments, left = [], 0.0
    for verdict in RuleVerdict:
        width = 100 * counts[verdict] / len(report.rules)
        segments.append(Segment(verdict, counts[verdict], left, width))
        left += width
    return segments


def distribution(times: Times) -> Distribution:
    """How long the responses of a kind took; there has to be at least one."""
    assert times.median is not None, "there is at least one"
    assert times.p95 is not None, "there is at least one"
    low, high = (math.log(max(each, SHORTEST_S)) for each in (times.all[0], times.all[-1]))
    # At least a factor of 4 from end to end: otherwise noise would look like a spread.
    middle, half = (low + high) / 2, max(high - low, math.log(4)) / 2
    low, high = middle - 1.05 * half, middle + 1.05 * half

    def position(seconds: float) -> float:
        share = (math.log(max(seconds, SHORTEST_S)) - low) / (high - low)
        return WIDTH * min(max(share, 0), 1)

    return Distribution(
        tuple(_columns([position(each) for each in times.all])),
        position(times.median),
        position(times.p95),
        tuple(_ticks(low, high, position)),
    )


def _columns(positions: list[float]) -> Iterator[Column]:
    counts = Counter(min(int(each * COLUMNS / WIDTH), COLUMNS - 1) for each in positions)
    step, most = WIDTH / COLUMNS, max(counts.values())
    for column, count in sorted(counts.items()):
        height = HEIGHT * count / most
        yield Column(column * step + 1, HEIGHT - height, step - 2, height)


def _ticks(low: float, high: float, position: Callable[[float], float]) -> Iterator[Tick]:
    """1, 2 and 5 of each power of ten seconds, as far as there is room for their labels."""
    steps = [digit * 10.0**power for power in range(-4, 5) for digit in (1, 2, 5)]
    last = -math.inf
    for seconds in steps:
        x = position(seconds)
        inside = low <= math.log(seconds) <= high and 20 < x < WIDTH - 24
        if inside and x - last > LABEL_WIDTH:
            last = x
            yield Tick(x, f"{1000 * seconds:g} ms" if seconds < 1 else f"{seconds:g} s")
