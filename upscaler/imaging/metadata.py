"""What is written about an image in its file: EXIF, XMP and IPTC, to be carried over to its result.

Everything here comes from untrusted files, so what is damaged or too long is left out, silently:
the image matters more. What is carried over is adapted first: see `exif` and `xmp`.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from struct import error as StructError  # noqa: N812  it is a class, which struct calls "error"
from struct import pack, unpack_from
from typing import Final

from upscaler.imaging import png_chunks
from upscaler.imaging.exif import adapt_exif
from upscaler.imaging.xmp import MAX_XMP_BYTES, adapt_xmp

MAX_IPTC_BYTES: Final = 65_500
"""What fits into a segment of a JPEG, with its length and what stands before it."""
MAX_PARTS: Final = 65_536
"""So many chunks or segments of a file are looked at: see `png_chunks.MAX_CHUNKS`."""

EXIF_SIGNATURE: Final = b"Exif\0\0"
XMP_SIGNATURE: Final = b"http://ns.adobe.com/xap/1.0/\0"
PHOTOSHOP_SIGNATURE: Final = b"Photoshop 3.0\0"
MAX_XMP_TRIES: Final = 8
"""How many damaged ones are inflated before the search for another is given up."""
XMP_KEYWORD: Final = b"XML:com.adobe.xmp\0"
"""What XMP begins with in a PNG's text (XMP part 3, 1.1.5)."""

_APP1, _APP13, _SOS, _EOI = 0xE1, 0xED, 0xDA, 0xD9
_WITHOUT_LENGTH: Final = (0x01, *range(0xD0, 0xD9))
"""The JPEG markers before a scan that no segment follows: TEM, RST0 to RST7, and SOI."""
_IPTC_RESOURCE: Final = pack(">4sHH", b"8BIM", 0x0404, 0)
"""How a resource of Photoshop begins that has IPTC: its signature, its number, and no name."""
_IPTC_PREVIEW: Final = ((2, 200), (2, 201), (2, 202))
"""The datasets with a preview of the image as it was (IIM 4.2, chapter 6)."""


@dataclass(frozen=True)
class Metadata:
    """What is carried over to a result; empty bytes stand for nothing.

    `exif` is a TIFF structure, `xmp` a packet in UTF-8, and `iptc` datasets of the IIM. Each fits
    into a segment of a JPEG.
    """

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""

    def png_chunks(self) -> bytes:
        """The chunks to write before a PNG's pixels. PNG has no place for IPTC."""
        chunks = b""
        if self.exif:
            chunks += png_chunks.chunk(b"eXIf", self.exif)
        if self.xmp:
            # Not compressed, without a language and a translated keyword (PNG 3e, 11.3.3.4).
            chunks += png_chunks.chunk(b"iTXt", XMP_KEYWORD + bytes(4) + self.xmp)
        return chunks

    def jpeg_segments(self) -> bytes:
        """The segments to write at the start of a JPEG."""
        segments = b""
        if self.exif:
            segments += _segment(_APP1, EXIF_SIGNATURE + self.exif)
        if self.xmp:
            segments += _segment(_APP1, XMP_SIGNATURE + self.xmp)
        if self.iptc:
            resource = _IPTC_RESOURCE + pack(">I", len(self.iptc)) + self.iptc
            segments += _segment(_APP13, PHOTOSHOP_SIGNATURE + resource + bytes(len(resource) % 2))
        return segments


NO_METADATA: Final = Metadata()


def read_metadata(data: bytes) -> Metadata:
    """The metadata of a PNG, JPEG or WebP file, adapted for an upscaled, upright image in sRGB.

    The first of each kind counts. What is damaged, or does not fit into a segment of a JPEG, is
    left out, and so is a JPEG's extended XMP. Raises nothing.
    """
    exif, xmp, iptc = b"", b"", b""
    for kind, content in islice(_parts(data), MAX_PARTS):
        if kind == "exif":
            exif = exif or content.removeprefix(EXIF_SIGNATURE)
        elif kind == "xmp":
            xmp = xmp or content
        elif len(iptc) <= 2 * MAX_IPTC_BYTES:
            iptc += content  # Photoshop cuts its resources into segments
    return Metadata(
        exif=_adapted(adapt_exif, exif), xmp=_adapted(adapt_xmp, xmp), iptc=_adapted(_iptc, iptc)
    )


def _adapted(adapt: Callable[[bytes], bytes], content: bytes) -> bytes:
    if not content:
        return b""
    try:
        return adapt(content)
    except ValueError:
        return b""


