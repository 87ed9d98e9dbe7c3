"""Gives every request an id, a memory reservation, a response, a log line and a metric.

An unexpected exception is logged and answered here and not raised further: the server would close
the connection, and a client's next request on it would be lost.
"""

import logging
import re
from time import perf_counter
from typing import Any, Final
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upscaler.api.headers import REQUEST_ID_HEADER
from upscaler.service import logs
from upscaler.service.metrics import Metrics
from upscaler.service.queue import Admission

log = logging.getLogger(__name__)

SANE_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""The ids that are safe to repeat in a header and a log line."""
CLIENT_CLOSED: Final = 499
"""The status that a request is logged with if its client disconnected, as in nginx."""
MAX_PATH: Final = 200
"""The longest path that is logged if no such route exists, in characters."""
MAX_METHOD: Final = 20
"""The longest method that is logged: any token is valid, and the longest registered has 17."""


class RequestMiddleware:
    """The outermost middleware.

    It sets in the request's state `request_id`, `memory` (a `MemoryReservation`) and `facts`, a
    dictionary to which handlers add what the log line should have; `model` also labels the metrics.
    It takes `root_path` away from paths: proxies do so themselves, or leave it.
    """

    def __init__(
        self, app: ASGIApp, admission: Admission, metrics: Metrics, root_path: str = ""
    ) -> None:
        self.app = app
        self.root_path = root_path
        self.admission = admission
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.root_path and f"{scope['path']}/".startswith(f"{self.root_path}/"):
            scope["path"] = scope["path"].removeprefix(self.root_path) or "/"
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if SANE_ID.fullmatch(given) else uuid4().hex
        record = RequestRecord(scope, request_id)
        with self.admission.reservation() as memory:
            # ASGI servers need not set a state.
            scope.setdefault("state", {}).update(
                request_id=request_id, memory=memory, facts=record.facts
            )
            token = logs.request_id.set(request_id)

            async def recording(message: Message) -> None:
                if scope["method"] == "HEAD" and "body" in message:
                    # Our own server would leave it out, and others would send it to the client.
                    message = {**message, "body": b""}
                record.add(message)
                await send(message)

            try:
                await self.app(scope, receive, recording)
            except ClientDisconnect:
                pass  # without a response, it is logged as CLIENT_CLOSED
            finally:
                self._close(record)
                logs.request_id.reset(token)

    def _close(self, record: "RequestRecord") -> None:
        """Count and log a finished request."""
        seconds = perf_counter() - record.began_s
        status = record.status or CLIENT_CLOSED
        model = str(record.facts.get("model", ""))
        self.metrics.record_request(record.route or "other", status, model, seconds)
        log.info(
            "%s %s",
            _shorten(record.scope["method"], MAX_METHOD),
            record.route or _shorten(record.scope["path"], MAX_PATH),
            extra={
                "status": status,
                "seconds": round(seconds, 4),
                "sent_bytes": record.sent_bytes,
                **record.facts,
            },
        )


class ErrorMiddleware:
    """Logs unexpected exceptions, and responds to them with a 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except ClientDisconnect:
            raise
        except Exception:
            log.exception("request %s failed", scope["state"]["request_id"])
            if has_begun:
                raise  # only closing the connection shows that it failed
            await JSONResponse({"detail": "Internal Server Error"}, 500)(scope, receive, send)


def _shorten(text: str, most: int) -> str:
    """Return `text`, or only its length if it is too long.

    Not its beginning: the log masks whole tokens, and would not recognise one that was cut.
    """
    return text if len(text) <= most else f"({len(text)} characters)"


class RequestRecord:
    """What is known of one request and its response so far."""

    def __init__(self, scope: Scope, request_id: str) -> None:
        self.scope = scope
        self.request_id = request_id
        self.began_s = perf_counter()
        self.status: int | None = None
        self.sent_bytes = 0
        self.facts: dict[str, Any] = {}

    @property
    def route(self) -> str | None:
        """The route's path template: without the id of a job, which is a secret."""
        route = self.scope.get("route")
        return getattr(route, "path", None)

    def add(self, message: Message) -> None:
        """Record a message of the response, and add the request id to its headers (RES-6)."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"].append((REQUEST_ID_HEADER.encode(), self.request_id.encode()))
        self.sent_bytes += len(message.get("body", b""))
