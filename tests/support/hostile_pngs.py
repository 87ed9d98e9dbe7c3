"""Malicious or misleading PNG files: bombs, false headers, and violations of the format."""

import struct
import zlib
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from PIL import ImageCms

from tests.support.image_cases import (
    CIRCLE,
    FLAT,
    LARGEST,
    MIB,
    SMALL,
    Case,
    in_bits,
    in_bytes,
    many_entries,
    number,
    numbers_as_orientation,
    refused,
    right,
)
from tests.support.image_files import (
    ADAM7,
    GREY,
    INDEXED,
    P3,
    RGB,
    RGB_ALPHA,
    Samples,
    chunk,
    eight_bits,
    iccp,
    idat,
    noise,
    png,
    png_file,
    saved,
    scanlines,
    tiff,
)

SIZE = (SMALL.shape[1], SMALL.shape[0])
PIXELS = idat(SMALL, 8)
HUGE = 2**31 - 1
BLACK = np.zeros_like(SMALL)
CLEAR = np.zeros((2048, 2048, 4), np.uint8)


def small(*before: bytes, after: bytes = b"") -> bytes:
    """SMALL with other chunks before and behind its pixels."""
    return png_file(SIZE, 8, RGB, *before, PIXELS, after)


def of_size(width: int, height: int) -> bytes:
    return png_file((width, height), 8, RGB, PIXELS)


# Bombs


def endless() -> bytes:
    """A stream of as many zeros as fit into the largest file: 24 GiB."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = stream.compress(bytes(64 * MIB)) + stream.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\x9c" + piece * (LARGEST // len(piece))


def empty_blocks() -> bytes:
    """As many blocks of deflate (RFC 1951, 3.2.7) as fit, each with codes of its own and no data.

    The codes: 18 and 1 have a bit each; 256 times no code, and one of a bit for the end and for
    one distance.
    """
    lengths = "".join(number(code in (18, 1), 3) for code in DEFLATE_ORDER[:18])
    zeros = "1" + number(138 - 11, 7) + "1" + number(118 - 11, 7)
    block = number(0, 1) + number(2, 2) + number(0, 10) + number(14, 4) + lengths + zeros + "000"
    piece = in_bytes(in_bits(block * 8))
    return piece * ((LARGEST - len(PIXELS)) // len(piece))


DEFLATE_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)


def slow_stream() -> bytes:
    stream = zlib.compress(scanlines(SMALL, 8))
    return png_file(SIZE, 8, RGB, chunk(b"IDAT", stream[:2] + empty_blocks() + stream[2:]))


def crumbs(stream: bytes, count: int) -> bytes:
    """The pixels, split into that many chunks."""
    ends = [len(stream) * i // count for i in range(count + 1)]
    return b"".join(chunk(b"IDAT", stream[i:j]) for i, j in pairwise(ends))


def behind_the_end() -> bytes:
    """A stream that ends after half its rows, and then 60,000 chunks of what nobody asks for."""
    short = chunk(b"IDAT", zlib.compress(scanlines(SMALL[:128], 8)))
    return png_file(SIZE, 8, RGB, short + chunk(b"IDAT", bytes(390)) * 60_000)


def interlaced() -> bytes:
    """The largest possible: 33 MB of rows in seven passes."""
    samples = np.zeros((2048, 2048, 4), np.uint16)
    passes = b"".join(scanlines(samples[y::dy, x::dx], 16) for x, y, dx, dy in ADAM7)
    stream = chunk(b"IDAT", zlib.compress(passes))
    return png_file((2048, 2048), 16, RGB_ALPHA, stream, interlaced=True)


def one_colour_transparent() -> bytes:
    """16 bits a sample, which are looked at one by one for the colour."""
    key = chunk(b"tRNS", struct.pack(">HHH", 0, 0, 0))
    return png(np.zeros((2048, 2048, 3), np.uint16), 16, RGB, before=key)


def compressed(kind: bytes, start: bytes) -> Callable[[], bytes]:
    """A chunk whose content is the endless stream."""
    return lambda: small(chunk(kind, start + endless()))


def frames(count: int) -> bytes:
    """An animation whose frames are all the first one."""
    control = struct.pack(">IIIIHHBB", *SIZE, 0, 0, 1, 1, 0, 0)
    frame = zlib.compress(bytes((1 + 3 * SIZE[0]) * SIZE[1]))
    parts = [chunk(b"acTL", struct.pack(">II", count, 0)), PIXELS]
    for i in range(count):
        parts.append(chunk(b"fcTL", struct.pack(">I", 2 * i) + control))
        parts.append(chunk(b"fdAT", struct.pack(">I", 2 * i + 1) + frame))
    return png_file(SIZE, 8, RGB, *parts)


# Damage, and rules that are broken


def altered(data: bytes, at: int) -> bytes:
    """The same file with one bit of it turned over; from the end if `at` is below 0."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def bad_checksum_of_pixels() -> bytes:
    """The chunk's, which is 16 bytes from the end; that of the stream inside is right."""
    return altered(small(), -16)


