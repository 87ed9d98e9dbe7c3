"""The whole chain equals `GFPGANer.enhance`, with the same weights and the same landmarks."""

import functools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.support import face_reference
from tests.support.face_reference import randomize
from tests.support.requirements import needs_face_reference
from upscaler.engine.faces.alignment import TEMPLATE, similarity
from upscaler.engine.faces.detection import Face
from upscaler.engine.faces.gfpgan import GFPGANv1Clean
from upscaler.engine.faces.parsenet import ParseNet
from upscaler.engine.faces.pasting import paste
from upscaler.engine.faces.restoration import BATCH, FaceNets, FaceRestorer, align
from upscaler.errors import Overflow
from upscaler.imaging.pixels import Pixels

CPU = torch.device("cpu")
NARROW = {"num_style_feat": 16, "narrow": 0.0625}


def faces(*landmarks: np.ndarray) -> list[Face]:
    return [Face((0, 0, 1, 1), 1, each) for each in landmarks]


TWO = faces(TEMPLATE * 0.25 + (20, 10), TEMPLATE[:, ::1] * 0.22 + (170, 60))


class Identity(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Parser(nn.Module):
    """What a pixel is depends on its colour, and around a circle it is nothing.

    The mask of a face across all of the square would end in a step. There it is not equal, since
    OpenCV rounds positions in a mask to a 32nd of a pixel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.classes = nn.Conv2d(3, 19, 1)

    def forward(self, x: Tensor) -> Tensor:
        row, column = torch.meshgrid(torch.arange(512), torch.arange(512), indexing="ij")
        found: Tensor = self.classes(x)
        found[:, 0] += 1000 * ((column - 256) ** 2 + (row - 260) ** 2 > 150**2)
        return found


def restorer(net: nn.Module, parser: nn.Module) -> FaceRestorer:
    return FaceRestorer(FaceNets(nn.Module(), net, parser), CPU)


def enhanced(
    restorer: FaceRestorer,
    pixels: Pixels,
    upscaled: Pixels,
    found: Sequence[Face] = TWO,
    **how: Any,
) -> Pixels:
    size = upscaled.shape[1], upscaled.shape[0]
    restored = restorer.restore(pixels, found, size, **how)
    (result,) = paste([upscaled.copy()], restored)
    return result


@functools.cache
def small_nets() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return randomize(GFPGANv1Clean(**NARROW)), randomize(Parser())  # type: ignore[arg-type]


def assert_the_chain_is_gfpgans(
    photo: Pixels,
    scale: float,
    nets: tuple[nn.Module, nn.Module],
    theirs: tuple[nn.Module, Any],
    found_faces: Sequence[Face] = TWO,
) -> None:
    height, width, _ = photo.shape
    size = int(width * scale), int(height * scale)
    upscaled = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    rows = [[0, 0, 1, 1, 1, *face.landmarks.ravel()] for face in found_faces]
    detector = SimpleNamespace(detect_faces=lambda *_: np.array(rows))
    gfpganer = face_reference.gfpganer(
        theirs[0],
        detector,  # type: ignore[arg-type]
        theirs[1],
        scale,
        lambda *_: upscaled[:, :, ::-1],
    )
    _, _, expected = gfpganer.enhance(np.ascontiguousarray(photo[:, :, ::-1]))
    found = enhanced(restorer(*nets), photo, upscaled, found_faces)
    face_reference.assert_a_level_at_most(found, expected[:, :, ::-1])
    assert (np.abs(upscaled.astype(int) - found).max(axis=2) > 8).mean() > 0.02


@needs_face_reference()
@pytest.mark.parametrize("scale", [2, 4])
def test_the_chain_equals_gfpgans_with_small_networks(scale: float, photo: Pixels) -> None:
    net, parser = small_nets()
    theirs = face_reference.gfpgan(**NARROW)
    theirs.load_state_dict(net.state_dict())
    assert_the_chain_is_gfpgans(photo, scale, (net, parser), (theirs, lambda x: (parser(x),)))


@pytest.mark.slow
@needs_face_reference()
def test_the_chain_equals_gfpgans_with_networks_of_full_size(photo: Pixels) -> None:
    net, parser = randomize(GFPGANv1Clean()), randomize(ParseNet())
    theirs = face_reference.gfpgan(), face_reference.parsenet()
    for our, their in zip((net, parser), theirs, strict=True):
        their.load_state_dict(our.state_dict(), strict=True)
    assert_the_chain_is_gfpgans(photo, 2, (net, parser), theirs, TWO[:1])


def test_faces_in_a_batch_are_as_each_by_itself(photo: Pixels) -> None:
    many = [TWO[0]] * (BATCH - 1) + TWO
    both = restorer(*small_nets())
    together = both.restore(photo, many, (608, 512))
    assert len(together) == len(many) > BATCH
    for face, found in zip(TWO, together[-2:], strict=True):
        (alone,) = both.restore(photo, [face], (608, 512))
        assert (alone.image - found.image).abs().max() <= 1
        assert np.array_equal(alone.back, found.back)


def test_the_same_picture_gives_the_same_result(photo: Pixels) -> None:
    both = restorer(*small_nets())
    first, again = (enhanced(both, photo, photo, TWO[:1]) for _ in range(2))
    assert np.array_equal(first, again)


def test_a_grey_picture_stays_grey_and_alpha_stays(photo: Pixels) -> None:
    both = restorer(*small_nets())
    grey = photo[:, :, :1].repeat(3, axis=2)
    found = enhanced(both, grey, grey, TWO[:1])
    assert (found == found[:, :, :1]).all()
    assert not np.array_equal(found, grey)

    alpha = np.random.default_rng(0).integers(0, 256, photo.shape[:2], np.uint8)
    clear = np.dstack((photo, alpha))
    found = enhanced(both, clear, clear, TWO[:1])
    assert np.array_equal(found[:, :, 3], alpha)
    assert not np.array_equal(found, clear)


def test_what_is_beneath_transparency_does_not_matter(photo: Pixels) -> None:
    hole = np.full(photo.shape[:2], 255, np.uint8)
    hole[60:100, 60:120] = 0
    both = restorer(*small_nets())
    results = []
    for hidden in (0, 255):
        picture = np.dstack((photo, hole))
        picture[hole == 0, :3] = hidden
        (face,) = both.restore(picture, TWO[:1], (304, 256))
        results.append(face.image)
    assert torch.equal(*results)


@pytest.mark.parametrize("strength", [0, 0.5])
def test_the_strength_is_how_much_of_a_face_is_mixed_in(strength: float, photo: Pixels) -> None:
    both = restorer(*small_nets())
    full = enhanced(both, photo, photo, TWO[:1]).astype(int)
    found = enhanced(both, photo, photo, TWO[:1], strength=strength)
    assert np.abs(found - (photo + strength * (full - photo))).max() <= 1


def test_what_nobody_waits_for_ends_before_the_next_faces(photo: Pixels) -> None:
    class GivenUp(Exception):
        pass

    done = []

    class Counting(Identity):
        def forward(self, x: Tensor) -> Tensor:
            done.append(len(x))
            return x

    def check() -> None:
        if done:
            raise GivenUp

    both = restorer(Counting(), Parser())
    with pytest.raises(GivenUp):
        both.restore(photo, TWO, (304, 256), check=check, memory=0)
    assert done == [1], "with little memory one by one"


def test_an_output_that_is_not_finite_is_refused(photo: Pixels) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 0

    with pytest.raises(Overflow):
        restorer(Broken(), Parser()).restore(photo, TWO, (304, 256))


# A real face


@functools.cache
def portrait() -> Pixels:
    """A photo of Grace Hopper, which matplotlib has: uint8 of shape (600, 512, 3)."""
    path = Path(mpl.get_data_path(), "sample_data", "grace_hopper.jpg")
    return np.array(Image.open(path).convert("RGB"))


@needs_face_reference()
def test_a_real_face_is_turned_upright_and_pasted_where_it_was() -> None:
    """By landmarks that trained networks find. A face that is not changed may hardly be seen."""
    pixels = portrait()
    (landmarks,) = face_reference.landmarks_by_mtcnn(pixels)
    matrix = similarity(landmarks)
    again = face_reference.landmarks_by_mtcnn(
        align(pixels, matrix).permute(1, 2, 0).numpy().astype(np.uint8)
    )
    assert np.abs(again[0] - TEMPLATE).max() < 25, "in a square of 512 pixels"

    height, width, _ = pixels.shape
    size = 2 * width, 2 * height
    twice = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    found = enhanced(restorer(Identity(), Parser()), pixels, twice, faces(landmarks))
    difference = np.abs(found.astype(int) - twice)
    assert 0 < difference.max() < 100
    assert difference[difference > 0].mean() < 6
