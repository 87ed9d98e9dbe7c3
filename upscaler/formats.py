"""The file formats that a picture can be written in."""

from enum import StrEnum


class ImageEncoding(StrEnum):
    """The file formats an output can have."""

    JPEG = "jpeg"
    PNG = "png"
