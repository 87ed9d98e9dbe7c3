"""Where weights are found, and what a file must be to be read."""

import functools
import hashlib
import io
import math
import os
import pickle
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.checkpoints import (
    IN_PACKAGE,
    NAME,
    SMALL,
    STEM,
    assert_ready,
    cached,
    equal,
    pickled,
    released,
    small,
    tensors,
)
from tests.support.properties import examples
from upscaler.engine import weights
from upscaler.engine.weights import Source, cache_folder, find, load
from upscaler.errors import WeightsUnavailable
from upscaler.models import MODELS, RRDB, Compact, Model, UpscalingModel

# Where weights are found


def test_the_order_is_folder_cache_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[UpscalingModel.ANIMEVIDEO_V3]
    places = [tmp_path / model.official.filename, cache_folder() / model.official.filename]
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    seen = [find(model, tmp_path)]
    for path in places:
        path.unlink()
        seen.append(find(model, tmp_path))
    assert [found and found.source for found in seen] == list(Source)
    assert [found and found.path for found in seen][:2] == places
    assert [found and found.published for found in seen] == [None, model.official, model.ncnn]
    monkeypatch.setitem(sys.modules, weights.NCNN_PACKAGE, None)  # as if it were not installed
    assert find(model, tmp_path) is None


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_a_folder_may_use_the_name_of_the_api_or_of_the_official_file(
    model: Model, suffix: str, tmp_path: Path
) -> None:
    for stem in (model.name.value, model.official.filename.removesuffix(".pth")):
        path = tmp_path / f"{stem}{suffix}"
        path.touch()
        found = find(model, tmp_path)
        assert found == weights.Found(path, Source.FOLDER, None)
        path.unlink()


def test_files_with_other_names_are_ignored(tmp_path: Path) -> None:
    for name in ("real-esrgan-x4-v3.bin", "real-esrgan-x4-v3-wdn.pth", "x4-v3.pth", STEM):
        (tmp_path / name).touch()
    assert find(MODELS[NAME], tmp_path) is None


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def circular(path: Path) -> None:
    path.symlink_to(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))  # such names may not be long


def unreadable(path: Path) -> None:
    path.touch(0)
    if os.access(path, os.R_OK):
        pytest.skip("the superuser may read everything")


