"""Mistakes with the picture that comes: its base64, its file, and how its pixels are read."""

import io
import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from PIL import Image

from tests.contract_tests.defects.planting import (
    Answer,
    Defect,
    Fields,
    Planting,
    changed_answer,
    changed_image,
    changed_input,
    failing,
    patched,
    refusing,
    replaced,
)
from tests.contract_tests.defects.probes import asking, file, saved, text, turned
from upscaler.errors import ImageError
from upscaler.imaging import decode
from upscaler.imaging.decode import EncodedImage
from upscaler.imaging.pixels import Pixels

PICTURE: Final = text(file())
PREFIX: Final = "data:image/png;base64,"
URL_SAFE: Final = str.maketrans("+/", "-_")
STANDARD: Final = str.maketrans("-_", "+/")
PADDED: Final = next(
    found for found in (text(file() + b"\0" * more) for more in range(3)) if found[-1] == "="
)
"""A picture, and zeros behind it that nobody reads, whose base64 needs padding."""


def image_of(fields: Fields) -> str:
    """The text in init_image, or an empty one."""
    found = fields.get("init_image")
    return found if isinstance(found, str) else ""


def refused_text(when: Callable[[str], bool]) -> Planting:
    """Refuse some texts in init_image."""
    return refusing(lambda fields: when(image_of(fields)), "init_image", "base64_invalid")


def is_broken(fields: Fields) -> bool:
    """Whether there is what cannot be base64."""
    return re.search(r"[^A-Za-z0-9+/=:;,.\s-]", image_of(fields)) is not None


def bare(content: str) -> str:
    """Base64 without a prefix."""
    return content.rpartition(",")[2]


def unprefixed(change: Callable[[str], str]) -> Planting:
    """Read another text in init_image if it has no prefix."""
    return changed_image(lambda content: content if "," in content else change(content))


def told_as(kind: str, status: int, detail: str) -> Planting:
    """Tell one type of error with another status."""

    def changed(_: Any, answer: Answer) -> Answer:
        is_it = answer.status == 422 and f'"{kind}"'.encode() in answer.body
        return answer.saying({"detail": detail}, status) if is_it else answer

    return changed_answer(changed)


def damage_is_ours() -> Planting:
    """Do not expect that decoding fails."""

    def around(pixels: Callable[[EncodedImage], Pixels]) -> Any:
        def decoded(picture: EncodedImage) -> Pixels:
            try:
                return pixels(picture)
            except ImageError as error:
                raise OSError("planted") from error

        return decoded

    return replaced(EncodedImage, "pixels", around)


def header_is_ours() -> Planting:
    """Do not expect what is no picture."""

    def around(read_header: Callable[..., EncodedImage]) -> Any:
        def read(*args: Any) -> EncodedImage:
            try:
                return read_header(*args)
            except ImageError as error:
                raise OSError("planted") from error

        return read

    return replaced(decode, "read_header", around)


def damage_is_grey() -> Planting:
    """Take a damaged file, as Pillow does with LOAD_TRUNCATED_IMAGES."""

    def around(pixels: Callable[[EncodedImage], Pixels]) -> Any:
        def decoded(picture: EncodedImage) -> Pixels:
            try:
                return pixels(picture)
            except ImageError:
                return np.full((*picture.size[::-1], 3), 128, np.uint8)

        return decoded

    return replaced(EncodedImage, "pixels", around)


def of_mode(modes: tuple[str, ...], change: Callable[[Pixels], Pixels]) -> Planting:
    """Read other pixels of files of some of Pillow's modes."""
    return changed_input(
        lambda picture, pixels: change(pixels) if picture.image.mode in modes else pixels
    )


def turned_by(change: Callable[[int], int]) -> Planting:
    """Turn pictures by another EXIF orientation than they have."""
    return replaced(
        decode,
        "upright",
        lambda turn: lambda pixels, orientation: turn(pixels, change(orientation)),
    )


def unknown_mode(*modes: str) -> Planting:
    """Do not expect that pixels have so many channels."""

    def fails(_: Pixels) -> Pixels:
        raise IndexError("planted")

    return of_mode(modes, fails)


