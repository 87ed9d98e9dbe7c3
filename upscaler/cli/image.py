"""`upscaler image`: upscale files, folders and globs."""

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from upscaler import files
from upscaler.api.request import validate_request
from upscaler.cli import sizes
from upscaler.cli.options import settings_from
from upscaler.cli.output import error_text, fail, progress_bar
from upscaler.errors import FileRefused
from upscaler.files import atomic_write
from upscaler.formats import FILE_FORMATS, FileFormat
from upscaler.imaging.comparison import BeforeAfter
from upscaler.imaging.other_writers import write_image
from upscaler.models import MODELS

if TYPE_CHECKING:
    from upscaler.engine.pool import EnginePool


def run(args: argparse.Namespace) -> int:
    """Upscale images. One that fails does not stop the others; failures are listed at the end."""
    batch = files.plan_files(
        args.inputs,
        args.output,
        args.encoding,
        before_after=args.before_after,
        formats=FILE_FORMATS.values(),
    )
    fields: dict[str, object] = {
        "scale": args.scale,
        "output_image_width": args.width,
        "output_image_height": args.height,
        "model": args.model,
    }
    if args.scale is args.width is args.height is None:
        fields["scale"] = MODELS[args.model].scale
    # With a stand-in for the image, so that a wrong option is reported before any file is read.
    validate_request(fields | {"init_image": b"-"})

    from upscaler.engine.pool import EnginePool

    engines = EnginePool(settings_from(args))
    failures = [_report_failure(args, refusal.path, refusal) for refusal in batch.refused]
    for job in batch.jobs:
        try:
            result = _upscale(args, job, batch.encoding, fields, engines)
        except Exception as error:  # any error: one image must not stop the others
            failures.append(_report_failure(args, str(job.source), error))
            continue
        # Flushed, so that a reader of a pipe sees each image when it is done.
        if args.json:
            print(json.dumps(result), flush=True)
            continue
        line = "{input} -> {output} ({width}x{height}, {model}, {seconds:.1f} s)"
        print(line.format_map(result), flush=True)
        if job.comparison:
            print(f"  before and after: {job.comparison}", flush=True)
    if failures:
        total = len(batch.jobs) + len(batch.refused)
        return fail("\n  ".join([f"{len(failures)} of {total} failed:", *failures]), 1)
    return 0


def _upscale(
    args: argparse.Namespace,
    job: files.FileJob,
    encoding: FileFormat,
    fields: dict[str, object],
    engines: "EnginePool",
) -> dict[str, Any]:
    """Upscale one image; return the object that `--json` prints. Raises whatever goes wrong."""
    started_s = time.perf_counter()
    request = validate_request(fields | {"init_image": b"-"})
    memory = engines.settings.memory
    data = files.read_image_file(job.source, memory or engines.free_bytes() // 2)
    image = sizes.read_picture(data, memory, engines)
    size = sizes.wanted_size(request, image.size, encoding)
    spool = sizes.spool_folder(job.target)
    engines.plan(request.model, image.size, image.channels, spool)  # refuse before decoding
    pixels = image.pixels()
    # Loaded after the image is decoded, so that a broken one does not cause a download.
    with progress_bar(f"fetching {request.model}", "B", quiet=args.quiet) as progress:
        engines.load(request.model, progress)
    needs = sizes.forecast(image, size, request.model, encoding, spool=spool, engines=engines)
    note = image.note
    del data, image  # the file is not needed any more, and may be large
    for line in filter(None, (note, str(needs))):
        if not args.quiet:
            print(f"{job.source}: {line}", file=sys.stderr, flush=True)
    comparison = BeforeAfter(pixels, size) if job.comparison else None
    with progress_bar(job.source.name, "row", quiet=args.quiet) as progress:
        strips = engines.upscale(pixels, request.model, size, progress, spool)
        strips = comparison.watch(strips) if comparison else strips
        # Written while it is upscaled: the whole result is never in memory.
        with atomic_write(job.target) as file:
            write_image(file, strips, size[1], encoding)
    if comparison and job.comparison:
        sheet = comparison.sheet()
        with atomic_write(job.comparison) as file:
            write_image(file, [sheet], len(sheet), encoding)
    result: dict[str, Any] = {
        "input": str(job.source),
        "output": str(job.target),
        "width": size[0],
        "height": size[1],
        "model": request.model,
        "seconds": round(time.perf_counter() - started_s, 3),
    }
    if str(needs):
        result["forecast"] = needs.as_dict()
    if note:
        result["note"] = note
    if job.comparison:
        result["before_after"] = str(job.comparison)
    return result


def _report_failure(args: argparse.Namespace, path: str, error: Exception) -> str:
    """Return the failure of one image as a line for the summary; with `--json`, print it too."""
    text = error_text(error)
    if args.json:
        print(json.dumps({"input": path, "error": text}), flush=True)
    # A FileRefused names its path itself.
    return text if isinstance(error, FileRefused) else f"{path}: {text}"
