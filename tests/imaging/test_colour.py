"""Samples of every depth and kind, transparency, and colour profiles."""

import struct
from typing import Any

import numpy as np
import pytest
from PIL import ImageCms

from tests.support.image_files import (
    BLOCKS,
    DISPLAY_P3,
    GREY,
    GREY_ALPHA,
    INDEXED,
    NOISE,
    P3,
    RGB,
    RGB_ALPHA,
    Samples,
    as_seen,
    chunk,
    curve,
    decode,
    eight_bits,
    fixed,
    formats,
    iccp,
    jpeg_segments,
    matrix_profile,
    noise,
    off_by,
    png,
    profile,
    saved,
    three,
    tiff,
    xyz,
)

# Samples and transparency


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_any_depth_becomes_rgb(bits: int) -> None:
    samples = noise(9, 13, 1, bits=bits)
    assert off_by(decode(png(samples, bits, GREY)), three(eight_bits(samples, bits))) == 0


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("share", [0, 0.4, 1])
def test_the_transparent_grey_of_any_depth_is_transparent_alone(bits: int, share: float) -> None:
    chosen = round(share * (2**bits - 1))
    samples = np.arange(max(0, chosen - 300), min(2**bits, chosen + 300)).reshape(1, -1, 1)
    pixels = decode(png(samples, bits, GREY, before=chunk(b"tRNS", struct.pack(">H", chosen))))
    alpha = np.where(samples == chosen, 0, 255)
    assert off_by(pixels, np.dstack([three(eight_bits(samples, bits)), alpha])) == 0


@pytest.mark.parametrize("bits", [8, 16])
def test_rgb_keeps_its_upper_eight_bits(bits: int) -> None:
    samples = noise(9, 13, 3, bits=bits)
    assert off_by(decode(png(samples, bits, RGB)), eight_bits(samples, bits)) == 0


TRANSPARENT = np.array([0x1234, 0x0256, 0x9A78])


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_rgb_is_transparent_alone(bits: int) -> None:
    chosen = TRANSPARENT >> (16 - bits)
    changes = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [-1, -1, -1]])
    others = [chosen >> 8, chosen & 0xFF, np.zeros(3, int)]
    samples = np.vstack([chosen + changes, *others])[None]
    before = chunk(b"tRNS", struct.pack(">HHH", *chosen))
    alpha = np.where((samples == chosen).all(axis=2), 0, 255)
    expected = np.dstack([eight_bits(samples, bits), alpha])
    assert off_by(decode(png(samples, bits, RGB, before=before)), expected) == 0


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_of_grey_is_kept(bits: int) -> None:
    samples = noise(9, 13, 2, bits=bits)
    grey, alpha = np.moveaxis(eight_bits(samples, bits), 2, 0)
    assert off_by(decode(png(samples, bits, GREY_ALPHA)), np.dstack([three(grey), alpha])) == 0


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_of_rgb_is_kept(bits: int) -> None:
    samples = noise(9, 13, 4, bits=bits)
    assert off_by(decode(png(samples, bits, RGB_ALPHA)), eight_bits(samples, bits)) == 0


def palette_of(bits: int) -> Samples:
    return noise(2**bits, 3)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "alphas",
    [b"", b"\0", b"\xff\0", b"\x80", b"\0\x80"],
    ids=["none", "first", "one", "half", "two"],
)
def test_a_palette_gives_its_colours_and_their_alpha(bits: int, alphas: bytes) -> None:
    """Entries without an alpha of their own are opaque."""
    samples = noise(9, 13, 1, bits=bits)
    colours = palette_of(bits)
    before = chunk(b"PLTE", colours.tobytes()) + (chunk(b"tRNS", alphas) if alphas else b"")
    if alphas:
        opaque = np.array([*alphas, *[255] * (2**bits - len(alphas))])
        colours = np.column_stack([colours, opaque])
    pixels = decode(png(samples, bits, INDEXED, before=before))
    assert off_by(pixels, colours[samples[..., 0]]) == 0


def test_alpha_of_a_webp_is_kept() -> None:
    pixels = np.dstack([NOISE, NOISE[..., :1] | 1])
    data = saved(pixels, "WEBP", lossless=True, exact=True)
    assert off_by(decode(data), pixels) == 0


def test_grey_jpeg_becomes_rgb() -> None:
    assert off_by(decode(saved(BLOCKS[..., 0], "JPEG")), three(BLOCKS[..., 0])) <= 1