def _parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The kind and content of each part of a file with metadata; ("", b"") for others."""
    if data.startswith(png_chunks.SIGNATURE):
        return _png_parts(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg_parts(data)
    if data.startswith(b"RIFF"):
        return _webp_parts(data)
    return iter(())


def _png_parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    before_pixels, tries = True, MAX_XMP_TRIES
    for kind, content, chunk in png_chunks.chunks(data):
        before_pixels = before_pixels and kind != b"IDAT"
        found = "", b""
        is_text = kind == b"iTXt" and bytes(content[: len(XMP_KEYWORD)]) == XMP_KEYWORD
        # After the pixels eXIf has no meaning (PNG 3e, 5.6).
        wanted = (is_text and tries > 0) or (kind == b"eXIf" and before_pixels)
        if wanted and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big"):
            found = ("xmp", _text(bytes(content))) if is_text else ("exif", bytes(content))
            tries = 0 if found[0] == "xmp" and found[1] else tries - is_text
        yield found


def _text(content: bytes) -> bytes:
    """The text of an iTXt chunk with XMP, inflated if necessary; empty if it is damaged."""
    # Whether it is compressed, by which method, and both names (11.3.3.4).
    flags, names = content[len(XMP_KEYWORD) :][:2], content[len(XMP_KEYWORD) + 2 :]
    _, _, text = names.partition(b"\0")[2].partition(b"\0")
    if flags == bytes(2):
        return text
    inflate = zlib.decompressobj()
    try:
        # A byte more than is allowed shows that it is too long.
        return inflate.decompress(text, MAX_XMP_BYTES + 1)
    except zlib.error:
        return b""


def _jpeg_parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (_SOS, _EOI):
            return
        if marker == 0xFF or marker in _WITHOUT_LENGTH:  # the first is a fill byte
            at += 1 if marker == 0xFF else 2
            yield "", b""
            continue
        (length,) = unpack_from(">H", data, at + 2)
        content = data[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == _APP1 and content.startswith(EXIF_SIGNATURE):
            yield "exif", content
        elif marker == _APP1 and content.startswith(XMP_SIGNATURE):
            yield "xmp", content.removeprefix(XMP_SIGNATURE)
        elif marker == _APP13 and content.startswith(PHOTOSHOP_SIGNATURE):
            yield "iptc", content.removeprefix(PHOTOSHOP_SIGNATURE)
        else:
            yield "", b""


def _webp_parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The chunks of RIFF, padded to an even length (RFC 9649, 2.3)."""
    kinds = {b"EXIF": "exif", b"XMP ": "xmp"}
    at = 12
    while at + 8 <= len(data):
        name, length = unpack_from("<4sI", data, at)
        kind = kinds.get(name, "")
        yield kind, data[at + 8 : at + 8 + length] if kind else b""
        at += 8 + length + length % 2


def _iptc(resources: bytes) -> bytes:
    """The datasets of IPTC in Photoshop's resources, without a preview.

    Raises ValueError if they are damaged or too long.
    """
    at = 0
    try:
        while at < len(resources):
            signature, number, name_length = unpack_from(">4sHB", resources, at)
            if signature != b"8BIM":
                break
            at += 6 + (name_length + 2) // 2 * 2  # the name with its length is padded
            (length,) = unpack_from(">I", resources, at)
            at += 4
            if number == 0x0404:
                return _datasets(resources[at : at + length])
            at += length + length % 2
    except StructError as error:
        raise ValueError("these resources are truncated") from error
    return b""


def _datasets(iim: bytes) -> bytes:
    """The datasets of IIM, each with its tag marker, numbers and length (IIM 4.2, chapter 3)."""
    kept, at = [], 0
    while at < len(iim) and iim[at]:  # some programs fill it up with zeros
        marker, record, dataset, length = unpack_from(">BBBH", iim, at)
        end = at + 5 + length
        # 0x8000 and above announce a longer length, as no text has one.
        if marker != 0x1C or length >= 0x8000 or end > len(iim):
            raise ValueError("this IPTC is damaged")
        if (record, dataset) not in _IPTC_PREVIEW:
            kept.append(iim[at:end])
        at = end
    datasets = b"".join(kept)
    if len(datasets) > MAX_IPTC_BYTES:
        raise ValueError("this IPTC is too long")
    return datasets


def _segment(marker: int, content: bytes) -> bytes:
    return pack(">BBH", 0xFF, marker, 2 + len(content)) + content