def without_alpha(pixels: Pixels) -> Pixels:
    """The colours alone."""
    return pixels[:, :, :3]


def sixteen_bits() -> bytes:
    """A grey ramp of sixteen bits a sample."""
    ramp = np.linspace(0, 65535, 300 * 260).reshape(260, 300).astype(np.uint16)
    return saved(Image.fromarray(ramp))


def with_palette() -> bytes:
    """A PNG with a palette, of which one colour is transparent."""
    palette = Image.open(io.BytesIO(file())).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    return saved(palette, transparency=3)


TEXTS: Final = (
    Defect(
        "base64-prefix-refused",
        "Refuses a data: URL in init_image.",
        ("REQ-17",),
        refused_text(lambda content: content.startswith("data:")),
        asking(init_image=PREFIX + PICTURE),
    ),
    Defect(
        "base64-any-prefix",
        "Reads only what stands behind the last comma, whatever stands before it.",
        ("REQ-17",),
        changed_image(bare),
        asking(init_image=f"picture,{PICTURE}"),
    ),
    Defect(
        "base64-lines-refused",
        "Refuses base64 of several lines.",
        ("REQ-17",),
        refused_text(lambda content: "\n" in content),
        asking(init_image=f"{PICTURE[:76]}\r\n{PICTURE[76:]}"),
    ),
    Defect(
        "base64-url-safe",
        "Takes - and _, of the alphabet for URLs, for + and /.",
        ("REQ-17",),
        unprefixed(lambda content: content.translate(STANDARD)),
        asking(init_image=PICTURE.translate(URL_SAFE)),
    ),
    Defect(
        "base64-unpadded",
        "Takes base64 without its padding.",
        ("REQ-17",),
        changed_image(lambda content: content + "=" * (-len(content.strip()) % 4)),
        asking(init_image=PADDED.rstrip("=")),
    ),
    Defect(
        "base64-overpadded",
        "Takes base64 with too much padding.",
        ("REQ-17",),
        changed_image(
            lambda content: re.sub("=+$", "", content) + "=" * (-len(content.rstrip("=")) % 4)
        ),
        asking(init_image=f"{PICTURE}===="),
    ),
    Defect(
        "base64-spaces",
        "Takes base64 with spaces in it.",
        ("REQ-17",),
        changed_image(lambda content: content.replace(" ", "")),
        asking(init_image=f"{PICTURE[:40]} {PICTURE[40:]}"),
    ),
    Defect(
        "base64-rubbish",
        "Leaves out what is not of the alphabet, as Python's b64decode does.",
        ("REQ-17",),
        unprefixed(lambda content: re.sub(r"[^A-Za-z0-9+/=]", "", content)),
        asking(init_image=f"{PICTURE[:40]}!{PICTURE[40:]}"),
    ),
    Defect(
        "base64-broken-500",
        "Has a fault of its own at what is not base64.",
        ("RES-5", "REQ-17"),
        failing(is_broken),
        asking(init_image="!!!!"),
    ),
    Defect(
        "base64-length-500",
        "Has a fault of its own at base64 of a wrong length.",
        ("RES-5", "REQ-17"),
        failing(lambda fields: len(bare(image_of(fields)).translate({10: "", 13: ""})) % 4 != 0),
        asking(init_image=PICTURE[:-1]),
    ),
    Defect(
        "base64-empty-500",
        "Has a fault of its own at an empty init_image.",
        ("RES-5", "REQ-17"),
        failing(lambda fields: fields.get("init_image") == ""),
        asking(init_image=""),
    ),
    Defect(
        "base64-not-text-500",
        "Has a fault of its own at an init_image that is a number.",
        ("RES-5", "REQ-12"),
        failing(lambda fields: isinstance(fields.get("init_image"), int | list | dict)),
        asking(init_image=7),
    ),
)

