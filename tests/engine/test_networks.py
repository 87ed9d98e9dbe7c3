"""The networks' shapes, and where each forward pass is split. What they compute is for parity."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from upscaler.engine.networks import RRDBNet, SRVGGNetCompact, build
from upscaler.models import MODELS, Model, flop

X = torch.linspace(0, 1, 3 * 8 * 12).reshape(1, 3, 8, 12)


@pytest.mark.parametrize(("scale", "height", "width"), [(4, 8, 12), (2, 4, 6)])
def test_the_deep_networks_features_have_the_trunks_resolution(
    scale: int, height: int, width: int
) -> None:
    net = RRDBNet(scale=scale, num_block=1).requires_grad_(False)
    features = net.features(X)
    assert features.shape == (1, 64, height, width)
    assert torch.equal(net.upsample(features), net(X))
    assert net(X).shape == (1, 3, 8 * scale, 12 * scale)


@pytest.mark.parametrize("scale", [2, 4])
def test_the_compact_networks_features_have_every_output_pixel_folded(scale: int) -> None:
    net = SRVGGNetCompact(scale=scale, num_conv=1).requires_grad_(False)
    features = net.features(X)
    assert features.shape == (1, 3 * scale**2, 8, 12)
    assert torch.equal(net.upsample(features, X), net(X))
    assert net(X).shape == (1, 3, 8 * scale, 12 * scale)


@pytest.mark.parametrize("odd", [X[:, :, 1:], X[:, :, :, 1:]], ids=["height", "width"])
def test_scale_2_requires_even_sides(odd: torch.Tensor) -> None:
    net = RRDBNet(scale=2, num_block=1).requires_grad_(False)
    with pytest.raises(RuntimeError):
        net(odd)


@pytest.mark.first(6)
@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
@pytest.mark.parametrize(("width", "height"), [(24, 16), (31, 18), (64, 64)])
def test_operations_are_those_that_torch_counts(model: Model, width: int, height: int) -> None:
    even_width, even_height = width + -width % model.multiple, height + -height % model.multiple
    with torch.device("meta"), torch.inference_mode():  # shapes alone, and nothing is computed
        net, x = build(model.network), torch.empty(1, 3, even_height, even_width)
        with FlopCounterMode(display=False) as counter:
            net(x)
    assert flop(model, width, height) == counter.get_total_flops()
