"""Metadata as cameras and programs write it, byte by byte."""

from struct import pack
from typing import Final

THUMBNAIL: Final = b"\xff\xd8 the image as it was \xff\xd9"
PLACE: Final = b"here, and nowhere else"
MAKER_NOTE: Final = b"Maker\0\x01\x02\x03"
ASCII, SHORT, LONG, UNDEFINED = 2, 3, 4, 7

Entry = tuple[int, int, int | bytes]
"""The tag, type and value of an entry."""


def directory(order: str, at: int, entries: list[Entry], next_at: int = 0) -> bytes:
    """A directory at an offset, followed by its values (TIFF 6.0, section 2)."""
    table, values = b"", b""
    values_at = at + 2 + 12 * len(entries) + 4
    for tag, kind, value in entries:
        if isinstance(value, int):
            stored = pack(order + ("HH" if kind == SHORT else "I"), *[value, 0][: 3 - kind // 2])
            count = 1
        else:
            count, stored = len(value), value.ljust(4, b"\0")
            if count > 4:
                stored = pack(order + "I", values_at + len(values))
                values += value + bytes(count % 2)
        table += pack(order + "HHI", tag, kind, count) + stored
    return pack(order + "H", len(entries)) + table + pack(order + "I", next_at) + values


def exif(order: str = "<", orientation: int = 6, *extra: Entry) -> bytes:
    """EXIF of a camera: a picture on its side in Adobe RGB, its place, and a thumbnail."""
    header = {"<": b"II*\0", ">": b"MM\0*"}[order] + pack(order + "I", 8)
    sub: list[Entry] = [
        (0x9003, ASCII, b"2024:05:06 07:08:09\0"),
        (0x927C, UNDEFINED, MAKER_NOTE),
        (0xA001, SHORT, 65535),
        (0xA002, LONG, 4000),
        (0xA003, LONG, 3000),
        (0xA005, LONG, 8),
    ]
    gps: list[Entry] = [(0x001B, UNDEFINED, PLACE), (0x001D, ASCII, b"2024:05:06\0")]
    thumbnail: list[Entry] = [(0x0201, LONG, 0), (0x0202, LONG, len(THUMBNAIL))]

    def first(sub_at: int, gps_at: int, next_at: int) -> bytes:
        return directory(
            order,
            8,
            [
                (0x0100, LONG, 4000),
                (0x010F, ASCII, b"A maker\0"),
                (0x0112, SHORT, orientation),
                (0x013B, ASCII, b"An artist\0"),
                (0x8769, LONG, sub_at),
                (0x8825, LONG, gps_at),
                *extra,
            ],
            next_at,
        )

    sub_at = 8 + len(first(0, 0, 0))
    gps_at = sub_at + len(directory(order, sub_at, sub))
    next_at = gps_at + len(directory(order, gps_at, gps))
    thumbnail_at = next_at + len(directory(order, next_at, thumbnail))
    thumbnail[0] = (0x0201, LONG, thumbnail_at)
    return b"".join(
        (
            header,
            first(sub_at, gps_at, next_at),
            directory(order, sub_at, sub),
            directory(order, gps_at, gps),
            directory(order, next_at, thumbnail),
            THUMBNAIL,
        )
    )


XMP: Final = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
 xmlns:e="http://ns.adobe.com/exif/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:xmpNote="http://ns.adobe.com/xmp/note/"
 xmlns:GPano="http://ns.google.com/photos/1.0/panorama/"
 tiff:Orientation="6" tiff:ImageWidth='4000' e:PixelXDimension="4000" xmpNote:HasExtendedXMP="AB"
 xmp:CreatorTool="A &amp; B" GPano:FullPanoWidthPixels="4000">
<e:PixelYDimension>3000</e:PixelYDimension><e:ColorSpace>65535</e:ColorSpace>
<dc:creator><rdf:Seq><rdf:li>Jörg &lt;x&gt; 日本</rdf:li></rdf:Seq></dc:creator>
<xmp:Thumbnails><rdf:Alt><rdf:li>as it was</rdf:li></rdf:Alt></xmp:Thumbnails>
</rdf:Description></rdf:RDF></x:xmpmeta>PADDING
<?xpacket end="w"?>""".replace("PADDING", 40 * " ").encode()


def iim(record: int, dataset: int, value: bytes) -> bytes:
    """A dataset of IPTC (IIM 4.2, chapter 3)."""
    return pack(">BBBH", 0x1C, record, dataset, len(value)) + value


IPTC: Final = iim(1, 90, b"\x1b%G") + iim(2, 120, "Ein Füllhorn".encode()) + iim(2, 25, b"a word")
IPTC_PREVIEW: Final = iim(2, 202, b"as it was")


def resource(number: int, content: bytes, name: bytes = b"") -> bytes:
    """An image resource of Photoshop."""
    pascal = bytes([len(name)]) + name
    pascal += bytes(len(pascal) % 2)
    padding = bytes(len(content) % 2)
    return b"8BIM" + pack(">H", number) + pascal + pack(">I", len(content)) + content + padding


RESOURCES: Final = (
    resource(0x03ED, bytes(15), b"odd") + resource(0x0404, IPTC + IPTC_PREVIEW)
)  # fmt: skip


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG."""
    return pack(">BBH", 0xFF, marker, 2 + len(content)) + content
