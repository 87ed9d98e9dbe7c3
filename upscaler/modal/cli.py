"""Images from a terminal through GPU containers: `modal run modal_app.py --image photos/`.

Needs nothing but modal and what modal brings: what a file holds, and whether a size is one that it
can have, is found out in the container.
"""

import argparse
import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import modal

from upscaler import files
from upscaler.errors import FileRefused
from upscaler.files import atomic_write
from upscaler.formats import ImageEncoding
from upscaler.modal import pricing
from upscaler.modal.config import GPU_CORES, GPU_MEMORY_MIB
from upscaler.modal.payload import FileResult
from upscaler.models import MODELS, UpscalingModel

AT_ONCE: Final = 100
"""How many images are on their way at the same time: a large folder does not fit into memory."""

INTERRUPTED: Final = 128 + 2
"""The status of a process that a signal has ended, as shells have it: 128 and SIGINT's number."""

Method = modal.Function[..., Any, Any]


@dataclass
class Tally:
    """What became of a batch so far. `seconds` are of work, by the device that did it."""

    made: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def main(arguments: Sequence[str], upscale: Method) -> None:
    """Upscale what `arguments` name by `upscale`, which takes a key, a file and fields.

    Ends the process with status 1 if an image failed, 2 if the command is wrong, and 130 if it was
    interrupted.
    """
    args = parser().parse_args(arguments)
    try:
        todo = files.plan_files(args.image, args.output, args.encoding)
    except FileRefused as error:
        parser().error(str(error))
    tally = Tally(failures=[str(refusal) for refusal in todo.refused])
    jobs = [job for job in todo.jobs if args.again or not job.target.exists()]
    if skipped := len(todo.jobs) - len(jobs):
        _tell(f"{skipped} of {len(todo.jobs)} are there already, and are left as they are")
    began_s = time.monotonic()
    interrupted = False
    try:
        asyncio.run(_carry_out(jobs, _fields(args, todo.encoding), upscale, tally))
    except KeyboardInterrupt:
        interrupted = True
    _tell(_summary(tally, time.monotonic() - began_s))
    if interrupted:
        _tell("interrupted: the same command makes what is missing")
        sys.exit(INTERRUPTED)
    if tally.failures:
        total = len(todo.jobs) + len(todo.refused)
        _tell("\n  ".join([f"{len(tally.failures)} of {total} failed:", *tally.failures]))
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """What can be said behind `modal run modal_app.py`."""
    whole = argparse.ArgumentParser(
        prog="modal run modal_app.py",
        description="Upscale images (PNG, JPEG, WebP) of 256 to 2048 pixels a side to at most "
        "8192. Without a size, an image becomes as large as the model makes it. A result that is "
        "there already is left as it is, so a batch that was interrupted can be taken up again.",
    )
    add = whole.add_argument
    add("--image", nargs="+", action="extend", required=True, metavar="INPUT",
        help="images, folders of images, and globs")  # fmt: skip
    add("--output", type=Path, metavar="FILE|DIR", help="default: the folder `upscaled`")
    size = whole.add_mutually_exclusive_group()
    size.add_argument("--scale", type=_positive, metavar="F", help="how many times longer")
    size.add_argument("--width", type=_pixels, metavar="N", help="width of the result in pixels")
    size.add_argument("--height", type=_pixels, metavar="N", help="height of the result in pixels")
    add("--model", choices=[*map(str, UpscalingModel)], default=str(UpscalingModel.X4_PLUS),
        metavar="NAME", help=f"one of: {', '.join(UpscalingModel)}")  # fmt: skip
    add("--encoding", type=ImageEncoding, choices=[*ImageEncoding], metavar="NAME",
        help="png (default) or jpeg")  # fmt: skip
    add("--again", action="store_true", help="make anew what is there already")
    return whole


