"""The settings of a deployment to Modal, and the secret that it requires.

The machine that deploys reads them. It imports neither torch nor what the service needs: a virtual
environment with modal alone is enough to deploy from.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

import modal

from upscaler.errors import InvalidSetting

REFUSED: Final = (modal.exception.InvalidError, modal.exception.NotFoundError)
"""What Modal's client raises for a secret that does not exist or lacks a key."""
GPU_CORES: Final = 2.0
"""Of a GPU container: one decodes and encodes while the other feeds the GPU."""
GPU_MEMORY_MIB: Final = 8192
"""Of a GPU container: torch and all networks, and the largest image with its file."""


class Snapshot(StrEnum):
    """What a container starts from: a snapshot of CPU memory, of GPU memory too, or neither."""

    CPU = "cpu"
    GPU = "gpu"
    OFF = "off"


@dataclass(frozen=True)
class Deployment:
    """The settings of one deployment, each with its environment variable.

    `gpus` (`UPSCALER_GPU`) are the GPUs to request: Modal uses the first that is free.
    `max_containers` (`UPSCALER_MAX_CONTAINERS`) is how many of them may run, and `window_s`
    (`UPSCALER_SCALEDOWN_WINDOW`) after how many idle seconds one shuts down. `snapshot`
    (`UPSCALER_SNAPSHOT`) and `region` (`UPSCALER_REGION`, Modal's names, separated by commas)
    are for both kinds of containers. `proxy_auth` (`UPSCALER_PROXY_AUTH`, 1 or 0) requires Modal's
    own tokens besides the service's.
    """

    gpus: tuple[str, ...] = ("L4", "A10", "T4")
    max_containers: int = 4
    window_s: int = 60
    snapshot: Snapshot = Snapshot.CPU
    region: tuple[str, ...] = ()
    proxy_auth: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The settings in `environment`; a variable that is empty counts as not set.

        Raises InvalidSetting, with the variable's name, for an invalid value.
        """
        values = {}
        for name, (variable, parse) in VARIABLES.items():
            if text := environment.get(variable, "").strip():
                try:
                    values[name] = parse(text)
                except ValueError as error:
                    raise InvalidSetting(f"{variable}: {error}") from error
        return cls(**values)

    @property
    def snapshots(self) -> dict[str, Any]:
        """Modal's arguments for `snapshot`."""
        options = {"enable_gpu_snapshot": True} if self.snapshot is Snapshot.GPU else {}
        return {
            "enable_memory_snapshot": self.snapshot is not Snapshot.OFF,
            "experimental_options": options,
        }


def settings_or_exit() -> Deployment:
    """The settings of this deployment; exits with a message if one is invalid.

    An exception would be shown with the whole traceback of Modal's import.
    """
    try:
        return Deployment.from_environment()
    except InvalidSetting as error:
        sys.exit(str(error))


def token_or_exit(name: str, key: str) -> modal.Secret:
    """The secret that holds the service's tokens; exits with a message if it does not exist.

    It is looked up only by Modal's command line: tests and containers, which just import the app,
    need not be logged in.
    """
    secret = modal.Secret.from_name(name, required_keys=[key])
    if modal.is_local() and _deploying():
        try:
            secret.hydrate()
        except REFUSED as error:
            sys.exit(
                "The service needs a token that its clients have to send. Make one, and try again:"
                f"\n\n  modal secret create {name} {key}=$(openssl rand -hex 24)\n\n"
                f"A secret of that name without {key} is replaced with --force. "
                f"(Modal says: {error})"
            )
        except modal.exception.Error:
            pass  # such as a missing login, which the command itself reports better
    return secret


def _deploying() -> bool:
    import click  # noqa: PLC0415  containers need not have it

    return click.get_current_context(silent=True) is not None


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words or not all(re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*[!+]?", word) for word in words):
        raise ValueError("must be Modal's names, separated by commas")
    return words


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return parse


def _snapshot(text: str) -> Snapshot:
    if text not in set(Snapshot):
        raise ValueError(f"must be one of {', '.join(Snapshot)}")
    return Snapshot(text)


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("must be 1 or 0")
    return text == "1"


VARIABLES: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "gpus": ("UPSCALER_GPU", _words),
    "max_containers": ("UPSCALER_MAX_CONTAINERS", _number(1, 1000)),
    "window_s": ("UPSCALER_SCALEDOWN_WINDOW", _number(2, 1200)),
    "snapshot": ("UPSCALER_SNAPSHOT", _snapshot),
    "region": ("UPSCALER_REGION", _words),
    "proxy_auth": ("UPSCALER_PROXY_AUTH", _switch),
}
"""The environment variable of each setting and its parser, which raises ValueError. Modal keeps an
idle container for 2 to 1200 seconds."""