INKS = np.dstack([BLOCKS, BLOCKS[::-1, :, 0] // 2])


def complement(inks: Samples) -> Samples:
    """Each of cyan, magenta and yellow takes its share of what black leaves."""
    return (255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255


def test_cmyk_with_adobes_mark_is_converted_by_the_complement() -> None:
    data = saved(INKS, "JPEG", "CMYK")
    assert jpeg_segments(data)[0xEE].startswith(b"Adobe")
    assert off_by(decode(data), complement(INKS)) <= 2


def test_cmyk_without_adobes_mark_is_inverted_all_the_same() -> None:
    """As browsers take it: nearly every CMYK JPEG is Adobe's, whatever its marks."""
    data = saved(INKS, "JPEG", "CMYK")
    at = data.index(b"\xff\xee")
    data = data[:at] + data[at + 16 :]
    assert 0xEE not in jpeg_segments(data)
    assert off_by(decode(data), complement(INKS)) <= 2


def test_ycck_is_converted_by_the_complement() -> None:
    """Adobe stores the inks but black as luma and two chromas, and black inverted."""
    cyan, magenta, yellow, black = np.moveaxis(INKS.astype(float), 2, 0)
    luma = 0.299 * cyan + 0.587 * magenta + 0.114 * yellow
    stored = [luma, (yellow - luma) / 1.772 + 128, (cyan - luma) / 1.402 + 128, 255 - black]
    components = np.dstack(stored).round().clip(0, 255).astype(np.uint8)
    data = bytearray(saved(255 - components, "JPEG", "CMYK"))  # which Pillow inverts once more
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    data[transform] = 2
    assert off_by(decode(bytes(data)), complement(INKS)) <= 3


# Colour profiles

SRGB = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)


def grey_profile(gamma: float) -> bytes:
    return profile(b"GRAY", {b"kTRC": curve(gamma)})


def black_only_profile() -> bytes:
    """CMYK in which black alone counts: lightness falls with it from 100, bare paper, to 0.

    The paper is yellowish, and white it is to become.
    """
    grid = b"".join(bytes([0 if black else 255, 128, 128]) for _ in range(8) for black in (0, 1))
    straight = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut = table + 4 * straight + grid + 3 * straight
    return profile(b"CMYK", {b"wtpt": xyz(0.75, 0.78, 0.55), b"A2B0": lut}, connection=b"Lab ")


def srgb_of(linear: Samples) -> Samples:
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def by_matrix(samples: Samples, primaries: Samples, gamma: float) -> Samples:
    """sRGB by way of XYZ, of samples of 8 or 16 bits in a space of these primaries."""
    linear = (samples / np.iinfo(samples.dtype).max) ** gamma
    return srgb_of(linear @ (np.linalg.inv(SRGB) @ primaries).T)


def by_grey(grey: Samples, gamma: float) -> Samples:
    return three(srgb_of((grey / np.iinfo(grey.dtype).max) ** gamma))


SPACES = {
    "linear": (SRGB, 1.0),
    "steep": (SRGB, 1.8),
    "display-p3": (DISPLAY_P3, 2.2),
    "swapped": (SRGB[:, [1, 0, 2]], 2.2),
}
spaces = pytest.mark.parametrize(("primaries", "gamma"), SPACES.values(), ids=SPACES)


@spaces
@formats
def test_colours_are_converted_by_the_profile(
    primaries: Samples, gamma: float, kind: str, options: dict[str, Any]
) -> None:
    unconverted = decode(saved(NOISE, kind, **options))
    data = saved(NOISE, kind, **options, icc_profile=matrix_profile(primaries, gamma))
    assert off_by(decode(data), by_matrix(unconverted, primaries, gamma)) <= 2


def test_a_profile_of_srgb_changes_nothing() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert off_by(decode(png(NOISE, 8, RGB, before=iccp(icc))), NOISE) <= 1


@spaces
@pytest.mark.parametrize("bits", [8, 16])
def test_the_profile_of_rgb_with_alpha_leaves_alpha(
    primaries: Samples, gamma: float, bits: int
) -> None:
    samples = noise(9, 13, 4, bits=bits)
    icc = iccp(matrix_profile(primaries, gamma))
    pixels = decode(png(samples, bits, RGB_ALPHA, before=icc))
    assert off_by(pixels[..., 3], eight_bits(samples, bits)[..., 3]) == 0
    assert off_by(pixels[..., :3], by_matrix(samples[..., :3], primaries, gamma)) <= 2


@spaces
@pytest.mark.parametrize("alphas", [b"", b"\xff\0", b"\x80\x90"], ids=["none", "one", "two"])
def test_the_profile_of_a_palette_converts_its_colours(
    primaries: Samples, gamma: float, alphas: bytes
) -> None:
    samples = noise(9, 13, 1, bits=4)
    before = iccp(matrix_profile(primaries, gamma)) + chunk(b"PLTE", palette_of(4).tobytes())
    before += chunk(b"tRNS", alphas) if alphas else b""
    pixels = decode(png(samples, 4, INDEXED, before=before))
    plain = palette_of(4)[samples[..., 0]]
    assert off_by(pixels[..., :3], by_matrix(plain, primaries, gamma)) <= 2
    assert pixels.shape[2] == (4 if alphas else 3)


@pytest.mark.parametrize("gamma", [1.0, 1.5, 1.8, 2.5])
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_grey_is_converted_by_a_profile_of_grey(gamma: float, bits: int) -> None:
    samples = noise(9, 13, 1, bits=bits)
    pixels = decode(png(samples, bits, GREY, before=iccp(grey_profile(gamma))))
    plain = samples if bits == 16 else eight_bits(samples, bits)
    assert off_by(pixels, by_grey(plain, gamma)) <= 1


@pytest.mark.parametrize("gamma", [1.5, 1.8, 2.5])
@pytest.mark.parametrize("bits", [8, 16])
def test_grey_with_alpha_is_converted_by_a_profile_of_grey(gamma: float, bits: int) -> None:
    samples = noise(9, 13, 2, bits=bits)
    pixels = decode(png(samples, bits, GREY_ALPHA, before=iccp(grey_profile(gamma))))
    assert off_by(pixels[..., 3], eight_bits(samples, bits)[..., 1]) == 0
    assert off_by(pixels[..., :3], by_grey(samples[..., 0], gamma)) <= 1


@pytest.mark.parametrize("gamma", [1.0, 1.8])
def test_a_grey_jpeg_is_converted_by_a_profile_of_grey(gamma: float) -> None:
    plain = decode(saved(BLOCKS[..., 0], "JPEG"))
    data = saved(BLOCKS[..., 0], "JPEG", icc_profile=grey_profile(gamma))
    assert off_by(decode(data), by_grey(plain[..., :1], gamma)) <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_with_a_transparent_value_is_converted_by_a_profile_of_grey(bits: int) -> None:
    samples = noise(9, 13, 1, bits=bits)
    before = iccp(grey_profile(1.8)) + chunk(b"tRNS", struct.pack(">H", samples[0, 0, 0]))
    pixels = decode(png(samples, bits, GREY, before=before))
    assert pixels[0, 0, 3] == 0
    assert off_by(pixels[..., :3], by_grey(samples, 1.8)) <= 1


def test_cmyk_is_converted_by_its_profile() -> None:
    data = saved(INKS, "JPEG", "CMYK", icc_profile=black_only_profile())
    lightness = 100 * (1 - INKS[..., 3] / 255)
    shifted = (lightness + 16) / 116
    linear = np.where(shifted > 6 / 29, shifted**3, 3 * (6 / 29) ** 2 * (shifted - 4 / 29))
    assert off_by(decode(data), three(srgb_of(linear))) <= 3


def lab_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


UNUSABLE = {
    "one-byte": b"x",
    "garbage": b"garbage" * 50,
    "zeros": bytes(500),
    "header-alone": P3[:128],
    "cut": P3[:300],
    "unsigned": P3[:36] + b"abcd" + P3[40:],
    "no-tags": profile(b"RGB ", {}),
    "grey": grey_profile(1.0),
    "cmyk": black_only_profile(),
    "lab": lab_profile(),
}


@pytest.mark.parametrize("icc", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_profile_leaves_rgb_as_it_is(icc: bytes) -> None:
    assert off_by(decode(png(NOISE, 8, RGB, before=iccp(icc))), NOISE) == 0


@pytest.mark.parametrize("icc", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_profile_leaves_rgb_with_alpha_as_it_is(icc: bytes) -> None:
    pixels = np.dstack([NOISE, NOISE[..., 1]])
    assert off_by(decode(png(pixels, 8, RGB_ALPHA, before=iccp(icc))), pixels) == 0


@pytest.mark.parametrize("icc", [P3, black_only_profile(), lab_profile(), b"x"])
def test_an_unusable_profile_leaves_grey_as_it_is(icc: bytes) -> None:
    pixels = decode(png(NOISE[..., :1], 8, GREY, before=iccp(icc)))
    assert off_by(pixels, three(NOISE[..., :1])) == 0


@pytest.mark.parametrize("icc", [P3, grey_profile(1.0), lab_profile(), b"x"])
def test_an_unusable_profile_leaves_cmyk_to_the_complement(icc: bytes) -> None:
    assert off_by(decode(saved(INKS, "JPEG", "CMYK", icc_profile=icc)), complement(INKS)) <= 2


def test_a_profile_that_is_not_compressed_as_told_leaves_rgb_as_it_is() -> None:
    broken = chunk(b"iCCP", b"name\0\0" + b"no deflate stream")
    assert off_by(decode(png(NOISE, 8, RGB, before=broken)), NOISE) == 0


def test_a_turned_image_with_a_profile_is_both_turned_and_converted() -> None:
    data = png(NOISE, 8, RGB, before=iccp(P3) + chunk(b"eXIf", tiff(6)))
    assert off_by(decode(data), by_matrix(as_seen(NOISE, 6), DISPLAY_P3, 2.2)) <= 2
