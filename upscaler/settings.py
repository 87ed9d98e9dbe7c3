"""What may differ from one machine to the next, read from the environment once.

The limits of the API are not here: they are the contract's, the same everywhere.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Self, TypeVar

from upscaler.errors import InvalidSetting


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


@dataclass(frozen=True)
class Settings:
    """The settings of one process.

    `tokens` are the bearer tokens that the service accepts (`UPSCALER_TOKEN`, separated by commas)
    and are kept out of `repr`. `weights` is a folder of weights that goes before all other places
    (`UPSCALER_WEIGHTS`). `device`, `precision` and `memory`, how many bytes one picture may take
    over those of the loaded model, with None for half of what is free, are the defaults of the
    engine (`UPSCALER_DEVICE`, `UPSCALER_PRECISION`, `UPSCALER_MEMORY`).
    """

    tokens: tuple[str, ...] = field(default=(), repr=False)
    weights: Path | None = None
    device: Device = Device.AUTO
    precision: Precision = Precision.AUTO
    memory: int | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The settings in `environment`; a variable that is empty counts as not set.

        Raises InvalidSetting, with the variable's name, for a value that is not one of its choices.
        """
        tokens = environment.get("UPSCALER_TOKEN", "").split(",")
        return cls(
            tokens=tuple(token.strip() for token in tokens if token.strip()),
            weights=_folder(environment.get("UPSCALER_WEIGHTS")),
            device=_choice(Device, environment, "UPSCALER_DEVICE", Device.AUTO),
            precision=_choice(Precision, environment, "UPSCALER_PRECISION", Precision.AUTO),
            memory=_memory(environment.get("UPSCALER_MEMORY")),
        )


Choice = TypeVar("Choice", bound=StrEnum)


def _choice(
    choices: type[Choice], environment: Mapping[str, str], name: str, default: Choice
) -> Choice:
    value = environment.get(name) or default
    if value not in set(choices):
        raise InvalidSetting(f"{name} must be one of {', '.join(choices)}")
    return choices(value)


def _folder(value: str | None) -> Path | None:
    try:
        return Path(value).expanduser() if value else None
    except RuntimeError as error:  # "~somebody" who is not there
        raise InvalidSetting(f"UPSCALER_WEIGHTS: {error}") from error


def _memory(value: str | None) -> int | None:
    try:
        return parse_bytes(value) if value else None
    except ValueError as error:
        raise InvalidSetting(f"UPSCALER_MEMORY: {error}") from error
