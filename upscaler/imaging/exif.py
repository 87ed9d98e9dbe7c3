"""Make the EXIF of an image fit for another size of it, upright and in sRGB.

EXIF is a TIFF structure (TIFF 6.0, section 2; Exif 2.32, section 4.6): directories of entries, and
the offsets of their values. Values keep their offsets here, since the notes of some makers have
offsets of their own. All bytes that no remaining entry refers to become zero, so that nothing else
is carried over: above all the thumbnail, which shows the image as it was.
"""

from struct import error as StructError  # noqa: N812  it is a class, which struct calls "error"
from struct import pack, pack_into, unpack_from
from typing import Final

MAX_EXIF_BYTES: Final = 65_527
"""What fits into a segment of a JPEG behind its length and the signature (Exif 2.32, 4.7.2)."""

_BYTE_ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">"}
_TYPE_BYTES: Final = {
    **dict.fromkeys((1, 2, 6, 7, 129), 1),
    **dict.fromkeys((3, 8), 2),
    **dict.fromkeys((4, 9, 11), 4),
    **dict.fromkeys((5, 10, 12), 8),
}
"""The size of a value by its type (TIFF 6.0, section 2); 129 is UTF-8 (Exif 3.0, 4.6.2)."""
_SHORT, _LONG = 3, 4
_ENTRY_BYTES: Final = 12
_DIRECTORIES: Final = frozenset((0x8769, 0x8825))
"""The tags in the first directory whose values are the offsets of others: Exif's and GPS's."""
_NEXT_BYTES: Final = 4
"""The offset of the next directory follows each one."""
_FIXED: Final = {0x0112: 1, 0xA001: 1}
"""Orientation becomes upright, and ColorSpace sRGB, as the result is."""
_DROPPED: Final = frozenset(
    (
        # How the old file stores its samples, and where (Exif 2.32, 4.6.4, A and B), and previews.
        *(0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x0111, 0x0115, 0x0116, 0x0117, 0x011C, 0x0142),
        *(0x0143, 0x0144, 0x0145, 0x014A, 0x0201, 0x0202, 0x0212, 0x0213, 0xA002, 0xA003),
        # What its samples mean (C), the profile, and the directory that may say Adobe RGB ("R03").
        *(0x012D, 0x013E, 0x013F, 0x0211, 0x0214, 0x8773, 0xA005, 0xA500),
        # XMP, IPTC and Photoshop's resources in a TIFF: these are carried over by themselves.
        *(0x02BC, 0x83BB, 0x8649),
    )
)
"""The tags that are wrong for the result."""


def adapt_exif(exif: bytes) -> bytes:
    """The EXIF (a TIFF structure) of an image, adapted for its upscaled result.

    The orientation becomes 1 and the colour space sRGB. The thumbnail and all tags that describe
    the old file's size, samples or colours are removed. Values that lie outside are left out.
    Raises ValueError for anything but a sound structure of at most MAX_EXIF_BYTES: for directories
    that are truncated, and for parts that overlap.
    """
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None or len(exif) > MAX_EXIF_BYTES - _NEXT_BYTES:
        raise ValueError("this is no EXIF")
    try:
        return _Adapter(exif, order).adapt()
    except StructError as error:
        raise ValueError("this EXIF is truncated") from error


class _Adapter:
    """Copies what is to be kept of `exif`, in that byte order, to the same offsets."""

    def __init__(self, exif: bytes, order: str) -> None:
        self._exif = exif
        self._order = order
        self._kept = bytearray(len(exif) + _NEXT_BYTES)
        self._parts: set[tuple[int, int]] = set()

    def adapt(self) -> bytes:
        self._copy(0, 8)
        (first,) = unpack_from(f"{self._order}I", self._exif, 4)
        self._copy_directory(first, set(_DIRECTORIES))
        end = 0
        for start, stop in sorted(self._parts):
            if start < end:
                raise ValueError("parts of this EXIF overlap")
            end = stop
        return bytes(self._kept[: end + _NEXT_BYTES])

    def _copy_directory(self, at: int, pointers: set[int]) -> None:
        """Copy a directory and its values; `pointers` are the tags of directories in it."""
        order = self._order
        (count,) = unpack_from(f"{order}H", self._exif, at)
        entries_end = at + 2 + count * _ENTRY_BYTES
        # The first directory is followed by that of the thumbnail, the others by nothing, which not
        # all programs write.
        stop = entries_end + (_NEXT_BYTES if pointers else 0)
        self._copy(at, stop)
        entries = []
        for entry_at in range(at + 2, entries_end, _ENTRY_BYTES):
            entry = bytearray(self._exif[entry_at : entry_at + _ENTRY_BYTES])
            tag, kind, values, offset = unpack_from(f"{order}HHII", entry)
            if tag in _FIXED:
                pack_into(f"{order}HIHH", entry, 2, _SHORT, 1, _FIXED[tag], 0)
            elif tag in pointers:
                pointers.remove(tag)  # once, or hostile files could cost much time
                self._copy_directory(offset, set())
                pack_into(f"{order}HI", entry, 2, _LONG, 1)
            elif tag in _DROPPED | _DIRECTORIES or not self._copy_value(kind, values, offset):
                continue
            entries.append(entry)
        # Those that are left move up, and zeros follow: there is no next directory.
        content = pack(f"{order}H", len(entries)) + b"".join(entries)
        self._kept[at:stop] = content.ljust(stop - at, b"\0")

    def _copy_value(self, kind: int, values: int, offset: int) -> bool:
        """Copy a value that does not fit into its entry; return False if it is none."""
        size = _TYPE_BYTES.get(kind, 0) * values
        if size > 4 and offset + size <= len(self._exif):
            self._copy(offset, offset + size)
            return True
        return 0 < size <= 4

    def _copy(self, start: int, stop: int) -> None:
        if (start, stop) not in self._parts:
            self._parts.add((start, stop))
            self._kept[start:stop] = self._exif[start:stop]
