"""What must be known of a JPEG file before it is left to a decoder.

Pillow keeps every segment, joins the parts of an EXIF in a time that grows with the square of their
number, and passes through each scan of a progressive picture, be they a million. libjpeg paints
grey what a scan leaves out and tells nobody through Pillow. So a file is first reduced to the
segments that make up its picture, and asked whether its scans are whole. Markers and segments are
those of ITU-T T.81, annex B.
"""

import re
from collections.abc import Iterator
from hashlib import sha512
from struct import unpack_from
from typing import Final

SIGNATURE: Final = b"\xff\xd8\xff"
MAX_SEGMENTS: Final = 4096
"""The largest file that a request can hold has room for 400 segments of full length."""
MAX_SCANS: Final = 100
"""Encoders make about 10, and each takes a decoder through the whole picture: libjpeg-turbo's "Two
Issues with the JPEG Standard" advises a limit, and nvImageCodec has one of 256."""

FRAMES: Final = (0xC0, 0xC1, 0xC2)
"""Baseline, extended and progressive with Huffman's coding: those that browsers show."""
PROGRESSIVE: Final = 0xC2
TABLES: Final = (0xC4, 0xDB, 0xDD)
"""Huffman's tables, those of quantization, and the restart interval."""
MAX_TABLE_BYTES: Final = 4 + 8 * (17 + 256)
"""As long is a segment with all of Huffman's tables that there can be (B.2.4.2)."""
SCAN: Final = 0xDA
END: Final = 0xD9
EXIF: Final = 0xE1
PROFILE: Final = 0xE2
COLOURS: Final = (0xE0, 0xEE)
"""JFIF's segment and Adobe's, which say what the components are."""
NOT_NEEDED: Final = (*range(0xE0, 0xF0), 0xFE, 0xCC, 0xDC)
"""Applications' own segments, comments, what only arithmetic coding uses, and a number of lines
behind the first scan, which libjpeg passes over, too."""

_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""All but those of restarts, which belong to the coded pixels."""
_NOISE: Final = [sha512(bytes([i])).digest().replace(b"\xff", b"") for i in range(9)]
MORE: Final = _NOISE[8] + b"".join(bytes([0xFF, 0xD0 + i]) + _NOISE[i] for i in range(8))
"""Coded pixels, at once and behind any restart. Behind the last pixels of a scan a decoder passes
over whatever comes before the next marker; where pixels are missing it takes that for them."""


def reduced(data: bytes) -> bytes:
    """The same picture without any other segment, or anything behind its end.

    Raises ValueError for a frame that is none of FRAMES, more frames than one, tables of more than
    MAX_TABLE_BYTES, and more than MAX_SEGMENTS segments or MAX_SCANS scans.
    """
    kept = [SIGNATURE[:2]]
    markers: list[int] = []
    for marker, segment, coded in _segments(data):
        if marker in (*FRAMES, *TABLES, SCAN, END) or _tells_colours_or_side(segment, markers):
            markers.append(marker)
            kept += (segment, coded)
        elif marker not in NOT_NEEDED:
            raise ValueError(f"marker {marker:02X}")
        if marker in TABLES and len(segment) > MAX_TABLE_BYTES:
            raise ValueError("tables beyond number")
    if sum(map(markers.count, FRAMES)) > 1:
        raise ValueError("more than one frame")
    if markers.count(SCAN) > MAX_SCANS:
        raise ValueError(f"more than {MAX_SCANS} scans")
    return b"".join(kept)


def coded(data: bytes, more: bytes = b"") -> bytes:
    """The same picture without what only says how to show it, and with `more` behind each scan."""
    kept = [SIGNATURE[:2]]
    for marker, segment, pixels in _segments(data):
        if marker not in (EXIF, PROFILE):
            kept += (segment, pixels, more if marker == SCAN else b"")
    return b"".join(kept)


def check_scans(data: bytes) -> None:
    """Raise ValueError unless each component is there, and what is begun of it to its last bit.

    To a decoder a progressive picture is a sound one without its last scans, only blurred. The
    mark of the end must be there, too.
    """
    missing: dict[int, list[int]] = {}
    progressive = False
    marker = None
    for marker, segment, _ in _segments(data):
        if marker in FRAMES:
            progressive = marker == PROGRESSIVE
            missing = {component: [1] + [0] * 63 for component in segment[10::3]}
        elif marker == SCAN:
            behind = 5 + 2 * segment[4]
            first, last, bits = segment[behind : behind + 3] if progressive else (0, 63, 0)
            for component in segment[5:behind:2]:
                missing[component][first : last + 1] = [bits & 15] * (last + 1 - first)
    if any(map(any, missing.values())) or marker != END:
        raise ValueError("scans are missing, or their end")


def _tells_colours_or_side(segment: bytes, before: list[int]) -> bool:
    """Whether an application's segment says what the samples mean, or which side is up."""
    marker, content = segment[1], segment[4:]
    if marker == EXIF:
        return content.startswith(b"Exif\0\0") and EXIF not in before
    if marker == PROFILE:
        return content.startswith(b"ICC_PROFILE\0")
    return marker in COLOURS


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Each segment's marker, all of it, and the coded pixels behind it if it begins a scan."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if not found:
            return
        start, marker = found.start(), found[0][1]
        if marker == END:
            yield marker, found[0], b""
        if marker == END or start + 4 > len(data):
            return
        (length,) = unpack_from(">H", data, start + 2)
        if length < 2:
            raise ValueError("a segment is shorter than its length")
        at = start + 2 + length
        segment, stop = data[start:at], at
        if marker == SCAN:
            behind = _MARKER.search(data, at)
            stop = behind.start() if behind else len(data)
        yield marker, segment, data[at:stop].rstrip(b"\xff")  # fill bytes (B.1.1.2)
        at = stop
    raise ValueError(f"more than {MAX_SEGMENTS} segments")
