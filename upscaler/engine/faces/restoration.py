"""Restore the faces of a picture, as `GFPGANer` does it."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from upscaler.api.sizes import Size
from upscaler.engine.faces.alignment import FACE_PX, Matrix, invert, similarity, warp
from upscaler.engine.faces.detection import MAX_SIDE_PX, Face, find_faces
from upscaler.engine.faces.pasting import RestoredFace, place, soft_mask
from upscaler.engine.memory import as_out_of_memory
from upscaler.engine.tensors import LUMA
from upscaler.errors import Overflow
from upscaler.imaging.alpha import bleed_colours
from upscaler.imaging.pixels import Pixels, is_gray
from upscaler.planning import MIB

AROUND: Final = (132.0, 133.0, 135.0)
"""The colour of what an aligned face has beyond the picture's border, as in facexlib: RGB."""
BATCH: Final = 4
"""How many faces are restored at once, if there is memory for so many."""

FINDING_BYTES: Final = 520
"""What finding faces takes for each pixel of the picture, by `python -m benchmarks.faces`."""
RESTORING_BYTES: Final = 700 * MIB
"""What restoring a face takes, by the same."""


class FaceNets(NamedTuple):
    """What finds, restores and masks faces: a RetinaFace, a GFPGANv1Clean and a ParseNet."""

    detector: nn.Module
    restorer: nn.Module
    parser: nn.Module


class FaceRestorer:
    """The three networks on one device. It keeps no state of any image."""

    def __init__(self, nets: FaceNets, device: torch.device) -> None:
        self.device = device
        self._detector, self._restorer, self._parser = (net.to(device) for net in nets)

    def find(self, pixels: Pixels) -> list[Face]:
        """The faces in `pixels`, uint8 of shape (height, width, 3 or 4), the best ones first.

        Raises InvalidRequest for more than MAX_FACES, and OutOfMemory.
        """
        with as_out_of_memory("finding faces"):
            return find_faces(self._detector, _colours(pixels), self.device)

    def restore(
        self,
        pixels: Pixels,
        faces: Sequence[Face],
        size: Size,
        strength: float = 1.0,
        check: Callable[[], object] = lambda: None,
        *,
        memory: int = BATCH * RESTORING_BYTES,
    ) -> list[RestoredFace]:
        """The `faces` of `pixels`, to be pasted into what becomes of the picture at `size`.

        `strength` is 0..1: how much of a restored face is mixed with the upscaled one. Those of a
        grey picture are grey. As many are restored at once as `memory` has bytes for; `check` is
        called before that. Raises what it raises, Overflow if a network's output is not finite, and
        OutOfMemory.
        """
        batch = max(1, min(BATCH, memory // RESTORING_BYTES))
        height, width, _ = pixels.shape
        colours = _colours(pixels)
        grey = is_gray(colours)
        restored = []
        with torch.inference_mode(), as_out_of_memory("restoring faces"):
            for start in range(0, len(faces), batch):
                check()
                some = faces[start : start + batch]
                matrices = [similarity(face.landmarks) for face in some]
                aligned = torch.stack([align(colours, matrix) for matrix in matrices])
                images = self._restored(aligned.to(self.device), grey=grey, strength=strength)
                restored += [
                    place(image, matrix, (width, height), size)
                    for image, matrix in zip(images.cpu(), matrices, strict=True)
                ]
        return restored

    def _restored(self, aligned: Tensor, *, grey: bool, strength: float) -> Tensor:
        """Aligned faces, restored, with their masks: shape (faces, 4, 512, 512).

        Both are float32, levels in 0..255; the masks are in 0..1.
        """
        found = self._restorer(aligned / 127.5 - 1)
        if not found.isfinite().all():
            raise Overflow("the network that restores faces has an infinite output, or NaN")
        levels = ((found.clamp(-1, 1) + 1) * 127.5).round()
        mask = soft_mask(self._parser(levels / 127.5 - 1).argmax(dim=1))
        if grey:
            luma = torch.tensor(LUMA, device=levels.device)[:, None, None]
            levels = (levels * luma).sum(1, keepdim=True).round().expand(-1, 3, -1, -1)
        return torch.cat((levels, strength * mask[:, None]), dim=1)


def face_bytes(size: Size) -> int:
    """At least how many bytes restoring faces takes in an image of `size`, beside the models."""
    width, height = size
    scale = min(1, MAX_SIDE_PX / max(size))
    return max(RESTORING_BYTES, int(width * height * scale**2) * FINDING_BYTES)


def align(pixels: Pixels, matrix: Matrix) -> Tensor:
    """The face that `matrix` leads upright, as whole levels: float32 of shape (3, 512, 512)."""
    height, width, _ = pixels.shape
    back = invert(matrix)
    last = FACE_PX - 1.0
    corners = np.array([(x, y, 1.0) for x in (0.0, last) for y in (0.0, last)])
    # Only what is seen is converted, and a pixel around it, which is interpolated with.
    left, top = np.clip(np.floor((back @ corners.T).min(axis=1)) - 1, 0, (width - 1, height - 1))
    right, bottom = np.clip(np.ceil((back @ corners.T).max(axis=1)) + 2, 1, (width, height))
    part = pixels[
        int(top) : max(int(bottom), int(top) + 1), int(left) : max(int(right), int(left) + 1)
    ]
    back[:, 2] -= left, top
    source = torch.from_numpy(part.astype(np.float32)).permute(2, 0, 1)
    square = range(FACE_PX)
    return warp(source, back, square, square, torch.tensor(AROUND)).round()


def _colours(pixels: Pixels) -> Pixels:
    """RGB. Those beneath transparency, which nobody sees, are replaced as for the network."""
    return pixels if pixels.shape[2] == 3 else bleed_colours(pixels)[:, :, :3]
