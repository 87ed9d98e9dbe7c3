"""The formats of output files: a new one is a row here, and its writer in `imaging.encode`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


@dataclass(frozen=True)
class OutputFormat:
    """What has to be known of a format.

    `name` is what a request's `output_image_encoding` calls it (REQ-9), and `media_type` what HTTP
    does. Names of its files end with one of `suffixes`; new files get the first. `max_side_px` is
    the longest side that its writer can write, and `description` what the playground says of it.
    """

    name: str
    media_type: str
    suffixes: tuple[str, ...]
    max_side_px: int
    description: str = ""


class ImageEncoding(StrEnum):
    """The file formats an output can have."""  # which the API's description says, too

    row: OutputFormat

    JPEG = OutputFormat(
        "jpeg",
        "image/jpeg",
        (".jpg", ".jpeg"),
        max_side_px=65_500,  # the most of libjpeg
        description="Much smaller, in high quality. Transparency becomes white.",
    )
    PNG = OutputFormat(
        "png",
        "image/png",
        (".png",),
        max_side_px=2**31 - 1,  # PNG, third edition, 11.2.1
        description="Every pixel as it is, with transparency.",
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
