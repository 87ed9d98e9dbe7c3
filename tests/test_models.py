"""The expected values are derived here, from how the two networks are built."""

import re
from math import ceil
from typing import Final

import pytest

from upscaler.models import MODELS, RELEASES, RRDB, Checkpoint, Compact, Model, UpscalingModel

NAMES: Final = [
    "real-esrgan-x4-plus",
    "real-esrgan-x4-v3",
    "real-esrgan-x4-v3-wdn",
    "real-esrgan-animevideo-v3",
    "real-esrgan-x4-plus-anime",
    "real-esrgan-x2-plus",
]
"""In the order of the published schema, the default first."""

WIDTH: Final = 64
GROWTH: Final = 32

every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def checkpoints() -> list[Checkpoint]:
    pairs = [(model.official, model.ncnn) for model in MODELS.values()]
    return [checkpoint for pair in pairs for checkpoint in pair if checkpoint]


def unshuffle(model: Model) -> int:
    """An RRDBNet of scale 2 first folds squares of 2x2 pixels into channels, and then makes 4x."""
    return 4 // model.scale if isinstance(model.network, RRDB) else 1


def reach(model: Model) -> int:
    """How many input pixels away, at most, an input pixel still counts for an output pixel."""
    if isinstance(model.network, Compact):
        return model.network.num_conv + 2  # one more convolution before the body, and one after
    fold = unshuffle(model)
    dense_convolutions = 3 * 5 * model.network.num_block
    reaches = []
    for pixel in range(8):
        first = last = pixel
        # From the output back: the last convolution, the one before, one after each doubling.
        for convolutions, shrink in ((3, 2), (1, 2), (dense_convolutions + 2, 1)):
            first = (first - convolutions) // shrink
            last = (last + convolutions) // shrink
        centre = pixel // model.scale
        reaches += [centre - first * fold, last * fold + fold - 1 - centre]
    return max(reaches)


def convolution(inputs: int, outputs: int) -> int:
    """The number of weights and biases of a 3x3 convolution."""
    return 9 * inputs * outputs + outputs


def parameters(model: Model) -> int:
    """The number of trained numbers in the network."""
    network = model.network
    if isinstance(network, Compact):
        body = convolution(3, WIDTH) + network.num_conv * convolution(WIDTH, WIDTH)
        slopes = (1 + network.num_conv) * WIDTH
        return body + slopes + convolution(WIDTH, 3 * network.scale**2)
    inputs = [WIDTH + GROWTH * step for step in range(5)]
    dense = sum(convolution(n, GROWTH) for n in inputs[:-1]) + convolution(inputs[-1], WIDTH)
    head = convolution(3 * unshuffle(model) ** 2, WIDTH)
    return head + 3 * network.num_block * dense + 4 * convolution(WIDTH, WIDTH) + convolution(64, 3)


def test_there_are_six_models_in_the_published_order() -> None:
    """REQ-8."""
    assert [str(name) for name in UpscalingModel] == NAMES
    assert [str(name) for name in MODELS] == NAMES


@every_model
def test_a_model_is_filed_under_its_own_name(model: Model) -> None:
    assert MODELS[model.name] is model


@every_model
def test_only_x2_plus_makes_twice_the_size_and_all_others_four_times(model: Model) -> None:
    assert model.scale == (2 if str(model.name) == "real-esrgan-x2-plus" else 4)


@every_model
def test_the_receptive_field_follows_from_the_layers(model: Model) -> None:
    assert model.receptive_field == reach(model)


@every_model
def test_a_compact_network_is_given_all_it_can_see_and_none_is_given_more(model: Model) -> None:
    assert 0 < model.halo <= model.receptive_field
    if isinstance(model.network, Compact):
        assert model.halo == model.receptive_field


@every_model
def test_a_halo_and_a_folded_square_end_at_a_multiple(model: Model) -> None:
    assert model.halo % model.multiple == 0
    assert model.multiple == unshuffle(model)


@every_model
def test_a_file_of_weights_is_as_long_as_the_numbers_of_its_network(model: Model) -> None:
    """In 4 bytes each as published and in 2 for ncnn, and at most one percent of names."""
    for checkpoint, width in ((model.official, 4), (model.ncnn, 2)):
        if checkpoint:
            least = width * parameters(model)
            assert least < checkpoint.size_bytes <= ceil(1.01 * least)


def test_hashes_are_sha256_and_all_different() -> None:
    hashes = [checkpoint.sha256 for checkpoint in checkpoints()]
    assert all(re.fullmatch(r"[0-9a-f]{64}", sha256) for sha256 in hashes)
    assert len(set(hashes)) == len(hashes) == 9


def test_the_releases_are_on_github() -> None:
    assert RELEASES == "https://github.com/xinntao/Real-ESRGAN/releases/download"


@every_model
def test_the_official_weights_are_a_file_of_a_release(model: Model) -> None:
    assert re.fullmatch(r"v[0-9.]+/[\w-]+\.pth", model.official.path)
    assert model.official.path.endswith(f"/{model.official.filename}")
    assert "/" not in model.official.filename


def test_no_two_models_share_a_file() -> None:
    paths = [checkpoint.path for checkpoint in checkpoints()]
    assert len(set(paths)) == len(paths)
