"""EXIF, XMP and IPTC of an input in the result, as other programs read them."""

import io
import zlib
from struct import pack, unpack
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, IptcImagePlugin

from tests.support.image_files import chunk
from tests.support.metadata_files import (
    ASCII,
    IPTC,
    LONG,
    MAKER_NOTE,
    PLACE,
    RESOURCES,
    SHORT,
    THUMBNAIL,
    UNDEFINED,
    XMP,
    directory,
    exif,
    iim,
    resource,
    segment,
)
from tests.support.properties import examples
from upscaler.formats import ImageEncoding
from upscaler.imaging import metadata
from upscaler.imaging.encode import encode, encode_strips
from upscaler.imaging.exif import MAX_EXIF_BYTES, adapt_exif
from upscaler.imaging.metadata import NO_METADATA, Metadata, read_metadata
from upscaler.imaging.xmp import MAX_XMP_BYTES, adapt_xmp

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
KINDS = ("PNG", "JPEG", "WEBP")


def source(kind: str, exif_: bytes = b"", xmp: bytes = b"") -> bytes:
    """A file with metadata, written by Pillow."""
    file = io.BytesIO()
    signature = b"Exif\0\0" if kind == "JPEG" else b""  # which Pillow does not add
    given: dict[str, Any] = {"exif": signature + exif_} if exif_ else {}
    if xmp and kind == "PNG":  # in which Pillow writes no XMP
        data = source(kind, exif_)
        text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
        return data[:33] + text + data[33:]
    Image.fromarray(PIXELS[::4, ::4]).save(file, kind, **given, **({"xmp": xmp} if xmp else {}))
    return file.getvalue()


def with_segments(*segments: bytes) -> bytes:
    jpeg = source("JPEG")
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def result(metadata: Metadata, encoding: ImageEncoding) -> bytes:
    return b"".join(encode_strips([PIXELS], len(PIXELS), encoding, metadata=metadata))


def tags(data: bytes, order: str = "<") -> list[int]:
    """The tags in the first directory of EXIF."""
    at, count = unpack(order + "IH", data[4:10])
    assert at == 8
    return [unpack(order + "H", data[10 + 12 * n :][:2])[0] for n in range(count)]


def opened(data: bytes) -> Any:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


# EXIF


@pytest.mark.parametrize("encoding", ImageEncoding)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", KINDS)
def test_exif_is_carried_over_and_upright(kind: str, order: str, encoding: ImageEncoding) -> None:
    data = source(kind, exif(order))
    assert THUMBNAIL in data
    assert opened(data).getexif()[0x0112] == 6

    made = result(read_metadata(data), encoding)

    found = opened(made).getexif()
    sub, place = found.pop(0x8769), found.pop(0x8825)
    assert sub < place
    assert dict(found) == {0x010F: "A maker", 0x0112: 1, 0x013B: "An artist"}
    found = opened(made).getexif()
    date, colours = (0x9003, "2024:05:06 07:08:09"), (0xA001, 1)
    assert found.get_ifd(0x8769) == dict((date, (0x927C, MAKER_NOTE), colours))
    assert found.get_ifd(0x8825) == {0x001B: PLACE, 0x001D: "2024:05:06"}
    assert not found.get_ifd(1), "the directory of the thumbnail"
    assert THUMBNAIL not in made
    assert np.array_equal(np.array(opened(made)), np.array(opened(result(NO_METADATA, encoding))))


def test_a_makers_notes_stay_where_they_were() -> None:
    """They have offsets of their own, which nobody else understands."""
    data = exif()
    assert adapt_exif(data).index(MAKER_NOTE) == data.index(MAKER_NOTE)


def test_values_that_lie_outside_or_have_no_known_type_are_left_out() -> None:
    data = exif("<", 6, (0x0131, UNDEFINED, b"a program"), (0x0132, 99, b"0123456789"))
    at = data.index(b"a program")
    data = data.replace(pack("<I", at), pack("<I", 60_000))
    assert tags(adapt_exif(data)) == [0x010F, 0x0112, 0x013B, 0x8769, 0x8825]


def test_what_describes_the_old_file_is_left_out() -> None:
    """Exif 2.32, table 4, A to C, but for resolution; ICC profile, other metadata, previews."""
    old = (
        *(0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x0111, 0x0115, 0x0116, 0x0117, 0x011C, 0x0201),
        *(0x0202, 0x0212, 0x0213, 0x012D, 0x013E, 0x013F, 0x0211, 0x0214, 0x014A, 0x8773, 0x02BC),
        *(0x83BB, 0x8649, 0x0142, 0x0143, 0x0144, 0x0145),
    )
    for order in "<>":
        data = exif(order, 6, *((tag, LONG, 9) for tag in old), (0x0131, ASCII, b"it\0"))
        assert tags(adapt_exif(data), order) == [0x010F, 0x0112, 0x013B, 0x8769, 0x8825, 0x0131]


