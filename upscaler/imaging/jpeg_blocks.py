"""Show that every block of a JPEG is coded, where TurboJPEG cannot.

TurboJPEG tells of libjpeg's warnings, but refuses any sampling that it has no name for, such as
4:1:0 (its `getSubsamp`). Pillow decodes those, but hides the warnings. So the scans of such a file
are put into other files, in which the same bits are read the same way:

- The scans of AC coefficients are of one component each (T.81, G.1.1.1.1), and so make up a grey
  file, which TurboJPEG has a name for (`grey_files`).
- What codes DC coefficients for the first time goes behind a scan of our own that gives each block
  another value, and each of its restart intervals gets one MCU more, for which there are no bits
  (`check_scans_of_dc`). Where bits run out, libjpeg makes up zeros for the rest of that MCU, and
  leaves the next ones of the interval as they are. So the MCU more is changed if, and only if, all
  before it had their bits.
- A refinement of DC coefficients has one bit for each block (G.1.2.1.1).

Not found are up to 7 bytes too many in an interval of AC coefficients, which libjpeg has read ahead
and throws away, and bits that are no code in a table that has no room for more of them.
"""

import io
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from struct import pack, unpack_from
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

from upscaler.imaging.jpeg_segments import (
    END,
    FRAMES,
    HUFFMAN,
    QUANTIZATION,
    RESTART,
    SCAN,
    START,
    Frame,
    Scan,
    read_frame,
    read_scan,
    segments,
)
from upscaler.imaging.parallel import ordered_map

_RESTARTS: Final = re.compile(rb"\xff([\xd0-\xd7])")
_STUFFED: Final = re.compile(rb"(?<!\xff)\xff++\0")
"""A byte 0xFF of the coded bits, perhaps with fill bytes before it (B.1.1.2, B.1.1.5)."""
_ONES: Final = b"\xff\0"
"""A byte of ones."""
_VIDEO: Final = re.compile(rb"\0\0..ftyp", re.DOTALL)
"""How a video in MP4 begins: the length and the type of its first box (ISO/IEC 14496-12, 4.3)."""
_TEXT: Final = re.compile(rb"[ -~]{24,}")
_DIFFERENT: Final = 12
"""So many bytes of ASCII in a row, so many of them different, are no coded pixels. Those look
random, or in a flat area repeat themselves, and then after a few bytes."""
_LIKE_TEXT: Final = 16
"""Of the bytes at the end of a scan never more than these are ASCII."""
_EXTENDED, _PROGRESSIVE = 0xC1, 0xC2
_OUR_TABLES: Final = 3
"""The number of the Huffman tables of our scan. If the file has tables with it, theirs follow."""
_OUR_CODES: Final = bytes((1, 1, *bytes(14), 0, 9)), bytes((1, *bytes(15), 0))
"""DC: 0 stands for the same value as before, and 10 for a change of 9 bits. AC: 0 for the end."""
_OUR_STARTS: Final = b"\xb2\0", b"\x8d\xe0"
"""The code 10, and +400 or -400; all blocks after this first one have the same value."""
_FLAT: Final = bytes((0, 1, 0, *[1] * 62))
"""A quantization table in which one coefficient counts for nothing, which turns off the smoothing
of blocks whose AC coefficients are unknown (libjpeg's `smoothing_ok`)."""
_COLUMNS: Final = 1024
"""How many MCUs a row has, but for images with so many that there would be too many rows."""
_MOST_PX: Final = 65_000
"""About the longest side that libjpeg takes (JPEG_MAX_DIMENSION)."""
_MOST_MCUS: Final = 0xFFFF
"""The longest restart interval that there is (B.2.4.4)."""


