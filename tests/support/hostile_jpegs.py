"""Malicious or misleading JPEG files: bombs, false headers, and violations of the format."""

import struct
from collections.abc import Callable
from functools import partial

import numpy as np

from tests.imaging.test_colour import black_only_profile, by_matrix, complement
from tests.support.hostile_profiles import largest_table, program
from tests.support.image_cases import CIRCLE, FLAT, LARGEST, SMALL, Case, refused, right
from tests.support.image_files import (
    DISPLAY_P3,
    Samples,
    entry,
    jpeg_of_size,
    saved,
    tiff,
    with_segment,
)

START, END = b"\xff\xd8", b"\xff\xd9"
EXIF, ICC = b"Exif\0\0", b"ICC_PROFILE\0"
ROUNDING = 2
"""How far a JPEG of squares is from them, in levels."""


def segment(marker: int, content: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def small() -> bytes:
    return saved(SMALL, "JPEG")


def flooded(part: bytes, count: int = LARGEST) -> Callable[[], bytes]:
    """SMALL with the same bytes before its first segment, so many times or until it is full."""
    data = small()
    fits = (LARGEST - len(data)) // len(part)
    return lambda: data[:2] + part * min(count, fits) + data[2:]


def filled(before: bytes) -> bytes:
    """SMALL with as many fill bytes (B.1.1.2) as there is room for, before the last such bytes."""
    data = small()
    at = data.rindex(before)
    return data[:at] + b"\xff" * (LARGEST - len(data)) + data[at:]


# Scans


def scan(*components: int, first: int = 0, last: int = 0, high: int = 0, low: int = 0) -> bytes:
    """The header of a scan, of the coefficients from `first` to `last` (B.2.3)."""
    each = b"".join(bytes([component, 0]) for component in components)
    rest = bytes([first, last, high << 4 | low])
    return segment(0xDA, bytes([len(components)]) + each + rest)


LUMA_TABLE = segment(0xC4, bytes([0x10, 1, *bytes(15), 0xE0]))
"""A code of one bit: a run of blocks in which nothing changes, 14 bits long (G.1.2.2)."""
RUNS = b"\x7f\xfe\xff\0\xfd\xff\0\xff\0"
"""Three of the longest such runs, of 32,767 blocks: more than there are in 2048x2048 pixels."""


def scans(count: int) -> bytes:
    """A progressive JPEG, 2048x2048, with so many scans, most of which change nothing."""
    data = saved(FLAT, "JPEG", progressive=True)
    nothing = scan(1, first=1, last=63) + RUNS
    more = count - data.count(b"\xff\xda")
    return data[:-2] + LUMA_TABLE + nothing * more + END


def scans_to_the_limit() -> bytes:
    room = LARGEST - len(saved(FLAT, "JPEG", progressive=True))
    return scans(room // len(scan(1) + RUNS))


def as_if_progressive() -> bytes:
    """A baseline JPEG whose scan has the fields of a progressive one, which do not count for it."""
    data = small()
    return data.replace(scan(1, 2, 3, last=63)[-3:], bytes([0, 0, 0x11]), 1)


# Frames


def of_frame(marker: int, precision: int = 8) -> bytes:
    """The header of a JPEG of another process, and coded pixels that are never looked at."""
    parts = b"".join(bytes([component, 0x11, 0]) for component in (1, 2, 3))
    frame = struct.pack(">BHHB", precision, *SMALL.shape[:2], 3) + parts
    tables = segment(0xDB, bytes([0, *[1] * 64]))
    return START + tables + segment(marker, frame) + scan(1, 2, 3, last=63) + bytes(4000) + END


def without_length() -> bytes:
    """A JFIF segment of no bytes, and then one that would be passed over as part of it."""
    data = small()
    passed_over = segment(0xE2, ICC.ljust(65_533, b"\0"))
    return data[:2] + b"\xff\xe0\0\0" + passed_over + data[2:]


def frame_at(data: bytes) -> int:
    return data.index(b"\xff\xc0")


def two_frames() -> bytes:
    data = small()
    at = frame_at(data)
    other = data[at : at + 5] + struct.pack(">HH", 300, 300) + data[at + 9 : at + 19]
    return data[:at] + other + data[at:]


def lines_later() -> bytes:
    """The height in a segment behind the scan (B.2.5), which browsers do not read either."""
    data = small()
    at = frame_at(data) + 5
    height = segment(0xDC, data[at : at + 2])
    return data[:at] + b"\0\0" + data[at + 2 : -2] + height + END


def in_scans(*components: int) -> bytes:
    """A picture of three components, all the same, of which only some have a scan."""
    grey = saved(GREY, "JPEG")
    at = frame_at(grey)
    frame = grey[at + 4 : at + 9] + bytes([3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    tables, rest = grey[2:at], grey[at + 13 : -2]
    coded = rest[rest.index(b"\xff\xda") + 10 :]
    start = START + tables + segment(0xC0, frame) + rest[: rest.index(b"\xff\xda")]
    return start + b"".join(scan(component, last=63) + coded for component in components) + END


GREY = SMALL[..., 0]
DIFFERENT = GREY.astype(float) - 128
FROM_YCC = np.dstack(
    [GREY + 1.402 * DIFFERENT, GREY - 1.058272 * DIFFERENT, GREY + 1.772 * DIFFERENT]
).clip(0, 255)
"""The colours of a luma and two chromas that are all GREY (JFIF 1.02)."""


# Profiles


def with_profile(icc: bytes, pixels: Samples = SMALL, mode: str | None = None) -> bytes:
    """A JPEG with a profile in as many parts as it needs (ICC.1:2022, annex B)."""
    size = 65_519
    count = -(-len(icc) // size)
    parts = (icc[i * size : (i + 1) * size] for i in range(count))
    numbered = (ICC + bytes([i + 1, count]) + part for i, part in enumerate(parts))
    data = saved(pixels, "JPEG", mode)
    return data[:2] + b"".join(segment(0xE2, part) for part in numbered) + data[2:]


MEDIUM = 96 + SMALL // 4
"""Colours of which none is outside of sRGB."""


# EXIF and other pictures


def exif_in_parts(count: int, size: int) -> Callable[[], bytes]:
    return flooded(segment(0xE1, EXIF + bytes(size)), count)


def other_sizes() -> bytes:
    """EXIF that has it that the picture has 4000x3000 pixels."""
    sizes = struct.pack("<HHII", 0xA002, 4, 1, 4000) + struct.pack("<HHII", 0xA003, 4, 1, 3000)
    directory = b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + sizes + bytes(4)
    return with_segment(small(), 0xE1, EXIF + directory)


def many_pictures(count: int) -> bytes:
    """An index of so many pictures behind the first (MPO, CIPA DC-007), none of which is there."""
    number = struct.pack("<HHII", 0xB001, 4, 1, count)
    entries = struct.pack("<HHII", 0xB002, 7, 16 * count, 38)
    index = b"MPF\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + number + entries + bytes(4)
    return with_segment(small(), 0xE2, index + bytes(16 * count))


# What is cut


def closed(data: bytes, part: int) -> bytes:
    """So many 64ths of the file, and then its end: a decoder paints grey what is missing."""
    return data[: len(data) * part // 64].removesuffix(b"\xff") + END


INKS = np.dstack([SMALL, SMALL[::-1, :, 0] // 2])


def by_lightness(inks: Samples) -> Samples:
    """What `black_only_profile` says of them: the lightness that black leaves, as sRGB."""
    shifted = (100 * (1 - inks[..., 3:] / 255) + 16) / 116
    light = np.where(shifted > 6 / 29, shifted**3, 3 * (6 / 29) ** 2 * (shifted - 4 / 29))
    curved = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.repeat(255 * curved, 3, axis=2)


def ycck() -> bytes:
    """Adobe's: the inks but black as luma and two chromas, and black inverted."""
    cyan, magenta, yellow, black = np.moveaxis(INKS.astype(float), 2, 0)
    luma = 0.299 * cyan + 0.587 * magenta + 0.114 * yellow
    stored = [luma, (yellow - luma) / 1.772 + 128, (cyan - luma) / 1.402 + 128, 255 - black]
    components = np.dstack(stored).round().clip(0, 255).astype(np.uint8)
    data = bytearray(saved(255 - components, "JPEG", "CMYK"))  # which Pillow inverts once more
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def one_by_one() -> bytes:
    """A restart marker behind each block."""
    return saved(SMALL, "JPEG", restart_marker_blocks=1)


def complaint_and_end() -> bytes:
    """Something that libjpeg complains of, bytes behind a scan, and then a scan that cannot be.

    To TurboJPEG the second is a complaint, too, though no row of pixels was put out.
    """
    data = saved(SMALL, "JPEG", progressive=True)
    return data[:-2] + b"\x11" * 40 + scan(1, first=33, last=4) + b"\x22" * 8 + END


def last_interval_alone() -> bytes:
    """A restart behind each row of blocks, and of all intervals but the last only the marker."""
    data = saved(SMALL, "JPEG", restart_marker_rows=1)
    at = data.index(scan(1, 2, 3, last=63)[:5]) + 14
    marks = [data.find(bytes([0xFF, 0xD0 + i % 8]), at) for i in range(len(SMALL) // 8 - 1)]
    last = data.rindex(b"\xff\xd6")
    return data[:at] + b"".join(data[mark : mark + 2] for mark in marks) + data[last + 2 :]


PHOTOSHOP = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5000
TABLES = segment(0xDB, bytes([0, *[1] * 64]) * 1000)
TURNED = with_segment(saved(SMALL, "JPEG"), 0xE1, EXIF + tiff(6))


def squares(name: str, make: Callable[[], bytes]) -> Case:
    return right(name, make, SMALL, ROUNDING)


CASES = (
    refused("JPEG, 65500x65500", lambda: jpeg_of_size((65_500, 65_500)), "image_too_large"),
    refused("JPEG, progressive, a million scans", scans_to_the_limit, "image_unreadable"),
    refused("JPEG, progressive, 101 scans", lambda: scans(101), "image_unreadable"),
    right("JPEG, progressive, 2048x2048, 100 scans", lambda: scans(100), FLAT),
    refused("JPEG, arithmetic coding", lambda: of_frame(0xC9), "image_unreadable"),
    refused("JPEG, progressive arithmetic", lambda: of_frame(0xCA), "image_unreadable"),
    refused("JPEG, lossless", lambda: of_frame(0xC3), "image_unreadable"),
    refused("JPEG, hierarchical", lambda: of_frame(0xDE), "image_unreadable"),
    refused("JPEG, 12 bits", lambda: of_frame(0xC1, 12), "image_unreadable"),
    refused("JPEG, two frames", two_frames, "image_unreadable"),
    refused("JPEG, height behind the scan", lines_later, "image_unreadable"),
    squares("JPEG, baseline as if progressive", as_if_progressive),
    refused("JPEG, a component without a scan", lambda: in_scans(1, 2), "image_damaged"),
    right("JPEG, a scan for each component", lambda: in_scans(3, 1, 2), FROM_YCC, 4),
    squares("JPEG, restart behind each block", one_by_one),
    refused("JPEG, a complaint and then the end", complaint_and_end, "image_damaged"),
    refused("JPEG, its last interval alone", last_interval_alone, "image_damaged"),
    refused("JPEG, six million comments", flooded(segment(0xFE)), "image_unreadable"),
    refused("JPEG, six million APP5", flooded(segment(0xE5)), "image_unreadable"),
    squares("JPEG, 4,000 APP5", flooded(segment(0xE5, bytes(6000)), 4000)),
    refused("JPEG, tables without number", flooded(TABLES), "image_unreadable"),
    refused("JPEG, a segment without a length", without_length, "image_unreadable"),
    squares("JPEG, fill bytes", flooded(b"\xff")),
    squares("JPEG, fill bytes behind the scan", partial(filled, END)),
    squares("JPEG, fill bytes in the scan", partial(filled, b"\xff\0")),
    squares("JPEG, stuffed bytes between segments", flooded(b"\xff\0")),
    squares("JPEG, Photoshop's blocks", flooded(segment(0xED, PHOTOSHOP))),
    refused("JPEG, EXIF in a million parts", exif_in_parts(LARGEST, 10), "image_unreadable"),
    squares("JPEG, EXIF in 4,000 parts", exif_in_parts(4000, 6000)),
    squares("JPEG, EXIF in a circle", lambda: with_segment(small(), 0xE1, EXIF + CIRCLE)),
    squares("JPEG, EXIF of another size", other_sizes),
    squares(
        "JPEG, EXIF with 4294967295 numbers",
        lambda: with_segment(small(), 0xE1, EXIF + entry(3, 0xFFFFFFFF, b"\6\0\0\0")),
    ),
    right(
        "JPEG, profile of 16 MiB", lambda: with_profile(largest_table()), np.zeros_like(SMALL), 1
    ),
    right(
        "JPEG, profile with a program of 100,000 steps",
        lambda: with_profile(program(100_000), FLAT),
        FLAT,
    ),
    right(
        "JPEG, profile with a short program",
        lambda: with_profile(program(1), MEDIUM),
        by_matrix(MEDIUM, DISPLAY_P3, 2.2),
        6,
    ),
    squares("JPEG, profile in parts that are missing", flooded(segment(0xE2, ICC + b"\2\2"), 1)),
    squares("JPEG, MPO of 4,000 pictures", lambda: many_pictures(4000)),
    squares("JPEG with HTML behind it", lambda: small() + b"<script>alert(1)</script>"),
    squares("JPEG with JavaScript in it", flooded(segment(0xFE, b"*/=alert(1);/*" + bytes(99)), 1)),
    squares("JPEG with a turned one behind it", lambda: small() + TURNED),
    right(
        "JPEG, CMYK",
        lambda: saved(INKS, "JPEG", "CMYK"),
        complement(INKS),
        ROUNDING,
    ),
    right("JPEG, YCCK", ycck, complement(INKS), 3),
    right(
        "JPEG, CMYK with a profile",
        lambda: with_profile(black_only_profile(), INKS, "CMYK"),
        by_lightness(INKS),
        3,
    ),
    *(
        refused(f"JPEG, {part}/64 and its end", partial(closed, small(), part), "image_damaged")
        for part in (8, 32, 63)
    ),
)
