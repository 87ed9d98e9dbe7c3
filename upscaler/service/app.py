"""The API over HTTP: `create_app` serves the contract on top of any backend.

`Service.upscaling` checks in the order in which errors are reported (REQ-19): method and path, by
the router, then token, body size, JSON, fields, image header, input size and output size. Only then
it starts any work.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.middleware import Middleware

from upscaler.api.headers import ASYNC_HEADER, DRY_RUN_HEADER, INPUT_SIZE_HEADER
from upscaler.api.limits import MAX_BODY_BYTES
from upscaler.api.request import UpscalingRequest, parse_request
from upscaler.api.responses import AsyncResponse, DryRunResponse
from upscaler.errors import (
    Busy,
    JobFailed,
    TooSlow,
    UpscalerError,
)
from upscaler.formats import ImageEncoding
from upscaler.models import MODELS
from upscaler.service import cors, methods, openapi, playground, responses, swagger_ui
from upscaler.service.auth import owner, require_token
from upscaler.service.backend import (
    Backend,
    FaceBox,
    ScheduledJob,
    Scheduler,
    StageTimer,
    UpscaleResult,
)
from upscaler.service.batches import Batches
from upscaler.service.body import read_json_body
from upscaler.service.disconnect import GOES_ON, cancel_on_disconnect, wait_done
from upscaler.service.inferences import Inferences, wants_preview
from upscaler.service.intake import Fetch, Intake, Opened
from upscaler.service.jobs.memory import MemoryJobStore
from upscaler.service.jobs.store import JobStore, Submission
from upscaler.service.keys import fingerprint, key_of
from upscaler.service.metrics import Metrics
from upscaler.service.middleware import ErrorMiddleware, RequestMiddleware
from upscaler.service.negotiation import JSON, negotiate, without_events
from upscaler.service.preview import Preview
from upscaler.service.queue import Admission, MemoryReservation
from upscaler.service.urls import base_url, job_url
from upscaler.service.webhook_routes import Poster, Webhooks
from upscaler.service.webhooks import HEADER as WEBHOOK_HEADER
from upscaler.settings import Settings

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of Prometheus's text format."""

log = logging.getLogger(__name__)


def create_app(
    backend: Backend,
    settings: Settings,
    jobs: JobStore | None = None,
    fetch: Fetch | None = None,
    middleware: Sequence[Middleware] = (),
    *,
    poster: Poster | None = None,
    notice: str = "",
) -> FastAPI:
    """Return the service on top of `backend`, for clients with one of `settings.tokens`.

    Asynchronous inferences are kept in `jobs`, by default in this process. `fetch` downloads images
    from URLs, and `poster` sends webhooks, by default from and to the public internet. `middleware`
    wraps the routes, the first one outermost, but inside `RequestMiddleware`, so that its responses
    also have a request ID, are logged and are counted. `notice` is a sentence at the top of the
    pages for people. Raises ValueError without any token: a service without authentication would be
    a mistake.
    """
    if not settings.tokens:
        raise ValueError("the service needs at least one token")
    if fetch is None or poster is None:
        from upscaler.service.download import Downloader  # noqa: PLC0415  importing httpx2 is slow, and not every caller needs it

        downloader = Downloader(ports=settings.fetch_ports, networks=settings.fetch_networks)
        fetch, poster = fetch or downloader.fetch, poster or downloader
    admission = Admission(
        settings.queue_length,
        settings.queue_memory,
        backend.at_once,
        settings.results_memory,
    )
    jobs = jobs or MemoryJobStore(settings.results_memory)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with jobs.working(scheduler):
            webhooks.wake()
            try:
                yield
            finally:
                await webhooks.stop()

    metrics = Metrics(admission, lambda: jobs.results_bytes, backend.kernels)
    scheduler = Scheduler(backend, admission, metrics.record_result)
    webhooks = Webhooks(jobs.outbox, settings, poster, metrics.record_webhook)
    intake = Intake(backend, settings, fetch)
    inferences = Inferences(jobs, settings, metrics)
    batches = Batches(
        scheduler, settings, jobs, intake, webhooks=webhooks, watchers=inferences.watchers
    )
    service = Service(scheduler, settings, inferences, intake, webhooks)

    app = FastAPI(
        title="Upscaling API",
        description=openapi.TEXT,
        version="0.1",
        lifespan=lifespan,
        redirect_slashes=False,  # Starlette's redirect leads to the host that the Host header names
        # FastAPI's own pages load scripts from a CDN: they could read a token that is typed in.
        docs_url=None,
        redoc_url=None,
        exception_handlers={UpscalerError: _error_response, 405: methods.not_allowed},
        middleware=[
            Middleware(RequestMiddleware, admission, metrics, settings.root_path),
            *cors.middleware(settings.cors_origins),
            Middleware(ErrorMiddleware),  # inside, so that a page can read a 500
            *middleware,
        ],
    )
    app.include_router(playground.create_router(notice, face_enhance=backend.face_enhance))
    app.include_router(swagger_ui.create_router(notice))
    guarded: dict[str, Any] = {"dependencies": [Depends(require_token(settings.tokens))]}
    methods.get(app, "/livez", service.livez, **openapi.LIVEZ)
    methods.get(app, "/healthcheck", service.healthcheck, **openapi.HEALTHCHECK)
    app.post("/upscaling", **openapi.UPSCALING, **guarded)(service.upscaling)
    one = "/v1/requests/{response_id}"
    methods.get(app, "/v1/requests", inferences.listed, **openapi.LIST, **guarded)
    methods.get(app, one, inferences.poll, **openapi.POLL, **guarded)
    app.delete(one, **openapi.CANCEL, **guarded)(inferences.cancel)
    methods.get(app, f"{one}/events", inferences.events, **openapi.EVENTS, **guarded)
    result = "/v1/responses/{response_id}"
    methods.get(app, result, inferences.result, **openapi.RESULT, **guarded)
    one = "/v1/batches/{batch_id}"
    app.post("/v1/batches", **openapi.BATCHES, **guarded)(batches.create)
    methods.get(app, one, batches.batch, **openapi.BATCH, **guarded)
    app.delete(one, **openapi.CANCEL, **guarded)(batches.cancel)
    methods.get(app, f"{one}/events", batches.events, **openapi.EVENTS, **guarded)
    methods.get(app, f"{one}/zip", batches.zip, **openapi.ZIP, **guarded)
    below = "/v1/webhooks"
    methods.get(app, f"{below}/secret", webhooks.secret, **openapi.WEBHOOK_SECRET, **guarded)
    app.post(f"{below}/test", **openapi.WEBHOOK_TEST, **guarded)(webhooks.test)
    methods.get(app, "/metrics", service.measured, **openapi.METRICS, **guarded)
    app.openapi = openapi.with_request_schema(  # type: ignore[method-assign]
        app.openapi, settings.default_encoding
    )
    return app


