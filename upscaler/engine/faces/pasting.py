"""Paste restored faces into an upscaled picture, by a soft mask of what is face.

As `FaceRestoreHelper.paste_faces_to_input_image` of facexlib with `use_parse`; but strip by strip,
and where the mask is zero the pixels stay exactly what they were.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own documentation calls it so

from upscaler.api.sizes import Size
from upscaler.engine.faces.alignment import Matrix, invert, warp
from upscaler.imaging.pixels import Pixels

FACE_CLASSES: Final = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15)
"""ParseNet's classes that are a face, with hair: not the background (0), a hat (14), the neck, what
is around it, and clothes (16 to 18). That is facexlib's MASK_COLORMAP."""
BLUR_SIGMA, BLUR_REACH = 11.0, 50
"""The mask is blurred twice with a Gaussian of that deviation, cut off at so many pixels."""
BORDER_PX: Final = 10
"""Nothing of the square's outermost pixels is pasted."""
PART_PX: Final = 2**20
"""How many pixels are pasted at a time, to bound the memory that it takes."""


@dataclass(frozen=True)
class RestoredFace:
    """A face to paste: `image` float32 (4, 512, 512) of RGB in 0..255 and the mask in 0..1.

    `back` leads from positions in the upscaled picture to those in it, and `columns` and `rows` are
    those of that picture where the mask may be more than zero.
    """

    image: Tensor
    back: Matrix
    columns: range
    rows: range


def soft_mask(classes: Tensor) -> Tensor:
    """The mask of faces, float32 in 0..1, by ParseNet's class of each pixel.

    Both have the shape (faces, 512, 512).
    """
    mask = torch.isin(classes, torch.tensor(FACE_CLASSES, device=classes.device)).float()[:, None]
    reach = torch.arange(-BLUR_REACH, BLUR_REACH + 1, device=classes.device)
    kernel = torch.exp(-(reach**2) / (2 * BLUR_SIGMA**2))
    kernel = (kernel / kernel.sum())[None, None, None]
    for _ in range(2):
        for weights in (kernel, kernel.transpose(2, 3)):
            rows, columns = (side // 2 for side in weights.shape[2:])
            padded = F.pad(mask, (columns, columns, rows, rows), mode="reflect")
            mask = F.conv2d(padded, weights)
    inner = torch.zeros_like(mask)
    inside = slice(BORDER_PX, -BORDER_PX)
    inner[:, :, inside, inside] = mask[:, :, inside, inside]
    return inner[:, 0]


def place(image: Tensor, matrix: Matrix, input_size: Size, size: Size) -> RestoredFace:
    """Where a restored face lies in the upscaled picture.

    `image` is that of a RestoredFace, `matrix` leads from the input, of `input_size`, to the
    square, and `size` is that of the upscaled picture.
    """
    factors = np.array(size) / np.array(input_size)
    forth = invert(matrix) * factors[:, None]
    # Half a pixel of the input, as GFPGAN has it. From centre to centre it would be half a pixel of
    # the result less, which it leaves out at scale 1 only.
    forth[:, 2] += np.where(factors > 1, 0.5 * factors, 0)
    visible = torch.nonzero(image[3] > 0)
    if not len(visible):
        return RestoredFace(image, invert(forth), range(0), range(0))
    top, left = visible.amin(0).tolist()
    bottom, right = visible.amax(0).tolist()
    # What is interpolated reaches a pixel further.
    corners = [(x, y, 1.0) for x in (left - 1, right + 1) for y in (top - 1, bottom + 1)]
    x, y = forth @ np.array(corners).T
    return RestoredFace(image, invert(forth), _within(x, size[0]), _within(y, size[1]))


def paste(strips: Iterable[Pixels], faces: Sequence[RestoredFace]) -> Iterator[Pixels]:
    """Yield `strips` of an upscaled picture, uint8 with 3 or 4 channels, with the faces pasted in.

    Strips are changed in place where they can be. Alpha stays as it is.
    """
    top = 0
    for strip in strips:
        result = strip
        for face in faces:
            for rows in _parts(face, top, top + len(strip)):
                if not result.flags.writeable:
                    result = result.copy()
                _paste_part(result, top, face, rows)
        top += len(strip)
        yield result


def _paste_part(strip: Pixels, top: int, face: RestoredFace, rows: range) -> None:
    """Paste some rows of a face into `strip`, whose first row is `top`."""
    part = strip[rows.start - top : rows.stop - top, face.columns.start : face.columns.stop, :3]
    warped = warp(face.image, face.back, face.columns, rows)
    colours, mask = warped[:3], warped[3:]
    below = torch.from_numpy(part.astype(np.float32)).permute(2, 0, 1)
    # Rounded once. facexlib rounds the colours before, and cuts off the sum, so that what is hardly
    # masked, or hardly changed, would get a level darker.
    mixed = below + mask * (colours - below)
    part[:] = mixed.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def _parts(face: RestoredFace, top: int, bottom: int) -> Iterator[range]:
    """The rows of a face from `top` to `bottom`, in parts of about PART_PX."""
    step = max(1, PART_PX // max(len(face.columns), 1))
    for start in range(max(face.rows.start, top), min(face.rows.stop, bottom), step):
        yield range(start, min(start + step, face.rows.stop, bottom))


def _within(positions: Matrix, side: int) -> range:
    """The whole positions from the least to the largest of `positions`, in 0..side."""
    low, high = float(positions.min()), float(positions.max())
    return range(max(0, int(np.floor(low))), max(0, min(side, int(np.ceil(high)) + 1)))
