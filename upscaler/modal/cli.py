"""Upscale files from a terminal on GPU containers: `modal run modal_app.py --image photos/`.

It needs only modal and its dependencies, since containers decode the files and check the sizes.
Those are the containers of the deployed service, or, where it is not deployed, of an app that runs
for as long as the command.
"""

import argparse
import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import modal

from upscaler import files
from upscaler.api.limits import MAX_INPUT_PX, MAX_OUTPUT_PX, MIN_INPUT_PX
from upscaler.errors import FileRefused
from upscaler.file_jobs import FileJob, plan_files
from upscaler.files import atomic_write, escape_unencodable, printable
from upscaler.formats import FileFormat, ImageEncoding
from upscaler.modal import pricing
from upscaler.modal.config import GPU_CORES, GPU_MEMORY_MIB, arguments_of
from upscaler.modal.payload import FileResult
from upscaler.models import MODELS, UpscalingModel

AT_ONCE: Final = 100
"""How many images are in flight at the same time; a large folder does not fit into memory."""

INTERRUPTED: Final = 128 + 2
"""The exit status of an interrupted process, by the convention of shells: 128 + SIGINT."""

APP_FILE: Final = "modal_app.py"
SERVICE: Final = "octo-upscaler"
"""The name of the deployed app."""

Method = modal.Function[..., Any, Any]


@dataclass
class BatchResult:
    """The results of a batch so far; `seconds` are containers' seconds of work, by device."""

    written: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def check_command() -> None:
    """Exit if Modal's command is about to run `main` with options that are invalid or ask for help.

    It is called when the app is imported. Modal would first connect and start the app, and would
    answer --help with its own options.
    """
    words = arguments_of(APP_FILE, "main")
    if words is not None:
        parser().parse_args(words)


def main(arguments: Sequence[str], own: Callable[[], Any], app: modal.App) -> None:
    """Upscale the files in `arguments` with the class `Upscaler` of the deployed service.

    Where it is not deployed, or with --ephemeral, with the class `own` of `app`, which is run.

    Exits with status 1 if an image failed, 2 if the command is invalid, and 130 if interrupted.
    """
    escape_unencodable()
    args = parser().parse_args(arguments)
    try:
        plan = plan_files(args.image, args.output, args.encoding, recursive=args.recursive)
    except (FileRefused, OSError) as error:
        parser().error(printable(str(error)))
    batch = BatchResult(failures=[printable(str(refusal)) for refusal in plan.refused])
    remakes = args.again or not plan.continues
    jobs = [job for job in plan.jobs if remakes or not job.is_current()]
    if skipped := len(plan.jobs) - len(jobs):
        _log(
            f"skipping {skipped} of {len(plan.jobs)}: the results exist and are not older (use "
            "--again to redo them)"
        )
    began_s = time.monotonic()
    interrupted = False
    if jobs:
        with _upscaler(own, app, ephemeral=args.ephemeral) as upscale:
            try:
                asyncio.run(_upscale_all(jobs, _fields(args, plan.encoding), upscale, batch))
            except KeyboardInterrupt:  # here, as `App.run` would suppress it
                interrupted = True
    _log(_summary(batch, time.monotonic() - began_s))
    if plan.passed_over:
        _log(plan.passed_over_text())
    if interrupted:
        _log("interrupted: run the same command again to continue")
        sys.exit(INTERRUPTED)
    if batch.failures:
        total = len(plan.jobs) + len(plan.refused)
        _log("\n  ".join([f"{len(batch.failures)} of {total} failed:", *batch.failures]))
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """The parser of the options after `modal run modal_app.py`."""
    root = argparse.ArgumentParser(
        prog="modal run modal_app.py",
        description="Upscale images (PNG, JPEG, WebP) with sides of "
        f"{MIN_INPUT_PX} to {MAX_INPUT_PX} pixels to at most {MAX_OUTPUT_PX}. By default an image "
        "is upscaled by the model's own scale. Of several images, those whose result exists and "
        "is not older are skipped, so that an interrupted batch can be continued.",
    )
    add = root.add_argument
    add("--image", nargs="+", action="extend", required=True, metavar="INPUT",
        help="images, folders of images, and globs")  # fmt: skip
    add("--output", metavar="FILE|DIR",
        help="a name with a suffix is a file, one that ends with / is a folder; default: the "
        "folder `upscaled`")  # fmt: skip
    add("--recursive", action="store_true",
        help="take the folders in folders too, except hidden ones and links, and keep them in "
        "the output")  # fmt: skip
    size = root.add_mutually_exclusive_group()
    size.add_argument(
        "--scale", type=_positive, metavar="F", help="factor for both sides, such as 2.5"
    )
    size.add_argument("--width", type=_pixels, metavar="N", help="width of the result in pixels")
    size.add_argument("--height", type=_pixels, metavar="N", help="height of the result in pixels")
    add("--model", choices=[*map(str, UpscalingModel)], default=str(UpscalingModel.X4_PLUS),
        metavar="NAME", help=f"one of: {', '.join(UpscalingModel)}")  # fmt: skip
    add("--encoding", type=ImageEncoding, choices=[*ImageEncoding], metavar="NAME",
        help=f"one of: {', '.join(ImageEncoding)}; default: the one that --output's name says, "
        f"or else {ImageEncoding.PNG}")  # fmt: skip
    add("--face-enhance", action="store_true", help="restore faces by GFPGAN")
    add("--again", action="store_true", help="upscale again what has a result already")
    add("--ephemeral", action="store_true",
        help="start containers with the code and settings of this machine, which end with the "
        f"command, even if {SERVICE} is deployed")  # fmt: skip
    return root


