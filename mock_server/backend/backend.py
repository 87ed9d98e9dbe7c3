"""What makes the mock's pictures, and wrong ones when it is told to."""

from dataclasses import replace

from mock_server.backend.nearest import MockEnlarger
from mock_server.faults.fault import current
from upscaler.formats import ImageEncoding
from upscaler.imaging.encode import SMALL
from upscaler.service.backend import LocalBackend, StageTimer, UpscaleJob, UpscaleResult

OTHER: dict[ImageEncoding, ImageEncoding] = {
    ImageEncoding.PNG: ImageEncoding.JPEG,
    ImageEncoding.JPEG: ImageEncoding.PNG,
}


class MockBackend(LocalBackend):
    """A backend without a network, whose pictures may be of a wrong size or encoding.

    Everything that is said about them is what was asked for: they are wrong and not told of so.
    JPEGs are smaller than the service's, and encoded in less time.
    """

    def __init__(self) -> None:
        super().__init__(MockEnlarger(), SMALL)

    async def make(self, task: UpscaleJob, timer: StageTimer) -> UpscaleResult:
        made = await super().make(_wrong(task), timer)
        return replace(made, size=task.size, encoding=task.encoding)


def _wrong(task: UpscaleJob) -> UpscaleJob:
    """The task that is carried out in place of `task`, by the fault of its request."""
    words = current.get().words
    if "wrong-size" in words:
        width, height = task.size
        task = replace(task, size=(width - 1 if width > 1 else 2, height))
    if "wrong-encoding" in words:
        task = replace(task, encoding=OTHER[task.encoding])
    return task
