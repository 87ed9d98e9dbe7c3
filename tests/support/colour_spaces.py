"""The definitions of colour spaces, and the chunks of a PNG that name them.

Written from the specifications, without the product: what it makes of a file is compared with this.
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.image_files import Samples, chunk, three

Curve = Callable[[Any], Any]
Space = tuple[tuple[float, float], ...]
"""The x and y of white, red, green and blue."""

D65 = (0.3127, 0.3290)
SRGB: Space = (D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3_D65: Space = (D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE: Space = (D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
PROPHOTO: Space = ((0.3457, 0.3585), (0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))
BT_2020: Space = (D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046))


def srgb_light(encoded: Samples) -> Samples:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def srgb_samples(light: Samples) -> Samples:
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def tristimulus(space: Space) -> Samples:
    """The columns are XYZ of red, green and blue, as strong as makes white of them."""
    white, *primaries = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in space)
    columns = np.stack(primaries, axis=1)
    strengths: Samples = np.linalg.solve(columns, white)
    return columns * strengths


def adapted(space: Space) -> Samples:
    """The same, with white moved to D65 along the axes of Bradford's cones."""
    cones = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    columns = tristimulus(space)
    ratio = (cones @ tristimulus(SRGB).sum(axis=1)) / (cones @ columns.sum(axis=1))
    moved: Samples = np.linalg.inv(cones) @ (ratio[:, None] * (cones @ columns))
    return moved


def expected(samples: Samples, most: float, light: Curve, space: Space = SRGB) -> Samples:
    """The colours in sRGB, 0 to 255, of samples up to `most`; grey is of one sample."""
    linear = light(samples / most)
    if samples.shape[2] == 1:
        return three(srgb_samples(linear))
    return srgb_samples(linear @ (np.linalg.inv(tristimulus(SRGB)) @ adapted(space)).T)


def power(exponent: float) -> Curve:
    return lambda encoded: encoded**exponent


def gama(value: int) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", value))


def chrm(space: Space) -> bytes:
    numbers = [round(100_000 * number) for point in space for number in point]
    return chunk(b"cHRM", struct.pack(">8I", *numbers))


def cicp(primaries: int, transfer: int, matrix: int = 0, full_range: int = 1) -> bytes:
    return chunk(b"cICP", bytes((primaries, transfer, matrix, full_range)))


def intent(number: int) -> bytes:
    return chunk(b"sRGB", bytes((number,)))