def bad_checksum_of_stream(apart: int = 0) -> bytes:
    """The last four bytes; some of them in a chunk of their own."""
    stream = altered(zlib.compress(scanlines(SMALL, 8)), -1)
    at = len(stream) - apart
    return png_file(SIZE, 8, RGB, chunk(b"IDAT", stream[:at]) + chunk(b"IDAT", stream[at:]))


def one_byte_short() -> bytes:
    stream = zlib.compress(scanlines(SMALL, 8)[:-1])
    return png_file(SIZE, 8, RGB, chunk(b"IDAT", stream))


def header(width: int, height: int, *, method: int = 0, interlace: int = 0) -> bytes:
    fields = struct.pack(">IIBBBBB", width, height, 8, RGB, method, 0, interlace)
    return chunk(b"IHDR", fields)


def with_header(start: bytes) -> bytes:
    """SMALL with another first chunk, or several."""
    return small()[:8] + start + small()[33:]


INDICES = noise(256, 256, 1, bits=2)
COLOURS = noise(4, 3)


def indexed(palette: bytes, *more: bytes) -> bytes:
    return png_file((256, 256), 8, INDEXED, chunk(b"PLTE", palette), *more, idat(INDICES, 8))


def beyond_its_depth(bits: int) -> Case:
    """11.3.1.1: of the transparent value only as many bits count as a sample has."""
    samples = noise(256, 256, 1, bits=bits)
    alpha = np.where(samples == 0, 0, 255)
    expected = np.dstack([eight_bits(samples, bits)] * 3 + [alpha])
    key = chunk(b"tRNS", struct.pack(">H", 2**bits))
    name = f"PNG of {bits} bits, tRNS with a bit more"
    return right(name, lambda: png(samples, bits, GREY, before=key), expected)


def transparent_of(bits: int) -> Case:
    """A palette as large as can be, each colour with an alpha of its own."""
    samples, colours = noise(256, 256, 1, bits=bits), noise(2**bits, 4)
    before = chunk(b"PLTE", colours[:, :3].tobytes()) + chunk(b"tRNS", colours[:, 3].tobytes())
    data = png(samples, bits, INDEXED, before=before)
    return right(f"PNG, palette with alpha, {bits} bits", lambda: data, colours[samples[..., 0]])


def of_16_bits(colour: int, channels: int, name: str) -> Case:
    samples = noise(256, 256, channels, bits=16)
    data = png(samples, 16, colour)
    eight = eight_bits(samples, 16)
    grey = [eight[..., :1]] * 3 if channels < 3 else [eight[..., :3]]
    expected: Samples = np.dstack(grey + ([eight[..., -1:]] if channels in (2, 4) else []))
    return right(f"PNG, 16 bits, {name}", lambda: data, expected)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
UNUSABLE = P3[:128] + bytes(300)
"""A profile without tags, of which only Little CMS finds out that it has none."""

ZIP = b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18)

