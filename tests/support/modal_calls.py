"""Jobs that containers are called for, and how such a call can end."""

import threading
from collections.abc import Callable
from typing import Any

from grpclib import GRPCError, Status

from tests.support.modal_control_plane import STATUS, Plane, make
from tests.support.paths import PHOTO
from tests.support.raw_http import PATIENCE_S
from upscaler.api.sizes import Size
from upscaler.errors import (
    FieldError,
    InvalidRequest,
    OutOfMemory,
    RemoteFailed,
    WeightsUnavailable,
)
from upscaler.formats import ImageEncoding
from upscaler.imaging.decode import read_header
from upscaler.modal.payload import ResultPayload
from upscaler.models import UpscalingModel
from upscaler.service.backend import UpscaleJob

TASK = UpscaleJob(
    PHOTO.read_bytes(),
    read_header(PHOTO.read_bytes()).pixels(),
    UpscalingModel.X4_V3,
    (608, 512),
    ImageEncoding.JPEG,
    as_file=True,
)
LOST = GRPCError(Status.UNAVAILABLE, "nobody is there")
NO_ANSWERS = [
    Status.UNAVAILABLE,
    Status.UNAUTHENTICATED,
    Status.PERMISSION_DENIED,
    Status.RESOURCE_EXHAUSTED,
    Status.NOT_FOUND,
    Status.UNIMPLEMENTED,
]
ENDS = [
    (STATUS.GENERIC_STATUS_INTERNAL_FAILURE, "the container was lost"),
    (STATUS.GENERIC_STATUS_TIMEOUT, "the input took more than 600 s"),
    (STATUS.GENERIC_STATUS_INIT_FAILURE, "the container did not start"),
    (STATUS.GENERIC_STATUS_TERMINATED, "the container was stopped"),
]
RAISED = [
    InvalidRequest(FieldError(("body", "init_image"), "is no picture", "image_unreadable")),
    OutOfMemory("not even in bands"),
    WeightsUnavailable("/weights/it.pth is damaged"),
    RemoteFailed("ZeroDivisionError: division by zero"),
]


def sent(task: UpscaleJob) -> tuple[bytes, str, Size, str, bool]:
    """In the order that `Worker.make` has them."""
    return task.source, task.model.value, task.size, task.encoding.value, task.as_file


def held(plane: Plane) -> tuple[threading.Event, threading.Event]:
    """Let containers hold their pictures: set when one has come, and to be set to let them go."""
    working, go_on = threading.Event(), threading.Event()

    def waiting(*task: Any) -> ResultPayload:
        working.set()
        go_on.wait(PATIENCE_S)
        return make(*task)

    plane.work["make"] = waiting
    return working, go_on


def raising(error: Exception) -> Callable[..., Any]:
    def work(*_: object) -> None:
        raise error

    return work
