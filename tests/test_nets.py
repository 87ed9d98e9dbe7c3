"""The networks' shapes, and where each forward pass is split. What they compute is for parity."""

import pytest
import torch

from upscaler.nets import RRDBNet, SRVGGNetCompact

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
def test_scale_2_takes_even_sides_only(odd: torch.Tensor) -> None:
    net = RRDBNet(scale=2, num_block=1).requires_grad_(False)
    with pytest.raises(RuntimeError):
        net(odd)
