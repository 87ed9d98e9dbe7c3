"""What fp16 on a GPU costs: its kernels' own arithmetic, emulated, beside the network in fp32."""

import numpy as np
import pytest
import torch

from tests.support import networks
from tests.support.emulated_kernels import emulated_kernels
from tests.support.networks import largest_difference, plain, psnr
from upscaler.engine.bands import BandedNetwork
from upscaler.engine.tensors import assemble, to_uint8
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, UpscalingModel
from upscaler.settings import Precision

whole_maps = pytest.importorskip(
    "upscaler.engine.gpu.whole_maps", reason="Triton is made for Linux alone", exc_type=ImportError
)
QUICK = UpscalingModel.ANIMEVIDEO_V3
LEAST_DB = 60
MOST_LEVELS = 2


@pytest.mark.parametrize(
    "name",
    [
        each if each is QUICK else pytest.param(each, marks=pytest.mark.slow)
        for each in UpscalingModel
    ],
)
def test_fp16_is_within_two_levels_of_fp32(name: UpscalingModel, photo: Pixels) -> None:
    model = MODELS[name]
    net = networks.network(model)
    side = 64
    crop = np.ascontiguousarray(photo[60 : 60 + side, 100 : 100 + side])
    network = BandedNetwork(model, whole_maps.whole_maps(net, 90), Precision.FP16)
    plan = networks.plan(model, crop, tail_rows=12, whole=True)
    with emulated_kernels():
        strips = network.upscale(torch.from_numpy(crop), plan, to_uint8)
        got = assemble(strips, side * model.scale).numpy()
    want = plain(model, net, crop)
    assert psnr(got, want) >= LEAST_DB
    assert largest_difference(got, want) <= MOST_LEVELS
