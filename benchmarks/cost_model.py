"""What pictures cost on Modal: the bill of a simulation, and formulas to hold it against.

    dollars = rate x (start x starts + busy + idle), summed over the front and the class on the GPU

A start and the idle seconds are shared by the pictures between two starts. The formulas say how
many those are: `alone_usd` for one, `full_usd` where no container ever waits, and `expected_usd`
for pictures at random.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.modal_prices import Deployment
from benchmarks.scaling import Container, Outcome, Pool
from upscaler.modal.pricing import OCTOAI_USD


@dataclass(frozen=True)
class Bill:
    """What containers were paid for, in dollars, by what they did; and the front's part of all."""

    start_usd: float
    busy_usd: float
    idle_usd: float
    front_usd: float

    @property
    def total_usd(self) -> float:
        return self.start_usd + self.busy_usd + self.idle_usd


def bill(deployment: Deployment, outcome: Outcome) -> Bill:
    front, gpu = _seconds(outcome.front.containers), _seconds(outcome.gpu.containers)
    front_usd = [seconds * deployment.front_usd_per_s for seconds in front]
    gpu_usd = [seconds * deployment.gpu_usd_per_s for seconds in gpu]
    start_usd, busy_usd, idle_usd = map(sum, zip(front_usd, gpu_usd, strict=True))
    return Bill(start_usd, busy_usd, idle_usd, sum(front_usd))


def _seconds(containers: list[Container]) -> tuple[float, float, float]:
    """How long all of them together were starting, busy and idle."""
    return (
        sum(container.ready_s - container.started_s for container in containers),
        sum(container.busy_s for container in containers),
        sum(container.idle_s for container in containers),
    )


def alone_usd(deployment: Deployment) -> float:
    """A picture that finds nothing running, and after which none comes."""
    front, gpu, work = deployment.front, deployment.gpu, deployment.work
    gpu_s = gpu.start_s + work.busy_s + gpu.window_s
    front_s = front.start_s + gpu.start_s + work.total_s + front.window_s
    return gpu_s * deployment.gpu_usd_per_s + front_s * deployment.front_usd_per_s


def full_usd(deployment: Deployment) -> float:
    """The least that a picture can cost: every container is full, always."""
    front_s = deployment.work.total_s / deployment.front.slots
    gpu_usd = deployment.work.busy_s * deployment.gpu_usd_per_s
    return gpu_usd + front_s * deployment.front_usd_per_s


def expected_usd(deployment: Deployment, per_s: float) -> float:
    """A picture of those that come at random, `per_s` a second."""
    gpu, work = deployment.gpu, deployment.work
    cold = math.exp(-per_s * (gpu.window_s + work.busy_s))
    front_s = _up_s(deployment.front, per_s, work.total_s + cold * gpu.start_s)
    gpu_s = _up_s(gpu, per_s, work.busy_s)
    return gpu_s * deployment.gpu_usd_per_s + front_s * deployment.front_usd_per_s


def _up_s(pool: Pool, per_s: float, hold_s: float) -> float:
    """For how long containers are up for each input, of `per_s` a second that take `hold_s` each.

    The n-th container is offered what finds all before it full, by Erlang's formula; that is taken
    to come at random, too. So for a share of the time, exp(-offered x (window + hold)), nothing has
    been offered to it for so long that it is not up, and what comes then starts it.
    """
    up = 0.0
    for share in _overflow(per_s * hold_s, pool):
        offered_per_s = per_s * share
        stopped = math.exp(-offered_per_s * (pool.window_s + hold_s))
        up += 1 - stopped + offered_per_s * stopped * pool.start_s
    return max(up / per_s, hold_s / pool.slots)


def _overflow(erlangs: float, pool: Pool) -> Iterator[float]:
    """The share of inputs that finds the first n containers full, for n from 0."""
    share = 1.0
    for slot in range(pool.max_containers * pool.slots):
        if slot % pool.slots == 0:
            yield share
        share = erlangs * share / (slot + 1 + erlangs * share)


def break_even_per_s(deployment: Deployment) -> float:
    """How many a second, at random, make a picture cost what it did at OctoAI; inf if none do."""
    least, most = 1e-6, 10.0
    if expected_usd(deployment, most) > OCTOAI_USD:
        return math.inf
    while most / least > 1.001:
        middle = math.sqrt(least * most)
        dear = expected_usd(deployment, middle) > OCTOAI_USD
        least, most = (middle, most) if dear else (least, middle)
    return most
