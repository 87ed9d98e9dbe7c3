"""Middleware that makes requests go wrong as they are told to."""

import asyncio
import secrets
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlencode

import anyio
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mock_server.backend.jobs import MockJobs
from mock_server.faults.corruption import SPOILS, dripped, halved
from mock_server.faults.fault import HEADER, Fault, FaultError, current
from mock_server.faults.schedule import ROUTES, Chosen, Faults, route_of
from mock_server.serving.connection import EXTENSION, Wire
from upscaler.api.limits import MAX_BODY_BYTES, check_body_size
from upscaler.errors import BodyTooLarge, Unauthorized
from upscaler.service import responses
from upscaler.service.body import BODY_DEADLINE_S

ATTEMPT: Final = "__modal_attempt_token"
"""In the query of where Modal's proxy redirects to: which request the answer is wanted of."""
MAX_ATTEMPTS: Final = 100
MAX_ATTEMPT_BYTES: Final = 2 * MAX_BODY_BYTES
"""So many requests whose answers are waited for are kept, and so many bytes; the oldest go."""
READ_S: Final = 0.05
"""How long a client has to read what comes before a reset, which may take that with it."""
WORDS: Final = {
    401: "send a valid token in the header: Authorization: Bearer TOKEN",
    429: "too many requests: try again later",
    500: "Internal Server Error",
    503: "as many pictures are waiting as may: try again later",
}
"""What is said with a status, in the words of who says it; of others their name alone."""


class Attempt(NamedTuple):
    """A request whose answer somebody was redirected to."""

    scope: Scope
    body: bytes


class Sabotage:
    """Middleware that has `faults` happen to what it lets pass to the service."""

    def __init__(self, app: ASGIApp, faults: Faults, jobs: MockJobs) -> None:
        self.app = app
        self._faults = faults
        self._jobs = jobs
        self._attempts: dict[str, Attempt] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif token := dict(parse_qsl(scope["query_string"].decode("latin-1"))).get(ATTEMPT):
            await self._answer_attempt(token, scope, receive, send)
        else:
            try:
                chosen = self._chosen(scope)
            except FaultError as error:
                await JSONResponse({"detail": f"{HEADER}: {error}"}, 400)(scope, receive, send)
                return
            await self._with(chosen, scope, receive, send)

    def _chosen(self, scope: Scope) -> Chosen:
        route = route_of(scope)
        chosen = self._faults.chosen(route, Headers(scope=scope).get(HEADER))
        if route == "result" and not chosen.source:
            return self._jobs.chosen_for(scope["path"].removeprefix(ROUTES["result"][1]))
        return chosen

    async def _with(self, chosen: Chosen, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that has this fault."""
        fault = chosen.fault
        scope.setdefault("state", {})["chosen"] = chosen
        line = Line(scope, receive, send)
        if chosen.latency_s:
            await line.wait(chosen.latency_s)
        token = current.set(fault)
        try:
            await self._answer(fault, line)
        finally:
            current.reset(token)

    async def _answer(self, fault: Fault, line: "Line") -> None:
        send = line.spoilt(fault)
        if fault.status:
            await line.read()
            await _refusal(fault)(line.scope, line.receive, send)
        elif "303" in fault.words:
            await self._redirect(line, send)
        elif "timeout" in fault.words:
            await line.read()
            await line.hang()
        else:
            await self.app(line.scope, line.receive, send)
        if line.broken:
            await line.hang()

    async def _redirect(self, line: "Line", send: Send) -> None:
        """Keep the request, and say where its answer will be."""
        body = await line.read()
        try:
            check_body_size(MAX_BODY_BYTES + 1 if body is None else len(body))
        except BodyTooLarge as error:
            await responses.error(error)(line.scope, line.receive, send)
            return
        token = secrets.token_hex(12)
        self._attempts[token] = Attempt(dict(line.scope), body or b"")
        self._forget_the_oldest()
        scope = line.scope
        query = [*parse_qsl(scope["query_string"].decode("latin-1")), (ATTEMPT, token)]
        host = Headers(scope=scope).get("Host", "")
        url = f"{scope['scheme']}://{host}{scope['path']}?{urlencode(query)}"
        headers = {"Location": url, "Content-Length": "0"}
        await Response(None, HTTPStatus.SEE_OTHER, headers)(scope, line.receive, send)

    def _forget_the_oldest(self) -> None:
        def too_much() -> bool:
            held_bytes = sum(len(attempt.body) for attempt in self._attempts.values())
            return len(self._attempts) > MAX_ATTEMPTS or held_bytes > MAX_ATTEMPT_BYTES

        while too_much():
            del self._attempts[next(iter(self._attempts))]

    async def _answer_attempt(self, token: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Give what the request would have been answered that led here.

        The service reads the request of then. Faults of its own this one has none, since clients
        send the headers again to where they are redirected.
        """
        attempt = self._attempts.get(token)
        if attempt is None or scope["method"] != "GET":
            status = 404 if attempt is None else 400
            msg = "no request has this token" if attempt is None else "only GET is answered here"
            await JSONResponse({"detail": msg}, status)(scope, receive, send)
            return
        bodies = [attempt.body]

        async def again() -> Message:
            if bodies:
                return {"type": "http.request", "body": bodies.pop(), "more_body": False}
            return await receive()

        now = {"state": scope["state"], "extensions": scope.get("extensions", {})}
        await self.app({**attempt.scope, **now}, again, send)


class Line:
    """One request, and what can be done to it and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.broken = False
        self._send = send
        self._wire: Wire | None = scope.get("extensions", {}).get(EXTENSION)

    async def read(self) -> bytes | None:
        """The whole body; None if it is longer than it may be, or never comes."""
        body = bytearray()
        declared = Headers(scope=self.scope).get("Content-Length", "")
        if declared.isdecimal() and int(declared[:20]) > MAX_BODY_BYTES:
            return None
        with anyio.move_on_after(BODY_DEADLINE_S):
            while len(body) <= MAX_BODY_BYTES:
                message = await self.receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    return bytes(body) if len(body) <= MAX_BODY_BYTES else None
        return None

    async def wait(self, seconds: float) -> None:
        """Let so much time pass, or less if the client goes."""
        if self._wire:
            await self._wire.wait(seconds)
        else:
            await asyncio.sleep(seconds)

    async def hang(self) -> None:
        """Do nothing until the client has gone."""
        if self._wire:
            await self._wire.wait(None)
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def break_off(self, fault: Fault) -> None:
        """End the connection here and now.

        Where the server is not the mock's, all that can be done is to fail: most close it then.
        """
        self.broken = True
        if self._wire is None:
            raise ConnectionAbortedError(f"told to: {fault}")
        if "reset" in fault.words:
            await self.wait(READ_S)
            self._wire.reset()
        else:
            self._wire.end()

    def spoilt(self, fault: Fault) -> Send:
        """What an answer is sent by that has this fault; the last one here is the first to act."""
        send = self._send
        if fault.words & {"reset", "truncated"}:
            send = halved(send, lambda: self.break_off(fault))
        if fault.drip:
            send = dripped(send, fault.drip, self.wait)
        for word, spoil in SPOILS.items():
            if word in fault.words:
                send = spoil(send)
        return send


def _refusal(fault: Fault) -> JSONResponse:
    assert fault.status, "asked for faults with a status alone"
    headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
    if fault.status == Unauthorized.status:
        headers |= Unauthorized().headers
    detail = WORDS.get(fault.status, HTTPStatus(fault.status).phrase)
    return JSONResponse({"detail": detail}, fault.status, headers)
