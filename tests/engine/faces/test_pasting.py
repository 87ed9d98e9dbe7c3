"""The mask and the paste equal those of facexlib's FaceRestoreHelper."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.support import face_reference
from tests.support.requirements import needs_face_reference
from upscaler.engine.faces.alignment import FACE_PX, TEMPLATE, similarity
from upscaler.engine.faces.pasting import RestoredFace, paste, place, soft_mask
from upscaler.imaging.pixels import Pixels

PLACES = (TEMPLATE * 0.25 + (20, 10), TEMPLATE * 0.3 + (150, 90))
"""The landmarks of two faces, of which one lies across the border."""


def classes_of_a_face() -> torch.Tensor:
    """Skin, eyes, hair, a hat and a neck, on nothing."""
    y, x = torch.meshgrid(torch.arange(FACE_PX), torch.arange(FACE_PX), indexing="ij")
    found = torch.zeros(FACE_PX, FACE_PX, dtype=torch.int64)
    found[(x - 256) ** 2 + (y - 280) ** 2 < 170**2] = 1
    found[(abs(y - 240) < 20) & (abs(abs(x - 256) - 64) < 30)] = 4
    found[(y < 150) & (abs(x - 256) < 150)] = 13
    found[y < 60] = 14
    found[y > 430] = 17
    return found


def restored(seed: int) -> np.ndarray:
    """A smooth picture of 512x512 with a grain of some levels: RGB."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (9, 9, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (FACE_PX, FACE_PX), interpolation=cv2.INTER_CUBIC).astype(int)
    return (smooth + random.integers(-4, 5, smooth.shape)).clip(0, 255).astype(np.uint8)


def faces(input_size: tuple[int, int], size: tuple[int, int]) -> list[RestoredFace]:
    mask = soft_mask(classes_of_a_face()[None])
    return [
        place(
            torch.cat((torch.from_numpy(restored(seed)).permute(2, 0, 1).float(), mask)),
            similarity(landmarks),
            input_size,
            size,
        )
        for seed, landmarks in enumerate(PLACES)
    ]


def facexlibs(pixels: Pixels, upscaled: Pixels, scale: float) -> Pixels:
    helper = face_reference.helper(upscale_factor=scale)
    one_hot = torch.nn.functional.one_hot(classes_of_a_face(), 19).permute(2, 0, 1)[None].float()
    helper.face_parse = lambda _: (one_hot,)
    helper.read_image(pixels[:, :, ::-1])
    for seed, landmarks in enumerate(PLACES):
        helper.affine_matrices.append(similarity(landmarks))
        helper.add_restored_face(restored(seed)[:, :, ::-1])
    helper.get_inverse_affine(None)
    pasted: Any = helper.paste_faces_to_input_image(upsample_img=upscaled[:, :, ::-1])
    return np.ascontiguousarray(pasted[:, :, ::-1])


@needs_face_reference()
@pytest.mark.parametrize("scale", [1, 2, 4, 2.5])
def test_pasted_faces_equal_facexlibs_to_one_level(scale: float, photo: Pixels) -> None:
    height, width, _ = photo.shape
    size = int(width * scale), int(height * scale)
    upscaled = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    expected = facexlibs(photo, upscaled, scale).astype(int)
    (found,) = paste([upscaled.copy()], faces((width, height), size))
    face_reference.assert_a_level_at_most(found, expected)
    assert (np.abs(expected - upscaled).max(axis=2) > 8).mean() > 0.1


@needs_face_reference()
def test_the_mask_is_facexlibs() -> None:
    """Seen through a paste of white upon black, at the place of the square itself."""
    helper = face_reference.helper(upscale_factor=1)
    one_hot = torch.nn.functional.one_hot(classes_of_a_face(), 19).permute(2, 0, 1)[None].float()
    helper.face_parse = lambda _: (one_hot,)
    helper.read_image(np.zeros((FACE_PX, FACE_PX, 3), np.uint8))
    helper.affine_matrices.append(np.eye(2, 3))
    helper.add_restored_face(np.full((FACE_PX, FACE_PX, 3), 255, np.uint8))
    helper.get_inverse_affine(None)
    expected = helper.paste_faces_to_input_image()[:, :, 0].astype(float)
    found = soft_mask(classes_of_a_face()[None])[0].numpy() * 255
    assert np.abs(expected - np.floor(found + 1e-3)).max() <= 1
    assert (expected > 128).mean() > 0.2


def test_it_does_not_matter_how_the_picture_comes(photo: Pixels) -> None:
    """As a whole, or in strips that nobody may write to."""
    upscaled = photo.repeat(2, axis=0).repeat(2, axis=1)
    height, width, _ = photo.shape
    both = faces((width, height), (2 * width, 2 * height))
    (whole,) = paste([upscaled.copy()], both)
    strips = [upscaled[top : top + 37].copy() for top in range(0, len(upscaled), 37)]
    for strip in strips:
        strip.flags.writeable = False
    assert np.array_equal(np.concatenate(list(paste(strips, both))), whole)
    assert not np.array_equal(whole, upscaled)


def test_outside_the_masks_nothing_changes_and_alpha_nowhere(photo: Pixels) -> None:
    height, width, _ = photo.shape
    alpha = np.random.default_rng(0).integers(0, 256, (height, width, 1), np.uint8)
    before = np.concatenate((photo, alpha), axis=2)
    both = faces((width, height), (width, height))
    (after,) = paste([before.copy()], both)
    changed = (before != after).any(axis=2)
    inside = np.zeros_like(changed)
    for face in both:
        inside[face.rows.start : face.rows.stop, face.columns.start : face.columns.stop] = True
    assert changed.any()
    assert not changed[~inside].any()
    assert (~inside).mean() > 0.3
    assert np.array_equal(before[:, :, 3], after[:, :, 3])


def test_a_face_of_which_nothing_is_masked_changes_nothing(photo: Pixels) -> None:
    nothing = torch.cat(
        (torch.full((3, FACE_PX, FACE_PX), 255.0), torch.zeros(1, FACE_PX, FACE_PX))
    )
    height, width, _ = photo.shape
    face = place(nothing, similarity(PLACES[0]), (width, height), (width, height))
    (after,) = paste([photo.copy()], [face])
    assert np.array_equal(after, photo)
