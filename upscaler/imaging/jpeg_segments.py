"""Reduce JPEG files to what makes up their image, and refuse the kinds that are not read.

Pillow keeps every segment, joins the parts of an EXIF in quadratic time, and processes every scan
of a progressive image, even a million of them. So a file is first reduced to the segments that make
up its image. Markers and segments are those of ITU-T T.81, annex B.
"""

import re
import struct
from collections.abc import Iterator
from struct import unpack_from
from typing import Final, NamedTuple

from upscaler.errors import ImageError

SIGNATURE: Final = b"\xff\xd8\xff"
START: Final = b"\xff\xd8"
END: Final = b"\xff\xd9"
MAX_SEGMENTS: Final = 4096
"""The largest file that fits into a request has room for 400 segments of full length."""
MAX_SCANS: Final = 100
"""Encoders write about 10 scans, and a decoder processes the whole image for each: libjpeg-turbo's
"Two Issues with the JPEG Standard" recommends a limit, and nvImageCodec's is 256."""

FRAMES: Final = (0xC0, 0xC1, 0xC2)
"""SOF0, SOF1 and SOF2: baseline, extended and progressive with Huffman coding, as browsers show."""
PROGRESSIVE: Final = 0xC2
_OTHER_FRAMES: Final = {
    **dict.fromkeys((0xC3,), "lossless"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xDE, 0xDF), "hierarchical"),
    **dict.fromkeys((0xC9, 0xCA), "arithmetic-coded"),
    **dict.fromkeys((0xCB,), "lossless and arithmetic-coded"),
    **dict.fromkeys((0xCD, 0xCE, 0xCF), "hierarchical and arithmetic-coded"),
    **dict.fromkeys((0xF7,), "a JPEG-LS"),
}
"""The other frames of T.81, table B.1, with DHP and EXP, and that of JPEG-LS (T.87, C.1.1)."""
HUFFMAN, QUANTIZATION, RESTART = 0xC4, 0xDB, 0xDD
TABLES: Final = (HUFFMAN, QUANTIZATION, RESTART)
MAX_TABLE_BYTES: Final = 4 + 8 * (17 + 256)
"""The length of a segment with all 8 Huffman tables that can exist, at full size (B.2.4.2)."""
SCAN: Final = 0xDA
EXIF: Final = 0xE1
PROFILE: Final = 0xE2
JFIF, ADOBE = 0xE0, 0xEE
"""APP0 and APP14, which say what the components are."""
_IGNORED: Final = (*range(0xE0, 0xF0), 0xFE, 0xCC, 0xDC)
"""Segments to leave out: APP0 to APP15, comments, DAC (used by arithmetic coding alone), and DNL, a
number of lines after the first scan, which libjpeg ignores, too."""
_SOI, _EOI = START[1], END[1]

