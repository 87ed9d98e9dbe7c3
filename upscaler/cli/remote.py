"""`upscaler image --remote`: the same command, with the work done by a service elsewhere."""

import argparse
import asyncio
import io
import time
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from upscaler.api.request import UpscalingRequest, validate_request
from upscaler.api.sizes import Size, output_size
from upscaler.cli.batch import BatchRun, check_stdout
from upscaler.cli.options import fields_from
from upscaler.cli.output import open_result, progress_bar
from upscaler.cli.remote_service import RemoteService
from upscaler.errors import FileRefused, RemoteFailed
from upscaler.file_jobs import FileJob, plan_files
from upscaler.formats import ImageEncoding
from upscaler.imaging import decode
from upscaler.settings import Settings

AT_ONCE: Final = 2
"""How many images are on their way: one is sent while another is upscaled."""
LOCAL: Final = {
    "device": None,
    "precision": None,
    "memory": None,
    "before_after": False,
    "keep_metadata": False,
    "face_strength": 1.0,
}
"""The options that only this machine can follow, with their defaults."""


def run(args: argparse.Namespace) -> int:
    """Let a service upscale images; files, messages and exit status are those of `image.run`."""
    given = [name for name, default in LOCAL.items() if getattr(args, name) != default]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise FileRefused("--remote", f"a service does not take {names}: leave that out")
    if args.encoding is not None and not isinstance(args.encoding, ImageEncoding):
        formats = " and ".join(ImageEncoding)
        raise FileRefused("--remote", f"a service writes {formats}, not {args.encoding}")
    token = args.token or next(iter(Settings.from_environment().tokens), None)
    if token is None:
        raise FileRefused("--remote", "the service wants a token: set UPSCALER_TOKEN, or --token")
    batch = plan_files(
        args.inputs, args.output, args.encoding, recursive=args.recursive, pipes=True
    )
    check_stdout(batch, as_json=args.json)
    fields = fields_from(args) | {"output_image_encoding": batch.encoding.value}
    if args.faces:
        fields["face_enhance"] = True
    # With a stand-in for the image: a wrong option is reported before any file is read.
    work = RemoteWork(args, fields, validate_request(fields | {"init_image": b"-"}), token)
    todo = BatchRun(batch, work.measure, as_json=args.json, again=args.again)
    return todo.run_by(lambda: asyncio.run(work.upscale_all(todo)))


@dataclass(frozen=True)
class RemoteWork:
    """What a service is asked for with each image of a batch."""

    args: argparse.Namespace
    fields: dict[str, Any]
    request: UpscalingRequest
    token: str

    def measure(self, job: FileJob) -> Size:
        """The size that the result should have. Raises what the service would refuse it for."""
        return self._read(job)[1]

    async def upscale_all(self, todo: BatchRun) -> None:
        """Upscale the images of a batch, AT_ONCE of them at the same time."""
        jobs = iter(todo.batch.jobs)

        async def work(service: RemoteService) -> None:
            while not todo.is_stopped and (job := next(jobs, None)):
                with todo.attempt(job):
                    if not todo.leaves(job):
                        todo.report(job, await self._upscale(job, service))

        async with RemoteService(self.args.remote, self.token) as service:
            await asyncio.gather(*(work(service) for _ in range(AT_ONCE)))
        if todo.is_stopped:
            todo.stop(list(jobs))

    async def _upscale(self, job: FileJob, service: RemoteService) -> dict[str, Any]:
        began_s = time.perf_counter()
        data, size = self._read(job)
        with progress_bar(job.source.name, "row", quiet=self.args.quiet) as progress:
            file = await service.upscale(self.fields, data, progress)
            self._check(file, size)
            progress(size[1], size[1])
        with open_result(job.target) as target:
            target.write(file)
        return {
            "input": str(job.source),
            "output": str(job.target),
            "width": size[0],
            "height": size[1],
            "model": self.request.model,
            "seconds": round(time.perf_counter() - began_s, 3),
        }

    def _read(self, job: FileJob) -> tuple[bytes, Size]:
        data = job.read()
        return data, output_size(self.request, decode.read_header(data).size)

    def _check(self, file: bytes, size: Size) -> None:
        """Raise RemoteFailed unless a file is what was asked for, by its header."""
        kind = self.request.output_image_encoding.upper()
        try:
            with Image.open(io.BytesIO(file), formats=[kind]) as image:
                found = image.size
        except Exception as error:
            raise RemoteFailed(f"the service returned no {kind}") from error
        if found != size:
            width, height = found
            raise RemoteFailed(f"the service returned an image of {width}x{height} pixels")
