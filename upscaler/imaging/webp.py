"""Check WebP files before they are decoded.

Chunks are those of the WebP container specification (RFC 9649, 2.7).
"""

from collections.abc import Iterator
from struct import unpack_from
from typing import Final

from upscaler.errors import ImageError

SIGNATURE: Final = b"RIFF"
MAX_CHUNKS: Final = 65_536
"""The same limit as for PNG. A still image has about 7 chunks."""
_FIRST_CHUNK_AT: Final = 12
"""The first chunk follows "RIFF", the size of the file and "WEBP", four bytes each."""
_FRAME_HEAD_BYTES: Final = 16
"""The bytes of an ANMF chunk before the frame's own chunks (RFC 9649, 2.7.1.1)."""
_FLAGS_AT: Final = 20
_ANIMATED, _ALPHA = 0x02, 0x10
"""Bits in the flags of a VP8X chunk."""


def has_image(data: bytes) -> bool:
    """Whether a RIFF file is a WebP, and begins with one of the three chunks that one begins with.

    Those are `VP8 `, `VP8L` and `VP8X`.
    """
    return data[8:15] == b"WEBPVP8"


def check_container(data: bytes) -> None:
    """Raise ImageError for a file that ends before the length that it states (RFC 9649, 2.4).

    What follows that length is ignored, as everywhere.
    """
    (length,) = unpack_from("<I", data.ljust(8), 4)
    if has_image(data) and length + 8 > len(data):
        msg = f"this WebP is cut off: it has {len(data)} bytes, and says that it has {length + 8}"
        raise ImageError(msg, "image_damaged")


def with_free_canvas(data: bytes) -> bytes:
    """The same file, marked as transparent if it is one frame that leaves some of its canvas free.

    Around the frame the canvas is transparent, which Pillow shows as black in a file that declares
    no alpha. Raises ImageError unless a file that is marked as an animation has exactly one frame,
    in whose header is the size of its pixels: libwebp skips empty frames, and uses the latter size.
    """
    if data[12:16] != b"VP8X" or not data[_FLAGS_AT] & _ANIMATED:
        return data
    canvas = data[24:30]  # width - 1 and height - 1 in 24 bits each, as a frame states its own
    frames = [content for kind, content in _chunks(data, _FIRST_CHUNK_AT) if kind == b"ANMF"]
    if len(frames) != 1:
        raise ImageError("this WebP has a frame without pixels beside another", "image_unreadable")
    own = frames[0][6:12]
    size = _frame_size(_chunks(frames[0], _FRAME_HEAD_BYTES))
    if size != tuple(1 + int.from_bytes(own[at : at + 3], "little") for at in (0, 3)):
        raise ImageError("this WebP has a frame of another size than it says", "image_unreadable")
    if own == canvas:
        return data
    return data[:_FLAGS_AT] + bytes((data[_FLAGS_AT] | _ALPHA,)) + data[_FLAGS_AT + 1 :]


def _chunks(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """The type and the content of each chunk from offset `at` on."""
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            return
        kind, length = unpack_from("<4sI", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2  # a content of odd length is padded (RFC 9649, 2.3)
    raise ValueError(f"more than {MAX_CHUNKS} chunks")


def _frame_size(chunks: Iterator[tuple[bytes, bytes]]) -> tuple[int, int] | None:
    """The width and height in the first chunk of pixels (RFC 6386, 9.1; RFC 9649, 3.4)."""
    for kind, content in chunks:
        if kind == b"VP8 ":
            width, height = unpack_from("<HH", content, 6)
            return width & 0x3FFF, height & 0x3FFF
        if kind == b"VP8L":
            bits = int.from_bytes(content[1:5], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None
