"""What may differ from one machine to the next, read from the environment once.

The limits of the API are not here: they are the contract's, the same everywhere.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self, TypeVar

from upscaler.errors import InvalidSetting


class Device(StrEnum):
    """Where the networks run; `auto` is cuda, else mps, else cpu, whichever is there."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Precision(StrEnum):
    """What the networks compute in; `auto` is fp16 on cuda and fp32 elsewhere."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


DEFAULT_TILE_PX = 256
"""Bounds what a call takes of memory, whatever the size of its picture."""


@dataclass(frozen=True)
class Settings:
    """The settings of one process.

    `tokens` are the bearer tokens that the service accepts (`UPSCALER_TOKEN`, separated by commas)
    and are kept out of `repr`. `weights` is a folder of weights that goes before all other places
    (`UPSCALER_WEIGHTS`). `device`, `precision` and `tile`, in input pixels per side with 0 for the
    whole picture, are the defaults of the engine (`UPSCALER_DEVICE`, `UPSCALER_PRECISION`,
    `UPSCALER_TILE`).
    """

    tokens: tuple[str, ...] = field(default=(), repr=False)
    weights: Path | None = None
    device: Device = Device.AUTO
    precision: Precision = Precision.AUTO
    tile: int = DEFAULT_TILE_PX

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
            tile=_tile(environment.get("UPSCALER_TILE") or str(DEFAULT_TILE_PX)),
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


def _tile(value: str) -> int:
    if not value.isdecimal() or len(value) > 9:
        raise InvalidSetting("UPSCALER_TILE must be a number of pixels, or 0 for the whole picture")
    return int(value)
