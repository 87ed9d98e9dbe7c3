"""A service that upscales images, ours or another with OctoAI's API, from a client's side.

Ours is asked for the events of a job (EXT-4), so that a connection that is lost costs nothing, and
otherwise for the file itself. Others respond with JSON (RES-1).
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, Final, Self
from urllib.parse import quote
from uuid import uuid4

import httpx2

from upscaler.errors import (
    FieldError,
    InvalidRequest,
    RemoteFailed,
    Unauthorized,
    Unreachable,
)
from upscaler.formats import ImageEncoding

Progress = Callable[[int, int], None]
"""Called with the rows done and the rows in all."""
Response = httpx2.Response

TIMEOUT: Final = httpx2.Timeout(60.0, read=300.0)
"""Others send nothing while they upscale. Ours sends something every 25 seconds at least."""
BUSY: Final = (429, 502, 503, 504)
"""The statuses that pass: of a service that is busy, and of a proxy whose service restarts."""
MOST_FAILURES: Final = 10
"""How often in a row a request is sent in vain; with the pauses, for some five minutes."""
FIRST_FAILURES: Final = 4
"""How often, if it has never responded: its URL may be wrong."""
BUSY_S: Final = 3600.0
"""How long a service is asked again that says when: as long as the longest queue takes."""
LONGEST_PAUSE_S: Final = 60.0
EVENTS: Final = "text/event-stream"


class RemoteService:
    """A service at `url`, with one of its tokens; it is entered as a block."""

    def __init__(self, url: str, token: str) -> None:
        # httpx2 encodes str in ASCII, and our service takes UTF-8.
        headers = {b"Authorization": b"Bearer " + token.encode()}
        self._client = httpx2.AsyncClient(
            base_url=url.rstrip("/") + "/", headers=headers, timeout=TIMEOUT
        )
        self._reached = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def upscale(self, fields: dict[str, Any], image: bytes, progress: Progress) -> bytes:
        """Return the file of a result. On cancellation, cancel its job.

        Raises InvalidRequest, Unauthorized, RemoteFailed, and Unreachable if the service cannot be
        reached for some minutes.
        """
        fields = fields | {"init_image": base64.b64encode(image).decode()}
        kind = ImageEncoding(fields["output_image_encoding"]).media_type
        headers = {
            "Accept": f"{EVENTS}, {kind}, application/json;q=0.5",
            "Content-Type": "application/json",
            # Whenever the response is lost, the same request leads to the same job (EXT-2).
            "Idempotency-Key": uuid4().hex,
        }
        body = json.dumps(fields).encode()
        for _ in range(MOST_FAILURES):
            response = await self._patiently("POST", "upscaling", content=body, headers=headers)
            if _media_type(response) != EVENTS:
                async with aclosing(response):
                    return _file(response, await response.aread())
            found = await self._follow(response, progress)
            if found is not None:
                return found
        raise Unreachable("the service forgets its work each time")

    async def _follow(self, response: Response, progress: Progress) -> bytes | None:
        """Watch a job until it is completed, and return its file; None if the service forgot it."""
        job, last_id, failures = "", "", 0
        try:
            while True:
                with suppress(httpx2.TransportError):  # what counts is that no last event came
                    async with aclosing(response):
                        async for event in _events(response):
                            job, last_id, failures = event["response_id"], event["id"], 0
                            if "rows_done" in event:
                                progress(event["rows_done"], event["rows"])
                            if event["event"] == "failed":
                                raise _error(event["status"], event["detail"])
                            if event["event"] == "completed":
                                return await self._result(job)
                failures += 1
                if not job or failures > MOST_FAILURES:
                    return None  # as if nothing had been sent
                response = await self._patiently(
                    "GET", f"{_path(job)}/events", headers={"Last-Event-ID": last_id}
                )
                if response.status_code == 404:
                    await response.aclose()
                    return None
        finally:
            # Whatever came of it, nobody will ask for it again.
            if job:
                with suppress(httpx2.HTTPError):
                    await self._client.delete(_path(job), timeout=10.0)

    async def _result(self, job: str) -> bytes:
        async def whole() -> Response:
            return await self._client.get(f"v1/responses/{quote(job, safe='')}")

        response = await self._retried(whole)
        return _file(response, response.content)

    async def _patiently(self, method: str, path: str, **options: Any) -> Response:  # noqa: ANN401  those of httpx2
        """Send a request, again while the service is busy or unreachable; the body is not read."""

        async def send() -> Response:
            request = self._client.build_request(method, path, **options)
            return await self._client.send(request, stream=True)

        return await self._retried(send)

    async def _retried(self, send: Callable[[], Awaitable[Response]]) -> Response:
        """Send a request until there is a response that is no matter of time."""
        failures, until_s = 0, time.monotonic() + BUSY_S
        while True:
            pause_s = float(min(2**failures, LONGEST_PAUSE_S))
            try:
                response = await send()
            except httpx2.TransportError as error:
                failures += 1
                if failures == (MOST_FAILURES if self._reached else FIRST_FAILURES):
                    raise Unreachable(f"the service cannot be reached: {error}") from error
            else:
                self._reached = True
                after = response.headers.get("Retry-After", "")
                failures += not after
                is_late = failures == MOST_FAILURES or time.monotonic() > until_s
                if response.status_code not in BUSY or is_late:
                    return response
                pause_s = min(float(after), BUSY_S) if after.isdecimal() else pause_s
                await response.aclose()
            await asyncio.sleep(pause_s)


async def _events(response: Response) -> AsyncIterator[dict[str, Any]]:
    """Yield server-sent events: the data of each, with its `event` and `id`."""
    event: dict[str, Any] = {}
    async for line in response.aiter_lines():
        name, _, text = line.partition(": ")
        if name == "data":
            event |= json.loads(text)
        elif name in ("event", "id"):
            event[name] = text
        elif not line and event:
            yield event
            event = {}


def _file(response: Response, body: bytes) -> bytes:
    """The image in a response: its body, or in its JSON. Raises the error that it stands for."""
    if response.is_success and _media_type(response).startswith("image/"):
        return body
    try:
        answer = json.loads(body)
    except ValueError:
        answer = {}
    if not response.is_success:
        detail = answer.get("detail") if isinstance(answer, dict) else None
        raise _error(response.status_code, detail or response.reason_phrase)
    encoded = answer.get("image_b64") if isinstance(answer, dict) else None
    if not isinstance(encoded, str):
        withheld = isinstance(answer, dict) and answer.get("removed_for_safety")
        raise RemoteFailed(
            "the service withheld the result for safety" if withheld else
            "this is no service with the Upscaling API: its response has no image"
        )  # fmt: skip
    return base64.b64decode(encoded)


def _error(status: int, detail: object) -> Exception:
    """The error that a response stands for."""
    if status == 401:
        return Unauthorized(f"the service does not accept the token: {detail}")
    if status == 422 and isinstance(detail, list):
        errors = [FieldError(tuple(e["loc"]), e["msg"], e["type"]) for e in detail]
        return InvalidRequest(*errors)
    return RemoteFailed(f"the service returned {status}: {detail}")


def _media_type(response: Response) -> str:
    return str(response.headers.get("Content-Type", "")).partition(";")[0].strip().lower()


def _path(job: str) -> str:
    return f"v1/requests/{quote(job, safe='')}"