FILES: Final = (
    Defect(
        "file-of-text-500",
        "Has a fault of its own at base64 of what is no picture.",
        ("RES-5", "REQ-17"),
        header_is_ours(),
        asking(init_image=text(b"no picture at all")),
    ),
    Defect(
        "file-of-text-400",
        "Says 400 to base64 of what is no picture.",
        ("RES-4", "REQ-17"),
        told_as("image_unreadable", 400, "cannot identify image file"),
        asking(init_image=text(b"no picture at all")),
    ),
    Defect(
        "file-damaged-500",
        "Has a fault of its own at a picture that ends too soon.",
        ("RES-5", "REQ-17"),
        damage_is_ours(),
        asking(init_image=text(file()[: len(file()) // 2])),
    ),
    Defect(
        "file-damaged-taken",
        "Makes grey of what is missing of a picture that ends too soon.",
        ("REQ-17",),
        damage_is_grey(),
        asking(init_image=text(file()[: len(file()) // 2])),
    ),
    Defect(
        "webp-refused",
        "Reads PNG and JPEG only.",
        ("REQ-17",),
        patched(decode, "FORMATS", ("PNG", "JPEG")),
        asking(init_image=text(file(kind="WEBP"))),
    ),
    Defect(
        "jpeg-refused",
        "Reads PNG only.",
        ("REQ-17",),
        patched(decode, "FORMATS", ("PNG", "WEBP")),
        asking(init_image=text(file(kind="JPEG"))),
    ),
    Defect(
        "grey-500",
        "Has a fault of its own at a grey picture, which has no third dimension.",
        ("RES-5", "REQ-17"),
        unknown_mode("L", "1", "I;16"),
        asking(init_image=text(file(mode="L"))),
    ),
    Defect(
        "alpha-500",
        "Has a fault of its own at a picture with a fourth channel.",
        ("RES-5", "RES-2"),
        unknown_mode("RGBA", "LA"),
        asking(init_image=text(file(mode="RGBA"))),
    ),
    Defect(
        "palette-500",
        "Has a fault of its own at a picture with a palette.",
        ("RES-5", "REQ-17"),
        unknown_mode("P"),
        asking(init_image=text(file(mode="P"))),
    ),
    Defect(
        "palette-without-transparency",
        "Makes a palette's transparent colour opaque.",
        ("RES-2",),
        of_mode(("P",), without_alpha),
        asking(init_image=text(with_palette())),
    ),
    Defect(
        "sixteen-bits-cut",
        "Keeps the lower of sixteen bits, so that nearly all becomes white.",
        ("RES-2",),
        of_mode(("I", "I;16"), lambda pixels: np.where(pixels > 0, 255, pixels).astype(np.uint8)),
        asking(init_image=text(sixteen_bits())),
    ),
    Defect(
        "cmyk-inverted",
        "Reads the inks of a CMYK picture upside down.",
        ("RES-2",),
        of_mode(("CMYK",), lambda pixels: 255 - pixels),
        asking(init_image=text(file(kind="JPEG", mode="CMYK"))),
    ),
    Defect(
        "exif-ignored",
        "Does not turn a picture as its EXIF says.",
        ("RES-2", "REQ-16"),
        patched(decode, "exif_orientation", lambda _: 1),
        asking(init_image=text(turned(6))),
    ),
    Defect(
        "exif-in-size-only",
        "Makes a picture as large as if it were turned upright, and does not turn it.",
        ("RES-2",),
        patched(decode, "upright", lambda pixels, _: pixels),
        asking(init_image=text(turned(6))),
    ),
    Defect(
        "exif-turned-the-wrong-way",
        "Turns pictures to the left that are to be turned to the right.",
        ("RES-2",),
        turned_by(lambda orientation: {6: 8, 8: 6}.get(orientation, orientation)),
        asking(init_image=text(turned(6))),
    ),
    Defect(
        "exif-upside-down-ignored",
        "Turns pictures by EXIF a quarter, and never a half.",
        ("RES-2",),
        turned_by(lambda orientation: 1 if orientation == 3 else orientation),
        asking(init_image=text(turned(3))),
    ),
)
