"""The backend of the mock, whose images are wrong when a fault asks for it."""

from dataclasses import replace
from typing import Final

from mock_server.backend.faces import FaceCount
from mock_server.backend.nearest import NearestUpscaler
from mock_server.faults.fault import current
from upscaler.formats import ImageEncoding
from upscaler.imaging.jpeg_writer import SMALL
from upscaler.service.backend import LocalBackend, StageTimer, UpscaleJob, UpscaleResult

OTHER_ENCODING: Final = {
    right: next(encoding for encoding in ImageEncoding if encoding is not right)
    for right in ImageEncoding
}
"""The encoding that is wrong for each: a JPEG's is PNG, and all others' JPEG."""


class MockBackend(LocalBackend):
    """A backend without a network, whose images may have a wrong size or encoding.

    Its results still say the size and the encoding that were asked for, as a buggy server would.
    JPEGs are smaller than the service's, and faster to encode. Pictures have so many `faces`, and
    None is a service that restores none.
    """

    def __init__(self, faces: FaceCount | None = None) -> None:
        super().__init__(NearestUpscaler(faces), jpeg=SMALL)

    async def make(self, task: UpscaleJob, timer: StageTimer) -> UpscaleResult:
        result = await super().make(apply_fault(task), timer)
        # The response's headers are made of these two.
        return replace(result, size=task.size, encoding=task.encoding)


def apply_fault(job: UpscaleJob) -> UpscaleJob:
    """Return the job to run instead of `job`, by the fault of its request."""
    # A context variable, as the service's own code between the two knows nothing of faults.
    flags = current.get().flags
    if "wrong-size" in flags:
        width, height = job.size
        # No image is 0 pixels wide, so one of a single pixel gets wider instead.
        job = replace(job, size=(width - 1 if width > 1 else 2, height))
    if "wrong-encoding" in flags:
        job = replace(job, encoding=OTHER_ENCODING[job.encoding])
    return job
