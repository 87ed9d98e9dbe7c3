"""JPEGs of samplings that TurboJPEG has no name for are read if every block is there.

libvips brings a libjpeg of its own, and takes any complaint of it for an error.
"""

import re
import struct
import tracemalloc
from random import Random

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support import jpeg_encoder
from tests.support.image_files import Samples, noise, off_by, outcome, refusal
from tests.support.jpeg_encoder import Factors, ScanScript, encode, in_scans
from tests.support.properties import examples
from upscaler.imaging import jpeg, jpeg_blocks
from upscaler.imaging.decode import read_header

pytestmark = pytest.mark.dev

SAMPLINGS: tuple[list[Factors], ...] = (
    [(3, 1), (1, 1), (1, 1)],
    [(1, 3), (1, 1), (1, 1)],
    [(1, 4), (1, 1), (1, 1)],
    [(4, 2), (1, 1), (1, 1)],
    [(4, 1), (2, 1), (1, 1)],
    [(1, 4), (1, 1), (1, 2)],
    [(2, 2), (2, 1), (1, 1)],
    [(2, 2), (2, 2), (1, 1)],
    [(1, 1), (2, 2), (2, 2)],
    [(1, 1), (2, 1), (1, 2)],
    [(2, 1), (1, 2), (1, 1)],
)
SCRIPTS = {
    "one": None,
    "progressive": in_scans(3),
    "of-two-and-one": [ScanScript((0,)), ScanScript((1, 2))],
    "of-each": [ScanScript((2,)), ScanScript((0,)), ScanScript((1,))],
}
SEEDS = st.integers(0, 2**32).map(Random)


