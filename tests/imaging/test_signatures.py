"""A format that is not read is named, so that its sender knows what to do."""

import pytest

from tests.support.image_files import NOISE, refusal, saved
from upscaler.imaging.signatures import other_format


def boxes(*brands: bytes) -> bytes:
    """The start of a file of the ISO base media file format."""
    names = b"ftyp" + brands[0] + bytes(4) + b"".join(brands)
    return (4 + len(names)).to_bytes(4) + names + bytes(50)


FILES = {
    "JPEG 2000": [saved(NOISE, "JPEG2000"), saved(NOISE, "JPEG2000", no_jp2=True)],
    "JPEG XL": [b"\xff\x0a" + bytes(40), b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40)],
    "GIF": [saved(NOISE, "GIF"), b"GIF87a" + bytes(40)],
    "TIFF": [saved(NOISE, "TIFF"), saved(NOISE, "TIFF", big_tiff=True), b"MM\0*" + bytes(40)],
    "BMP": [saved(NOISE, "BMP")],
    "AVIF": [saved(NOISE, "AVIF"), boxes(b"mif1", b"avif", b"miaf")],
    "HEIC": [boxes(b"heic", b"mif1"), boxes(b"mif1", b"heic"), boxes(b"heix")],
    "PDF": [b"%PDF-1.7" + bytes(40)],
    "PSD": [b"8BPS" + bytes(40)],
    "SVG": [b"<svg xmlns=''/>"],
}


@pytest.mark.parametrize("name", FILES)
def test_a_format_that_is_not_read_is_named(name: str) -> None:
    for data in FILES[name]:
        error = refusal(data)
        assert str(error) == f"{name} is not accepted: send PNG, JPEG or WebP"
        assert error.type == "image_unreadable"


@pytest.mark.parametrize(
    "data",
    [b"", b"BM", b"BMW is a car, not a picture", b"GIF", b"ftyp", boxes(b"isom", b"mp42"), b"IIII"],
)
def test_what_is_unknown_is_not_named(data: bytes) -> None:
    assert other_format(data) is None
    assert str(refusal(data)) == "this is not a PNG, JPEG or WebP image"
