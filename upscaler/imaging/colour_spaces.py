"""Convert samples of RGB and grey spaces to sRGB by their definition: a curve and three primaries.

The numbers are those of ITU-T H.273 (07/2024), tables 2 and 3, as PNG's cICP chunk refers to them.
All of these spaces are relative to a white, which becomes the white of sRGB.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upscaler.imaging.pixels import keep_neutral

Floats = NDArray[np.floating]
Matrix = NDArray[np.floating]
"""Of shape (3, 3)."""
Curve = Callable[[Floats], Floats]
"""From encoded samples, 0 to 1, to linear light, of which 1 is white, in an array of any shape."""
Samples = NDArray[np.unsignedinteger]
"""uint8 or uint16 of shape (rows, columns, 1) for grey or (rows, columns, 3) for RGB."""


class Chromaticities(NamedTuple):
    """The CIE 1931 x and y of a space's white and of its red, green and blue primaries."""

    white: tuple[float, float]
    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]


D65: Final = (0.3127, 0.3290)
ILLUMINANT_C: Final = (0.310, 0.316)
BT_709: Final = Chromaticities(D65, (0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
"""The primaries of sRGB as well."""
SMPTE_170M: Final = Chromaticities(D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
PRIMARIES: Final = {
    1: BT_709,
    4: Chromaticities(ILLUMINANT_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: Chromaticities(D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: SMPTE_170M,
    7: SMPTE_170M,
    8: Chromaticities(ILLUMINANT_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: Chromaticities(D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    10: Chromaticities((1 / 3, 1 / 3), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)),
    11: Chromaticities((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: Chromaticities(D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: Chromaticities(D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
"""By the value of H.273, ColourPrimaries."""

SRGB_TRANSFER: Final = 13
PQ_TRANSFER, HLG_TRANSFER = 16, 18
PROFILE_WHITE: Final = (0.9642, 1.0, 0.8249)
"""The XYZ of D50, the white that colours of ICC profiles are relative to (ICC.1:2022, 7.2.16)."""
BRADFORD: Final = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
"""From XYZ to the responses of the eye's cones, by which whites are adapted, as in ICC profiles
(ICC.1:2022, annex E)."""


def power(exponent: float) -> Curve:
    """The curve of a space whose light is a power of its samples."""
    return lambda encoded: encoded**exponent


def srgb_curve(encoded: Floats) -> Floats:
    """The curve of sRGB (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _smpte_240m(encoded: Floats) -> Floats:
    alpha, beta = 1.111572195921731, 0.022821585529445
    return np.where(encoded < 4 * beta, encoded / 4, ((encoded + alpha - 1) / alpha) ** (1 / 0.45))


TRANSFERS: Final[dict[int, Curve]] = {
    # H.273 has the curve of a camera for these. What they look like is settled by BT.1886: displays
    # raise them to 2.4, and so do browsers.
    **dict.fromkeys((1, 6, 11, 14, 15), power(2.4)),
    4: power(2.2),
    5: power(2.8),
    7: _smpte_240m,
    8: power(1.0),
    SRGB_TRANSFER: srgb_curve,
    # 48 cd/m2 is the white of a cinema, and of 52.37 the highest sample.
    17: lambda encoded: encoded**2.6 * (52.37 / 48),
}
"""By the value of H.273, TransferCharacteristics. Those of HDR are not among them, nor the
logarithmic and unspecified ones, which nobody shows."""


def matrix_to_srgb(space: Chromaticities) -> Matrix:
    """The matrix from linear RGB of `space` to linear sRGB, its white adapted to that of sRGB.

    Raises ValueError if the primaries lie on a line, or do not surround a white that can be seen.
    """
    white = _xyz_of_white(space.white)
    return _matrix_from_xyz(white) @ _matrix_to_xyz(space, white)


def matrix_from_profile() -> Matrix:
    """The matrix from the XYZ that ICC profiles are connected by to linear sRGB."""
    return _matrix_from_xyz(np.array(PROFILE_WHITE))


def _matrix_from_xyz(white: Floats) -> Matrix:
    """From XYZ to linear sRGB, in which `white` is the white, by Bradford's adaptation."""
    srgb_white = _xyz_of_white(D65)
    cones, srgb_cones = BRADFORD @ white, BRADFORD @ srgb_white
    if not (cones > 0).all():
        raise ValueError("the white is no colour")
    adaptation = np.linalg.solve(BRADFORD, np.diag(srgb_cones / cones) @ BRADFORD)
    return np.linalg.solve(_matrix_to_xyz(BT_709, srgb_white), adaptation)


def _xyz_of_white(white: tuple[float, float]) -> Floats:
    x, y = white
    if y <= 0:
        raise ValueError("the white has no luminance")
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _matrix_to_xyz(space: Chromaticities, white: Floats) -> Matrix:
    """From linear RGB to XYZ: the primaries, as strong as makes `white` of all three."""
    directions = np.array([(x, y, 1 - x - y) for x, y in space[1:]]).T
    strengths = np.linalg.solve(directions, white)  # its error of a line is a ValueError
    if not (strengths > 0).all():
        raise ValueError("the white is outside the primaries")
    return directions * strengths


class SpaceConversion:
    """Converts samples of `depth` bits, 8 or 16, to sRGB by curves and a matrix behind them.

    There is a curve for each sample of a pixel: one for grey, which `matrix` would leave as it is,
    or three for RGB. A call takes Samples, and returns uint8 of the same shape, rounded. Colours
    outside sRGB are clipped. With `narrow_range`, black is 16 and white 235, times 256 if there
    are 16 bits (H.273, 8.3), and below black the curve is mirrored (PNG, third edition, 11.3.2.6).
    """

    def __init__(
        self, depth: int, curves: Sequence[Curve], matrix: Matrix, *, narrow_range: bool = False
    ) -> None:
        encoded = np.linspace(0, 1, 2**depth)
        if narrow_range:
            encoded = (encoded * (2**depth - 1) / 2 ** (depth - 8) - 16) / 219
        sign = np.where(encoded < 0, -1, 1)
        self._tables = [(sign * curve(np.abs(encoded))).astype(np.float32) for curve in curves]
        self._matrix = matrix.T.astype(np.float32)
        self._greys = _encode_srgb(self._tables[0].clip(0, 1)) if len(curves) == 1 else None

    def __call__(self, samples: Samples) -> NDArray[np.uint8]:
        if self._greys is not None:
            return self._greys[samples]
        linear = np.empty(samples.shape, np.float32)
        for i, table in enumerate(self._tables):
            linear[:, :, i] = table[samples[:, :, i]]
        return keep_neutral(_encode_srgb((linear @ self._matrix).clip(0, 1)), samples)


def _encode_srgb(linear: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Samples of sRGB, of linear light from 0 to 1 (IEC 61966-2-1)."""
    encoded = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** np.float32(1 / 2.4) - 0.055
    )
    return (encoded * 255 + 0.5).astype(np.uint8)
