"""Untrusted image files to pixels, and pixels to other sizes.

Pixels are C-contiguous uint8 arrays of shape (height, width, 3) for RGB or (height, width, 4) for
RGBA with straight alpha, always upright and in sRGB. Files come in as PNG, JPEG and WebP; how they
go out is in `upscaler.imaging.encode`.
"""

import io
from collections import deque
from dataclasses import dataclass
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageDraw, ImageFont, PngImagePlugin

from upscaler.api.limits import MAX_INPUT_PX
from upscaler.api.sizes import Size
from upscaler.errors import FieldError, InvalidRequest
from upscaler.imaging import colour, jpeg, png, png_filters, webp
from upscaler.imaging.parallel import ordered_map

Pixels = NDArray[np.uint8]
"""uint8 of shape (height, width, 3 or 4)."""

FORMATS: Final = ("PNG", "JPEG", "WEBP")
"""What is read. Pillow knows many more formats, each of them another parser to attack."""
SIGNATURES: Final = (png_filters.SIGNATURE, jpeg.SIGNATURE, b"RIFF")
"""How they begin."""
MODES: Final = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""What pixels are made of, in Pillow's terms, by how many samples they have."""
LANCZOS: Final = Image.Resampling.LANCZOS
RESIZE_PX: Final = 64
"""How many rows, or columns, are resized at a time."""

PANEL_PX: Final = 768
PANEL_GAP_PX: Final = 8
"""Of a before/after picture: the longest side of each half, and what lies between them."""

_MAX_EXIF_BYTES: Final = 65_536
"""As much EXIF is read: a JPEG has no more in a segment, and what says which side is up comes
first. Pillow takes seconds for a list of millions of numbers in that place."""
_ORIENTATION_TAG: Final = 0x0112
_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""
_SIDEWAYS: Final = (5, 6, 7, 8)
"""The orientations that swap width and height."""

# Pillow refuses a PNG whose profile is larger than this, by default than 1 MiB, as some printers'
# are. A JPEG can hold so much of a profile: 255 parts (ICC.1:2022, annex B).
PngImagePlugin.MAX_TEXT_CHUNK = 255 * 65_519

_WEBP: Final = Lock()
"""Held while a WebP is decoded. libwebp makes tables for each of up to 65,536 groups of codes, in
all 700 MiB, and nobody can tell before it does: never for two files at once."""


@dataclass(frozen=True)
class EncodedImage:
    """An image file of which only the header has been read.

    `size` is the upright width and height in pixels, and `field` the request's field that the
    file came in, for errors about it.
    """

    image: Image.Image
    data: bytes
    size: Size
    orientation: int
    field: str

    @property
    def channels(self) -> int:
        """4 if the file has transparency, so that its pixels will be RGBA, and else 3."""
        transparent = "A" in self.image.mode or "transparency" in self.image.info
        return 4 if transparent else 3

    def pixels(self) -> Pixels:
        """Decode: upright, in sRGB, with alpha only if the file has transparency.

        16-bit samples keep their upper eight bits, grey becomes RGB, a palette its colours, and
        CMYK is converted by its profile or else by the complement. Raises InvalidRequest for a
        file that is truncated or damaged. Reads the file once: call it once.
        """
        try:
            samples = _samples(self.image, self.data)
            mode = "CMYK" if self.image.mode == "CMYK" else MODES[samples.shape[2]]
            pixels = _to_srgb(samples, mode, self.image.info.get("icc_profile"))
            return _apply_orientation(pixels, self.orientation)
        except Exception as error:  # Pillow raises nearly every builtin exception on a bad file
            msg = "this image file is truncated or damaged"
            raise _invalid(self.field, msg, "image_damaged") from error


