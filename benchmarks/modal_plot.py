"""A picture of what pictures cost on Modal: dollars for each over how many there are in an hour."""

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.cost_model import bill, expected_usd
from benchmarks.modal_prices import APP, HEADROOM, Card, Settings, deployment
from benchmarks.scaling import simulate
from benchmarks.traffic import DAY_S, HOUR_S, bursts, poisson
from upscaler.bench.plot import spread
from upscaler.modal.pricing import OCTOAI_USD

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Final = ("#0b5fa5", "#c4570c", "#0a8f8f", "#8a3ab0", "#4d4d4d", "#9a7b0a", "#b02a4c")
INK: Final = "#222222"
FAINT: Final = "#dddddd"
LEAST_AN_HOUR, MOST_AN_HOUR = 0.5, 400_000
POINTS_AN_HOUR: Final = (1, 4, 15, 60, 240, 1000, 4000, 15_000, 60_000, 240_000)
SIMULATED: Final = 3000, 60_000
"""How many pictures a point is of: so many, or an hour's, but no more than the latter."""
SLOW_FRACTION: Final = 0.1
WALL_AN_HOUR: Final = 200 / 2 * HOUR_S
"""Modal's limit for a new workspace is 200 inputs a second, and a picture is two."""
LABEL_GAP: Final = 0.034
"""The least distance of two names, as a share of the height."""
BURST: Final = 100, 4
"""Pictures at once, and how often in a day."""


def png(settings: Settings, cards: Sequence[Card], seed: int) -> bytes:
    """A PNG file: for each card the formula as a line and simulations as points on it.

    Raises ModuleNotFoundError without matplotlib.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.2), dpi=110, facecolor="white")
    axes = figure.add_axes((0.085, 0.1, 0.8, 0.77))
    style(axes)
    colours = dict(zip(cards, COLOURS, strict=False))
    for card, colour in colours.items():
        draw(axes, settings, card, colour, seed)
    name_lines(axes, settings, colours)
    mark_limits(axes)
    figure.text(0.012, 0.975, title(settings), color=INK, size=9, va="top", linespacing=1.5)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def title(settings: Settings) -> str:
    return (
        f"Dollars per picture on Modal: {settings.picture}\n"
        f"Lines: formula, at {settings.peak_fraction:.0%} of the card's peak (dotted: at "
        f"{SLOW_FRACTION:.0%}). Dots: simulated. Diamonds: {BURST[0]} at once, {BURST[1]} a day"
    )


def draw(axes: "Axes", settings: Settings, card: Card, colour: str, seed: int) -> None:
    for chosen, line in ((settings, "-"), (replace(settings, peak_fraction=SLOW_FRACTION), ":")):
        hourly = smooth_hourly(chosen, card)
        usd = [formula_usd(chosen, card, an_hour) for an_hour in hourly]
        axes.plot(hourly, usd, line, color=colour, lw=1.7 if line == "-" else 1.2, zorder=2)
    points = [simulated_usd(settings, card, an_hour, seed) for an_hour in POINTS_AN_HOUR]
    axes.plot(POINTS_AN_HOUR, points, "o", color=colour, ms=5, mec="white", mew=0.8, zorder=3)
    count, times = BURST
    axes.plot([count * times / 24], [bursts_usd(settings, card)], "D", color=colour, ms=6,
              mec="white", mew=0.8, zorder=4)  # fmt: skip


def smooth_hourly(settings: Settings, card: Card) -> list[float]:
    """Where to look at the formula: where as many containers are allowed as HEADROOM asks for.

    In between one more is allowed already, which would make the line a saw.
    """
    each = HOUR_S / (HEADROOM * deployment(settings, card).work.busy_s)
    few = np.geomspace(LEAST_AN_HOUR, APP.max_containers * each, 80).tolist()
    many = np.unique(np.geomspace(APP.max_containers, MOST_AN_HOUR / each, 50).astype(int))
    return [*few[:-1], *(0.9999 * each * int(count) for count in many), MOST_AN_HOUR]


def name_lines(axes: "Axes", settings: Settings, colours: dict[Card, str]) -> None:
    """To the right, each at the height of its end or as near as there is room."""
    ends = sorted((formula_usd(settings, card, MOST_AN_HOUR), card.name) for card in colours)
    of = {card.name: colour for card, colour in colours.items()}
    axes.set_ylim(axes.get_ylim())  # else they are found out only when it is drawn
    share = axes.transScale + axes.transLimits
    wanted = [float(share.transform((MOST_AN_HOUR, usd))[1]) for usd, _ in ends]
    for (_, name), height in zip(ends, spread(wanted, LABEL_GAP), strict=True):
        axes.annotate(name, (1.015, height), xycoords="axes fraction", color=of[name], size=9,
                      va="center", annotation_clip=False)  # fmt: skip


def mark_limits(axes: "Axes") -> None:
    """What OctoAI took, and how many pictures Modal lets a new workspace have."""
    axes.axhline(OCTOAI_USD, color=INK, lw=1.2, ls=(0, (6, 3)), zorder=1)
    axes.axvline(WALL_AN_HOUR, color=INK, lw=0.8, ls=(0, (2, 3)), zorder=1)
    axes.annotate("OctoAI, $0.004", (WALL_AN_HOUR, OCTOAI_USD), (-5, 4), color=INK, size=9,
                  textcoords="offset points", ha="right", va="bottom")  # fmt: skip
    axes.annotate("Modal's 200 inputs a second", (WALL_AN_HOUR, 1), (-5, -4), color=INK, size=9,
                  xycoords=("data", "axes fraction"), textcoords="offset points",
                  ha="right", va="top")  # fmt: skip


def formula_usd(settings: Settings, card: Card, an_hour: float) -> float:
    per_s = an_hour / HOUR_S
    return expected_usd(deployment(settings, card, per_s), per_s)


def simulated_usd(settings: Settings, card: Card, an_hour: float, seed: int) -> float:
    least, most = SIMULATED
    duration_s = min(max(least / an_hour, 1), most / an_hour) * HOUR_S
    arrivals_s = poisson(an_hour / HOUR_S, duration_s, np.random.default_rng(seed))
    return usd(settings, card, arrivals_s, an_hour / HOUR_S)


def bursts_usd(settings: Settings, card: Card) -> float:
    count, times = BURST
    return usd(settings, card, bursts(count, DAY_S / times, DAY_S), 0)


def usd(settings: Settings, card: Card, arrivals_s: Sequence[float], height_per_s: float) -> float:
    plan = deployment(settings, card, height_per_s)
    outcome = simulate(arrivals_s, plan.front, plan.gpu, plan.work)
    return bill(plan, outcome).total_usd / len(arrivals_s)


def style(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(LEAST_AN_HOUR, MOST_AN_HOUR)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"${y:.{decimals(y)}f}"))
    axes.grid(color=FAINT, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK, labelsize=9)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel("pictures per hour, at random", size=9, color=INK)


def decimals(value: float) -> int:
    return max(0, -math.floor(math.log10(value)))
