"""What Modal charges, what a picture takes on each of its cards, and how the app is deployed there.

Nothing here was measured on a GPU. Prices and peaks were read, in November 2026; the seconds of
encoding were measured on two cores of an AMD EPYC (Zen 4); the rest is assumed. Most
of it can be set on the command line of `benchmarks.modal_cost`.
"""

import math
from dataclasses import dataclass
from typing import Final

from benchmarks.scaling import Pool, Work
from upscaler.modal.config import (
    FRONT_CORES,
    FRONT_INPUTS,
    FRONT_MEMORY_MIB,
    FRONT_TARGET,
    FRONT_WINDOW_S,
    GPU_CORES,
    GPU_MEMORY_MIB,
)
from upscaler.modal.config import Deployment as Defaults
from upscaler.modal.pricing import GPU_USD_PER_S, USD_PER_CORE_S, USD_PER_GIB_S
from upscaler.models import MODELS, UpscalingModel, flop

DECODE_S_PER_PX: Final = 50e-9
"""Assumed: 0.05 s for a PNG of 1024x1024, twice what `benchmarks.mock` finds."""
ENCODE_S_PER_PX: Final = 6.6e-9
"""`upscaler.imaging.encode` takes 0.44 s for a PNG of 8192x8192. Most of it overlaps with the
network:
here it is added all the same."""
FILE_BYTES_PER_PX: Final = 1.1
"""The same PNG has 75 MB; a file that comes in is taken to be like it."""
INLINE_BYTES: Final = 8 * 2**10
"""What is longer goes by way of Modal's blob store, in calls that can be cancelled (`spawn`)."""
BLOB_S: Final = 0.1
BLOB_BYTES_PER_S: Final = 100e6
"""Into the store or out of it: assumed."""
HANDLING_S: Final = 0.05
"""For Modal to hand over an input, and as much to take its result: assumed."""

APP: Final = Defaults()
"""What can be set when the app is deployed, as it is by default."""
HEADROOM: Final = 1.25
"""Where it is raised: the containers for the traffic's height, times this."""


@dataclass(frozen=True)
class Card:
    """A GPU of Modal's, and its peak in dense fp16 by its maker's data sheet."""

    name: str
    peak_flop_per_s: float

    @property
    def usd_per_s(self) -> float:
        """Its price alone."""
        return GPU_USD_PER_S[self.name]


CARDS: Final = {
    card.name: card
    for card in (
        Card("L4", 121e12),
        Card("T4", 65e12),
        Card("A10", 70e12),  # an A10G
        Card("L40S", 362e12),
        Card("A100-40GB", 312e12),
        Card("A100-80GB", 312e12),
        Card("H100", 989e12),
    )
}
"""The three that the app asks for by default, and faster ones."""


@dataclass(frozen=True)
class Size:
    """What a container reserves and so is charged for."""

    cores: float
    memory_gib: float

    @property
    def usd_per_s(self) -> float:
        return self.cores * USD_PER_CORE_S + self.memory_gib * USD_PER_GIB_S


@dataclass(frozen=True)
class Picture:
    """What is asked for: a square picture, and how many times longer its sides become."""

    model: UpscalingModel = UpscalingModel.X4_PLUS
    side_px: int = 1024
    scale: float = 2

    def __str__(self) -> str:
        made_px = round(self.side_px * self.scale)
        return f"{self.model}, {self.side_px}x{self.side_px} to {made_px}x{made_px}"

    def flop(self) -> int:
        return flop(MODELS[self.model], self.side_px, self.side_px)


@dataclass(frozen=True)
class Settings:
    """The app's settings, and what is taken to be so of Modal and of the engine."""

    picture: Picture = Picture()
    peak_fraction: float = 0.4
    window_s: float = APP.window_s
    start_s: float = 6
    max_containers: int | None = None
    """Of each function. None: the app's own, or what the traffic's height needs."""
    spread: bool = False
    single: bool = False
    """Whether a container with a GPU serves the API itself: one does it all, and has no front."""
    size: Size = Size(GPU_CORES, GPU_MEMORY_MIB / 1024)
    front_window_s: float = FRONT_WINDOW_S
    front_start_s: float = 2
    front_slots: int = FRONT_TARGET
    front_s: float = 0.5
    """For a request to come in, be looked at, and its answer to leave."""
    front_size: Size = Size(FRONT_CORES, FRONT_MEMORY_MIB / 1024)


@dataclass(frozen=True)
class Deployment:
    """Both functions of the app, what their containers cost, and what a picture takes in them."""

    front: Pool
    gpu: Pool
    front_usd_per_s: float
    gpu_usd_per_s: float
    work: Work

    def bears(self, per_s: float) -> bool:
        """Whether so many pictures a second can be made at all."""
        return per_s * self.work.busy_s < self.gpu.max_containers


def work_of(settings: Settings, card: Card) -> Work:
    """A container has two inputs: it fetches one and stores another's result while it upscales.

    So these are not in `busy_s`, though a container that has but one image is up for them too.
    """
    picture = settings.picture
    pixels, made = picture.side_px**2, (picture.side_px * picture.scale) ** 2
    infer_s = picture.flop() / (card.peak_flop_per_s * settings.peak_fraction)
    files_s = DECODE_S_PER_PX * pixels + ENCODE_S_PER_PX * made
    in_s, out_s = _blob_s(pixels), _blob_s(made)
    half_s = settings.front_s / 2 + HANDLING_S
    if settings.single:  # nothing is handed on
        return Work(settings.front_s / 2, infer_s + files_s, settings.front_s / 2)
    return Work(half_s + 2 * in_s, infer_s + files_s, 2 * out_s + half_s)


def _blob_s(pixels: float) -> float:
    """To put a file of so many pixels into the blob store, or to fetch it from there."""
    size = pixels * FILE_BYTES_PER_PX
    return 0 if size <= INLINE_BYTES else BLOB_S + size / BLOB_BYTES_PER_S


def deployment(settings: Settings, card: Card, height_per_s: float = 0) -> Deployment:
    """The app on that card, with containers enough for `height_per_s` pictures a second."""
    work = work_of(settings, card)
    if settings.single:
        return Deployment(
            Pool(start_s=0, window_s=0, max_containers=1, slots=FRONT_INPUTS),  # in the same one
            Pool(settings.start_s, settings.window_s, max_containers=1),
            0,
            settings.size.usd_per_s + card.usd_per_s,
            work,
        )
    gpus = settings.max_containers or enough(height_per_s * work.busy_s)
    fronts = settings.max_containers or enough(height_per_s * work.total_s / settings.front_slots)
    return Deployment(
        Pool(settings.front_start_s, settings.front_window_s, fronts, settings.front_slots),
        Pool(settings.start_s, settings.window_s, gpus, spread=settings.spread),
        settings.front_size.usd_per_s,
        settings.size.usd_per_s + card.usd_per_s,
        work,
    )


def enough(containers: float) -> int:
    """How many to allow where so many are busy on average."""
    return max(APP.max_containers, math.ceil(HEADROOM * containers))