def samples(height: int, width: int, count: int = 3) -> Samples:
    """A slope with noise on it."""
    slope = np.add.outer(np.arange(height) * 2, np.arange(width))[..., None]
    colours: Samples = (slope + np.arange(count) * 40) % 256 // 2
    return np.asarray(colours + noise(height, width, count) // 4, np.uint8)


def by_libvips(data: bytes) -> Samples | str:
    """The pixels, or what libjpeg complains of."""
    try:
        image = pyvips.Image.new_from_buffer(data, "", fail_on="warning")
        return np.asarray(image.numpy())
    except pyvips.Error as error:
        return str(error)


@pytest.mark.every(5)
@pytest.mark.parametrize("interval", [0, 1, 3])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("factors", SAMPLINGS, ids=str)
def test_any_sampling_is_read(
    factors: list[Factors], script: list[ScanScript] | None, interval: int
) -> None:
    for size in ((37, 50), (8, 97)):
        data = encode(samples(*size), factors, script=script, interval=interval)
        expected = by_libvips(data)
        assert not isinstance(expected, str), expected
        assert off_by(np.asarray(outcome(data)), expected) <= 1


def test_the_samplings_here_are_those_that_turbojpeg_has_no_name_for() -> None:
    for factors in SAMPLINGS:
        data = encode(samples(16, 16), factors)
        assert not jpeg._has_named_sampling(data)
    assert jpeg._has_named_sampling(encode(samples(16, 16), [(2, 1), (1, 1), (1, 1)]))


def test_a_sampling_does_not_change_the_colours_of_a_flat_picture() -> None:
    """By arithmetic (JFIF 1.02): Y 120, Cb 90 and Cr 160."""
    flat = np.full((40, 40, 3), (120, 90, 160), np.uint8)
    rgb = 120 + 1.402 * 32, 120 - 0.344136 * -38 - 0.714136 * 32, 120 + 1.772 * -38
    for factors in SAMPLINGS:
        assert off_by(np.asarray(outcome(encode(flat, factors))), np.tile(rgb, (40, 40, 1))) <= 2
        direct = encode(flat, factors, ids=b"RGB")
        assert off_by(np.asarray(outcome(direct)), flat) <= 2


def test_the_sampling_of_grey_means_nothing() -> None:
    grey = samples(30, 41, 1)
    plain = outcome(encode(grey, [(1, 1)]))
    for factors in ((2, 2), (4, 1), (1, 3)):
        assert np.array_equal(outcome(encode(grey, [factors], interval=2)), plain)


INKS: tuple[list[Factors], ...] = (
    [(1, 1)] * 4,
    [(2, 2), (1, 1), (1, 1), (2, 2)],
    [(2, 1), (1, 1), (1, 1), (1, 1)],
    [(3, 1), (1, 1), (1, 1), (3, 1)],
)


@pytest.mark.parametrize("factors", INKS, ids=str)
@pytest.mark.parametrize("progressive", [False, True])
def test_cmyk_of_any_sampling_is_converted_by_the_complement(
    factors: list[Factors], progressive: bool
) -> None:
    """Stored is the complement, as Adobe does."""
    flat = np.full((33, 40, 4), (200, 140, 60, 230), np.uint8)
    data = encode(flat, factors, script=in_scans(4) if progressive else None)
    expected = np.tile(np.array([200, 140, 60]) * 230 / 255, (33, 40, 1))
    assert off_by(np.asarray(outcome(data)), expected) <= 2


def interval_of_one_colour(mcus: int, y: int, cb: int, cr: int) -> bytes:
    """A restart interval of 3x1 pictures, of these DC coefficients.

    Two MCUs fill whole bytes, if the bits of the three numbers do.
    """

    def unit(*values: int) -> jpeg_encoder.Unit:
        of_each = [(0, values[0])] * 3 + [(1, values[1]), (2, values[2])]
        return [(own, [value, *[0] * 63]) for own, value in of_each]

    scan = ScanScript((0, 1, 2))
    first = jpeg_encoder.coded([unit(y, cb, cr)] * 2, scan)
    pair, one = (jpeg_encoder.coded([unit(0, 0, 0)] * count, scan) for count in (2, 1))
    assert (len(first), len(pair)) == (16, 15)
    return first + pair * (mcus // 2 - 1) + one * (mcus % 2)


def test_the_longest_interval_may_end_before_the_picture() -> None:
    """With one MCU more than it has, it would be too long for the 16 bits of DRI (B.2.4.4)."""
    most, factors, size = 65_535, [(3, 1), (1, 1), (1, 1)], (8 * 257, 24 * 256)
    small = encode(np.full((8, 24, 3), 128), factors, interval=most)
    header = small[: small.index(b"\xff\xda") + 14]
    header = header.replace(struct.pack(">HH", 8, 24), struct.pack(">HH", *size), 1)
    first, last = (
        interval_of_one_colour(most, 10, 2, -3),
        interval_of_one_colour(257, -9, -2, 3),
    )
    data = header + first + b"\xff\xd0" + last + b"\xff\xd9"
    expected = by_libvips(data)
    assert not isinstance(expected, str), expected
    assert len(np.unique(expected.reshape(-1, 3)[:: 24 * 8], axis=0)) == 2
    assert np.array_equal(outcome(data), expected)
    for changed in (
        header + first[:-15] + b"\xff\xd0" + last,
        header + first + b"\xff\xd0" + last[:-15],
        header + first + b"ab\xff\xd0" + last,
        header + first + b"\xff\xd0" + last + b"ab",
    ):
        with pytest.raises(ValueError, match=r"too (short|long)"):
            jpeg_blocks.check_scans_of_dc(changed + b"\xff\xd9", may_have_trailer=False)


@pytest.mark.parametrize("interval", [59, 60, 61, 65_535])
def test_an_interval_may_be_as_long_as_the_picture_or_longer(interval: int) -> None:
    data = encode(samples(48, 240), [(3, 1), (1, 1), (1, 1)], interval=interval)
    assert off_by(np.asarray(outcome(data)), np.asarray(by_libvips(data))) <= 1


# What is not whole


def files(random: Random) -> tuple[bytes, int]:
    """A file of any kind above, and where its first scan begins."""
    picture = samples(*random.choice(((37, 50), (17, 33))))
    if random.random() < 0.5:  # so that there are blocks that take few bits
        picture[random.randrange(12) :] = random.choice((128, 77))
    script = random.choice(list(SCRIPTS.values()))
    interval = random.choice((0, 0, 1, 2, 7))
    data = encode(picture, random.choice(SAMPLINGS), script=script, interval=interval)
    return data, data.index(b"\xff\xda")


@given(SEEDS, st.integers(1, 400), st.booleans())
@settings(max_examples=examples(400), deadline=None)
def test_a_file_that_is_cut_off_is_refused(random: Random, missing: int, closed: bool) -> None:
    data, start = files(random)
    cut = data[: max(start, len(data) - 2 - missing)].removesuffix(b"\xff")
    assert refusal(cut + b"\xff\xd9" * closed).type == "image_damaged"


@given(SEEDS, st.integers(1, 400))
@settings(max_examples=examples(400), deadline=None)
def test_a_file_with_a_gap_is_refused_or_libjpeg_has_no_complaint(
    random: Random, missing: int
) -> None:
    data, start = files(random)
    at = random.randrange(start, len(data) - 2)
    changed = data[:at] + data[min(at + missing, len(data) - 2) :]
    result = outcome(changed)
    if not isinstance(result, str):
        expected = by_libvips(jpeg.coded(changed))
        if isinstance(expected, str):  # see the module's docstring for what is not found
            assert re.search(r"bad Huffman code|data: [1-7] extraneous bytes", expected)
        else:
            assert off_by(result, expected) <= 1


def intervals(data: bytes) -> list[tuple[int, int]]:
    """Where each restart interval but the first begins, with its marker, and ends."""
    starts = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    return list(zip(starts, [*starts[1:], len(data) - 2], strict=True))


@pytest.mark.parametrize("factors", SAMPLINGS[::3], ids=str)
def test_an_interval_that_is_missing_empty_or_short_is_refused(factors: list[Factors]) -> None:
    data = encode(samples(40, 250), factors, interval=1)
    found = intervals(data)
    assert len(found) > 20
    for start, end in found[::4]:
        assert outcome(data[:start] + data[end:]) == "image_damaged", "missing"
        assert outcome(data[: start + 2] + data[end:]) == "image_damaged", "empty"
        last = data[:end].removesuffix(b"\xff\0")[: end - 1]
        assert outcome(last + data[end:]) == "image_damaged", "a byte is missing"
        assert outcome(data[:end] + b"\x5a" + data[end:]) == "image_damaged", "one too many"
    for start, end in zip(*(iter(found[at:]) for at in (0, 7)), strict=False):
        assert outcome(data[: start[0]] + data[end[1] :]) == "image_damaged", "eight are missing"


def test_restart_markers_come_in_their_order() -> None:
    data = encode(samples(16, 96), SAMPLINGS[0], interval=1)
    for number in range(3):
        mark, wrong = bytes((0xFF, 0xD0 + number)), bytes((0xFF, 0xD1 + number))
        assert outcome(data.replace(mark, wrong, 1)) == "image_damaged"


def test_the_last_interval_may_have_a_marker_behind_it_or_zeros() -> None:
    data = encode(samples(16, 96), SAMPLINGS[0], interval=1)
    count = len(intervals(data))
    expected = outcome(data)
    assert np.array_equal(
        outcome(data[:-2] + bytes((0xFF, 0xD0 + count % 8)) + data[-2:]), expected
    )
    assert np.array_equal(outcome(data[:-2] + bytes(30) + data[-2:]), expected)
    assert outcome(data[:-2] + bytes(30) + b"\1" + data[-2:]) == "image_damaged"


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("script", [None, SCRIPTS["of-each"]], ids=["one", "of-each"])
@pytest.mark.parametrize("factors", [SAMPLINGS[0], [(1, 1)] * 3, [(2, 2), (1, 1), (1, 1)]], ids=str)
def test_an_interval_may_be_filled_up_with_a_byte_of_ones(
    factors: list[Factors], script: list[ScanScript] | None, interval: int
) -> None:
    """As by an encoder of Motion JPEG, which writes eight of them where no bit is free."""
    picture = samples(64, 240)
    usual = encode(picture, factors, script=script, interval=interval)
    filled = encode(picture, factors, script=script, interval=interval, most_ones=8)
    assert "extraneous bytes before marker" in str(by_libvips(filled))
    assert np.array_equal(outcome(filled), outcome(usual))


def test_more_ones_than_a_byte_or_other_bytes_may_stand_for_blocks() -> None:
    data = encode(samples(16, 250), SAMPLINGS[0], interval=2)
    expected = outcome(data)
    for start, end in intervals(data)[:-1]:  # behind the last one zeros may stand
        assert np.array_equal(outcome(data[:end] + b"\xff\0" + data[end:]), expected)
        for more in (b"\xff\0" * 2, b"\xff\0" * 8, b"\0", b"\xfe", b"\xff\0\x5a"):
            assert outcome(data[:end] + more + data[end:]) == "image_damaged"
        short = data[: max(start + 2, end - 4)].removesuffix(b"\xff")
        assert outcome(short + b"\xff\0" + data[end:]) == "image_damaged"


def test_a_refinement_of_dc_has_a_bit_for_each_block() -> None:
    data = encode(samples(37, 50), SAMPLINGS[2], script=in_scans(3))
    assert not isinstance(outcome(data), str)
    assert outcome(data[:-3] + data[-2:]) == "image_damaged"
    assert outcome(data[:-2] + b"\x11" + data[-2:]) == "image_damaged"
    assert not isinstance(outcome(data[:-2] + b"\0" + data[-2:]), str)


def test_a_component_has_no_two_scans_of_the_same() -> None:
    """Each of them takes the time of a whole image."""
    script = [ScanScript((0,)), ScanScript((1,)), ScanScript((1,)), ScanScript((2,))]
    assert outcome(encode(samples(16, 24), SAMPLINGS[0], script=script)) == "image_damaged"


def test_bits_that_are_no_code_are_found() -> None:
    data = encode(samples(37, 50), SAMPLINGS[0])
    start = data.index(b"\xff\xda") + 14
    found = 0
    for at in range(start, len(data) - 60, 97):
        changed = data[:at] + b"\xff\0" * 3 + data[at + 6 :]
        complaint = by_libvips(changed)
        if isinstance(complaint, str) and "bad Huffman code" in complaint:
            found += 1
            assert outcome(changed) == "image_damaged", at
    assert found > 5


@pytest.mark.parametrize("used", [3, 14, 100])
def test_a_table_is_filled_up_with_codes(used: int) -> None:
    """By arithmetic: but for the one of 16 ones, each string of bits begins with a code."""
    length = used.bit_length()
    counts = [0] * 16
    counts[length - 1] = used
    filled = jpeg_blocks._filled(bytes(counts) + bytes(range(used)))
    assert filled[16 : 16 + used] == bytes(range(used))
    assert len(filled) == 16 + sum(filled[:16])
    assert sum(count << (16 - i) for i, count in enumerate(filled[:16], 1)) == 2**16 - 1


def test_sampling_factors_that_no_decoder_supports_are_named() -> None:
    data = encode(samples(16, 24), [(3, 1), (1, 1), (1, 1)])
    frame = data.index(b"\xff\xc1")
    changed = data[: frame + 14] + b"\x21" + data[frame + 15 :]
    assert isinstance(by_libvips(changed), str)
    assert "sampling factors that are not multiples" in str(refusal(changed))
    for factors in (0x01, 0x10, 0x51):
        changed = data[: frame + 11] + bytes((factors,)) + data[frame + 12 :]
        assert "a sampling factor is not 1 to 4" in str(refusal(changed))


@pytest.mark.parametrize("flood", [b"\xff\xd0", b"\xff\xd0ab"])
@pytest.mark.parametrize("sampling", [[(1, 1)] * 3, [(3, 1), (1, 1), (1, 1)]], ids=str)
def test_a_flood_of_restart_markers_costs_little(flood: bytes, sampling: list[Factors]) -> None:
    data = encode(samples(16, 24), sampling)[:-2] + flood * 2**19
    tracemalloc.start()
    try:
        outcome(data)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(data)
    finally:
        tracemalloc.stop()


def test_a_limit_of_pillow_is_for_headers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encode(samples(32, 48), [(3, 1), (1, 1), (1, 1)])
    assert read_header(data, 10_000).pixels().shape == (32, 48, 3)
