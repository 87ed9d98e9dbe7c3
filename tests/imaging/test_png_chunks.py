"""Faults in the chunks of a PNG: those that do not matter to the image, and those that do."""

import struct
import zlib

import numpy as np
import pytest

from tests.support.image_files import (
    ADAM7,
    DISPLAY_P3,
    GREY,
    INDEXED,
    NOISE,
    P3,
    RGB,
    RGB_ALPHA,
    Samples,
    animation,
    as_seen,
    chunk,
    decode,
    iccp,
    idat,
    matrix_profile,
    no_decoding,
    noise,
    off_by,
    png,
    png_file,
    refusal,
    scanlines,
    tiff,
)
from upscaler.imaging.decode import read_header


def damaged(data: bytes) -> bytes:
    """The same chunk with a wrong checksum."""
    return data[:-1] + bytes([data[-1] ^ 1])


def rgb(*before: bytes, after: bytes = b"") -> bytes:
    return png(NOISE, 8, RGB, before=b"".join(before), after=after)


INDICES = noise(24, 40, 1, bits=4)
COLOURS = noise(16, 3)
PALETTE = chunk(b"PLTE", COLOURS.tobytes())
SHOWN: Samples = COLOURS[INDICES[..., 0]]


def indexed(*before: bytes, after: bytes = b"") -> bytes:
    return png(INDICES, 4, INDEXED, before=b"".join(before), after=after)


# tRNS (11.3.1.1)


def key(colour: Samples) -> bytes:
    return chunk(b"tRNS", colour.astype(">u2").tobytes())


KEY, OTHER_KEY = key(NOISE[0, 0]), key(NOISE[0, 1])
WITH_KEY: Samples = np.dstack([NOISE, np.where((NOISE[0, 0] == NOISE).all(axis=2), 0, 255)])


@pytest.mark.parametrize(
    "before",
    [
        KEY,
        KEY + OTHER_KEY,
        damaged(OTHER_KEY) + KEY,
        chunk(b"tRNS", b"\0") + KEY,
        KEY + chunk(b"PLTE", bytes(9)),
        chunk(b"tRNS", KEY[8:14] + b"more"),
    ],
    ids=["one", "two", "second-valid", "first-short", "before-palette", "long"],
)
def test_the_first_valid_transparent_colour_counts(before: bytes) -> None:
    assert off_by(decode(rgb(before)), WITH_KEY) == 0


@pytest.mark.parametrize("content", [b"", b"\0", KEY[8:13]], ids=["empty", "byte", "five"])
def test_a_transparent_colour_that_is_too_short_is_ignored(content: bytes) -> None:
    assert off_by(decode(rgb(chunk(b"tRNS", content))), NOISE) == 0


def test_a_transparent_colour_behind_the_pixels_is_ignored() -> None:
    assert off_by(decode(rgb(after=KEY)), NOISE) == 0


def test_a_transparent_colour_beside_alpha_is_ignored() -> None:
    pixels = noise(24, 40, 4)
    data = png(pixels, 8, RGB_ALPHA, before=key(pixels[0, 0, :3]))
    assert off_by(decode(data), pixels) == 0


def with_alpha(*alphas: int) -> Samples:
    """SHOWN with these alphas of the first colours."""
    each = np.array([*alphas, *[255] * (16 - len(alphas))])
    return np.dstack([SHOWN, each[INDICES[..., 0]]])


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (PALETTE + chunk(b"tRNS", b"\0\x80"), with_alpha(0, 128)),
        (PALETTE + chunk(b"tRNS", b"\0\x80") + chunk(b"tRNS", b"\x40"), with_alpha(0, 128)),
        (PALETTE + damaged(chunk(b"tRNS", b"\0")) + chunk(b"tRNS", b"\x40"), with_alpha(64)),
        (PALETTE + chunk(b"tRNS", b"") + chunk(b"tRNS", b"\x40"), with_alpha(64)),
        (PALETTE + chunk(b"tRNS", bytes(range(17))), with_alpha(*range(16))),
        (chunk(b"tRNS", b"\0") + PALETTE + chunk(b"tRNS", b"\x40"), with_alpha(64)),
        (chunk(b"tRNS", b"\0") + PALETTE, SHOWN),
        (PALETTE + chunk(b"tRNS", b""), SHOWN),
        (PALETTE + chunk(b"tRNS", bytes(257)), SHOWN),
        (PALETTE + damaged(chunk(b"tRNS", b"\0")), SHOWN),
    ],
    ids=[
        *("one", "two", "second-valid", "first-empty", "more-than-colours", "before-and-behind"),
        *("before-palette", "empty", "too-many", "damaged"),
    ],
)
def test_the_first_valid_alphas_of_a_palette_count(before: bytes, expected: Samples) -> None:
    assert off_by(decode(indexed(before)), expected) == 0