@pytest.mark.parametrize("name", [f"{NAME}.safetensors", f"{STEM}.pth"])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (dangling, "a link to .*gone, which is not there"),
        (circular, "symbolic links"),
        (Path.mkdir, "a folder"),
        (os.mkfifo, "a pipe"),
        (listening, "a socket"),
        (device, "a device"),
        (unreadable, "not yours to read"),
    ],
)
def test_something_other_than_a_file_is_an_error(
    make: Callable[[Path], object],
    reason: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    cached(released())
    make(tmp_path / name)
    for act in (find, load):
        with pytest.raises(WeightsUnavailable, match=rf"{tmp_path / name}\b.*{reason}"):
            act(small(), tmp_path)


def test_a_folder_without_the_model_is_skipped(tmp_path: Path) -> None:
    path = cached(b"")
    assert find(MODELS[NAME], tmp_path) == weights.Found(path, Source.CACHE, MODELS[NAME].official)


@pytest.mark.parametrize("act", [find, load])
def test_a_missing_folder_is_refused_by_name(
    act: Callable[[Model, Path], object], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(WeightsUnavailable, match=f"UPSCALER_WEIGHTS is {path}"):
            act(IN_PACKAGE[0], path)


# Files of the user's own


@pytest.mark.parametrize("stem", [NAME.value, STEM])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_in_the_folder_are_loaded_exactly(stem: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"{stem}{suffix}"
    if suffix == ".pth":
        torch.save(tensors(1), path)
    else:
        safetensors.torch.save_file(tensors(1), path)
    net, digest, own = load(small(), tmp_path)
    assert equal(net, tensors(1))
    assert not equal(net, tensors(2))
    assert_ready(net)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert own == path


def test_what_is_not_what_was_published_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although it has the shape of these weights: a package is damaged, say, or is another."""
    model = small()
    path = cached(pickled({"params": tensors(2)}))
    installed = weights.Found(path, Source.PACKAGE, model.official)
    monkeypatch.setattr(weights, "find", lambda *_: installed)
    with pytest.raises(WeightsUnavailable, match=f"{path} is damaged: delete it"):
        load(model)
    path.write_bytes(released())
    assert equal(load(model).net, tensors(0))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_what_is_loaded_is_what_was_hashed(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the file is another as soon as that is done."""
    path = tmp_path / f"{NAME}{suffix}"

    def content(seed: int) -> bytes:
        return pickled(tensors(seed)) if suffix == ".pth" else safetensors.torch.save(tensors(seed))

    def hashed(hashing: Callable[..., Any]) -> Callable[..., Any]:
        def then_changed(*given: Any) -> Any:
            digest = hashing(*given)
            if hashing is not sha256 or given == (first,):
                path.write_bytes(content(2))
            return digest

        return then_changed

    first, sha256 = content(1), hashlib.sha256
    path.write_bytes(first)
    for name in ("sha256", "file_digest"):
        monkeypatch.setattr(hashlib, name, hashed(getattr(hashlib, name)))
    net, digest, _ = load(small(), tmp_path)
    monkeypatch.undo()
    assert digest == hashlib.sha256(first).hexdigest()
    assert equal(net, tensors(1))


@pytest.mark.parametrize(
    ("layers", "read"),
    [
        (("params_ema", "params", "bare"), "params_ema"),
        (("params", "params_ema"), "params_ema"),
        (("params", "bare"), "params"),
        (("params_ema", "bare"), "params_ema"),
        (("bare",), "bare"),
    ],
)
def test_averaged_weights_are_preferred(layers: tuple[str, ...], read: str, tmp_path: Path) -> None:
    sets = {name: tensors(seed) for seed, name in enumerate(("params_ema", "params", "bare"))}
    content: dict[str, object] = {name: sets[name] for name in layers if name != "bare"}
    content |= sets["bare"] if "bare" in layers else {}
    torch.save(content, tmp_path / f"{STEM}.pth")
    assert equal(load(small(), tmp_path).net, sets[read])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_another_precision_become_fp32(
    dtype: torch.dtype, suffix: str, tmp_path: Path
) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in tensors(1).items()}
    save = torch.save if suffix == ".pth" else safetensors.torch.save_file
    save(stored, tmp_path / f"{NAME}{suffix}")
    net = load(small(), tmp_path).net
    assert equal(net, {name: tensor.float() for name, tensor in stored.items()})
    assert_ready(net)


def test_two_loads_share_no_weights(tmp_path: Path) -> None:
    torch.save(tensors(1), tmp_path / f"{STEM}.pth")
    first, second = load(small(), tmp_path).net, load(small(), tmp_path).net
    next(first.parameters()).fill_(0)
    assert equal(second, tensors(1))


def refuse(data: bytes, folder: Path, suffix: str, network: RRDB | Compact = SMALL) -> None:
    """Assert that a file of weights is refused with its path and the model in the message."""
    path = folder / f"{NAME}{suffix}"
    path.write_bytes(data)
    with pytest.raises(WeightsUnavailable) as caught:
        load(small(network), folder)
    assert str(path) in str(caught.value)
    assert "the weights of real-esrgan-x4-v3" in str(caught.value)
    assert "\n" not in str(caught.value)


def without(key: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors(1).items() if name != key}


FIRST = "body.0.weight"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("key", tensors(1))
def test_weights_that_are_not_finite_are_refused(value: float, key: str, tmp_path: Path) -> None:
    spoiled = tensors(1)
    spoiled[key] = spoiled[key].double()
    spoiled[key].view(-1)[-1] = value
    path = tmp_path / f"{NAME}.safetensors"
    safetensors.torch.save_file(spoiled, path)
    with pytest.raises(WeightsUnavailable, match=f"{path} .*{NAME}: {key} has values"):
        load(small(), tmp_path)


MISFITS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "a key too few": lambda: without(FIRST),
    "a key too many": lambda: tensors(1) | {"body.9.weight": torch.zeros(1)},
    "a key under another name": lambda: without(FIRST) | {"first": tensors(1)[FIRST]},
    "a wrong shape": lambda: tensors(1) | {FIRST: torch.zeros(64, 3, 1, 1)},
    "a shape that could be broadcast": lambda: tensors(1) | {FIRST: torch.zeros(1, 1, 1, 1)},
    "the right number of values in another shape": lambda: (
        tensors(1) | {FIRST: torch.zeros(3, 64, 3, 3)}
    ),
    "nothing": dict,
    "more layers": lambda: tensors(1, Compact(scale=4, num_conv=2)),
    "fewer layers": lambda: tensors(1, Compact(scale=4, num_conv=0)),
    "another scale": lambda: tensors(1, Compact(scale=2, num_conv=1)),
    "the other kind of network": lambda: tensors(1, RRDB(scale=4, num_block=1)),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("misfit", MISFITS)
def test_weights_that_do_not_fit_exactly_are_refused(
    misfit: str, suffix: str, tmp_path: Path
) -> None:
    content = MISFITS[misfit]()
    data = pickled(content) if suffix == ".pth" else safetensors.torch.save(content)
    refuse(data, tmp_path, suffix)


@pytest.mark.parametrize(("own", "other"), [(2, 4), (4, 2)])
def test_a_deep_network_of_another_scale_is_refused(own: int, other: int, tmp_path: Path) -> None:
    content = tensors(1, RRDB(scale=other, num_block=1))
    refuse(pickled(content), tmp_path, ".pth", RRDB(scale=own, num_block=1))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"garbage", b"PK\3\4", b"\x80\x02", b"\x80\x02.", b"\x80\x02J\1", bytes(10_000)],
)
def test_a_file_that_is_not_weights_is_refused(data: bytes, suffix: str, tmp_path: Path) -> None:
    refuse(data, tmp_path, suffix)


