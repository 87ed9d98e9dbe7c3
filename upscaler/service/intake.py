"""Turns the requests for images into jobs: gets the image, checks it, and decodes it."""

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar, TypeVarTuple
from urllib.parse import urlsplit

import anyio
from anyio import to_thread
from fastapi import Request

from upscaler.api.request import UpscalingRequest
from upscaler.api.sizes import Size, output_size
from upscaler.errors import ImageError, no_face_model
from upscaler.formats import ImageEncoding
from upscaler.imaging import decode
from upscaler.imaging.decode import EncodedImage
from upscaler.service import responses
from upscaler.service.backend import Backend, StageTimer, UpscaleJob
from upscaler.settings import FaceEnhance, Settings

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

Fetch = Callable[[str, Callable[[int], None]], Awaitable[bytes]]
"""Returns the bytes at a URL; calls the second argument with the number of bytes held so far."""

MAX_DOWNLOADS: Final = 32
"""How many images are downloaded at once; each takes a connection, and sometimes a thread."""


class Opened(NamedTuple):
    """An image of which only the header was read, and the size that it is to get."""

    data: bytes
    image: EncodedImage
    size: Size


class Intake:
    """Makes jobs of requests. It adds what it finds to the facts of the request's log line."""

    def __init__(self, backend: Backend, settings: Settings, fetch: Fetch) -> None:
        self._backend = backend
        self._settings = settings
        self._fetch = fetch
        self._downloads = anyio.CapacityLimiter(MAX_DOWNLOADS)
        # JSON and images are parsed in at most one thread per core: more would not be faster, and
        # each takes several times the memory of its input.
        self.cores = anyio.CapacityLimiter(os.cpu_count() or 1)

    async def open(self, request: Request, wanted: UpscalingRequest, timer: StageTimer) -> Opened:
        """Read the header of a request's image. Raises InvalidRequest, and Busy for its memory."""
        data = await self._image(request, wanted, timer)
        with timer.stage("decode"), _name_field(wanted.image_field):
            image = await self.in_thread(decode.read_header, data)
        request.state.facts["input"] = responses.in_pixels(image.size)
        size = output_size(wanted, image.size)
        request.state.facts["output"] = responses.in_pixels(size)
        return Opened(data, image, size)

    async def job(
        self,
        wanted: UpscalingRequest,
        opened: Opened,
        kind: ImageEncoding | None,
        timer: StageTimer,
    ) -> UpscaleJob:
        """Decode the image, for a response in the format `kind`, or in JSON for None."""
        with timer.stage("decode"), _name_field(wanted.image_field):
            pixels = await self.in_thread(opened.image.pixels)
        encoding = kind or wanted.output_image_encoding
        job = UpscaleJob(
            opened.data, pixels, wanted.model, opened.size, encoding, as_file=kind is not None
        )
        if not wanted.face_enhance:
            return job
        optional = self._settings.face_enhance is FaceEnhance.IGNORE
        job = replace(job, face_enhance=True, face_optional=optional)
        return job if self._backend.face_enhance else job.without_faces()

    def check_faces(self, wanted: UpscalingRequest, facts: dict[str, Any]) -> bool:
        """Return whether faces are wanted and can be restored.

        Raises InvalidRequest if they are wanted and cannot, unless that is to be ignored.
        """
        if not wanted.face_enhance or self._backend.face_enhance:
            return wanted.face_enhance
        if self._settings.face_enhance is not FaceEnhance.IGNORE:
            raise no_face_model()
        facts["ignored"] = "face_enhance"
        return False

    async def in_thread(self, work: Callable[[*Args], Result], *args: *Args) -> Result:
        """Call `work` in a thread, one for each core at most."""
        return await to_thread.run_sync(work, *args, limiter=self.cores)

    async def _image(self, request: Request, wanted: UpscalingRequest, timer: StageTimer) -> bytes:
        """Return the encoded image of a request; downloads it if the request gives a URL."""
        memory = request.state.memory
        if wanted.init_image_url is None:
            assert wanted.init_image is not None, "the request's validator requires one of the two"
            memory.set(len(wanted.init_image))
            return wanted.init_image
        with timer.stage("fetch"):
            async with self._downloads:
                data = await self._fetch(wanted.init_image_url, memory.reserve)
        # Only the host is logged: paths and queries often hold secrets. `urlsplit` cannot fail on
        # a URL that could be fetched.
        request.state.facts["source"] = urlsplit(wanted.init_image_url).hostname
        return data


@contextmanager
def _name_field(field: str) -> Iterator[None]:
    """Raise an ImageError of the block as an InvalidRequest that names the request's field."""
    try:
        yield
    except ImageError as error:
        raise error.of_field(field) from error
