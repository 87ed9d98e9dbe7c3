"""Each network of faces equals the reference's with the same random weights, under its names."""

import pytest
import torch
from torch import nn

from tests.support import face_reference
from tests.support.face_reference import randomize
from tests.support.requirements import needs_face_reference
from upscaler.engine.faces.backbones import MobileNetV1, ResNet50
from upscaler.engine.faces.gfpgan import GFPGANv1Clean
from upscaler.engine.faces.parsenet import ParseNet
from upscaler.engine.faces.retinaface import RetinaFace

pytestmark = needs_face_reference

SMALL = {"out_size": 64, "num_style_feat": 16, "narrow": 0.125}


def equal_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Give `theirs` the weights of `ours`, which must have the same names and shapes."""
    randomize(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)


def assert_close(expected: torch.Tensor, found: torch.Tensor) -> None:
    assert expected.shape == found.shape
    assert expected.std() > 1e-3, "equal values everywhere would prove nothing"
    assert (expected - found).abs().max() < 1e-4 * max(1.0, float(expected.abs().max()))


def faces(side: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, side, side, generator=generator) * 2 - 1


@pytest.mark.parametrize(
    "sizes", [SMALL, pytest.param({}, marks=pytest.mark.slow)], ids=["small", "of v1.4"]
)
def test_gfpgan_equals_the_reference(sizes: dict[str, float]) -> None:
    ours, theirs = GFPGANv1Clean(**sizes), face_reference.gfpgan(**sizes)  # type: ignore[arg-type]
    equal_weights(ours, theirs)
    x = faces(int(sizes.get("out_size", 512)), 2 if sizes else 1)
    with torch.inference_mode():
        expected, _ = theirs(x, return_rgb=False)
        found = ours(x)
    assert_close(expected, found)


@pytest.mark.parametrize(
    ("body", "name"), [(ResNet50, "resnet50"), (MobileNetV1, "mobile0.25")], ids=str
)
def test_retinaface_equals_the_reference(body: type[ResNet50 | MobileNetV1], name: str) -> None:
    ours, theirs = RetinaFace(body()), face_reference.retinaface(name)
    equal_weights(ours, theirs)
    # Sides that no stride divides, as pictures have.
    x = torch.rand(1, 3, 75, 101, generator=torch.Generator().manual_seed(1)) * 255 - 110
    with torch.inference_mode():
        expected, found = theirs(x), ours(x)
    for theirs_of, ours_of in zip(expected, found, strict=True):
        assert_close(theirs_of, ours_of)


def test_parsenet_equals_the_reference() -> None:
    ours, theirs = ParseNet(), face_reference.parsenet()
    equal_weights(ours, theirs)
    x = faces(64, 1)
    with torch.inference_mode():
        expected, _ = theirs(x)
        found = ours(x)
    assert_close(expected, found)
