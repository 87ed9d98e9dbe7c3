"""Find faces: run RetinaFace on a picture, decode what it says, and choose.

The numbers are those of facexlib's `retinaface.py` and of the call of it in GFPGAN's `utils.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upscaler.api.limits import MAX_FACES
from upscaler.engine.faces.retinaface import Predictions
from upscaler.errors import FieldError, InvalidRequest
from upscaler.imaging.pixels import Pixels

Floats = NDArray[np.float32]

PRIORS: Final = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
"""The sides in pixels of the two prior boxes at each place of a map, by the map's stride."""
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
"""What a network's offsets are multiplied by: of centres and points, and of the log of sizes."""
MEAN_BGR: Final = (104.0, 117.0, 123.0)
"""The mean colour that is subtracted from each pixel."""
MIN_SCORE: Final = 0.97
MAX_OVERLAP: Final = 0.4
"""Of two boxes with a larger intersection over union only the better one is kept."""
MIN_EYE_DISTANCE_PX: Final = 5.0
"""Faces with eyes closer to each other are too small, or seen from the side."""
FAR_PX: Final = 2.0**17
"""Twice the longest side that a picture may have: beyond it is no face, whatever a network says."""
MAX_SIDE_PX: Final = 2150
"""Faces are found in pictures of at most this longest side, to which larger ones are reduced: it is
facexlib's `max_size`. The API takes none that are larger."""
MAX_CANDIDATES: Final = 2000
"""How many boxes are compared with each other, the best ones. A face has some tens of them; a
picture made for it could have tens of thousands, each compared with each."""


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    `box` is its left, top, right and bottom, and `landmarks` has the shape (5, 2): x and y of the
    eyes, the nose and the corners of the mouth, all in pixels. `score` is up to 1.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: NDArray[np.float64]


def find_faces(
    net: Callable[[Tensor], Predictions], pixels: Pixels, device: torch.device
) -> list[Face]:
    """The faces in `pixels`, uint8 RGB of shape (height, width, 3), the best ones first.

    Raises InvalidRequest for more than MAX_FACES.
    """
    height, width, _ = pixels.shape
    x = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(2, 0, 1)[None].float()
    if max(height, width) > MAX_SIDE_PX:
        factor = MAX_SIDE_PX / max(height, width)
        size = [max(1, round(side * factor)) for side in (height, width)]
        x = torch.nn.functional.interpolate(x, size, mode="bilinear", antialias=True)
    x = x.flip(1) - torch.tensor(MEAN_BGR, device=device)[:, None, None]
    with torch.inference_mode():
        boxes, scores, landmarks = decode(net(x), (x.shape[3], x.shape[2]), (width, height))
    return choose(boxes, scores, landmarks)


def prior_boxes(width: int, height: int) -> Tensor:
    """The prior boxes of a picture: shape (boxes, 4), x and y of centres, widths and heights.

    They are fractions of the picture's sides, in the order of the network's predictions.
    """
    found = []
    for stride, sides in PRIORS:
        rows, columns = -(-height // stride), -(-width // stride)
        y = (torch.arange(rows) + 0.5) * stride / height
        x = (torch.arange(columns) + 0.5) * stride / width
        centres = torch.stack((x.expand(rows, -1), y[:, None].expand(-1, columns)), dim=-1)
        sizes = torch.tensor([[side / width, side / height] for side in sides])
        places = (rows, columns, len(sides), 2)
        both = centres[:, :, None].expand(places), sizes.expand(places)
        found.append(torch.cat(both, dim=-1).reshape(-1, 4))
    return torch.cat(found)


def decode(
    predictions: Predictions, computed: tuple[int, int], size: tuple[int, int]
) -> tuple[Floats, Floats, Floats]:
    """Boxes (count, 4), scores (count,) and landmarks (count, 5, 2) in pixels.

    `computed` are the width and height that the network was given, and `size` those of the picture.
    Only boxes with MIN_SCORE are returned, the best first, at most MAX_CANDIDATES.
    """
    scores = predictions.scores[0, :, 1].cpu()
    # What is not finite is no face.
    likely = torch.nonzero(scores > MIN_SCORE)[:, 0]
    best = likely[torch.argsort(scores[likely], descending=True, stable=True)[:MAX_CANDIDATES]]
    priors = prior_boxes(*computed)[best]
    offsets, points = predictions.boxes[0].cpu()[best], predictions.landmarks[0].cpu()[best]
    sides = torch.tensor(size, dtype=torch.float32)
    centres = priors[:, :2] + offsets[:, :2] * CENTRE_VARIANCE * priors[:, 2:]
    sizes = priors[:, 2:] * torch.exp(offsets[:, 2:] * SIZE_VARIANCE)
    corners = centres - sizes / 2
    boxes = torch.cat((corners * sides, (corners + sizes) * sides), dim=1)
    places = points.reshape(-1, 5, 2) * CENTRE_VARIANCE * priors[:, None, 2:]
    landmarks = (priors[:, None, :2] + places) * sides
    return boxes.numpy(), scores[best].numpy(), landmarks.numpy()


def choose(boxes: Floats, scores: Floats, landmarks: Floats) -> list[Face]:
    """The faces among candidates in the order of their scores; raises InvalidRequest for too many.

    The arguments are what `decode` returns.
    """
    found: list[Face] = []
    for index in suppress(boxes, MAX_OVERLAP):
        points = landmarks[index].astype(np.float64)
        near = (np.abs(points) < FAR_PX).all()  # and finite
        if not near or np.linalg.norm(points[0] - points[1]) < MIN_EYE_DISTANCE_PX:
            continue
        if len(found) == MAX_FACES:
            msg = f"the picture has more than {MAX_FACES} faces: leave face_enhance out, or crop it"
            raise InvalidRequest(FieldError(("body", "face_enhance"), msg, "too_many_faces"))
        left, top, right, bottom = map(float, boxes[index])
        found.append(Face((left, top, right, bottom), float(scores[index]), points))
    return found


def suppress(boxes: Floats, overlap: float) -> list[int]:
    """Non-maximum suppression: the indices of the boxes that no better one overlaps by more.

    `boxes` has the shape (count, 4), the best one first.
    """
    corners, opposite = boxes[:, :2], boxes[:, 2:]
    with np.errstate(over="ignore", invalid="ignore"):  # a box may be infinite
        return _suppress(corners, opposite, overlap)


def _suppress(corners: Floats, opposite: Floats, overlap: float) -> list[int]:
    areas = np.prod(opposite - corners, axis=1)
    left = np.arange(len(corners))
    kept = []
    while len(left):
        first, left = left[0], left[1:]
        kept.append(int(first))
        shared = np.minimum(opposite[first], opposite[left])
        shared -= np.maximum(corners[first], corners[left])
        common = np.prod(np.maximum(shared, 0), axis=1)
        left = left[common <= overlap * (areas[first] + areas[left] - common)]
    return kept
