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
from numpy.typing import NDArray
from PIL import Image, ImageCms

from upscaler.imaging.colour_spaces import SpaceConversion, matrix_from_profile
from upscaler.imaging.icc_shaper import MAX_TAGS, read_shaper
from upscaler.imaging.pixels import Pixels, keep_neutral

PROGRAMS: Final = b"D2B"
"""The start of the tag signatures D2B0 to D2B3: programs from device colours to the profile's."""

_COUNT_AT: Final = 128
"""The offset of the tag count: the tag table follows a header of 128 bytes (ICC.1:2022, 7.3)."""
_TAG_BYTES: Final = 12


def without_programs(profile: bytes) -> bytes:
    """The same profile with its programs renamed to signatures that no engine looks for.

    Renaming leaves all offsets in the profile as they are.
    """
    renamed = bytearray(profile)
    tags_at = _COUNT_AT + 4
    count = int.from_bytes(renamed[_COUNT_AT:tags_at], "big")
    for at in range(tags_at, tags_at + min(count, MAX_TAGS) * _TAG_BYTES, _TAG_BYTES):
        if renamed[at : at + 3] == PROGRAMS:
            renamed[at : at + 3] = b"---"
    return bytes(renamed)


def to_srgb(samples: Pixels, mode: str, profile: bytes | None) -> Pixels:
    """Convert to RGB, or RGBA if `mode` has alpha, in sRGB by the ICC profile if there is one.

    `samples` is of shape (height, width, samples in a pixel); `mode` is Pillow's name for them. A
    profile that is damaged, or is for another colour model, is ignored, as in browsers: such files
    are common and their pixels are fine.
    """
    if mode in ("RGB", "RGBA") and not profile:
        return samples
    # Alpha is set aside and put back unchanged: only colours are converted.
    colours = samples[:, :, :-1] if mode.endswith("A") else samples
    converted = _colours_to_srgb(colours, mode.removesuffix("A"), profile)
    if mode.endswith("A"):
        return np.dstack((converted, samples[:, :, -1]))
    return converted


def _colours_to_srgb(colours: Pixels, mode: str, profile: bytes | None) -> Pixels:
    if profile:
        try:
            return ProfileConversion(profile, mode, depth=8)(colours)
        except ValueError:
            pass
    return np.array(_image(colours, mode).convert("RGB"))


def _image(colours: Pixels, mode: str) -> Image.Image:
    return Image.fromarray(colours[:, :, 0] if mode == "L" else colours, mode)


class ProfileConversion:
    """Converts samples of `depth` bits, 8 or 16, to sRGB by an ICC profile.

    `mode` is L, RGB, or CMYK of 8 bits. A call takes uint8 or uint16 of shape (rows, columns,
    samples in a pixel) and returns uint8 of shape (rows, columns, 3). ValueError if the profile is
    damaged, or is for another colour model.

    Little CMS is the judge of which profiles are usable, and converts RGB and CMYK of 8 bits. Its
    Pillow has no mode for 16 bits. There, and for grey, a profile of curves is applied by those,
    which is exact, and one of tables by an interpolation.
    """

    def __init__(self, profile: bytes, mode: str, depth: int) -> None:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(without_programs(profile)))
            srgb = ImageCms.createProfile("sRGB")
            self._transform = ImageCms.buildTransform(source, srgb, mode, "RGB")
        except (ImageCms.PyCMSError, OSError) as error:
            raise ValueError("the profile is not usable") from error
        self._mode = mode
        self._by_curves: SpaceConversion | None = None
        if (depth == 16 or mode == "L") and (shaper := read_shaper(profile)):
            matrix = np.eye(3) if shaper.matrix is None else matrix_from_profile() @ shaper.matrix
            self._by_curves = SpaceConversion(depth, shaper.curves, matrix)

    def __call__(self, samples: NDArray[np.unsignedinteger]) -> Pixels:
        if self._by_curves:
            converted = self._by_curves(samples)
            return converted.repeat(3, axis=2) if self._mode == "L" else converted
        if samples.dtype.itemsize == 1:
            converted = self._convert(samples.astype(np.uint8, copy=False))
        else:
            converted = self._interpolate(samples.astype(np.uint32))
        return keep_neutral(converted, samples) if self._mode == "RGB" else converted

    def _interpolate(self, samples: NDArray[np.uint32]) -> Pixels:
        """Convert 16 bits between the colours of 8 bits around each.

        The 256 values of each sample make a lattice, in which a 16-bit colour lies in a simplex
        with one corner more than there are samples: a tetrahedron for RGB. The result is the mean
        of its corners, weighted by how near they are, as Little CMS itself does in a profile's
        table.
        """
        low, fractions = np.divmod(samples, 257)  # 65535 = 255 * 257
        # From one corner to the next, the sample with the largest fraction that is left goes up. A
        # fraction of 0 has no weight, which matters where `low` is 255 and has no next.
        order = np.sort(fractions, axis=2)[:, :, ::-1]
        weights = -np.diff(order, axis=2, prepend=257, append=0)
        total = weights[:, :, :1] * self._convert(low.astype(np.uint8))
        for i in range(samples.shape[2]):
            corner = low + (fractions >= order[:, :, i : i + 1])
            total += weights[:, :, i + 1 : i + 2] * self._convert(corner.astype(np.uint8))
        return ((total + 128) // 257).astype(np.uint8)

    def _convert(self, samples: Pixels) -> Pixels:
        return np.array(self._transform.apply(_image(samples, self._mode)))


def flatten(image: Image.Image) -> Image.Image:
    """Put an RGBA image on white; an RGB image is returned as it is."""
    if image.mode != "RGBA":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white
