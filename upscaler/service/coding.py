"""Decodes bodies in gzip or deflate, which gateways and clients may compress (RFC 9110, 8.4).

All limits apply to the decoded body. No other coding is read: it would take a library that
few clients need, and the 415 tells them what is read.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Final

from starlette.datastructures import Headers

from upscaler.errors import FieldError, InvalidRequest, UnsupportedCoding

GZIP: Final = "gzip"
DEFLATE: Final = "deflate"
NAMES: Final = {GZIP: GZIP, "x-gzip": GZIP, DEFLATE: DEFLATE}
"""The codings by their names in lower case; x-gzip is the same as gzip (RFC 9110, 8.4.1.3)."""
OTHERS: Final = ("br", "compress", "dcb", "dcz", "x-compress", "zstd")
"""The registered codings that a 415 repeats; of any other text a client could make anything."""
ENCODED_BYTES: Final = 64 * 2**10
DECODED_BYTES: Final = 2**20
"""How much is decoded at a time, and how large the result may get before it is checked again."""
MAX_MEMBERS: Final = 1000
"""How many gzip files may follow each other in a body (RFC 1952, 2.2). Programs that write several
make one of 64 KiB each, and of empty ones a body could have a million."""


def coding_of(headers: Headers) -> str | None:
    """Return the coding of a request's body, `gzip` or `deflate`, or None if it has none.

    Raises UnsupportedCoding for any other, and for several.
    """
    listed = ",".join(headers.getlist("Content-Encoding")).lower().split(",")
    names = [name.strip() for name in listed if name.strip() not in ("", "identity")]
    if not names:
        return None
    if names[1:] or names[0] not in NAMES:
        sent = names[0] if names[0] in OTHERS and not names[1:] else "of this kind"
        raise UnsupportedCoding(
            f"a body with a Content-Encoding {sent} cannot be read: send it in {GZIP} or "
            f"{DEFLATE}, or without any"
        )
    return NAMES[names[0]]


def decode_body(
    body: bytes | bytearray, coding: str, check_size: Callable[[int], None]
) -> bytearray:
    """Return what a body in `coding`, gzip or deflate, decodes to.

    `check_size` is called with the number of bytes so far, and raises an error if they are too
    many. Raises InvalidRequest on the header for a body that is not in that coding, or is cut off.
    """
    decoded = bytearray()
    try:
        for piece in _inflate(body, coding):
            decoded += piece
            check_size(len(decoded))
    except zlib.error as error:
        msg = f"the body is not valid {coding}, or it is cut off"
        broken = FieldError(("header", "Content-Encoding"), msg, "content_encoding")
        raise InvalidRequest(broken) from error
    return decoded


def _inflate(body: bytes | bytearray, coding: str) -> Iterator[bytes]:
    """Yield what a body decodes to, in pieces of at most DECODED_BYTES; raises zlib.error."""
    # zlib checks the sums, of gzip if 16 is added to wbits, of nothing if it is negative.
    wbits = 31 if coding == GZIP else 15 if _has_zlib_header(body) else -15
    stream, members = zlib.decompressobj(wbits), 1
    for start in range(0, len(body), ENCODED_BYTES):
        rest: bytes | bytearray = body[start : start + ENCODED_BYTES]
        while rest:
            if stream.eof:
                if coding != GZIP or members == MAX_MEMBERS:
                    raise zlib.error("too much follows")
                stream, members = zlib.decompressobj(wbits), members + 1
            yield stream.decompress(rest, DECODED_BYTES)
            rest = stream.unconsumed_tail or stream.unused_data
    # All bytes are with zlib now, which holds back at most what its last few symbols stand for.
    yield stream.flush()
    if not stream.eof:
        raise zlib.error("the end is missing")


def _has_zlib_header(body: bytes | bytearray) -> bool:
    """Whether a body in deflate is in zlib's format, as it should be (RFC 1950, 2.2).

    Some clients send bare deflate (RFC 9110, 8.4.1.2).
    """
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
