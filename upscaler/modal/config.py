"""The settings of a deployment to Modal, and the secret that it requires.

They are read on the machine that deploys. This module imports neither torch nor the service's
dependencies, so that a virtual environment with only modal is enough to deploy from.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import modal

from upscaler.environment import FromEnvironment, choice, setting
from upscaler.errors import InvalidSetting

REFUSED: Final = (modal.exception.InvalidError, modal.exception.NotFoundError)
"""The errors of Modal's client for a secret that does not exist or lacks a key."""
GPU_INPUTS: Final = 2
"""Images in a GPU container at once: one is upscaled while another is fetched or sent back."""
FRONT_INPUTS: Final = 100
"""Requests in a front at once: beyond that they wait at Modal, without an answer."""
FRONT_QUEUE: Final = 32
"""How many images may wait in a front, and at most how many it has in GPU containers. Both together
leave room for the requests that are answered at once, if only to be refused."""
FRONT_TARGET: Final = 56
"""Beyond how many requests Modal starts another front. A full line of images alone does so with
more than twelve GPU containers: one front keeps sixteen at work."""
GPU_CORES: Final = 2.0
"""Of a GPU container: one core decodes and encodes while the other feeds the GPU."""
GPU_MEMORY_MIB: Final = 8192
"""Of a GPU container: it holds torch, all networks, and the largest image with its file."""
FRONT_CORES: Final = 1.0
FRONT_MEMORY_MIB: Final = 2048
FRONT_WINDOW_S: Final = 60
"""Idle seconds after which a front shuts down: longer, a lone image would cost a fifth more."""


SERVING: Final = {
    # Modal's proxy answers with a redirect if a response has not started after 150 s.
    "UPSCALER_DEADLINE": "140",
    # Of a front's 2 GiB; the rest is for the process, and for what Modal's client reads ahead.
    "UPSCALER_QUEUE_MEMORY": "512M",
    "UPSCALER_RESULTS_MEMORY": "896M",
    "UPSCALER_QUEUE": str(FRONT_QUEUE),
}
"""The service's settings in containers that serve the API."""


class Shape(StrEnum):
    """Who serves the API: fronts without a GPU, which call those that have one, or the latter."""

    TWO = "two"
    SINGLE = "single"


class Snapshot(StrEnum):
    """What a container starts from: a snapshot of CPU memory, of CPU and GPU memory, or none."""

    CPU = "cpu"
    GPU = "gpu"
    OFF = "off"


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


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("must be 1 or 0")
    return text == "1"