@contextmanager
def _upscaler(own: Callable[[], Any], app: modal.App, *, ephemeral: bool) -> Iterator[Method]:
    """The method `upscale` (see `Worker.upscale`) for the block.

    The deployed one starts from its snapshot, if no container is up already.
    """
    deployed = modal.Cls.from_name(SERVICE, "Upscaler")
    if not ephemeral:
        try:
            deployed.hydrate()
        except modal.exception.NotFoundError:
            _log(f"{SERVICE} is not deployed: containers are started for this command alone")
            ephemeral = True
    if ephemeral:
        with app.run():
            yield own().upscale
    else:
        _log(f"using the deployed {SERVICE}, with its settings")
        yield deployed().upscale


async def _upscale_all(
    jobs: Sequence[FileJob], fields: dict[str, object], upscale: Method, batch: BatchResult
) -> None:
    """Send all files to containers and write each result when it arrives, in any order.

    Modal shows the progress on a terminal.
    """
    pending = dict(enumerate(jobs))
    slots = asyncio.Semaphore(AT_ONCE)
    # The reasons of failures that Modal does not assign to a file.
    lost: list[str] = []

    async def sources() -> AsyncIterator[tuple[int, bytes, dict[str, object]]]:
        for key, job in enumerate(jobs):
            await slots.acquire()
            try:
                data = files.read_image_file(job.source)
            except FileRefused as error:
                slots.release()
                batch.failures.append(_error_text(job.source, error))
                del pending[key]
            else:
                yield key, data, fields

    try:
        results = upscale.starmap.aio(sources(), order_outputs=False, return_exceptions=True)
        async for result in results:
            slots.release()
            # The container died or timed out, and Modal does not say with which file.
            if isinstance(result, BaseException):
                lost.append(f"{type(result).__name__}: {result}")
            else:
                _write(pending.pop(result["key"]), result, batch)
    except modal.exception.Error as error:
        lost.append(f"cannot reach Modal: {error}")
    reasons = "; ".join(sorted(set(lost)))
    batch.failures += [f"{printable(str(job.source))}: {reasons}" for job in pending.values()]


def _write(job: FileJob, result: FileResult, batch: BatchResult) -> None:
    """Write a result and print its line, or record the failure."""
    error = result["error"]
    if error is None:
        try:
            with atomic_write(job.target) as file:
                file.writelines(result["file"])
        except OSError as failure:
            error = _error_text(job.target, failure)
    if error is not None:
        batch.failures.append(f"{printable(str(job.source))}: {printable(error)}")
        return
    batch.written += 1
    device, seconds = result["device"], result["seconds"]
    batch.seconds[device] = batch.seconds.get(device, 0.0) + seconds
    width, height = result["size"]
    facts = f"{width}x{height}, {seconds:.2f} s on {device}"
    sys.stdout.write(printable(f"{job.source} -> {job.target} ({facts})") + "\n")
    sys.stdout.flush()


def _log(text: str) -> None:
    """Print to standard error; Modal's progress bar makes room for the line."""
    sys.stderr.write(f"{text}\n")


def _fields(args: argparse.Namespace, encoding: FileFormat) -> dict[str, object]:
    """The fields of each image's request, without the image itself."""
    fields: dict[str, object] = {
        "scale": args.scale,
        "output_image_width": args.width,
        "output_image_height": args.height,
    }
    if all(value is None for value in fields.values()):
        fields["scale"] = MODELS[UpscalingModel(args.model)].scale
    if args.face_enhance:
        fields["face_enhance"] = True
    return {**fields, "model": args.model, "output_image_encoding": encoding.value}


def _summary(batch: BatchResult, wall_s: float) -> str:
    """The time and cost of the batch, compared with OctoAI's price."""
    if not batch.written:
        return "no image was upscaled"
    noun = "image" if batch.written == 1 else "images"
    lines = [f"{batch.written} {noun} in {wall_s:.1f} s. Container time:"]
    total_usd: float | None = 0.0
    for device, seconds in batch.seconds.items():
        rate = pricing.container_usd_per_s(device, GPU_CORES, GPU_MEMORY_MIB / 1024)
        usd = None if rate is None else rate * seconds
        # One unknown price makes the total unknown.
        total_usd = None if usd is None or total_usd is None else total_usd + usd
        cost = "price unknown" if usd is None else f"${usd:.5f}"
        lines.append(f"  {seconds:.1f} s on {device}: {cost}")
    octoai_usd = batch.written * pricing.OCTOAI_USD
    ratio = f", {octoai_usd / total_usd:.1f} times as much" if total_usd else ""
    lines.append(f"  OctoAI charged ${octoai_usd:.3f}{ratio}")
    lines.append("  Modal also charges for starts and idle seconds: see docs/cost.md")
    return "\n".join(lines)


def _error_text(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return printable(f"{path}: {error.strerror}")
    return printable(str(error))


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("must be a number above 0")
    return number


def _pixels(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number above 0")
    return int(text)
