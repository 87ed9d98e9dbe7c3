"""octo-upscaler on Modal: a CPU front that serves the API, and GPU containers that run the models.

    modal deploy modal_app.py                                  the service, at a URL that it prints
    modal run modal_app.py --image photo.png --scale 2         files from a terminal
    modal run modal_app.py::selfcheck                          the GPU against the reference

Both kinds of containers start on demand and shut down when idle. The environment variables that
these commands read are declared in `upscaler/modal/config.py` and explained in docs/MODAL.md.
"""

from pathlib import Path
from typing import Any

import modal

from upscaler.modal.config import (
    GPU_CORES,
    GPU_MEMORY_MIB,
    Snapshot,
    settings_or_exit,
    token_or_exit,
)
from upscaler.models import MODELS, RELEASES

MINUTES = 60
HERE = Path(__file__).parent
SOURCES = ("upscaler",)
# Modal's default adds only .py files, but the playground's HTML, CSS and JavaScript are needed too.
NOT_SOURCES = ["**/__pycache__", "**/*.pyc"]
FRONT_INPUTS = 8  # limited by the front's 2 GiB: see docs/cost.md, "The next walls"

settings = settings_or_exit()
app = modal.App("octo-upscaler")
token = token_or_exit("upscaler-token", "UPSCALER_TOKEN")

# A layer is rebuilt only when it or one below it changes. So the weights, which never change, come
# first, then the packages. Our own code is in no layer: Modal adds it when a container starts.
base = modal.Image.debian_slim("3.12")
fetched = base.apt_install("curl").run_commands(
    *[
        f"curl -fsSL --retry 3 --create-dirs -o /weights/{file.filename} {RELEASES}/{file.path}"
        f" && echo '{file.sha256}  /weights/{file.filename}' | sha256sum --check"
        for file in (model.official for model in MODELS.values())
    ]
)


def installed(image: modal.Image, *extras: str) -> modal.Image:
    """`image` with the product's dependencies, in versions that are known to work together."""
    return image.add_local_file(
        HERE / "constraints.txt", "/constraints.txt", copy=True
    ).pip_install_from_pyproject(
        str(HERE / "pyproject.toml"), list(extras), extra_options="-c /constraints.txt"
    )


front_image = (
    installed(base)
    .env(
        {
            # Modal's proxy answers with a redirect if a response has not started after 150 s.
            "UPSCALER_DEADLINE": "140",
            # A cache of results whose status was polled, so that they are not fetched twice.
            "UPSCALER_RESULTS_MEMORY": "512M",
        }
    )
    .add_local_python_source(*SOURCES, ignore=NOT_SOURCES)
)
# PyPI's torch for Linux is the one for CUDA.
installed_gpu = installed(fetched, "engine").env(
    {
        "UPSCALER_WEIGHTS": "/weights",
        "UPSCALER_DEVICE": "cuda",
        # Triton's kernels would be compiled at every start, which takes longer than they save.
        "UPSCALER_KERNELS": "cudnn",
    }
)
gpu_image = installed_gpu.env(
    # Containers import this file as well, without the environment of the machine that deployed.
    {"UPSCALER_SNAPSHOT": settings.snapshot.value}
).add_local_python_source(*SOURCES, ignore=NOT_SOURCES)
# --no-deps: they require torchvision, which requires another torch, and neither is needed here.
check_image = (
    installed(installed_gpu, "reference")
    .run_commands("pip install --no-deps --no-build-isolation basicsr==1.4.2 realesrgan==0.3.0")
    .add_local_file(HERE / "docs" / "photo.png", "/root/docs/photo.png")
    .add_local_python_source(*SOURCES, ignore=NOT_SOURCES)
)

# A failing import matters only in containers of that image. They import this before Modal takes a
# snapshot, so that later containers start with it.
with front_image.imports():  # type: ignore[no-untyped-call]
    from upscaler.modal.backend import ModalBackend, ModalJobStore
    from upscaler.service import logs
    from upscaler.service.app import create_app
    from upscaler.settings import Settings
