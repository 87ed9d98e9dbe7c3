"""What may differ from one machine to the next, read from the environment once.

The limits of the API are not here: they are the contract's, the same everywhere.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final, Self

from upscaler.authority import is_authority
from upscaler.errors import InvalidSetting
from upscaler.formats import ImageEncoding

Network = IPv4Network | IPv6Network

MIB: Final = 2**20
MIN_ROOM_BYTES: Final = 320 * MIB
"""The largest picture of all, if it is noise with alpha, is a file of 256 MiB."""


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


@dataclass(frozen=True)
class Settings:
    """The settings of one process, each with the variable that it is read from.

    Of the engine: `weights` (`UPSCALER_WEIGHTS`) is a folder of weights that goes before all other
    places; `device` and `precision` (`UPSCALER_DEVICE`, `UPSCALER_PRECISION`); and `memory`
    (`UPSCALER_MEMORY`), how many bytes one picture may take over those of the loaded model, with
    None for half of what is free.

    Of the service: `tokens` (`UPSCALER_TOKEN`, separated by commas) are the bearer tokens that it
    accepts, and are kept out of `repr`. `default_encoding` (`UPSCALER_DEFAULT_ENCODING`) is what a
    picture is encoded in if the request does not say (REQ-9). `queue_length` (`UPSCALER_QUEUE`) is
    how many pictures may wait, and `queue_memory` (`UPSCALER_QUEUE_MEMORY`) how many bytes all
    requests may hold together. `results_memory` (`UPSCALER_RESULTS_MEMORY`) is how many bytes of
    asynchronous results are kept. `first_byte_s` (`UPSCALER_FIRST_BYTE`) is after how many seconds
    an answer in JSON begins, whether its picture is there or not, and `deadline_s`
    (`UPSCALER_DEADLINE`) how many any other picture may take, or None for as many as it needs.
    `price_per_second` (`UPSCALER_PRICE_PER_SECOND`) is what a second of work costs in dollars, or
    None not to tell. `fetch_ports` (`UPSCALER_FETCH_PORTS`) are the ports that pictures are
    downloaded from, and `fetch_networks` (`UPSCALER_FETCH_NETWORKS`) the networks, separated by
    commas, that they may come from besides the public ones. `public_url` (`UPSCALER_PUBLIC_URL`) is
    what the URLs in answers begin with, or None for the host that each request was sent to.
    """

    tokens: tuple[str, ...] = field(default=(), repr=False)
    weights: Path | None = None
    device: Device = Device.AUTO
    precision: Precision = Precision.AUTO
    memory: int | None = None
    default_encoding: ImageEncoding = ImageEncoding.PNG
    queue_length: int = 16
    queue_memory: int = 1024 * MIB
    results_memory: int = 1024 * MIB
    first_byte_s: float = 45.0
    deadline_s: float | None = None
    price_per_second: Decimal | None = None
    fetch_ports: tuple[int, ...] = (80, 443)
    fetch_networks: tuple[Network, ...] = ()
    public_url: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The settings in `environment`; a variable that is empty counts as not set.

        Raises InvalidSetting, with the variable's name, for a value that is not one of its choices.
        """
        given = {}
        for name, (variable, parse) in VARIABLES.items():
            text = environment.get(variable)
            if not text:
                continue
            try:
                given[name] = parse(text)
            except (
                ValueError,
                RuntimeError,
            ) as error:  # RuntimeError: "~somebody" who is not there
                raise InvalidSetting(f"{variable}: {error}") from error
        return cls(**given)


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
        raise ValueError(f"must be {MIN_ROOM_BYTES // MIB}M at least, for the largest picture")
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


VARIABLES: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "tokens": ("UPSCALER_TOKEN", _words),
    "weights": ("UPSCALER_WEIGHTS", _folder),
    "device": ("UPSCALER_DEVICE", _choice(Device)),
    "precision": ("UPSCALER_PRECISION", _choice(Precision)),
    "memory": ("UPSCALER_MEMORY", parse_bytes),
    "default_encoding": ("UPSCALER_DEFAULT_ENCODING", _choice(ImageEncoding)),
    "queue_length": ("UPSCALER_QUEUE", _length),
    "queue_memory": ("UPSCALER_QUEUE_MEMORY", _room),
    "results_memory": ("UPSCALER_RESULTS_MEMORY", _room),
    "first_byte_s": ("UPSCALER_FIRST_BYTE", _seconds),
    "deadline_s": ("UPSCALER_DEADLINE", _seconds),
    "price_per_second": ("UPSCALER_PRICE_PER_SECOND", parse_price),
    "fetch_ports": ("UPSCALER_FETCH_PORTS", _ports),
    "fetch_networks": ("UPSCALER_FETCH_NETWORKS", _networks),
    "public_url": ("UPSCALER_PUBLIC_URL", _public_url),
}
"""How each setting is read: its variable, and what makes of the text a value or a ValueError."""