class Service:
    """The handlers of the routes, and what they share."""

    def __init__(
        self,
        scheduler: Scheduler,
        settings: Settings,
        inferences: Inferences,
        intake: Intake,
        webhooks: Webhooks,
    ) -> None:
        self.scheduler = scheduler
        self.inferences = inferences
        self.jobs = inferences.jobs
        self._settings = settings
        self.intake = intake
        self._webhooks = webhooks

    async def livez(self) -> dict[str, str]:
        """Return that the process is alive; needs no token."""
        return {"status": "ok"}

    async def healthcheck(self) -> dict[str, str]:
        """Return whether another image would be accepted now, or raise Busy; needs no token."""
        admission = self.scheduler.admission
        admission.check_room()
        admission.check_memory(MAX_BODY_BYTES)
        return {"status": "ok"}

    async def measured(self) -> Response:
        """Return the metrics for Prometheus."""
        return Response(self.inferences.metrics.text(), media_type=METRICS_TYPE)

    async def upscaling(self, request: Request) -> Response:
        """Upscale an image."""
        asynchronous = _is_asynchronous(request)
        if asynchronous:
            # The response will hold URLs: refuse an invalid Host before any work is done.
            base_url(request, self._settings)
        memory = request.state.memory
        body = await read_json_body(request, memory, self.intake.cores, asynchronous=asynchronous)
        wanted = await self.intake.in_thread(parse_request, body)
        del body  # or it would stay in memory beside its decoded image for the whole request
        wanted = wanted.with_default_encoding(self._settings.default_encoding)
        return await cancel_on_disconnect(request, self._respond(request, wanted))

    async def _respond(self, request: Request, wanted: UpscalingRequest) -> Response:
        """Return the response to a request whose fields are valid."""
        # Facts are set as soon as they are known, so that errors are logged with them, too.
        admission, facts, timer = self.scheduler.admission, request.state.facts, StageTimer()
        facts["model"] = wanted.model.value
        faces = self.intake.check_faces(wanted, facts)
        accept, watched = without_events(", ".join(request.headers.getlist("Accept")))
        if watched:  # before any work is done
            self.inferences.watchers.check_room()
        kind = negotiate(accept, wanted.output_image_encoding)
        submission = Submission(owner(request))
        if (key := key_of(request)) is not None:
            submission = replace(submission, key=key, fingerprint=fingerprint(wanted, kind))
        dry = request.headers.get(DRY_RUN_HEADER) == "1"
        if not dry and (url := request.headers.get(WEBHOOK_HEADER)) is not None:
            submission = replace(submission, webhook=await self._webhooks.checked(request, url))
        known = None if dry else await self.jobs.repeated(submission)
        if known is not None:
            facts["repeated"] = True
            return await self._respond_with_job(request, known, watched=watched, kind=kind)
        opened = await self.intake.open(request, wanted, timer)
        if dry:
            facts["dry_run"] = True
            found = await self._found_faces(request, wanted, opened) if faces else None
            return self._dry_run(wanted, opened, found, faces=faces)
        # A store that keeps what waits elsewhere has a queue of its own.
        is_job = watched or _is_asynchronous(request) or submission.needs_job
        stored = self.jobs.queues and is_job
        if not stored:  # once more by `schedule`, but decoding for a full queue is a waste
            admission.check_room()
        job = await self.intake.job(wanted, opened, kind, timer)
        del opened
        if stored:
            request.state.memory.reserve(job.held_bytes)  # until it is written
        else:
            request.state.memory.set(0)  # from here on the scheduled job reserves the memory
        scheduled = self.scheduler.schedule(job, timer)
        if is_job:
            if watched and wants_preview(request):
                timer.preview = Preview(
                    scheduled.job.size
                )  # now, so that no row is made before it is there
            job_id = await self.jobs.start(scheduled, submission)
            del job, scheduled
            return await self._respond_with_job(request, job_id, watched=watched, kind=kind)
        running = asyncio.ensure_future(_run(scheduled, request.state.memory))
        return await self._with_deadline(request, running, as_file=job.as_file)

    async def _respond_with_job(
        self, request: Request, job_id: str, *, watched: bool, kind: ImageEncoding | None
    ) -> Response:
        """Return the response to a request whose work is a job of the store."""
        request.state.memory.set(0)
        if _is_asynchronous(request):
            request.state.facts["asynchronous"] = True
            url = job_url(request, self._settings, "poll", job_id)
            return JSONResponse(AsyncResponse(response_id=job_id, poll_url=url).model_dump())
        if watched:
            request.state.facts["asynchronous"] = True
            return await self.inferences.watch(request, job_id)
        waiting = asyncio.ensure_future(self._result(request, job_id))
        return await self._with_deadline(request, waiting, as_file=kind is not None)

    async def _result(self, request: Request, job_id: str) -> UpscaleResult:
        """The result of a job, once it is completed: it goes on if its client does not wait."""
        setattr(request.state, GOES_ON, self.jobs.queues)
        await self.jobs.wait(job_id)
        setattr(request.state, GOES_ON, False)
        return await self.jobs.result(job_id, request.state.memory)

    async def _with_deadline(
        self, request: Request, running: asyncio.Future[UpscaleResult], *, as_file: bool
    ) -> Response:
        """Return the response with the result of a running job.

        Clients and proxies give up if no bytes arrive: OctoAI's client after 60 seconds, Modal's
        proxy after 150. So a JSON response begins before a slow job is done, and a file, which
        cannot begin early, is a 503 (TooSlow) beyond its deadline.
        """
        deadline_s = self._settings.deadline_s if as_file else self._settings.first_byte_s
        if await wait_done(running, deadline_s):
            responses.record(request, running.result())
            price = self._settings.price_per_second
            return await responses.image_response(running.result(), price)
        if not as_file:
            return responses.KeepAliveJSONResponse(
                running, lambda result: responses.record(request, result)
            )
        await responses.cancel_and_wait(running)
        raise TooSlow(
            f"this image takes more than {deadline_s:g} seconds: accept {JSON} instead of a "
            f"file, or send the header {ASYNC_HEADER}: 1"
        )

    async def _found_faces(
        self, request: Request, wanted: UpscalingRequest, opened: Opened
    ) -> list[FaceBox] | None:
        """Return where faces are that would be restored, which waits in the queue as a job does."""
        timer = StageTimer()
        job = await self.intake.job(wanted, opened, None, timer)
        request.state.memory.set(0)
        with self.scheduler.schedule(job, timer) as scheduled:
            return await scheduled.find_faces()

    def _dry_run(
        self,
        wanted: UpscalingRequest,
        opened: Opened,
        found: list[FaceBox] | None,
        *,
        faces: bool,
    ) -> Response:
        image, size = opened.image, opened.size
        backend, throughput = self.scheduler.backend, self.scheduler.throughput
        count = len(found or ()) if faces else None
        dry_run = DryRunResponse(
            output_width=size[0],
            output_height=size[1],
            model=wanted.model,
            native_scale=MODELS[wanted.model].scale,
            tiles=backend.bands(wanted.model, image.size, image.channels),
            estimated_seconds=round(throughput.estimate_s(wanted.model, image.size, count), 3),
            faces=found,
        )
        headers = {INPUT_SIZE_HEADER: responses.in_pixels(image.size)}
        return JSONResponse(dry_run.model_dump(mode="json", exclude_none=True), headers=headers)


def _is_asynchronous(request: Request) -> bool:
    return request.headers.get(ASYNC_HEADER) == "1"


async def _run(scheduled: ScheduledJob, memory: MemoryReservation) -> UpscaleResult:
    with scheduled as job:
        return await job.run(memory=memory)


async def _error_response(request: Request, error: Exception) -> Response:
    """Turn any error that was raised on purpose into its response (RES-4, RES-7)."""
    assert isinstance(error, UpscalerError), "registered for this class alone"
    # Busy is no fault but load, and counted by its status; a JobFailed was logged by the job store.
    if error.status >= 500 and not isinstance(error, Busy | JobFailed):
        log.error("request %s failed: %s", request.state.request_id, error, exc_info=error)
    return responses.error(error)
