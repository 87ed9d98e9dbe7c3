"""Middleware that gives requests the faults that the schedule selects for them."""

import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mock_server.endpoints import MISUSED, ROUTES, route_of
from mock_server.faults.exchange import FaultyExchange
from mock_server.faults.fault import HEADER, Fault, FaultError, current
from mock_server.faults.schedule import FaultSchedule, SelectedFault
from upscaler.api.limits import MAX_BODY_BYTES, check_body_size
from upscaler.errors import BodyTooLarge, Unauthorized
from upscaler.service import responses
from upscaler.service.auth import UNAUTHORIZED_MESSAGE

ATTEMPT: Final = "__modal_attempt_token"
"""The query parameter that Modal's proxy adds to the URL that it redirects to."""
MAX_ATTEMPTS: Final = 100
MAX_ATTEMPT_BYTES: Final = 2 * MAX_BODY_BYTES
"""How many redirected requests are kept, and how many bytes; the oldest are dropped."""
DETAILS: Final = {
    401: UNAUTHORIZED_MESSAGE,
    429: "too many requests: try again later",
    500: "Internal Server Error",
    503: "the queue is full: try again later",
}
"""The message of a status, as the service writes it; of any other status, its name."""


class Attempt(NamedTuple):
    """A request that was redirected, and whose response is still to be fetched."""

    scope: Scope
    body: bytes


class FaultMiddleware:
    """Middleware that applies the faults of `faults` to requests and responses.

    `result_fault` returns the fault of the result of a job, by its ID, and `base_url` what the URLs
    in the response to a request begin with.
    """

    def __init__(
        self,
        app: ASGIApp,
        faults: FaultSchedule,
        result_fault: Callable[[str], SelectedFault],
        base_url: Callable[[Request], str],
    ) -> None:
        self.app = app
        self._base_url = base_url
        self._faults = faults
        self._result_fault = result_fault
        self._attempts: dict[str, Attempt] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif token := dict(parse_qsl(scope["query_string"].decode("latin-1"))).get(ATTEMPT):
            await self._resume(token, scope, receive, send)
        else:
            try:
                selected = self._select(scope)
            except FaultError as error:
                scope.setdefault("state", {})[MISUSED] = True
                # 400, since clients retry 429 and 5xx, and 422 is for the fields of a request.
                await JSONResponse({"detail": f"{HEADER}: {error}"}, 400)(scope, receive, send)
                return
            await self._respond(selected, FaultyExchange(scope, receive, send))

    def _select(self, scope: Scope) -> SelectedFault:
        route = route_of(scope)
        selected = self._faults.select(route, Headers(scope=scope).get(HEADER))
        if route == "result" and not selected.source:
            return self._result_fault(scope["path"].removeprefix(ROUTES["result"][1]))
        return selected

    async def _respond(self, selected: SelectedFault, exchange: FaultyExchange) -> None:
        """Respond to a request with this fault."""
        fault, scope = selected.fault, exchange.scope
        scope.setdefault("state", {})["fault"] = selected  # for the journal
        if selected.latency_s:
            await exchange.wait(selected.latency_s)
        # The tasks that upscale the image are created below this, and inherit the variable.
        token = current.set(fault)
        try:
            send = exchange.send_with(fault)
            # What the service does not get is read here, so that the journal has its fields.
            if fault.status:
                await exchange.read_body()
                await _error_response(fault)(scope, exchange.receive, send)
            elif "303" in fault.flags:
                await self._redirect(exchange, send)
            elif "timeout" in fault.flags:
                await exchange.read_body()
                await exchange.wait_for_disconnect()
            else:
                await self.app(scope, exchange.receive, send)
            if exchange.is_broken:
                # Returning would let the server complete the response.
                await exchange.wait_for_disconnect()
        finally:
            current.reset(token)

    async def _redirect(self, exchange: FaultyExchange, send: Send) -> None:
        """Keep the request, and redirect to the URL of its response."""
        body = await exchange.read_body()
        scope = exchange.scope
        try:
            check_body_size(MAX_BODY_BYTES + 1 if body is None else len(body))
        except BodyTooLarge as error:
            await responses.error(error)(scope, exchange.receive, send)
            return
        # The URL is a capability: the request that follows the redirect needs no token of the API.
        token = secrets.token_hex(12)
        self._attempts[token] = Attempt(dict(scope), body or b"")
        # A test may never follow its redirects, so what is kept is limited; the oldest come first.
        held_bytes = sum(len(attempt.body) for attempt in self._attempts.values())
        while len(self._attempts) > MAX_ATTEMPTS or held_bytes > MAX_ATTEMPT_BYTES:
            oldest = self._attempts.pop(next(iter(self._attempts)))
            held_bytes -= len(oldest.body)
        query = [*parse_qsl(scope["query_string"].decode("latin-1")), (ATTEMPT, token)]
        url = f"{self._base_url(Request(scope))}{scope['path']}?{urlencode(query)}"
        headers = {"Location": url, "Content-Length": "0"}
        await Response(None, HTTPStatus.SEE_OTHER, headers)(scope, exchange.receive, send)

    async def _resume(self, token: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to the request that was redirected here.

        The service reads the original request. The one that follows the redirect gets no fault of
        its own, since clients repeat the headers, X-Mock-Fault among them.
        """
        attempt = self._attempts.get(token)
        if attempt is None or scope["method"] != "GET":
            status = 404 if attempt is None else 400
            msg = "no request has this token" if attempt is None else "only GET is allowed here"
            await JSONResponse({"detail": msg}, status)(scope, receive, send)
            return
        # The attempt is kept, so that the URL can be fetched again.
        bodies = [attempt.body]

        async def receive_original() -> Message:
            if bodies:
                return {"type": "http.request", "body": bodies.pop(), "more_body": False}
            return await receive()

        # The state and the connection of the request that waits for the response now.
        own = {"state": scope["state"], "extensions": scope.get("extensions", {})}
        await self.app({**attempt.scope, **own}, receive_original, send)


def _error_response(fault: Fault) -> JSONResponse:
    assert fault.status, "called for faults with a status only"
    headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
    if fault.status == Unauthorized.status:
        headers |= Unauthorized().headers  # a 401 needs a challenge (RFC 9110, 15.5.2)
    detail = DETAILS.get(fault.status, HTTPStatus(fault.status).phrase)
    return JSONResponse({"detail": detail}, fault.status, headers)
