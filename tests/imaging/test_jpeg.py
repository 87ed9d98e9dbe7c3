"""What JPEGs of cameras and programs have beside or instead of what they should have."""

import io
import re
from collections.abc import Callable, Iterator
from itertools import count, pairwise, product
from random import Random
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support import jpeg_encoder
from tests.support.hostile_jpegs import of_frame
from tests.support.image_files import (
    BLOCKS,
    DISPLAY_P3,
    P3,
    Samples,
    as_seen,
    decode,
    matrix_profile,
    off_by,
    outcome,
    refusal,
    saved,
    tiff,
)
from tests.support.jpeg_encoder import ScanScript, encode, in_scans, segment
from tests.support.properties import examples
from upscaler.imaging import jpeg
from upscaler.imaging.decode import read_header
from upscaler.imaging.jpeg_segments import strip_segments
from upscaler.imaging.pixels import Pixels

pytestmark = pytest.mark.dev

START, END = b"\xff\xd8", b"\xff\xd9"
GRADIENT: Samples = np.add.outer(np.arange(96), np.arange(0, 240, 2))[..., None] // np.array(
    [1, 2, 3]
)
SMOOTH: Pixels = GRADIENT.clip(0, 255).astype(np.uint8)
DATA = saved(SMOOTH, "JPEG", quality=90)
PROGRESSIVE = saved(SMOOTH, "JPEG", quality=90, progressive=True)
RESTARTS = saved(SMOOTH, "JPEG", quality=90, restart_marker_blocks=4)
GREY = saved(SMOOTH[..., 0].copy(), "JPEG", quality=90)
UNUSUAL = encode(SMOOTH, [(3, 1), (1, 1), (1, 1)], interval=5)
UNUSUAL_PROGRESSIVE = encode(SMOOTH, [(4, 2), (1, 1), (1, 1)], script=in_scans(3))
FILES = {
    "usual": DATA,
    "progressive": PROGRESSIVE,
    "restarts": RESTARTS,
    "grey": GREY,
    "cmyk": saved(np.dstack([SMOOTH, SMOOTH[..., 0]]), "JPEG", "CMYK"),
    "unusual": UNUSUAL,
    "unusual-progressive": UNUSUAL_PROGRESSIVE,
}
files = pytest.mark.parametrize("data", FILES.values(), ids=FILES)


def before(marker: int, data: bytes, content: bytes) -> bytes:
    """`content` in front of the first segment with `marker`."""
    at = data.index(bytes((0xFF, marker)))
    return data[:at] + content + data[at:]


# The end

TRAILERS = {
    "none": b"",
    "half of a marker": b"\xff",
    "samsung": b"\0\0\1\n\x0e\0\0\0Image_UTC_Data1700000000000SEFH\x6b\0\0\0\1\0\0\0SEFT",
    "long": bytes(range(1, 255)) * 40,
    "zeros": bytes(5000),
    "another image": saved(BLOCKS, "JPEG"),
    "restart markers": b"abcdefghi\xff\xd0abcdefgh\xff\xd5\xff\xd1" * 3,
    "a marker that does not exist": b"abcdefghijk\xff\x33" + bytes(range(100)),
    "a segment that is cut off": b"abcdefghij\xff\xe1\xff\xf0abcd",
    "a scan": b"abcdefghijk\xff\xda\0\x08\1\1\0\0\0\0" + bytes(range(1, 99)),
    "tables": b"abcdefghijkl\xff\xc4\0\x08abcdefghijkl",
    "a frame": b"abcdefghijkl\xff\xc0\0\x08abcdefghijkl",
    "a video": b"\0\0\0\x18ftypmp42\0\0\0\0isommp42\x9a\xff\xd9\x17" + bytes(range(200)),
    "text and an end": b'{"make": "Octo", "model": "Telephone 3"}\xff\xd9 and more',
    "samsung, with an end": b"\0\0\1\n\x0e\0\0\0Image_UTC_Data1700000000000SEFH\xff\xd9SEFT",
    "tables and an end": b"abcdefghijkl\xff\xc4\0\x08abcdef\xff\xd9",
    "a comment and an end": b"abcdefghijkl\xff\xfe\0\x08abcdef\xff\xd9",
    "half of an image": saved(BLOCKS, "JPEG")[2:],
    "TEM, a marker that begins nothing": bytes(20) + b"\xff\1abc",
    "many segments": b"abcdefghijkl" + b"\xff\xe5\0\2" * 5000,
}


