"""What pictures cost on Modal, by a formula and by simulation: tables in Markdown, and a plot.

    python -m benchmarks.modal_cost [--gpu NAME ...] [--peak-fraction X] [--plot FILE]
    python -m benchmarks.modal_cost --settings [--gpu NAME]

Traffic of several kinds is simulated by the rules in `benchmarks/scaling.py`: some pictures an
hour, bursts, and up to a million in a day. `--settings` shows instead what the app's settings
change, on one card. Which figures were measured, read and assumed is in docs/cost.md; no GPU has
been measured.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.cost_model import Bill, alone_usd, bill, break_even_per_s, full_usd
from benchmarks.modal_prices import APP, CARDS, Card, Deployment, Picture, Settings, Size
from benchmarks.modal_prices import deployment as deployed
from benchmarks.scaling import Outcome, simulate
from benchmarks.traffic import DAY_S, PATTERNS, Traffic
from upscaler.bench.report import significant
from upscaler.modal.pricing import OCTOAI_USD
from upscaler.models import UpscalingModel

SHOWN: Final = (*APP.gpus, "L40S", "H100")
FRACTIONS: Final = (0.4, 0.1)
FAST: Final = UpscalingModel.X4_V3
SIDES_PX: Final = (1024, 512)
TRIED: Final[dict[str, dict[str, Any]]] = {
    "as above": {},
    "GPU window 10 s": {"window_s": 10},
    "GPU window 300 s": {"window_s": 300},
    "front window 300 s": {"front_window_s": 300},
    "both windows 2 s": {"window_s": 2, "front_window_s": 2},
    "start 2 s, as with a snapshot": {"start_s": 2},
    "start 20 s": {"start_s": 20},
    "1 container at most": {"max_containers": 1},
    "2 containers at most": {"max_containers": 2},
    "50 containers at most": {"max_containers": 50},
    "10% of the peak": {"peak_fraction": 0.1},
    "inputs spread over all GPUs": {"spread": True},
    "UPSCALER_SHAPE=single, one container": {"single": True},
    "the same, GPU window 10 s": {"single": True, "window_s": 10},
    "the same, GPU window 2 s": {"single": True, "window_s": 2},
}
"""What `--settings` tries, one by one."""


@dataclass(frozen=True)
class Run:
    """One pattern of traffic on one card."""

    traffic: Traffic
    card: Card
    deployment: Deployment
    outcome: Outcome

    @property
    def bill(self) -> Bill:
        return bill(self.deployment, self.outcome)

    @property
    def usd(self) -> float:
        """For one picture."""
        return self.bill.total_usd / len(self.outcome.arrived_s)

    def waits_s(self, *percent: float) -> list[float]:
        """Percentiles of what a picture took longer than one that nothing stands in the way of."""
        took_s = np.subtract(self.outcome.answered_s, self.outcome.arrived_s)
        waits_s = np.maximum(took_s - self.deployment.work.total_s, 0)
        return [float(wait_s) for wait_s in np.percentile(waits_s, percent)]


def main() -> None:
    args = parser().parse_args()
    settings, cards = settings_of(args), [CARDS[name] for name in args.gpu or SHOWN]
    if args.settings:
        print_table(what_settings_change(settings, cards[0], args.seed))
        return
    print(f"{settings.picture}, at {settings.peak_fraction:.0%} of the peak\n")
    print_table(by_card(settings, cards))
    print_table(by_picture(settings, cards))
    print_table(by_traffic(settings, cards, args.seed))
    if args.plot:
        from benchmarks.modal_plot import png

        args.plot.write_bytes(png(settings, cards, args.seed))


def parser() -> argparse.ArgumentParser:
    given = Settings()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gpu", action="append", choices=CARDS, help="can be given again")
    parser.add_argument("--settings", action="store_true", help="compare settings, not cards")
    parser.add_argument("--plot", type=Path, help="where to write a PNG")
    parser.add_argument("--seed", type=int, default=0, help="of the traffic")
    for name, value, what in (
        ("peak-fraction", given.peak_fraction, "of the card's peak that networks reach"),
        ("window", given.window_s, "seconds after which an idle GPU stops"),
        ("cold-start", given.start_s, "seconds that a GPU's container takes to start"),
        ("cores", given.size.cores, "of the GPU's container"),
        ("memory", given.size.memory_gib, "of the GPU's container, in GiB"),
        ("front-window", given.front_window_s, "seconds after which an idle front stops"),
        ("front-start", given.front_start_s, "seconds that a front takes to start"),
        ("front-cores", given.front_size.cores, ""),
        ("front-memory", given.front_size.memory_gib, "in GiB"),
        ("front-seconds", given.front_s, "that a request spends in the front alone"),
        ("scale", given.picture.scale, "how many times longer the sides become"),
    ):
        help_text = f"{what} (default {value:g})".strip()
        parser.add_argument(f"--{name}", type=float, default=value, metavar="X", help=help_text)
    parser.add_argument("--model", type=UpscalingModel, default=given.picture.model)
    parser.add_argument("--side", type=int, default=given.picture.side_px, help="of the input, px")
    parser.add_argument("--max-containers", type=int, help="default 4, or what is needed")
    parser.add_argument("--front-inputs", type=int, default=given.front_slots, help="at once")
    parser.add_argument(
        "--spread", action="store_true", help="inputs go to the container that waited longest"
    )
    return parser


def settings_of(args: argparse.Namespace) -> Settings:
    return Settings(
        picture=Picture(args.model, args.side, args.scale),
        peak_fraction=args.peak_fraction,
        window_s=args.window,
        start_s=args.cold_start,
        max_containers=args.max_containers,
        spread=args.spread,
        size=Size(args.cores, args.memory),
        front_window_s=args.front_window,
        front_start_s=args.front_start,
        front_slots=args.front_inputs,
        front_s=args.front_seconds,
        front_size=Size(args.front_cores, args.front_memory),
    )


def run(settings: Settings, card: Card, traffic: Traffic, seed: int) -> Run:
    arrivals_s = traffic.draw(np.random.default_rng(seed))
    plan = deployed(settings, card, traffic.height_per_s)
    return Run(traffic, card, plan, simulate(arrivals_s, plan.front, plan.gpu, plan.work))


Rows = Iterator[Sequence[str]]
"""Of a table, its heading first."""


def by_card(settings: Settings, cards: Sequence[Card]) -> Rows:
    yield (
        *("card", "$ an hour", "busy", "$ per picture, full", "how full to break even"),
        *("$ per picture, alone", "alone, single", "pictures an hour to break even"),
    )
    for card in cards:
        plan = deployed(settings, card)
        yield (
            card.name,
            f"{3600 * plan.gpu_usd_per_s:.3f}",
            f"{plan.work.busy_s:.2f} s",
            significant(full_usd(plan)),
            f"{full_usd(plan) / OCTOAI_USD:.0%}",
            significant(alone_usd(plan)),
            significant(alone_usd(deployed(replace(settings, single=True), card))),
            f"{3600 * break_even_per_s(plan):,.0f}",
        )


def by_picture(settings: Settings, cards: Sequence[Card]) -> Rows:
    yield ("busy, $ per picture, full", "of peak", *(card.name for card in cards))
    for model in dict.fromkeys((settings.picture.model, FAST)):
        for side_px in SIDES_PX:
            picture = replace(settings.picture, model=model, side_px=side_px)
            for fraction in FRACTIONS:
                chosen = replace(settings, picture=picture, peak_fraction=fraction)
                plans = [deployed(chosen, card) for card in cards]
                cells = (f"{p.work.busy_s:.2f} s, {significant(full_usd(p))}" for p in plans)
                yield (str(picture), f"{fraction:.0%}", *cells)


def by_traffic(settings: Settings, cards: Sequence[Card], seed: int) -> Rows:
    yield (
        *("pictures", "card", "GPUs", "fronts", "$ per picture", "of OctoAI's"),
        *("busy", "start", "idle", "front", "wait, 50%", "95%", "$ a day"),
    )
    for traffic in PATTERNS:
        for card in cards:
            yield traffic_row(run(settings, card, traffic, seed))


def traffic_row(found: Run) -> Sequence[str]:
    paid, gpu = found.bill, found.outcome.gpu
    parts = (paid.busy_usd, paid.start_usd, paid.idle_usd, paid.front_usd)
    return (
        found.traffic.name,
        found.card.name,
        f"{gpu.peak} of {gpu.pool.max_containers}",
        str(found.outcome.front.peak),
        significant(found.usd),
        f"{found.usd / OCTOAI_USD:.0%}",
        *(f"{part / paid.total_usd:.0%}" for part in parts),
        *(f"{wait_s:.1f} s" for wait_s in found.waits_s(50, 95)),
        f"{paid.total_usd * DAY_S / found.traffic.duration_s:,.2f}",
    )


def what_settings_change(settings: Settings, card: Card, seed: int) -> Rows:
    chosen = [traffic for traffic in PATTERNS if traffic.name != "100 a second"]
    yield (f"$ per picture on {card.name}, 95% wait", *(traffic.name for traffic in chosen))
    for what, changes in TRIED.items():
        changed = replace(settings, **changes)
        yield (what, *(in_short(changed, card, traffic, seed) for traffic in chosen))


def in_short(settings: Settings, card: Card, traffic: Traffic, seed: int) -> str:
    if not deployed(settings, card, traffic.height_per_s).bears(traffic.height_per_s):
        return "too few"
    found = run(settings, card, traffic, seed)
    return f"{significant(found.usd)}, {found.waits_s(95)[0]:.1f} s"


def print_table(rows: Rows) -> None:
    """In Markdown, a row as soon as it is known."""
    heading = next(rows)
    for row in (heading, ["---"] * len(heading), *rows):
        print(f"| {' | '.join(row)} |")
    print()
    sys.stdout.flush()


if __name__ == "__main__":
    main()