def test_a_second_pointer_to_a_directory_is_left_out() -> None:
    """Thousands could point to a directory with thousands of entries."""
    data = exif()
    (sub_at,) = unpack("<I", data[data.index(pack("<HHI", 0x8769, LONG, 1)) + 8 :][:4])
    again = exif("<", 6, (0x8769, LONG, sub_at + 12))
    assert tags(adapt_exif(again)) == [0x010F, 0x0112, 0x013B, 0x8769, 0x8825]


def test_the_offset_of_the_next_directory_may_be_missing() -> None:
    data = b"II*\0" + pack("<I", 8) + directory("<", 8, [(0x0112, SHORT, 8)])[:-4]
    found = Image.Exif()
    found.load(adapt_exif(data))
    assert dict(found) == {0x0112: 1}


def test_two_entries_may_share_a_value_and_no_more_of_it() -> None:
    shared = exif("<", 6, (0x011A, 5, b"\x48\0\0\0\1\0\0\0"), (0x011B, 5, b"\x48\0\0\0\1\0\0\0"))
    first = shared.index(b"\x48\0\0\0\1\0\0\0")
    entry = pack("<HHI", 0x011B, 5, 8)  # eight rationals, which is damaged: one is meant
    fixed = shared.replace(entry, pack("<HHI", 0x011B, 5, 1))
    fixed = fixed.replace(pack("<HHI", 0x011A, 5, 8), pack("<HHI", 0x011A, 5, 1))
    same = fixed.replace(pack("<I", first + 8), pack("<I", first))
    found = Image.Exif()
    found.load(adapt_exif(same))
    assert (found[0x011A], found[0x011B]) == (72, 72)
    with pytest.raises(ValueError, match="overlap"):
        adapt_exif(fixed.replace(pack("<I", first + 8), pack("<I", first + 4)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"II*\0",
        b"II*\0" + pack("<I", 8),
        b"II*\0" + pack("<IH", 8, 3) + bytes(20),
        b"II*\0" + pack("<I", 2**32 - 1) + bytes(90),
        b"II*\0" + pack("<I", 0) + bytes(90),
        b"no TIFF" + bytes(90),
        exif()[:60],
        exif() + bytes(MAX_EXIF_BYTES),
    ],
    ids=["empty", "end", "no directory", "cut", "outside", "inside", "other", "cut off", "long"],
)
def test_a_damaged_exif_is_left_out(data: bytes) -> None:
    with pytest.raises(ValueError, match="EXIF"):
        adapt_exif(data)
    assert read_metadata(with_segments(segment(0xE1, (b"Exif\0\0" + data)[:65_533]))).exif == b""


def test_the_longest_exif_fits_into_a_segment() -> None:
    room = MAX_EXIF_BYTES - 4 - len(exif("<", 6, (0xFF00, UNDEFINED, b"12345")))
    longest = exif("<", 6, (0xFF00, UNDEFINED, b"1" * (room + 5)))
    metadata = read_metadata(source("PNG", longest))
    assert opened(result(metadata, ImageEncoding.JPEG)).getexif()[0xFF00] == b"1" * (room + 5)


def test_directories_that_refer_to_each_other_cost_no_time() -> None:
    """Thousands of entries, all of which have the same directory, or one value of any length."""
    count = 5_000
    for entry in (
        pack("<HHII", 0x8769, LONG, 1, 8),
        pack("<HHII", 0x8825, UNDEFINED, 60_000, 0),
        pack("<HHII", 0x0131, UNDEFINED, 59_999, 1),
    ):
        data = b"II*\0" + pack("<IH", 8, count) + entry * count + bytes(4)
        with pytest.raises(ValueError, match="EXIF"):
            adapt_exif(data)


@given(
    at=st.integers(0, len(exif()) - 1),
    value=st.integers(0, 255),
    cut=st.integers(0, 60),
    order=st.sampled_from("<>"),
)
@settings(max_examples=examples(400, 100))
def test_whatever_is_damaged_the_result_is_upright(
    at: int, value: int, cut: int, order: str
) -> None:
    data = bytearray(exif(order))
    data[at] = value
    try:
        adapted = adapt_exif(bytes(data[: len(data) - cut]))
    except ValueError:
        return
    found = Image.Exif()
    found.load(adapted)
    assert found.get(0x0112, 1) == 1
    assert THUMBNAIL not in adapted
    assert adapt_exif(adapted).rstrip(b"\0") == adapted.rstrip(b"\0")


# XMP


