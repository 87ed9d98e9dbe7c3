"""Write JPEG files, strip by strip.

The strips are encoded independently, each as a JPEG of its own. Their coded pixels are joined to a
single scan with restart markers between them (ITU-T T.81, B.2.1 and E.1.4).
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
from upscaler.imaging.metadata import NO_METADATA, Metadata
from upscaler.imaging.parallel import ordered_map
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.strips import Pieces, Shape, rechunk, rows_in_strip

BLOCK_PX: Final = 8
"""A JPEG block has this many samples on each side."""
SOF0, DRI, SOS, RST0 = 0xC0, 0xDD, 0xDA, 0xD0
"""JPEG markers: frame, restart interval, scan, and the first of eight restart markers."""
EOI: Final = b"\xff\xd9"


class JpegOptions(NamedTuple):
    """How a JPEG is encoded: libjpeg's quality, 1 to 100, and the chroma subsampling.

    `fast` selects libjpeg's fast DCT, whose rounding is visible at high quality.
    """

    quality: int
    sampling: Literal["4:4:4", "4:2:0"]
    fast: bool

    @property
    def unit_px(self) -> int:
        """The pixels on each side of a minimum coded unit (MCU; ITU-T T.81, A.2.4)."""
        return BLOCK_PX if self.sampling == "4:4:4" else 2 * BLOCK_PX


DEFAULT_JPEG: Final = JpegOptions(95, "4:4:4", fast=False)
SMALL: Final = JpegOptions(75, "4:2:0", fast=True)
"""Encodes faster, to a much smaller file. Quality and subsampling are most programs' default."""


def write_jpeg(
    strips: Iterable[Pixels],
    shape: Shape,
    style: JpegOptions,
    metadata: Metadata = NO_METADATA,
) -> Pieces:
    """Yield the pieces of a JPEG of `shape`, whose rows come in `strips`; see `encode_strips`.

    At a restart marker the decoder's state is reset, so each strip can be encoded as if it were the
    first. The strips' own files all have the same tables, and nothing after the scan.
    """
    height, width, channels = shape
    # In MCUs: restart intervals are counted in them, so a strip has whole ones.
    across = -(-width // style.unit_px)
    down = rows_in_strip(across * style.unit_px**2 * channels)
    chunks = rechunk(strips, shape, down * style.unit_px)
    with closing(ordered_map(partial(_encode_strip, style), chunks)) as files:
        for index, file in enumerate(files):
            scan = _segment(file, SOS)
            samples = scan + 2 + _length(file, scan)
            before = bytes((0xFF, RST0 + (index - 1) % 8))
            if index == 0:
                # The first file's headers, with the height of the whole image in the frame.
                frame = _segment(file, SOF0)
                start = 4 + _length(file, 2)  # behind the JFIF segment, which must be the first
                before = file[:start] + metadata.jpeg_segments()
                before += file[start : frame + 5] + pack(">H", height) + file[frame + 7 : scan]
                if height > down * style.unit_px:  # more than one strip
                    before += pack(">BBHH", 0xFF, DRI, 4, across * down)
                before += file[scan:samples]
            yield before + file[samples : -len(EOI)]
    yield EOI


def _encode_strip(style: JpegOptions, chunk: Pixels) -> bytes:
    """Encode all rows of a chunk but the first as a JPEG file."""
    pixels = chunk[1:]
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
    """A file in memory; on Linux one with a file descriptor.

    While Pillow encodes into a file with a descriptor, it releases the GIL, so that other strips
    are encoded at the same time.
    """
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("strip"), "w+b")
    return io.BytesIO()


def _segment(jpeg: bytes, marker: int) -> int:
    """The offset of the first segment with `marker` (ITU-T T.81, B.1.1.4)."""
    at = 2  # after SOI
    while jpeg[at + 1] != marker:
        at += 2 + _length(jpeg, at)
    return at


def _length(jpeg: bytes, segment: int) -> int:
    """The length of the segment at an offset, without the two bytes of its marker."""
    return int.from_bytes(jpeg[segment + 2 : segment + 4])
