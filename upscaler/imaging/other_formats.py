"""Read more formats than the API: TIFF, BMP, GIF, AVIF, and HEIC and JPEG XL with a plugin.

Only files that users name themselves come here, on the command line or from Python. PNG, JPEG and
WebP are left to `decode`; all others are decoded by Pillow or a plugin of it.
"""

import importlib
import io
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final, TypeVar

import numpy as np
from PIL import Image, ImageCms, features
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH

from upscaler.api.sizes import Size
from upscaler.errors import ImageError
from upscaler.formats import MAX_SIDE_PX
from upscaler.imaging.colour import to_srgb
from upscaler.imaging.decode import (
    CONVERTED_BYTES,
    SIDEWAYS,
    SIGNATURES,
    EncodedImage,
    exif_orientation,
    pixel_limit,
    read_header,
    upright,
)
from upscaler.imaging.pixels import Pixels
from upscaler.imaging.png_chunks import SIGNATURE
from upscaler.imaging.signatures import other_format

MAX_PIXELS: Final = MAX_SIDE_PX**2
"""Those of the largest square. Pillow warns of more than this."""
_KINDS: Final = MappingProxyType(
    {"TIFF": "TIFF", "BMP": "BMP", "GIF": "GIF", "AVIF": "AVIF"}
    | {"HEIC": "HEIF", "HEIF": "HEIF", "JPEG XL": "JXL", "PNG": "PNG", "WebP": "WEBP"}
)
"""Pillow's name of a format that is read, by ours. Only animated PNG and WebP are read by it."""
PLUGINS: Final = MappingProxyType(
    {"HEIF": ("pillow_heif", "pillow-heif"), "JXL": ("pillow_jxl", "pillow-jxl-plugin")}
)
"""What reads a format that Pillow does not: the module, and the name of its package on PyPI."""
_ALL: Final = ("PNG", "JPEG", "WebP", "TIFF", "BMP", "GIF", "AVIF", "HEIC", "JPEG XL")
_PARTS: Final = MappingProxyType({"TIFF": "page"})
"""What the parts of a file are called; those of the others are frames."""
_TURNED: Final = ("TIFF", "JXL")
"""The formats that the decoder turns upright by itself."""


@dataclass(frozen=True)
class OtherImage:
    """An image file that Pillow has opened, of which only the header has been read.

    `size` is the width and height in pixels once it is upright, and `note` says what of the file is
    not read, if anything.
    """

    image: Image.Image
    size: Size
    orientation: int
    note: str

    @property
    def channels(self) -> int:
        """4 if the file has transparency, so that its pixels will be RGBA; otherwise 3."""
        transparent = self.image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
        return 4 if transparent or "transparency" in self.image.info else 3

    @property
    def most_bytes(self) -> int:
        """About the most memory that `pixels` takes, without the file itself."""
        return max(self.size[0] * self.size[1], _tile_px(self.image)) * CONVERTED_BYTES

    def pixels(self) -> Pixels:
        """Decode: upright, in sRGB, with alpha only if the file has transparency.

        16-bit samples keep their upper eight bits. Raises ImageError for a file that is truncated
        or damaged, and for samples of 32 bits, whose range a file does not say.
        """
        try:
            with pixel_limit(MAX_PIXELS):  # a TIFF has another size for its tiles
                self.image.load()
            image = _eight_bits(self.image)
            profile = None if self.image.mode == "LAB" else self.image.info.get("icc_profile")
            samples = np.array(image)
            samples = samples[..., np.newaxis] if samples.ndim == 2 else samples
            pixels = to_srgb(samples, image.mode, profile)
            return upright(pixels, self.orientation)
        except ImageError:
            raise
        except Exception as error:  # Pillow raises nearly every builtin exception on a bad file
            raise ImageError("this image file is truncated or damaged", "image_damaged") from error


Picture = TypeVar("Picture", EncodedImage, OtherImage)