class CodedScan(NamedTuple):
    """A scan with what is needed to read it.

    `tables` are the Huffman tables by class and number, `interval` is in MCUs, 0 for no restarts.
    """

    frame: Frame
    scan: Scan
    tables: dict[int, bytes]
    interval: int
    coded: bytes

    @property
    def size(self) -> tuple[int, int]:
        """How many MCUs the scan has across and down (A.2.2 to A.2.4)."""
        across, down = self.frame.unit
        if len(self.scan.components) == 1:
            _, own_across, own_down = self.frame.components[self.scan.components[0]]
            width = -(-self.frame.width * own_across // across)
            height = -(-self.frame.height * own_down // down)
            return -(-width // 8), -(-height // 8)
        return -(-self.frame.width // (8 * across)), -(-self.frame.height // (8 * down))

    @property
    def factors(self) -> list[tuple[int, int]]:
        """The sampling factors of its components; one component alone has MCUs of one block."""
        components = [self.frame.components[index] for index in self.scan.components]
        return [(1, 1)] if len(components) == 1 else [c[1:] for c in components]

    def lengths(self) -> list[int]:
        """The MCUs of each restart interval."""
        across, down = self.size
        total = across * down
        whole, rest = divmod(total, self.interval or total)
        return [self.interval or total] * whole + [rest] * (rest > 0)

    def intervals(self) -> list[bytes]:
        """The bits of each restart interval.

        Raises ValueError unless there are as many as `lengths`, with their markers in order.
        """
        count = len(self.lengths())
        parts = _RESTARTS.split(self.coded, count + 1)  # of millions of markers, no more
        bits, markers = [part.rstrip(b"\xff") for part in parts[::2]], b"".join(parts[1::2])
        if len(bits) == count + 1 and not bits[-1]:  # some encoders end the last one, too
            bits, markers = bits[:-1], markers[:-1]
        if len(bits) != count or any(m != 0xD0 + i % 8 for i, m in enumerate(markers)):
            raise ValueError("restart markers are missing or in the wrong order")
        return bits

    def surplus_bytes(self) -> int:
        """How many bytes there are from the first restart marker on that is one too many.

        Or from where a trailer can be told to begin, if that is before. Of text the first bytes may
        belong to the scan, which ends with bytes that look like it.
        """
        mark = next(islice(_RESTARTS.finditer(self.coded), len(self.lengths()) - 1, None), None)
        end = mark.start() if mark else len(self.coded)
        return len(self.coded) - min(end, trailer_at(self.coded, _LIKE_TEXT))


def trailer_at(coded: bytes, like_text: int) -> int:
    """Where in the bytes of a scan those of another format begin, text or a video, or their length.

    The first `like_text` bytes of a text are taken for those of the scan.
    """
    starts = [len(coded)]
    if video := _VIDEO.search(coded):
        starts.append(video.start())
    for text in _TEXT.finditer(coded):
        if len(set(text[0])) >= _DIFFERENT:
            starts.append(text.start() + like_text)
            break
    return min(starts)


def read_scans(file: bytes) -> Iterator[CodedScan]:
    """The scans of a file of `strip_segments`. Raises what `read_frame` and `read_scan` raise."""
    frame: Frame | None = None
    tables: dict[int, bytes] = {}
    interval = 0
    for marker, segment, coded in segments(file):
        if marker in FRAMES:
            frame = read_frame(segment)
        elif marker == HUFFMAN:
            tables = tables | _read_tables(segment[4:])
        elif marker == RESTART:
            (interval,) = unpack_from(">H", segment, 4)
        elif marker == SCAN and frame:
            yield CodedScan(frame, read_scan(segment, frame), tables, interval, coded)


def _read_tables(content: bytes) -> dict[int, bytes]:
    """Huffman tables by the byte that has their class and number (B.2.4.2)."""
    tables = {}
    while content:
        end = 17 + sum(content[1:17])
        tables[content[0]] = content[1:end]
        content = content[end:]
    return tables


def check_scans_of_dc(file: bytes, *, may_have_trailer: bool) -> None:
    """Raise ValueError unless all blocks have the bits of their DC coefficients, and no more.

    In a frame that is not progressive that includes their AC coefficients. With `may_have_trailer`
    anything may follow the bits of the last scan.
    """
    scans = list(read_scans(file))
    first = [index for s in scans if not s.scan.first and not s.scan.high for index in s.scan[0]]
    if len(set(first)) < len(first):
        raise ValueError("a component has two scans of the same")
    for scan in scans:
        is_lenient = may_have_trailer and scan is scans[-1]
        if scan.scan.first == 0 and scan.scan.high:
            _check_refinement(scan, is_lenient)
        elif scan.scan.first == 0:
            _check_first(scan, is_lenient)


def _check_refinement(scan: CodedScan, is_lenient: bool) -> None:
    blocks = sum(across * down for across, down in scan.factors)
    bits = [_STUFFED.sub(b"\xff", part) for part in scan.intervals()]
    needed = [-(-length * blocks // 8) for length in scan.lengths()]
    more = bits[-1][needed[-1] :]
    if is_lenient or not any(more):
        bits[-1] = bits[-1][: needed[-1]]
    if [len(part) for part in bits] != needed:
        raise ValueError("a restart interval is too short or too long")


def _check_first(scan: CodedScan, is_lenient: bool) -> None:
    intervals = scan.intervals()
    for lot in _lots(scan, len(intervals)):
        has_trailer = is_lenient and lot.stop == len(intervals)
        _check_intervals(scan, intervals[lot], scan.lengths()[lot], has_trailer)


def _lots(scan: CodedScan, count: int) -> Iterator[slice]:
    """Which of the first `count` intervals can be decoded together: all of them, or one by one.

    With the MCU more an interval of the greatest length is too long for DRI, so it goes alone.
    """
    at_once = 1 if scan.interval == _MOST_MCUS else count
    return (slice(at, at + at_once) for at in range(0, count, at_once))


def _check_intervals(
    scan: CodedScan, intervals: list[bytes], lengths: list[int], is_lenient: bool
) -> None:
    tables = {key: _filled(table) for key, table in scan.tables.items()}
    filled = _decode_behind_ours(scan._replace(tables=tables), intervals, lengths)
    if not _have_all_bits(lengths, *filled).all():
        raise ValueError("a restart interval is too short")
    plain = _decode_eighth(scan, intervals, lengths, _OUR_STARTS[0])
    if _differ_in_own(lengths, filled[0], plain):
        raise ValueError("bits that are no code")
    last = intervals[-1].rstrip(b"\0")
    intervals[-1] = last + b"\0" * last.endswith(b"\xff")
    shorter = [_without_last_byte(part) for part in intervals]
    enough = _have_all_bits(lengths, *_decode_behind_ours(scan, shorter, lengths))
    if enough[:-1].any() or (enough[-1] and not is_lenient):
        raise ValueError("a restart interval is too long")


def without_spare_ones(file: bytes) -> bytes:
    """Remove the last byte of each restart interval that has all of its bits before, if it is ones.

    Behind its last block an interval is filled up with ones (F.1.2.3). Some encoders write eight of
    them where no bit is free, and libjpeg then warns of extraneous bytes. No code is all ones, so
    this byte is no block. Of other bytes that cannot be told: where some are missing, those behind
    them may be read as other and more blocks than they are, all that the interval should have, and
    then blocks are left over. So libjpeg's warning stands for these. The same goes for intervals of
    AC coefficients alone and of refinements, for which it is not known how many bits they need.

    Raises ValueError if there are not as many intervals as there should be.
    """
    pieces = [START]
    scans = read_scans(file)
    for marker, segment, coded in segments(file):
        pieces += (segment, _without_spare_ones(next(scans)) if marker == SCAN else coded)
    return b"".join(pieces)


def _without_spare_ones(scan: CodedScan) -> bytes:
    if scan.scan.first or scan.scan.high:
        return scan.coded
    intervals, lengths = scan.intervals(), scan.lengths()
    # libjpeg takes 17 ones for the end of a block, so several such bytes may stand for lost blocks.
    shorter = [part if part.endswith(3 * _ONES) else part.removesuffix(_ONES) for part in intervals]
    if shorter == intervals:
        return scan.coded
    for lot in _lots(scan, len(intervals)):
        enough = _have_all_bits(
            lengths[lot], *_decode_behind_ours(scan, shorter[lot], lengths[lot])
        )
        chosen = zip(intervals[lot], shorter[lot], enough, strict=True)
        intervals[lot] = [less if is_enough else part for part, less, is_enough in chosen]
    return _joined(intervals)


def _joined(intervals: list[bytes]) -> bytes:
    return b"".join(bytes((0xFF, 0xD0 + i % 8)) + part for i, part in enumerate(intervals, -1))[2:]


def _without_last_byte(part: bytes) -> bytes:
    return part[:-1].rstrip(b"\xff") if part.endswith(b"\xff\0") else part[:-1]


def _decode_behind_ours(
    scan: CodedScan, intervals: list[bytes], lengths: list[int]
) -> list[NDArray[np.uint8]]:
    """Decode to the pixels of each MCU, twice: behind scans of our own with different values."""
    return list(ordered_map(partial(_decode_eighth, scan, intervals, lengths), _OUR_STARTS))


def _have_all_bits(
    lengths: list[int], one: NDArray[np.uint8], other: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Whether each interval had the bits of all its MCUs, by the two results of decoding them.

    The MCU behind an interval is as our scan left it in both if the bits ran out before, and
    otherwise it is the same in both.
    """
    behind = np.arange(len(lengths)) * (lengths[0] + 1) + lengths
    same: NDArray[np.bool_] = (one[behind] == other[behind]).all(1)
    return same


def _differ_in_own(lengths: list[int], one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether any MCU of an interval has other pixels, apart from those behind the intervals."""
    own = np.arange(lengths[0] + 1) < np.array(lengths)[:, None]
    differ = (one != other).any(1)
    return bool(differ[: own.size].reshape(own.shape)[own].any())


def with_filled_tables(file: bytes) -> bytes:
    """The same file, in which libjpeg reads other values from the first bits on that are no code.

    It takes them for the symbol 0, mostly without a warning. Here they are codes of values of 15
    bits, as far as a table has room for them.
    """
    pieces = [START]
    for marker, segment, coded in segments(file):
        if marker == HUFFMAN:
            tables = _read_tables(segment[4:])
            pieces += (_segment(HUFFMAN, bytes((k,)) + _filled(t)) for k, t in tables.items())
        else:
            pieces += (segment, coded)
    return b"".join(pieces)


def _filled(table: bytes) -> bytes:
    """A Huffman table with as many more codes as there can be, all for values of 15 bits.

    No code is all ones (C.2), and there are 256 at most (B.2.4.2).
    """
    counts, symbols = list(table[:16]), table[16:]
    code = seen = 0
    for index, count in enumerate(table[:16]):
        code, seen = 2 * code + count, seen + count
        if seen == len(table) - 16:  # no code is longer
            more = max(0, min((2 << index) - 1 - code, 256 - sum(counts), 255 - count))
            counts[index] += more
            code += more
    return bytes(counts) + symbols + b"\x0f" * (sum(counts) - len(symbols))


def _decode_eighth(
    scan: CodedScan, intervals: list[bytes], lengths: list[int], start: bytes
) -> NDArray[np.uint8]:
    """Decode these intervals of so many MCUs, each with one more, behind a scan of our own.

    The result has one pixel for each 8x8 pixels: an array of shape (MCUs, samples).
    """
    factors = [*scan.factors, (1, 1), (1, 1)][: max(3, len(scan.factors))]  # Pillow knows no two
    across, down = map(max, zip(*factors, strict=True))
    step = lengths[0] + 1
    units = len(intervals) * step
    columns = max(_COLUMNS, -(-units * 8 * down // _MOST_PX))
    rows = -(-units // columns)
    # Three components with these ids are red, green and blue to libjpeg, so nothing is converted.
    parts = [bytes((b"RGBK"[i], h << 4 | v, 0)) for i, (h, v) in enumerate(factors)]
    frame = pack(">BHHB", 8, 8 * down * rows, 8 * across * columns, len(parts)) + b"".join(parts)
    tables = [bytes((key,)) + table for key, table in scan.tables.items()]
    ours = [bytes((kind << 4 | _OUR_TABLES,)) + codes for kind, codes in enumerate(_OUR_CODES)]
    last = 0 if scan.frame.progressive else 63
    numbers = [dc << 4 | ac for dc, ac in scan.scan.tables]
    chosen = b"".join(bytes((b"RGBK"[i], both)) for i, both in enumerate(numbers))
    first, down_first = factors[0]
    blocks = rows * columns * first * down_first
    file = (
        START,
        _segment(QUANTIZATION, _FLAT),
        _segment(_PROGRESSIVE if scan.frame.progressive else _EXTENDED, frame),
        _segment(HUFFMAN, b"".join(ours)),
        _segment(SCAN, bytes((1, ord("R"), _OUR_TABLES * 0x11, 0, last, 0))),
        start + bytes(2 + blocks // 4),
        _segment(HUFFMAN, b"".join(tables)),
        _segment(RESTART, pack(">H", step)) if len(intervals) > 1 else b"",
        _segment(SCAN, bytes((len(numbers),)) + chosen + bytes((0, last, 0))),
        _joined(intervals),
        END,
    )
    # Not by Image.open, whose limit of pixels is for files of strangers: this one is ours.
    with JpegImageFile(io.BytesIO(b"".join(file))) as image:
        image.draft(None, (-(-image.width // 8), -(-image.height // 8)))
        pixels: NDArray[np.uint8] = np.array(image)
    by_unit = pixels.reshape(rows, down, columns, across, -1).swapaxes(1, 2)
    return by_unit.reshape(rows * columns, -1)


def whole_rows(file: bytes) -> int:
    """How many rows of pixels, from the top, have all of their blocks in the last scan of a file.

    That is a `coded` file that is not progressive. Bytes of a trailer that can be read as blocks
    count as such. Raises nearly any builtin exception for a file with another fault.
    """
    *_, scan = read_scans(file)
    columns, _ = scan.size
    pixels_down = 8 * scan.frame.unit[1]
    if len(scan.scan.components) == 1:
        pixels_down //= scan.frame.components[scan.scan.components[0]].down
    return min(scan.frame.height, _whole_mcus(scan) // columns * pixels_down)


def _whole_mcus(scan: CodedScan) -> int:
    """How many MCUs have all of their bits, if none is missing but from there on."""
    lengths = scan.lengths()
    parts = _RESTARTS.split(scan.coded, len(lengths))[::2]
    intervals = [part.rstrip(b"\xff") for part in parts[: len(lengths)]]
    enough: list[bool] = []
    for lot in _lots(scan, len(intervals)):
        own = lengths[lot]
        one, other = _decode_behind_ours(scan, intervals[lot], own)
        enough.extend(_have_all_bits(own, one, other))
    if not all(enough[:-1]):
        raise ValueError("an interval before the last one is too short")
    is_changed = (one == other).all(1)[(len(own) - 1) * (own[0] + 1) :][: own[-1] + 1]
    # The last one that is changed had bits, but not all of them.
    last = own[-1] if enough[-1] else max(0, int(is_changed.argmin()) - 1)
    return sum(lengths[: len(intervals) - 1]) + last


def grey_files(file: bytes) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """The scans of AC coefficients of a progressive frame, and the height and width in pixels.

    Each file has those of one component, behind a scan in which all its DC coefficients are zero.
    """
    scans = [scan for scan in read_scans(file) if scan.scan.first]
    for component in sorted({scan.scan.components[0] for scan in scans}):
        own = [scan for scan in scans if scan.scan.components == (component,)]
        across, down = own[0].size
        frame = pack(">BHHB", 8, 8 * down, 8 * across, 1) + bytes((0, 0x11, 0))
        pieces = [
            START,
            _segment(QUANTIZATION, bytes((0, *[1] * 64))),
            _segment(_PROGRESSIVE, frame),
            _segment(HUFFMAN, bytes((_OUR_TABLES,)) + _OUR_CODES[0]),
            _segment(SCAN, bytes((1, 0, _OUR_TABLES << 4, 0, 0, 0))),
            bytes(-(-across * down // 8)),
        ]
        for scan in own:
            tables = [bytes((key,)) + table for key, table in scan.tables.items()]
            (_, number), *_ = scan.scan.tables
            band = (scan.scan.first, scan.scan.last, scan.scan.high << 4 | scan.scan.low)
            pieces += (
                _segment(HUFFMAN, b"".join(tables)) if tables else b"",
                _segment(RESTART, pack(">H", scan.interval)),
                _segment(SCAN, bytes((1, 0, number, *band))),
                scan.coded,
            )
        yield b"".join((*pieces, END)), (8 * down, 8 * across)


def _segment(marker: int, content: bytes) -> bytes:
    return pack(">BBH", 0xFF, marker, len(content) + 2) + content
