"""Name formats that the API does not read, by how their files begin."""

from typing import Final

_STARTS: Final = {
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"8BPS": "PSD",
    b"%PDF": "PDF",
    b"<svg": "SVG",
}
_BRANDS: Final = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"heim", b"heis"), "HEIC"),
    **dict.fromkeys((b"mif1", b"msf1"), "HEIF"),
}
"""Those of the ISO base media file format (ISO/IEC 14496-12, 4.3; 23008-12, annex B). A file may
have several; the more precise ones come first: "mif1" does not say how its pixels are coded."""


def other_format(data: bytes) -> str | None:
    """The name of the format, or None if it is another one."""
    for start, name in _STARTS.items():
        if data.startswith(start):
            return name
    if data[:2] == b"BM" and data[6:10] == bytes(4):  # a reserved field, since text may begin so
        return "BMP"
    if data[4:8] == b"ftyp":
        brands = data[8 : min(int.from_bytes(data[:4]), 256)]
        return next((name for brand, name in _BRANDS.items() if brand in brands), None)
    return None
