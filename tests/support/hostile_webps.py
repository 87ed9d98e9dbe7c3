"""Malicious or misleading WebP files: bombs, false headers, and violations of the format."""

import struct
from dataclasses import replace

import numpy as np

from tests.support.image_cases import (
    FLAT,
    LARGEST,
    SMALL,
    WEBP_MEMORY,
    in_bits,
    in_bytes,
    number,
    numbers_as_orientation,
    refused,
    right,
)
from tests.support.image_files import riff, saved, webp_of_size

ALPHA, EXIF, ANIMATED = 0x10, 0x08, 0x02
"""Flags of a VP8X chunk (RFC 9649, 2.7.1)."""
RED = np.broadcast_to(np.array([200, 10, 30], np.uint8), (256, 256, 3))
"""What `webp_of_size` makes."""
IN_A_CORNER = np.zeros((256, 256, 4), np.uint8)
"""RED with the rest of the canvas transparent."""
IN_A_CORNER[:16, :16] = (200, 10, 30, 255)


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def extended(flags: int, width: int, height: int, *chunks: bytes) -> bytes:
    """A file with a canvas of that size."""
    canvas = struct.pack("<I", flags) + bits24(width - 1) + bits24(height - 1)
    return riff(chunk(b"VP8X", canvas) + b"".join(chunks))


def bits24(value: int) -> bytes:
    return struct.pack("<I", value)[:3]


def pixels(width: int, height: int) -> bytes:
    """The chunk of a lossless picture of one colour."""
    return webp_of_size((width, height))[12:]


def frames(count: int, width: int, height: int) -> bytes:
    """An animation on a canvas of 256x256."""
    each = frame(width, height, pixels(width, height))
    return extended(ANIMATED, 256, 256, chunk(b"ANIM", bytes(6)), each * count)


def frame(width: int, height: int, content: bytes) -> bytes:
    place = bytes(6) + bits24(width - 1) + bits24(height - 1) + bytes(4)
    return chunk(b"ANMF", place + content)


def says_more() -> bytes:
    """A frame of 16x16 whose header claims to cover the canvas."""
    small = frame(256, 256, pixels(16, 16))
    return extended(ANIMATED, 256, 256, chunk(b"ANIM", bytes(6)), small)


def empty_first() -> bytes:
    """A frame that covers the canvas, and has no pixels, and then one that does not."""
    both = frame(256, 256, b""), frame(16, 16, pixels(16, 16))
    return extended(ANIMATED, 256, 256, chunk(b"ANIM", bytes(6)), *both)


def with_chunk(kind: bytes, content: bytes, flags: int = 0) -> bytes:
    before, after = (chunk(kind, content), b"") if kind == b"ICCP" else (b"", chunk(kind, content))
    return extended(flags, 256, 256, before, pixels(256, 256), after)


def of_length(length: int) -> bytes:
    """A file whose header lies about its length."""
    data = webp_of_size((256, 256))
    return data[:4] + struct.pack("<I", length) + data[8:]


# Codes without number (RFC 9649, 3.6 and 3.7)

CODE_ORDER = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
SYMBOLS = (1, 1, 1, 4, 6, 10, 16, 15, 23, 33, 7, 1, 138)
LENGTHS = dict(zip((1, 2, *range(5, 16)), SYMBOLS, strict=True))
"""How many of 256 symbols have codes of so many bits: they make the largest tables that were found
in libwebp, of 596 entries. The first symbol has the code 0."""


def one_symbol(symbol: int) -> str:
    """A code without bits."""
    return number(1, 1) + number(0, 1) + number(1, 1) + number(symbol, 8)


def lengths_of_lengths(used: tuple[int, ...], bits: int) -> str:
    """The code that other codes' lengths are written in, all its symbols of the same length."""
    count = max(map(CODE_ORDER.index, used)) + 1
    each = (number(bits if code in used else 0, 3) for code in CODE_ORDER[:count])
    return number(0, 1) + number(count - 4, 4) + "".join(each)


def eight_bits(alphabet: int) -> str:
    """A code for the first 256 symbols, each its own number."""
    cut = number(1, 1) + number(3, 3) + number(254, 8) if alphabet > 256 else number(0, 1)
    return lengths_of_lengths((0, 8), 1) + cut + "1" * 256


