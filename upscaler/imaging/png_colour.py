"""Find out what colours the samples of a PNG mean, and convert them to sRGB.

Up to five kinds of chunks say it. The first valid one counts, in the order cICP, iCCP, sRGB, gAMA
(W3C's PNG specification, third edition, 4.3); an invalid one is ignored (13.1).
"""

from collections.abc import Callable, Iterable
from functools import partial
from struct import unpack
from typing import Final

import numpy as np
from numpy.typing import NDArray

from upscaler.errors import ImageError
from upscaler.imaging._zlib import ZlibError, zlib
from upscaler.imaging.colour import ProfileConversion
from upscaler.imaging.colour_spaces import (
    BT_709,
    HLG_TRANSFER,
    PQ_TRANSFER,
    PRIMARIES,
    SRGB_TRANSFER,
    TRANSFERS,
    Chromaticities,
    Samples,
    SpaceConversion,
    matrix_to_srgb,
    power,
)
from upscaler.imaging.png_chunks import Header, chunks

Conversion = Callable[[Samples], NDArray[np.uint8]]
"""From uint8 or uint16 samples of shape (rows, columns, 1) for grey or (rows, columns, 3) for RGB
to uint8 in sRGB, of shape (rows, columns, 1 or 3)."""

MAX_PROFILE_BYTES: Final = 255 * 65_519
"""The most that the profiles of a file may have: as in a JPEG, 255 parts (ICC.1:2022, annex B)."""
GAMMAS: Final = range(16, 625_000_001)
"""The values of gAMA that are used, the same as by libpng. 45455 is the inverse of 2.2."""
SRGB_GAMMAS: Final = range(43_183, 47_728)
"""Those within 5% of 45455. Beside sRGB's primaries, or none, they mean sRGB, whose curve is not a
power: many programs write what 11.3.2.5 recommends beside sRGB, and leave sRGB out. libpng takes
them so, and browsers where there is no cHRM."""
SRGB_TOLERANCE: Final = 0.01
"""By how much x and y of sRGB's primaries and white may be off, as in libpng."""


def conversion_to_srgb(data: bytes, header: Header) -> Conversion | None:
    """The conversion to sRGB of the samples of a `strip_chunks` file; None if they are sRGB.

    Samples of up to 8 bits are to be scaled to 8 before; those of 16 keep their depth. Raises
    ImageError for HDR (PQ and HLG), and for profiles of more than MAX_PROFILE_BYTES.
    """
    contents: dict[bytes, list[memoryview]] = {}
    for kind, content, _ in chunks(data):
        contents.setdefault(kind, []).append(content)
    parsers: dict[bytes, Callable[[memoryview, Header], Conversion | None]] = {
        b"cICP": _by_cicp,
        b"iCCP": _by_profile,
        b"sRGB": _by_intent,
        b"gAMA": partial(_by_gamma, space=_chromaticities(contents.get(b"cHRM", ()))),
    }
    for kind, parse in parsers.items():
        for content in contents.get(kind, ()):
            try:
                return parse(content, header)
            except ValueError:
                continue
    return None


# Each of these takes the content of a chunk, and raises ValueError for an invalid one. None means
# that the samples are sRGB already.


def _by_cicp(content: memoryview, header: Header) -> Conversion | None:
    """By code points of ITU-T H.273 (11.3.2.6)."""
    primaries, transfer, matrix, full_range = unpack(">4B", _of_length(content, 4))
    # PNG is RGB, so the matrix of luma and chroma is the one of H.273 for that: 0.
    if matrix or full_range > 1 or primaries not in PRIMARIES:
        raise ValueError("no colour space of RGB")
    if transfer in (PQ_TRANSFER, HLG_TRANSFER):
        name = "PQ" if transfer == PQ_TRANSFER else "HLG"
        msg = f"this PNG is HDR ({name}), which is not read: convert it to SDR first"
        raise ImageError(msg, "image_unreadable")
    if transfer not in TRANSFERS:
        raise ValueError("no known curve")
    if full_range and transfer == SRGB_TRANSFER and PRIMARIES[primaries] == BT_709:
        return None
    curves, space = [TRANSFERS[transfer]] * header.colours, PRIMARIES[primaries]
    narrow = not full_range
    return SpaceConversion(header.scaled_depth, curves, matrix_to_srgb(space), narrow_range=narrow)


def _by_profile(content: memoryview, header: Header) -> Conversion:
    """By an ICC profile: a name of 1 to 79 bytes, zero, the method 0, a stream (11.3.2.3)."""
    name, _, rest = bytes(content[: 79 + 2]).partition(b"\0")
    if not name or rest[:1] != b"\0":
        raise ValueError("no name, or another method")
    stream = zlib.decompressobj()
    try:
        profile = stream.decompress(content[len(name) + 2 :], MAX_PROFILE_BYTES + 1)
    except ZlibError as error:
        raise ValueError("the stream is damaged") from error
    if len(profile) > MAX_PROFILE_BYTES:
        msg = "the colour profile of this PNG is too large: remove it, or convert it to sRGB first"
        raise ImageError(msg, "image_unreadable")
    if not stream.eof:
        raise ValueError("the stream does not end")
    return ProfileConversion(profile, "RGB" if header.colours == 3 else "L", header.scaled_depth)


def _by_intent(content: memoryview, header: Header) -> None:  # noqa: ARG001  as the others
    """By the chunk sRGB, which has one of four rendering intents (11.3.2.5)."""
    if _of_length(content, 1)[0] > 3:
        raise ValueError("no such intent")


def _by_gamma(
    content: memoryview, header: Header, *, space: Chromaticities | None
) -> Conversion | None:
    """By an exponent (11.3.2.2), and the primaries of cHRM if there are any, or else sRGB's.

    As in browsers, cHRM alone has no effect.
    """
    (inverse,) = unpack(">I", _of_length(content, 4))
    if inverse not in GAMMAS:
        raise ValueError("no exponent that could be meant")
    primaries = BT_709 if space is None else space
    is_srgb = np.allclose(np.array(primaries), np.array(BT_709), rtol=0, atol=SRGB_TOLERANCE)
    if is_srgb and inverse in SRGB_GAMMAS:
        return None
    curves = [power(100_000 / inverse)] * header.colours
    return SpaceConversion(header.scaled_depth, curves, matrix_to_srgb(primaries))


def _chromaticities(contents: Iterable[memoryview]) -> Chromaticities | None:
    """The first valid cHRM, which has x and y of the white, red, green and blue (11.3.2.1)."""
    for content in contents:
        try:
            numbers = [number / 100_000 for number in unpack(">8I", _of_length(content, 32))]
            space = Chromaticities(*zip(numbers[::2], numbers[1::2], strict=True))
            matrix_to_srgb(space)
        except ValueError:
            continue
        return space
    return None


def _of_length(content: memoryview, length: int) -> memoryview:
    if len(content) != length:
        raise ValueError(f"there should be {length} bytes")
    return content
