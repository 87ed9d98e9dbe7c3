"""Decode untrusted PNG, JPEG and WebP files to pixels.

Pixels are C-contiguous uint8 arrays of shape (height, width, 3) for RGB or (height, width, 4) for
RGBA with straight alpha, always upright and in sRGB. The reverse is in `upscaler.imaging.encode`.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
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
SIDEWAYS: Final = (5, 6, 7, 8)
"""The orientations that swap width and height."""

_WEBP: Final = Lock()
"""Held while a WebP is decoded. libwebp may allocate tables for up to 65,536 groups of codes, in
total 700 MiB, which cannot be predicted: so never for two files at the same time."""


_PIXEL_LIMIT: Final = Lock()
"""Held while Pillow's own limit, which is one for the whole process, is another."""
CONVERTED_BYTES: Final = 28
"""The most bytes per pixel that are in memory while colours are converted, measured: the image's
samples, up to four images of Pillow's with four bytes per pixel each, the result and it upright."""


@dataclass(frozen=True)
class EncodedImage:
    """An image file of which only the header has been read.

    `size` is the width and height in pixels once it is upright, and `orientation` is the EXIF
    orientation, 1 to 8. `note` says what of the file is not read, for the user.
    """

    image: Image.Image
    data: bytes
    size: Size
    orientation: int
    note: str = ""

    @property
    def channels(self) -> int:
        """4 if the file has transparency, so that its pixels will be RGBA; otherwise 3."""
        # "transparency" is the transparent colour of a PNG without an alpha channel.
        transparent = "A" in self.image.mode or "transparency" in self.image.info
        return 4 if transparent else 3

    @property
    def most_bytes(self) -> int:
        """About the most memory that `pixels` takes, without the file itself."""
        profile = self.image.info.get("icc_profile")
        plain = self.image.mode in ("RGB", "RGBA") and not profile
        plain = plain and self.image.format != "WEBP"  # which Pillow decodes
        # A JPEG is decoded twice and compared, and an image that is turned is there twice.
        copies = 3 if self.image.format == "JPEG" else 1 if self.orientation == 1 else 2
        sample_bytes = self.channels * copies
        return self.size[0] * self.size[1] * (sample_bytes if plain else CONVERTED_BYTES)

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
            return upright(pixels, self.orientation)
        except ImageError:
            raise
        except Exception as error:  # Pillow raises nearly every builtin exception on a bad file
            raise ImageError("this image file is truncated or damaged", "image_damaged") from error


def read_header(data: bytes, most_px: int | None = None) -> EncodedImage:
    """Read the header of an image file: the size is known, the pixels are not decoded yet.

    An image of more than `most_px` pixels is refused, by default what Pillow refuses, which is far
    more than a request may have. Raises ImageError for anything but a single still PNG, JPEG or
    WebP image.
    """
    try:
        with pixel_limit(most_px):
            data, image = _open(data)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        most = MAX_INPUT_PX if most_px is None else isqrt(most_px)
        msg = f"each side may have at most {most} pixels, and this image has far more"
        raise ImageError(msg, "image_too_large") from error
    except Exception as error:  # see EncodedImage.pixels
        msg = "this is not a PNG, JPEG or WebP image"
        msg += " that can be read" if data.startswith(SIGNATURES) else ""
        if kind := other_format(data):
            msg = f"{kind} is not accepted: send PNG, JPEG or WebP"
        raise ImageError(msg, "image_unreadable") from error
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError("this image is animated: send a still one", "image_animated")
    orientation = exif_orientation(image)
    width, height = image.size
    size = (height, width) if orientation in SIDEWAYS else (width, height)
    return EncodedImage(image, data, size, orientation)


@contextmanager
def pixel_limit(most_px: int | None) -> Iterator[None]:
    """Let Pillow open images of up to `most_px` pixels; with None, as many as it does by itself."""
    if most_px is None:
        yield
        return
    with _PIXEL_LIMIT:
        own = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = most_px
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = own


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


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn pixels of an EXIF orientation, 1 to 8, upright (EXIF 3.0, 4.6.4.A, tag 0x0112).

    The number says where the stored image's first row and first column are. Those above 4 swap
    them; of the others, 2 and 3 have the right one first, and 3 and 4 the bottom one.
    """
    if orientation == 1:
        return pixels
    turned = pixels.swapaxes(0, 1) if orientation in SIDEWAYS else pixels
    from_bottom, from_right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(turned[:: -1 if from_bottom else 1, :: -1 if from_right else 1])


def exif_orientation(image: Image.Image) -> int:
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
