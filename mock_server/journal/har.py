"""Writes every exchange to an HTTP Archive (HAR 1.2), which `upscaler-contract --har` judges."""

import base64
import json
import time
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any, Final

from anyio import to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mock_server.endpoints import MISUSED
from mock_server.journal.journal import REDACTED, SECRET_HEADERS
from upscaler.api.limits import MAX_BODY_BYTES
from upscaler.service.logs import SHORTEST_SECRET

ADMIN: Final = "/_mock"
"""Below this path the mock is steered: that is no traffic of the API."""
NO_RESPONSE: Final[Message] = {"status": 0, "headers": []}
_TAIL: Final = b"\n]}}\n"


class HarFile:
    """An HTTP Archive that is complete after each entry, however the process ends."""

    def __init__(self, path: Path) -> None:
        """Begin the file anew; raises OSError."""
        creator = {"name": "upscaler-mock", "version": version("octo-upscaler")}
        head = json.dumps({"log": {"version": "1.2", "creator": creator, "entries": []}})
        self._file = path.open("wb")
        self._file.write(head.removesuffix("]}}").encode() + _TAIL)
        self._file.flush()
        self._lock = Lock()
        self._separator = b"\n"

    def add(self, entry: dict[str, Any]) -> None:
        """Write an entry behind the others."""
        with self._lock:
            self._file.seek(-len(_TAIL), 2)
            self._file.write(self._separator + json.dumps(entry).encode() + _TAIL)
            self._file.flush()
            self._separator = b",\n"

    def close(self) -> None:
        self._file.close()


class HarMiddleware:
    """Middleware that adds each exchange to `file` before its last byte is sent.

    Tokens are redacted, in headers and wherever else a client has put one of `secrets`.
    """

    def __init__(self, app: ASGIApp, file: HarFile, secrets: Collection[str]) -> None:
        self.app = app
        self.file = file
        self.writer = EntryWriter(secrets)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(ADMIN):
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})  # whatever copies the scope shares this
        recorder = ExchangeRecorder(self, scope, receive, send)
        try:
            await self.app(scope, recorder.receive, recorder.send)
        finally:
            await recorder.finish(complete=False)


class ExchangeRecorder:
    """Records one exchange; its `receive` and `send` are given to the app."""

    def __init__(self, to: HarMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self._to = to
        self._scope = scope
        self._receive = receive
        self._send = send
        self._began, self._began_s = datetime.now(UTC), time.perf_counter()
        self._asked, self._told = bytearray(), bytearray()
        self._start: Message = NO_RESPONSE
        self._waiting: Message | None = None
        self._finished = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and len(self._asked) <= MAX_BODY_BYTES:
            self._asked.extend(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # It goes with what follows, since it may be all of a response for the client.
            self._start = self._waiting = message
            return
        if message["type"] == "http.response.body":
            self._told.extend(message.get("body", b""))
            length = dict(self._start["headers"]).get(b"content-length", b"")
            # By then a client has all of it, even if an empty part follows.
            whole = length.isdigit() and len(self._told) >= int(length)
            if whole or not message.get("more_body", False):
                await self.finish(complete=True)
        if self._waiting is not None:
            await self._send(self._waiting)
            self._waiting = None
        await self._send(message)

    async def finish(self, *, complete: bool) -> None:
        """Write the entry, without a response if that is not complete; does nothing again."""
        if self._finished:
            return
        self._finished = True
        if self._scope["state"].get(MISUSED):
            return  # no implementation of the API would have answered so
        writer, start = self._to.writer, self._start if complete else NO_RESPONSE
        entry = {
            "startedDateTime": self._began.isoformat(),
            "time": 1000 * (time.perf_counter() - self._began_s),
            "request": writer.request(self._scope, bytes(self._asked)),
            "response": writer.response(start, bytes(self._told) if complete else b""),
            "cache": {},
            "timings": {"send": 0, "wait": -1, "receive": 0},
        }
        await to_thread.run_sync(self._to.file.add, entry)


class EntryWriter:
    """Writes requests and responses as HAR has them, without `secrets`."""

    def __init__(self, secrets: Collection[str]) -> None:
        long_enough = (secret for secret in secrets if len(secret) >= SHORTEST_SECRET)
        self._secrets = sorted(long_enough, key=len, reverse=True)

    def request(self, scope: Scope, body: bytes) -> dict[str, Any]:
        """A request; one with too long a body is without that."""
        headers = self._headers(scope["headers"])
        host = next((each["value"] for each in headers if each["name"] == "host"), "localhost")
        query = scope["query_string"].decode("latin-1")
        path = scope["path"] + (f"?{query}" if query else "")
        request: dict[str, Any] = {
            "method": scope["method"],
            "url": self._redact(f"{scope['scheme']}://{host}{path}"),
            "httpVersion": f"HTTP/{scope['http_version']}",
            "cookies": [],
            "headers": headers,
            "queryString": [],
            "headersSize": -1,
            "bodySize": len(body),
        }
        if body and len(body) <= MAX_BODY_BYTES:
            request["postData"] = {"mimeType": _value(headers, "content-type"), **self._text(body)}
        return request

    def response(self, start: Message, body: bytes) -> dict[str, Any]:
        """A response; the status 0 says that there was none."""
        headers, status = self._headers(start["headers"]), start["status"]
        content = {"mimeType": _value(headers, "content-type"), "size": len(body)}
        return {
            "status": status,
            "statusText": HTTPStatus(status).phrase if status in iter(HTTPStatus) else "",
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": headers,
            "redirectURL": _value(headers, "location"),
            "content": {**content, **self._text(body, "encoding")},
            "headersSize": -1,
            "bodySize": len(body),
        }

    def _headers(self, lines: Iterable[tuple[bytes, bytes]]) -> list[dict[str, str]]:
        named = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in lines]
        return [{"name": name, "value": self._value_of(name, value)} for name, value in named]

    def _value_of(self, name: str, value: str) -> str:
        if name not in SECRET_HEADERS:
            return self._redact(value)
        scheme, space, _ = value.partition(" ")
        return f"{scheme} {REDACTED}" if space else REDACTED

    def _text(self, body: bytes, encoding: str = "_encoding") -> dict[str, str]:
        """A body as text, or in base64; HAR 1.2 has no name for the encoding of a request's."""
        try:
            return {"text": self._redact(body.decode())}
        except UnicodeDecodeError:
            return {"text": base64.b64encode(body).decode(), encoding: "base64"}

    def _redact(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return text


def _value(headers: Iterable[dict[str, str]], name: str) -> str:
    return next((each["value"] for each in headers if each["name"] == name), "")
