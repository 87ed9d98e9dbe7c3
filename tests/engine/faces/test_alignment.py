"""Alignment equals OpenCV's, which facexlib uses."""

import cv2
import numpy as np
import pytest

from upscaler.engine.faces.alignment import FACE_PX, TEMPLATE, invert, similarity
from upscaler.engine.faces.restoration import AROUND, align
from upscaler.imaging.pixels import Pixels

CORNERS = np.array([(x, y, 1) for x in (0, FACE_PX) for y in (0, FACE_PX)])


def landmarks(seed: int, noise_px: float) -> np.ndarray:
    """Those of a face somewhere, turned and of any size; noise is in pixels of the square."""
    random = np.random.default_rng(seed)
    angle, scale = random.uniform(-0.6, 0.6), random.uniform(0.1, 2)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (TEMPLATE + random.normal(0, noise_px, (5, 2))) @ turn.T + random.uniform(0, 500, 2)


@pytest.mark.parametrize("noise_px", [0, 1, 10])
def test_the_transform_is_opencvs(noise_px: float) -> None:
    """At the corners of the square, over many faces."""
    for seed in range(200):
        points = landmarks(seed, noise_px)
        expected, _ = cv2.estimateAffinePartial2D(points, TEMPLATE, method=cv2.LMEDS)
        back = invert(np.asarray(expected, np.float64))
        moved = np.array([*(back @ CORNERS.T), np.ones(4)])
        difference = similarity(points) @ moved - CORNERS[:, :2].T
        assert np.abs(difference).max() < 0.02, seed


@pytest.mark.parametrize(
    ("shift", "across"), [((20, 10), 0.0), ((-30, 60), 0.1), ((240, 200), 0.3)], ids=str
)
def test_an_aligned_face_equals_opencvs_to_one_level(
    shift: tuple[int, int], across: float, photo: Pixels
) -> None:
    """Also where it lies across the border of the picture."""
    turn = np.array([[0.26, -0.06], [0.06, 0.26]])
    matrix = similarity(TEMPLATE @ turn.T + (30, 0) + shift)
    expected = cv2.warpAffine(photo, matrix, (FACE_PX, FACE_PX), borderValue=AROUND)
    found = align(photo, matrix).permute(1, 2, 0).numpy()
    assert expected.std() > 10
    assert np.abs(expected - found).max() <= 1
    assert (expected == np.array(AROUND)).all(2).mean() >= across


def test_a_face_that_is_not_in_the_picture_is_all_border(photo: Pixels) -> None:
    matrix = similarity(TEMPLATE - 5000)
    assert (align(photo, matrix).permute(1, 2, 0).numpy() == AROUND).all()


def test_an_inverse_leads_back() -> None:
    matrix = similarity(landmarks(1, 3))
    there = np.array([*(matrix @ CORNERS.T), np.ones(4)])
    assert np.allclose(invert(matrix) @ there, CORNERS[:, :2].T)
