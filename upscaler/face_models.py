"""The models that find and restore faces, as data: where their weights are, and their licences.

Sizes and hashes are those of public copies of the releases, which agree. The networks' shapes are
in `engine/faces`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from upscaler.models import Checkpoint

FACEXLIB: Final = "https://github.com/xinntao/facexlib/releases/download"


class FaceDetector(StrEnum):
    """What finds faces: RetinaFace on ResNet-50, as GFPGAN has it, or on a light MobileNet."""

    RESNET50 = "resnet50"
    MOBILENET = "mobilenet0.25"


FINDING_FLOP: Final = 216_000
"""The floating-point operations of finding faces by RetinaFace on ResNet-50, for each pixel of the
picture. A test counts them."""
RESTORING_FLOP: Final = 864_000_000_000
"""Those of restoring and masking a face, by the same."""


@dataclass(frozen=True)
class FaceModel:
    """A network for faces: its name, what it does, and its published file below `releases`."""

    name: str
    description: str
    official: Checkpoint
    releases: str
    licence: str
    ncnn: None = None  # no package has it


GFPGAN: Final = FaceModel(
    "gfpgan-v1.4",
    "Restores a face.",
    Checkpoint(
        "v1.3.0/GFPGANv1.4.pth",
        348_632_874,
        "e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad",
    ),
    "https://github.com/TencentARC/GFPGAN/releases/download",
    "Apache-2.0",
)
RETINAFACE_RESNET50: Final = FaceModel(
    "retinaface-resnet50",
    "Finds faces, as GFPGAN does.",
    Checkpoint(
        "v0.1.0/detection_Resnet50_Final.pth",
        109_497_761,
        "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
    ),
    FACEXLIB,
    "MIT",
)
RETINAFACE_MOBILENET: Final = FaceModel(
    "retinaface-mobilenet0.25",
    "Finds faces, with a hundredth of the operations.",
    Checkpoint(
        "v0.1.0/detection_mobilenet0.25_Final.pth",
        1_789_735,
        "2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
    ),
    FACEXLIB,
    "MIT",
)
PARSENET: Final = FaceModel(
    "parsenet",
    "Tells which pixels are a face.",
    Checkpoint(
        "v0.2.2/parsing_parsenet.pth",
        85_331_193,
        "3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
    ),
    FACEXLIB,
    "MIT, as published by facexlib; PSFR-GAN, which it comes from, is CC BY-NC-SA 4.0",
)

FACE_MODELS: Final = {
    model.name: model for model in (GFPGAN, RETINAFACE_RESNET50, RETINAFACE_MOBILENET, PARSENET)
}
"""Every model for faces by its name."""


def needed(detector: FaceDetector) -> tuple[FaceModel, FaceModel, FaceModel]:
    """The models that restore faces: what finds them, what restores them, and what masks them."""
    light = detector is FaceDetector.MOBILENET
    return (RETINAFACE_MOBILENET if light else RETINAFACE_RESNET50), GFPGAN, PARSENET
