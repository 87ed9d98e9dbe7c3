"""Decodes the files of images in responses: each has to be exactly one complete image."""

import io
import re
import struct
import warnings
import zlib
from typing import Final

import numpy as np
from PIL import Image

from contract_tests.oracle.limits import MAX_OUTPUT_PX
from contract_tests.target.response import SIGNATURES

_END_OF_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Ends the data of a JPEG's scan: any marker but the restarts RST0 to RST7."""
_WITHOUT_LENGTH: Final = (0x01, *range(0xD0, 0xD9), 0xFF)
"""Markers without a length, and the byte that may fill the space before one (ITU T.81, B.1.1)."""


class Undecodable(ValueError):
    """A file that is not exactly one complete image of the named format; the message says why."""


def decode_image(file: bytes, encoding: str) -> Image.Image:
    """Decode all of a file that has to be a "png" or a "jpeg".

    Raises Undecodable if it is of another format, has a side of more than MAX_OUTPUT_PX pixels, is
    damaged or truncated, or has any bytes behind its end. Pillow alone would accept most of these.
    """
    if not file.startswith(SIGNATURES[encoding]):
        raise Undecodable(f"the file is not a {encoding}: it begins with {file[:8]!r}")
    try:
        end = _png_end(file) if encoding == "png" else _jpeg_end(file)
    except (struct.error, IndexError) as error:
        raise Undecodable(f"the {encoding} is cut off after {len(file)} bytes") from error
    if end != len(file):
        raise Undecodable(f"there are {len(file) - end} bytes behind the end of the {encoding}")
    try:
        with warnings.catch_warnings():
            # Pillow warns about images that are larger than any allowed one; checked below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(file), formats=(encoding.upper(),))
        if max(image.size) > MAX_OUTPUT_PX:
            raise Undecodable(f"the {encoding} has {image.width}x{image.height} pixels")  # noqa: TRY301
        image.load()
    except Undecodable:
        raise
    except Exception as error:  # Pillow raises nearly every builtin exception on a bad file
        raise Undecodable(f"the {encoding} cannot be decoded: {error}") from error
    return image


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Reduce 16-bit grey to its upper 8 bits; Pillow's own conversion would clip to the lower."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _png_end(file: bytes) -> int:
    """The offset behind the PNG's last chunk, all chunks being complete."""
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", file, at)
        # Pillow does not check all of them, and a flipped bit in a chunk is a damaged file.
        (checksum,) = struct.unpack_from(">I", file, at + 8 + length)
        if checksum != zlib.crc32(memoryview(file)[at + 4 : at + 8 + length]):
            raise Undecodable(f"the checksum of the PNG's chunk {kind!r} is wrong")
        at += 12 + length
    return at


def _jpeg_end(file: bytes) -> int:
    """The offset behind the first EOI marker (0xD9) that is not within a segment."""
    at = 2
    while (marker := file[at + 1]) != 0xD9:
        if file[at] != 0xFF:
            raise Undecodable(f"the JPEG has no marker where it needs one, at byte {at}")
        if marker in _WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", file, at + 2)
        at += 2 + length
        if marker == 0xDA:  # SOS: compressed data without a length follows
            found = _END_OF_SCAN.search(file, at)
            at = found.start() if found else len(file)
    return at + 2
