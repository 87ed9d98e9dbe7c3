"""Formats that the command line reads and writes beyond the API's."""

import io
import struct
import sys
import types
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from tests.support.image_files import NOISE, P3, RGB, as_seen, chunk, noise, off_by, png_file, saved
from upscaler.errors import ImageError
from upscaler.formats import FILE_FORMATS, MAX_SIDE_PX, FileFormat, ImageEncoding, OtherFormat
from upscaler.imaging import other_formats, other_writers
from upscaler.imaging.decode import read_header, upright
from upscaler.imaging.other_formats import read_any
from upscaler.imaging.other_writers import write_image
from upscaler.imaging.pixels import Pixels

pytestmark = pytest.mark.dev

SMOOTH: Pixels = np.ascontiguousarray(
    np.indices((48, 60)).transpose(1, 2, 0)[..., [0, 1, 0]] * (5, 4, 2)
).astype(np.uint8)
"""A slope, which lossy formats keep within a few levels."""


def written(pixels: Pixels, encoding: FileFormat, rows: int = 7) -> bytes:
    file = io.BytesIO()
    strips = (pixels[top : top + rows] for top in range(0, len(pixels), rows))
    write_image(file, strips, len(pixels), encoding)
    return file.getvalue()


def by_libvips(data: bytes) -> Pixels:
    return np.asarray(pyvips.Image.new_from_buffer(data, "", fail_on="warning").numpy(), np.uint8)


def by_opencv(data: bytes) -> Pixels:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return np.asarray(pixels[..., [2, 1, 0]], np.uint8)


# Reading


