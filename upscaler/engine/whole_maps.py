"""Networks that compute their body on the whole map, as streams: on a GPU, and on a CPU."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from upscaler.engine.layers import Resolution


class WholeMapNetwork(Protocol):
    """A network prepared for whole maps. Any number of images may be under way."""

    @property
    def fold(self) -> int:
        """The side of the blocks of the image that are a pixel of the body's map."""

    @property
    def scale(self) -> int:
        """How much larger the sides of the result are."""

    def strips(self, image: Tensor, height: int, width: int, rows: int) -> Iterator[Tensor | float]:
        """Upscale `image`, whose map in the body has that size: fp32 strips of `rows` rows of it.

        `image` is fp32 of shape (height * fold, width * fold, 3) in 0..1. Before the first strip
        there may be numbers: the share of all the work that is done by then.
        """


class WholeMapStream:
    """An image that is being upscaled: its rows are collected, then strips come out."""

    def __init__(self, network: WholeMapNetwork, level: Resolution, tail_rows: int) -> None:
        self.network = network
        self.level = level
        # In fours: tiles have four rows on a CPU, and on a GPU each strip's rows of any width begin
        # at a multiple of 16 bytes, and kernels are compiled for such addresses.
        self.tail_rows = max(4, tail_rows - tail_rows % 4)
        self.collected: list[Tensor] = []
        self.strips: Iterator[Tensor | float] | None = None
        self.share = self.body_share = 0.0
        self.left = level.height * network.fold * network.scale

    def push(self, image: Tensor | None) -> Tensor | None:
        """Take rows of the image and return upscaled rows, as `streams.Stream` does."""
        height = self.level.height * self.network.fold
        if image is not None:
            self.collected.append(image)
            if sum(map(len, self.collected)) == height:
                whole = torch.cat(self.collected).contiguous()
                self.collected.clear()
                self.strips = self.network.strips(
                    whole, self.level.height, self.level.width, self.tail_rows
                )
        strip = None if self.strips is None else next(self.strips, None)
        if isinstance(strip, float):
            self.share = self.body_share = strip
            return None
        if strip is not None:
            self.left -= len(strip)
            tail = 1 - self.left / (height * self.network.scale)
            self.share = self.body_share + (1 - self.body_share) * tail
        return strip
