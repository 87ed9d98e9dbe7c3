"""Reduce JPEG files to what makes up their image, check that they are whole, and decode them.

Pillow keeps every segment, joins the parts of an EXIF in quadratic time, and processes every scan
of a progressive image, even a million of them. So a file is first reduced to the segments that make
up its image. Markers and segments are those of ITU-T T.81, annex B.

A file is whole if every bit of each component has a scan (`check_scans`), and if libjpeg reads all
of it without a warning, such as of a restart interval that is missing or in the wrong place, of
bits that are missing at the end of an interval, or of bytes that are left over. More cannot be
checked, because a JPEG has no checksum: a file whose bytes were changed so that all of this still
holds is another valid image to any decoder.
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
"""The largest file that fits into a request has room for 400 segments of full length."""
MAX_SCANS: Final = 100
"""Encoders write about 10 scans, and a decoder processes the whole image for each: libjpeg-turbo's
"Two Issues with the JPEG Standard" recommends a limit, and nvImageCodec's is 256."""

FRAMES: Final = (0xC0, 0xC1, 0xC2)
"""SOF0, SOF1 and SOF2: baseline, extended and progressive with Huffman coding, as browsers show."""
PROGRESSIVE: Final = 0xC2
TABLES: Final = (0xC4, 0xDB, 0xDD)
"""DHT, DQT and DRI: Huffman tables, quantization tables, and the restart interval."""
MAX_TABLE_BYTES: Final = 4 + 8 * (17 + 256)
"""The length of a segment with all 8 Huffman tables that can exist, at full size (B.2.4.2)."""
SCAN: Final = 0xDA
_WHOLE_BLOCKS: Final = bytes((0, 63, 0))
"""The end of the header of a scan with all coefficients and all of their bits (B.2.3)."""
END: Final = 0xD9
_END: Final = bytes((0xFF, END))
EXIF: Final = 0xE1
PROFILE: Final = 0xE2
COLOURS: Final = (0xE0, 0xEE)
"""APP0 (JFIF) and APP14 (Adobe), which say what the components are."""
NOT_NEEDED: Final = (*range(0xE0, 0xF0), 0xFE, 0xCC, 0xDC)
"""Segments to leave out: APP0 to APP15, comments, DAC (used by arithmetic coding alone), and DNL, a
number of lines after the first scan, which libjpeg ignores, too."""

_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""All markers but RST0 to RST7, which belong to the coded pixels."""
_ESSENTIAL: Final = re.compile(rb"Adobe|Exif\0|ICC_PROFILE\0")
"""How those segments begin without which an image has other colours or is not upright, while no
decoder complains."""
MAX_SPARE_BYTES: Final = 19
"""Up to this many bytes between two segments may be anything: some programs leave a few there, and
all decoders skip them. A table that has lost its marker is longer. It must not be skipped, since
libjpeg would use a default table instead."""
_LEFT_OVER: Final = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
"""libjpeg's warning (JWRN_EXTRANEOUS_DATA) of bytes between the last pixels and the end. libjpeg
reports its first warning, or a fatal error: so if it is this one, there was none before it."""
SAMPLES: Final = {1: "GRAY", 3: "RGB", 4: "CMYK"}
"""simplejpeg's name of the colour space, by the number of samples in a pixel."""


def strip_segments(data: bytes) -> bytes:
    """Remove all segments that the image does not need, and everything after its end.

    Raises ValueError for a frame that is none of FRAMES, more than one frame, tables of more than
    MAX_TABLE_BYTES, and more than MAX_SEGMENTS segments or MAX_SCANS scans.
    """
    kept = [SIGNATURE[:2]]
    markers: list[int] = []
    for marker, segment, coded in _segments(data):
        if marker in (*FRAMES, *TABLES, SCAN, END) or _is_essential(segment, markers):
            markers.append(marker)
            kept += (segment, coded)
        elif marker not in NOT_NEEDED:
            raise ValueError(f"marker {marker:02X}")  # such as SOF9, an arithmetic-coded frame
        if marker in TABLES and len(segment) > MAX_TABLE_BYTES:
            raise ValueError("tables beyond number")
    if sum(map(markers.count, FRAMES)) > 1:
        raise ValueError("more than one frame")
    if markers.count(SCAN) > MAX_SCANS:
        raise ValueError(f"more than {MAX_SCANS} scans")
    return b"".join(kept)


