"""Malicious colour profiles: very long programs, and very large tables."""

import struct

import numpy as np

from tests.support.image_files import D50, P3, profile, xyz


def program(elements: int) -> bytes:
    """A profile of Display P3 with a program that does nothing, many times."""
    matrix = struct.pack(">12f", 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    element = b"matf\0\0\0\0" + struct.pack(">HH", 3, 3) + matrix
    table = struct.pack(">II", 16 + 8 * elements, len(element)) * elements
    code = b"mpet\0\0\0\0" + struct.pack(">HHI", 3, 3, elements) + table + element
    return with_tag(P3, b"D2B0", code)


def with_tag(icc: bytes, name: bytes, value: bytes) -> bytes:
    """A profile with one more tag."""
    (count,) = struct.unpack_from(">I", icc, 128)
    table, body = icc[132 : 132 + 12 * count], icc[132 + 12 * count :]
    old = (struct.unpack_from(">4sII", table, 12 * i) for i in range(count))
    moved = b"".join(struct.pack(">4sII", tag, at + 12, size) for tag, at, size in old)
    moved += name + struct.pack(">II", len(icc) + 12, len(value))
    whole = struct.pack(">I", len(icc) + 12 + len(value)) + icc[4:128]
    return whole + struct.pack(">I", count + 1) + moved + body + value


def largest_table() -> bytes:
    """A profile with as large a table as 255 parts hold, which makes every colour black."""
    side = 139
    curves = np.linspace(0, 65_535, 4096).astype(">u2").tobytes() * 3
    black = np.broadcast_to(np.array([0, 0x8000, 0x8000], ">u2"), (side**3, 3)).tobytes()
    matrix = struct.pack(">9i", *np.eye(3, dtype=int).ravel() * 65_536)
    table = b"mft2\0\0\0\0" + bytes([3, 3, side, 0]) + matrix + struct.pack(">HH", 4096, 4096)
    tags = {b"wtpt": xyz(*D50), b"A2B0": table + curves + black + curves}
    return profile(b"RGB ", tags, connection=b"Lab ")
