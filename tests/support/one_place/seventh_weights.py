"""With a seventh model: `upscaler weights` lists and fetches it, and `upscaler image` uses it."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import safetensors.torch
from PIL import Image

from tests.support.one_place import image_file
from upscaler.cli.main import main
from upscaler.engine.networks import build
from upscaler.models import MODELS, RELEASES, UpscalingModel

NAME = "real-esrgan-seventh"


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """No download connects."""

    def stream(*_: object, **__: object) -> None:
        raise httpx.ConnectError("there is no network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx, "stream", stream)
        yield


def run(*arguments: str) -> tuple[int, str]:
    """The exit status of a command, and what it printed."""
    out = io.StringIO()
    with offline(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = main(arguments)
    return status, out.getvalue()


def check_list() -> None:
    status, printed = run("weights")
    assert status == 0, printed
    advice = f"run `upscaler weights fetch {NAME}` (5 MB), or put seventh.pth into a folder"
    assert f"{NAME}\n  missing   {advice}" in printed, printed


def check_fetch() -> None:
    status, printed = run("weights", "fetch", NAME)
    assert status == 1
    assert f"the weights of {NAME} could not be fetched from {RELEASES}/v9/seventh.pth" in printed


def check_upscaling() -> None:
    folder = Path("weights")
    folder.mkdir()
    net = build(MODELS[UpscalingModel(NAME)].network)
    safetensors.torch.save_file(net.state_dict(), folder / f"{NAME}.safetensors")
    os.environ["UPSCALER_WEIGHTS"] = str(folder)
    status, printed = run("weights")
    assert status == 0, printed
    assert f"{NAME}\n  found     {folder / NAME}.safetensors" in printed
    Path("red.png").write_bytes(image_file((256, 256)))
    status, printed = run("image", "red.png", "--model", NAME, "--output", "larger.png", "--quiet")
    assert status == 0, printed
    with Image.open("larger.png") as image:
        assert image.size == (1024, 1024)


if __name__ == "__main__":
    check_list()
    check_fetch()
    check_upscaling()
