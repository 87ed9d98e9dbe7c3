"""Files that are damaged, or hold more than one image: most are PNGs that mislead a decoder."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.image_files import (
    BLOCKS,
    DISPLAY_P3,
    INDEXED,
    NOISE,
    RGB,
    animation,
    chunk,
    decode,
    formats,
    idat,
    matrix_profile,
    no_decoding,
    noise,
    off_by,
    outcome,
    png,
    png_file,
    refusal,
    saved,
    scanlines,
    tiff,
)
from tests.support.properties import examples
from upscaler.imaging.pixels import Pixels

# Damage


@formats
def test_a_truncated_file_gives_all_its_pixels_or_an_error(
    kind: str, options: dict[str, Any], photo: Pixels
) -> None:
    data = saved(photo[:96, :128], kind, **options)
    whole = decode(data)
    for kept in {*range(0, len(data), len(data) // 60), *range(len(data) - 60, len(data))}:
        result = outcome(data[:kept])
        if isinstance(result, str):
            assert result in ("image_unreadable", "image_damaged"), kept
        else:
            assert np.array_equal(result, whole), kept


ENDS = {"PNG": 12, "JPEG": 2, "WEBP": 0}
"""IEND and EOI, behind which there is nothing of the image, and without which it is complete."""


@formats
def test_a_file_that_lacks_more_than_its_end_is_refused(
    kind: str, options: dict[str, Any], photo: Pixels
) -> None:
    data = saved(photo[:96, :128], kind, **options)
    cuts = range(ENDS[kind] + 1, len(data), len(data) // 40)
    assert {type(outcome(data[:-missing])) for missing in cuts} == {str}


@pytest.mark.parametrize("missing", range(1, 13))
def test_a_png_may_lack_its_end(missing: int) -> None:
    assert off_by(decode(png(NOISE, 8, RGB)[:-missing]), NOISE) == 0


@pytest.mark.parametrize("trailer", [bytes(64), b"SEFHk\0\0\0" * 9, b"\xff" * 40])
def test_a_png_without_its_end_may_have_a_trailer(trailer: bytes) -> None:
    assert off_by(decode(png(NOISE, 8, RGB)[:-12] + trailer), NOISE) == 0


@pytest.mark.parametrize("missing", range(13, 21))
def test_a_png_may_not_lack_its_checksums(missing: int) -> None:
    """Those of its last chunk and of the stream in it: libpng refuses both."""
    assert refusal(png(NOISE, 8, RGB)[:-missing]).type == "image_damaged"


@pytest.mark.parametrize("missing", range(1, 5))
def test_a_png_whose_stream_ends_before_its_checksum_is_damaged(missing: int) -> None:
    """In a chunk that is whole."""
    stream = zlib.compress(scanlines(NOISE, 8))[:-missing]
    assert refusal(png_file((40, 24), 8, RGB, chunk(b"IDAT", stream))).type == "image_damaged"


@pytest.mark.parametrize(
    ("surplus", "read"), [(1, True), (1000, True), (2**20, True), (2**20 + 2**16, False)]
)
def test_a_png_may_have_surplus_rows(surplus: int, *, read: bool) -> None:
    stream = zlib.compress(scanlines(NOISE, 8) + bytes(surplus))
    data = png_file((40, 24), 8, RGB, chunk(b"IDAT", stream))
    assert np.array_equal(outcome(data), NOISE) == read


def with_wrong_checksum(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("kind", [b"tEXt", b"pHYs", b"tRNS", b"eXIf", b"abCD"])
def test_an_ancillary_chunk_with_a_wrong_crc_is_ignored(kind: bytes) -> None:
    """As by libpng and browsers: the colour of tRNS, too, that is transparent or not."""
    content = tiff(6) if kind == b"eXIf" else NOISE[0, 0].astype(">u2").tobytes()
    data = png(NOISE, 8, RGB, before=with_wrong_checksum(chunk(kind, content)))
    assert off_by(decode(data), NOISE) == 0


@pytest.mark.parametrize("rows", [1, 12, 23])
def test_a_png_whose_stream_ends_before_its_last_row_is_damaged(rows: int) -> None:
    data = png_file((40, 24), 8, RGB, idat(NOISE[:rows], 8))
    assert refusal(data).type == "image_damaged"


@pytest.mark.parametrize("length", [1000, 2**16, 2**24])
def test_rows_in_several_parts_are_all_read(length: int) -> None:
    """By how long the chunks of the pixels are: many to a part, one, and one for all parts."""
    pixels = noise(600, 700, 3)
    stream = zlib.compress(scanlines(pixels, 8))
    chunks = [chunk(b"IDAT", stream[at : at + length]) for at in range(0, len(stream), length)]
    assert off_by(decode(png_file((700, 600), 8, RGB, *chunks)), pixels) == 0
    damaged = chunk(b"IDAT", stream[:-5]), chunk(b"IDAT", bytes((stream[-5] ^ 1, *stream[-4:])))
    assert refusal(png_file((700, 600), 8, RGB, *damaged)).type == "image_damaged"
    lacking = zlib.compress(scanlines(pixels[:599], 8))
    assert refusal(png_file((700, 600), 8, RGB, chunk(b"IDAT", lacking))).type == "image_damaged"


def test_a_png_with_a_frame_smaller_than_itself_is_refused() -> None:
    """The frame control of an animation may not shrink the image in IDAT: none may be left out.

    APNG: the first frame's has x and y offsets of 0 and the width and height of the header.
    """
    control = struct.pack(">IIIIIHHBB", 0, 2, 2, 1, 1, 1, 1, 0, 0)
    pixels = chunk(b"fcTL", control) + idat(NOISE[:2, :2], 8)
    assert refusal(png_file((40, 24), 8, RGB, pixels)).type in ("image_unreadable", "image_damaged")


def test_a_png_without_pixels_is_damaged() -> None:
    assert refusal(png_file((40, 24), 8, RGB)).type == "image_damaged"


def test_an_indexed_png_without_a_palette_is_refused() -> None:
    data = png(NOISE[..., :1], 8, INDEXED)
    assert refusal(data).type in ("image_unreadable", "image_damaged")


def test_a_png_whose_stream_was_altered_is_damaged() -> None:
    data = bytearray(png(NOISE, 8, RGB))
    for at in range(60, len(data) - 30, 97):
        data[at] ^= 0x10
        assert refusal(bytes(data)).type == "image_damaged", at
        data[at] ^= 0x10


@pytest.mark.filterwarnings("ignore")
@formats
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=examples(40))
def test_an_altered_file_gives_pixels_or_a_refusal(
    kind: str, options: dict[str, Any], seed: int
) -> None:
    """With its warnings ignored, as outside of tests, so that more of a decoder is reached."""
    options = {**options, "exif": tiff(6), "icc_profile": matrix_profile(DISPLAY_P3, 2.2)}
    data = bytearray(saved(BLOCKS, kind, **options))
    chosen = np.random.default_rng(seed)
    for at in chosen.integers(8, len(data), chosen.integers(1, 6)):
        data[at] = chosen.integers(256)
    result = outcome(bytes(data))
    assert not isinstance(result, str) or result.startswith("image_")


@pytest.mark.parametrize("key", [b"transparency", b"icc_profile", b"interlace", b"bbox", b"exif"])
def test_no_keyword_of_a_text_changes_how_a_png_is_read(key: bytes) -> None:
    text = chunk(b"tEXt", key + b"\0hello")
    assert off_by(decode(png(NOISE, 8, RGB, before=text)), NOISE) == 0


# More than one image


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_refused_without_decoding(kind: str) -> None:
    data = animation(kind)
    with no_decoding():
        assert refusal(data).type == "image_animated"


def test_the_still_image_of_a_png_is_used_and_not_its_frame() -> None:
    control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 40, 24, 0, 0, 1, 1, 0, 0))
    frame = chunk(b"fdAT", struct.pack(">I", 1) + zlib.compress(scanlines(NOISE[::-1], 8)))
    count = chunk(b"acTL", struct.pack(">II", 1, 0))
    assert off_by(decode(png(NOISE, 8, RGB, before=count, after=control + frame)), NOISE) == 0


def test_an_animation_of_one_frame_is_a_still_image() -> None:
    control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 40, 24, 0, 0, 1, 1, 0, 0))
    count = chunk(b"acTL", struct.pack(">II", 1, 0))
    assert off_by(decode(png(NOISE, 8, RGB, before=count + control)), NOISE) == 0


def test_a_jpeg_followed_by_another_is_its_first_image() -> None:
    data = animation("MPO")
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert off_by(decode(data), decode(saved(NOISE, "JPEG"))) == 0


def test_a_jpeg_may_lack_its_further_images() -> None:
    data = animation("MPO")
    second = data.index(b"\xff\xd8\xff", 2)
    assert off_by(decode(data[: second + 100]), decode(data)) == 0
    assert refusal(data[: second - 100]).type == "image_damaged"