@pytest.mark.parametrize("kind", ["TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_lossless_files_are_read_as_libvips_reads_them(kind: str, mode: str) -> None:
    file = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(file, kind)
    read = read_any(file.getvalue())
    expected = by_libvips(file.getvalue()) if kind == "TIFF" else by_opencv_rgb(file.getvalue())
    expected = expected if expected.ndim == 3 else expected[..., np.newaxis]
    assert read.size == (40, 24)
    assert read.channels == 3
    assert np.array_equal(read.pixels(), np.broadcast_to(expected, (24, 40, 3)))


def by_opencv_rgb(data: bytes) -> Pixels:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return np.asarray(pixels[..., ::-1], np.uint8)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_tiff_of_any_compression_keeps_its_pixels(compression: str, channels: int) -> None:
    pixels = noise(24, 40, channels)
    read = read_any(saved(pixels, "TIFF", compression=compression))
    assert read.channels == channels
    assert np.array_equal(read.pixels(), pixels)


@pytest.mark.parametrize("order", ["little", "big"])
def test_sixteen_bits_keep_their_upper_eight(order: str) -> None:
    grey = noise(24, 40, bits=16)
    file = io.BytesIO()
    mode = "I;16" if order == "little" else "I;16B"
    Image.frombytes(
        mode, (40, 24), grey.astype("<u2" if order == "little" else ">u2").tobytes()
    ).save(file, "TIFF")
    assert np.array_equal(read_any(file.getvalue()).pixels()[..., 1], grey >> 8)


def test_sixteen_bits_in_colour_keep_their_upper_eight() -> None:
    samples = noise(24, 40, 3, bits=16)
    encoded, data = cv2.imencode(".tiff", samples[..., ::-1])
    assert encoded
    pixels = read_any(data.tobytes()).pixels()
    assert np.abs(pixels.astype(int) - (samples >> 8)).max() == 0


def test_cmyk_and_lab_become_rgb() -> None:
    white_ink = Image.new("CMYK", (20, 20), (0, 255, 255, 0))
    assert read_any(image_file(white_ink, "TIFF")).pixels()[5, 5].tolist() == [255, 0, 0]
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (20, 20), (200, 30, 40)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert lab is not None
    pixels = read_any(image_file(lab, "TIFF")).pixels()
    assert off_by(pixels, np.full((20, 20, 3), (200, 30, 40))) <= 3


def image_file(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
def test_a_profile_is_applied(kind: str) -> None:
    """The same pixels with the same profile in a PNG, which other tests hold to arithmetic."""
    flat = Image.new("RGB", (40, 30), (200, 100, 50))
    expected = read_header(image_file(flat, "PNG", icc_profile=P3)).pixels()
    assert off_by(expected, np.array(flat)) > 10
    assert off_by(read_any(image_file(flat, kind, icc_profile=P3)).pixels(), expected) <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
def test_an_orientation_is_applied_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": "4:4:4"} if kind == "AVIF" else {}
    read = read_any(image_file(Image.fromarray(SMOOTH), kind, exif=exif, **options))
    expected = as_seen(SMOOTH, orientation)
    assert read.size == (expected.shape[1], expected.shape[0])
    assert off_by(read.pixels(), expected) <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_upright(orientation: int) -> None:
    turned = upright(NOISE, orientation)
    assert np.array_equal(turned, as_seen(NOISE, orientation))
    assert turned.flags.c_contiguous


@pytest.mark.parametrize(("kind", "part"), [("GIF", "frame"), ("TIFF", "page"), ("AVIF", "frame")])
def test_the_first_of_several_is_read_and_said_so(kind: str, part: str) -> None:
    first, second = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue"))
    data = image_file(first, kind, save_all=True, append_images=[second])
    read = read_any(data)
    assert read.note == f"the first {part} of several is read"
    assert off_by(read.pixels(), np.full((30, 40, 3), (255, 0, 0))) <= 3
    assert read_any(image_file(first, kind)).note == ""


def test_a_transparent_gif_has_alpha() -> None:
    image = Image.new("P", (40, 30))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (0, 0, 20, 30))
    read = read_any(image_file(image, "GIF", transparency=1))
    assert read.channels == 4
    pixels = read.pixels()
    assert pixels[5, 5, 3] == 0
    assert pixels[5, 30].tolist() == [255, 0, 0, 255]


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "BMP", "AVIF"])
def test_a_file_that_is_cut_is_refused(kind: str) -> None:
    data = saved(noise(64, 64, 3), kind)
    with pytest.raises(ImageError, match="damaged"):
        read_any(data[: len(data) // 2]).pixels()


def test_samples_of_32_bits_are_refused_with_what_to_do() -> None:
    data = image_file(Image.new("F", (20, 20), 0.5), "TIFF")
    with pytest.raises(ImageError, match="save it with 8 or 16"):
        read_any(data).pixels()


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
AVIF_IN_MIF1 = b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif"


@pytest.mark.parametrize(
    ("data", "package"),
    [
        (HEIC, "pip install pillow-heif"),
        (b"\xff\x0a" + bytes(20), "pip install pillow-jxl-plugin"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "pip install pillow-jxl-plugin"),
    ],
)
def test_without_its_plugin_a_format_is_refused_with_what_to_install(
    data: bytes, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, _ in other_formats.PLUGINS.values():
        monkeypatch.setitem(sys.modules, module, None)
    other_formats._register.cache_clear()
    with pytest.raises(ImageError, match=package):
        read_any(data)


class PlainHeif(ImageFile.ImageFile):
    """A plugin's decoder, of a file that has a size and bare pixels."""

    format = "HEIF"

    def _open(self) -> None:
        assert self.fp is not None
        self.fp.seek(len(HEIC))
        self._size = struct.unpack("<HH", self.fp.read(4))
        self._mode = "RGB"
        self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), len(HEIC) + 4, "RGB")]


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = types.ModuleType("pillow_heif")
    module.register_heif_opener = lambda: Image.register_open("HEIF", PlainHeif)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    Image.init()  # or what it registers would be forgotten as well
    monkeypatch.setattr(Image, "ID", Image.ID.copy())
    monkeypatch.setattr(Image, "OPEN", Image.OPEN.copy())
    other_formats._register.cache_clear()
    yield
    other_formats._register.cache_clear()


@pytest.mark.usefixtures("plugin")
def test_a_plugin_that_is_installed_reads_its_format() -> None:
    data = HEIC + struct.pack("<HH", 40, 24) + NOISE.tobytes()
    assert np.array_equal(read_any(data).pixels(), NOISE)


def test_an_avif_may_call_itself_an_image_in_general() -> None:
    data = saved(SMOOTH, "AVIF")
    length = int.from_bytes(data[:4], "big")
    other = data[:8] + b"mif1" + data[12:length] + data[length:]
    assert b"avif" in other[16:length]
    assert off_by(read_any(other).pixels(), SMOOTH) <= 12


def test_the_service_reads_none_of_them() -> None:
    for kind in ("TIFF", "BMP", "GIF", "AVIF"):
        with pytest.raises(ImageError, match=f"{kind} is not accepted: send PNG, JPEG or WebP"):
            read_header(saved(NOISE, kind))


def test_larger_images_are_read_than_pillow_opens_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF"):
        assert read_any(saved(NOISE, kind)).pixels().shape == NOISE.shape
        assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(ImageError, match="far more"):
        read_header(saved(NOISE, "PNG"))


def test_a_side_beyond_the_largest_is_refused() -> None:
    data = image_file(Image.new("1", (MAX_SIDE_PX + 1, 16)), "TIFF", compression="group4")
    with pytest.raises(ImageError, match=f"at most {MAX_SIDE_PX} pixels"):
        read_any(data)