# PLTE (11.2.2)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("count", [1, 3, 14, 255])
@pytest.mark.parametrize("alphas", [b"", b"\0\x80", bytes(256)], ids=["none", "two", "all"])
def test_an_index_beyond_the_palette_is_opaque_black(bits: int, count: int, alphas: bytes) -> None:
    indices, colours = noise(24, 40, 1, bits=bits), noise(count, 3)
    before = chunk(b"PLTE", colours.tobytes()) + (chunk(b"tRNS", alphas) if alphas else b"")
    each = np.zeros((256, 4), int)
    each[:, 3] = 255
    each[:count, :3] = colours
    each[: min(count, len(alphas)), 3] = list(alphas[:count])
    expected = each[indices[..., 0]][..., : 4 if alphas else 3]
    data = png(indices, bits, INDEXED, before=before)
    assert off_by(decode(data), expected) == 0


def test_an_index_beyond_the_palette_is_black_behind_a_profile_as_well() -> None:
    """Whose black is white."""
    inverse = matrix_profile(DISPLAY_P3, 2.2).replace(
        b"curv\0\0\0\0\0\0\0\1\2\x33", b"curv\0\0\0\0\0\0\0\1\0\0"
    )
    data = png(INDICES, 4, INDEXED, before=iccp(inverse) + chunk(b"PLTE", bytes(9)))
    assert sorted(np.unique(decode(data))) == [0, 255]
    assert off_by(decode(data)[..., 0], np.where(INDICES[..., 0] < 3, 255, 0)) == 0


def test_a_palette_may_have_more_colours_than_its_depth() -> None:
    data = indexed(chunk(b"PLTE", COLOURS.tobytes() + bytes(3 * 240)))
    assert off_by(decode(data), SHOWN) == 0


SUGGESTED = {
    "sound": chunk(b"PLTE", bytes(9)),
    "empty": chunk(b"PLTE"),
    "part-of-a-colour": chunk(b"PLTE", bytes(10)),
    "too-many": chunk(b"PLTE", bytes(771)),
    "damaged": damaged(chunk(b"PLTE", bytes(9))),
    "twice": chunk(b"PLTE", bytes(9)) * 2,
}


@pytest.mark.parametrize("palette", SUGGESTED.values(), ids=SUGGESTED)
@pytest.mark.parametrize("behind", [False, True])
def test_a_palette_that_is_only_suggested_has_no_effect(palette: bytes, *, behind: bool) -> None:
    data = rgb(after=palette) if behind else rgb(palette)
    assert off_by(decode(data), NOISE) == 0
    grey = png(NOISE[..., :1], 8, GREY, before=palette)
    assert off_by(decode(grey)[..., :1], NOISE[..., :1]) == 0


def test_a_palette_behind_the_pixels_does_not_replace_the_one_before() -> None:
    assert off_by(decode(indexed(PALETTE, after=chunk(b"PLTE", bytes(48)))), SHOWN) == 0


# eXIf (11.3.4.5)


@pytest.mark.parametrize(
    ("before", "orientation"),
    [
        ([tiff(6), tiff(3)], 6),
        ([b"garbage" * 9, tiff(6)], 6),
        ([b"", tiff(8)], 8),
        ([tiff(1), tiff(6)], 1),
    ],
)
def test_the_first_valid_exif_turns_the_image(before: list[bytes], orientation: int) -> None:
    data = rgb(*(chunk(b"eXIf", exif) for exif in before), after=chunk(b"eXIf", tiff(7)))
    assert off_by(decode(data), as_seen(NOISE, orientation)) == 0


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_behind_the_pixels_does_not_turn_the_image(orientation: int) -> None:
    data = rgb(after=chunk(b"eXIf", tiff(orientation)))
    assert read_header(data).size == (40, 24)
    assert off_by(decode(data), NOISE) == 0


def test_exif_with_a_wrong_checksum_does_not_turn_the_image() -> None:
    turn = chunk(b"eXIf", tiff(6))
    assert off_by(decode(rgb(damaged(turn))), NOISE) == 0
    assert off_by(decode(rgb(damaged(turn), turn)), as_seen(NOISE, 6)) == 0


# Others