_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
"""All markers but RST0 to RST7, which belong to the coded pixels, and TEM, which begins nothing."""
_END_OF_SCAN: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""With TEM: libjpeg reads no pixels behind any marker but RST0 to RST7."""
_NOT_RESERVED: Final = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
"""The markers of segments that there are, and those of START and END (B.1.1.3)."""
_ESSENTIAL: Final = re.compile(rb"Adobe|Exif\0|ICC_PROFILE\0")
"""How those segments begin without which an image has other colours or is not upright, while no
decoder complains."""
_ICC: Final = b"ICC_PROFILE\0"
_ICC_HEAD_BYTES: Final = 4 + len(_ICC) + 2
"""The marker, the length, that text, the number of the part, and how many parts there are."""
_ADOBE_CONTENT: Final = re.compile(rb"\0\x0eAdobe.{7}", re.DOTALL)
"""An Adobe segment without its marker. There are files of Photoshop's whose profile states a length
that has these two bytes as well."""
MAX_SPARE_BYTES: Final = 19
"""Up to this many bytes between two segments may be anything: some programs leave a few there, and
all decoders skip them. A table that has lost its marker is longer. It must not be skipped, since
libjpeg would use a default table instead."""


class TooManySegments(ImageError):
    """A file has more than MAX_SEGMENTS segments, be it only behind its image."""


class Component(NamedTuple):
    """A component of a frame: its id and its horizontal and vertical sampling factor (B.2.2)."""

    id: int
    across: int
    down: int


class Frame(NamedTuple):
    """The header of a frame: `width` and `height` in pixels."""

    progressive: bool
    width: int
    height: int
    components: tuple[Component, ...]

    @property
    def unit(self) -> tuple[int, int]:
        """The largest sampling factors, across and down: an MCU has 8 times as many pixels."""
        return max(c.across for c in self.components), max(c.down for c in self.components)


class Scan(NamedTuple):
    """The header of a scan (B.2.3).

    `components` are indices in the frame, `tables` the numbers of the DC and AC tables of each.
    `first` and `last` are the coefficients, and `high` and `low` the successive approximation.
    """

    components: tuple[int, ...]
    tables: tuple[tuple[int, int], ...]
    first: int
    last: int
    high: int
    low: int


def strip_segments(data: bytes) -> bytes:
    """Remove all segments that the image does not need, and everything after its end.

    What says how to show the image comes first, wherever it was before the first scan: browsers
    look for it there, and Pillow only before the frame. Without an EOI that belongs to the image
    there is none in the result either: it ends with the scan that completes the image, and with
    what follows that up to another marker, be it only by chance in bytes of something else.

    Raises ImageError for a kind of JPEG that is not read, for more than one frame, for tables of
    more than MAX_TABLE_BYTES, and for more than MAX_SEGMENTS segments or MAX_SCANS scans.
    """
    reduced = _Reduced(data)
    try:
        try:
            for found in segments(data):
                reduced.add(*found)
                if reduced.is_decided:
                    break
        except TooManySegments:
            raise
        except (ValueError, IndexError, struct.error, ImageError):
            # Behind the image anything may stand: some phones write no EOI, but data of their own.
            if not reduced.complete:
                raise
        return reduced.file()
    except (ValueError, IndexError, struct.error) as error:
        fault = str(error) if isinstance(error, ValueError) else "the header of a segment is short"
        raise ImageError(f"this JPEG cannot be read: {fault}", "image_unreadable") from error


class _Reduced:
    """What is kept of a file. `complete` is how many pieces make up all of its scans, or 0.

    `is_decided` says that no segment that is yet to come can belong to the image.
    """

    def __init__(self, data: bytes) -> None:
        self.complete = 0
        self._data = data
        self.is_decided = False
        self._coverage = Coverage()
        self._shown: list[bytes] = []
        self._profile: list[bytes] = []
        self._kept: list[tuple[int, bytes]] = []

    def add(self, marker: int, segment: bytes, coded: bytes) -> None:
        """Take a segment, or not. Raises ImageError for one of a kind of JPEG that is not read."""
        if marker in TABLES and len(segment) > MAX_TABLE_BYTES:
            raise ValueError("it has more tables than there can be")
        if self.complete and (frame := self._coverage.frame):
            self.is_decided = not (frame.progressive and marker in (*TABLES, SCAN))
        if marker in (*FRAMES, *TABLES, SCAN, _EOI):
            self._coverage.add(marker, segment)
            self._kept.append((marker, segment + coded))
            self.complete = self.complete or len(self._kept) * self._coverage.is_complete
        elif marker not in _IGNORED:
            raise _unsupported(f"is {_OTHER_FRAMES.get(marker, 'of an unknown kind')}")
        elif self._coverage.scans == 0:
            self._add_shown(marker, segment)

    @property
    def _has_end(self) -> bool:
        """Whether an EOI belongs to the image.

        It stands right behind the scan that completes it, and otherwise in other bytes. Only in a
        progressive file more scans may come before it: either they change nothing, or the header of
        a scan is damaged, so that the image is not as complete as it says.
        """
        behind = [marker for marker, _ in self._kept[self.complete :]]
        return behind == [_EOI] or (SCAN in behind and behind[-1] == _EOI)

    def _has_late_end(self) -> bool:
        """Whether an EOI belongs to the image though its last scan seems to end before.

        Between them are only tables, which have lost their place before the scan, or it is the end
        of the file, and no other segment begins between them: a marker that is reserved is a
        stuffed byte of the scan, which was changed.
        """
        _, last = self._kept[self.complete - 1]
        at = self._data.index(last) + len(last)
        is_in_place = True
        for _ in range(MAX_SEGMENTS):
            if not (found := _NOT_RESERVED.search(self._data, at)):
                return False
            is_in_place &= not self._data[at : found.start()].strip(b"\xff")  # fill bytes
            if found[0] == END:
                return is_in_place or found.end() == len(self._data)
            at = _end_of_tables(self._data, found.end())
            if not at:
                return False
        return False

    def _add_shown(self, marker: int, segment: bytes) -> None:
        # As in browsers the first EXIF counts.
        is_exif = marker == EXIF and segment[4:].startswith(b"Exif\0\0")
        is_first = is_exif and EXIF not in (shown[1] for shown in self._shown)
        if marker in (JFIF, ADOBE) or is_first:
            self._shown.append(segment)
        elif marker == PROFILE:
            self._profile.append(segment)

    def file(self) -> bytes:
        """The reduced file. Raises ValueError for too many frames or scans."""
        if self.complete and not self._has_end:
            self._kept[self.complete :] = [(_EOI, END)] if self._has_late_end() else []
        markers = [marker for marker, _ in self._kept]
        frames = sum(map(markers.count, FRAMES))
        if frames != 1:
            fault = "it has more than one frame" if frames else "it ends before its frame begins"
            raise ValueError(fault)
        if markers.count(SCAN) > MAX_SCANS:
            raise ValueError(f"it has more than {MAX_SCANS} scans")
        pieces = (piece for _, piece in self._kept)
        return b"".join((START, *self._shown, *_usable_parts(self._profile), *pieces))


def segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Each segment: its marker, the whole segment, and for a scan the coded pixels after it.

    Raises ValueError for a segment whose marker is damaged, and TooManySegments.
    """
    at = 2
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if not found:
            return
        start, marker = found.start(), found[0][1]
        if _is_adobe(spare := data[at:start]):
            yield ADOBE, bytes((0xFF, ADOBE)) + spare, b""
        if marker == _EOI:
            yield marker, found[0], b""
        if marker == _EOI or start + 4 > len(data):
            return
        if marker == _SOI:
            raise ValueError("another image starts in it")
        (length,) = unpack_from(">H", data, start + 2)
        if length < 2:
            raise ValueError("the length of a segment is wrong")
        at = start + 2 + length
        if at > len(data):
            return  # the file is cut off
        segment, stop = data[start:at], at
        if marker == SCAN:
            behind = _END_OF_SCAN.search(data, at)
            stop = behind.start() if behind else len(data)
        yield marker, segment, data[at:stop].rstrip(b"\xff")  # fill bytes (B.1.1.2)
        at = stop
    fault = f"this JPEG has more than {MAX_SEGMENTS} segments: save it without its metadata"
    raise TooManySegments(fault, "image_unreadable")


