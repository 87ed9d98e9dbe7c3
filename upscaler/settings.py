"""The settings of a deployment, from environment variables.

The limits of the API are in `api.limits`: they belong to the contract and are no settings.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final, NamedTuple

from upscaler.api.limits import MAX_OUTPUT_PX
from upscaler.environment import FromEnvironment, choice, setting
from upscaler.face_models import FaceDetector
from upscaler.formats import ImageEncoding
from upscaler.host_port import is_authority

Network = IPv4Network | IPv6Network

MIB: Final = 2**20
MIN_LIMIT_BYTES: Final = MAX_OUTPUT_PX**2 * 4 // MIB * MIB + 64 * MIB
"""The least that a memory limit may be: the largest file, noise with alpha, and 64 MiB more."""


class Device(StrEnum):
    """Where the networks run; `auto` is cuda, else mps, else cpu, whichever is available.

    A service takes all cards for `cuda`, and other commands one.
    """

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Precision(StrEnum):
    """The number format that the networks compute in.

    `mixed` multiplies in bf16 and adds in fp32. `auto` is fp16 on cuda, mixed on a CPU whose AMX
    multiplies bf16, and fp32 elsewhere.
    """

    AUTO = "auto"
    FP32 = "fp32"
    MIXED = "mixed"
    FP16 = "fp16"
    BF16 = "bf16"


class Kernels(StrEnum):
    """What convolves: this project's own kernels, or a library's.

    `auto` takes the project's own where the device and the precision allow it and they pass a
    check. On a CUDA device `triton` insists on them, and `cudnn` does without; on a CPU `onednn`
    does.
    """

    AUTO = "auto"
    TRITON = "triton"
    CUDNN = "cudnn"
    ONEDNN = "onednn"


class KernelUse(NamedTuple):
    """What convolves for a model that is loaded on a device, such as cpu or cuda:0.

    `own` says that it is this project's own kernels, and `refused` that they failed their check.
    """

    device: str
    model: str
    own: bool
    refused: bool


class FaceEnhance(StrEnum):
    """What is done with `face_enhance: true` where there is no face model (REQ-10)."""

    REFUSE = "refuse"
    """It is a 422, so that nobody takes a picture for a better one than it is."""
    IGNORE = "ignore"
    """The picture is upscaled as without it; a header and the log say so."""


IN_MEMORY: Final = Path(":memory:")
"""In place of a folder for asynchronous inferences: they are lost when the process ends."""
OWN_PATHS: Final = (
    *(
        "_mock",
        "docs",
        "healthcheck",
        "livez",
        "metrics",
        "openapi.json",
        "page",
        "upscaling",
        "v1",
    ),
)
"""What the paths of the service and the mock begin with."""
CARD: Final = re.compile("cuda:(0|[1-9][0-9]{0,2})")
"""One of several cards, as torch numbers them."""
UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
"""The suffixes of a number of bytes."""


def parse_bytes(text: str) -> int:
    """Parse a number of bytes such as 2G, 512M or 1073741824; raises ValueError otherwise."""
    match = re.fullmatch(r"([0-9]{1,15})([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    if not match or int(match[1]) == 0:
        raise ValueError("memory is a number of bytes, or of K, M or G, such as 2G")
    return int(match[1]) * UNITS[match[2].upper()]


def parse_device(text: str) -> str:
    """Parse a device, or several that are separated by commas; raises ValueError otherwise.

    One is a Device or a card, such as cuda:1. Several are cards, each once, or `cpu` as often as
    images are to be upscaled there at once; not both, or an image would take a hundred times as
    long as another by chance.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(name in list(Device) or CARD.fullmatch(name) for name in names):
        words = ", ".join(Device)
        raise ValueError(
            f"must be one of {words}, or a card, such as cuda:1, or several: cuda:0,cuda:1"
        )
    cards = all(CARD.fullmatch(name) for name in names) and len(set(names)) == len(names)
    if len(names) > 1 and not cards and set(names) != {Device.CPU}:
        raise ValueError("several devices are different cards, cuda:0,cuda:1, or cpu,cpu")
    return ",".join(names)


