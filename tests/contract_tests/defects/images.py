"""Mistakes with the picture that is made: its pixels, its size and its file."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final

import numpy as np
from PIL import Image

from tests.contract_tests.defects.planting import (
    Defect,
    Planting,
    changed_file,
    changed_result,
    changed_task,
    redrawn,
    redrawn_for,
)
from tests.contract_tests.defects.probes import Probe, asking, file, saved, text, twice
from upscaler.api.sizes import Size
from upscaler.imaging.pixels import Pixels
from upscaler.service.backend import UpscaleJob

CLEAR: Final = text(file(mode="RGBA"))
OTHER: Final = text(file(320, 280))


def of_task(change: Callable[[Size], Size]) -> Planting:
    """Make another size than is said."""
    return changed_task(lambda task: replace(task, size=change(task.size)))


def remembered(
    make: Callable[[], Callable[[Pixels, Size], Pixels]],
) -> Planting:
    """Enlarge by what has a memory, and is made when it is planted."""

    def planted() -> AbstractContextManager[object]:
        return redrawn_for(make())()

    return planted


def previous() -> Callable[[Pixels, Size], Pixels]:
    """Each picture but the first is the one before it."""
    seen: list[Pixels] = []

    def change(pixels: Pixels, _: Size) -> Pixels:
        seen.append(pixels)
        return seen[-2:][0]

    return change


def first_of_size() -> Callable[[Pixels, Size], Pixels]:
    """Each is the first for which so many pixels were asked."""
    seen: dict[Size, Pixels] = {}
    return lambda pixels, size: seen.setdefault(size, pixels)


def cached_size() -> Planting:
    """Keep the first size of each picture, whatever is asked for later."""

    def planted() -> AbstractContextManager[object]:
        sizes: dict[bytes, Size] = {}
        return changed_task(
            lambda task: replace(task, size=sizes.setdefault(task.source, task.size))
        )()

    return planted


def alpha(change: Callable[[Pixels, Pixels], Pixels]) -> Planting:
    """Make something else of a picture's colours and alpha, if it has any."""
    return redrawn(
        lambda pixels: change(pixels[..., :3], pixels[..., 3:]) if pixels.shape[2] == 4 else pixels
    )


def over(colours: Pixels, opacity: Pixels, ground: int) -> Pixels:
    """The picture on a ground of one shade."""
    part = opacity / 255
    return np.rint(colours * part + ground * (1 - part)).astype(np.uint8)


def joined(colours: Pixels, opacity: Pixels) -> Pixels:
    """Colours and alpha in one."""
    return np.concatenate([colours, opacity], axis=2)


def each_colour(change: Callable[[Pixels], Pixels]) -> Planting:
    """Make something else of the colours, and keep alpha."""
    return redrawn(lambda pixels: joined(change(pixels[..., :3]), pixels[..., 3:]))


def blank(value: int) -> Planting:
    """Make a picture of one shade."""
    return each_colour(lambda colours: np.full_like(colours, value))


def cropped(pixels: Pixels) -> Pixels:
    """The middle of it."""
    height, width = pixels.shape[:2]
    return pixels[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4]