USELESS = {
    "sBIT": chunk(b"sBIT", bytes((5, 6, 5))),
    "hIST": chunk(b"hIST", bytes(4)),
    "sPLT": chunk(b"sPLT", b"name\0\x08" + bytes(6)),
    "bKGD": chunk(b"bKGD", bytes(6)),
    "mDCV": chunk(b"mDCV", bytes(24)),
    "cLLI": chunk(b"cLLI", bytes(8)),
    "acTL-of-one": chunk(b"acTL", struct.pack(">II", 1, 0)),
    "acTL-of-none": chunk(b"acTL", bytes(8)),
    "acTL-of-too-many": chunk(b"acTL", struct.pack(">II", 2**31, 0)),
    "acTL-short": chunk(b"acTL", b"\0"),
    "unknown": chunk(b"vpAg", bytes(9)),
    "exif-of-imagemagick": chunk(
        b"zTXt",
        b"Raw profile type exif\0\0"
        + zlib.compress(b"\nexif\n32\n" + b"457869660000" + tiff(6).hex().encode() + b"\n"),
    ),
}


@pytest.mark.parametrize("useless", USELESS.values(), ids=USELESS)
def test_a_chunk_that_says_nothing_about_the_pixels_has_no_effect(useless: bytes) -> None:
    for data in (rgb(useless), rgb(useless * 2), rgb(damaged(useless)), rgb(after=useless)):
        assert off_by(decode(data), NOISE) == 0


def test_a_chunk_between_those_of_the_pixels_has_no_effect() -> None:
    stream = zlib.compress(scanlines(NOISE, 8))
    between = chunk(b"IDAT", stream[:500]) + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", stream[500:])
    assert off_by(decode(png_file((40, 24), 8, RGB, between)), NOISE) == 0


# Refusals, and what they say


def header(
    width: int = 40,
    height: int = 24,
    bits: int = 8,
    colour: int = RGB,
    methods: tuple[int, int, int] = (0, 0, 0),
) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, *methods))