def _end_of_tables(data: bytes, at: int) -> int:
    """Where a segment whose marker ends at `at` ends itself, if it has whole tables, or else 0."""
    marker, end = data[at - 1], at + int.from_bytes(data[at : at + 2], "big")
    content = data[at + 2 : min(end, at + MAX_TABLE_BYTES)]
    read = 2 if marker == RESTART else 0
    while marker in (HUFFMAN, QUANTIZATION) and read < len(content):
        if marker == HUFFMAN:
            read += 17 + sum(content[read + 1 : read + 17])
        else:
            read += 65 + 64 * (content[read] >> 4)
    return end if 0 < read == end - at - 2 else 0


def _is_adobe(spare: bytes) -> bool:
    """Whether the bytes between two segments are one that has lost its marker, but not its place.

    Raises ValueError for any other bytes that may not be skipped.
    """
    if _ADOBE_CONTENT.fullmatch(spare):
        return True
    if _ESSENTIAL.search(spare) or (len(spare) > MAX_SPARE_BYTES and spare.strip(b"\0\xff")):
        raise ValueError("the marker of a segment is damaged")
    return False


def read_frame(segment: bytes) -> Frame:
    """Parse the header of a frame.

    Raises ImageError for what neither libjpeg nor a browser reads, and ValueError for a header
    that is too short or has factors that do not exist.
    """
    precision, height, width, count = unpack_from(">BHHB", segment, 4)
    if precision != 8:
        raise _unsupported(f"has {precision} bits a sample")
    if not height:
        raise _unsupported("states its height behind its pixels (DNL)")
    if count not in (1, 3, 4):
        raise _unsupported(f"has {count} colour components")
    components = tuple(
        Component(segment[at], segment[at + 1] >> 4, segment[at + 1] & 15)
        for at in range(10, 10 + 3 * count, 3)
    )
    frame = Frame(segment[1] == PROGRESSIVE, width, height, components)
    if not all(1 <= factor <= 4 for c in components for factor in c[1:]):
        raise ValueError("a sampling factor is not 1 to 4")
    most_across, most_down = frame.unit
    if any(most_across % c.across or most_down % c.down for c in components):
        raise _unsupported("has sampling factors that are not multiples of each other")
    return frame