def large_tables(alphabet: int) -> str:
    """A code of LENGTHS: each length once, and then that it is repeated (16), 3 to 6 times."""
    used = (*LENGTHS, 16, 0, 3)
    code = {symbol: format(i, "04b") for i, symbol in enumerate(sorted(used))}
    written = []
    for length, count in LENGTHS.items():
        again, rest = divmod(count - 1, 6)
        written += [code[length]] * (1 + (rest if rest < 3 else 0))
        written += [code[16] + number(3, 2)] * again
        written += [code[16] + number(rest - 3, 2)] * (rest >= 3)
    cut = number(0, 1)
    if alphabet > 256:
        cut = number(1, 1) + number(3, 3) + number(len(written) - 2, 8)
    return lengths_of_lengths(used, 4) + cut + "".join(written)


def groups(count: int) -> bytes:
    """A lossless picture, 2048x2048 and black, in tiles of 4x4 with `count` groups of codes."""
    start = number(0x2F, 8) + number(2047, 14) * 2 + number(0, 1 + 3)
    start += number(0, 1) + number(0, 1) + number(1, 1) + number(0, 3)  # nothing but groups, of 4x4
    start += number(0, 1) + eight_bits(280) + eight_bits(256)
    start += one_symbol(0) + one_symbol(255) + one_symbol(0)
    group = np.arange(512 * 512) % count
    of_tiles = np.unpackbits(
        np.dstack([group & 255, group >> 8]).astype(np.uint8)[..., None], axis=-1
    )
    codes = in_bits(large_tables(280) + large_tables(256) * 3 + one_symbol(0))
    black = np.zeros(2048 * 2048 * 4, np.uint8)
    stream = in_bytes(
        np.concatenate([in_bits(start), of_tiles.ravel(), np.tile(codes, count), black])
    )
    return riff(chunk(b"VP8L", stream))


def bad_alpha() -> bytes:
    """A lossy picture whose alpha (2.7.1.2) is no stream of lossless WebP, but says that it is."""
    lossy = saved(SMALL, "WEBP")[12:]
    return extended(ALPHA, 264, 256, chunk(b"ALPH", b"\1" + b"\xff" * 5000), lossy)


CASES = (
    refused("WebP, 16383x16383", lambda: webp_of_size((16_383, 16_383)), "image_too_large"),
    refused(
        "WebP, canvas of 16777216x16777216",
        lambda: extended(0, 2**24, 2**24, pixels(256, 256)),
        "image_too_large",
    ),
    refused(
        "WebP, canvas larger than its frame",
        lambda: extended(0, 2048, 2048, pixels(256, 256)),
        "image_unreadable",
    ),
    refused(
        "WebP, canvas smaller than its frame",
        lambda: extended(0, 256, 256, pixels(2048, 2048)),
        "image_unreadable",
    ),
    refused("WebP, 30,000 frames", lambda: frames(30_000, 256, 256), "image_animated"),
    right("WebP, one frame", lambda: frames(1, 256, 256), RED),
    right("WebP, one frame that leaves its canvas free", lambda: frames(1, 16, 16), IN_A_CORNER),
    refused("WebP, one frame that is smaller than it says", says_more, "image_unreadable"),
    refused("WebP, an empty frame before a small one", empty_first, "image_unreadable"),
    replace(
        right("WebP, 65,536 groups of codes, 2048x2048", lambda: groups(65_536), FLAT),
        memory=WEBP_MEMORY,
    ),
    right("WebP, profile of 24 MiB", lambda: with_chunk(b"ICCP", bytes(LARGEST - 99), 0x20), RED),
    right(
        "WebP, EXIF with 3 million fractions",
        lambda: with_chunk(b"EXIF", numbers_as_orientation(5, 8), EXIF),
        RED,
    ),
    right("WebP, XMP of 24 MiB", lambda: with_chunk(b"XMP ", bytes(LARGEST - 99), 4), RED),
    right(
        "WebP, 3 million empty chunks",
        lambda: extended(0, 256, 256, pixels(256, 256), chunk(b"abcd") * (LARGEST // 8 - 99)),
        RED,
    ),
    refused("WebP, shorter than it is", lambda: of_length(20), "image_unreadable"),
    refused("WebP, longer than it is", lambda: of_length(2**32 - 2), "image_damaged"),
    refused("WebP, alpha that is none", bad_alpha, "image_damaged"),
    right(
        "WebP with 24 MiB behind it", lambda: webp_of_size((256, 256)) + bytes(LARGEST - 99), RED
    ),
)
