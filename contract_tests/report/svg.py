"""What a page shows of numbers, as SVG: how many rules came out how, and how long answers took."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from contract_tests.report.report import Report, RuleVerdict, Times

WIDTH: Final = 480
HEIGHT: Final = 96
"""Of the columns, in SVG's units."""
COLUMNS: Final = 32


def bar(report: Report) -> str:
    """One bar for all rules, a part for each verdict, and how many there are of each."""
    counts = Counter(rule.verdict for rule in report.rules)
    parts, told, left = [], [], 0.0
    for verdict in RuleVerdict:
        share = 100 * counts[verdict] / len(report.rules)
        name = str(verdict).replace(" ", "-")
        parts.append(
            f'<rect class="fill-{name}" x="{left:.3f}" width="{share:.3f}" height="12"></rect>'
        )
        told.append(f"<li><strong>{counts[verdict]}</strong> {verdict}</li>" * bool(share))
        left += share
    return (
        '<svg class="bar" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        f'{"".join(parts)}</svg><ul class="legend">{"".join(told)}</ul>'
    )


def in_time(seconds: float) -> str:
    """A time, in the unit that suits it."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def distribution(times: Times) -> str:
    """How long the answers of a kind took, as columns along a logarithm of the time."""
    assert times.median is not None, "there are some"
    assert times.p95 is not None, "there are some"
    low, high = _bounds(times)

    def across(seconds: float) -> float:
        share = (math.log(max(seconds, 1e-4)) - low) / (high - low)
        return WIDTH * min(max(share, 0), 1)

    return (
        f'<svg viewBox="0 -4 {WIDTH} {HEIGHT + 26}" role="img" aria-label="{times.count} answers: '
        f'half within {in_time(times.median)}, 95% within {in_time(times.p95)}">'
        f"{''.join(_columns([across(each) for each in times.all]))}"
        f'<path class="rule" d="M0 {HEIGHT}H{WIDTH}"></path>'
        f"{_line('middle', across(times.median))}{_line('late', across(times.p95))}"
        f"{''.join(_ticks(low, high, across))}</svg>"
    )


def _bounds(times: Times) -> tuple[float, float]:
    """The logarithms of the times at both ends, which differ by a factor of 4 at least."""
    low, high = (math.log(max(each, 1e-4)) for each in (times.all[0], times.all[-1]))
    middle, half = (low + high) / 2, max(high - low, math.log(4)) / 2
    return middle - 1.05 * half, middle + 1.05 * half


def _columns(places: list[float]) -> Iterator[str]:
    counts = Counter(min(int(place * COLUMNS / WIDTH), COLUMNS - 1) for place in places)
    step, most = WIDTH / COLUMNS, max(counts.values())
    for column, count in sorted(counts.items()):
        height = HEIGHT * count / most
        yield (
            f'<rect class="column" x="{column * step + 1:.1f}" y="{HEIGHT - height:.1f}" '
            f'width="{step - 2:.1f}" height="{height:.1f}" rx="2"></rect>'
        )


def _line(name: str, place: float) -> str:
    return f'<path class="{name}" d="M{place:.1f} -4V{HEIGHT}"></path>'


def _ticks(low: float, high: float, across: Callable[[float], float]) -> Iterator[str]:
    """The times at the foot: 1, 2 and 5 of each power of ten, as far as there is room."""
    steps = [digit * 10.0**power for power in range(-4, 5) for digit in (1, 2, 5)]
    inside = [each for each in steps if low <= math.log(each) <= high]
    last = -math.inf
    for seconds in inside:
        place = across(seconds)
        if 20 < place < WIDTH - 24 and place - last > 60:
            last = place
            yield (
                f'<text class="label" x="{place:.1f}" y="{HEIGHT + 15}" text-anchor="middle">'
                f"{_short(seconds)}</text>"
            )


def _short(seconds: float) -> str:
    return f"{1000 * seconds:g} ms" if seconds < 1 else f"{seconds:g} s"