async def _carry_out(
    jobs: Sequence[files.FileJob], fields: dict[str, object], upscale: Method, tally: Tally
) -> None:
    """Send all files out and write what comes back, in the order in which it does.

    Modal shows how far that is on a terminal.
    """
    waiting = dict(enumerate(jobs))
    room = asyncio.Semaphore(AT_ONCE)
    lost: list[str] = []

    async def sources() -> AsyncIterator[tuple[int, bytes, dict[str, object]]]:
        for key, job in enumerate(jobs):
            await room.acquire()
            try:
                data = files.read_image_file(job.source)
            except FileRefused as error:
                room.release()
                tally.failures.append(_in_words(job.source, error))
                del waiting[key]
            else:
                yield key, data, fields

    try:
        outcomes = upscale.starmap.aio(sources(), order_outputs=False, return_exceptions=True)
        async for outcome in outcomes:
            room.release()
            if isinstance(outcome, BaseException):  # of a container: it cannot say for which file
                lost.append(f"{type(outcome).__name__}: {outcome}")
            else:
                _write(waiting.pop(outcome["key"]), outcome, tally)
    except modal.exception.Error as error:
        lost.append(f"Modal cannot be asked: {error}")
    reasons = "; ".join(sorted(set(lost)))
    tally.failures += [f"{job.source}: {reasons}" for job in waiting.values()]


def _write(job: files.FileJob, outcome: FileResult, tally: Tally) -> None:
    """Write a file and tell of it, or take note of the failure."""
    error = outcome["error"]
    if error is None:
        try:
            with atomic_write(job.target) as file:
                file.writelines(outcome["file"])
        except OSError as failure:
            error = _in_words(job.target, failure)
    if error is not None:
        tally.failures.append(f"{job.source}: {error}")
        return
    tally.made += 1
    device, seconds = outcome["device"], outcome["seconds"]
    tally.seconds[device] = tally.seconds.get(device, 0.0) + seconds
    width, height = outcome["size"]
    facts = f"{width}x{height}, {seconds:.2f} s on {device}"
    sys.stdout.write(f"{job.source} -> {job.target} ({facts})\n")
    sys.stdout.flush()


def _tell(text: str) -> None:
    """Say something besides: on a terminal Modal's progress bar makes way for what comes here."""
    sys.stderr.write(f"{text}\n")


def _fields(args: argparse.Namespace, encoding: ImageEncoding) -> dict[str, object]:
    """The request's fields for all images, the image itself apart."""
    fields: dict[str, object] = {
        "scale": args.scale,
        "output_image_width": args.width,
        "output_image_height": args.height,
    }
    if all(value is None for value in fields.values()):
        fields["scale"] = MODELS[UpscalingModel(args.model)].scale
    return {**fields, "model": args.model, "output_image_encoding": encoding.value}


def _summary(tally: Tally, wall_s: float) -> str:
    """What it took, and what that cost beside OctoAI's price."""
    if not tally.made:
        return "nothing was made"
    lines = [f"{tally.made} in {wall_s:.1f} s, of which containers worked:"]
    total_usd: float | None = 0.0
    for device, seconds in tally.seconds.items():
        rate = pricing.container_usd_per_s(device, GPU_CORES, GPU_MEMORY_MIB / 1024)
        usd = None if rate is None else rate * seconds
        total_usd = None if usd is None or total_usd is None else total_usd + usd
        cost = "no price known" if usd is None else f"${usd:.5f}"
        lines.append(f"  {seconds:.1f} s on {device}: {cost}")
    octoai_usd = tally.made * pricing.OCTOAI_USD
    ratio = f", {octoai_usd / total_usd:.1f} times as much" if total_usd else ""
    lines.append(f"  OctoAI took ${octoai_usd:.3f}{ratio}")
    lines.append("  Modal charges starts and idle seconds as well: see docs/cost.md")
    return "\n".join(lines)


def _in_words(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{path}: {error.strerror}"
    return str(error)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("a number above 0")
    return number


def _pixels(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number above 0")
    return int(text)
