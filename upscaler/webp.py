"""What must be known of a WebP file before it is left to a decoder.

An animation of a single frame is a still picture if the frame covers its canvas. If it does not,
what it leaves free is transparent, and black to a decoder that was told of no alpha. Chunks are
those of Google's WebP container specification (RFC 9649, 2.7).
"""

from struct import unpack_from
from typing import Final

MAX_CHUNKS: Final = 65_536
"""As of a PNG. A still picture has about 7."""
_FIRST_CHUNK_AT: Final = 12
_ANIMATED: Final = 2
"""The bit for an animation in the flags of a VP8X chunk."""


def check_canvas(data: bytes) -> None:
    """Raise ValueError for an animation whose first frame is smaller than its canvas."""
    if data[12:16] != b"VP8X" or not data[20] & _ANIMATED:
        return
    at = _FIRST_CHUNK_AT
    for _ in range(MAX_CHUNKS):
        kind, length = unpack_from("<4sI", data, at)
        if kind == b"ANMF":
            if data[at + 14 : at + 20] != data[24:30]:
                raise ValueError("a frame is smaller than its canvas")
            return
        at += 8 + length + length % 2
    raise ValueError(f"more than {MAX_CHUNKS} chunks")
