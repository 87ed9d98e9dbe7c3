"""JPEG files, strip by strip.

A JPEG is one scan of strips that were encoded apart, with the restart markers between them for
which the standard provides (ITU-T T.81, B.2.1 and E.1.4).
"""

import io
import os
from collections.abc import Iterable
from contextlib import closing
from functools import partial
from struct import pack
from typing import BinaryIO, Final, Literal, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from upscaler.imaging.colour import flatten
from upscaler.imaging.parallel import ordered_map
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.strips import Pieces, Shape, rechunk, rows_in_strip

BLOCK_PX: Final = 8
"""A block of JPEG's has this many samples on each side."""
SOF0, DRI, SOS, RST0 = 0xC0, 0xDD, 0xDA, 0xD0
"""JPEG's markers for the frame, the restart interval, the scan and the first of eight restarts."""
EOI: Final = b"\xff\xd9"


class JpegOptions(NamedTuple):
    """How a JPEG is encoded: with libjpeg's quality, 1 to 100, and chroma at which resolution.

    `fast` is by libjpeg's cosine transform of that name, whose rounding is seen at high quality.
    """

    quality: int
    sampling: Literal["4:4:4", "4:2:0"]
    fast: bool

    @property
    def unit_px(self) -> int:
        """How many pixels a side its smallest unit has (T.81, A.2.4)."""
        return BLOCK_PX if self.sampling == "4:4:4" else 2 * BLOCK_PX


DEFAULT_JPEG: Final = JpegOptions(95, "4:4:4", fast=False)
SMALL: Final = JpegOptions(75, "4:2:0", fast=True)
"""Sooner done than the best, and a far smaller file: most programs' default."""


def write_jpeg(strips: Iterable[Pixels], shape: Shape, style: JpegOptions) -> Pieces:
    """A scan of lots with a restart after each, so that each is encoded as if it were the first.

    The files that they are taken from have the same tables, and nothing behind the scan.
    """
    height, width, channels = shape
    across = -(-width // style.unit_px)
    down = rows_in_strip(across * style.unit_px**2 * channels)
    lots = rechunk(strips, shape, down * style.unit_px)
    with closing(ordered_map(partial(_jpeg_of_lot, style), lots)) as files:
        for index, file in enumerate(files):
            scan = _segment(file, SOS)
            samples = scan + 2 + _length(file, scan)
            before = bytes((0xFF, RST0 + (index - 1) % 8))
            if index == 0:
                frame = _segment(file, SOF0)
                before = file[: frame + 5] + pack(">H", height) + file[frame + 7 : scan]
                if height > down * style.unit_px:
                    before += pack(">BBHH", 0xFF, DRI, 4, across * down)
                before += file[scan:samples]
            yield before + file[samples : -len(EOI)]
    yield EOI


def _jpeg_of_lot(style: JpegOptions, lot: Pixels) -> bytes:
    """A JPEG of all rows but the first."""
    pixels = lot[1:]
    if style.fast:
        pixels = pixels if pixels.shape[2] == 3 else np.asarray(flatten(Image.fromarray(pixels)))
        sampling = style.sampling.replace(":", "")
        return bytes(simplejpeg.encode_jpeg(pixels, style.quality, "RGB", sampling, fastdct=True))
    with _scratch_file() as file:
        image = flatten(Image.fromarray(pixels))
        image.save(file, "JPEG", quality=style.quality, subsampling=style.sampling)
        file.seek(0)
        return file.read()


def _scratch_file() -> BinaryIO:
    """A file in memory; where it can be, one of the system's own.

    While Pillow writes into one of those, it lets go of Python's lock, and other strips can be
    encoded at the same time.
    """
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("strip"), "w+b")
    return io.BytesIO()


def _segment(jpeg: bytes, marker: int) -> int:
    """Where the first segment with `marker` begins (ITU-T T.81, B.1.1.4)."""
    at = 2
    while jpeg[at + 1] != marker:
        at += 2 + _length(jpeg, at)
    return at


def _length(jpeg: bytes, segment: int) -> int:
    return int.from_bytes(jpeg[segment + 2 : segment + 4])
