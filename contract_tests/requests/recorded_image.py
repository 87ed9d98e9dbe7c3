"""An image that somebody else has sent, as far as it can be understood."""

import base64
import io
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from PIL import ExifTags, Image

from contract_tests.oracle.limits import MAX_INPUT_PX, MIN_INPUT_PX
from contract_tests.oracle.oracle import ImageFacts

SIGNATURES: Final = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
"""How the files begin that an implementation may read, or not."""
KNOWN_MODES: Final = ("RGB", "L", "P")
"""Pillow's names of what every implementation reads, as COMMON_KINDS of the sample images."""


@dataclass(frozen=True)
class RecordedImage:
    """The file in a recorded request. Unlike that of a sample image, its content is unknown."""

    data: bytes = field(repr=False)

    def __repr__(self) -> str:
        size = f"{self._opened.width}x{self._opened.height}, " if self._opened else ""
        return f"RecordedImage({size}{len(self.data)} bytes)"

    def base64(self) -> str:
        """The file in standard base64, on one line."""
        return base64.b64encode(self.data).decode()

    def facts(self) -> ImageFacts | None:
        """What the oracle has to know; None if implementations may differ about such a file."""
        image = self._opened
        if image is None:
            known = self.data.startswith(SIGNATURES)
            return None if known else ImageFacts(fault="not an image")
        if all(MIN_INPUT_PX <= side <= MAX_INPUT_PX for side in image.size):
            return ImageFacts(*image.size) if self.pixels() else None
        return ImageFacts(*image.size)

    def pixels(self) -> Image.Image | None:
        """It as RGB, if it is of a kind that every implementation reads in the same way."""
        image = self._opened
        turned = image is None or image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        if image is None or turned or image.mode not in KNOWN_MODES or "transparency" in image.info:
            return None
        try:
            return image.convert("RGB")
        except Exception:  # Pillow raises nearly every builtin exception on a bad file
            return None

    @cached_property
    def _opened(self) -> Image.Image | None:
        """Its header, for a PNG or a JPEG."""
        try:
            return Image.open(io.BytesIO(self.data), formats=("PNG", "JPEG"))
        except Exception:  # as above
            return None
