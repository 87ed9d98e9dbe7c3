"""`upscaler image`: upscale files, folders and globs."""

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upscaler.api.request import UpscalingRequest, validate_request
from upscaler.api.sizes import Size
from upscaler.cli import sizes
from upscaler.cli.batch import BatchRun, check_stdout
from upscaler.cli.options import fields_from, settings_from
from upscaler.cli.output import note, open_result, progress_bar
from upscaler.errors import FileRefused
from upscaler.file_jobs import FileJob, plan_files
from upscaler.files import printable
from upscaler.formats import FILE_FORMATS, READ_SUFFIXES, FileFormat, ImageEncoding
from upscaler.imaging.comparison import BeforeAfter
from upscaler.imaging.decode import EncodedImage
from upscaler.imaging.metadata import NO_METADATA, Metadata, read_metadata
from upscaler.imaging.other_formats import OtherImage
from upscaler.imaging.other_writers import write_image
from upscaler.imaging.pixels import Pixels

if TYPE_CHECKING:
    from upscaler.engine.pool import EnginePool


def run(args: argparse.Namespace) -> int:
    """Upscale images. One that fails does not stop the others; failures are listed at the end."""
    if args.remote:
        from upscaler.cli import remote

        return remote.run(args)
    batch = plan_files(
        args.inputs,
        args.output,
        args.encoding,
        before_after=args.before_after,
        recursive=args.recursive,
        pipes=True,
        suffixes=READ_SUFFIXES,
        formats=FILE_FORMATS.values(),
    )
    check_stdout(batch, as_json=args.json)
    if args.keep_metadata and not isinstance(batch.encoding, ImageEncoding):
        msg = f"--keep-metadata writes to {' and '.join(ImageEncoding)}, not to {batch.encoding}"
        raise FileRefused(args.output or batch.encoding, msg)
    # With a stand-in for the image: a wrong option is reported before any file is read.
    request = validate_request(fields_from(args) | {"init_image": b"-"})

    from upscaler.engine.pool import EnginePool

    work = ImageWork(args, request, batch.encoding, EnginePool(settings_from(args)))
    return BatchRun(batch, work.measure, as_json=args.json, again=args.again).run(work.upscale)


@dataclass(frozen=True)
class ImageWork:
    """What is done with each image of a batch, as `args` and `request` ask for."""

    args: argparse.Namespace
    request: UpscalingRequest
    encoding: FileFormat
    engines: "EnginePool"

    def measure(self, job: FileJob) -> Size:
        """The size that the result should have. Raises what `upscale` raises."""
        return self._read(job)[2]

    def upscale(self, job: FileJob) -> dict[str, Any]:
        """Upscale one image; return what `--json` prints. Raises whatever goes wrong."""
        started_s = time.perf_counter()
        model, engines = self.request.model, self.engines
        data, image, size = self._read(job)
        kept = read_metadata(data) if self.args.keep_metadata else NO_METADATA
        notes = [image.note] if image.note else []
        if self.args.keep_metadata and isinstance(image, OtherImage):
            notes.append("its metadata is not carried over: that of PNG, JPEG and WebP is")
        spool = sizes.spool_folder(job.target)
        engines.plan(model, image.size, image.channels, spool)  # refuse before decoding
        pixels = image.pixels()
        # Loaded after the image is decoded, so that a broken one does not cause a download.
        with progress_bar(f"fetching {model}", "B", quiet=self.args.quiet) as progress:
            engines.load(model, progress)
        if self.args.faces:
            with progress_bar("fetching what faces need", "B", quiet=self.args.quiet) as progress:
                engines.load_faces(progress)
        needs = sizes.forecast(
            image,
            size,
            model,
            self.encoding,
            spool=spool,
            engines=engines,
            faces=self.args.faces,
        )
        del data, image  # the file is not needed any more, and may be large
        for line in filter(None, (*notes, str(needs))):
            if not self.args.quiet:
                note(printable(f"{job.source}: {line}"))
        faces = self._write(job, pixels, size, kept, spool)
        result: dict[str, Any] = {
            "input": str(job.source),
            "output": str(job.target),
            "width": size[0],
            "height": size[1],
            "model": model,
            "seconds": round(time.perf_counter() - started_s, 3),
        }
        if faces is not None:
            result["faces"] = faces
        if str(needs):
            result["forecast"] = needs.as_dict()
        if notes:
            result["note"] = "; ".join(notes)
        if job.comparison:
            result["before_after"] = str(job.comparison)
        return result

    def _read(self, job: FileJob) -> tuple[bytes, EncodedImage | OtherImage, Size]:
        """The file, the image of which only the header is read, and the size of its result."""
        memory = self.engines.settings.memory
        data = job.read(memory or self.engines.free_bytes() // 2)
        image = sizes.read_picture(data, memory, self.engines)
        return data, image, sizes.wanted_size(self.request, image.size, self.encoding)

    def _write(
        self, job: FileJob, pixels: Pixels, size: Size, metadata: Metadata, spool: Path
    ) -> int | None:
        """Write the result, and the comparison if one is wanted, while it is upscaled.

        Returns how many faces were restored, None if that was not asked for.
        """
        faces = None
        comparison = BeforeAfter(pixels, size) if job.comparison else None
        with progress_bar(job.source.name, "row", quiet=self.args.quiet) as progress:
            strips: Iterable[Pixels]
            strips = self.engines.upscale(pixels, self.request.model, size, progress, spool)
            if self.args.faces:
                strength = self.args.face_strength
                faces, strips = self.engines.enhance_faces(pixels, size, strips, strength=strength)
            strips = comparison.watch(strips) if comparison else strips
            with open_result(job.target) as file:
                write_image(file, strips, size[1], self.encoding, metadata)
        if comparison and job.comparison:
            sheet = comparison.sheet()
            with open_result(job.comparison) as file:
                write_image(file, [sheet], len(sheet), self.encoding)
        return faces