def decode(data: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Decode a `strip_segments` file to `shape`: height, width, and 1 (grey), 3 (RGB) or 4 (CMYK).

    The file is decoded twice in parallel, into memory that was filled with two different values.
    Whatever the decoder leaves unwritten, or copies from uninitialised memory, differs between the
    two results, so it is never shown. Raises ValueError unless the file is whole.
    """
    check_scans(data)
    file = coded(data)
    # The file decides the values, so that decoding it again gives the same result.
    fill = zlib.crc32(file) & 0xFF
    samples, again = ordered_map(partial(_decode_into_fill, file, shape), (fill, fill ^ 0xFF))
    if not np.array_equal(samples, again):
        raise ValueError("not all of it was decoded")
    return samples


def coded(data: bytes) -> bytes:
    """Remove what says how to show the image, and repair what libjpeg warns of without need.

    A scan's header has fields for coefficients and bits, which only progressive files use (B.2.3).
    In other files some programs leave them empty or wrong, and libjpeg warns of it. So those fields
    are set to what they stand for: all of them.
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
    """Raise ValueError unless every component has all bits of all coefficients, and EOI is there.

    Without its last scans a progressive image is still valid to a decoder, only blurred.
    """
    # `missing` has the bits that are missing of each of the 64 coefficients of each component;
    # without a frame it is never empty.
    ids, missing = b"", [[1]]
    progressive = False
    marker = None
    for marker, segment, _ in _segments(data):
        if marker in FRAMES:
            progressive = marker == PROGRESSIVE
            ids = segment[10::3]
            missing = [[1] * 64 for _ in ids]
        elif marker == SCAN:
            behind = 5 + 2 * segment[4]  # two bytes for each component of the scan
            first, last, bits = segment[behind : behind + 3] if progressive else (0, 63, 0)
            for component in _find_components(segment[5:behind:2], ids):
                # The low half of `bits` (Al) is how many of the lowest bits the scan leaves out.
                missing[component][first : last + 1] = [bits & 15] * (last + 1 - first)
    if any(map(any, missing)) or marker != END:
        raise ValueError("scans are missing, or their end")


def _find_components(named: bytes, ids: bytes) -> list[int]:
    """The indices in the frame's `ids` of the components that a scan names.

    Some files give several components the same id, against B.2.2. As in libjpeg, the second one
    with an id in a scan is the second one with it in the frame. Raises ValueError for an id that
    the frame does not have.
    """
    found: list[int] = []
    for wanted in named:
        left = (index for index, id_ in enumerate(ids) if id_ == wanted and index not in found)
        if (index := next(left, None)) is None:
            raise ValueError("a scan of a component that is not there")
        found.append(index)
    return found


def _decode_into_fill(file: bytes, shape: tuple[int, int, int], fill: int) -> NDArray[np.uint8]:
    """Decode into memory that was filled with `fill`. Raises ValueError for any warning.

    Strictly, because otherwise simplejpeg returns unwritten memory for a file with a warning before
    a fatal error, which TurboJPEG takes for another warning.
    """
    memory = np.full(shape, fill, np.uint8)
    try:
        simplejpeg.decode_jpeg(file, SAMPLES[shape[2]], buffer=memory, strict=True)
    except ValueError as error:
        found = _LEFT_OVER.fullmatch(str(error))
        # Some cameras pad their files with zeros, so those are accepted. If pixels are left over,
        # after a damage, their bytes are hardly ever all zero.
        if not found or any(file[-len(_END) - int(found[1]) : -len(_END)]):
            raise
    return memory


def _is_essential(segment: bytes, before: list[int]) -> bool:
    """Whether an APPn segment says what the samples mean or how the image is oriented.

    `before` are the markers that were kept. Only the first EXIF counts; a profile may be in parts.
    """
    marker, content = segment[1], segment[4:]
    if marker == EXIF:
        return content.startswith(b"Exif\0\0") and EXIF not in before
    if marker == PROFILE:
        return content.startswith(b"ICC_PROFILE\0")
    return marker in COLOURS


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Each segment: its marker, the whole segment, and for a scan the coded pixels after it.

    Raises ValueError for a segment whose marker is damaged, and for more than MAX_SEGMENTS.
    """
    at = 2
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if not found:
            return
        start, marker = found.start(), found[0][1]
        lost = start - at > MAX_SPARE_BYTES and data[at:start].strip(b"\0\xff")
        if lost or _ESSENTIAL.search(data, at, start):
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