CASES = (
    refused("PNG, IHDR of 2147483647x2147483647", lambda: of_size(HUGE, HUGE), "image_too_large"),
    refused("PNG, IHDR of 2048x2147483647", lambda: of_size(2048, HUGE), "image_too_large"),
    refused("PNG, IHDR of 65535x1", lambda: of_size(65_535, 1), "image_too_small"),
    refused("PNG, IHDR of 0x0", lambda: of_size(0, 0), "image_unreadable"),
    refused(
        "PNG, IDAT of 24 GiB",
        lambda: png_file(SIZE, 8, RGB, crumbs(endless(), 100)),
        "image_damaged",
    ),
    refused(
        "PNG, IDAT of 24 GiB, 2048x2048, 16 bits, RGBA",
        lambda: png_file((2048, 2048), 16, RGB_ALPHA, chunk(b"IDAT", endless())),
        "image_damaged",
    ),
    right("PNG, two million empty blocks of deflate", slow_stream, SMALL),
    right("PNG, interlaced, 2048x2048, 16 bits, RGBA", interlaced, CLEAR),
    right("PNG, one transparent colour, 2048x2048, 16 bits", one_colour_transparent, CLEAR),
    refused("PNG, iCCP of 24 GiB", compressed(b"iCCP", b"x\0\0"), "image_unreadable"),
    right("PNG, zTXt of 24 GiB", compressed(b"zTXt", b"x\0\0"), SMALL),
    right("PNG, iTXt of 24 GiB", compressed(b"iTXt", b"x\0\1\0\0\0"), SMALL),
    refused(
        "PNG, two million empty IDATs",
        lambda: small(chunk(b"IDAT") * (LARGEST // 12 - 20_000)),
        "image_unreadable",
    ),
    right(
        "PNG, 65,000 IDATs",
        lambda: png_file(
            (2048, 2048), 8, RGB, crumbs(zlib.compress(scanlines(FLAT, 8), 0), 65_000)
        ),
        FLAT,
    ),
    refused("PNG, 60,000 IDATs behind the stream's end", behind_the_end, "image_damaged"),
    right(
        "PNG, EXIF with 3 million fractions",
        lambda: small(chunk(b"eXIf", numbers_as_orientation(5, 8))),
        SMALL,
    ),
    right(
        "PNG, EXIF with 12 million numbers",
        lambda: small(after=chunk(b"eXIf", numbers_as_orientation(3, 2))),
        SMALL,
    ),
    right("PNG, EXIF with 65,000 entries", lambda: small(chunk(b"eXIf", many_entries())), SMALL),
    right("PNG, EXIF in a circle", lambda: small(chunk(b"eXIf", CIRCLE)), SMALL),
    refused("PNG, 30,000 frames", lambda: frames(30_000), "image_animated"),
    refused("PNG, two frames, of which it is none", lambda: frames(2), "image_animated"),
    refused("PNG, checksum of its header", lambda: altered(small(), 32), "image_unreadable"),
    refused("PNG, checksum of its IDAT", bad_checksum_of_pixels, "image_damaged"),
    refused("PNG, checksum of its stream", bad_checksum_of_stream, "image_damaged"),
    refused(
        "PNG, checksum of its stream, apart", lambda: bad_checksum_of_stream(4), "image_damaged"
    ),
    refused("PNG, a byte short", one_byte_short, "image_damaged"),
    refused(
        "PNG, two headers",
        lambda: with_header(header(*SIZE) + header(300, 300)),
        "image_unreadable",
    ),
    refused(
        "PNG, header behind a text",
        lambda: with_header(chunk(b"tEXt", b"x\0" + bytes(40)) + header(*SIZE)),
        "image_unreadable",
    ),
    refused(
        "PNG, unknown compression",
        lambda: with_header(header(*SIZE, method=1)),
        "image_unreadable",
    ),
    refused(
        "PNG, unknown interlacing",
        lambda: with_header(header(*SIZE, interlace=2)),
        "image_unreadable",
    ),
    refused("PNG, unknown chunk that counts", lambda: small(chunk(b"ABCD")), "image_unreadable"),
    right("PNG, unknown chunk that does not", lambda: small(chunk(b"abCD")), SMALL),
    right("PNG, two profiles", lambda: small(iccp(SRGB), iccp(P3)), SMALL, 1),
    right("PNG, 60,000 profiles", lambda: small(*[iccp(UNUSABLE)] * 60_000), SMALL),
    right("PNG, 60,000 gammas", lambda: small(chunk(b"gAMA", bytes(4)) * 60_000), SMALL),
    refused(
        "PNG, two palettes",
        lambda: indexed(COLOURS.tobytes(), chunk(b"PLTE", COLOURS[::-1].tobytes())),
        "image_unreadable",
    ),
    refused("PNG, palette of 10 bytes", lambda: indexed(bytes(10)), "image_unreadable"),
    refused("PNG, palette of 257 colours", lambda: indexed(bytes(771)), "image_unreadable"),
    right(
        "PNG, palette without its last colour",
        lambda: indexed(COLOURS[:3].tobytes()),
        np.vstack((COLOURS[:3], np.zeros((1, 3), np.uint8)))[INDICES[..., 0]],
    ),
    right(
        "PNG, tRNS of 257 alphas",
        lambda: indexed(COLOURS.tobytes(), chunk(b"tRNS", bytes(257))),
        COLOURS[INDICES[..., 0]],
    ),
    right("PNG, tRNS of a byte for RGB", lambda: small(chunk(b"tRNS", b"\0")), SMALL),
    right("PNG, tRNS behind the pixels", lambda: small(after=chunk(b"tRNS", bytes(6))), SMALL),
    *(beyond_its_depth(bits) for bits in (1, 2, 4, 8)),
    *(transparent_of(bits) for bits in (1, 2, 4, 8)),
    of_16_bits(GREY, 1, "grey"),
    of_16_bits(RGB, 3, "RGB"),
    of_16_bits(4, 2, "grey and alpha"),
    of_16_bits(RGB_ALPHA, 4, "RGBA"),
    right("PNG with a ZIP behind it", lambda: small() + ZIP, SMALL),
    right("PNG with a JPEG behind it", lambda: small() + saved(BLACK, "JPEG"), SMALL),
    right("PNG with a chunk behind its end", lambda: small() + chunk(b"eXIf", tiff(6)), SMALL),
)