def read_header(data: bytes, field: str = "init_image") -> EncodedImage:
    """The picture in an encoded file, its size known and its pixels not yet decoded.

    Raises InvalidRequest on `field` for anything but one still PNG, JPEG or WebP image.
    """
    try:
        data, image = _opened(data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        msg = f"each side may have at most {MAX_INPUT_PX} pixels, and this image has far more"
        raise _invalid(field, msg, "image_too_large") from error
    except Exception as error:  # see Picture.pixels
        msg = "this is not a PNG, JPEG or WebP image"
        msg += " that can be read" if data.startswith(SIGNATURES) else ""
        raise _invalid(field, msg, "image_unreadable") from error
    if getattr(image, "n_frames", 1) > 1:
        raise _invalid(field, "this image is animated: send a still one", "image_animated")
    orientation = _orientation(image)
    width, height = image.size
    size = (height, width) if orientation in _SIDEWAYS else (width, height)
    return EncodedImage(image, data, size, orientation, field)


def resize(pixels: Pixels, size: Size) -> Pixels:
    """`pixels` at `size` by antialiased Lanczos; transparent pixels lend no colour to others.

    The same as Pillow makes of the whole picture, which first resizes rows and then columns: so
    here first some rows at a time, then some columns, on many cores at once.
    """
    height, width, channels = pixels.shape
    if (width, height) == size:
        return pixels
    wide = np.empty((height, size[0], channels), np.uint8)
    result = np.empty((size[1], size[0], channels), np.uint8)

    def resize_rows(top: int) -> None:
        strip = Image.fromarray(pixels[top : top + RESIZE_PX])
        strip = strip.convert("RGBa") if channels == 4 else strip
        wide[top : top + RESIZE_PX] = np.asarray(strip.resize((size[0], strip.height), LANCZOS))

    def resize_columns(left: int) -> None:
        part = wide[:, left : left + RESIZE_PX]
        strip = Image.fromarray(part, "RGBa" if channels == 4 else "RGB")
        strip = strip.resize((strip.width, size[1]), LANCZOS)
        strip = strip.convert("RGBA") if channels == 4 else strip
        result[:, left : left + RESIZE_PX] = np.asarray(strip)

    deque(ordered_map(resize_rows, range(0, height, RESIZE_PX)), maxlen=0)
    deque(ordered_map(resize_columns, range(0, size[0], RESIZE_PX)), maxlen=0)
    return result


def before_after(before: Pixels, after: Pixels) -> Pixels:
    """The middle of `after`, and beside it the same of `before` enlarged by bicubic: uint8 RGB.

    Both halves show one pixel of `after` per pixel, at most PANEL_PX on a side, so that what is
    seen is the difference and not a reduction of it.
    """
    height, width = after.shape[:2]
    panel_width, panel_height = min(width, PANEL_PX), min(height, PANEL_PX)
    left, top = (width - panel_width) // 2, (height - panel_height) // 2
    box = (left, top, left + panel_width, top + panel_height)
    plain = Image.fromarray(before).resize((width, height), Image.Resampling.BICUBIC)
    sheet = Image.new("RGB", (2 * panel_width + PANEL_GAP_PX, panel_height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=20)
    for x, image, title in (
        (0, plain, "bicubic"),
        (panel_width + PANEL_GAP_PX, Image.fromarray(after), "upscaled"),
    ):
        sheet.paste(flatten(image.crop(box)), (x, 0))
        draw.text((x + 12, 8), title, "white", font, stroke_width=2, stroke_fill="black")
    return np.array(sheet)


def _invalid(field: str, msg: str, kind: str) -> InvalidRequest:
    return InvalidRequest(FieldError(("body", field), msg, kind))


def _opened(data: bytes) -> tuple[bytes, Image.Image]:
    """What makes up the picture in a file, and the same to Pillow.

    A JPEG with others behind it, as many cameras write it (MPO), is its first picture.
    """
    if data.startswith(png_filters.SIGNATURE):
        data = png.strip_chunks(data)
    elif data.startswith(jpeg.SIGNATURE):
        data = jpeg.strip_segments(data)
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.format == "WEBP" and getattr(image, "n_frames", 1) == 1:
        webp.check_canvas(data)
    return data, image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, without decoding a pixel; 1 if the EXIF cannot be read."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b"")[:_MAX_EXIF_BYTES])
        orientation = exif.get(_ORIENTATION_TAG, 1)
    except Exception:  # see Picture.pixels; such files are common and their pixels are fine
        return 1
    return orientation if orientation in range(1, 9) else 1


def _samples(image: Image.Image, data: bytes) -> Pixels:
    """What the file has for each pixel, of shape (height, width, samples)."""
    if image.format == "PNG":
        return png.decode(data)
    if image.format == "JPEG":
        samples = jpeg.decode(data, (image.height, image.width, len(image.getbands())))
        # Adobe's programs, the only ones to write CMYK, write its complement.
        return ~samples if image.mode == "CMYK" else samples
    with _WEBP:
        return np.array(image)


def _to_srgb(samples: Pixels, mode: str, profile: bytes | None) -> Pixels:
    """RGB, or RGBA if there is alpha in `samples`; in sRGB, by the ICC profile if there is one."""
    if mode in ("RGB", "RGBA") and not profile:
        return samples
    image = Image.fromarray(samples.squeeze(axis=2) if mode == "L" else samples, mode)
    colours = image.convert(mode.removesuffix("A")) if mode.endswith("A") else image
    colours = _apply_profile(colours, profile) if profile else colours.convert("RGB")
    if mode.endswith("A"):
        colours.putalpha(image.getchannel("A"))
    return np.array(colours)


def _apply_profile(colours: Image.Image, profile: bytes) -> Image.Image:
    """RGB in sRGB, by the file's ICC profile if it is usable.

    A profile that is damaged, or is for another kind of samples, is left out of account, as
    browsers do: such files are common and their pixels are fine.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(colour.without_programs(profile)))
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(colours, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return colours.convert("RGB")
    assert converted is not None, "only a conversion in place returns nothing"
    return converted


def _apply_orientation(pixels: Pixels, orientation: int) -> Pixels:
    if orientation not in _TRANSPOSE:
        return pixels
    return np.array(Image.fromarray(pixels).transpose(_TRANSPOSE[orientation]))


def flatten(image: Image.Image) -> Image.Image:
    """RGB of an RGB or RGBA image, its transparency replaced by white."""
    if image.mode != "RGBA":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white