def corner(pixels: Pixels) -> Pixels:
    """What is on its left and top."""
    height, width = pixels.shape[:2]
    return pixels[: height // 2, : width // 2]


def letterboxed(pixels: Pixels) -> Pixels:
    """The same between black bars."""
    height = len(pixels)
    bars = np.zeros((height // 8, *pixels.shape[1:]), np.uint8)
    bars[..., 3:] = 255
    return np.concatenate([bars, pixels, bars])


def tile_missing(pixels: Pixels) -> Pixels:
    """Its last tile is black."""
    height, width = pixels.shape[:2]
    made = pixels.copy()
    made[height // 2 :, width // 2 :, :3] = 0
    return made


def tiles_swapped(pixels: Pixels) -> Pixels:
    """Its left half is on the right."""
    return np.roll(pixels, pixels.shape[1] // 2, axis=1)


def smaller(pixels: Pixels) -> Pixels:
    """What is left of it where the network sees only every sixteenth pixel."""
    return pixels[::16, ::16]


def grey(colours: Pixels) -> Pixels:
    """The same shade in every channel."""
    mean = colours.mean(axis=2, keepdims=True).astype(np.uint8)
    return np.broadcast_to(mean, colours.shape)


def wrapped(colours: Pixels) -> Pixels:
    """A little brighter, and what is too bright begins at black again."""
    return ((colours.astype(np.int16) + 40) % 256).astype(np.uint8)


def to_format(kind: str) -> Callable[[bytes, UpscaleJob], bytes]:
    """The same picture in another file format."""
    return lambda data, _: saved(Image.open(io.BytesIO(data)).convert("RGB"), kind)


def in_base64(change: Callable[[str], str]) -> Planting:
    """Write the base64 in another way."""
    return changed_result(lambda told: told | {"image_b64": change(told["image_b64"])})


def in_lines(content: str) -> str:
    """Lines of 76 characters, as MIME and Python's encodebytes have them."""
    return "".join(content[at : at + 76] + "\n" for at in range(0, len(content), 76))


def seen_with(
    change: Planting, name: str, mistake: str, probe: Probe | None = None, *, rule: str = "RES-2"
) -> Defect:
    """A defect that is seen in the picture; `rule` may say it more exactly than RES-2."""
    return Defect(name, mistake, tuple({rule: 0, "RES-2": 0}), change, probe or asking())


DRAWN: Final = (
    seen_with(blank(255), "picture-white", "Makes a white picture."),
    seen_with(blank(0), "picture-black", "Makes a black picture."),
    seen_with(each_colour(grey), "picture-grey", "Loses the colours."),
    seen_with(
        each_colour(lambda colours: colours[..., ::-1]),
        "picture-bgr",
        "Swaps red and blue, as OpenCV has them.",
    ),
    seen_with(each_colour(lambda colours: 255 - colours), "picture-negative", "Makes a negative."),
    seen_with(
        each_colour(wrapped), "picture-overflows", "Lets bright samples overflow and become black."
    ),
    seen_with(
        each_colour(lambda colours: (colours // 255) * 255),
        "picture-truncated-to-0-and-1",
        "Turns samples from 0 to 1 into integers before it multiplies them by 255.",
    ),
    seen_with(
        redrawn(lambda pixels: pixels[:, ::-1]), "picture-mirrored", "Makes it mirror-inverted."
    ),
    seen_with(
        redrawn(lambda pixels: pixels[::-1]), "picture-upside-down", "Begins with the last row."
    ),
    seen_with(redrawn(lambda pixels: pixels[::-1, ::-1]), "picture-turned", "Turns it by a half."),
    seen_with(
        redrawn(lambda pixels: pixels.transpose(1, 0, 2)),
        "picture-transposed",
        "Swaps rows and columns.",
    ),
    seen_with(
        redrawn(cropped), "picture-cropped", "Enlarges the middle of the picture, and not all."
    ),
    seen_with(
        redrawn(corner),
        "picture-corner",
        "Enlarges the corner where the first tile is, and not all.",
    ),
    seen_with(
        redrawn(letterboxed), "picture-letterboxed", "Puts black bars above and below the picture."
    ),
    seen_with(
        redrawn(tile_missing), "picture-tile-missing", "Leaves the last tile of the picture black."
    ),
    seen_with(
        redrawn(tiles_swapped), "picture-tiles-swapped", "Puts the tiles together in a wrong order."
    ),
    seen_with(redrawn(smaller), "picture-coarse", "Enlarges a thumbnail of the picture."),
    seen_with(
        remembered(previous),
        "picture-previous",
        "Gives out the picture of the request before.",
        twice(asking(), asking(init_image=OTHER)),
    ),
    seen_with(
        remembered(first_of_size),
        "picture-cached-by-size",
        "Gives out an earlier picture of the same size.",
        twice(asking(), asking(init_image=text(file(mode="L")))),
    ),
    Defect(
        "size-cached-by-picture",
        "Gives out a picture again as it was first asked for, whatever the size.",
        ("RES-2", "REQ-16"),
        cached_size(),
        twice(asking(scale=1), asking(scale=2)),
    ),
)

ALPHA: Final = (
    seen_with(
        alpha(lambda colours, _: colours),
        "alpha-dropped",
        "Drops alpha, so that what was behind it comes to light.",
        asking(init_image=CLEAR),
    ),
    seen_with(
        alpha(lambda colours, opacity: over(colours, opacity, 0)),
        "alpha-on-black",
        "Puts what is transparent on black, and has no alpha.",
        asking(init_image=CLEAR),
    ),
    seen_with(
        alpha(lambda colours, opacity: over(colours, opacity, 255)),
        "alpha-on-white",
        "Puts what is transparent on white, and has no alpha.",
        asking(init_image=CLEAR),
    ),
    seen_with(
        alpha(lambda colours, opacity: joined(colours, 255 - opacity)),
        "alpha-inverted",
        "Makes opaque what is transparent, and the other way round.",
        asking(init_image=CLEAR),
    ),
    seen_with(
        alpha(lambda colours, opacity: joined(over(colours, opacity, 0), opacity)),
        "alpha-premultiplied",
        "Darkens the colours by their alpha, and keeps it.",
        asking(init_image=CLEAR),
    ),
    seen_with(
        alpha(lambda colours, opacity: joined(colours, np.full_like(opacity, 255))),
        "alpha-opaque",
        "Keeps a fourth channel, and makes all of it opaque.",
        asking(init_image=CLEAR),
    ),
    seen_with(
        alpha(lambda colours, opacity: joined(colours, opacity // 128 * 255)),
        "alpha-of-one-bit",
        "Makes everything either transparent or opaque.",
        asking(init_image=CLEAR),
    ),
)

SIZED: Final = (
    seen_with(
        of_task(lambda size: (size[0] - 1, size[1])),
        "picture-narrower",
        "Makes the picture narrower by a pixel.",
        rule="REQ-16",
    ),
    seen_with(
        of_task(lambda size: (size[0], size[1] + 1)),
        "picture-higher",
        "Makes the picture higher by a pixel.",
        rule="REQ-16",
    ),
    seen_with(
        of_task(lambda size: (size[0] + 2, size[1] + 2)),
        "picture-with-margin",
        "Leaves the margin of its tiles on the picture.",
        rule="REQ-16",
    ),
    seen_with(
        of_task(lambda size: size[::-1]),
        "picture-size-swapped",
        "Swaps width and height.",
        rule="REQ-16",
    ),
    seen_with(
        of_task(lambda size: (size[0] - size[0] % 8, size[1] - size[1] % 8)),
        "picture-of-whole-blocks",
        "Cuts the picture so that its sides divide by eight.",
        rule="REQ-16",
    ),
)

ENCODED: Final = (
    seen_with(in_base64(in_lines), "base64-in-lines", "Breaks the base64 into lines."),
    seen_with(
        in_base64(lambda content: f"data:image/png;base64,{content}"),
        "base64-with-prefix",
        "Puts data:image/png;base64, before the picture.",
    ),
    seen_with(
        in_base64(lambda content: content.replace("+", "-").replace("/", "_")),
        "base64-for-urls",
        "Writes base64 in the alphabet for URLs.",
    ),
    seen_with(
        in_base64(lambda content: content.rstrip("=")),
        "base64-without-padding",
        "Leaves out the padding of base64.",
        asking(scale=1.01),
    ),
    seen_with(
        in_base64(lambda content: f"b'{content}'"),
        "base64-as-python",
        "Writes base64 as Python prints bytes.",
    ),
    seen_with(
        in_base64(lambda content: text(content.encode())),
        "base64-twice",
        "Encodes base64 once more.",
    ),
    seen_with(
        in_base64(lambda content: content[: len(content) // 8 * 4]),
        "file-cut-off",
        "Sends the first half of the file.",
    ),
    seen_with(
        changed_file(to_format("WEBP")),
        "file-webp",
        "Makes a WebP of every picture.",
        rule="REQ-9",
    ),
    seen_with(
        changed_file(lambda data, _: data + data), "file-twice", "Sends the file twice in a row."
    ),
)
