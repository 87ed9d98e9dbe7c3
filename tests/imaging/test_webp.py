"""WebP: what may stand where in the container, and what is cut off.

libvips has a libwebp of its own. Chunks are those of RFC 9649, 2.7.
"""

import struct

import numpy as np
import pytest
import pyvips

from tests.support.hostile_webps import chunk, extended, frame
from tests.support.image_files import (
    DISPLAY_P3,
    P3,
    Samples,
    as_seen,
    decode,
    matrix_profile,
    noise,
    off_by,
    outcome,
    refusal,
    riff,
    saved,
    tiff,
)
from upscaler.imaging.decode import read_header

pytestmark = pytest.mark.dev

WIDTH, HEIGHT = 60, 40
PIXELS: Samples = noise(HEIGHT, WIDTH, 3) // 4 + 90
LOSSLESS = saved(PIXELS, "WEBP", lossless=True)[12:]
LOSSY = saved(PIXELS, "WEBP", quality=90)[12:]
KINDS = {"lossy": LOSSY, "lossless": LOSSLESS}
kinds = pytest.mark.parametrize("image", KINDS.values(), ids=KINDS)
ICC_FLAG, ALPHA_FLAG, EXIF_FLAG, XMP_FLAG, ANIMATION_FLAG = 0x20, 0x10, 0x08, 0x04, 0x02
ICC, EXIF, XMP = chunk(b"ICCP", P3), chunk(b"EXIF", tiff(6)), chunk(b"XMP ", b"<x/>")
OTHER = chunk(b"ICCP", matrix_profile(DISPLAY_P3[:, [1, 0, 2]], 2.2))


def file(flags: int, *chunks: bytes) -> bytes:
    return extended(flags, WIDTH, HEIGHT, *chunks)


def by_libvips(data: bytes) -> Samples:
    return np.asarray(pyvips.Image.new_from_buffer(data, "", fail_on="warning").numpy())


@kinds
def test_a_profile_is_applied_wherever_it_is(image: bytes) -> None:
    plain = decode(riff(image))
    applied = decode(file(ICC_FLAG, ICC, image))
    assert off_by(applied, plain) > 5
    for chunks in ((image, ICC), (ICC, OTHER, image)):  # the first one counts
        assert np.array_equal(decode(file(ICC_FLAG, *chunks)), applied)
    for data in (file(0, ICC, image), file(ICC_FLAG, image)):  # none is declared, or there
        assert np.array_equal(decode(data), plain)


@kinds
def test_exif_turns_the_image_wherever_it_is(image: bytes) -> None:
    plain = decode(riff(image))
    marked = chunk(b"EXIF", b"Exif\0\0" + tiff(6))
    for chunks in ((EXIF, image), (image, EXIF), (image, EXIF, chunk(b"EXIF", tiff(3)))):
        assert np.array_equal(decode(file(EXIF_FLAG, *chunks)), as_seen(plain, 6))
    assert np.array_equal(decode(file(EXIF_FLAG, image, marked)), as_seen(plain, 6))
    for data in (file(0, image, EXIF), file(EXIF_FLAG, image), riff(image + EXIF)):
        assert np.array_equal(decode(data), plain)


@kinds
def test_other_chunks_and_bytes_behind_the_file_are_ignored(image: bytes) -> None:
    plain = decode(riff(image))
    more = chunk(b"abcd", b"xyz")
    for data in (
        file(XMP_FLAG, image, XMP),
        file(XMP_FLAG, XMP, image),
        file(0, more, image, more),
        riff(image) + b"behind it",
        file(0, image) + XMP,
    ):
        assert np.array_equal(decode(data), plain)


ALPHA = saved(np.dstack([PIXELS, PIXELS[::-1, :, 0]]), "WEBP", quality=90)
HEAD_BYTES = 30
"""RIFF's header and the chunk VP8X."""
ALPH_BYTES = 8 + struct.unpack_from("<I", ALPHA, HEAD_BYTES + 4)[0]
ALPH = ALPHA[HEAD_BYTES : HEAD_BYTES + ALPH_BYTES]
COLOURS = ALPHA[HEAD_BYTES + ALPH_BYTES + ALPH_BYTES % 2 :]


def test_alpha_counts_if_it_is_declared() -> None:
    assert ALPH.startswith(b"ALPH")
    assert COLOURS.startswith(b"VP8 ")
    seen = decode(ALPHA)
    assert off_by(seen[..., 3], PIXELS[::-1, :, 0]) == 0
    assert np.array_equal(seen, by_libvips(ALPHA))
    padded = ALPH + b"\0" * (len(ALPH) % 2)
    for data in (file(0, padded, COLOURS), file(ALPHA_FLAG, COLOURS)):
        assert np.array_equal(decode(data)[..., :3], seen[..., :3])
        assert decode(data)[..., 3:].min(initial=255) == 255