@pytest.mark.parametrize("keep", [0.001, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_truncated_file_is_refused(keep: float, suffix: str, tmp_path: Path) -> None:
    data = released() if suffix == ".pth" else safetensors.torch.save(tensors(1))
    refuse(data[: int(len(data) * keep)], tmp_path, suffix)


@pytest.mark.parametrize(
    "content",
    [
        None,
        3,
        "params",
        [1],
        torch.zeros(2),
        {"params": None},
        {"params": [1]},
        {"params_ema": {}, "params": {}},
        {FIRST: 1},
        {1: torch.zeros(1)},
    ],
    ids=repr,
)
def test_a_pth_of_anything_but_named_tensors_is_refused(content: object, tmp_path: Path) -> None:
    refuse(pickled(content), tmp_path, ".pth")


@functools.cache
def plain() -> bytes:
    """Weights in the older format of torch, whose pickles are not inside a ZIP."""
    buffer = io.BytesIO()
    torch.save(tensors(1), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=examples(100))
@given(at=st.integers(0, 1500), junk=st.binary(min_size=1, max_size=4), end=st.integers(1, 2000))
@example(at=1000, junk=b"\x80", end=1500)
def test_a_damaged_pth_raises_no_other_error(at: int, junk: bytes, end: int) -> None:
    data = bytearray(plain()[:end] if end < 1500 else plain())
    data[at : at + len(junk)] = junk
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"{NAME}.pth").write_bytes(data)
        with suppress(WeightsUnavailable):
            assert_ready(load(small(), Path(folder)).net)


class Bomb:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: {"params": tensors(1), "more": it}])
@pytest.mark.parametrize("dump", [pickled, pickle.dumps])
def test_unpickling_runs_no_code(
    dump: Callable[[object], bytes], wrap: Callable[[Bomb], object], tmp_path: Path
) -> None:
    refuse(dump(wrap(Bomb(tmp_path / "harm"))), tmp_path, ".pth")
    assert not (tmp_path / "harm").exists()
    pickle.loads(pickle.dumps(Bomb(tmp_path / "harm")))
    assert (tmp_path / "harm").exists(), "this test would not notice"
