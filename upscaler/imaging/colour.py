"""Convert colours to sRGB, and transparency to white.

An ICC profile may contain a program of any number of elements (ICC.1:2022, the tags DToB0 to DToB3
and the multiProcessElementsType). Little CMS prefers the program to the profile's tables and runs
it for tens of thousands of colours, so a program of one megabyte takes minutes. Programs are
therefore disabled: tables have a fixed cost, and every profile with a program has them as well, for
engines that do not support programs.
"""

import io
from typing import Final

import numpy as np
from PIL import Image, ImageCms

from upscaler.imaging.pixels import Pixels

PROGRAMS: Final = b"D2B"
"""The start of the tag signatures D2B0 to D2B3: programs from device colours to the profile's."""

_COUNT_AT: Final = 128
"""The offset of the tag count: the tag table follows a header of 128 bytes (ICC.1:2022, 7.3)."""
_TAG_BYTES: Final = 12
_MAX_TAGS: Final = 100
"""Little CMS rejects profiles with more tags."""


def without_programs(profile: bytes) -> bytes:
    """The same profile with its programs renamed to signatures that no engine looks for.

    Renaming leaves all offsets in the profile as they are.
    """
    renamed = bytearray(profile)
    tags_at = _COUNT_AT + 4
    count = int.from_bytes(renamed[_COUNT_AT:tags_at], "big")
    for at in range(tags_at, tags_at + min(count, _MAX_TAGS) * _TAG_BYTES, _TAG_BYTES):
        if renamed[at : at + 3] == PROGRAMS:
            renamed[at : at + 3] = b"---"
    return bytes(renamed)


def to_srgb(samples: Pixels, mode: str, profile: bytes | None) -> Pixels:
    """Convert to RGB, or RGBA if `mode` has alpha, in sRGB by the ICC profile if there is one.

    `samples` is of shape (height, width, samples in a pixel); `mode` is Pillow's name for them.
    """
    if mode in ("RGB", "RGBA") and not profile:
        return samples
    # Alpha is set aside and put back unchanged: only colours are converted.
    image = Image.fromarray(samples.squeeze(axis=2) if mode == "L" else samples, mode)
    colours = image.convert(mode.removesuffix("A")) if mode.endswith("A") else image
    colours = _apply_profile(colours, profile) if profile else colours.convert("RGB")
    if mode.endswith("A"):
        colours.putalpha(image.getchannel("A"))
    return np.array(colours)


def _apply_profile(colours: Image.Image, profile: bytes) -> Image.Image:
    """Convert to RGB in sRGB by the file's ICC profile if it is usable.

    A profile that is damaged, or is for another colour model, is ignored, as in browsers: such
    files are common and their pixels are fine.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(without_programs(profile)))
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(colours, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return colours.convert("RGB")
    assert converted is not None, "only an in-place conversion returns None"
    return converted


def flatten(image: Image.Image) -> Image.Image:
    """Put an RGBA image on white; an RGB image is returned as it is."""
    if image.mode != "RGBA":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white