@files
@pytest.mark.parametrize("trailer", TRAILERS.values(), ids=TRAILERS)
def test_a_whole_jpeg_needs_no_end_marker(data: bytes, trailer: bytes) -> None:
    assert np.array_equal(decode(data.removesuffix(END) + trailer), decode(data))


PIECES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([part for part in TRAILERS.values() if len(part) < 1000]),
    st.sampled_from([START, END, b"\xff\xd3", b"\xff\xda\0\x08", b"\xff\xc4"]),
)
ANYTHING = st.lists(PIECES, max_size=5).map(b"".join)
BASELINE = [name for name in FILES if "progressive" not in name]


@given(st.sampled_from(BASELINE), ANYTHING)
@settings(max_examples=examples(300), deadline=None)
def test_whatever_stands_behind_a_whole_jpeg_without_an_end_marker(
    name: str, trailer: bytes
) -> None:
    """But if the next marker is an EOI, bytes before it may be left over behind a gap.

    In a file that ends with an EOI, the next one that is not reserved.
    """
    data = FILES[name]
    result = outcome(data.removesuffix(END) + trailer)
    markers = (
        rb"(\xff[\xc0-\xcf\xd8-\xfe])" if trailer.endswith(END) else rb"(\xff[\2-\xcf\xd8-\xfe])"
    )
    before_marker, marker, _ = re.split(markers, trailer + START, maxsplit=1)
    if marker == END and before_marker.strip(b"\0"):
        assert isinstance(result, str) or np.array_equal(result, decode(data))
    else:
        assert np.array_equal(result, decode(data))


TEXT = b'{"make": "Octo", "model": "Telephone 3"}'


def ending_in_text(count: int) -> bytes:
    """A whole file without its end, whose last bytes, so many, are ASCII."""
    for height, width in product(range(16, 97), range(16, 121)):
        data = saved(SMOOTH[:height, :width], "JPEG", quality=90).removesuffix(END)
        if len(data) - len(data.rstrip(bytes(range(32, 127)))) == count:
            return data
    raise AssertionError("there is none")


@pytest.mark.parametrize(("count", "end"), [(3, b""), (3, END), (7, b"")])
def test_a_scan_that_ends_like_text_may_have_a_text_behind_it(count: int, end: bytes) -> None:
    data = ending_in_text(count)
    assert np.array_equal(decode(data + TEXT + end + b" and more"), decode(data + END))


def test_a_text_with_an_end_takes_the_place_of_no_pixels() -> None:
    for missing in (6, 7, 20, 40):
        cut = DATA[: -2 - missing].removesuffix(b"\xff")
        assert refusal(cut + TEXT + END + b" and more").type == "image_damaged"


@pytest.mark.parametrize("name", BASELINE)
def test_a_scan_behind_all_those_of_a_baseline_jpeg_is_in_a_trailer(name: str) -> None:
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0" + bytes(range(99)) + b"\xff\xd9 and more"
    for trailer in (scan, b"abcdefghijkl" + scan, b"abcdefghijkl" + TRAILERS["tables"] + scan):
        assert np.array_equal(decode(FILES[name].removesuffix(END) + trailer), decode(FILES[name]))


@example("restarts", bytes(25) + END, 64)  # as many zeros as there may be, for whole intervals
@given(st.sampled_from(list(FILES)), ANYTHING, st.integers(64, 1000))
@settings(max_examples=examples(300), deadline=None)
def test_nothing_behind_a_jpeg_takes_the_place_of_its_pixels(
    name: str, trailer: bytes, missing: int
) -> None:
    """A trailer may be read as pixels, so more is missing than it has before another marker."""
    data = FILES[name]
    readable = re.split(rb"\xff[\2-\xcf\xd8-\xfe]|ftyp|[ -~]{24}", trailer, maxsplit=1)[0]
    end = len(data) - 2 - missing - 16 * len(readable)
    assume(end > data.rindex(b"\xff\xda") + 14)
    cut = data[:end].removesuffix(b"\xff")
    assert isinstance(outcome(cut + trailer), str)


