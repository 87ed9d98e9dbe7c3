"""When pictures come: patterns of traffic, drawn with a seed, as times in seconds."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S
SWING: Final = 0.8
"""By how much of its mean a day's rate rises and falls: 1.8 times it at noon, 0.2 at midnight."""

Random = np.random.Generator


@dataclass(frozen=True)
class Traffic:
    """A pattern: for how long, how many a second at its height, and the times of one draw.

    `height_per_s` is 0 where pictures that come together may as well be made one after another.
    """

    name: str
    duration_s: float
    height_per_s: float
    draw: Callable[[Random], list[float]]


def regular(every_s: float, duration_s: float) -> list[float]:
    return [number * every_s for number in range(int(duration_s / every_s))]


def poisson(per_s: float, duration_s: float, random: Random) -> list[float]:
    """At random, each picture on its own."""
    count = random.poisson(per_s * duration_s)
    return _listed(np.sort(random.uniform(0, duration_s, count)))


def bursts(count: int, every_s: float, duration_s: float) -> list[float]:
    """`count` at once, again and again."""
    return [start_s for start_s in regular(every_s, duration_s) for _ in range(count)]


def day(count: int, random: Random) -> list[float]:
    """`count` in one day, at random, of a rate that swings about its mean as a sine does."""
    at_s = np.linspace(0, DAY_S, 24 * 60 + 1)
    turn = 2 * math.pi / DAY_S
    come_by = at_s - SWING * np.sin(turn * at_s) / turn
    return _listed(np.sort(np.interp(random.uniform(0, DAY_S, count), come_by, at_s)))


def _listed(times_s: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
    return [float(time_s) for time_s in times_s]


def at_random(name: str, per_s: float, duration_s: float) -> Traffic:
    return Traffic(name, duration_s, per_s, lambda random: poisson(per_s, duration_s, random))


PATTERNS: Final = (
    at_random("one an hour", 1 / HOUR_S, 60 * DAY_S),
    at_random("one a minute", 1 / 60, 4 * DAY_S),
    Traffic("100 at once, four a day", DAY_S, 0, lambda _: bursts(100, DAY_S / 4, DAY_S)),
    at_random("one a second", 1, DAY_S),
    at_random("100 a second", 100, HOUR_S),
    Traffic("a million a day", DAY_S, 1e6 / DAY_S * (1 + SWING), lambda random: day(10**6, random)),
)
"""What the table is of. All but the bursts are at random, each picture on its own."""
