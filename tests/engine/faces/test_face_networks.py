"""Each network of faces equals the reference's with the same random weights, under its names."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.support import face_reference
from tests.support.face_reference import randomize
from tests.support.requirements import needs_face_reference
from upscaler.engine.faces.backbones import MobileNetV1, ResNet50
from upscaler.engine.faces.gfpgan import GFPGANv1Clean
from upscaler.engine.faces.parsenet import ParseNet
from upscaler.engine.faces.retinaface import RetinaFace
from upscaler.face_models import FINDING_FLOP, RESTORING_FLOP

pytestmark = needs_face_reference()

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


def test_gfpgan_equals_the_reference() -> None:
    """In small; of its full size it is a part of the chain in `test_restoration`."""
    ours, theirs = GFPGANv1Clean(**SMALL), face_reference.gfpgan(**SMALL)  # type: ignore[arg-type]
    equal_weights(ours, theirs)
    x = faces(64)
    with torch.inference_mode():
        expected, _ = theirs(x, return_rgb=False)
        found = ours(x)
    assert_close(expected, found)


def test_the_gfpgan_of_the_checkpoint_has_its_names_and_shapes() -> None:
    with torch.device("meta"):  # shapes alone, and nothing is computed
        ours, theirs = GFPGANv1Clean().state_dict(), face_reference.gfpgan().state_dict()
    assert {name: each.shape for name, each in ours.items()} == {
        name: each.shape for name, each in theirs.items()
    }
    assert sum(each.numel() for each in ours.values()) > 85_000_000


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


def test_operations_are_those_that_torch_counts() -> None:
    with torch.device("meta"), torch.inference_mode():
        detector, x = RetinaFace(ResNet50()), torch.empty(1, 3, 640, 512)
        restorer, parser, face = GFPGANv1Clean(), ParseNet(), torch.empty(1, 3, 512, 512)
        with FlopCounterMode(display=False) as finding:
            detector(x)
        with FlopCounterMode(display=False) as restoring:
            parser(restorer(face))
    assert finding.get_total_flops() / (640 * 512) == pytest.approx(FINDING_FLOP, rel=0.01)
    assert restoring.get_total_flops() == pytest.approx(RESTORING_FLOP, rel=0.01)


def test_parsenet_equals_the_reference() -> None:
    ours, theirs = ParseNet(), face_reference.parsenet()
    equal_weights(ours, theirs)
    x = faces(64, 1)
    with torch.inference_mode():
        expected, _ = theirs(x)
        found = ours(x)
    assert_close(expected, found)