def _bucket(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", text):
        raise ValueError("must be a bucket's name: 3 to 63 of a-z, 0-9, dots and hyphens")
    return text


@dataclass(frozen=True)
class Deployment(FromEnvironment):
    """The settings of one deployment."""

    shape: Shape = setting("UPSCALER_SHAPE", choice(Shape), Shape.TWO)
    gpus: tuple[str, ...] = setting("UPSCALER_GPU", _words, ("L4", "T4", "A10"))
    """The GPUs to request: Modal uses the first that is free. The A10 comes last: by
    docs/cost.md it is hardly faster than a T4, and an image costs 1.6 times as much."""
    max_containers: int = setting("UPSCALER_MAX_CONTAINERS", _number(1, 1000), 4)
    """How many GPU containers may run."""
    max_fronts: int = setting("UPSCALER_MAX_FRONTS", _number(1, 1000), 4)
    """How many fronts may run."""
    window_s: int = setting("UPSCALER_SCALEDOWN_WINDOW", _number(2, 3600), 60)
    """Idle seconds after which a GPU container shuts down; Modal allows 2 to 3600."""
    snapshot: Snapshot = setting("UPSCALER_SNAPSHOT", choice(Snapshot), Snapshot.CPU)
    region: tuple[str, ...] = setting("UPSCALER_REGION", _words, ())
    """Modal's names of the regions where containers of both kinds may run; empty means any."""
    proxy_auth: bool = setting("UPSCALER_PROXY_AUTH", _switch, default=False)
    """Whether Modal's own tokens are required in addition to the service's."""
    results_bucket: str = setting("UPSCALER_RESULTS_BUCKET", _bucket, "")
    """The bucket of an S3-compatible store to which results go; empty for none."""

    @property
    def single(self) -> bool:
        """Whether the containers with a GPU serve the API themselves."""
        return self.shape is Shape.SINGLE

    def environment(self, *, serves: bool) -> dict[str, str]:
        """The variables of a container, and whether it `serves` the API.

        Containers import `modal_app.py` as well, and must come to the same settings.
        """
        chosen = {
            "UPSCALER_SHAPE": self.shape.value,
            "UPSCALER_SNAPSHOT": self.snapshot.value,
            "UPSCALER_MAX_CONTAINERS": str(self.max_containers),
            "UPSCALER_RESULTS_BUCKET": self.results_bucket,
        }
        return SERVING | chosen if serves else chosen

    @property
    def inputs(self) -> dict[str, int]:
        """Modal's arguments for how many inputs a container with a GPU takes at once."""
        if self.single:
            return {"max_inputs": FRONT_INPUTS, "target_inputs": FRONT_TARGET}
        # A second one only where no container is free: the first should have its own.
        return {"max_inputs": GPU_INPUTS, "target_inputs": 1}

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

    Modal would show an exception with the whole traceback of its import.
    """
    try:
        settings = Deployment.from_environment()
    except InvalidSetting as error:
        sys.exit(str(error))
    if command() == "run":  # which serves nothing, and so needs neither a URL nor the secret
        return replace(settings, shape=Shape.TWO)
    if settings.single and settings.max_fronts != Deployment.max_fronts:
        sys.exit("UPSCALER_MAX_FRONTS: there are no fronts if UPSCALER_SHAPE is single")
    return settings


def secrets_or_exit(bucket: str) -> list[modal.Secret]:
    """The secrets of containers that serve the API: its tokens, and the key to `bucket` if any.

    Exits as `_secret_or_exit` does.
    """
    token = _secret_or_exit(
        "upscaler-token",
        ["UPSCALER_TOKEN"],
        "The service needs a token that its clients have to send",
        "UPSCALER_TOKEN=$(openssl rand -hex 24)",
    )
    if not bucket:
        return [token]
    key = _secret_or_exit(
        "upscaler-bucket",
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
        f"The service needs a key to the bucket {bucket} (UPSCALER_RESULTS_BUCKET)",
        "AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... AWS_REGION=... AWS_ENDPOINT_URL=...",
    )
    return [token, key]


def _secret_or_exit(name: str, keys: list[str], need: str, pairs: str) -> modal.Secret:
    """The secret of that name; exits with `need` and a command if it does not exist.

    Only the commands that need it look it up: tests and containers, which just import the app, need
    not be logged in, and `modal run` does not serve anything.
    """
    secret = modal.Secret.from_name(name, required_keys=keys)
    if command() in ("deploy", "serve"):
        try:
            secret.hydrate()
        except REFUSED as error:
            sys.exit(
                f"{need}. Make one, and try again:\n\n  modal secret create {name} {pairs}\n\n"
                f"A secret of that name without {' and '.join(keys)} is replaced with --force. "
                f"(Modal says: {error})"
            )
        except modal.exception.Error:
            pass  # such as a missing login, which the command itself reports more clearly
    return secret


def arguments_of(file: str, name: str) -> list[str] | None:
    """What `modal run` is about to hand to the function `name` of `file`; None if it is no such.

    To be asked while the file is imported: afterwards Modal connects and starts the app.
    """
    if command() != "run":
        return None
    for after, word in enumerate(sys.argv[1:], 2):
        path, _, chosen = word.partition("::")
        if Path(path).name == file and chosen in ("", name):
            words = sys.argv[after:]  # in which the file may be named again
            return words[1:] if words[:1] == ["--"] else words
    return None


def command() -> str | None:
    """The command of Modal's that is importing the app, such as deploy; None in a container."""
    if not modal.is_local():
        return None
    import click  # noqa: PLC0415  containers need not have it

    context = click.get_current_context(silent=True)
    return context.info_name if context else None