with gpu_image.imports():  # type: ignore[no-untyped-call]
    from upscaler.modal.worker import Worker
    from upscaler.service import logs


@app.cls(
    image=gpu_image,
    gpu=list(settings.gpus),  # the first that is free, cheapest for its speed first
    cpu=GPU_CORES,
    memory=GPU_MEMORY_MIB,
    region=list(settings.region) or None,
    min_containers=0,  # nothing runs or is charged while there are no requests
    max_containers=settings.max_containers,  # limits what can be spent
    scaledown_window=settings.window_s,  # an idle GPU costs as much as a busy one
    timeout=10 * MINUTES,  # the largest image takes seconds: a longer call hangs
    startup_timeout=5 * MINUTES,  # without it, `timeout` includes the start
    retries=0,  # Modal would also retry images that fail every time
    **settings.snapshots,
)
class Upscaler:
    """One GPU with all models. It upscales one image at a time: its memory holds one."""

    @modal.enter(snap=settings.snapshots["enable_memory_snapshot"])
    def load_weights(self) -> None:
        """Runs before the snapshot: without CUDA, unless the snapshot includes GPU memory."""
        logs.to_stderr()
        self.worker = Worker()
        self.worker.load_weights()
        if settings.snapshot is Snapshot.GPU:
            self.worker.start()
        logs.flush()  # ends the thread that writes logs, so that it is not in the snapshot

    @modal.enter(snap=False)
    def start(self) -> None:
        """Runs after the snapshot, whenever a container starts."""
        if settings.snapshot is not Snapshot.GPU:
            self.worker.start()

    @modal.method()
    def make(self, *task: Any) -> Any:
        """For the front: see `Worker.make`."""
        return self.worker.make(*task)

    @modal.method()
    def upscale(self, *file: Any) -> Any:
        """For a terminal: see `Worker.upscale`."""
        return self.worker.upscale(*file)


@app.function(
    image=front_image,
    secrets=[token],
    cpu=1.0,
    memory=2048,  # bodies, pixels and responses of FRONT_INPUTS requests
    region=list(settings.region) or None,
    min_containers=0,
    max_containers=settings.max_containers,
    scaledown_window=5 * MINUTES,  # a core is cheap, and it saves the next client a cold start
    timeout=15 * MINUTES,  # an image, a cold start, and the jobs queued before it
    enable_memory_snapshot=settings.snapshots["enable_memory_snapshot"],
)
@modal.concurrent(max_inputs=FRONT_INPUTS)  # by default a container takes one request at a time
@modal.asgi_app(requires_proxy_auth=settings.proxy_auth)
def web() -> Any:
    """The API. Invalid requests are refused here, without starting a GPU container."""
    service = Settings.from_environment()
    logs.to_stderr(service.tokens)
    make = Upscaler().make
    # All fronts must sign ids with the same key; a new first token invalidates all ids.
    jobs = ModalJobStore(make, service.tokens[0].encode(), service.results_memory)
    return create_app(ModalBackend(make, at_once=FRONT_INPUTS), service, jobs)


@app.function(
    image=check_image,
    gpu=list(settings.gpus),
    cpu=GPU_CORES,
    memory=16384,  # RealESRGANer holds the whole image several times
    region=list(settings.region) or None,
    max_containers=1,
    scaledown_window=2,
    timeout=60 * MINUTES,
)
def selfcheck(*arguments: str) -> None:
    """Compare accuracy, speed and memory with RealESRGANer; takes options of `upscaler bench`."""
    from upscaler.cli import main as cli

    if cli.main(["bench", *(arguments or ("--model", "all"))]):
        raise RuntimeError("something failed: see the table above")


@app.local_entrypoint()
def main(*arguments: str) -> None:
    """Upscale images: `modal run modal_app.py --image photo.png --scale 2`."""
    from upscaler.modal import cli as terminal

    terminal.main(arguments, Upscaler().upscale)