@pytest.mark.parametrize("encoding", ImageEncoding)
@pytest.mark.parametrize("kind", KINDS)
def test_xmp_is_carried_over_and_upright(kind: str, encoding: ImageEncoding) -> None:
    found = opened(result(read_metadata(source(kind, xmp=XMP)), encoding)).info["xmp"].decode()
    for kept in ('tiff:Orientation="1"', "<e:ColorSpace>1</e:ColorSpace>", 'xmp:CreatorTool="A &a'):
        assert kept in found
    assert "<rdf:li>Jörg &lt;x&gt; 日本</rdf:li>" in found
    assert found.startswith("<?xpacket begin")
    assert found.endswith('<?xpacket end="w"?>')
    for dropped in ("4000", "3000", "as it was", "HasExtended=", "Thumbnails>", "Pano:"):
        assert dropped not in found


def test_compressed_xmp_is_read_and_not_inflated_beyond_what_is_kept() -> None:
    def png(xmp: bytes, flags: bytes = b"\1\0") -> bytes:
        content = b"XML:com.adobe.xmp\0" + flags + b"en\0XMP\0" + xmp
        data = source("PNG")
        return data[:-12] + chunk(b"iTXt", content) + data[-12:]

    assert read_metadata(png(zlib.compress(XMP))).xmp == adapt_xmp(XMP)
    assert read_metadata(png(XMP, b"\0\0")).xmp == adapt_xmp(XMP)
    padded = XMP.replace(b"  ", b"  " + b" " * (MAX_XMP_BYTES - len(XMP)), 1)
    assert read_metadata(png(zlib.compress(padded))).xmp == adapt_xmp(XMP)
    for other in (zlib.compress(padded + b" "), zlib.compress(bytes(10**8)), b"\x78\x9c damaged"):
        assert read_metadata(png(other)).xmp == b""


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"no XML",
        XMP[:900],
        XMP.replace(b"tiff:Orientation", b"undeclared:Orientation"),
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b"<a>" * 9000 + b"</a>" * 9000,
        XMP.decode().encode("utf-16"),
        XMP.replace("日".encode(), b"\xe6\x97"),
        XMP + b" " * MAX_XMP_BYTES,
        b"<a>" + b">" * 60_000 + b"</a>",  # which are escaped
        b'<?a?><a:b xmlns:a="http://ns.google.com/photos/1.0/depthmap/"/>',
    ],
    ids=[
        *("empty", "text", "cut", "namespace", "dtd", "deep", "utf-16", "utf-8", "long"),
        *("longer", "nothing left"),
    ],
)
def test_damaged_xmp_is_left_out(packet: bytes) -> None:
    assert read_metadata(source("WEBP", xmp=packet or b" ")).xmp == b""


def test_what_stands_around_a_packet_is_left_out() -> None:
    assert adapt_xmp(b"\xef\xbb\xbf\n" + XMP + b"\n\0\0") == adapt_xmp(XMP)


# IPTC


def test_iptc_is_carried_over_to_jpeg_without_its_preview() -> None:
    """Resources may be cut into segments anywhere."""
    for cut in (0, 9, 40):
        parts = RESOURCES[:cut], RESOURCES[cut:]
        segments = [segment(0xED, b"Photoshop 3.0\0" + part) for part in parts]
        metadata = read_metadata(with_segments(*segments))
        assert metadata.iptc == IPTC
        found = IptcImagePlugin.getiptcinfo(opened(result(metadata, ImageEncoding.JPEG)))
        assert found is not None
        assert found[2, 120] == "Ein Füllhorn".encode()
        assert (2, 202) not in found
        made = result(metadata, ImageEncoding.JPEG)
        assert len(IPTC) % 2, "so that it is padded"
        assert made[made.index(IPTC) + len(IPTC) :].startswith(b"\0\xff")
        assert result(metadata, ImageEncoding.PNG) == result(NO_METADATA, ImageEncoding.PNG)


@pytest.mark.parametrize(
    "resources",
    [
        RESOURCES[: RESOURCES.index(b"lhorn")],
        RESOURCES[:40],
        b"8BIM",
        b"other" * 9,
        resource(0x0404, b"\x1d" + IPTC),
        resource(0x0404, iim(2, 120, b"1")[:3] + b"\x80\x04" + bytes(0x8004)),
        resource(0x0404, iim(2, 120, bytes(7000)) * 10),
        resource(0x0425, IPTC),
        resource(0x0425, bytes(65_000)) * 3 + RESOURCES,
    ],
    ids=["cut", "cut in a name", "short", "other", "marker", "extended", "long", "none", "far"],
)
def test_damaged_iptc_is_left_out(resources: bytes) -> None:
    assert iptc_of(resources) == b""