def parse_price(text: str) -> Decimal:
    """Parse a price in dollars per second, such as 0.000222; raises ValueError otherwise."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,12})?", text.strip(), re.ASCII):
        raise ValueError("the price is a number of dollars for a second, such as 0.000222")
    return Decimal(text.strip())


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _folder(text: str) -> Path:
    return Path(text).expanduser()


def _length(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text.strip(), re.ASCII):
        raise ValueError("must be a whole number from 0 to 9999")
    return int(text)


def _memory_limit(text: str) -> int:
    limit_bytes = parse_bytes(text)
    if limit_bytes < MIN_LIMIT_BYTES:
        raise ValueError(f"must be {MIN_LIMIT_BYTES // MIB}M at least, for the largest image")
    return limit_bytes


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text.strip(), re.ASCII):
        raise ValueError("must be a number of seconds, such as 45 or 0.5")
    return float(text)


def _ports(text: str) -> tuple[int, ...]:
    words = _words(text)
    numbers = [int(word) for word in words if re.fullmatch("[0-9]{1,5}", word, re.ASCII)]
    if not words or len(numbers) < len(words) or not 0 < min(numbers) <= max(numbers) < 2**16:
        raise ValueError("must be port numbers, separated by commas, such as 80,443")
    return tuple(numbers)


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ip_network(word) for word in _words(text))


def _origins(text: str) -> tuple[str, ...]:
    """Origins as browsers write them (RFC 6454, 6.2), since they are compared as texts."""
    words = _words(text.lower())
    if words == ("*",):
        return words
    origins = tuple(word.removesuffix("/") for word in words)
    for origin in origins:
        scheme, _, authority = origin.partition("://")
        is_origin = re.fullmatch("[a-z][a-z0-9+.-]*", scheme) and is_authority(authority)
        if not is_origin or "*" in authority:
            raise ValueError("must be * or origins, separated by commas: https://app.example.com")
    if not origins:
        raise ValueError("must be * or at least one origin, such as https://app.example.com")
    # A browser leaves out the port that a scheme has anyway.
    return tuple(re.sub("^(https://.*):443$|^(http://.*):80$", r"\1\2", each) for each in origins)


def _public_url(text: str) -> str:
    match = re.fullmatch(r"https?://([^/]+)((?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*)/?", text.strip())
    if not match or not is_authority(match[1]):
        raise ValueError(
            "must be a URL of http or https without a query, such as https://a.example"
        )
    return text.strip().removesuffix("/")


def parse_root_path(text: str) -> str:
    """Parse the path that a proxy has before the service's paths; raises ValueError."""
    path = text.strip().removesuffix("/")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path, re.ASCII):
        raise ValueError("must be a path, such as /images")
    # The proxy may take it away or not: both must be told apart.
    if path.split("/")[1] in OWN_PATHS:
        raise ValueError(f"must not begin as a path of the service: {', '.join(OWN_PATHS)}")
    return path


@dataclass(frozen=True)
class Settings(FromEnvironment):
    """The settings of one process: of the engine, and of the service."""

    # Without repr, so that no log or traceback of the settings shows a token.
    tokens: tuple[str, ...] = setting("UPSCALER_TOKEN", _words, (), repr=False)
    """The bearer tokens that the service accepts, separated by commas."""
    weights: Path | None = setting("UPSCALER_WEIGHTS", _folder, None)
    """A folder with weights, which is searched first."""
    device: str = setting("UPSCALER_DEVICE", parse_device, Device.AUTO)
    """Where the networks run: see `parse_device`. With several a service upscales as many images at
    the same time."""
    precision: Precision = setting("UPSCALER_PRECISION", choice(Precision), Precision.AUTO)
    kernels: Kernels = setting("UPSCALER_KERNELS", choice(Kernels), Kernels.AUTO)
    memory: int | None = setting("UPSCALER_MEMORY", parse_bytes, None)
    """How many bytes one image may take besides the model; None is half of the free memory."""
    default_encoding: ImageEncoding = setting(
        "UPSCALER_DEFAULT_ENCODING", choice(ImageEncoding), ImageEncoding.PNG
    )
    """The format of the result if the request does not name one (REQ-9)."""
    face_enhance: FaceEnhance | None = setting("UPSCALER_FACE_ENHANCE", choice(FaceEnhance), None)
    """What is done with `face_enhance: true` where there is no face model (REQ-10): None refuses. A
    mock with a value is a service without one."""
    face_detector: FaceDetector = setting(
        "UPSCALER_FACE_DETECTOR", choice(FaceDetector), FaceDetector.RESNET50
    )
    """What finds the faces for `face_enhance: true`."""
    queue_length: int = setting("UPSCALER_QUEUE", _length, 16)
    """How many images may wait while others are being upscaled."""
    queue_memory: int = setting("UPSCALER_QUEUE_MEMORY", _memory_limit, 1024 * MIB)
    """How many bytes all requests may hold together."""
    results_memory: int = setting("UPSCALER_RESULTS_MEMORY", _memory_limit, 1024 * MIB)
    """How many bytes of asynchronous results are kept in memory, or held while they are sent."""
    data: Path | None = setting("UPSCALER_DATA", _folder, None)
    """The folder where `upscaler serve` keeps asynchronous inferences, or IN_MEMORY; None is the
    platform's folder for such."""
    results_disk: int = setting("UPSCALER_RESULTS_DISK", _memory_limit, 16 * 1024 * MIB)
    """How many bytes of images that wait and of asynchronous results are kept in that folder."""
    first_byte_s: float = setting("UPSCALER_FIRST_BYTE", _seconds, 25.0)
    """After how many seconds a JSON response begins, even if its image is not done: many proxies
    give up after 30."""
    deadline_s: float | None = setting("UPSCALER_DEADLINE", _seconds, None)
    """After how many seconds a response with a file becomes a 503; None is no limit."""
    price_per_second: Decimal | None = setting("UPSCALER_PRICE_PER_SECOND", parse_price, None)
    """Dollars per second of work; None leaves costs out of responses."""
    fetch_ports: tuple[int, ...] = setting("UPSCALER_FETCH_PORTS", _ports, (80, 443))
    """The ports that images may be downloaded from."""
    fetch_networks: tuple[Network, ...] = setting("UPSCALER_FETCH_NETWORKS", _networks, ())
    """Private networks that images may be downloaded from, separated by commas."""
    cors_origins: tuple[str, ...] = setting("UPSCALER_CORS_ORIGINS", _origins, ())
    """The origins whose pages may use the API from a browser, or `*` for all."""
    root_path: str = setting("UPSCALER_ROOT_PATH", parse_root_path, "")
    """The path that a proxy has before the service's paths, whether or not it takes it away."""
    public_url: str | None = setting("UPSCALER_PUBLIC_URL", _public_url, None)
    """What URLs in responses begin with; None takes the host of each request and `root_path`."""
