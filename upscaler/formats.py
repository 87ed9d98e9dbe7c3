"""The formats of files. A new one of the API is an entry here and a writer in `imaging.encode`.

The API reads PNG, JPEG and WebP and writes the formats of `ImageEncoding`. The command line reads
and writes more: those of `OtherFormat`, whose writers are in `imaging.other_writers`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

MIN_SIDE_PX: Final = 16
"""The shortest side that the command line reads: less is no picture, but an icon's pixels."""
MAX_SIDE_PX: Final = 65_536
"""The longest side that the command line reads and writes."""


@dataclass(frozen=True)
class OutputFormat:
    """A file format.

    `name` is its value in `output_image_encoding` (REQ-9). Its files have one of `suffixes`; new
    files get the first. `max_side_px` is the longest side that its writer supports, and
    `description` is the playground's hint.
    """

    name: str
    media_type: str
    suffixes: tuple[str, ...]
    max_side_px: int
    description: str = ""


class ImageEncoding(StrEnum):
    """The file formats an output can have."""  # also its description in OpenAPI

    row: OutputFormat

    JPEG = OutputFormat(
        "jpeg",
        "image/jpeg",
        (".jpg", ".jpeg", ".jpe", ".jfif"),
        max_side_px=65_500,  # libjpeg's JPEG_MAX_DIMENSION
        description="Much smaller files in high quality. Transparency becomes white.",
    )
    PNG = OutputFormat(
        "png",
        "image/png",
        (".png",),
        max_side_px=2**31 - 1,  # PNG, third edition, 11.2.1
        description="Lossless. Transparency is kept.",
    )

    def __new__(cls, row: str | OutputFormat) -> Self:
        assert isinstance(row, OutputFormat), "ImageEncoding(name) finds a member and makes none"
        member = str.__new__(cls, row.name)
        member._value_ = row.name
        member.row = row
        return member

    @property
    def media_type(self) -> str:
        return self.row.media_type

    @property
    def suffixes(self) -> tuple[str, ...]:
        return self.row.suffixes


class OtherFormat(StrEnum):
    """The formats that the command line writes and the API does not."""

    row: OutputFormat

    WEBP = OutputFormat("webp", "image/webp", (".webp",), max_side_px=16_383)  # RFC 6386, 9.1
    AVIF = OutputFormat(
        "avif",
        "image/avif",
        (".avif",),
        max_side_px=32_768,  # libavif's AVIF_DEFAULT_IMAGE_DIMENSION_LIMIT for reading it again
    )
    TIFF = OutputFormat("tiff", "image/tiff", (".tif", ".tiff"), max_side_px=2**31 - 1)

    def __new__(cls, row: OutputFormat) -> Self:
        member = str.__new__(cls, row.name)
        member._value_ = row.name
        member.row = row
        return member

    @property
    def suffixes(self) -> tuple[str, ...]:
        return self.row.suffixes


FileFormat = ImageEncoding | OtherFormat
"""A format that the command line writes."""
FILE_FORMATS: Final[dict[str, FileFormat]] = {
    str(name): name for name in (*ImageEncoding, *OtherFormat, *ImageEncoding)
}
"""Those by name. The API's come first, and once more: a name in both is the API's."""
API_SUFFIXES: Final = (
    *(".png", ".webp"),
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp"),
)
"""The names of files that the API reads."""
READ_SUFFIXES: Final = (
    *API_SUFFIXES,
    *(".tif", ".tiff", ".bmp", ".dib", ".gif", ".avif", ".heic", ".heif", ".jxl"),
)
"""The names of files that the command line reads; some need a plugin of Pillow's."""
