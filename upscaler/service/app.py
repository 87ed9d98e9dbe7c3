"""The API over HTTP: `create_app` puts the contract in front of anything that enlarges pictures.

`Service.upscaling` reads in the order in which errors are told (REQ-19): method and path by the
router, then token, body size, JSON, fields, image header, input size, output size; only then is
work done.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, TypeVar, TypeVarTuple
from urllib.parse import urlsplit

import anyio
from anyio import to_thread
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.middleware import Middleware

from upscaler.api.headers import ASYNC_HEADER, DRY_RUN_HEADER, INPUT_SIZE_HEADER
from upscaler.api.limits import MAX_BODY_BYTES
from upscaler.api.request import UpscalingRequest, parse_request
from upscaler.api.responses import AsyncResponse, DryRunResponse, JobStatus, PollResponse
from upscaler.api.sizes import Size, output_size
from upscaler.authority import is_authority
from upscaler.errors import (
    Busy,
    FieldError,
    ImageError,
    InvalidRequest,
    JobFailed,
    NotHTTP,
    TooSlow,
    UpscalerError,
)
from upscaler.imaging import decode
from upscaler.imaging.decode import EncodedImage
from upscaler.models import MODELS
from upscaler.service import openapi, playground, responses, swagger_ui
from upscaler.service.auth import require_token
from upscaler.service.backend import (
    Backend,
    ScheduledJob,
    Scheduler,
    StageTimer,
    UpscaleJob,
    UpscaleResult,
)
from upscaler.service.body import read_json_body
from upscaler.service.disconnect import cancel_on_disconnect, wait_done
from upscaler.service.jobs import JobStore, LocalJobStore
from upscaler.service.metrics import Metrics
from upscaler.service.middleware import RequestMiddleware
from upscaler.service.negotiation import JSON, negotiate
from upscaler.service.queue import Admission
from upscaler.settings import Settings

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

Fetch = Callable[[str, Callable[[int], None]], Awaitable[bytes]]
"""Returns the bytes at a URL; the second argument is called with how many are held so far."""

MAX_DOWNLOADS: Final = 32
"""How many pictures are downloaded at once; each may keep a connection and a thread for a while."""
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of Prometheus's text format."""

log = logging.getLogger(__name__)


def create_app(
    backend: Backend,
    settings: Settings,
    jobs: JobStore | None = None,
    fetch: Fetch | None = None,
    middleware: Sequence[Middleware] = (),
) -> FastAPI:
    """The service on top of `backend`, for the bearer tokens in `settings`.

    Asynchronous inferences are kept in `jobs`, by default in this process, and pictures come from
    URLs by `fetch`, by default from the public internet. `middleware` goes around the routes, the
    first one outermost; outside all of it stays `RequestMiddleware`, so that whatever it responds
    has a request ID, is logged and is counted. Raises ValueError without any token: a service that
    lets everybody in is never meant.
    """
    if not settings.tokens:
        raise ValueError("the service needs at least one token")
    if fetch is None:
        from upscaler.service.download import Downloader  # noqa: PLC0415  and an HTTP client, which takes its time

        fetch = Downloader(ports=settings.fetch_ports, networks=settings.fetch_networks).fetch
    admission = Admission(settings.queue_length, settings.queue_memory, backend.at_once)
    jobs = jobs or LocalJobStore(settings.results_memory)
    metrics = Metrics(admission, lambda: jobs.results_bytes)
    scheduler = Scheduler(backend, admission, metrics.made)
    service = Service(scheduler, settings, jobs, fetch, metrics)

    app = FastAPI(
        title="Upscaling API",
        description=openapi.TEXT,
        version="0.1",
        redirect_slashes=False,
        # FastAPI's own run scripts of another host's, in the page's origin.
        docs_url=None,
        redoc_url=None,
        exception_handlers={UpscalerError: _answer_error},
        middleware=[
            Middleware(RequestMiddleware, admission=admission, metrics=metrics),
            *middleware,
        ],
    )
    app.include_router(playground.router)
    app.include_router(swagger_ui.router)
    guarded: dict[str, Any] = {"dependencies": [Depends(require_token(settings.tokens))]}
    app.get("/livez", **openapi.LIVEZ)(service.livez)
    app.get("/healthcheck", **openapi.HEALTHCHECK)(service.healthcheck)
    app.post("/upscaling", **openapi.UPSCALING, **guarded)(service.upscaling)
    app.get("/v1/requests/{response_id}", **openapi.POLL, **guarded)(service.poll)
    app.get("/v1/responses/{response_id}", **openapi.RESULT, **guarded)(service.result)
    app.get("/metrics", **openapi.METRICS, **guarded)(service.measured)
    app.openapi = openapi.with_request_schema(  # type: ignore[method-assign]
        app.openapi, settings.default_encoding
    )
    return app


