"""Load the networks for faces with their weights."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch import nn

from upscaler.engine import weights
from upscaler.engine.faces.backbones import MobileNetV1, ResNet50
from upscaler.engine.faces.gfpgan import GFPGANv1Clean
from upscaler.engine.faces.parsenet import ParseNet
from upscaler.engine.faces.restoration import FaceNets
from upscaler.engine.faces.retinaface import RetinaFace
from upscaler.face_models import (
    GFPGAN,
    PARSENET,
    RETINAFACE_MOBILENET,
    RETINAFACE_RESNET50,
    FaceDetector,
    FaceModel,
    needed,
)

BUILDERS: Final[dict[str, Callable[[], nn.Module]]] = {
    GFPGAN.name: GFPGANv1Clean,
    RETINAFACE_RESNET50.name: lambda: RetinaFace(ResNet50()),
    RETINAFACE_MOBILENET.name: lambda: RetinaFace(MobileNetV1()),
    PARSENET.name: ParseNet,
}
"""What makes the network of each model, with random weights."""


def load(
    detector: FaceDetector,
    folder: Path | None = None,
    progress: weights.DownloadProgress | None = None,
) -> FaceNets:
    """The networks, in fp32 on the CPU.

    Their weights are downloaded if necessary. The other arguments are those of `weights.load`,
    which also says what is raised.
    """
    return FaceNets(
        *(
            weights.load_net(partial(_empty, model), model, folder, progress)[0]
            for model in needed(detector)
        )
    )


def _empty(model: FaceModel) -> nn.Module:
    """The network of `model` with arbitrary weights: to draw random ones takes GFPGAN a second."""
    with torch.device("meta"):
        net = BUILDERS[model.name]()
    return net.to_empty(device="cpu")
