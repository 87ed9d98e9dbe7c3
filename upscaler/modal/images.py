"""The images of the containers on Modal: what they have installed, and the weights.

A layer is rebuilt only when it or one below it changes, so what changes least comes first. Our own
code is in no layer: Modal adds it when a container starts, and a change of it rebuilds nothing.
"""

import os
from pathlib import Path
from typing import Final

import modal

from upscaler.face_models import FaceDetector, needed
from upscaler.models import MODELS

CHECKOUT: Final = Path(__file__).parents[2]
PYTHON: Final = "3.12"
"""The reference's `basicsr` cannot be built with a newer one. Also in the Makefile's `lock`."""
UV_VERSION: Final = "0.13.9"
"""The version of uv that installs; without it, each build would take the latest one."""
BUILDER: Final = "2026.10"
"""Modal's recipe for base images, the newest that its client knows. The one that a workspace is set
to may be years old."""

os.environ.setdefault("MODAL_IMAGE_BUILDER_VERSION", BUILDER)


def installed(image: modal.Image, name: str) -> modal.Image:
    """`image` with the packages of `locks/NAME.txt`, in these versions and with these hashes."""
    return image.uv_pip_install(
        requirements=[str(CHECKOUT / "locks" / f"{name}.txt")],
        extra_options="--require-hashes --no-deps",
        uv_version=UV_VERSION,
    )


def with_sources(image: modal.Image) -> modal.Image:
    """`image` with our package, of which Modal would add only the .py files by default."""
    return image.add_local_python_source("upscaler", ignore=["**/__pycache__", "**/*.pyc"])


_base = modal.Image.debian_slim(PYTHON)
_weights = _base.apt_install("curl").run_commands(
    *[
        f"curl -fsSL --retry 3 --create-dirs -o /weights/{file.filename} {releases}/{file.path}"
        f" && echo '{file.sha256}  /weights/{file.filename}' | sha256sum --check"
        for file, releases in (
            *((model.official, model.releases) for model in MODELS.values()),
            *((model.official, model.releases) for model in needed(FaceDetector.RESNET50)),
        )
    ]
)
front = installed(_base, "front")
"""What the service needs: neither torch nor weights."""
gpu = installed(_weights, "gpu").env(
    {
        "UPSCALER_WEIGHTS": "/weights",
        "UPSCALER_DEVICE": "cuda",
        # Triton's kernels would be compiled at every start, which takes longer than they save.
        "UPSCALER_KERNELS": "cudnn",
    }
)
"""The engine, and the weights of all models, those for faces too. PyPI's torch for Linux is the one
for CUDA."""
