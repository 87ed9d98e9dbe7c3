"""Colours to sRGB, and transparency to white.

A colour profile may hold a program of any number of elements (ICC.1:2022, the tags DToB0 to
DToB3 and the multiProcessElementsType). Little CMS prefers it to the profile's tables and runs it
for tens of thousands of colours: one of a megabyte takes minutes. The tables have a fixed cost, and
a profile with a program has them, too, for engines that know no programs.
"""

import io
from typing import Final

import numpy as np
from PIL import Image, ImageCms

from upscaler.imaging.pixels import Pixels

PROGRAMS: Final = b"D2B"
"""How the tags of programs from a device's colours to the profile's own begin."""

_COUNT_AT: Final = 128
_TAG_BYTES: Final = 12
_MOST_TAGS: Final = 100
"""Little CMS reads no profile with more."""


def without_programs(profile: bytes) -> bytes:
    """The same profile with its programs under names that no engine looks for."""
    tame = bytearray(profile)
    tags_at = _COUNT_AT + 4
    count = int.from_bytes(tame[_COUNT_AT:tags_at], "big")
    for at in range(tags_at, tags_at + min(count, _MOST_TAGS) * _TAG_BYTES, _TAG_BYTES):
        if tame[at : at + 3] == PROGRAMS:
            tame[at : at + 3] = b"---"
    return bytes(tame)


def to_srgb(samples: Pixels, mode: str, profile: bytes | None) -> Pixels:
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
        source = ImageCms.ImageCmsProfile(io.BytesIO(without_programs(profile)))
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(colours, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return colours.convert("RGB")
    assert converted is not None, "only a conversion in place returns nothing"
    return converted


def flatten(image: Image.Image) -> Image.Image:
    """RGB of an RGB or RGBA image, its transparency replaced by white."""
    if image.mode != "RGBA":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white