def behind_signature(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join((*chunks, idat(NOISE, 8), chunk(b"IEND")))


UNREADABLE = {
    "CgBI": (behind_signature(chunk(b"CgBI", bytes(4)), header()), "Apple's kind CgBI"),
    "no-header": (behind_signature(), "does not begin with its header (IHDR)"),
    "header-later": (behind_signature(chunk(b"tEXt", b"a\0b"), header()), "does not begin with"),
    "header-cut": (behind_signature(header())[:30], "cut off in its header (IHDR)"),
    "header-damaged": (behind_signature(damaged(header())), "checksum of IHDR"),
    "header-twice": (behind_signature(header(), header()), "two chunks IHDR"),
    "no-such-type": (behind_signature(header(colour=5)), "colour type 5"),
    "no-such-depth": (behind_signature(header(bits=4)), "colour type 2 with 4 bits"),
    "no-width": (behind_signature(header(width=0)), "width or height of 0"),
    "no-height": (behind_signature(header(height=0)), "width or height of 0"),
    "compression": (behind_signature(header(methods=(1, 0, 0))), "method"),
    "filtering": (behind_signature(header(methods=(0, 1, 0))), "method"),
    "interlacing": (behind_signature(header(methods=(0, 0, 2))), "method"),
    "unknown": (behind_signature(header(), chunk(b"ABCD")), "its chunk ABCD"),
    "no-letters": (behind_signature(header(), chunk(b"\x07\xffCD")), "not of letters"),
    "no-palette": (indexed(), "no palette (PLTE)"),
    "late-palette": (indexed(after=PALETTE), "no palette (PLTE)"),
    "two-palettes": (indexed(PALETTE, PALETTE), "two chunks PLTE"),
    "palette-damaged": (indexed(damaged(PALETTE)), "checksum of PLTE"),
    "palette-empty": (indexed(chunk(b"PLTE")), "palette (PLTE) of 0 bytes"),
    "palette-in-part": (indexed(chunk(b"PLTE", bytes(47))), "palette (PLTE) of 47 bytes"),
    "palette-too-long": (indexed(chunk(b"PLTE", bytes(771))), "palette (PLTE) of 771 bytes"),
}


@pytest.mark.parametrize(("data", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_fault_before_the_pixels_is_refused_by_its_name(data: bytes, reason: str) -> None:
    with no_decoding():
        refused = refusal(data)
    assert refused.type == "image_unreadable"
    assert reason in str(refused)
    assert str(refused).isprintable()


def test_an_animation_is_refused_by_its_name() -> None:
    control = chunk(b"acTL", struct.pack(">II", 2, 0))
    for data in (animation("PNG"), rgb(control), rgb(iccp(P3) + control)):
        refused = refusal(data)
        assert refused.type == "image_animated"
        assert "animated" in str(refused)
    assert off_by(decode(rgb(damaged(control))), NOISE) == 0


def test_an_animation_that_is_said_behind_the_pixels_is_none() -> None:
    """As for libvips, OpenCV and browsers: acTL comes before IDAT (5.6)."""
    data = rgb(after=chunk(b"acTL", struct.pack(">II", 2, 0)))
    assert off_by(decode(data), NOISE) == 0


ROWS = scanlines(NOISE, 8)
STREAM = zlib.compress(ROWS)


def of_stream(*parts: bytes) -> bytes:
    return png_file((40, 24), 8, RGB, *(chunk(b"IDAT", part) for part in parts))


def uncompressed(rows: bytes) -> bytes:
    """A stream whose bytes stand in the file as they are, so that its rows can be counted."""
    return zlib.compress(rows, 0)


DAMAGED = {
    "no-pixels": (png_file((40, 24), 8, RGB), "ends before its pixels (IDAT)"),
    "no-bytes": (of_stream(b""), "ends before its pixels (IDAT)"),
    "no-rows": (of_stream(zlib.compress(b"")), "cut off after row 0 of 24"),
    "a-byte-less": (of_stream(zlib.compress(ROWS[:-1])), "cut off after row 23 of 24"),
    "half": (of_stream(zlib.compress(ROWS[: 12 * 121])), "cut off after row 12 of 24"),
    "no-checksum": (of_stream(STREAM[:-4]), "cut off behind its last row"),
    "chunk-damaged": (
        png_file((40, 24), 8, RGB, damaged(idat(NOISE, 8))),
        "damaged after row 0 of 24: the checksum of its pixels (IDAT) is wrong",
    ),
    "stream-damaged": (of_stream(STREAM[:2] + b"\xff\xff" + STREAM[4:]), "damaged after row 0 of"),
    "checksum-damaged": (of_stream(STREAM[:-4], bytes(4)), "damaged behind its last row"),
    "no-such-filter": (of_stream(zlib.compress(b"\7" + ROWS[1:])), "compressed pixels are wrong"),
    "far-too-long": (of_stream(zlib.compress(ROWS + bytes(2**21))), "far more rows"),
}


@pytest.mark.parametrize(("data", "reason"), DAMAGED.values(), ids=DAMAGED)
def test_a_fault_in_the_pixels_is_refused_with_its_place(data: bytes, reason: str) -> None:
    refused = refusal(data)
    assert refused.type == "image_damaged"
    assert reason in str(refused)


@pytest.mark.parametrize("behind", [damaged(chunk(b"IDAT", b"more")), chunk(b"IDAT", b"more")[:9]])
def test_chunks_behind_the_end_of_the_stream_may_be_damaged(behind: bytes) -> None:
    """But not the one in which it ends."""
    sound = png_file((40, 24), 8, RGB, chunk(b"IDAT", STREAM[:500]), chunk(b"IDAT", STREAM[500:]))
    assert off_by(decode(sound[:-12] + behind), NOISE) == 0
    assert refusal(sound[:-13]).type == "image_damaged"


@pytest.mark.parametrize("rows", [0, 1, 11, 23])
@pytest.mark.parametrize("length", [121, 1000, 2**16])
def test_a_file_that_is_cut_off_tells_how_many_rows_there_are(rows: int, length: int) -> None:
    """However the pixels are split: 8 + 25 bytes come before them, and 8 before each part."""
    stream = uncompressed(ROWS)
    parts = [stream[at : at + length] for at in range(0, len(stream), length)]
    end = 7 + rows * 121 + 60  # of the stream: its two bytes, five of a block, the rows and a half
    kept = 33 + end + 8 * (1 + end // length) + 4 * (end // length)
    data = of_stream(*parts)[:kept]
    assert f"cut off after row {rows} of 24" in str(refusal(data))


@pytest.mark.parametrize(("number", "rows"), [(1, 0), (1, 2), (4, 1), (7, 0), (7, 11)])
def test_an_interlaced_file_that_is_cut_off_tells_the_pass(number: int, rows: int) -> None:
    passes = [NOISE[y::dy, x::dx] for x, y, dx, dy in ADAM7]
    kept = [*passes[: number - 1], passes[number - 1][:rows]]
    stream = zlib.compress(b"".join(scanlines(each, 8) for each in kept if each.size))
    data = png_file((40, 24), 8, RGB, chunk(b"IDAT", stream), interlaced=True)
    of = len(passes[number - 1])
    assert f"cut off after row {rows} of {of} in pass {number} of 7" in str(refusal(data))