def read_any(data: bytes) -> EncodedImage | OtherImage:
    """Read the header of an image file in any format that this installation reads.

    Raises ImageError for a format that is not read, with what to install where that would help; for
    what is damaged; and for sides of more than MAX_SIDE_PX.
    """
    if not data:
        raise ImageError("this file is empty", "image_unreadable")
    if data.startswith(SIGNATURES):
        try:
            return _checked(read_header(data, MAX_PIXELS))
        except ImageError as error:
            if error.type != "image_animated":
                raise
        name = "PNG" if data.startswith(SIGNATURE) else "WebP"
    else:
        name = other_format(data) or ""
    kind = _KINDS.get(name)
    if kind is None:
        what = f"{name} is not" if name else "this is not an image in"
        msg = f"{what} a format that is read: {', '.join(_ALL)}"
        raise ImageError(msg, "image_unreadable")
    _require(kind, name)
    try:
        with pixel_limit(MAX_PIXELS):
            image = Image.open(io.BytesIO(data), formats=[kind])
            several = _has_second(image)
    except Image.DecompressionBombError as error:
        raise _too_large() from error
    except Exception as error:  # see OtherImage.pixels
        msg = f"this {name} file cannot be read: it is damaged, or of a rare kind"
        raise ImageError(msg, "image_unreadable") from error
    orientation = 1 if kind in _TURNED else exif_orientation(image)
    width, height = image.size
    size = (height, width) if orientation in SIDEWAYS else (width, height)
    part = _PARTS.get(kind, "frame")
    note = f"the first {part} of several is read" if several else ""
    return _checked(OtherImage(image, size, orientation, note))


def _checked(image: Picture) -> Picture:
    if max(image.size) > MAX_SIDE_PX:
        raise _too_large()
    return image


def _too_large() -> ImageError:
    msg = f"each side may have at most {MAX_SIDE_PX} pixels, and this image has more"
    return ImageError(msg, "image_too_large")


def _tile_px(image: Image.Image) -> int:
    """The pixels of a tile of a TIFF, which may be larger than its image."""
    tags = getattr(image, "tag_v2", {})
    width, height = (tags.get(tag, 0) for tag in (TILEWIDTH, TILELENGTH))
    return int(width) * int(height) if isinstance(width, int) and isinstance(height, int) else 0


def _has_second(image: Image.Image) -> bool:
    """Whether there is a second frame or page. Counting all of a TIFF takes quadratic time."""
    try:
        image.seek(1)
    except EOFError:
        return False
    image.seek(0)
    return True


def _require(kind: str, name: str) -> None:
    """Raise ImageError unless this installation reads files of that kind."""
    if kind == "AVIF" and not features.check("avif"):
        msg = "this is an AVIF image, which this build of Pillow does not read: install another"
        raise ImageError(msg, "image_unreadable")
    if kind in PLUGINS and not _register(kind):
        package = PLUGINS[kind][1]
        msg = f"this is a {name} image, which needs a plugin: pip install {package}"
        raise ImageError(msg, "image_unreadable")


@cache
def _register(kind: str) -> bool:
    """Let Pillow read that kind by its plugin, if that is installed."""
    try:
        plugin = importlib.import_module(PLUGINS[kind][0])
    except ImportError:
        return False
    if kind == "HEIF":  # the other one registers itself when it is imported
        plugin.register_heif_opener()
    return True


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in one of the modes L, LA, RGB, RGBA and CMYK, with 8 bits in a sample."""
    if image.mode in ("I", "F"):
        msg = "this image has samples of 32 bits, whose range is not known: save it with 8 or 16"
        raise ImageError(msg, "image_unreadable")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None, "only an in-place conversion returns None"
        return converted
    if "transparency" in image.info or image.mode in ("PA", "RGBa"):
        return image.convert("RGBA")
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return image
    return image.convert({"1": "L", "La": "LA"}.get(image.mode, "RGB"))
