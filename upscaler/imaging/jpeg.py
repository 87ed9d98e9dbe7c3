"""JPEG files: what must be known of one before anything reads it, and its pixels.

Pillow keeps every segment, joins the parts of an EXIF in a time that grows with the square of their
number, and passes through each scan of a progressive picture, be they a million. So a file is first
reduced to the segments that make up its picture. Markers and segments are those of ITU-T T.81,
annex B.

A file is whole if all bits of each component have a scan (`check_scans`), and if libjpeg reads all
of it without a complaint: of an interval that is missing or stands in another's place, of bits that
are missing at the end of one, of bytes that are left over. Nothing else can be asked: a JPEG has no
checksum, and one whose bytes were changed so that all of this still holds is another picture, to
any decoder.
"""

import re
from collections.abc import Iterator
from functools import partial
from struct import unpack_from
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from upscaler.imaging._zlib import zlib
from upscaler.imaging.parallel import ordered_map

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
_WHOLE_BLOCKS: Final = bytes((0, 63, 0))
"""How the header of a scan ends that has all coefficients with all their bits (B.2.3)."""
END: Final = 0xD9
_END: Final = bytes((0xFF, END))
EXIF: Final = 0xE1
PROFILE: Final = 0xE2
COLOURS: Final = (0xE0, 0xEE)
"""JFIF's segment and Adobe's, which say what the components are."""
NOT_NEEDED: Final = (*range(0xE0, 0xF0), 0xFE, 0xCC, 0xDC)
"""Applications' own segments, comments, what only arithmetic coding uses, and a number of lines
behind the first scan, which libjpeg passes over, too."""

_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""All but those of restarts, which belong to the coded pixels."""
_TELLS: Final = re.compile(rb"Adobe|Exif\0|ICC_PROFILE\0")
"""How the segments begin without which a picture has other colours, or lies on its side, and no
decoder complains."""
MOST_SPARE_BYTES: Final = 19
"""So many bytes between two segments may be anything: some programs leave a few there, and all
decoders pass over them. A table without its marker is longer, and libjpeg would take its own."""
_LEFT_OVER: Final = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
"""libjpeg's complaint (JWRN_EXTRANEOUS_DATA) of bytes between the last pixels and the end. What it
tells is the first complaint, or a fatal one: so there was no other before."""
SAMPLES: Final = {1: "GRAY", 3: "RGB", 4: "CMYK"}
"""What simplejpeg calls pixels of so many samples."""


def strip_segments(data: bytes) -> bytes:
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


def decode(data: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The samples of a `strip_segments` file, of `shape`: height, width, and grey, RGB or CMYK.

    Decoded twice at the same time, into memory that was filled with one value and with another. So
    whatever a decoder leaves as it was, or takes from memory that nobody wrote, is no part of a
    picture. Raises ValueError unless the file is whole.
    """
    check_scans(data)
    file = coded(data)
    fill = zlib.crc32(file) & 0xFF
    samples, again = ordered_map(partial(_decoded, file, shape), (fill, fill ^ 0xFF))
    if not np.array_equal(samples, again):
        raise ValueError("not all of it was decoded")
    return samples


def coded(data: bytes) -> bytes:
    """The same picture without what only says how to show it.

    Some files that are not progressive say nothing, or nonsense, where a progressive one has a
    scan's coefficients and bits. That means nothing there (B.2.3), and libjpeg complains of it.
    """
    kept = [SIGNATURE[:2]]
    progressive = False
    for marker, segment, scan in _segments(data):
        progressive = progressive or marker == PROGRESSIVE
        if marker == SCAN and not progressive:
            kept += (segment[:-3], _WHOLE_BLOCKS, scan)
        elif marker not in (EXIF, PROFILE):
            kept += (segment, scan)
    return b"".join(kept)


def check_scans(data: bytes) -> None:
    """Raise ValueError unless each component is there, with all coefficients to their last bits.

    To a decoder a progressive picture is a sound one without its last scans, only blurred. The
    mark of the end must be there, too.
    """
    ids, missing = b"", [[1]]
    progressive = False
    marker = None
    for marker, segment, _ in _segments(data):
        if marker in FRAMES:
            progressive = marker == PROGRESSIVE
            ids = segment[10::3]
            missing = [[1] * 64 for _ in ids]
        elif marker == SCAN:
            behind = 5 + 2 * segment[4]
            first, last, bits = segment[behind : behind + 3] if progressive else (0, 63, 0)
            for component in _meant(segment[5:behind:2], ids):
                missing[component][first : last + 1] = [bits & 15] * (last + 1 - first)
    if any(map(any, missing)) or marker != END:
        raise ValueError("scans are missing, or their end")


def _meant(named: bytes, ids: bytes) -> list[int]:
    """Which components of a frame a scan names. Some files give several the same id, against B.2.2.

    As to libjpeg, the second with an id in a scan is the second with it in the frame. Raises
    ValueError for one that is not there.
    """
    found: list[int] = []
    for wanted in named:
        left = (place for place, id_ in enumerate(ids) if id_ == wanted and place not in found)
        if (place := next(left, None)) is None:
            raise ValueError("a scan of a component that is not there")
        found.append(place)
    return found


def _decoded(file: bytes, shape: tuple[int, int, int], fill: int) -> NDArray[np.uint8]:
    """The samples, in memory that was full of `fill`. Raises ValueError for any complaint.

    Without being strict simplejpeg returns its memory as it was where a complaint comes before a
    fatal error, which TurboJPEG takes for another complaint.
    """
    memory = np.full(shape, fill, np.uint8)
    try:
        simplejpeg.decode_jpeg(file, SAMPLES[shape[2]], buffer=memory, strict=True)
    except ValueError as error:
        found = _LEFT_OVER.fullmatch(str(error))
        # Some cameras fill up their files. What is left of pixels is hardly ever all zero.
        if not found or any(file[-len(_END) - int(found[1]) : -len(_END)]):
            raise
    return memory


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
        lost = start - at > MOST_SPARE_BYTES and data[at:start].strip(b"\0\xff")
        if lost or _TELLS.search(data, at, start):
            raise ValueError("a segment whose marker was damaged")
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