class Service:
    """The routes, and what they share."""

    def __init__(
        self,
        scheduler: Scheduler,
        settings: Settings,
        jobs: JobStore,
        fetch: Fetch,
        metrics: Metrics,
    ) -> None:
        self.scheduler = scheduler
        self.jobs = jobs
        self._metrics = metrics
        self._settings = settings
        self._fetch = fetch
        self._downloads = anyio.CapacityLimiter(MAX_DOWNLOADS)
        # JSON and images are taken apart on as many cores as there are: more at once would be no
        # faster, and each takes several times the memory of what it reads.
        self._cores = anyio.CapacityLimiter(os.cpu_count() or 1)

    async def livez(self) -> dict[str, str]:
        """Say that the process lives; needs no token."""
        return {"status": "ok"}

    async def healthcheck(self) -> dict[str, str]:
        """Say whether another picture would be taken now; needs no token."""
        admission = self.scheduler.admission
        admission.check_room()
        admission.check_memory(MAX_BODY_BYTES)
        return {"status": "ok"}

    async def measured(self) -> Response:
        """What was measured, for Prometheus."""
        return Response(self._metrics.text(), media_type=METRICS_TYPE)

    async def upscaling(self, request: Request) -> Response:
        """Upscale the given picture."""
        asynchronous = request.headers.get(ASYNC_HEADER) == "1"
        if asynchronous:
            base_url(request, self._settings.public_url)  # before anything is done for it
        body = await read_json_body(request, request.state.memory, asynchronous=asynchronous)
        wanted = await self._in_thread(parse_request, body)
        del body
        wanted = wanted.with_default_encoding(self._settings.default_encoding)
        return await cancel_on_disconnect(request, self._answer(request, wanted))

    async def poll(self, request: Request, response_id: str) -> PollResponse:
        """Say how far an asynchronous inference is."""
        url = self._url(request, "result", response_id)
        status = await self.jobs.status(response_id)
        completed = status is JobStatus.COMPLETED
        return PollResponse(status=status, response_url=url if completed else None)

    async def result(self, request: Request, response_id: str) -> Response:
        """Give what the synchronous request would have given."""
        return self._image_response(request, await self.jobs.result(response_id))

    async def _answer(self, request: Request, wanted: UpscalingRequest) -> Response:
        """The answer to a request whose fields are right."""
        admission, facts, timer = self.scheduler.admission, request.state.facts, StageTimer()
        facts["model"] = wanted.model.value
        self._check_offered(wanted)
        accept = ", ".join(request.headers.getlist("Accept"))
        kind = negotiate(accept, wanted.output_image_encoding)
        data = await self._image(request, wanted, timer)
        with timer.stage("decode"), _blame(wanted.image_field):
            picture = await self._in_thread(decode.read_header, data)
        facts["input"] = responses.in_pixels(picture.size)
        size = output_size(wanted, picture.size)
        facts["output"] = responses.in_pixels(size)
        if request.headers.get(DRY_RUN_HEADER) == "1":
            facts["dry_run"] = True
            return self._dry_run(wanted, picture, size)
        admission.check_room()
        with timer.stage("decode"), _blame(wanted.image_field):
            pixels = await self._in_thread(picture.pixels)
        encoding = kind or wanted.output_image_encoding
        task = UpscaleJob(data, pixels, wanted.model, size, encoding, as_file=kind is not None)
        request.state.memory.set(0)  # from here on the order holds all of it
        order = self.scheduler.order(task, timer)
        if request.headers.get(ASYNC_HEADER) == "1":
            facts["asynchronous"] = True
            return self._accepted_response(request, await self.jobs.start(order))
        making = asyncio.ensure_future(_made(order))
        return await self._in_time(request, making, as_file=task.as_file)

    async def _in_time(
        self, request: Request, making: asyncio.Future[UpscaleResult], *, as_file: bool
    ) -> Response:
        """The answer that holds what is being made; if it is JSON, it begins before that is there.

        Clients and proxies give up on an answer of which nothing comes: OctoAI's client after 60
        seconds, Modal's proxy after 150.
        """
        patience_s = self._settings.deadline_s if as_file else self._settings.first_byte_s
        if await wait_done(making, patience_s):
            return self._image_response(request, making.result())
        if not as_file:
            return responses.KeepAliveJSONResponse(making, lambda made: self._record(request, made))
        await responses.cancel_and_wait(making)
        raise TooSlow(
            f"this image takes more than {patience_s:g} seconds: accept {JSON} instead of a "
            f"file, or send the header {ASYNC_HEADER}: 1"
        )

    async def _image(self, request: Request, wanted: UpscalingRequest, timer: StageTimer) -> bytes:
        """The encoded image of a request, downloaded if it gives a URL."""
        memory = request.state.memory
        if wanted.init_image_url is None:
            assert wanted.init_image is not None, "the request's validator lets one of both pass"
            memory.set(len(wanted.init_image))
            return wanted.init_image
        with timer.stage("fetch"):
            async with self._downloads:
                data = await self._fetch(wanted.init_image_url, memory.reserve)
        # All that is logged of it. No URL that can be fetched is one that this cannot take apart.
        request.state.facts["source"] = urlsplit(wanted.init_image_url).hostname
        return data

    def _check_offered(self, wanted: UpscalingRequest) -> None:
        """Raise InvalidRequest for what the API has and this service does not do."""
        if wanted.face_enhance and not self.scheduler.backend.face_enhance:
            msg = "there is no face model here: leave face_enhance out or false"
            error = FieldError(("body", "face_enhance"), msg, "face_enhance_unavailable")
            raise InvalidRequest(error)

    def _dry_run(self, wanted: UpscalingRequest, picture: EncodedImage, size: Size) -> Response:
        backend, pace = self.scheduler.backend, self.scheduler.pace
        answer = DryRunResponse(
            output_width=size[0],
            output_height=size[1],
            model=wanted.model,
            native_scale=MODELS[wanted.model].scale,
            tiles=backend.bands(wanted.model, picture.size, picture.channels),
            estimated_seconds=round(pace.estimate_s(wanted.model, picture.size), 3),
        )
        headers = {INPUT_SIZE_HEADER: responses.in_pixels(picture.size)}
        return JSONResponse(answer.model_dump(mode="json"), headers=headers)

    def _accepted_response(self, request: Request, job_id: str) -> Response:
        url = self._url(request, "poll", job_id)
        return JSONResponse(AsyncResponse(response_id=job_id, poll_url=url).model_dump())

    def _url(self, request: Request, route: str, job_id: str) -> str:
        """Where the client finds that route of its inference."""
        path = request.app.url_path_for(route, response_id=job_id)
        return base_url(request, self._settings.public_url) + str(path)

    def _image_response(self, request: Request, made: UpscaleResult) -> Response:
        """The answer that holds a picture."""
        self._record(request, made)
        return responses.image_response(made, self._settings.price_per_second)

    def _record(self, request: Request, made: UpscaleResult) -> None:
        """Tell the log of a picture, and the memory that it is kept until it is sent."""
        request.state.memory.set(made.file_bytes)
        request.state.facts |= {
            "model": made.model.value,
            "input": responses.in_pixels(made.input_size),
            "output": responses.in_pixels(made.size),
            "stages": {stage: round(seconds, 4) for stage, seconds in made.seconds.items()},
        }

    async def _in_thread(self, work: Callable[[*Args], Result], *args: *Args) -> Result:
        return await to_thread.run_sync(work, *args, limiter=self._cores)


@contextmanager
def _blame(field: str) -> Iterator[None]:
    """Make an error of an image file one of the request's field that it came in."""
    try:
        yield
    except ImageError as error:
        raise error.of_field(field) from error


async def _made(order: AbstractContextManager[ScheduledJob]) -> UpscaleResult:
    """Enter an order, have it made, and leave it."""
    with order as entered:
        return await entered.make()


def base_url(request: Request, public_url: str | None) -> str:
    """What the URLs in an answer begin with: as it was set, or else by the host that was asked.

    Raises NotHTTP for a host that cannot be one: not every server that runs the app has seen to it.
    """
    if public_url is not None:
        return public_url
    if not all(is_authority(host) for host in request.headers.getlist("Host")):
        raise NotHTTP("the host of the request is not a host, or a host and a port")
    return str(request.base_url).rstrip("/")


async def _answer_error(request: Request, error: Exception) -> Response:
    """The one place where an error that was raised on purpose becomes an answer (RES-4, RES-7)."""
    assert isinstance(error, UpscalerError), "registered for this class alone"
    if error.status >= 500 and not isinstance(error, Busy | JobFailed):  # that was logged before
        log.error("request %s failed: %s", request.state.request_id, error, exc_info=error)
    return responses.error(error)
