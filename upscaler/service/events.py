"""How far a job is, as server-sent events (EXT-4; HTML Living Standard, 9.2).

Each event says how things are now, so that none is lost to a client that comes back: it is sent
those that differ from the last one that it had. With a preview there are also the rows themselves,
and then an id says up to which row the client has them: `progress-300+256`.
"""

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fastapi.sse import format_sse_event
from starlette.responses import Response, StreamingResponse

from upscaler.api.responses import JobStatus
from upscaler.errors import Busy, UnknownJob
from upscaler.service.jobs.store import JobStore, JobView
from upscaler.service.preview import Preview

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Vary": "Accept",
    # nginx would keep events until it has a page of them.
    "X-Accel-Buffering": "no",
}
LOOK_S: Final = 0.25
"""How often a job is looked at."""
BEAT_S: Final = 15.0
"""How often something is sent, even if nothing has changed: many proxies give up after 30 s."""
ROW: Final = re.compile("[0-9]{1,9}")
MOST_WATCHERS: Final = 100
"""A fifth of the connections that the server takes at most."""
RETRY_AFTER_S: Final = 5
LAST: Final = ("completed", "failed")
"""The events that no other follows."""
ESTIMABLE: Final = 0.05
"""How much of the rows must be done before the rest is estimated by them."""


class Watchers:
    """Those who watch jobs and batches: each keeps a connection, and others need some, too."""

    def __init__(self) -> None:
        self._count = 0

    def check_room(self) -> None:
        """Raise Busy if there are so many that another one is refused."""
        if self._count >= MOST_WATCHERS:
            raise Busy("too many clients watch: poll, or come back", RETRY_AFTER_S)

    def response(
        self, pieces: AsyncIterator[bytes], headers: Mapping[str, str], media_type: str
    ) -> Response:
        """A response that goes on until a job or a batch is completed. Raises Busy."""
        self.check_room()

        async def counted() -> AsyncIterator[bytes]:
            self._count += 1
            try:
                async for piece in pieces:
                    yield piece
            finally:
                self._count -= 1

        return StreamingResponse(counted(), 200, headers, media_type)


@dataclass(frozen=True)
class Event:
    """One event: its `name`, an `id` that is the same as long as nothing changes, and its data."""

    name: str
    id: str
    data: dict[str, Any] = field(default_factory=dict)

    def encoded(self, more: dict[str, Any]) -> bytes:
        """The event as it is sent, with more data; a beat if it has no name."""
        if not self.name:
            return format_sse_event(comment="")
        data = json.dumps(more | self.data)
        return format_sse_event(data_str=data, event=self.name, id=self.id)


async def events(
    jobs: JobStore, view: JobView, last_id: str, preview: Preview | None = None
) -> AsyncIterator[Event]:
    """Yield the events of a job, `view` the first of them unless the client has it, and beats.

    Until it is completed, or cancelled, which is `failed`. `last_id` is the id of the last event
    that the client has, or empty. The rows in `preview` come before the event that counts them.
    """
    sent_s = time.monotonic()
    last_id, _, text = last_id.partition("+")
    row = int(text) if ROW.fullmatch(text) else 0
    while True:
        event = event_of(view)
        for strip in preview.after(row) if preview else ():
            row, sent_s = strip.top + strip.rows, time.monotonic()
            jpeg = base64.b64encode(strip.jpeg).decode()
            shown = {"top": strip.top, "rows": strip.rows, "width": view.size[0], "jpeg": jpeg}
            yield Event("rows", f"{last_id}+{row}", shown)
        if event.id != last_id:
            last_id, sent_s = event.id, time.monotonic()
            yield replace(event, id=f"{last_id}+{row}") if preview else event
        elif time.monotonic() > sent_s + BEAT_S:
            yield Event("", "")
            sent_s = time.monotonic()
        if event.name in LAST:
            return
        await asyncio.sleep(LOOK_S)
        try:
            view = await jobs.view(view.id)
        except UnknownJob as error:
            gone = {"status": error.status, "detail": error.detail}
            yield Event("failed", "gone", gone)
            return


def event_of(view: JobView) -> Event:
    """The event that says how far a job is."""
    if view.failure:
        told = {"status": view.failure.status, "detail": view.failure.detail}
        return Event("failed", "failed", told)
    if view.status is JobStatus.COMPLETED:
        return Event("completed", "completed", {"rows_done": view.size[1], "rows": view.size[1]})
    if view.status is JobStatus.PENDING:
        waits = {"ahead": view.ahead, "estimated_seconds": round(view.estimated_s, 3)}
        return Event("queued", f"queued-{view.ahead}", waits)
    rows = {"rows_done": view.rows, "rows": view.size[1]}
    left = {"seconds_left": round(_left_s(view), 3)}
    return Event("progress", f"progress-{view.rows}", rows | left)


def _left_s(view: JobView) -> float:
    """About how many seconds a running job will still take."""
    spent_s = time.time() - (view.started_s or time.time())
    if view.done > ESTIMABLE:
        return max(0.0, spent_s / view.done - spent_s)
    return max(0.0, view.estimated_s - spent_s)
