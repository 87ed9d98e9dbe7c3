"""The engine on one of Modal's GPUs, compared with RealESRGANer: accuracy, speed and memory.

    modal run modal_selfcheck.py
    modal run modal_selfcheck.py --model real-esrgan-x4-v3     or other options of `upscaler bench`

An app of its own, so that a deployment of the service does not build the reference's image.
"""

import modal

from upscaler.modal import images
from upscaler.modal.config import GPU_CORES, arguments_of, settings_or_exit

MINUTES = 60

if given := arguments_of("modal_selfcheck.py", "selfcheck"):  # told before anything is built
    from upscaler.cli import options  # below what tells whose Python is too old

    parser = options.parser()
    chosen = parser.parse_args(["bench", *given])
    if chosen.image or chosen.json or chosen.plot:
        parser.error("there are no files of this machine where it runs: IMAGE, --json, --plot")
settings = settings_or_exit()
app = modal.App("octo-upscaler-selfcheck")
# --no-deps: they require torchvision, which requires another torch, and neither is needed here.
image = images.with_sources(
    images.installed(images.gpu, "check").uv_pip_install(
        "basicsr==1.4.2",
        "realesrgan==0.3.0",
        extra_options="--no-deps --no-build-isolation",
        uv_version=images.UV_VERSION,
    )
).add_local_file(images.CHECKOUT / "docs" / "photo.png", "/root/docs/photo.png")


@app.function(
    image=image,
    gpu=list(settings.gpus),
    cpu=GPU_CORES,
    memory=16384,  # RealESRGANer holds the whole image several times
    region=list(settings.region) or None,
    max_containers=1,
    scaledown_window=2,
    timeout=60 * MINUTES,
)
def selfcheck(*arguments: str) -> None:
    """Takes options of `upscaler bench`, by default `--model all`."""
    from upscaler.cli import main as cli

    if cli.main(["bench", *(arguments or ("--model", "all"))]):
        raise RuntimeError("something failed: see the table above")