def read_scan(segment: bytes, frame: Frame) -> Scan:
    """Parse the header of a scan. Raises ValueError for a component that the frame does not have.

    Its coefficients and bits count in a progressive frame alone: in others they are all.
    """
    behind = 5 + 2 * segment[4]
    components = _find_components(segment[5:behind:2], [c.id for c in frame.components])
    tables = tuple((both >> 4, both & 15) for both in segment[6:behind:2])
    first, last, bits = segment[behind : behind + 3] if frame.progressive else (0, 63, 0)
    return Scan(components, tables, first, last, bits >> 4, bits & 15)


def _find_components(named: bytes, ids: list[int]) -> tuple[int, ...]:
    """The indices in the frame's `ids` of the components that a scan names.

    Some files give several components the same id, against B.2.2. As in libjpeg, the second one
    with an id in a scan is the second one with it in the frame.
    """
    found: list[int] = []
    for wanted in named:
        left = (index for index, id_ in enumerate(ids) if id_ == wanted and index not in found)
        if (index := next(left, None)) is None:
            raise ValueError("a scan has a component that the frame has not")
        found.append(index)
    return tuple(found)


class Coverage:
    """Which bits of which coefficients have had a scan.

    Without its last scans a progressive image is still valid to a decoder, only blurred.
    """

    def __init__(self) -> None:
        self.frame: Frame | None = None
        self.scans = 0
        # The bits that are missing of each of the 64 coefficients of each component.
        self._missing: list[list[int]] = []

    @property
    def is_complete(self) -> bool:
        return self.frame is not None and not any(map(any, self._missing))

    def add(self, marker: int, segment: bytes) -> None:
        """Take account of a frame or a scan. Raises what `read_frame` and `read_scan` raise."""
        if marker in FRAMES:
            self.frame = read_frame(segment)
            self._missing = [[1] * 64 for _ in self.frame.components]
        elif marker == SCAN:
            if self.frame is None:
                raise ValueError("a scan comes before the frame")
            self.scans += 1
            scan = read_scan(segment, self.frame)
            for component in scan.components:
                band = slice(scan.first, scan.last + 1)
                self._missing[component][band] = [scan.low] * (scan.last + 1 - scan.first)


def _unsupported(fault: str) -> ImageError:
    advice = "save it as a usual JPEG (baseline or progressive, Huffman-coded, 8 bits) or as PNG"
    return ImageError(f"this JPEG {fault}, which is not supported: {advice}", "image_unreadable")


def _usable_parts(found: list[bytes]) -> list[bytes]:
    """The segments of an ICC profile in their order (ICC.1:2022, B.4), or none if one is missing.

    Some programs write a profile twice. Of several parts with one number the first that is not
    empty counts, as in Chromium.
    """
    parts: dict[int, bytes] = {}
    total = 0
    for segment in found:
        if segment[4:].startswith(_ICC) and len(segment) > _ICC_HEAD_BYTES:
            number, count = segment[_ICC_HEAD_BYTES - 2 : _ICC_HEAD_BYTES]
            total = total or count
            if count == total:
                parts.setdefault(number, segment)
    numbers = list(range(1, total + 1))
    return [parts[number] for number in numbers] if sorted(parts) == numbers else []
