"""The reference for faces: `gfpgan` and `facexlib`, made importable without what they ask for.

Neither package's `__init__` can run, and both import torchvision and parts of basicsr that cannot.
So the packages are added to `sys.modules` as empty modules with the right search path, beside
stand-ins for what they use of torchvision. ResNet-50 and non-maximum suppression, which they take
from there, facexlib has a second time by itself: in `hyperiqa_net` and `retinaface_utils`.
"""

import importlib.metadata
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from upscaler.bench import reference
from upscaler.models import MODELS, UpscalingModel

PACKAGES: Final = (
    "gfpgan",
    "gfpgan.archs",
    "facexlib",
    "facenet_pytorch",
    "facenet_pytorch.models",
)
CPU: Final = torch.device("cpu")
_modules: Final[dict[str, ModuleType]] = {}


class IntermediateLayerGetter(nn.ModuleDict):
    """The layers of a network down to the last of `return_layers`, as torchvision's."""

    def __init__(self, model: nn.Module, return_layers: Mapping[str, int]) -> None:
        wanted = dict(return_layers)
        layers = {}
        for name, layer in model.named_children():
            layers[name] = layer
            wanted.pop(name, None)
            if not wanted:
                break
        super().__init__(layers)
        self.return_layers = return_layers

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        found = {}
        for name, layer in self.items():
            x = layer(x)
            if name in self.return_layers:
                found[self.return_layers[name]] = x
        return found


def _resnet50(pretrained: bool) -> nn.Module:
    from facexlib.assessment.hyperiqa_net import Bottleneck, ResNetBackbone

    assert not pretrained
    net: nn.Module = ResNetBackbone(16, 112, Bottleneck, [3, 4, 6, 3])
    return net


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Which boxes are kept: facexlib's own function in place of torchvision's."""
    name = "facexlib.detection.retinaface_utils"
    own = (sys.modules.get(name) or _modules[name]).nms
    if not len(boxes):
        return torch.empty(0, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it lets torch resize what is not empty
        keep, count = own(boxes, scores, iou_threshold, len(boxes))
    found: Tensor = keep[:count]
    return found


def _batched_nms(boxes: Tensor, scores: Tensor, images: Tensor, threshold: float) -> Tensor:
    assert not images.any(), "of a single image"
    return nms(boxes, scores, threshold)


def _normalize(tensor: Tensor, mean: Any, std: Any, inplace: bool) -> Tensor:
    assert inplace
    columns = (torch.tensor(each)[:, None, None] for each in (mean, std))
    return tensor.sub_(next(columns)).div_(next(columns))


def _module(name: str, **content: object) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(content)
    return module


def _stand_ins() -> dict[str, ModuleType]:
    resnet = SimpleNamespace(resnet50=_resnet50)
    getter = {"IntermediateLayerGetter": IntermediateLayerGetter}
    functional = _module("torchvision.transforms.functional", normalize=_normalize)
    models = _module("torchvision.models", __path__=[], **vars(resnet))
    return {
        "torchvision": _module(
            "torchvision", __path__=[], ops=SimpleNamespace(nms=nms), models=models
        ),
        "torchvision.models": models,
        "torchvision.models._utils": _module("torchvision.models._utils", **getter),
        "torchvision.ops": _module("torchvision.ops", __path__=[]),
        "torchvision.ops.boxes": _module("torchvision.ops.boxes", batched_nms=_batched_nms),
        "torchvision.transforms": _module("torchvision.transforms", functional=functional),
        "torchvision.transforms.functional": functional,
        "torchvision.utils": _module("torchvision.utils", make_grid=None),
        "gfpgan.archs.gfpgan_bilinear_arch": _module("bilinear", GFPGANBilinear=None),
        "gfpgan.archs.gfpganv1_arch": _module("original", GFPGANv1=None),
    }


@contextmanager
def importable() -> Iterator[None]:
    """Let the packages be imported, and their networks be made, in the block.

    Nothing of it is left in `sys.modules`, where others look for torchvision.
    """
    reference.network(MODELS[UpscalingModel.X4_V3])  # makes basicsr importable, and leaves it so
    if not _modules:
        for name in PACKAGES:
            distribution = importlib.metadata.distribution(name.partition(".")[0].replace("_", "-"))
            path = str(distribution.locate_file(name.replace(".", "/")))
            _modules[name] = _module(name, __path__=[path])
        _modules.update(_stand_ins())
    before = set(sys.modules)
    sys.modules.update(_modules)
    try:
        import facexlib.detection.retinaface_utils  # for `nms`, which is called outside, too
        from basicsr.utils.img_util import img2tensor, tensor2img

        assert facexlib

        sys.modules["basicsr.utils"].__dict__.update(img2tensor=img2tensor, tensor2img=tensor2img)
        yield
    finally:
        # Kept for the next time: they register their networks under names, which is allowed once.
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in {each.partition(".")[0] for each in _modules}:
                _modules[name] = sys.modules.pop(name)


def gfpgan(**sizes: Any) -> nn.Module:
    """GFPGAN with the arguments that `GFPGANer` gives it, and the noise of its weights.

    `GFPGANer` draws the noise anew for every face.
    """
    with importable():
        from gfpgan.archs.gfpganv1_clean_arch import GFPGANv1Clean

        net: nn.Module = GFPGANv1Clean(
            **{"out_size": 512, "num_style_feat": 512, "narrow": 1} | sizes,
            channel_multiplier=2,
            fix_decoder=False,
            num_mlp=8,
            input_is_latent=True,
            different_w=True,
            sft_half=True,
        )
    net.forward = partial(net.forward, randomize_noise=False)
    return net.eval().requires_grad_(False)


def retinaface(name: str) -> nn.Module:
    """RetinaFace: `name` is `resnet50` or `mobile0.25`."""
    with importable():
        from facexlib.detection.retinaface import RetinaFace

        net: nn.Module = RetinaFace(network_name=name, device=CPU)
    return net.requires_grad_(False)


def parsenet() -> nn.Module:
    with importable():
        from facexlib.parsing.parsenet import ParseNet

        net: nn.Module = ParseNet(in_size=512, out_size=512, parsing_ch=19)
    return net.eval().requires_grad_(False)


def helper(**options: Any) -> Any:
    """facexlib's `FaceRestoreHelper` as `GFPGANer` makes it, without networks."""
    with importable():
        from facexlib.utils import face_restoration_helper as module

        for name in ("init_detection_model", "init_parsing_model"):
            setattr(module, name, lambda *_args, **_options: None)
        return module.FaceRestoreHelper(
            **{"upscale_factor": 4, "use_parse": True, "device": CPU} | options
        )


