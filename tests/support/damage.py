"""Files that were damaged: ranges of them, or whole units, missing, changed, swapped or repeated.

A unit is what a format is made of: a chunk of a PNG or a WebP; a segment, a restart interval or a
scan of a JPEG.
"""

import re
import struct
from collections.abc import Callable
from itertools import pairwise
from random import Random

Range = tuple[int, int]
"""From the first byte to the one behind the last."""

LONGEST = 400
"""Of a range that is changed: longer than most intervals, and far shorter than a file."""


def damaged(data: bytes, random: Random) -> bytes:
    """A file that was damaged once or twice."""
    for _ in range(random.choice((1, 1, 1, 2))):
        data = random.choice(DAMAGES)(data, random) if data else data
    return data


def _range(data: bytes, random: Random) -> Range:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.choice((1, 2, 4, random.randint(1, LONGEST))))


def _unit(data: bytes, random: Random) -> Range:
    found = units(data)
    return random.choice(found) if found else _range(data, random)


def _place(data: bytes, random: Random) -> Range:
    return random.choice((_range, _unit))(data, random)


def remove(data: bytes, random: Random) -> bytes:
    start, end = _place(data, random)
    return data[:start] + data[end:]


def repeat(data: bytes, random: Random) -> bytes:
    start, end = _place(data, random)
    return data[:end] + data[start:]


def swap(data: bytes, random: Random) -> bytes:
    (first, second), (third, fourth) = sorted((_place(data, random), _place(data, random)))
    third, fourth = max(third, second), max(fourth, second)
    moved = data[third:fourth] + data[second:third] + data[first:second]
    return data[:first] + moved + data[fourth:]


def flip(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 3))):
        changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def overwrite(data: bytes, random: Random) -> bytes:
    start, end = _range(data, random)
    value = random.choice((0, 0xFF, None))
    new = random.randbytes(end - start) if value is None else bytes([value]) * (end - start)
    return data[:start] + new + data[end:]


def cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data))]


def cut_and_close(data: bytes, random: Random) -> bytes:
    """Cut a JPEG off, and end it with the marker of a complete one."""
    left = cut(data, random)
    return left.removesuffix(b"\xff") + b"\xff\xd9" if data[:2] == b"\xff\xd8" else left


def break_off(data: bytes, random: Random) -> bytes:
    """A JPEG that gets a warning and then an error from libjpeg: surplus bytes, an invalid scan."""
    if data[:2] != b"\xff\xd8":
        return flip(data, random)
    scans = [found.start() for found in re.finditer(rb"\xff(?:\xda|\xd9)", data)]
    at = random.choice(scans or [len(data)])
    spare = random.choice((b"", b"\x11")) * 40
    bad = b"\xff\xda\x00\x08\x01\x01\x00" + random.choice((b"\x21\x04\x00", b"\x01\x3f\x21"))
    return data[:at] + spare + bad + random.randbytes(8).replace(b"\xff", b"") + data[at:]


DAMAGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    remove,
    repeat,
    swap,
    flip,
    overwrite,
    cut,
    cut_and_close,
    break_off,
)


def units(data: bytes) -> list[Range]:
    """The units of a file, or of what is left of it; none of what is no PNG, JPEG or WebP."""
    if data.startswith(b"\x89PNG"):
        return _chunks(data, 8, ">I4x", 12, 1)
    if data.startswith(b"RIFF"):
        return _chunks(data, 12, "<4xI", 8, 2)
    if data.startswith(b"\xff\xd8"):
        return _segments(data)
    return []


def _chunks(data: bytes, at: int, head: str, around: int, even: int) -> list[Range]:
    found = []
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(head, data, at)
        end = at + around + length + length % even
        found.append((at, min(end, len(data))))
        at = end
    return found


def _segments(data: bytes) -> list[Range]:
    """Segments with what follows them, and apart from those each interval with its marker."""
    marks = re.compile(rb"\xff[\x01-\xfe]").finditer(data, 2)
    return list(pairwise([*(mark.start() for mark in marks), len(data)]))