def test_a_size_far_beyond_the_largest_is_refused() -> None:
    data = png_file((200_000, 200_000), 8, RGB, chunk(b"IDAT", b""))
    with pytest.raises(ImageError, match=f"at most {MAX_SIDE_PX} pixels, and this image has far"):
        read_any(data)


# Writing


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("size", [(90, 70), (1, 200), (200, 1), (1, 1)])
def test_a_tiff_is_read_by_others(
    size: tuple[int, int], big: bool, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if big:
        monkeypatch.setattr(other_writers, "CLASSIC_BYTES", 1)
    monkeypatch.setattr("upscaler.imaging.strips.STRIP_BYTES", 3000)
    pixels = noise(size[1], size[0], channels)
    data = written(pixels, OtherFormat.TIFF)
    assert data[2] == (43 if big else 42)
    assert np.array_equal(by_libvips(data), pixels)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)
    if channels == 3:  # OpenCV multiplies by alpha
        assert np.array_equal(by_opencv(data), pixels)


def test_a_tiff_of_4_gib_would_be_a_bigtiff() -> None:
    """The header is written first, so it is seen without the strips."""

    class Stopped(Exception):
        pass

    def none() -> Iterator[Pixels]:
        yield np.zeros((1, 40_000, 3), np.uint8)
        raise Stopped

    for height, sign in ((40_000, b"II+\0"), (30_000, b"II*\0")):
        file = io.BytesIO()
        with pytest.raises(Stopped):
            write_image(file, none(), height, OtherFormat.TIFF)
        assert file.getvalue()[:4] == sign


@pytest.mark.parametrize("encoding", [OtherFormat.WEBP, OtherFormat.AVIF])
def test_lossy_files_keep_the_look_and_the_alpha(encoding: OtherFormat) -> None:
    alpha = np.full((*SMOOTH.shape[:2], 1), 255, np.uint8)
    alpha[:, :30] = 7
    pixels = np.concatenate((SMOOTH, alpha), axis=2)
    seen = by_libvips(written(pixels, encoding))
    assert seen.shape == pixels.shape
    assert off_by(seen[:, 32:, :3], pixels[:, 32:, :3]) <= 12
    assert off_by(seen[..., 3:], alpha) <= 4


@pytest.mark.parametrize("encoding", FILE_FORMATS.values())
def test_rows_that_are_missing_are_noticed(encoding: FileFormat) -> None:
    with pytest.raises(ValueError, match="rows in all"):
        write_image(io.BytesIO(), [SMOOTH], len(SMOOTH) + 1, encoding)


def test_a_side_too_long_for_a_format_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 16383"):
        write_image(io.BytesIO(), [np.zeros((1, 16_384, 3), np.uint8)], 1, OtherFormat.WEBP)


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation

    tell = seek


@pytest.mark.parametrize("encoding", FILE_FORMATS.values())
def test_every_format_can_go_to_a_pipe(encoding: FileFormat) -> None:
    pipe = Pipe()
    write_image(pipe, [SMOOTH], len(SMOOTH), encoding)
    assert pipe.getvalue() == written(SMOOTH, encoding)


def test_a_name_in_both_tables_is_the_apis() -> None:
    assert all(FILE_FORMATS[name] is name for name in ImageEncoding)
    assert list(FILE_FORMATS) == ["jpeg", "png", "webp", "avif", "tiff"]


def test_a_tile_that_is_larger_than_its_image_counts() -> None:
    # ImageWidth, ImageLength, BitsPerSample, Compression, PhotometricInterpretation and the tile's:
    # width, length, offset and number of bytes (TIFF 6.0, section 15).
    tags = {256: 30, 257: 20, 258: 8, 259: 1, 262: 1, 322: 20_000, 323: 10_000, 324: 8, 325: 0}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    assert read_any(data).most_bytes >= 20_000 * 10_000
    assert read_any(saved(NOISE, "TIFF")).most_bytes < 100 * NOISE.size


def test_pages_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def counting(image: object) -> int:
        raise AssertionError("this takes quadratic time")

    pages = [Image.fromarray(NOISE)] * 3
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    assert read_any(saved(NOISE, "TIFF")).note == ""
    monkeypatch.setattr(TiffImageFile, "n_frames", property(counting))
    assert read_any(file.getvalue()).note == "the first page of several is read"


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_read(kind: str) -> None:
    file = io.BytesIO()
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], lossless=True)
    image = read_any(file.getvalue())
    assert image.note == "the first frame of several is read"
    assert off_by(image.pixels()[..., :3], NOISE) == 0
    with pytest.raises(ImageError, match="animated"):
        read_header(file.getvalue())
