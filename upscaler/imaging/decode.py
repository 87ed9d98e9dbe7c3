"""Decode untrusted PNG, JPEG and WebP files to pixels.

Pixels are C-contiguous uint8 arrays of shape (height, width, 3) for RGB or (height, width, 4) for
RGBA with straight alpha, always upright and in sRGB. The reverse is in `upscaler.imaging.encode`.
"""

import io
from dataclasses import dataclass
from threading import Lock
from typing import Final

import numpy as np
from PIL import Image

from upscaler.api.limits import MAX_INPUT_PX
from upscaler.api.sizes import Size
from upscaler.errors import ImageError
from upscaler.imaging import jpeg, jpeg_segments, png, png_chunks, webp
from upscaler.imaging.colour import to_srgb
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.signatures import other_format

FORMATS: Final = ("PNG", "JPEG", "WEBP")
"""The formats that are read. Pillow supports many more, each of them another parser to attack."""
SIGNATURES: Final = (png_chunks.SIGNATURE, jpeg_segments.SIGNATURE, webp.SIGNATURE)
"""The first bytes of files in these formats."""
MODES: Final = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's mode by the number of samples in a pixel."""
_MAX_EXIF_BYTES: Final = 65_536
"""At most this much EXIF is read. A JPEG cannot have more in a segment, and the orientation is
among the first tags. Without a limit Pillow takes seconds for a tag of millions of numbers."""
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
"""The operation that turns an image upright, by its EXIF orientation; 1 needs none."""
_SIDEWAYS: Final = (5, 6, 7, 8)
"""The orientations that swap width and height."""

_WEBP: Final = Lock()
"""Held while a WebP is decoded. libwebp may allocate tables for up to 65,536 groups of codes, in
total 700 MiB, which cannot be predicted: so never for two files at the same time."""


@dataclass(frozen=True)
class EncodedImage:
    """An image file of which only the header has been read.

    `size` is the width and height in pixels once it is upright, and `orientation` is the EXIF
    orientation, 1 to 8.
    """

    image: Image.Image
    data: bytes
    size: Size
    orientation: int

    @property
    def channels(self) -> int:
        """4 if the file has transparency, so that its pixels will be RGBA; otherwise 3."""
        # "transparency" is the transparent colour of a PNG without an alpha channel.
        transparent = "A" in self.image.mode or "transparency" in self.image.info
        return 4 if transparent else 3

    def pixels(self) -> Pixels:
        """Decode: upright, in sRGB, with alpha only if the file has transparency.

        16-bit samples keep their upper eight bits, or are rounded once they are converted to sRGB.
        Grey becomes RGB, palette indices become their colours, and CMYK is converted by its profile
        or, without one, by the complement. Raises ImageError for a file that is truncated or
        damaged. Call it once: it consumes the file.
        """
        try:
            samples = _decode_samples(self.image, self.data)
            mode = "CMYK" if self.image.mode == "CMYK" else MODES[samples.shape[2]]
            pixels = to_srgb(samples, mode, self.image.info.get("icc_profile"))
            if self.orientation not in _TRANSPOSE:
                return pixels
            return np.array(Image.fromarray(pixels).transpose(_TRANSPOSE[self.orientation]))
        except ImageError:
            raise
        except Exception as error:  # Pillow raises nearly every builtin exception on a bad file
            raise ImageError("this image file is truncated or damaged", "image_damaged") from error


def read_header(data: bytes) -> EncodedImage:
    """Read the header of an image file: the size is known, the pixels are not decoded yet.

    Raises ImageError for anything but a single still PNG, JPEG or WebP image.
    """
    try:
        data, image = _open(data)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        msg = f"each side may have at most {MAX_INPUT_PX} pixels, and this image has far more"
        raise ImageError(msg, "image_too_large") from error
    except Exception as error:  # see EncodedImage.pixels
        msg = "this is not a PNG, JPEG or WebP image"
        msg += " that can be read" if data.startswith(SIGNATURES) else ""
        if kind := other_format(data):
            msg = f"{kind} is not accepted: send PNG, JPEG or WebP"
        raise ImageError(msg, "image_unreadable") from error
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError("this image is animated: send a still one", "image_animated")
    orientation = _orientation(image)
    width, height = image.size
    size = (height, width) if orientation in _SIDEWAYS else (width, height)
    return EncodedImage(image, data, size, orientation)


def _open(data: bytes) -> tuple[bytes, Image.Image]:
    """The file reduced to the parts that make up the image, and Pillow's image of those.

    Of a JPEG followed by others, as many cameras write it (MPO), this is the first image.
    """
    # Before Pillow reads it: what it does with the other parts is listed in these modules.
    if data.startswith(png_chunks.SIGNATURE):
        data = png_chunks.strip_chunks(data)
    elif data.startswith(jpeg_segments.SIGNATURE):
        data = jpeg_segments.strip_segments(data)
    elif data.startswith(webp.SIGNATURE):
        webp.check_container(data)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except OSError as error:
        if not webp.has_image(data):
            raise
        msg = "this WebP cannot be read: its chunks are cut off or contradict each other"
        raise ImageError(msg, "image_unreadable") from error
    # Animations of several frames are refused by read_header, with a message of their own.
    if image.format == "WEBP" and getattr(image, "n_frames", 1) == 1:
        shown = webp.with_free_canvas(data)
        if shown is not data:
            image = Image.open(io.BytesIO(shown), formats=FORMATS)
    return data, image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, without decoding any pixels; 1 if the EXIF is unreadable."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b"")[:_MAX_EXIF_BYTES])
        orientation = exif.get(_ORIENTATION_TAG, 1)
    except Exception:  # see EncodedImage.pixels; such files are common and their pixels are fine
        return 1
    return orientation if orientation in range(1, 9) else 1


def _decode_samples(image: Image.Image, data: bytes) -> Pixels:
    """The samples as the file has them, of shape (height, width, samples in a pixel)."""
    if image.format == "PNG":
        return png.decode(data)
    if image.format == "JPEG":
        samples = jpeg.decode(data, (image.height, image.width, len(image.getbands())))
        # Only Adobe's programs write CMYK, and they write its complement.
        return ~samples if image.mode == "CMYK" else samples
    try:
        with _WEBP:
            return np.array(image)
    except Exception as error:  # see EncodedImage.pixels
        msg = "this WebP is cut off or damaged: some of its pixels are missing"
        raise ImageError(msg, "image_damaged") from error
