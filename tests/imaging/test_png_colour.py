"""What colours the samples of a PNG mean, by arithmetic from the definitions of their spaces."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.colour_spaces import (
    ADOBE,
    BT_2020,
    D65,
    P3_D65,
    PROPHOTO,
    SRGB,
    Curve,
    Space,
    chrm,
    cicp,
    expected,
    gama,
    intent,
    power,
    srgb_light,
)
from tests.support.image_files import (
    ADAM7,
    DISPLAY_P3,
    GREY,
    GREY_ALPHA,
    INDEXED,
    NOISE,
    P3,
    RGB,
    RGB_ALPHA,
    Samples,
    chunk,
    curve,
    decode,
    eight_bits,
    iccp,
    matrix_profile,
    noise,
    off_by,
    png,
    png_file,
    profile,
    refusal,
    scanlines,
    three,
)
from tests.support.properties import examples

RAMP: Samples = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
DARK: Samples = np.arange(0, 1311, dtype=np.uint16).reshape(1, -1, 1).repeat(3, axis=2)
"""16 bits, up to a fiftieth of white."""
LINEAR = gama(100_000)


# gAMA and cHRM (11.3.2.1, 11.3.2.2)


@pytest.mark.parametrize("value", [16, 20_000, 30_000, 43_100, 47_800, 55_556, 100_000, 500_000])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", [GREY, RGB])
def test_samples_are_raised_to_the_inverse_of_gama(value: int, bits: int, colour: int) -> None:
    samples = noise(9, 31, 3 if colour == RGB else 1, bits=bits)
    pixels = decode(png(samples, bits, colour, before=gama(value)))
    assert off_by(pixels, expected(samples, 2**bits - 1, power(100_000 / value))) <= 0.51


@pytest.mark.parametrize("value", [0, 15, 625_000_001, 2**32 - 1])
def test_an_absurd_gama_is_ignored(value: int) -> None:
    assert off_by(decode(png(NOISE, 8, RGB, before=gama(value))), NOISE) == 0


@pytest.mark.parametrize("value", [43_200, 45_000, 45_455, 47_600])
def test_gama_near_that_of_srgb_is_srgb_if_the_primaries_are(value: int) -> None:
    """As in libpng; with other primaries it is the power that it says."""
    assert off_by(decode(png(RAMP, 8, GREY, before=gama(value))), three(RAMP)) == 0
    assert off_by(decode(png(RAMP, 8, GREY, before=gama(value) + chrm(SRGB))), three(RAMP)) == 0
    pixels = decode(png(RAMP, 8, GREY, before=gama(value) + chrm(P3_D65)))
    assert off_by(pixels, expected(RAMP, 255, power(100_000 / value))) <= 0.51


@pytest.mark.parametrize("space", [SRGB, P3_D65, ADOBE, PROPHOTO, BT_2020])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("value", [45_455, 55_556, 100_000])
def test_chrm_with_gama_gives_the_primaries_and_the_white(
    space: Space, bits: int, value: int
) -> None:
    if space == SRGB and value == 45_455:
        value = 50_000  # otherwise it is sRGB itself
    samples = noise(9, 31, 3, bits=bits)
    samples[0, 0] = 2**bits - 1
    pixels = decode(png(samples, bits, RGB, before=chrm(space) + gama(value)))
    assert off_by(pixels, expected(samples, 2**bits - 1, power(100_000 / value), space)) <= 0.52
    assert pixels[0, 0].tolist() == [255, 255, 255]


def test_chrm_alone_has_no_effect() -> None:
    assert off_by(decode(png(NOISE, 8, RGB, before=chrm(ADOBE))), NOISE) == 0


@pytest.mark.parametrize(
    "space",
    [
        (D65, (0.3, 0.3), (0.3, 0.3), (0.3, 0.3)),
        (D65, (0.1, 0.1), (0.2, 0.2), (0.3, 0.3)),
        ((0.3127, 0.0), *SRGB[1:]),
        ((0.15, 0.45), *SRGB[1:]),
        ((0.9, 0.05), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)),
    ],
    ids=["one-point", "one-line", "no-luminance", "white-outside", "no-cones"],
)
def test_primaries_that_make_no_space_are_ignored(space: Space) -> None:
    pixels = decode(png(NOISE, 8, RGB, before=chrm(space) + LINEAR))
    assert off_by(pixels, expected(NOISE, 255, power(1))) <= 0.51


# cICP (11.3.2.6, and ITU-T H.273)

SPACES: dict[int, Space] = {
    1: SRGB,
    4: ((0.310, 0.316), (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: (D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: (D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: ((0.310, 0.316), (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: BT_2020,
    11: ((0.314, 0.351), *P3_D65[1:]),
    12: P3_D65,
    22: (D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}


def light_of_240m(encoded: Samples) -> Samples:
    return np.where(encoded < 0.0913, encoded / 4, ((encoded + 0.1115) / 1.1115) ** (1 / 0.45))


CURVES: dict[int, Curve] = {
    **{transfer: power(2.4) for transfer in (1, 6, 11, 14, 15)},
    4: power(2.2),
    5: power(2.8),
    7: light_of_240m,
    8: power(1.0),
    13: srgb_light,
    17: lambda encoded: encoded**2.6 * 52.37 / 48,
}


@pytest.mark.parametrize("primaries", SPACES)
@pytest.mark.parametrize("transfer", [8, 13])
def test_cicp_gives_the_primaries(primaries: int, transfer: int) -> None:
    pixels = decode(png(NOISE, 8, RGB, before=cicp(primaries, transfer)))
    assert off_by(pixels, expected(NOISE, 255, CURVES[transfer], SPACES[primaries])) <= 0.52


def test_the_primaries_of_a_cinema_are_those_of_the_eye() -> None:
    """XYZ itself, of which the white has equal parts."""
    xyz = ((1 / 3, 1 / 3), (1.0, 1e-9), (1e-9, 1.0), (1e-9, 1e-9))
    pixels = decode(png(NOISE, 8, RGB, before=cicp(10, 8)))
    assert off_by(pixels, expected(NOISE, 255, power(1), xyz)) <= 0.52


@pytest.mark.parametrize("transfer", CURVES)
@pytest.mark.parametrize("bits", [8, 16])
def test_cicp_gives_the_curve(transfer: int, bits: int) -> None:
    samples = noise(9, 31, 3, bits=bits)
    pixels = decode(png(samples, bits, RGB, before=cicp(12, transfer)))
    assert off_by(pixels, expected(samples, 2**bits - 1, CURVES[transfer], P3_D65)) <= 0.6
    grey = samples[..., :1].copy()
    pixels = decode(png(grey, bits, GREY, before=cicp(12, transfer)))
    assert off_by(pixels, expected(grey, 2**bits - 1, CURVES[transfer])) <= 0.6


def test_cicp_of_srgb_changes_nothing() -> None:
    assert off_by(decode(png(NOISE, 8, RGB, before=cicp(1, 13) + LINEAR)), NOISE) == 0


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_cicp_of_narrow_range_has_black_at_16_and_white_at_235(bits: int) -> None:
    """H.273, 8.3; samples of fewer bits are scaled to 8."""
    samples = noise(9, 31, 1, bits=bits)
    unit = (samples / (2**bits - 1) * (255 if bits < 16 else 65535 / 256) - 16) / 219
    pixels = decode(png(samples, bits, GREY, before=cicp(1, 13, 0, 0)))
    assert off_by(pixels, three(255 * unit.clip(0, 1))) <= 0.51


def test_narrow_range_has_colours_beyond_black_and_white() -> None:
    """They count until they are converted: out = sign(in) * curve(abs(in))."""
    unit = (NOISE / 1.0 - 16) / 219
    pixels = decode(png(NOISE, 8, RGB, before=cicp(12, 1, 0, 0)))
    light = expected(unit, 1, lambda v: np.sign(v) * np.abs(v) ** 2.4, P3_D65)
    assert off_by(pixels, light) <= 0.6


@pytest.mark.parametrize("name", ["PQ", "HLG"])
@pytest.mark.parametrize("more", [b"", iccp(P3), intent(0), LINEAR])
def test_hdr_is_refused_by_its_name(name: str, more: bytes) -> None:
    """Also where other chunks say how it looks as SDR: cICP goes before them."""
    refused = refusal(png(NOISE, 8, RGB, before=cicp(9, {"PQ": 16, "HLG": 18}[name]) + more))
    assert refused.type == "image_unreadable"
    assert f"HDR ({name})" in str(refused)
    assert "convert it to SDR" in str(refused)


INVALID = {
    "no-rgb": cicp(12, 13, 1),
    "no-such-range": cicp(12, 13, 0, 2),
    "primaries-unspecified": cicp(2, 13),
    "primaries-unknown": cicp(99, 13),
    "curve-unspecified": cicp(12, 2),
    "curve-logarithmic": cicp(12, 9),
    "curve-unknown": cicp(12, 99),
    "hdr-of-no-rgb": cicp(9, 16, 9),
    "short": chunk(b"cICP", bytes((12, 13, 0))),
    "long": chunk(b"cICP", bytes((12, 13, 0, 1, 0))),
}


@pytest.mark.parametrize("invalid", INVALID.values(), ids=INVALID)
def test_an_invalid_cicp_is_ignored(invalid: bytes) -> None:
    assert off_by(decode(png(NOISE, 8, RGB, before=invalid)), NOISE) == 0
    pixels = decode(png(NOISE, 8, RGB, before=invalid + LINEAR))
    assert off_by(pixels, expected(NOISE, 255, power(1))) <= 0.51


# Which of them counts (4.3)

SWAPPED = matrix_profile(DISPLAY_P3[:, [1, 2, 0]], 1.8)
KINDS: dict[str, tuple[bytes, Samples]] = {
    "cICP": (cicp(12, 13), expected(NOISE, 255, srgb_light, P3_D65)),
    "iCCP": (iccp(SWAPPED), expected(NOISE[..., [2, 0, 1]], 255, power(1.8), P3_D65)),
    "sRGB": (intent(0), NOISE.astype(float)),
    "gAMA": (chrm(ADOBE) + gama(60_000), expected(NOISE, 255, power(1 / 0.6), ADOBE)),
}
"""By their rank, a chunk of each kind, and what comes of it alone."""


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_the_kind_of_the_highest_rank_counts_wherever_it_stands(first: str, second: str) -> None:
    before = KINDS[first][0] + KINDS[second][0]
    highest = min(first, second, key=list(KINDS).index)
    assert off_by(decode(png(NOISE, 8, RGB, before=before)), KINDS[highest][1]) <= 2


BROKEN = {
    "cICP": cicp(12, 99),
    "iCCP": iccp(b"no profile"),
    "sRGB": intent(4),
    "gAMA": gama(0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_of_several_of_a_kind_the_first_valid_one_counts(kind: str) -> None:
    valid, pixels = KINDS[kind]
    other = {"cICP": cicp(1, 8), "iCCP": iccp(P3), "sRGB": b"", "gAMA": LINEAR + chrm(SRGB)}[kind]
    data = png(NOISE, 8, RGB, before=BROKEN[kind] + valid + other)
    assert off_by(decode(data), pixels) <= 2


@pytest.mark.parametrize("kind", ["cICP", "iCCP", "sRGB"])
def test_a_broken_one_leaves_it_to_the_next_kind(kind: str) -> None:
    pixels = decode(png(NOISE, 8, RGB, before=BROKEN[kind] + LINEAR))
    assert off_by(pixels, expected(NOISE, 255, power(1))) <= 0.51


def test_the_first_valid_chrm_counts() -> None:
    broken = chrm((D65, (0.1, 0.1), (0.2, 0.2), (0.3, 0.3)))
    short = chunk(b"cHRM", bytes(31))
    before = short + broken + chrm(ADOBE) + chrm(BT_2020) + LINEAR
    pixels = decode(png(NOISE, 8, RGB, before=before))
    assert off_by(pixels, expected(NOISE, 255, power(1), ADOBE)) <= 0.52


def test_thousands_of_colour_chunks_are_not_all_tried() -> None:
    data = png(NOISE, 8, RGB, before=gama(0) * 8 + LINEAR)
    assert off_by(decode(data), NOISE) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("colour", [RGB, INDEXED])
def test_a_colour_chunk_behind_the_pixels_is_ignored(kind: str, colour: int) -> None:
    samples = NOISE if colour == RGB else NOISE[..., :1]
    palette = noise(256, 3)
    plain = NOISE if colour == RGB else palette[samples[..., 0]]
    before = b"" if colour == RGB else chunk(b"PLTE", palette.tobytes())
    data = png(samples, 8, colour, before=before, after=KINDS[kind][0])
    assert off_by(decode(data), plain) == 0


# Profiles (11.3.2.3)

STREAM = zlib.compress(P3)
BAD_PROFILES = {
    "empty": b"",
    "name-alone": b"name\0",
    "no-name": b"\0\0" + STREAM,
    "name-of-80-bytes": b"n" * 80 + b"\0\0" + STREAM,
    "name-without-end": b"n" * 200,
    "other-method": b"name\0\1" + STREAM,
    "no-stream": b"name\0\0",
    "stream-of-nothing": b"name\0\0" + zlib.compress(b""),
    "damaged-stream": b"name\0\0" + STREAM[:20] + b"\xff\xff" + STREAM[22:],
    "cut-stream": b"name\0\0" + STREAM[:-30],
    "stream-without-checksum": b"name\0\0" + STREAM[:-4],
    "wrong-checksum-of-stream": b"name\0\0" + STREAM[:-1] + bytes([STREAM[-1] ^ 1]),
    "grey": b"name\0\0" + zlib.compress(profile(b"GRAY", {b"kTRC": curve(1.8)})),
}


@pytest.mark.parametrize("content", BAD_PROFILES.values(), ids=BAD_PROFILES)
def test_a_bad_profile_is_ignored_and_the_next_one_counts(content: bytes) -> None:
    bad = chunk(b"iCCP", content)
    assert off_by(decode(png(NOISE, 8, RGB, before=bad)), NOISE) == 0
    pixels = decode(png(NOISE, 8, RGB, before=bad + iccp(P3)))
    assert off_by(pixels, expected(NOISE, 255, power(563 / 256), P3_D65)) <= 2


def test_a_name_of_79_bytes_is_not_too_long() -> None:
    data = png(NOISE, 8, RGB, before=chunk(b"iCCP", b"n" * 79 + b"\0\0" + STREAM))
    assert off_by(decode(data), expected(NOISE, 255, power(563 / 256), P3_D65)) <= 2


def test_a_profile_that_inflates_without_end_is_refused() -> None:
    content = b"name\0\0" + zlib.compress(bytes(17 * 2**20))
    refused = refusal(png(NOISE, 8, RGB, before=chunk(b"iCCP", content)))
    assert refused.type == "image_unreadable"
    assert "profile" in str(refused)


# At the file's own depth


@pytest.mark.parametrize(
    "before",
    [LINEAR, cicp(1, 8), iccp(matrix_profile(DISPLAY_P3, 1.0))],
    ids=["gAMA", "cICP", "iCCP"],
)
def test_a_dark_ramp_of_16_bits_has_all_of_its_levels(before: bytes) -> None:
    pixels = decode(png(DARK, 16, RGB, before=before))
    assert off_by(pixels, expected(DARK, 65_535, power(1))) <= 1
    assert np.array_equal(np.unique(pixels), np.arange(pixels.max() + 1))
    assert pixels.max() == 39


def test_colours_that_are_srgb_already_keep_their_upper_eight_bits() -> None:
    samples = noise(9, 31, 3, bits=16)
    for before in (b"", intent(1), cicp(1, 13), gama(45_455)):
        assert off_by(decode(png(samples, 16, RGB, before=before)), samples >> 8) == 0


DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), INDEXED: (1, 2, 4, 8), GREY_ALPHA: (8, 16)}
DEPTHS[RGB_ALPHA] = (8, 16)
CHANNELS = {GREY: 1, RGB: 3, INDEXED: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
SAMPLES_OF_EVERY_KIND = [(colour, bits) for colour, all_bits in DEPTHS.items() for bits in all_bits]
DESCRIPTIONS: list[tuple[bytes, Curve, Space]] = [
    (b"", srgb_light, SRGB),
    (LINEAR, power(1), SRGB),
    (gama(38_000) + chrm(PROPHOTO), power(100 / 38), PROPHOTO),
    (cicp(9, 1), power(2.4), BT_2020),
    (cicp(12, 13) + intent(0), srgb_light, P3_D65),
]


@pytest.mark.parametrize(("colour", "bits"), SAMPLES_OF_EVERY_KIND)
@given(
    description=st.sampled_from(DESCRIPTIONS),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    interlaced=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=examples(60))
def test_samples_of_every_kind_become_the_colours_that_they_mean(
    colour: int,
    bits: int,
    *,
    description: tuple[bytes, Curve, Space],
    size: tuple[int, int],
    interlaced: bool,
    seed: int,
) -> None:
    before, light, space = description
    chosen = np.random.default_rng(seed)
    samples = chosen.integers(0, 2**bits, (*size[::-1], CHANNELS[colour]), np.uint16)
    palette = chosen.integers(0, 256, (2**bits, 3)) if colour == INDEXED else None
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [samples]
    rows = b"".join(scanlines(each, bits) for each in passes if each.size)
    before += b"" if palette is None else chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    stream = chunk(b"IDAT", zlib.compress(rows))
    pixels = decode(png_file(size, bits, colour, before, stream, interlaced=interlaced))

    colours = samples[..., :-1] if colour in (GREY_ALPHA, RGB_ALPHA) else samples
    if palette is not None:
        colours = palette[samples[..., 0]]
    most = 255 if palette is not None else 2**bits - 1
    # Samples of 16 bits that are sRGB already are cut, not rounded.
    assert off_by(pixels[..., :3], expected(colours, most, light, space)) < 1.01
    if pixels.shape[2] == 4:
        assert off_by(pixels[..., 3:], eight_bits(samples[..., -1:], bits)) == 0