@files
@pytest.mark.parametrize("trailer", [b"", TRAILERS["samsung"]], ids=["cut", "cut-with-trailer"])
def test_a_jpeg_without_an_end_marker_that_lacks_pixels_is_refused(
    data: bytes, trailer: bytes
) -> None:
    """A trailer may be read as pixels, so with one so many bytes are missing as it has."""
    for missing in (1, 2, 5, 30, 100, len(data) // 3):
        cut = data[: -len(END) - missing - len(trailer) * 8].removesuffix(b"\xff")
        assert refusal(cut + trailer).type == "image_damaged"


def by_opencv(data: bytes) -> Samples:
    """The pixels, and grey where there are none."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels.astype(int)


@pytest.mark.parametrize("name", [*BASELINE, "444", "of-each"])
def test_a_baseline_jpeg_that_is_cut_off_tells_how_many_rows_there_are(name: str) -> None:
    """Those that OpenCV shows as they were, but for the last one, whose colours are blended."""
    more = {
        "444": encode(SMOOTH, [(1, 1)] * 3),
        "of-each": encode(SMOOTH, [(1, 1)] * 3, script=[ScanScript((i,)) for i in range(3)]),
    }
    data = {**FILES, **more}[name]
    start = data.rindex(b"\xff\xda") + 16
    whole = by_opencv(data)
    for end in range(start, len(data) - 8, (len(data) - start) // 9):
        cut = data[:end].removesuffix(b"\xff")
        told = re.fullmatch(r"this JPEG is cut off after row (\d+) of 96", str(refusal(cut)))
        assert told
        rows = int(told[1])
        same = np.abs(by_opencv(cut + END) - whole).max(axis=(1, 2)) == 0
        assert same[: max(rows - 1, 0)].all()
        assert not same[rows : rows + 32].all()


@pytest.mark.parametrize("name", ["progressive", "unusual-progressive"])
def test_a_progressive_jpeg_that_is_cut_off_tells_the_scan(name: str) -> None:
    """Even of a part of its scans all rows may be seen."""
    data = FILES[name]
    starts = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    for number, (start, end) in enumerate(pairwise([*starts, len(data) - 2]), 1):
        text = str(refusal(data[: (start + end) // 2 + 6].removesuffix(b"\xff")))
        if number == len(starts):
            assert text == f"this JPEG is cut off in scan {number} of {number}"
        else:
            where = f"in or behind scan {number}: its last scans are missing"
            assert text == f"this JPEG is cut off {where}"
    assert str(refusal(data[: starts[0] + 5])) == "this JPEG is cut off before its first scan"


def test_a_jpeg_with_another_fault_is_not_told_to_be_cut_off() -> None:
    for data in (DATA, PROGRESSIVE, UNUSUAL):
        for at in (900, len(data) // 2):
            gap = data[:at] + data[at + 100 :]
            assert "this JPEG is damaged" in str(refusal(gap))
    first = PROGRESSIVE.index(b"\xff\xda") + 20
    gap = PROGRESSIVE[:first] + PROGRESSIVE[first + 20 :]
    assert "this JPEG is damaged" in str(refusal(gap.removesuffix(END)))
    second, third = (RESTARTS.index(mark) for mark in (b"\xff\xd0", b"\xff\xd1"))
    short = RESTARTS[: (second + third) // 2] + RESTARTS[third:]
    for data in (short.removesuffix(END), short[:-60].removesuffix(b"\xff")):
        assert "this JPEG is damaged" in str(refusal(data))


def test_the_first_of_several_images_needs_no_end_marker() -> None:
    first, second = DATA, saved(SMOOTH[::-1], "JPEG")
    assert np.array_equal(decode(first.removesuffix(END) + second), decode(first))
    assert refusal(first[:-60] + second).type == "image_damaged"


# Restart markers


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize(
    "options",
    [{"restart_marker_rows": 1}, {"restart_marker_blocks": 1}, {"progressive": True}],
    ids=str,
)
def test_a_photo_with_a_gap_of_300_bytes_is_refused(
    options: dict[str, Any], quality: int, photo: Pixels
) -> None:
    data = saved(photo, "JPEG", quality=quality, **{"restart_marker_blocks": 5, **options})
    start = data.index(b"\xff\xda") + 14
    for at in range(start, len(data) - 302, (len(data) - start) // 40):
        assert isinstance(outcome(data[:at] + data[at + 300 :]), str), at


@given(st.integers(0, 2**32).map(Random))
@settings(max_examples=examples(300), deadline=None)
def test_a_jpeg_without_some_of_its_restart_intervals_is_refused(random: Random) -> None:
    """Any number of whole ones, with as many markers: what is there can be decoded."""
    height, width = random.randrange(20, 90), random.randrange(20, 120)
    options: dict[str, Any] = {
        "progressive": random.random() < 0.5,
        "subsampling": random.choice((0, 1, 2)),
    }
    interval = random.choice((1, 1, 2, 3, 5))
    data = saved(SMOOTH[:height, :width], "JPEG", restart_marker_blocks=interval, **options)
    marks = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    if len(marks) < 3:
        return
    first, last = sorted(random.sample(range(len(marks)), 2))
    if b"\xff\xda" in data[marks[first] : marks[last]]:
        return  # then whole scans are missing, too
    assert outcome(data[: marks[first]] + data[marks[last] :]) == "image_damaged"


# Warnings of libjpeg


def complaint(data: bytes) -> str:
    """What libjpeg says of a file: its first warning."""
    with pytest.raises(ValueError, match=r".") as caught:
        simplejpeg.decode_jpeg(data, strict=True)
    return str(caught.value)


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes((transform,)))


def jfif(version: int) -> bytes:
    return segment(0xE0, b"JFIF\0" + bytes((version, 1, 0, 0, 1, 0, 1, 0, 0)))


PLAIN = encode(SMOOTH, [(1, 1)] * 3)
ACCEPTED: dict[str, tuple[bytes, str]] = {
    "JWRN_ADOBE_XFORM": (before(0xDB, PLAIN, adobe(2)), "Unknown Adobe color transform code 2"),
    "JWRN_JFIF_MAJOR": (before(0xDB, PLAIN, jfif(2)), "unknown JFIF revision number 2.01"),
    "JWRN_NOT_SEQUENTIAL": (
        PLAIN.replace(b"\0\x3f\0", b"\0\0\0", 1),
        "Invalid SOS parameters for sequential JPEG",
    ),
    "JWRN_EXTRANEOUS_DATA, header": (
        before(0xC1, PLAIN, b"spare"),
        "5 extraneous bytes before marker 0xc1",
    ),
    "JWRN_EXTRANEOUS_DATA, zeros": (
        PLAIN.removesuffix(END) + bytes(30) + END,
        "extraneous bytes before marker 0xd9",
    ),
    "JWRN_JPEG_EOF": (PLAIN.removesuffix(END), "remature end of JPEG"),
    # As of Photoshop: the length of another segment has swallowed a marker.
    "JWRN_EXTRANEOUS_DATA, a segment without its marker": (
        before(0xC1, PLAIN, adobe(1)[2:]),
        "14 extraneous bytes before marker 0xc1",
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_warning_without_lost_pixels_is_accepted(name: str) -> None:
    data, text = ACCEPTED[name]
    assert text in complaint(data)
    assert np.array_equal(decode(data), decode(PLAIN))


def with_middle(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The file with its last scan's bits changed."""
    start = data.rindex(b"\xff\xda") + 10
    return data[:start] + change(data[start:-2]) + END


LOST: dict[str, tuple[bytes, str]] = {
    "JWRN_HIT_MARKER": (with_middle(PLAIN, lambda bits: bits[:-40]), "premature end of data"),
    "JWRN_HUFF_BAD_CODE": (
        with_middle(RESTARTS, lambda bits: bits[:20] + b"\xff\0" * 4 + bits[28:]),
        "bad Huffman code",
    ),
    "JWRN_MUST_RESYNC": (RESTARTS.replace(b"\xff\xd1", b"\xff\xd2", 1), "found marker 0xd2"),
    "JWRN_EXTRANEOUS_DATA": (
        with_middle(PLAIN, lambda bits: bits + b"\x5a" * 30),
        "extraneous bytes before marker 0xd9",
    ),
    "JWRN_BOGUS_PROGRESSION": (
        encode(SMOOTH, [(1, 1)] * 3, script=[*in_scans(3), in_scans(3)[-1]]),
        "Inconsistent progression sequence",
    ),
}


def test_the_colours_are_those_of_an_adobe_segment_without_its_marker() -> None:
    """libjpeg skips it, and shows red, green and blue as luma and chroma."""
    whole = before(0xC1, PLAIN, adobe(0))
    assert np.array_equal(decode(before(0xC1, PLAIN, adobe(0)[2:])), decode(whole))
    assert not np.array_equal(decode(whole), decode(PLAIN))


def test_tem_begins_no_segment() -> None:
    """B.1.1.3: a marker that stands alone, for programs that make files with arithmetic coding."""
    assert np.array_equal(decode(before(0xC1, PLAIN, b"\xff\x01")), decode(PLAIN))


@pytest.mark.parametrize("name", LOST)
def test_a_warning_of_lost_pixels_is_a_reason_to_refuse(name: str) -> None:
    data, text = LOST[name]
    assert text in complaint(data)
    assert refusal(data).type == "image_damaged"


@pytest.mark.parametrize("factors", [(1, 1), (3, 1), (1, 4)], ids=str)
@pytest.mark.parametrize("block", [0, 7, 30])
def test_bits_that_are_no_code_are_found_where_libjpeg_is_silent(
    block: int, factors: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes 17 bits that begin no code for a block's end, and warns only near the file's."""
    usual, calls = jpeg_encoder._others, count()

    def without_one_end(values: list[int], symbols: bytes) -> Iterator[str]:
        codes = list(usual(values, symbols))
        if next(calls) == block:
            assert codes[-1] == f"{symbols.index(0):08b}"
            codes[-1] = "11111110" + "0" * 9
        return iter(codes)

    monkeypatch.setattr(jpeg_encoder, "_others", without_one_end)
    data = encode(SMOOTH, [factors, (1, 1), (1, 1)])
    monkeypatch.undo()
    plain = encode(SMOOTH, [factors, (1, 1), (1, 1)])
    assert data != plain
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), decode(plain))
    assert refusal(data).type == "image_damaged"


def test_tables_of_motion_jpeg_may_be_left_out() -> None:
    """As libjpeg-turbo and browsers take it, then they are those of T.81, annex K.3."""
    at = DATA.index(b"\xff\xc4"), DATA.index(b"\xff\xda")
    without = DATA[: at[0]] + DATA[at[1] :]
    assert b"\xff\xc4" not in without
    assert np.array_equal(decode(without), decode(DATA))


@pytest.mark.parametrize(
    ("transform", "count"), [(0, 3), (1, 3), (2, 3), (255, 3), (0, 4), (1, 4), (2, 4)]
)
def test_the_transform_of_adobe_is_taken_as_by_libjpeg(transform: int, count: int) -> None:
    """By arithmetic (JFIF 1.02; TN 5116): values are YCbCr or YCCK unless the transform is 0."""
    stored = np.array([120, 90, 160, 200][:count])
    flat = np.full((16, 16, count), stored, np.uint8)
    factors = [(1, 1)] * count
    data = encode(flat, factors, head=adobe(transform))
    rgb = 120 + 1.402 * 32, 120 + 0.344136 * 38 - 0.714136 * 32, 120 - 1.772 * 38
    expected = np.array(rgb if transform else stored[:3])
    if count == 4:
        expected = (255 - expected if transform else expected) * 200 / 255
    assert off_by(decode(data), np.tile(expected, (16, 16, 1))) <= 2


def test_components_that_are_named_r_g_and_b_are_those() -> None:
    flat = np.full((16, 16, 3), (120, 90, 160), np.uint8)
    assert off_by(decode(encode(flat, [(1, 1)] * 3, ids=b"RGB")), flat) <= 1
    by_jfif = encode(flat, [(1, 1)] * 3, ids=b"RGB", head=jfif(1))
    assert off_by(decode(by_jfif), flat) > 20


# What says how to show it: colour profiles and EXIF


def icc(number: int, count: int, part: bytes) -> bytes:
    return segment(0xE2, b"ICC_PROFILE\0" + bytes((number, count)) + part)


OTHER = matrix_profile(DISPLAY_P3[:, [1, 0, 2]], 2.2)
HALF = len(P3) // 2
FIRST, SECOND = icc(1, 2, P3[:HALF]), icc(2, 2, P3[HALF:])
WHOLE = icc(1, 1, P3)
SOF, DHT, SOS = 0xC0, 0xC4, 0xDA
WITH_PROFILE = {
    "before the frame": before(SOF, DATA, WHOLE),
    "behind the frame": before(DHT, DATA, WHOLE),
    "before the scan": before(SOS, DATA, WHOLE),
    "before and behind the frame": before(SOF, before(SOS, DATA, WHOLE), WHOLE),
    "twice": before(SOF, DATA, WHOLE * 2),
    "before another": before(SOF, DATA, WHOLE + icc(1, 1, OTHER)),
    "behind an empty one": before(SOF, DATA, icc(1, 1, b"") + WHOLE),
    "in two parts": before(SOF, DATA, FIRST + SECOND),
    "in parts out of order": before(SOF, DATA, SECOND + FIRST),
    "in parts around the frame": before(SOF, before(SOS, DATA, SECOND), FIRST),
    "in parts, twice": before(SOF, DATA, (FIRST + SECOND) * 2),
    "in parts, the first one twice": before(SOF, DATA, FIRST * 2 + SECOND),
}
WITHOUT_PROFILE = {
    "only the second part": before(SOF, DATA, SECOND),
    "only the first part": before(SOF, DATA, FIRST),
    "number 0": before(SOF, DATA, icc(0, 1, P3)),
    "number 2 of 1": before(SOF, DATA, icc(2, 1, P3)),
    "0 of 0": before(SOF, DATA, icc(0, 0, P3)),
    "parts of different counts": before(SOF, DATA, FIRST + icc(2, 3, P3[HALF:])),
    "behind the scan": DATA.removesuffix(END) + WHOLE + END,
}


@pytest.mark.parametrize("name", WITH_PROFILE)
def test_a_profile_is_applied_wherever_it_is_before_the_scan(name: str) -> None:
    usual = saved(SMOOTH, "JPEG", quality=90, icc_profile=P3)
    assert off_by(decode(usual), decode(DATA)) > 10
    assert np.array_equal(decode(WITH_PROFILE[name]), decode(usual))


@pytest.mark.parametrize("name", WITHOUT_PROFILE)
def test_a_profile_that_is_not_all_there_is_ignored(name: str) -> None:
    assert np.array_equal(decode(WITHOUT_PROFILE[name]), decode(DATA))


TURNED = segment(0xE1, b"Exif\0\0" + tiff(6))


@pytest.mark.parametrize("marker", [SOF, DHT, SOS])
def test_exif_turns_the_image_wherever_it_is_before_the_scan(marker: int) -> None:
    data = before(marker, DATA, TURNED)
    assert read_header(data).size == (96, 120)
    assert np.array_equal(decode(data), as_seen(decode(DATA), 6))


def test_the_first_exif_counts_and_none_behind_the_scan() -> None:
    upright = segment(0xE1, b"Exif\0\0" + tiff(1))
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
    assert read_header(before(SOF, DATA, TURNED + upright)).orientation == 6
    assert read_header(before(SOF, DATA, upright + TURNED)).orientation == 1
    assert strip_segments(before(SOF, DATA, TURNED * 2)).count(b"Exif\0\0") == 1
    assert read_header(before(SOF, DATA, xmp + TURNED)).orientation == 6
    assert read_header(DATA.removesuffix(END) + TURNED + END).orientation == 1


def test_what_pillow_decodes_has_the_markers_of_its_colours_alone() -> None:
    data = before(SOF, DATA, WHOLE + TURNED + segment(0xFE, b"comment"))
    assert b"ICC_PROFILE" in strip_segments(data)
    assert jpeg.coded(strip_segments(data)) == DATA


# What is refused, and why

SAYS = {
    "lossless": of_frame(0xC3),
    "hierarchical": of_frame(0xC5),
    "hierarchical, by its DHP": of_frame(0xDE),
    "arithmetic-coded": of_frame(0xC9),
    "arithmetic-coded, progressive": of_frame(0xCA),
    "lossless and arithmetic-coded": of_frame(0xCB),
    "hierarchical and arithmetic-coded": of_frame(0xCD),
    "JPEG-LS": of_frame(0xF7),
    "12 bits a sample": of_frame(0xC1, 12),
    "states its height behind its pixels": re.sub(
        rb"(\xff\xc0\0\x11\x08)..", rb"\1\0\0", DATA, flags=re.DOTALL
    ),
    "2 colour components": encode(SMOOTH[..., :2], [(1, 1)] * 2),
    "another image starts in it": START + DATA,
}


@pytest.mark.parametrize("name", SAYS)
def test_a_refusal_says_what_kind_of_jpeg_it_is(name: str) -> None:
    error = refusal(SAYS[name])
    assert name.partition(",")[0] in str(error)
    assert error.type == "image_unreadable"
