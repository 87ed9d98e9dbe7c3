"""octo-upscaler on Modal: a CPU front that serves the API, and GPU containers that run the models.

With UPSCALER_SHAPE=single there is no front: a GPU container serves the API itself.

    modal deploy modal_app.py                                  the service, at a URL that it prints
    modal run modal_app.py --image photo.png --scale 2         files from a terminal

Both kinds of containers start on demand and shut down when idle. The environment variables that
these commands read are declared in `upscaler/modal/config.py` and explained in docs/MODAL.md.
"""

from typing import Any

import modal

from upscaler.modal import cli, images
from upscaler.modal.config import (
    FRONT_CORES,
    FRONT_INPUTS,
    FRONT_MEMORY_MIB,
    FRONT_QUEUE,
    FRONT_TARGET,
    FRONT_WINDOW_S,
    GPU_CORES,
    GPU_INPUTS,
    GPU_MEMORY_MIB,
    Snapshot,
    secrets_or_exit,
    settings_or_exit,
)
from upscaler.modal.states import States

MINUTES = 60

cli.check_command()
settings = settings_or_exit()
gpus = modal.App("octo-upscaler-gpus")  # a part of the service, and all that a terminal needs
app = modal.App(cli.SERVICE)
secrets = secrets_or_exit(settings.results_bucket)
states = States()  # of calls of `make`

# Containers import this file as well, without the environment of the machine that deployed.
front_image = images.with_sources(images.front.env(settings.environment(serves=True)))
gpu_image = images.with_sources(images.gpu.env(settings.environment(serves=settings.single)))

# A failing import matters only in containers of that image. They import this before Modal takes a
# snapshot, so that later containers start with it.
with front_image.imports():  # type: ignore[no-untyped-call]
    from upscaler.modal import serving
    from upscaler.modal.backend import ModalBackend
    from upscaler.modal.bucket import bucket_of
with gpu_image.imports():  # type: ignore[no-untyped-call]
    from upscaler.modal import serving
    from upscaler.modal.bucket import bucket_of
    from upscaler.modal.worker import OwnGPU, Worker
    from upscaler.service import logs


@gpus.cls(
    image=gpu_image,
    secrets=secrets if settings.single else [],
    gpu=list(settings.gpus),  # the first that is free, cheapest for its speed first
    cpu=GPU_CORES,
    memory=GPU_MEMORY_MIB,
    region=list(settings.region) or None,
    min_containers=0,  # nothing runs or is charged while there are no requests
    max_containers=settings.max_containers,  # limits what can be spent
    scaledown_window=settings.window_s,  # an idle GPU costs as much as a busy one
    timeout=(15 if settings.single else 10) * MINUTES,  # an image takes seconds; see `web`
    startup_timeout=5 * MINUTES,  # without it, `timeout` includes the start
    retries=0,  # Modal would also retry images that fail every time
    **settings.snapshots,
)
@modal.concurrent(**settings.inputs)
class Upscaler:
    """One GPU with all models.

    Its methods are coroutines, or Modal would end the whole container to cancel one call of them.
    """

    @modal.enter(snap=settings.snapshots["enable_memory_snapshot"])
    def load_weights(self) -> None:
        """Runs before the snapshot: without CUDA, unless the snapshot includes GPU memory."""
        logs.to_stderr()
        self.worker = Worker(states)
        self.worker.load_weights()
        if settings.snapshot is Snapshot.GPU:
            self.worker.start()
        logs.flush()  # ends the thread that writes logs, so that it is not in the snapshot

    @modal.enter(snap=False)
    def start(self) -> None:
        """Runs after the snapshot, whenever a container starts."""
        if settings.snapshot is not Snapshot.GPU:
            self.worker.start()

    @modal.exit()
    def end(self) -> None:
        self.worker.end()

    if settings.single:

        @modal.asgi_app(requires_proxy_auth=settings.proxy_auth)
        def web(self) -> Any:
            """The API. Any request starts a container with a GPU, if none is up."""
            make, bucket = Upscaler().make, bucket_of(settings.results_bucket)
            return serving.api(OwnGPU(self.worker), make, states, bucket, self.worker.has_room)

    @modal.method()
    async def make(self, *task: Any) -> Any:
        """For the API, of all pictures or of asynchronous ones: see `Worker.make`."""
        return await self.worker.make(*task)

    @modal.method()
    async def upscale(self, *file: Any) -> Any:
        """For a terminal: see `Worker.upscale`."""
        return await self.worker.upscale(*file)


if not settings.single:

    @app.function(
        image=front_image,
        secrets=secrets,
        cpu=FRONT_CORES,
        memory=FRONT_MEMORY_MIB,  # see UPSCALER_QUEUE_MEMORY
        region=list(settings.region) or None,
        min_containers=0,
        max_containers=settings.max_fronts,
        scaledown_window=FRONT_WINDOW_S,
        timeout=15 * MINUTES,  # an image, a cold start, and the jobs queued before it
        enable_memory_snapshot=settings.snapshots["enable_memory_snapshot"],
    )
    @modal.concurrent(max_inputs=FRONT_INPUTS, target_inputs=FRONT_TARGET)
    @modal.asgi_app(requires_proxy_auth=settings.proxy_auth)
    def web() -> Any:
        """The API. Invalid requests are refused here, without starting a GPU container."""
        at_once = min(GPU_INPUTS * settings.max_containers, FRONT_QUEUE)
        make, bucket = Upscaler().make, bucket_of(settings.results_bucket)
        return serving.api(ModalBackend(make, at_once, bucket), make, states, bucket)


app.include(gpus)

# It has nothing to build: `main` first reads its arguments and looks for the deployed service.
terminal = modal.App("octo-upscaler-terminal")


@terminal.local_entrypoint()
def main(*arguments: str) -> None:
    """Upscale images: `modal run modal_app.py --image photo.png --scale 2`."""
    cli.main(arguments, Upscaler, gpus)
