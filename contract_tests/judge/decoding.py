"""The files of pictures that came back, decoded: each has to be one whole picture, and no more."""

import io
import re
import struct
import warnings
import zlib
from typing import Final

import numpy as np
from PIL import Image

from contract_tests.oracle.oracle import MAX_OUTPUT_PX
from contract_tests.target.response import SIGNATURES

_AFTER_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""What ends the data of a scan: any marker but those of restarts."""
_ALONE: Final = (0x01, *range(0xD0, 0xD9), 0xFF)
"""Markers without a length, and the byte that may fill the space before one."""


class Undecodable(ValueError):
    """A file that is not one whole picture of the named format. The message says why."""


def decode_image(file: bytes, encoding: str) -> Image.Image:
    """The picture in a file that has to be a "png" or a "jpeg", all of it decoded.

    Raises Undecodable, with a sentence about the file, if it is of another format, has a side of
    more than 8192 pixels, is damaged or not all there, or has anything behind its end.
    """
    if not file.startswith(SIGNATURES[encoding]):
        raise Undecodable(f"it is no {encoding}: it begins with {file[:8]!r}")
    try:
        end = _png_end(file) if encoding == "png" else _jpeg_end(file)
    except (struct.error, IndexError) as error:
        raise Undecodable(f"this {encoding} is cut off after {len(file)} bytes") from error
    if end != len(file):
        raise Undecodable(f"{len(file) - end} bytes are behind the end of this {encoding}")
    try:
        return _loaded(file, encoding)
    except Undecodable:
        raise
    except Exception as error:  # Pillow raises nearly every builtin exception on a bad file
        raise Undecodable(f"this {encoding} cannot be decoded: {error}") from error


def to_eight_bits(image: Image.Image) -> Image.Image:
    """The same, if it has 16 bits of grey, by the upper ones: Pillow would take the lower."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _loaded(file: bytes, encoding: str) -> Image.Image:
    with warnings.catch_warnings():
        # Those of Pillow about a picture that is larger than any of ours.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(file), formats=(encoding.upper(),))
    if max(image.size) > MAX_OUTPUT_PX:
        raise Undecodable(f"it has {image.width} x {image.height} pixels")
    image.load()
    return image


def _png_end(file: bytes) -> int:
    """Where the PNG ends, all of its chunks being whole."""
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", file, at)
        (checksum,) = struct.unpack_from(">I", file, at + 8 + length)
        if checksum != zlib.crc32(memoryview(file)[at + 4 : at + 8 + length]):
            raise Undecodable(f"the checksum of the PNG's chunk {kind!r} is wrong")
        at += 12 + length
    return at


def _jpeg_end(file: bytes) -> int:
    """Where the JPEG ends: behind the first marker EOI that is not within a segment."""
    at = 2
    while (marker := file[at + 1]) != 0xD9:
        if file[at] != 0xFF:
            raise Undecodable(f"no marker is where the JPEG needs one, at byte {at}")
        if marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", file, at + 2)
        at += 2 + length
        if marker == 0xDA:
            found = _AFTER_SCAN.search(file, at)
            at = found.start() if found else len(file)
    return at + 2
