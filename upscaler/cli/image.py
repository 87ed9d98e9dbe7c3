"""`upscaler image`: upscale files, folders and globs."""

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from upscaler.api.request import validate_request
from upscaler.api.sizes import output_size
from upscaler.cli.batch import BatchRun
from upscaler.cli.options import settings_from
from upscaler.cli.output import STDOUT, open_result, progress_bar
from upscaler.errors import FileRefused
from upscaler.file_inputs import STDIO
from upscaler.file_jobs import Batch, FileJob, plan_files
from upscaler.imaging import comparison, decode, encode, metadata
from upscaler.models import MODELS

if TYPE_CHECKING:
    from upscaler.engine.pool import EnginePool


def run(args: argparse.Namespace) -> int:
    """Upscale images. One that fails does not stop the others; failures are listed at the end."""
    batch = plan_files(
        args.inputs,
        args.output,
        args.encoding,
        before_after=args.before_after,
        recursive=args.recursive,
        pipes=True,
    )
    _check_stdout(batch, as_json=args.json)
    fields: dict[str, object] = {
        "scale": args.scale,
        "output_image_width": args.width,
        "output_image_height": args.height,
        "model": args.model,
        "output_image_encoding": batch.encoding,
    }
    if args.scale is args.width is args.height is None:
        fields["scale"] = MODELS[args.model].scale
    # With a stand-in for the image, so that a wrong option is reported before any file is read.
    validate_request(fields | {"init_image": b"-"})

    from upscaler.engine.pool import EnginePool

    engines = EnginePool(settings_from(args))

    def upscale(job: FileJob) -> dict[str, Any]:
        return _upscale(args, job, fields, engines)

    return BatchRun(batch, fields, upscale, as_json=args.json, again=args.again).run()


def _check_stdout(batch: Batch, *, as_json: bool) -> None:
    """Raise FileRefused if an image is to go to standard output and cannot."""
    if all(job.target != STDIO for job in batch.jobs):
        return
    if as_json:
        raise FileRefused(STDOUT, "it has the image, and no room for --json: use -o FILE")
    if sys.stdout is None or sys.stdout.isatty():
        raise FileRefused(STDOUT, "it is a terminal or closed: redirect it, or use -o FILE")


def _upscale(
    args: argparse.Namespace, job: FileJob, fields: dict[str, object], engines: "EnginePool"
) -> dict[str, Any]:
    """Upscale one image; return the object that `--json` prints. Raises whatever goes wrong."""
    started_s = time.perf_counter()
    request = validate_request(fields | {"init_image": job.read()})
    data = request.init_image or b""
    image = decode.read_header(data)
    kept = metadata.read_metadata(data) if args.keep_metadata else metadata.NO_METADATA
    size = output_size(request, image.size)
    pixels = image.pixels()
    # Loaded after the image is decoded, so that a broken one does not cause a download.
    with progress_bar(f"fetching {request.model}", "B", quiet=args.quiet) as progress:
        engines.load(request.model, progress)
    encoding = request.output_image_encoding
    with progress_bar(job.source.name, "row", quiet=args.quiet) as progress:
        strips = engines.upscale(pixels, request.model, size, progress)
        if job.comparison:
            # The comparison needs the whole result, so only here it is held in memory.
            whole = np.concatenate(list(strips))
            sheet = comparison.before_after(pixels, whole)
            with open_result(job.comparison) as file:
                file.writelines(encode.encode_strips([sheet], len(sheet), encoding))
            strips = iter([whole])
        # Written while it is upscaled: the whole result is never in memory.
        with open_result(job.target) as file:
            file.writelines(encode.encode_strips(strips, size[1], encoding, metadata=kept))
    result: dict[str, Any] = {
        "input": str(job.source),
        "output": str(job.target),
        "width": size[0],
        "height": size[1],
        "model": request.model,
        "seconds": round(time.perf_counter() - started_s, 3),
    }
    if job.comparison:
        result["before_after"] = str(job.comparison)
    return result
