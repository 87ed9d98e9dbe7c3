"""Profiles of curves and a matrix, applied by definition, and those of tables, between 8 bits."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.imaging.test_colour import SRGB, grey_profile, srgb_of
from tests.support.colour_spaces import Curve
from tests.support.image_files import (
    D50,
    DISPLAY_P3,
    GREY,
    P3,
    RGB,
    Samples,
    curve,
    decode,
    fixed,
    iccp,
    noise,
    off_by,
    png,
    profile,
    three,
    xyz,
)
from upscaler.imaging.icc_shaper import read_shaper

BRIGHT: Samples = np.arange(0, 65_536, 257, dtype=np.uint16).reshape(1, -1, 1)


def para(kind: int, *numbers: float) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + fixed(*numbers)


def table(*points: float) -> bytes:
    numbers = [round(65_535 * point) for point in points]
    return b"curv\0\0\0\0" + struct.pack(f">I{len(points)}H", len(points), *numbers)


LINE = (0.9478, 0.0522, 0.0774, 0.04045)
CURVES: dict[str, tuple[bytes, Curve]] = {
    "straight": (table(), lambda x: x),
    "exponent": (curve(1.8), lambda x: x ** (461 / 256)),
    "points": (
        table(0, 0.1, 0.4, 1),
        lambda x: np.interp(x, [0, 1 / 3, 2 / 3, 1], [0, 0.1, 0.4, 1]),
    ),
    "power": (para(0, 2.1), lambda x: x**2.1),
    "power-above": (
        para(1, 2.0, 1.25, -0.25),
        lambda x: np.where(x >= 0.2, np.maximum(1.25 * x - 0.25, 0) ** 2, 0),
    ),
    "power-and-more": (
        para(2, 2.0, 1.25, -0.25, 0.125),
        lambda x: np.where(x >= 0.2, np.maximum(1.25 * x - 0.25, 0) ** 2 + 0.125, 0.125),
    ),
    "srgb": (
        para(3, 2.4, *LINE),
        lambda x: np.where(x >= LINE[3], (LINE[0] * x + LINE[1]) ** 2.4, LINE[2] * x),
    ),
    "srgb-and-more": (
        para(4, 2.4, *LINE, 0.01, 0.02),
        lambda x: np.where(x >= LINE[3], (LINE[0] * x + LINE[1]) ** 2.4 + 0.01, LINE[2] * x + 0.02),
    ),
    "below-zero": (
        para(4, 2.0, 1.0, -0.5, 0.0, 0.1, 0.0, 0.0),
        lambda x: np.where(x >= 0.1, np.maximum(x - 0.5, 0) ** 2, 0),
    ),
}


@pytest.mark.parametrize("name", CURVES)
def test_grey_of_16_bits_is_converted_by_every_kind_of_curve(name: str) -> None:
    """ICC.1:2022, 10.6 and table 68."""
    tag, light = CURVES[name]
    before = iccp(profile(b"GRAY", {b"kTRC": tag}))
    pixels = decode(png(BRIGHT, 16, GREY, before=before))
    assert off_by(pixels, three(srgb_of(light(BRIGHT / 65_535).clip(0, 1)))) <= 0.6


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("channel", range(3))
def test_each_sample_of_16_bits_has_a_curve_of_its_own(name: str, channel: int) -> None:
    tag, light = CURVES[name]
    tags = {b"rgb"[i : i + 1] + b"XYZ": xyz(*DISPLAY_P3[:, i]) for i in range(3)}
    curves = {b"rTRC": table(), b"gTRC": table(), b"bTRC": table()}
    curves[(b"rTRC", b"gTRC", b"bTRC")[channel]] = tag
    samples = noise(9, 31, 3, bits=16)
    linear = samples / 65_535
    linear[..., channel] = light(linear[..., channel]).clip(0, 1)
    pixels = decode(png(samples, 16, RGB, before=iccp(profile(b"RGB ", {**tags, **curves}))))
    assert off_by(pixels, srgb_of(linear @ (np.linalg.inv(SRGB) @ DISPLAY_P3).T)) <= 1.2


@pytest.mark.parametrize("gamma", [1.0, 2.2])
def test_a_grey_ramp_has_all_of_its_levels(gamma: float) -> None:
    """Also of 8 bits: Little CMS makes 50, 52, 55 of linear light that is 50, 53, 56."""
    ramp = np.arange(256, dtype=np.uint8).reshape(1, -1, 1)
    exponent = round(256 * gamma) / 256
    pixels = decode(png(ramp, 8, GREY, before=iccp(grey_profile(gamma))))
    assert off_by(pixels, three(srgb_of((ramp / 255) ** exponent))) <= 0.6


UNREAD = {
    "empty": b"",
    "header-alone": P3[:128],
    "no-tags": profile(b"RGB ", {}),
    "no-curves": profile(b"RGB ", {k + b"XYZ": xyz(*D50) for k in (b"r", b"g", b"b")}),
    "table": profile(b"GRAY", {b"kTRC": curve(1.8), b"A2B0": b"mft1"}),
    "lab": profile(b"GRAY", {b"kTRC": curve(1.8)}, connection=b"Lab "),
    "cmyk": profile(b"CMYK", {b"kTRC": curve(1.8)}),
    "curve-of-no-type": profile(b"GRAY", {b"kTRC": b"text" + bytes(20)}),
    "curve-of-no-kind": profile(b"GRAY", {b"kTRC": para(5, 1, 1, 1, 1, 1, 1, 1)}),
    "curve-cut": profile(b"GRAY", {b"kTRC": para(4, 1, 1, 1)}),
    "points-cut": profile(b"GRAY", {b"kTRC": table(0, 1)[:-2]}),
    "too-many-points": profile(b"GRAY", {b"kTRC": table(*np.linspace(0, 1, 0x8000))}),
    "colorant-of-no-type": P3.replace(b"XYZ \0\0\0\0" + fixed(*DISPLAY_P3[:, 1]), bytes(20)),
}


@pytest.mark.parametrize("icc", UNREAD.values(), ids=UNREAD)
def test_what_is_not_curves_and_a_matrix_is_left_to_little_cms(icc: bytes) -> None:
    assert read_shaper(P3) is not None
    assert read_shaper(icc) is None


def test_every_part_of_a_profile_may_be_cut_off_or_wrong() -> None:
    """It gives curves or nothing, and no error."""
    chosen = np.random.default_rng(1)
    for end in range(len(P3)):
        assert read_shaper(P3[:end]) is None or end > len(P3) - 12
        altered = bytearray(P3)
        altered[end] ^= chosen.integers(1, 256)
        read_shaper(bytes(altered))


# Tables (ICC.1:2022, 10.10): by Little CMS, at 8 bits


def table_profile(space: bytes, gamma: float) -> bytes:
    """L* rises with the mean of all samples, by a power, and a* with the first of several."""
    count, side = (3, 17) if space == b"RGB " else (1, 255)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, side)] * count, indexing="ij"), axis=-1)
    light = grid.mean(axis=-1) ** gamma
    green = 128 + (40 * (grid[..., 0] - grid.mean(axis=-1)) if count == 3 else 0 * light)
    lab = np.stack([65_280 * light, 256 * green, np.full_like(light, 256 * 128)], axis=-1)
    straight = np.array([0, 65_535], ">u2").tobytes()
    head = b"mft2\0\0\0\0" + bytes([count, 3, side, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    head += struct.pack(">HH", 2, 2)
    body = head + straight * count + lab.round().astype(">u2").tobytes() + straight * 3
    return profile(space, {b"A2B0": body}, connection=b"Lab ")


def by_little_cms(samples: Samples, icc: bytes) -> Samples:
    mode = "RGB" if samples.shape[2] == 3 else "L"
    source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    image = Image.fromarray(samples if mode == "RGB" else samples[..., 0])
    return np.array(ImageCms.profileToProfile(image, source, srgb, outputMode="RGB"))


@pytest.mark.parametrize(("space", "colour", "channels"), [(b"RGB ", RGB, 3), (b"GRAY", GREY, 1)])
def test_16_bits_that_are_8_bits_are_converted_as_those_by_tables(
    space: bytes, colour: int, channels: int
) -> None:
    icc = table_profile(space, 1.0)
    samples = noise(40, 60, channels)
    samples[0, :2] = [[0], [255]]
    pixels = decode(png(samples.astype(np.uint16) * 257, 16, colour, before=iccp(icc)))
    assert off_by(pixels, by_little_cms(samples, icc)) == 0
    assert len(np.unique(pixels)) > 100


@pytest.mark.parametrize(("space", "colour", "channels"), [(b"RGB ", RGB, 3), (b"GRAY", GREY, 1)])
def test_16_bits_between_8_bits_are_converted_in_between_by_tables(
    space: bytes, colour: int, channels: int
) -> None:
    """Tetrahedral interpolation: step by step, the sample with the most left to go first."""
    icc = table_profile(space, 1.0)
    samples = noise(2, 6, channels, bits=16)
    expected = np.zeros((2, 6, 3))
    for row, column in np.ndindex(2, 6):
        low, steps = np.divmod(samples[row, column], 257)
        order = np.argsort(-steps.astype(int))
        shares = np.diff([0, *sorted(steps), 257])[::-1] / 257
        for i, share in enumerate(shares):
            corner = low.astype(np.uint8)
            corner[order[:i]] += 1
            expected[row, column] += share * by_little_cms(corner.reshape(1, 1, -1), icc)[0, 0]
    assert off_by(decode(png(samples, 16, colour, before=iccp(icc))), expected) <= 0.5
