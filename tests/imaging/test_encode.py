"""Encoding images as PNG and JPEG in strips, and the JSON response around them."""

import base64
import io
import json
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageFile, JpegImagePlugin

from tests.support.image_files import (
    NOISE,
    P3,
    RGB,
    byte,
    chunk,
    decode,
    iccp,
    jpeg_segments,
    noise,
    off_by,
    png,
    png_chunks,
    saved,
    tiff,
)
from tests.support.properties import examples
from upscaler.api.sizes import Size
from upscaler.formats import ImageEncoding
from upscaler.imaging import png_writer
from upscaler.imaging import strips as cutting
from upscaler.imaging.colour import flatten
from upscaler.imaging.encode import encode, encode_strips, most_bytes
from upscaler.imaging.jpeg_writer import DEFAULT_JPEG, SMALL, JpegOptions
from upscaler.imaging.parallel import THREAD_NAME
from upscaler.imaging.pixels import Pixels
from upscaler.service.responses import in_json

PNG, JPEG = ImageEncoding.PNG, ImageEncoding.JPEG

any_picture = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(3, 4))
)
cuts = st.lists(st.integers(0, 40), max_size=6).map(sorted)
"""Where an image is cut into strips; some of them may be empty."""
strip_bytes = st.integers(1, 2000)
"""How much the encoder puts into a strip of its own, in place of a megabyte and more."""


def in_strips(
    strips: Iterable[Pixels],
    height: int,
    wanted: ImageEncoding,
    size: int,
    style: JpegOptions = DEFAULT_JPEG,
) -> bytes:
    with mock.patch.object(cutting, "STRIP_BYTES", size):
        return b"".join(encode_strips(strips, height, wanted, style))


def opened(data: bytes) -> Pixels:
    return np.array(Image.open(io.BytesIO(data)))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if THREAD_NAME in thread.name]


# Both


@given(any_picture, cuts, strip_bytes)
def test_a_png_holds_every_pixel_and_every_alpha(pixels: Pixels, at: list[int], size: int) -> None:
    data = in_strips(np.split(pixels, at), len(pixels), PNG, size)
    image = Image.open(io.BytesIO(data), formats=["PNG"])
    assert image.mode == ("RGB", "RGBA")[pixels.shape[2] - 3]
    assert np.array_equal(np.array(image), pixels)


def test_repeated_rows_take_almost_no_bytes() -> None:
    """As in flat parts, and in whatever was upscaled by repeating pixels."""
    once = noise(200, 300, 3)
    thrice = encode(once.repeat(3, axis=0), PNG)
    assert np.array_equal(opened(thrice), once.repeat(3, axis=0))
    assert len(thrice) < 1.05 * len(encode(once, PNG))


@given(st.integers(1, 50), st.sampled_from([3, 4]), st.data())
def test_rows_that_differ_in_one_sample_are_kept(
    width: int, channels: int, data: st.DataObject
) -> None:
    pixels = noise(1, width, channels).repeat(5, axis=0)
    at = data.draw(st.tuples(*(st.integers(0, side - 1) for side in pixels.shape)))
    pixels[at] += 1
    assert np.array_equal(opened(encode(pixels, PNG)), pixels)


@pytest.mark.parametrize("times", [2, 3, 4])
def test_repeated_pixels_use_another_filter_than_the_mean(photo: Pixels, times: int) -> None:
    """By the left neighbour half of them are 0: the same columns without their rows are larger."""
    wide = photo.repeat(times, axis=1)
    large = encode(wide.repeat(times, axis=0), PNG)
    assert np.array_equal(opened(large), wide.repeat(times, axis=0))
    assert len(large) < 0.9 * len(encode(wide, PNG))


@given(any_picture, cuts, strip_bytes)
def test_a_jpeg_equals_pillows(pixels: Pixels, at: list[int], size: int) -> None:
    """To the last bit: with full chroma no block of 8x8 pixels depends on another."""
    data = in_strips(np.split(pixels, at), len(pixels), JPEG, size)
    flat = flatten(Image.fromarray(pixels))
    whole = saved(np.array(flat), "JPEG", quality=95, subsampling=0)
    assert np.array_equal(opened(data), opened(whole))


