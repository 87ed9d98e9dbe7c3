"""The routes of asynchronous inferences: to poll, fetch, watch, list and cancel them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

from fastapi import Request, Response

from upscaler.api.responses import JobList, JobStatus, JobSummary, PollResponse
from upscaler.errors import FieldError, InvalidRequest
from upscaler.service import events, responses
from upscaler.service.auth import owner
from upscaler.service.disconnect import GOES_ON
from upscaler.service.jobs.store import JobStore, JobView
from upscaler.service.metrics import Metrics
from upscaler.service.negotiation import EVENTS, redirectable
from upscaler.service.urls import job_url
from upscaler.settings import Settings

MOST_LISTED: Final = 100
LISTED: Final = 20


class Inferences:
    """The handlers of the routes below /v1."""

    def __init__(self, jobs: JobStore, settings: Settings, metrics: Metrics) -> None:
        self.jobs = jobs
        self.watchers = events.Watchers()
        self._settings = settings
        self.metrics = metrics

    async def poll(self, request: Request, response_id: str) -> PollResponse:
        """Return the status of an asynchronous inference."""
        url = job_url(request, self._settings, "result", response_id)
        status = await self.jobs.status(response_id)
        completed = status is JobStatus.COMPLETED
        return PollResponse(status=status, response_url=url if completed else None)

    async def result(self, request: Request, response_id: str) -> Response:
        """Return the response that a synchronous request would have had."""
        result = await self.jobs.result(response_id, request.state.memory)
        if self.jobs.made_elsewhere and request.method == "GET":
            self.metrics.record_result(result)
        agent = request.headers.get("User-Agent", "")
        stored = result.stored
        if stored and stored.link and request.method == "GET" and redirectable(agent):
            return responses.redirect(stored.link)
        if stored:
            request.state.memory.reserve_result(result.held_bytes)
        responses.record(request, result)
        response = await responses.image_response(result, self._settings.price_per_second)
        if request.method == "HEAD":  # its body would count as fetched
            return Response(None, 200, response.headers)
        return response

    async def cancel(self, request: Request, response_id: str) -> Response:
        """Cancel an asynchronous inference of this token, or remove its result."""
        await self.jobs.cancel(response_id, owner(request))
        return Response(None, 204)

    async def listed(self, request: Request) -> JobList:
        """List the asynchronous inferences of this token, the newest first."""
        limit, before = _page(request)
        # One more, to know whether there are more.
        views = await self.jobs.listed(owner(request), limit + 1, before)
        shown = [self._summary(request, view) for view in views[:limit]]
        more = len(views) > limit
        return JobList(requests=shown, next_before=views[limit - 1].cursor if more else None)

    async def events(self, request: Request, response_id: str) -> Response:
        """Watch an asynchronous inference, as server-sent events."""
        return await self.watch(request, response_id)

    async def watch(self, request: Request, job_id: str) -> Response:
        """Return the events of a job, as a response that goes on until it is completed."""
        view = await self.jobs.view(job_id)  # raises UnknownJob before the response begins
        urls = {
            "response_id": job_id,
            "poll_url": job_url(request, self._settings, "poll", job_id),
            "events_url": job_url(request, self._settings, "events", job_id),
        }
        completed = {"response_url": job_url(request, self._settings, "result", job_id)}
        if request.method == "HEAD":
            return Response(None, 200, events.HEADERS, EVENTS)
        setattr(request.state, GOES_ON, True)
        last = request.headers.get("Last-Event-ID", "")
        preview = await self.jobs.preview(job_id) if wants_preview(request) else None

        async def stream() -> AsyncIterator[bytes]:
            async for event in events.events(self.jobs, view, last, preview):
                more = completed if event.name in events.LAST else {}
                yield event.encoded(urls | more)

        return self.watchers.response(stream(), events.HEADERS, EVENTS)

    def _summary(self, request: Request, view: JobView) -> JobSummary:
        done = view.status is JobStatus.COMPLETED
        return JobSummary(
            response_id=view.id,
            status=view.status,
            error=view.failure.status if view.failure else None,
            model=view.model,
            input_width=view.input_size[0],
            input_height=view.input_size[1],
            output_width=view.size[0],
            output_height=view.size[1],
            rows_done=view.rows,
            created_at=_time(view.created_s),
            started_at=_time(view.started_s) if view.started_s else None,
            finished_at=_time(view.finished_s) if view.finished_s else None,
            poll_url=job_url(request, self._settings, "poll", view.id),
            response_url=job_url(request, self._settings, "result", view.id) if done else None,
        )


def wants_preview(request: Request) -> bool:
    """Whether the events of a request are to have the rows of the result."""
    return request.query_params.get("preview") == "1"


def _page(request: Request) -> tuple[int, str | None]:
    """The query's `limit` and `before`. Raises InvalidRequest."""
    text = request.query_params.get("limit", str(LISTED))
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MOST_LISTED):
        msg = f"must be a whole number from 1 to {MOST_LISTED}"
        raise InvalidRequest(FieldError(("query", "limit"), msg, "limit_invalid"))
    return int(text), request.query_params.get("before")


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
