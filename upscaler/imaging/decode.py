"""Untrusted image files to pixels, and pixels to other sizes.

Pixels are C-contiguous uint8 arrays of shape (height, width, 3) for RGB or (height, width, 4) for
RGBA with straight alpha, always upright and in sRGB. Files come in as PNG, JPEG and WebP; how they
go out is in `upscaler.imaging.encode`.
"""

import io
from dataclasses import dataclass
from threading import Lock
from typing import Final

import numpy as np
from PIL import Image, PngImagePlugin

from upscaler.api.limits import MAX_INPUT_PX
from upscaler.api.sizes import Size
from upscaler.errors import ImageError
from upscaler.imaging import jpeg, png, png_chunks, webp
from upscaler.imaging.colour import to_srgb
from upscaler.imaging.pixels import Pixels

FORMATS: Final = ("PNG", "JPEG", "WEBP")
"""What is read. Pillow knows many more formats, each of them another parser to attack."""
SIGNATURES: Final = (png_chunks.SIGNATURE, jpeg.SIGNATURE, b"RIFF")
"""How they begin."""
MODES: Final = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""What pixels are made of, in Pillow's terms, by how many samples they have."""
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

    `size` is the upright width and height in pixels, and `orientation` the EXIF's, 1 to 8.
    """

    image: Image.Image
    data: bytes
    size: Size
    orientation: int

    @property
    def channels(self) -> int:
        """4 if the file has transparency, so that its pixels will be RGBA, and else 3."""
        transparent = "A" in self.image.mode or "transparency" in self.image.info
        return 4 if transparent else 3

    def pixels(self) -> Pixels:
        """Decode: upright, in sRGB, with alpha only if the file has transparency.

        16-bit samples keep their upper eight bits, grey becomes RGB, a palette its colours, and
        CMYK is converted by its profile or else by the complement. Raises ImageError for a
        file that is truncated or damaged. Reads the file once: call it once.
        """
        try:
            samples = _samples(self.image, self.data)
            mode = "CMYK" if self.image.mode == "CMYK" else MODES[samples.shape[2]]
            pixels = to_srgb(samples, mode, self.image.info.get("icc_profile"))
            return _apply_orientation(pixels, self.orientation)
        except Exception as error:  # Pillow raises nearly every builtin exception on a bad file
            raise ImageError("this image file is truncated or damaged", "image_damaged") from error


def read_header(data: bytes) -> EncodedImage:
    """The picture in an encoded file, its size known and its pixels not yet decoded.

    Raises ImageError for anything but one still PNG, JPEG or WebP image.
    """
    try:
        data, image = _opened(data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        msg = f"each side may have at most {MAX_INPUT_PX} pixels, and this image has far more"
        raise ImageError(msg, "image_too_large") from error
    except Exception as error:  # see EncodedImage.pixels
        msg = "this is not a PNG, JPEG or WebP image"
        msg += " that can be read" if data.startswith(SIGNATURES) else ""
        raise ImageError(msg, "image_unreadable") from error
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError("this image is animated: send a still one", "image_animated")
    orientation = _orientation(image)
    width, height = image.size
    size = (height, width) if orientation in _SIDEWAYS else (width, height)
    return EncodedImage(image, data, size, orientation)


def _opened(data: bytes) -> tuple[bytes, Image.Image]:
    """What makes up the picture in a file, and the same to Pillow.

    A JPEG with others behind it, as many cameras write it (MPO), is its first picture.
    """
    if data.startswith(png_chunks.SIGNATURE):
        data = png_chunks.strip_chunks(data)
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
    except Exception:  # see EncodedImage.pixels; such files are common and their pixels are fine
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


def _apply_orientation(pixels: Pixels, orientation: int) -> Pixels:
    if orientation not in _TRANSPOSE:
        return pixels
    return np.array(Image.fromarray(pixels).transpose(_TRANSPOSE[orientation]))