@given(any_picture, cuts, strip_bytes)
def test_a_small_jpeg_equals_simplejpegs(pixels: Pixels, at: list[int], size: int) -> None:
    """With half the chroma it is squares of 16x16 pixels that do not depend on each other."""
    data = in_strips(np.split(pixels, at), len(pixels), JPEG, size, SMALL)
    flat = np.array(flatten(Image.fromarray(pixels)))
    whole = simplejpeg.encode_jpeg(flat, 75, "RGB", "420", fastdct=True)
    assert np.array_equal(opened(data), opened(whole))


@pytest.mark.parametrize("wanted", ImageEncoding)
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (1, 2000), (2000, 1), (640, 480), (2048, 1024)])
@pytest.mark.parametrize("levels", [2, 256])
def test_no_file_exceeds_most_bytes(
    size: Size, channels: int, wanted: ImageEncoding, levels: int
) -> None:
    """Of noise, in black and white and in all levels, which nothing compresses."""
    noise = np.random.default_rng(0).integers(0, levels, (size[1], size[0], channels))
    pixels = (noise * (255 // (levels - 1))).astype(np.uint8)
    assert len(encode(pixels, wanted)) <= most_bytes(size, channels)


@given(any_picture, cuts, strip_bytes, st.sampled_from(ImageEncoding))
def test_the_division_into_strips_makes_no_difference(
    pixels: Pixels, at: list[int], size: int, wanted: ImageEncoding
) -> None:
    whole = in_strips([pixels], len(pixels), wanted, size)
    assert in_strips(np.split(pixels, at), len(pixels), wanted, size) == whole


@pytest.mark.parametrize("wanted", ImageEncoding)
def test_the_memory_of_strips_may_be_reused(wanted: ImageEncoding) -> None:
    pixels = noise(300, 50, 3)

    def strips() -> Iterator[Pixels]:
        memory = np.empty((7, 50, 3), np.uint8)
        for top in range(0, 300, 7):
            part = pixels[top : top + 7]
            memory[: len(part)] = part
            yield memory[: len(part)]
            memory[:] = 0

    with mock.patch.object(cutting, "STRIP_BYTES", 4000):
        assert b"".join(encode_strips(strips(), 300, wanted)) == encode(pixels, wanted)


@pytest.mark.parametrize("wanted", ImageEncoding)
def test_rows_need_not_be_contiguous(wanted: ImageEncoding) -> None:
    pixels = noise(40, 60, 4)[::2, 5:55, :3]
    assert encode(pixels, wanted) == encode(np.ascontiguousarray(pixels), wanted)


@pytest.mark.parametrize("wanted", ImageEncoding)
@pytest.mark.parametrize(
    "strips",
    [
        [],
        [noise(5, 5, 3)],
        [noise(5, 5, 3), noise(6, 5, 3)],
        [noise(5, 5, 3), noise(5, 6, 3)],
        [noise(5, 5, 3), noise(5, 5, 4)],
        [noise(10, 5, 3).astype(np.uint16)],
        [noise(10, 5, 3)[..., 0]],
        [noise(10, 5, 3)[..., :2]],
        [noise(10, 5, 3)[:, :0]],
    ],
)
def test_strips_that_make_no_image_are_refused(strips: list[Pixels], wanted: ImageEncoding) -> None:
    with pytest.raises(ValueError, match=r"strips|pixel"):
        in_strips(strips, 10, wanted, 100)
    assert threads() == []


@pytest.mark.parametrize("wanted", ImageEncoding)
def test_a_wrong_shape_is_refused_before_the_first_piece(wanted: ImageEncoding) -> None:
    """So that an answer has not begun when it is found out."""
    with pytest.raises(ValueError, match="strips"):
        encode_strips([np.zeros((4, 4), np.uint8)], 4, wanted)


def test_a_jpeg_has_no_longer_side_than_the_format_allows() -> None:
    tall = np.zeros((65_501, 1, 3), np.uint8)
    for pixels in (tall, tall.swapaxes(0, 1)):
        with pytest.raises(ValueError, match="65500"):
            encode(pixels, JPEG)
        assert opened(encode(pixels, PNG)).shape == pixels.shape
        longest = pixels[:65_500, :65_500]
        assert opened(encode(longest, JPEG)).shape == longest.shape


@pytest.mark.parametrize("wanted", ImageEncoding)
@pytest.mark.parametrize("after", [0, 1, 50])
def test_an_error_of_the_strips_is_raised_unchanged(wanted: ImageEncoding, after: int) -> None:
    fault = MemoryError("no more")

    def strips() -> Iterator[Pixels]:
        for _ in range(after):
            yield noise(8, 40, 3)
        raise fault

    with pytest.raises(MemoryError) as raised:
        in_strips(strips(), 800, wanted, 2000)
    assert raised.value is fault
    assert threads() == []


@pytest.mark.parametrize("wanted", ImageEncoding)
def test_pieces_come_while_strips_are_made(wanted: ImageEncoding) -> None:
    """The file begins long before the image ends; closing it early leaves nothing behind."""
    made = 0

    def strips() -> Iterator[Pixels]:
        nonlocal made
        for made in range(1, 501):  # noqa: B007
            yield noise(8, 40, 3)

    with mock.patch.object(cutting, "STRIP_BYTES", 960):
        pieces = encode_strips(strips(), 4000, wanted)
        assert made == 1
        for _ in range(4):
            next(pieces)
        assert made < 20
        pieces.close()
    assert made < 20
    assert threads() == []


@pytest.mark.parametrize("wanted", ImageEncoding)
def test_many_images_can_be_encoded_at_once(wanted: ImageEncoding) -> None:
    pictures = [noise(90, width, 3) for width in (30, 40, 50)]
    with mock.patch.object(cutting, "STRIP_BYTES", 2000):
        together = list(zip(*(encode_strips([p], 90, wanted) for p in pictures), strict=False))
        assert len(together) > 2
        for index, picture in enumerate(pictures):
            whole = encode(picture, wanted)
            assert whole.startswith(b"".join(pieces[index] for pieces in together))


MEMORY = """
import re, sys
import numpy as np
from upscaler.formats import ImageEncoding
from upscaler.imaging.encode import encode_strips
from upscaler.service.responses import in_json

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

strip = np.random.default_rng(0).integers(0, 256, (512, 8192, 3), dtype=np.uint8)
length, before = 0, peak()
for piece in in_json(encode_strips([strip] * 16, 8192, ImageEncoding(sys.argv[1]))):
    length += len(piece)
print(length, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells of its memory")
@pytest.mark.parametrize("wanted", ImageEncoding)
def test_the_largest_image_takes_little_memory(wanted: ImageEncoding) -> None:
    """Noise, which makes the largest file there can be."""
    command = [sys.executable, "-c", MEMORY, wanted]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    length, extra = map(int, output.split())
    assert length > 8192 * 8192
    assert extra < 64e6


@pytest.mark.parametrize("wanted", ImageEncoding)
def test_metadata_is_not_passed_on(wanted: ImageEncoding) -> None:
    told = iccp(P3) + chunk(b"eXIf", tiff(3)) + chunk(b"tEXt", b"Comment\0where I live")
    data = encode(decode(png(NOISE, 8, RGB, before=told)), wanted)
    if wanted is PNG:
        assert set(png_chunks(data)) == {b"IHDR", b"IDAT", b"IEND"}
    else:
        markers = set(jpeg_segments(data))
        assert markers == {0xE0, 0xDB, 0xC0, 0xC4}  # JFIF, and what its decoding takes


# PNG


@given(any_picture, strip_bytes)
def test_a_png_is_well_formed(pixels: Pixels, size: int) -> None:
    data = in_strips([pixels], len(pixels), PNG, size)
    chunks = list(chunks_of(data))
    kinds = [kind for kind, _ in chunks]
    height, width, channels = pixels.shape
    assert kinds == [b"IHDR", *[b"IDAT"] * (len(kinds) - 2), b"IEND"]
    assert chunks[0][1] == struct.pack(">IIBBBBB", width, height, 8, channels * 4 - 10, 0, 0, 0)
    stream = zlib.decompressobj()
    rows = stream.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"))
    assert stream.eof  # which is only so if the checksum at its end is right
    assert stream.unused_data == b""
    assert len(rows) == height * (1 + width * channels)


def chunks_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each chunk's type and content, its checksum checked."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at = 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        assert checksum == zlib.crc32(kind + content)
        yield kind, content
        at += 12 + length


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_checksums_can_be_combined(first: bytes, second: bytes) -> None:
    combined = png_writer._adler32_combine(zlib.adler32(first), zlib.adler32(second), len(second))
    assert combined == zlib.adler32(first + second)


def test_checksums_of_long_texts_can_be_combined() -> None:
    first, second = b"\xff" * 3_000_000, b"\xfe" * 5_000_001
    combined = png_writer._adler32_combine(zlib.adler32(first), zlib.adler32(second), len(second))
    assert combined == zlib.adler32(first + second)


def test_zlib_replaces_isal() -> None:
    pixels = noise(300, 50, 4)
    with mock.patch.object(png_writer, "zlib", zlib):
        assert np.array_equal(opened(in_strips([pixels], 300, PNG, 4000)), pixels)


def test_a_png_is_not_much_larger_than_a_slow_one(photo: Pixels) -> None:
    """An upscaled photo: of what the file of a plain one holds, most is noise."""
    large = np.array(Image.fromarray(photo).resize((1216, 1024), Image.Resampling.BICUBIC))
    assert len(encode(large, PNG)) < 1.15 * len(saved(large, "PNG"))


# JPEG


def test_a_small_jpeg_is_a_jpeg(photo: Pixels) -> None:
    small, best = (in_strips([photo], 256, JPEG, 10**6, style) for style in (SMALL, DEFAULT_JPEG))
    assert JpegImagePlugin.get_sampling(Image.open(io.BytesIO(small))) == 2  # Pillow's for 4:2:0
    assert 2 * len(small) < len(best)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_jpeg_has_quality_95(channels: int, photo: Pixels) -> None:
    """Its divisors are a tenth of those for 50, which are the standard's example."""
    pixels = np.dstack([photo, photo])[..., :channels]
    written = Image.open(io.BytesIO(encode(pixels, JPEG)), formats=["JPEG"])
    example = Image.open(io.BytesIO(saved(photo, "JPEG", quality=50)), formats=["JPEG"])
    assert isinstance(written, ImageFile.ImageFile)
    assert tables(written) == [[(10 * q + 50) // 100 for q in table] for table in tables(example)]


def tables(image: Image.Image) -> list[list[int]]:
    quantization: dict[int, list[int]] = getattr(image, "quantization")  # noqa: B009
    return list(quantization.values())


def test_a_jpeg_has_full_chroma(photo: Pixels) -> None:
    frame = jpeg_segments(encode(photo, JPEG))[0xC0]
    assert struct.unpack(">BHHB", frame[:6]) == (8, 256, 304, 3)
    assert frame[7::3] == b"\x11\x11\x11"


def test_a_jpeg_shows_the_photo(photo: Pixels) -> None:
    assert np.abs(opened(encode(photo, JPEG)) - photo.astype(int)).mean() < 2


@given(st.tuples(byte, byte, byte), byte)
def test_a_jpeg_is_put_on_white(colour: tuple[int, int, int], alpha: int) -> None:
    pixels = np.full((16, 16, 4), (*colour, alpha), dtype=np.uint8)
    written = opened(encode(pixels, JPEG))
    share = alpha / 255
    assert off_by(written, np.full((16, 16, 3), np.array(colour) * share + 255 * (1 - share))) <= 2


@pytest.mark.parametrize(("height", "lots"), [(16, 1), (17, 2), (32, 2), (400, 25)])
def test_a_jpeg_restarts_after_every_strip(height: int, lots: int) -> None:
    """ITU-T T.81, B.2.1: restarts are counted from 0 to 7 over and over, in blocks of 8x8."""
    data = in_strips([noise(height, 20, 3)], height, JPEG, 16 * 24 * 3)
    segments = jpeg_segments(data)
    assert (0xDD in segments) == (lots > 1)
    if lots > 1:
        assert segments[0xDD] == struct.pack(">H", 3 * 2)
    scan = data[data.index(b"\xff\xda") + 2 :]
    restarts = [b for a, b in pairwise(scan) if a == 0xFF and b]
    assert restarts == [*(0xD0 + n % 8 for n in range(lots - 1)), 0xD9]


def test_a_jpeg_needs_no_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(300, 50, 3)
    wanted = in_strips([pixels], 300, JPEG, 4000)
    monkeypatch.delattr("os.memfd_create", raising=False)
    assert in_strips([pixels], 300, JPEG, 4000) == wanted


# JSON


@given(st.lists(st.binary(max_size=10)))
@settings(max_examples=examples(300))
def test_the_response_is_the_same_json(pieces: list[bytes]) -> None:
    """RES-1 to RES-3."""
    text = base64.b64encode(b"".join(pieces)).decode()
    wanted = json.dumps({"image_b64": text, "removed_for_safety": False}, separators=(",", ":"))
    assert b"".join(in_json(pieces)) == wanted.encode()


def test_the_response_has_as_many_pieces_as_the_file() -> None:
    pieces = iter([b"abcd", b"efgh"])
    answer = in_json(pieces)
    assert next(answer) == b'{"image_b64":"YWJj'
    assert list(pieces) == [b"efgh"]
