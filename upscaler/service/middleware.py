"""What every request gets: an id, a share of the memory, an answer, a log line, and to be counted.

A fault that nobody foresaw is logged and answered here and goes no further: the server would close
the connection on it, and a client's next request on that connection would be lost.
"""

import logging
import re
import time
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
"""What a request's id may be, so that it can stand in a header and a log line as it is."""
CLIENT_CLOSED: Final = 499
"""The status under which a request is counted whose client hung up, as nginx has it."""
MAX_PATH: Final = 200
"""How many characters a path that does not exist may have, to be logged."""
MAX_METHOD: Final = 20
"""How many a method may have: any word is one, and the longest that is registered has 17."""


class RequestMiddleware:
    """Middleware around everything else.

    It puts into the request's state its `request_id`, its `memory` (see `Admission`) and its
    `facts`: what handlers find out about the request, for the log; `model` is counted, too.
    """

    def __init__(self, app: ASGIApp, admission: Admission, metrics: Metrics) -> None:
        self.app = app
        self.admission = admission
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if SANE_ID.fullmatch(given) else uuid4().hex
        account = RequestRecord(scope, request_id)
        with self.admission.holding() as memory:
            scope.setdefault("state", {}).update(
                request_id=request_id, memory=memory, facts=account.facts
            )
            said_by = logs.request_id.set(request_id)
            try:
                await self._answered(account, receive, send)
            finally:
                self._close(account)
                logs.request_id.reset(said_by)

    async def _answered(self, account: "RequestRecord", receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            account.note(message)
            await send(message)

        try:
            await self.app(account.scope, receive, noting)
        except ClientDisconnect:
            return  # without an answer, it is counted under a status of its own
        except Exception:
            log.exception("request %s failed", account.request_id)
            if account.status is not None:
                raise
            answer = JSONResponse({"detail": "Internal Server Error"}, 500)
            await answer(account.scope, receive, noting)

    def _close(self, account: "RequestRecord") -> None:
        """Count and log a request that is over."""
        seconds = time.perf_counter() - account.began_s
        status = account.status or CLIENT_CLOSED
        model = str(account.facts.get("model", ""))
        self.metrics.answered(account.route or "other", status, model, seconds)
        log.info(
            "%s %s",
            _shown(account.scope["method"], MAX_METHOD),
            account.route or _shown(account.scope["path"], MAX_PATH),
            extra={
                "status": status,
                "seconds": round(seconds, 4),
                "sent_bytes": account.sent_bytes,
                **account.facts,
            },
        )


def _shown(text: str, most: int) -> str:
    """A text, or how long it is: in a part of one nobody would find a part of a token."""
    return text if len(text) <= most else f"({len(text)} characters)"


class RequestRecord:
    """What is known of one request and its answer so far."""

    def __init__(self, scope: Scope, request_id: str) -> None:
        self.scope = scope
        self.request_id = request_id
        self.began_s = time.perf_counter()
        self.status: int | None = None
        self.sent_bytes = 0
        self.facts: dict[str, Any] = {}

    @property
    def route(self) -> str | None:
        """The path as the service declares it, so that no id of a job is logged or counted."""
        route = self.scope.get("route")
        return getattr(route, "path", None)

    def note(self, message: Message) -> None:
        """Take note of a message of the answer, and put the id into its headers (RES-6)."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"].append((REQUEST_ID_HEADER.encode(), self.request_id.encode()))
        self.sent_bytes += len(message.get("body", b""))