def iptc_of(resources: bytes) -> bytes:
    parts = [resources[at : at + 65_000] for at in range(0, len(resources), 65_000)]
    segments = [segment(0xED, b"Photoshop 3.0\0" + part) for part in parts]
    return read_metadata(with_segments(*segments)).iptc


def test_zeros_behind_iptc_are_left_out() -> None:
    assert iptc_of(resource(0x0404, IPTC + bytes(3))) == IPTC


# Files


@pytest.mark.dev
@pytest.mark.parametrize("encoding", ImageEncoding)
def test_libvips_reads_what_is_carried_over(encoding: ImageEncoding) -> None:
    import pyvips

    data = with_segments(
        segment(0xE1, b"Exif\0\0" + exif()),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        segment(0xED, b"Photoshop 3.0\0" + RESOURCES),
    )
    found = pyvips.Image.new_from_buffer(result(read_metadata(data), encoding), "")
    assert found.get("orientation") == 1
    assert found.get("exif-ifd0-Artist").startswith("An artist")
    assert found.get("exif-ifd2-DateTimeOriginal").startswith("2024:05:06 07:08:09")
    assert b'tiff:Orientation="1"' in bytes(found.get("xmp-data"))
    if encoding is ImageEncoding.JPEG:
        assert IPTC in bytes(found.get("iptc-data"))


@pytest.mark.parametrize("encoding", ImageEncoding)
def test_the_file_is_the_same_but_for_the_metadata(encoding: ImageEncoding) -> None:
    metadata = read_metadata(source("WEBP", exif(), XMP))
    parts = metadata.png_chunks() if encoding is ImageEncoding.PNG else metadata.jpeg_segments()
    assert len(parts) > 1000
    made = result(metadata, encoding)
    assert made.count(parts) == 1
    assert made.replace(parts, b"") == encode(PIXELS, encoding)
    assert made.index(parts) == (33 if encoding is ImageEncoding.PNG else 20)


def test_exif_after_the_pixels_of_a_png_and_with_a_wrong_checksum_does_not_count() -> None:
    data = source("PNG")
    late = data[:-12] + chunk(b"eXIf", exif()) + data[-12:]
    early = data[:33] + chunk(b"eXIf", exif()) + data[33:]
    assert read_metadata(early).exif
    assert read_metadata(late) == NO_METADATA
    assert read_metadata(early.replace(b"A maker", b"B maker")) == NO_METADATA


def test_the_first_of_each_kind_counts() -> None:
    other = exif("<", 1, (0x0131, SHORT, 7))
    exifs = [segment(0xE1, b"Exif\0\0" + each) for each in (exif(), other)]
    xmps = [segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + each) for each in (XMP, b"<a/>")]
    metadata = read_metadata(with_segments(*exifs, *xmps))
    assert metadata == Metadata(adapt_exif(exif()), adapt_xmp(XMP))


def test_only_what_stands_before_the_pixels_of_a_jpeg_counts() -> None:
    wanted = segment(0xE1, b"Exif\0\0" + exif())
    assert read_metadata(with_segments(b"\xff", b"\xff\x01", wanted)).exif, "after fill bytes"
    assert read_metadata(with_segments(segment(0xDA, b""), wanted)) == NO_METADATA
    assert read_metadata(with_segments(b"\xff\xe0\0\0", wanted)) == NO_METADATA
    comments = segment(0xFE, b"") * 70_000
    assert read_metadata(with_segments(comments, wanted)) == NO_METADATA, "not after that many"


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32), cut=st.integers(0, 3000), count=st.integers(0, 9))
@settings(max_examples=examples(200, 40))
def test_no_damaged_file_is_an_error(kind: str, seed: int, cut: int, count: int) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(source(kind, exif(), XMP))
    for at in random.integers(0, len(data), count):
        data[at] = random.integers(0, 256)
    metadata = read_metadata(bytes(data[: max(0, len(data) - cut)]))
    for encoding in ImageEncoding:
        image = opened(result(metadata, encoding))
        assert image.getexif().get(0x0112, 1) == 1


def test_files_of_other_kinds_have_none() -> None:
    for data in (b"", b"GIF89a" + bytes(99), b"\xff\xd8", b"RIFF", b"\x89PNG\r\n\x1a\n"):
        assert read_metadata(data) == NO_METADATA


def test_xmp_is_inflated_a_few_times_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []
    real = metadata._text

    def counting(content: bytes) -> bytes:
        tries.append(content)
        return real(content)

    monkeypatch.setattr(metadata, "_text", counting)
    damaged = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + b"damaged")
    data = source("PNG")
    read_metadata(data[:33] + damaged * 100 + data[33:])
    assert len(tries) == metadata.MAX_XMP_TRIES