def gfpganer(
    restorer: nn.Module,
    detector: nn.Module,
    parser: nn.Module,
    upscale: float,
    background: Callable[[np.ndarray, float], np.ndarray],
) -> Any:
    """A `GFPGANer` with these networks; `background` upscales its pictures, which are BGR."""
    with importable():
        from gfpgan.utils import GFPGANer

        made = GFPGANer.__new__(GFPGANer)
    made.upscale = upscale
    made.device = CPU
    made.gfpgan = restorer
    made.bg_upsampler = SimpleNamespace(enhance=lambda img, outscale: (background(img, outscale),))
    made.face_helper = helper(upscale_factor=upscale)
    made.face_helper.face_det = detector
    made.face_helper.face_parse = parser
    return made


def landmarks_by_mtcnn(pixels: np.ndarray) -> np.ndarray:
    """Where MTCNN's trained networks see faces in RGB `pixels`: landmarks of shape (faces, 5, 2).

    Their order is that of RetinaFace: the eyes, the nose, and the corners of the mouth.
    """
    with importable():
        from facenet_pytorch.models.mtcnn import MTCNN

        _, _, landmarks = MTCNN(keep_all=True).detect(pixels, landmarks=True)
    return np.asarray(landmarks, np.float64)


def randomize(net: nn.Module, seed: int = 0) -> nn.Module:
    """Give `net` random weights and statistics that keep its values of about the same size."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
    for name, parameter in net.named_parameters():
        if parameter.ndim == 1 and "norm" not in name and parameter.numel() == 1:
            parameter.data.fill_(0.1)  # of the noise, which would else be none
    return net.eval().requires_grad_(False)


def assert_a_level_at_most(found: np.ndarray, expected: np.ndarray) -> None:
    """Pixels are within a level of what facexlib has before it cuts off the decimals.

    So they may be two above what it returns; that takes another rounding, which is seldom.
    """
    difference = found.astype(int) - expected
    assert difference.min() >= -1
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-3
