"""What may differ from one machine to the next, read from the environment once.

The limits of the API are not here: they are the contract's, the same everywhere.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final

from upscaler.api.limits import MAX_OUTPUT_PX
from upscaler.authority import is_authority
from upscaler.environment import FromEnvironment, setting
from upscaler.formats import ImageEncoding

Network = IPv4Network | IPv6Network

MIB: Final = 2**20
MIN_ROOM_BYTES: Final = MAX_OUTPUT_PX**2 * 4 // MIB * MIB + 64 * MIB
"""The file of the largest image, if it is noise with alpha, and 64 MiB more."""


class Device(StrEnum):
    """Where the networks run; `auto` is cuda, else mps, else cpu, whichever is there."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Precision(StrEnum):
    """What the networks compute in.

    `mixed` multiplies in bf16 and adds in fp32. `auto` is fp16 on cuda, mixed on a CPU that
    multiplies bf16 in hardware, and fp32 elsewhere.
    """

    AUTO = "auto"
    FP32 = "fp32"
    MIXED = "mixed"
    FP16 = "fp16"
    BF16 = "bf16"


UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
"""What the letter behind a number of bytes stands for."""


def parse_bytes(text: str) -> int:
    """A number of bytes such as 2G, 512M or 1073741824; raises ValueError for anything else."""
    match = re.fullmatch(r"([0-9]{1,15})([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    if not match or int(match[1]) == 0:
        raise ValueError("memory is a number of bytes, or of K, M or G, such as 2G")
    return int(match[1]) * UNITS[match[2].upper()]


def parse_price(text: str) -> Decimal:
    """Dollars for a second, such as 0.000222; raises ValueError for anything else."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,12})?", text.strip(), re.ASCII):
        raise ValueError("the price is a number of dollars for a second, such as 0.000222")
    return Decimal(text.strip())


def _choice(choices: type[StrEnum]) -> Callable[[str], StrEnum]:
    def parse(text: str) -> StrEnum:
        if text not in set(choices):
            raise ValueError(f"must be one of {', '.join(choices)}")
        return choices(text)

    return parse


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _folder(text: str) -> Path:
    return Path(text).expanduser()


def _length(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text.strip(), re.ASCII):
        raise ValueError("must be a whole number from 0 to 9999")
    return int(text)


def _room(text: str) -> int:
    room = parse_bytes(text)
    if room < MIN_ROOM_BYTES:
        raise ValueError(f"must be {MIN_ROOM_BYTES // MIB}M at least, for the largest image")
    return room


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


def _public_url(text: str) -> str:
    match = re.fullmatch(r"https?://([^/]+)((?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*)/?", text.strip())
    if not match or not is_authority(match[1]):
        raise ValueError(
            "must be a URL of http or https without a query, such as https://a.example"
        )
    return text.strip().removesuffix("/")


@dataclass(frozen=True)
class Settings(FromEnvironment):
    """The settings of one process: of the engine, and of the service."""

    tokens: tuple[str, ...] = setting("UPSCALER_TOKEN", _words, (), repr=False)
    """The bearer tokens that the service accepts, separated by commas."""
    weights: Path | None = setting("UPSCALER_WEIGHTS", _folder, None)
    """A folder of weights that is searched before all other places."""
    device: Device = setting("UPSCALER_DEVICE", _choice(Device), Device.AUTO)
    precision: Precision = setting("UPSCALER_PRECISION", _choice(Precision), Precision.AUTO)
    memory: int | None = setting("UPSCALER_MEMORY", parse_bytes, None)
    """How many bytes one image may take over those of the loaded model; None is half of what is
    free."""
    default_encoding: ImageEncoding = setting(
        "UPSCALER_DEFAULT_ENCODING", _choice(ImageEncoding), ImageEncoding.PNG
    )
    """What an image is encoded in if the request does not say (REQ-9)."""
    queue_length: int = setting("UPSCALER_QUEUE", _length, 16)
    """How many images may wait."""
    queue_memory: int = setting("UPSCALER_QUEUE_MEMORY", _room, 1024 * MIB)
    """How many bytes all requests may hold together."""
    results_memory: int = setting("UPSCALER_RESULTS_MEMORY", _room, 1024 * MIB)
    """How many bytes of asynchronous results are kept."""
    first_byte_s: float = setting("UPSCALER_FIRST_BYTE", _seconds, 45.0)
    """After how many seconds a JSON response begins, whether its image is done or not."""
    deadline_s: float | None = setting("UPSCALER_DEADLINE", _seconds, None)
    """How many seconds any other image may take; None is as many as it needs."""
    price_per_second: Decimal | None = setting("UPSCALER_PRICE_PER_SECOND", parse_price, None)
    """What a second of work costs in dollars; None leaves costs out of responses."""
    fetch_ports: tuple[int, ...] = setting("UPSCALER_FETCH_PORTS", _ports, (80, 443))
    """The ports that images are downloaded from."""
    fetch_networks: tuple[Network, ...] = setting("UPSCALER_FETCH_NETWORKS", _networks, ())
    """Networks that images may be downloaded from besides the public ones, separated by commas."""
    public_url: str | None = setting("UPSCALER_PUBLIC_URL", _public_url, None)
    """What URLs in responses begin with; None is the host that each request was sent to."""
