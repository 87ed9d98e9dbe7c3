"""Prior boxes, decoding, suppression and the choice of faces, beside facexlib's."""

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support import face_reference
from tests.support.requirements import needs_face_reference
from upscaler.api.limits import MAX_FACES
from upscaler.engine.faces.detection import (
    MAX_CANDIDATES,
    choose,
    decode,
    find_faces,
    prior_boxes,
    suppress,
)
from upscaler.engine.faces.retinaface import Predictions
from upscaler.errors import InvalidRequest
from upscaler.imaging.pixels import Pixels

CPU = torch.device("cpu")
SIZE = 203, 157  # width and height


def predictions(likely: float, seed: int = 0) -> Predictions:
    """Random ones for a picture of SIZE, with so large a part of scores above the threshold."""
    generator = torch.Generator().manual_seed(seed)
    count = len(prior_boxes(*SIZE))
    scores = torch.rand(count, generator=generator) * 0.97
    chosen = torch.rand(count, generator=generator) < likely
    scores[chosen] = 0.971 + 0.028 * torch.rand(int(chosen.sum()), generator=generator)
    return Predictions(
        torch.randn(1, count, 4, generator=generator),
        torch.stack((1 - scores, scores), dim=1)[None],
        3 * torch.randn(1, count, 10, generator=generator),
    )


@needs_face_reference()
def test_faces_are_those_that_facexlib_finds(photo: Pixels) -> None:
    """What a network predicts being the same: the box, the score and the points of each."""
    seen: list[Tensor] = []
    given = predictions(0.02)

    def network(x: Tensor) -> Predictions:
        seen.append(x)
        return given

    pixels = photo[: SIZE[1], : SIZE[0]]
    theirs: Any = face_reference.retinaface("mobile0.25")
    theirs.forward = network
    expected = theirs.detect_faces(pixels[:, :, ::-1], 0.97)
    eyes = np.linalg.norm(expected[:, 5:7] - expected[:, 7:9], axis=1)
    expected = expected[eyes >= 5][:MAX_FACES]
    assert 20 < len(expected) < MAX_FACES
    assert (eyes < 5).any(), "some are to be left out"

    net: Any = network
    found = find_faces(net, pixels, CPU)

    assert torch.equal(*seen)
    rows = [(*face.box, face.score, *face.landmarks.ravel()) for face in found]
    assert np.abs(np.array(rows) - expected).max() < 1e-3


@needs_face_reference()
@pytest.mark.parametrize("size", [(256, 256), (301, 77)], ids=str)
def test_prior_boxes_are_facexlibs(size: tuple[int, int]) -> None:
    with face_reference.importable():
        from facexlib.detection.retinaface import PriorBox, generate_config

        expected = PriorBox(generate_config("resnet50"), image_size=size[::-1]).forward()
    assert torch.allclose(prior_boxes(*size), expected, rtol=0, atol=1e-6)


@needs_face_reference()
@pytest.mark.parametrize("seed", range(3))
def test_the_same_boxes_are_kept_as_by_facexlibs_suppression(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 60, (300, 2))
    boxes = np.hstack((corners, corners + random.uniform(5, 40, (300, 2)))).astype(np.float32)
    scores = torch.linspace(1, 0, 300)
    with face_reference.importable():
        expected = face_reference.nms(torch.from_numpy(boxes), scores, 0.4)
    assert suppress(boxes, 0.4) == expected.tolist()
    assert 10 < len(expected) < 200


def test_a_picture_cannot_have_more_candidates_than_are_quick_to_compare() -> None:
    """Every prior box of the largest picture is a face."""
    count = len(prior_boxes(2048, 2048))
    assert count > 100_000
    random = torch.Generator().manual_seed(0)
    every = Predictions(
        torch.randn(1, count, 4, generator=random),
        torch.tensor([0.0, 0.99]).expand(1, count, 2),
        torch.randn(1, count, 10, generator=random),
    )
    began_s = time.process_time()
    boxes, scores, landmarks = decode(every, (2048, 2048), (2048, 2048))
    assert len(boxes) == len(scores) == len(landmarks) == MAX_CANDIDATES
    with pytest.raises(InvalidRequest):
        choose(boxes, scores, landmarks)
    assert time.process_time() - began_s < 10  # without the bound it takes minutes


def row_of_faces(count: int, eyes_px: float = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    left = 50 * np.arange(count, dtype=np.float32)
    top = np.zeros_like(left)
    boxes = np.stack((left, top, left + 40, top + 40), axis=1)
    points = [(10, 10), (10 + eyes_px, 10), (20, 20), (12, 30), (28, 30)]
    landmarks = np.array(points, np.float32) + left[:, None, None] * (1, 0)
    return boxes, np.full(count, 0.99, np.float32), landmarks


def test_thirty_two_faces_are_taken_and_more_refused() -> None:
    assert len(choose(*row_of_faces(MAX_FACES))) == MAX_FACES == 32
    with pytest.raises(InvalidRequest, match="more than 32 faces") as caught:
        choose(*row_of_faces(MAX_FACES + 1))
    (error,) = caught.value.errors
    assert error.loc == ("body", "face_enhance")
    assert error.type == "too_many_faces"


@pytest.mark.parametrize(("eyes_px", "count"), [(4.9, 0), (5, 2)])
def test_faces_with_eyes_too_close_do_not_count(eyes_px: float, count: int) -> None:
    assert len(choose(*row_of_faces(2, eyes_px))) == count


def test_what_is_not_finite_is_no_face() -> None:
    found = predictions(0.05)
    found.boxes.fill_(torch.nan)
    found.landmarks.fill_(torch.nan)
    assert choose(*decode(found, SIZE, SIZE)) == []
    found.boxes.fill_(1e4)  # infinite sizes
    found.landmarks.fill_(1e30)
    assert choose(*decode(found, SIZE, SIZE)) == []
    found.scores.fill_(torch.nan)
    assert len(decode(found, SIZE, SIZE)[0]) == 0


def test_large_pictures_are_reduced_and_faces_stay_where_they_are(photo: Pixels) -> None:
    seen = []

    def network(x: Tensor) -> Predictions:
        seen.append(x.shape)
        count = len(prior_boxes(x.shape[3], x.shape[2]))
        scores = torch.zeros(1, count, 2)
        scores[0, count // 2, 1] = 0.99
        return Predictions(torch.zeros(1, count, 4), scores, torch.ones(1, count, 10))

    net: Any = SimpleNamespace(__call__=network)
    wide = np.broadcast_to(photo[:1, :1], (100, 4300, 3))
    net = network
    boxes, _, _ = decode(network(torch.empty(1, 3, 50, 2150)), (2150, 50), (4300, 100))
    seen.clear()
    assert find_faces(net, wide, CPU) == []  # eyes upon each other
    assert seen == [(1, 3, 50, 2150)]
    left, top, right, bottom = boxes[0]
    assert right - left == pytest.approx(bottom - top, rel=1e-3)
    assert 0 < left < right < 4300
