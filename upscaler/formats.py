"""The formats of output files. A new one is an entry here and a writer in `imaging.encode`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


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
