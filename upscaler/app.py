"""The API over HTTP: `create_app` puts the contract in front of anything that can enlarge pixels.

The route reads in the order in which errors are told (REQ-19): method and path by the router, then
token, body size, JSON, fields, image header, input size, output size; only then is work done.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any, Protocol
from uuid import uuid4

import anyio
from anyio import to_thread
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upscaler import encoding, images, page
from upscaler.contract import (
    ASYNC_HEADER,
    REQUEST_ID_HEADER,
    HTTPValidationError,
    ImageResponse,
    Size,
    UpscalingRequest,
    check_body_size,
    output_size,
    parse_request,
)
from upscaler.errors import FieldError, InvalidRequest, Unauthorized, UpscalerError
from upscaler.images import Pixels
from upscaler.models import UpscalingModel
from upscaler.settings import Settings

log = logging.getLogger(__name__)

SCHEMAS = "#/components/schemas/"


class Backend(Protocol):
    """What enlarges pictures for the service. Calls come from worker threads."""

    face_enhance: bool
    """Whether the backend can honour `face_enhance` (REQ-10)."""

    def load(self, model: UpscalingModel) -> object:
        """Make `model` ready, however long that takes; called before each `upscale`."""
        ...

    def upscale(self, pixels: Pixels, model: UpscalingModel, size: Size) -> Iterable[Pixels]:
        """`pixels` enlarged to exactly `size` (width, height), with as many channels.

        In strips of any number of rows, from top to bottom, each as soon as it is known.
        """
        ...


def create_app(backend: Backend, settings: Settings) -> FastAPI:
    """The service on top of `backend`, for the bearer tokens in `settings`.

    Raises ValueError without any token: a service that lets everybody in is never meant.
    """
    if not settings.tokens:
        raise ValueError("the service needs at least one token")
    app = FastAPI(
        title="Upscaling API",
        description="A drop-in for OctoAI's image Upscaling API.",
        version="0.1",
        redirect_slashes=False,
        exception_handlers={UpscalerError: _answer_error},
    )
    app.add_middleware(Envelope)
    app.include_router(page.router)
    # One picture at a time: an inference already uses every core, and memory is for one.
    one_at_a_time = anyio.CapacityLimiter(1)

    @app.get("/healthcheck")
    async def healthcheck() -> dict[str, str]:
        """Say that the service takes requests; needs no token."""
        return {"status": "ok"}

    @app.post(
        "/upscaling",
        response_model=ImageResponse,
        dependencies=[Depends(_token_check(settings.tokens))],
        responses={422: {"model": HTTPValidationError, "description": "Validation Error"}},
        openapi_extra={"requestBody": _request_body()},
    )
    async def upscaling(request: Request) -> Response:
        """Upscale the given picture."""
        wanted = await to_thread.run_sync(parse_request, await _read_json(request))
        _check_offered(request, wanted, backend)
        assert wanted.init_image is not None, "no other source is offered"
        picture = await to_thread.run_sync(images.read_header, wanted.init_image)
        size = output_size(wanted, picture.size)
        pixels = await to_thread.run_sync(picture.pixels)
        await to_thread.run_sync(backend.load, wanted.model)

        def enlarged() -> list[bytes]:
            strips = backend.upscale(pixels, wanted.model, size)
            return list(encoding.encode_strips(strips, size[1], wanted.output_image_encoding))

        # Encoded while it is being made, and sent when it is there, so that a failure can be told.
        return _answer(await to_thread.run_sync(enlarged, limiter=one_at_a_time))

    app.openapi = _with_request_schema(app.openapi)  # type: ignore[method-assign]
    return app


class Envelope:
    """Middleware that puts an id on every answer (RES-6) and has an answer to every fault (RES-7).

    A fault that nobody foresaw is logged and answered here and goes no further: the server would
    close the connection on it, and a client's next request on that connection would be lost.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"].append((REQUEST_ID_HEADER.encode(), request_id.encode()))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            log.info("request %s: the client hung up", request_id)
        except Exception:
            log.exception("request %s failed", request_id)
            if started:
                raise
            answer = JSONResponse({"detail": "Internal Server Error"}, 500)
            await answer(scope, receive, send_with_id)


async def _answer_error(request: Request, error: Exception) -> Response:
    """The one place where an error that was raised on purpose becomes an answer (RES-4, RES-7)."""
    assert isinstance(error, UpscalerError), "registered for this class alone"
    if error.status >= 500:
        log.error("request %s failed: %s", request.state.request_id, error, exc_info=error)
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else None
    return JSONResponse({"detail": error.detail}, error.status, headers)


def _token_check(tokens: tuple[str, ...]) -> Callable[..., Awaitable[None]]:
    """A dependency that lets only requests with one of `tokens` pass (REQ-2)."""
    accepted = [token.encode() for token in tokens]
    bearer = HTTPBearer(auto_error=False, description="One of the tokens in UPSCALER_TOKEN.")

    async def check(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> None:
        # Header text is latin-1 by the time it comes here; every token is compared, so that the
        # time taken does not tell which one was nearly right.
        offered = given.credentials.encode("latin-1") if given else b""
        matches = [hmac.compare_digest(offered, token) for token in accepted]
        if not any(matches):
            raise Unauthorized("send a valid token in the header: Authorization: Bearer TOKEN")

    return check


async def _read_json(request: Request) -> bytes:
    """The body, read no further than a body may be long, if it is said to be JSON (REQ-3)."""
    declared = request.headers.get("Content-Length", "")
    check_body_size(int(declared) if declared.isdecimal() else 0)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        check_body_size(len(body))
    media_type = request.headers.get("Content-Type", "").partition(";")[0]
    if media_type.strip().lower() != "application/json":
        msg = "send the header Content-Type: application/json"
        raise InvalidRequest(FieldError(("header", "Content-Type"), msg, "content_type"))
    return bytes(body)


def _check_offered(request: Request, wanted: UpscalingRequest, backend: Backend) -> None:
    """Raise InvalidRequest for what the API has and this service does not do."""
    errors = []
    if wanted.face_enhance and not backend.face_enhance:
        msg = "there is no face model here: leave face_enhance out or false"
        errors.append(FieldError(("body", "face_enhance"), msg, "face_enhance_unavailable"))
    if wanted.init_image_url is not None:
        msg = "this service downloads nothing: send the image itself as init_image"
        errors.append(FieldError(("body", "init_image_url"), msg, "init_image_url_unavailable"))
    if request.headers.get(ASYNC_HEADER) == "1":
        msg = "inference is synchronous here: leave this header out"
        errors.append(FieldError(("header", ASYNC_HEADER), msg, "async_unavailable"))
    if errors:
        raise InvalidRequest(*errors)


def _answer(file: list[bytes]) -> Response:
    """The answer that holds the picture whose file has these pieces."""
    length = encoding.json_bytes(sum(map(len, file)))
    return StreamingResponse(
        encoding.in_json(file),
        media_type="application/json",
        headers={"Content-Length": str(length)},
    )


def _request_body() -> dict[str, Any]:
    """The request body in OpenAPI; the route parses it itself, to keep the order of REQ-19."""
    schema = {"$ref": f"{SCHEMAS}{UpscalingRequest.__name__}"}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _with_request_schema(openapi: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """`openapi` with the request's schema, and what that refers to, among its components."""

    def complete() -> dict[str, Any]:
        document = openapi()
        schema = UpscalingRequest.model_json_schema(ref_template=SCHEMAS + "{model}")
        document["components"]["schemas"] |= schema.pop("$defs", {})
        document["components"]["schemas"][UpscalingRequest.__name__] = schema
        return document

    return complete
