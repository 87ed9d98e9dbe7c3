"""Writes another size into the header of a PNG, JPEG or WebP."""

import struct
import zlib
from collections.abc import Iterator


def with_size(file: bytes, width: int, height: int) -> bytes:
    """The file with another size in its header, and a PNG's checksum to match."""
    for at, size in sizes(file, width, height):
        file = file[:at] + size + file[at + len(size) :]
    if file.startswith(b"\x89PNG"):
        # Bytes 12 to 28 are the type and the data of the IHDR chunk, and its checksum follows.
        return file[:29] + struct.pack(">I", zlib.crc32(file[12:29])) + file[33:]
    return file


def sizes(file: bytes, width: int, height: int) -> Iterator[tuple[int, bytes]]:
    """The offsets of sizes in the file, and the bytes that stand for this size there."""
    if file.startswith(b"\x89PNG"):
        yield 16, struct.pack(">II", width, height)
    elif file.startswith(b"RIFF"):
        yield from _webp_sizes(file, width, height)
    else:
        at = 2
        # SOF0 and SOF2, of baseline and progressive JPEGs (ITU T.81, B.2.2).
        while file[at + 1] not in (0xC0, 0xC2):
            at += 2 + int.from_bytes(file[at + 2 : at + 4])
        # Behind the marker, the length and the precision; the height comes first.
        yield at + 5, struct.pack(">HH", height, width)


def _webp_sizes(file: bytes, width: int, height: int) -> Iterator[tuple[int, bytes]]:
    at = 12
    while at < len(file):
        # The canvas and a lossless frame have their sizes less one, in 24 and 14 bits (RFC 9649); a
        # lossy frame has its size behind a tag and a start code (RFC 6386, 9.1).
        kind, length = struct.unpack_from("<4sI", file, at)
        if kind == b"VP8X":
            yield at + 12, (width - 1 | height - 1 << 24).to_bytes(6, "little")
        elif kind == b"VP8L":
            above = file[at + 12] & 0xF0  # the alpha flag and the version
            size = width - 1 | height - 1 << 14 | above << 24
            yield at + 9, size.to_bytes(4, "little")
        elif kind == b"VP8 ":
            yield at + 14, struct.pack("<HH", width, height)
        at += 8 + length + length % 2  # chunks are padded to an even length
