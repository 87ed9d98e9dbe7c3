"""How a picture is cut into bands: integers only, in pixels of the network's input.

A band is a tile of the picture's whole height. It has a core, the part of the picture it is
responsible for, and a surround, which is the core and a halo of context on both sides. The cores
partition the picture: each pixel is in exactly one. At the picture's border the halo ends with the
picture, so that a network pads there just as it does when it sees the whole picture.
"""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; `right` and `bottom` are the first column and row outside it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index an array of shape (height, width, ...)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def scaled(self, scale: int) -> "Box":
        """The same rectangle in a picture whose sides are `scale` times as long."""
        return Box(self.left * scale, self.top * scale, self.right * scale, self.bottom * scale)

    def within(self, outer: "Box") -> "Box":
        """The same rectangle, counted from the top left corner of `outer`."""
        return Box(
            self.left - outer.left,
            self.top - outer.top,
            self.right - outer.left,
            self.bottom - outer.top,
        )


@dataclass(frozen=True)
class Tile:
    """A core and what the network is shown to compute it."""

    core: Box
    surround: Box


def bands(width: int, height: int, count: int, halo: int, multiple: int = 1) -> list[Tile]:
    """A picture of `width` x `height` pixels cut into `count` tiles of its whole height.

    The cores differ by at most `multiple` pixels, so that there are no slivers. Every core and
    surround starts and ends at a multiple of `multiple`, which must divide both sides of the
    picture. Raises ValueError for what cannot be met.
    """
    if width < 1 or height < 1 or width % multiple or height % multiple:
        raise ValueError(f"a picture of {width}x{height} cannot be cut at multiples of {multiple}")
    if halo < 0 or not 1 <= count <= width // multiple:
        raise ValueError(f"{width} pixels make no {count} tiles with a halo of {halo}")
    halo += -halo % multiple
    units = width // multiple
    cuts = [multiple * (units * piece // count) for piece in range(count + 1)]
    return [
        Tile(
            core=Box(left, 0, right, height),
            surround=Box(max(left - halo, 0), 0, min(right + halo, width), height),
        )
        for left, right in pairwise(cuts)
    ]
