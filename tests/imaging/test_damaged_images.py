"""A file that was damaged anywhere is refused, or is still the whole image.

As far as that can be told. A PNG has checksums of all that its pixels depend on. A WebP says how
long it is and all of its parts are. A JPEG has neither, so what libjpeg reads without a complaint
is an image: here libvips is asked, which brings a libjpeg of its own and takes any complaint for
an error.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from random import Random

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.imaging.test_truncated_images import COLOURS, HUES, JPEGS, PNGS, SIZE, WEBPS, jpeg
from tests.support.damage import Range, damaged, units
from tests.support.image_files import (
    RGB,
    chunk,
    noise,
    off_by,
    outcome,
    png,
    png_file,
    saved,
    scanlines,
)
from tests.support.properties import examples
from upscaler.imaging import jpeg as read
from upscaler.imaging._zlib import zlib
from upscaler.imaging.jpeg_blocks import without_spare_ones
from upscaler.imaging.jpeg_segments import END, TABLES, strip_segments
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.png_chunks import chunks

pytestmark = pytest.mark.dev

REFUSALS = {"image_unreadable", "image_damaged", "image_animated", "image_too_large"}
SEEDS = st.integers(0, 2**32).map(Random)
"""What happens to a file: nothing is gained by making it simpler."""
WITH_KEY = png(HUES[..., :3].copy(), 8, RGB, before=chunk(b"tRNS", b"\0\7\0\7\0\7"))
"""A PNG with a transparent colour."""
MORE_JPEGS = {
    "restart behind each row": jpeg(restart_marker_rows=1),
    "restart behind each block": jpeg(restart_marker_blocks=1),
    "progressive with restarts": jpeg(progressive=True, restart_marker_blocks=7),
}
IN_COLOURS = {name: data for name, data in (JPEGS | MORE_JPEGS).items() if "cmyk" not in name}


def by_libvips(data: bytes) -> Pixels | None:
    """The pixels, if libjpeg has no complaint."""
    try:
        pixels = pyvips.Image.new_from_buffer(data, "", fail_on="warning").numpy()
    except pyvips.Error:
        return None
    return np.asarray(pixels if pixels.ndim == 3 else np.dstack([pixels] * 3), np.uint8)


def is_ended_by(data: bytes, padding: bytes) -> bool:
    return data.partition(b"\xff\xd9")[0].endswith(padding)


def is_refused(result: Pixels | str) -> bool:
    if isinstance(result, str):
        assert result in REFUSALS
    return isinstance(result, str)


@given(st.sampled_from([*PNGS.values(), WITH_KEY]), SEEDS)
@settings(max_examples=examples(400))
def test_a_damaged_png_is_refused_or_the_whole_image(data: bytes, random: Random) -> None:
    changed = damaged(data, random)
    result = outcome(changed)
    before_pixels = changed.partition(b"IDAT")[0]
    optional = (whole for kind, _, whole in chunks(data) if kind[:1].islower())
    if any(bytes(whole) not in before_pixels for whole in optional):
        return  # it is ignored, as by other decoders, such as a colour that is transparent
    assert is_refused(result) or np.array_equal(result, outcome(data))


@given(st.sampled_from([*IN_COLOURS]), SEEDS)
@settings(max_examples=examples(400))
def test_a_damaged_jpeg_is_refused_or_decoded_as_libjpeg_does(name: str, random: Random) -> None:
    changed = damaged(IN_COLOURS[name], random)
    result = outcome(changed)
    if is_refused(result) or is_ended_by(changed, b"\0"):
        return
    # Without what every decoder passes over, and what this one does: a byte of ones behind a scan.
    coded = read.coded(strip_segments(changed))
    expected = by_libvips(coded)
    if expected is None:
        expected = by_libvips(without_spare_ones(coded))
    if expected is None and END not in changed[changed.rindex(b"\xff\xda") :]:
        # Anything may be a trailer then, also blocks that are left over behind a gap.
        expected = by_libvips(read.without_trailer(coded, np.asarray(result).shape))
    assert expected is not None, "libjpeg complains of it"
    assert off_by(np.asarray(result), expected) <= 1


@given(st.sampled_from([*WEBPS.values()]), st.integers(0), st.integers(1, 400))
def test_a_webp_with_a_range_missing_is_refused(data: bytes, at: int, length: int) -> None:
    at %= len(data)
    assert is_refused(outcome(data[:at] + data[at + length :]))


def idats(data: bytes) -> list[Range]:
    return [(start, end) for start, end in units(data) if data[start + 4 : start + 8] == b"IDAT"]


def test_a_png_without_any_one_of_its_chunks_of_pixels_is_refused() -> None:
    data = PNGS["png-in-many-chunks"]
    places = idats(data)
    assert len(places) > 20
    for start, end in places:
        assert is_refused(outcome(data[:start] + data[end:]))
    for (start, middle), (_, end) in pairwise(places):
        swapped = data[:start] + data[middle:end] + data[start:middle] + data[end:]
        assert is_refused(outcome(swapped))


@pytest.mark.parametrize("level", [0, 1, 3])
def test_a_png_with_a_wrong_checksum_is_refused_though_it_has_all_rows(level: int) -> None:
    """Even if the other checksum, that of the stream in the chunk, is cut off."""
    for missing in range(5):
        stream = zlib.compress(scanlines(COLOURS, 8), level)
        content = bytearray(chunk(b"IDAT", stream[: len(stream) - missing]))
        content[len(content) // 2] ^= 16
        assert is_refused(outcome(png_file(SIZE, 8, RGB, bytes(content))))


def intervals(data: bytes) -> list[Range]:
    """The restart intervals of the first scan, each from its marker, but for the first."""
    end = data.index(b"\xff\xd9")
    marks = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data[:end])]
    return list(zip(marks, [*marks[1:], end], strict=True))


@pytest.mark.first(1)
@pytest.mark.parametrize("name", [name for name in MORE_JPEGS if "progressive" not in name])
def test_a_jpeg_without_any_of_its_intervals_is_refused(name: str) -> None:
    data = MORE_JPEGS[name]
    places = intervals(data)
    assert len(places) >= 14
    for number, (start, end) in enumerate(places):
        assert is_refused(outcome(data[:start] + data[end:])), "one is missing"
        assert is_refused(outcome(data[: start + 2] + data[end:])), "one is empty"
        for count in (8, 16):  # the markers' numbers go on as they should
            if number + count < len(places):
                later = places[number + count][0]
                assert is_refused(outcome(data[:start] + data[later:]))


def test_a_jpeg_of_which_only_the_last_interval_is_there_is_refused() -> None:
    """To libjpeg each of the others is an empty one, which it paints as if nothing changed."""
    pixels = noise(256, 256, 3) // 8 + 100
    data = saved(pixels, "JPEG", quality=90, restart_marker_rows=1)
    first, places = data.index(b"\xff\xda"), intervals(data)
    header = data[: first + 14]
    marks = b"".join(data[start : start + 2] for start, _ in places[:-1])
    assert is_refused(outcome(header + marks + data[places[-1][0] :]))


def scans(data: bytes) -> Iterator[Range]:
    """Each scan but the first, and its tables, which stand before it."""
    starts = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    ends = [re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]").search(data, start + 2) for start in starts]
    yield from pairwise([end.start() for end in ends if end])


@pytest.mark.parametrize("name", ["jpeg-progressive", "jpeg-grey-progressive"])
def test_a_progressive_jpeg_without_any_one_of_its_scans_is_refused(name: str) -> None:
    data = JPEGS[name]
    places = list(scans(data))
    assert len(places) >= 5
    for start, end in places:
        assert is_refused(outcome(data[:start] + data[end:]))


def test_a_progressive_jpeg_of_its_first_coefficients_alone_is_refused() -> None:
    """All of their bits are there: it is as sound as any to a decoder, and is all blocks."""
    data = saved(HUES[..., 0].copy(), "JPEG", progressive=True)
    whole = data.index(b"\xff\xda")
    scan = bytearray(data[: data.index(b"\xff\xc4", whole)])
    assert scan[whole + 7 : whole + 10] == b"\0\0\1"
    scan[whole + 9] = 0
    assert is_refused(outcome(bytes(scan) + b"\xff\xd9"))


def with_tables_at_the_end(data: bytes) -> bytes:
    """Those of the last scan that has some stand behind it."""
    *_, tables = re.finditer(rb"\xff\xc4", data)
    scan = data.index(b"\xff\xda", tables.start())
    return data[: tables.start()] + data[scan:-2] + data[tables.start() : scan] + data[-2:]


@pytest.mark.parametrize("name", [name for name in JPEGS if "progressive" in name])
def test_a_jpeg_whose_last_tables_stand_before_its_end_is_refused(name: str) -> None:
    """Its last scan is read by others, perhaps to fewer bytes: the rest of them is no trailer."""
    changed = with_tables_at_the_end(JPEGS[name])
    for data in (changed, changed + b"and a trailer"):
        assert outcome(data) == "image_damaged"


@pytest.mark.parametrize("name", IN_COLOURS)
def test_a_jpeg_may_have_its_tables_once_more_before_its_end(name: str) -> None:
    data = IN_COLOURS[name]
    tables = b"".join(part for start, end in units(data) if (part := data[start:end])[1] in TABLES)
    assert tables
    for spare in (b"", bytes(100), b"written by a camera, and not a part of the picture"):
        again = data[:-2] + spare + tables + data[-2:]
        assert np.array_equal(outcome(again), outcome(data))


@pytest.mark.parametrize("other", [b"\x01", b"\x23", b"\xbf"])
@pytest.mark.parametrize("name", IN_COLOURS)
def test_a_stuffed_byte_that_was_changed_makes_no_trailer_of_blocks(
    name: str, other: bytes
) -> None:
    """They are left over behind a gap, and one of their bytes has become a marker."""
    data = IN_COLOURS[name]
    left_over = b"\x5a" * 60 + b"\xff" + other + b"\xa5" * 60
    assert outcome(data[:-2] + left_over + data[-2:]) == "image_damaged"


@pytest.mark.parametrize("count", [1, 7, 8, 100, 70_000])
def test_a_jpeg_may_be_filled_up_with_zeros(count: int) -> None:
    for name in ("jpeg", "jpeg-progressive", "jpeg-with-restarts"):
        data = JPEGS[name]
        filled = data[:-2] + bytes(count) + data[-2:]
        assert np.array_equal(outcome(filled), outcome(data))


def test_a_jpeg_with_other_bytes_left_over_is_refused() -> None:
    """They are pixels that were decoded to nothing, or to others, for want of some before them."""
    data = JPEGS["jpeg"]
    assert is_refused(outcome(data[:-2] + b"\x5a" * 20 + data[-2:]))
    assert is_refused(outcome(data[:-2] + bytes(20) + b"\x5a" + bytes(20) + data[-2:]))


def test_a_jpeg_with_a_damaged_marker_is_refused() -> None:
    """The first is Adobe's, which says that these are red, green and blue."""
    data = saved(COLOURS, "JPEG", keep_rgb=True)
    segments = [start for start, _ in units(data)][:-1]
    assert len(segments) > 5
    assert data[segments[0] + 4 :].startswith(b"Adobe")
    for at in segments:
        assert is_refused(outcome(data[:at] + b"\xfe" + data[at + 1 :])), "changed"
        assert is_refused(outcome(data[:at] + data[at + 1 :])), "missing"


