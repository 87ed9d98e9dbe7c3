"""Check a WebP file before it is decoded.

An animation of a single frame is a still image if the frame covers its canvas. If it does not, the
rest of the canvas is transparent, which a decoder shows as black if the file declares no alpha. So
such files are refused. Chunks are those of the WebP container specification (RFC 9649, 2.7).
"""

from collections.abc import Iterator
from struct import unpack_from
from typing import Final

MAX_CHUNKS: Final = 65_536
"""The same limit as for PNG. A still image has about 7 chunks."""
_FIRST_CHUNK_AT: Final = 12
"""The first chunk follows "RIFF", the size of the file and "WEBP", four bytes each."""
_FRAME_HEAD_BYTES: Final = 16
"""The bytes of an ANMF chunk before the frame's own chunks (RFC 9649, 2.7.1.1)."""
_ANIMATED: Final = 2
"""The animation bit in the flags of a VP8X chunk."""


def check_canvas(data: bytes) -> None:
    """Raise ValueError for an animation whose single frame is smaller than its canvas.

    Both the size in the frame's header and that in its pixel data are checked, since libwebp uses
    the latter. There must be exactly one frame; even empty ones, which libwebp skips, are refused.
    """
    if data[12:16] != b"VP8X" or not data[20] & _ANIMATED:
        return
    canvas = data[24:30]  # width - 1 and height - 1 in 24 bits each, as a frame states its own
    frames = [content for kind, content in _chunks(data, _FIRST_CHUNK_AT) if kind == b"ANMF"]
    if len(frames) != 1 or frames[0][6:12] != canvas:
        raise ValueError("a frame is smaller than its canvas, or there are several")
    size = _frame_size(_chunks(frames[0], _FRAME_HEAD_BYTES))
    if size != tuple(1 + int.from_bytes(canvas[at : at + 3], "little") for at in (0, 3)):
        raise ValueError("the pixels of a frame are fewer than its canvas has")


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