@pytest.mark.parametrize("left", [0, 1, 2, 40, 400])
def test_alpha_that_is_cut_off_is_refused(left: int) -> None:
    """Stored as it is (0), or coded as in the file."""
    for alpha in (ALPH[8:][:left], b"\0" + bytes(left)):
        error = refusal(file(ALPHA_FLAG, chunk(b"ALPH", alpha), COLOURS))
        assert error.type == "image_damaged"
        assert "this WebP is cut off or damaged" in str(error)


@kinds
@pytest.mark.parametrize("missing", [1, 2, 10, 300])
def test_a_webp_that_is_cut_off_is_refused_as_such(image: bytes, missing: int) -> None:
    data = riff(image)
    error = refusal(data[:-missing])
    assert error.type == "image_damaged"
    left, whole = len(data) - missing, len(data)
    assert f"cut off: it has {left} bytes, and says that it has {whole}" in str(error)


@kinds
@pytest.mark.parametrize("missing", [8, 100, 1000])
def test_a_webp_whose_frame_lacks_bytes_is_refused(image: bytes, missing: int) -> None:
    """The lengths fit: libwebp has some rows, and the others are not there."""
    short = chunk(image[:4], image[8:-missing])
    whole = chunk(b"ANIM", bytes(6)), frame(WIDTH, HEIGHT, short)
    for data in (riff(short), file(0, short), file(ANIMATION_FLAG, *whole)):
        error = refusal(data)
        assert error.type == "image_damaged"
        assert "some of its pixels are missing" in str(error)


@pytest.mark.parametrize("change", [1, 2, 400, -2, -50, 2**31])
def test_a_wrong_length_is_refused_as_by_libwebp(change: int) -> None:
    data = riff(LOSSY)
    (length,) = struct.unpack_from("<I", data, 4)
    changed = data[:4] + struct.pack("<I", length + change) + data[8:]
    with pytest.raises(pyvips.Error):
        by_libvips(changed)
    assert isinstance(outcome(changed), str)


@pytest.mark.parametrize(
    "data",
    [
        extended(0, WIDTH + 20, HEIGHT, LOSSY),
        extended(0, WIDTH, HEIGHT - 1, LOSSY),
        file(0, LOSSY, LOSSY),
        riff(file(EXIF_FLAG, LOSSY, chunk(b"EXIF", b"odd"))[12:-1]),
        file(ALPHA_FLAG, COLOURS, ALPH),
    ],
    ids=["larger canvas", "smaller canvas", "two images", "no padding", "alpha behind"],
)
def test_chunks_that_contradict_each_other_are_refused_as_such(data: bytes) -> None:
    with pytest.raises(pyvips.Error):
        by_libvips(data)
    error = refusal(data)
    assert error.type == "image_unreadable"
    assert "its chunks are cut off or contradict each other" in str(error)


@kinds
@pytest.mark.parametrize("flags", [ANIMATION_FLAG, ANIMATION_FLAG | ALPHA_FLAG])
def test_a_single_frame_stands_on_a_transparent_canvas(image: bytes, flags: int) -> None:
    parts = chunk(b"ANIM", bytes(6)), frame(WIDTH, HEIGHT, image)
    data = extended(flags, WIDTH + 7, HEIGHT + 30, *parts)
    expected = np.zeros((HEIGHT + 30, WIDTH + 7, 4))
    expected[:HEIGHT, :WIDTH] = np.dstack([decode(riff(image)), np.full((HEIGHT, WIDTH), 255)])
    assert read_header(data).channels == 4
    assert np.array_equal(decode(data), expected)
    assert np.array_equal(by_libvips(data), expected)


def test_frames_that_are_not_what_they_say_are_refused_as_such() -> None:
    start = chunk(b"ANIM", bytes(6))
    short = file(ANIMATION_FLAG, start, frame(WIDTH - 8, HEIGHT, LOSSLESS))
    empty = file(ANIMATION_FLAG, start, frame(WIDTH, HEIGHT, b""), frame(WIDTH, HEIGHT, LOSSLESS))
    several = file(ANIMATION_FLAG, start, frame(WIDTH, HEIGHT, LOSSLESS) * 2)
    for data in (short, empty):
        assert refusal(data).type == "image_unreadable"
    assert refusal(several).type == "image_animated"