def test_a_jpeg_may_have_some_bytes_between_its_segments() -> None:
    data = saved(COLOURS, "JPEG")
    at = data.index(b"\xff\xdb")
    for spare in (b"\xff\0\0\2", b"\4\6\0\0" * 4, bytes(100), b"\xff" * 100):
        assert np.array_equal(outcome(data[:at] + spare + data[at:]), outcome(data))


def with_ids(data: bytes, *ids: int) -> bytes:
    """A JPEG whose frame gives its components those ids, and so do its scans of all of them."""
    changed = bytearray(data)
    frame = re.search(rb"\xff[\xc0-\xc2]", data)
    assert frame
    for place, new in enumerate(ids):
        changed[frame.start() + 10 + 3 * place] = new
    for scan in re.finditer(rb"\xff\xda\0\x0c\x03", data):
        for place, new in enumerate(ids):
            changed[scan.start() + 5 + 2 * place] = new
    return bytes(changed)


def test_a_jpeg_may_give_components_the_same_id_if_one_scan_has_them_all() -> None:
    """Some do, against the standard, and libjpeg tells them apart by their order."""
    data = saved(COLOURS, "JPEG")
    assert np.array_equal(outcome(with_ids(data, 1, 1, 1)), outcome(data))
    assert is_refused(outcome(with_ids(JPEGS["jpeg-progressive"], 1, 1, 1)))
    grey = saved(COLOURS[..., 0].copy(), "JPEG")
    at = grey.index(b"\xff\xc0")
    frame = b"\xff\xc0\0\x11" + grey[at + 4 : at + 9] + b"\3" + b"\1\x11\0" * 3
    assert is_refused(outcome(grey[:at] + frame + grey[at + 13 :])), "of three there is one"
