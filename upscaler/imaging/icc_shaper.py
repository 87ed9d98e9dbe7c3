"""Read the ICC profiles that are a curve for each sample and, for RGB, a matrix.

Nearly all profiles of cameras and displays are. Little CMS converts by them at 8 bits, and where
light is linear it takes grey in steps of up to ten levels. Here they become exact. Profiles of
other kinds have tables for whole colours, and are left to Little CMS. Tags and numbers are those of
ICC.1:2022.
"""

import struct
from struct import unpack_from
from typing import Final, NamedTuple

import numpy as np

from upscaler.imaging.colour_spaces import Curve, Floats, Matrix, power

SPACE_AT: Final = 16
"""The offset in the header of the signatures of the colour space, and of the one that colours are
converted to (7.2)."""
TAG_COUNT_AT: Final = 128
MAX_TAGS: Final = 100
"""Little CMS rejects profiles with more tags."""
MAX_POINTS: Final = 0x7FFF
"""Little CMS rejects curves of more points."""
PARAMETERS: Final = (1, 3, 4, 5, 7)
"""How many numbers a parametric curve has, by its type (table 68)."""


class Shaper(NamedTuple):
    """A curve for each sample, one for grey or three for RGB, and for RGB the matrix to XYZ at D50.

    Curves return 0 to 1, whatever numbers a damaged profile has.
    """

    curves: tuple[Curve, ...]
    matrix: Matrix | None


def read_shaper(profile: bytes) -> Shaper | None:
    """The curves and the matrix of a profile; None if it is damaged or of another kind."""
    try:
        tags = _tags(profile)
        space, connection = unpack_from("4s4s", profile, SPACE_AT)
        if connection != b"XYZ " or b"A2B0" in tags:  # a table goes before the matrix (8.10)
            return None
        if space == b"GRAY":
            return Shaper((_curve(tags[b"kTRC"]),), None)
        if space != b"RGB ":
            return None
        curves = tuple(_curve(tags[kind]) for kind in (b"rTRC", b"gTRC", b"bTRC"))
        colorants = [_xyz(tags[kind]) for kind in (b"rXYZ", b"gXYZ", b"bXYZ")]
        return Shaper(curves, np.array(colorants).T)
    except (KeyError, ValueError, struct.error):
        return None


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """The content of each tag by its signature (7.3)."""
    (count,) = unpack_from(">I", profile, TAG_COUNT_AT)
    entries = (
        unpack_from(">4sII", profile, TAG_COUNT_AT + 4 + 12 * i)
        for i in range(min(count, MAX_TAGS))
    )
    return {kind: profile[at : at + length] for kind, at, length in entries}


def _xyz(tag: bytes) -> list[float]:
    if tag[:4] != b"XYZ ":
        raise ValueError("no XYZ")
    return [number / 65_536 for number in unpack_from(">3i", tag, 8)]


def _curve(tag: bytes) -> Curve:
    """A curveType (10.6) or a parametricCurveType (10.18)."""
    if tag[:4] == b"curv":
        (count,) = unpack_from(">I", tag, 8)
        if count < 2:
            return power(unpack_from(">H", tag, 12)[0] / 256 if count else 1.0)
        if count > MAX_POINTS:
            raise ValueError("too many points")
        points = np.frombuffer(tag, ">u2", count, 12) / 65_535
        return lambda encoded: np.asarray(np.interp(encoded, np.linspace(0, 1, count), points))
    signature, kind = unpack_from(">4s4xH", tag)
    if signature != b"para" or kind >= len(PARAMETERS):
        raise ValueError("no curve")
    return _parametric(kind, [n / 65_536 for n in unpack_from(f">{PARAMETERS[kind]}i", tag, 12)])


def _parametric(kind: int, numbers: list[float]) -> Curve:
    """By table 68: a power of a straight line from a bend on, and another line below it."""
    g, a, b, *rest = numbers if kind else (*numbers, 1.0, 0.0)
    if kind < 3:
        above = below = rest[0] if rest else 0.0
        slope, bend = 0.0, -b / a if a else np.inf
    else:
        slope, bend, above, below = (*rest, 0.0, 0.0)[:4]

    def curve(encoded: Floats) -> Floats:
        straight = np.maximum(a * encoded + b, 0)  # no power of what is below 0
        with np.errstate(all="ignore"):
            light = np.where(encoded >= bend, straight**g + above, slope * encoded + below)
        return np.nan_to_num(light).clip(0, 1)

    return curve
