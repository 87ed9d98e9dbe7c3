"""How a defect is planted: parts of the mock are others for as long as it is served.

What is in place of them is made anew each time, so that it can begin without a memory.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mock_server.backend import backend
from mock_server.backend.backend import MockBackend
from mock_server.backend.nearest import NearestUpscaler
from mock_server.mock import Mock
from upscaler.api import request as contract
from upscaler.api import sizes
from upscaler.api.request import UpscalingRequest
from upscaler.api.sizes import Size
from upscaler.errors import FieldError, InvalidRequest
from upscaler.imaging.decode import EncodedImage
from upscaler.imaging.pixels import Pixels
from upscaler.models import UpscalingModel
from upscaler.service import app, intake
from upscaler.service.backend import Progress, StageTimer, UpscaleJob, UpscaleResult

Planting = Callable[[], AbstractContextManager[object]]
"""Enter it before the mock is made, and leave it when that is served no more."""
Fields = dict[str, Any]


@dataclass(frozen=True)
class Defect:
    """A mistake that somebody who writes such a service would make.

    `rules` are those that a judge may name for it, the most natural one first. `shown_by` asks a
    service something, and gives back what is not the same with the defect and without.
    """

    name: str
    mistake: str
    rules: tuple[str, ...]
    planted: Planting
    shown_by: Callable[[httpx.Client], object]


@dataclass(frozen=True)
class Asked:
    """A request as it came, its headers by their names in lower case; `token` is a valid one.

    `lines` are the headers one by one, and `port` is the client's, another for each connection.
    """

    method: str
    path: str
    headers: dict[str, str]
    token: str
    lines: Sequence[tuple[str, str]] = ()
    port: int = 0

    @property
    def has_token(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {self.token}"


@dataclass(frozen=True)
class Answer:
    """A whole answer, its headers by their names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """What is in its JSON, or None if it is none."""
        is_json = self.headers.get("content-type") == "application/json"
        return json.loads(self.body) if is_json else None

    def saying(self, document: object, status: int | None = None) -> "Answer":
        """The same with something else in its JSON, which is written as the service writes it."""
        body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        return self.being(body, "application/json", status)

    def being(self, body: bytes, kind: str, status: int | None = None) -> "Answer":
        """The same with another body of another type."""
        headers = self.headers | {"content-type": kind}
        return replace(self, status=status or self.status, headers=headers, body=body)

    def without(self, *names: str) -> "Answer":
        """The same but for some headers."""
        return replace(self, headers={k: v for k, v in self.headers.items() if k not in names})


def replaced(owner: object, name: str, make: Callable[[Any], Any]) -> Planting:
    """Put what `make` makes of an attribute in its place."""
    return lambda: patch.object(owner, name, make(getattr(owner, name)))


def patched(owner: object, name: str, value: object) -> Planting:
    """Put `value` in place of an attribute."""
    return replaced(owner, name, lambda _: value)


def together(*plantings: Planting) -> Planting:
    """Plant all of them."""

    @contextmanager
    def planted() -> Iterator[None]:
        with ExitStack() as stack:
            for planting in plantings:
                stack.enter_context(planting())
            yield

    return planted


# Around the app


class Layer:
    """Middleware outside of everything, through which all requests and answers go."""

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        asks: Callable[[Asked], dict[str, str]],
        answers: Callable[[Asked, Answer], Answer],
    ) -> None:
        self.app = app
        self._token = token
        self._asks = asks
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        lines = [
            (key.decode("latin-1").lower(), text.decode("latin-1"))
            for key, text in scope["headers"]
        ]
        headers, (_, port) = _by_name(scope["headers"]), scope["client"]
        asked = Asked(scope["method"], scope["path"], headers, self._token, lines, port)
        messages: list[Message] = []

        async def held(message: Message) -> None:
            messages.append(message)

        await self.app({**scope, "headers": _as_raw(self._asks(asked))}, receive, held)
        if not messages:
            return  # the client hung up
        head, *parts = messages
        body = b"".join(part.get("body", b"") for part in parts)
        answer = self._answers(asked, Answer(head["status"], _by_name(head["headers"]), body))
        raw = _as_raw(answer.headers | {"content-length": str(len(answer.body))})
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": answer.body})


def _by_name(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, text in raw:
        name, value = key.decode("latin-1").lower(), text.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _as_raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def changed_headers(change: Callable[[Asked], dict[str, str]]) -> Planting:
    """Let the mock see other headers of a request."""
    return _layer(lambda: (change, lambda _, answer: answer))


def changed_answer(change: Callable[[Asked, Answer], Answer]) -> Planting:
    """Let clients see other answers."""
    return _layer(lambda: (lambda asked: asked.headers, change))


def remembering(make: Callable[[], Callable[[Asked, Answer], Answer]]) -> Planting:
    """The same by what has a memory, and is made when it is planted."""
    return _layer(lambda: (lambda asked: asked.headers, make()))


def _layer(make: Callable[[], tuple[Any, Any]]) -> Planting:
    """Put a layer around the app, by what changes requests and answers."""

    def around(made: Callable[..., FastAPI]) -> Callable[..., FastAPI]:
        asks, answers = make()

        def layered(mock: Mock, *args: Any, **options: Any) -> FastAPI:
            service = made(mock, *args, **options)
            service.add_middleware(Layer, token=mock.tokens[0], asks=asks, answers=answers)
            return service

        return layered

    return replaced(Mock, "_build_app", around)


def changed_result(change: Callable[[Fields], object]) -> Planting:
    """Let the JSON around a picture be another, whether it was asked for at once or not."""

    def changed(_: Asked, answer: Answer) -> Answer:
        document = answer.document
        is_picture = isinstance(document, dict) and "image_b64" in document
        return answer.saying(change(document)) if is_picture else answer

    return changed_answer(changed)


# What is asked


def changed_fields(change: Callable[[Fields], Fields]) -> Planting:
    """Read other fields than were sent. What that raises becomes a 500."""

    def around(validate: Callable[[object], UpscalingRequest]) -> Any:
        return lambda fields: validate(change(fields) if isinstance(fields, dict) else fields)

    return replaced(contract, "validate_request", around)


def changed_image(change: Callable[[str], str]) -> Planting:
    """Read another text in init_image."""

    def changed(fields: Fields) -> Fields:
        text = fields.get("init_image")
        return fields | {"init_image": change(text)} if isinstance(text, str) else fields

    return changed_fields(changed)


def refusing(when: Callable[[Fields], bool], field: str, kind: str = "value_error") -> Planting:
    """Refuse some requests with a 422 on `field`."""

    def changed(fields: Fields) -> Fields:
        if when(fields):
            raise InvalidRequest(FieldError(("body", field), "this is not taken here", kind))
        return fields

    return changed_fields(changed)


def failing(when: Callable[[Fields], bool]) -> Planting:
    """Have a fault of one's own at some requests, which is a 500."""

    def changed(fields: Fields) -> Fields:
        if when(fields):
            raise ZeroDivisionError("planted")
        return fields

    return changed_fields(changed)


def failing_at_body(when: Callable[[bytes], bool]) -> Planting:
    """The same by the whole body."""

    def around(parse: Callable[[bytes], UpscalingRequest]) -> Any:
        def parsed(body: bytes) -> UpscalingRequest:
            if when(body):
                raise ZeroDivisionError("planted")
            return parse(body)

        return parsed

    return replaced(app, "parse_request", around)


def changed_detail(change: Callable[[list[Fields]], object]) -> Planting:
    """Tell other errors than there are."""
    return replaced(
        InvalidRequest, "detail", lambda told: property(lambda error: change(told.fget(error)))
    )


def changed_error(change: Callable[[Fields], Fields]) -> Planting:
    """Tell each error in another way."""
    return changed_detail(lambda errors: [change(error) for error in errors])


def refusing_body(when: Callable[[bytes], bool]) -> Planting:
    """Refuse some bodies as if they were no JSON."""

    def changed(body: bytes) -> bytes:
        if when(body):
            raise InvalidRequest(FieldError(("body",), "this is not JSON", "json_invalid"))
        return body

    return changed_body(changed)


def changed_body(change: Callable[[bytes], bytes]) -> Planting:
    """Read another body than was sent."""

    def around(parse: Callable[[bytes], UpscalingRequest]) -> Any:
        return lambda body: parse(change(bytes(body)))

    return replaced(app, "parse_request", around)


# Sizes


def changed_size(change: Callable[[UpscalingRequest, Size, Size], Size]) -> Planting:
    """Make another size of a request, an input's size and the size that would be right."""

    def around(requested: Callable[[UpscalingRequest, Size], Size]) -> Any:
        return lambda request, size: change(request, size, requested(request, size))

    return replaced(sizes, "requested_size", around)


def input_limits(fits: Callable[[int, int], bool]) -> Planting:
    """Take the inputs whose width and height fit, and no others."""

    def check(size: Size, field: str) -> None:
        if not fits(*size):
            kind = "image_too_small" if min(size) < 257 else "image_too_large"
            raise InvalidRequest(FieldError(("body", field), "256 to 2048 pixels a side", kind))

    return patched(sizes, "check_input_size", check)


def output_limits(fits: Callable[[str, int, int], bool]) -> Planting:
    """Make what fits, by the field that asks and the output's width and height."""

    def output_size(request: UpscalingRequest, size: Size) -> Size:
        sizes.check_input_size(size, request.image_field)
        wanted = sizes.requested_size(request, size)
        field = request.size_field
        if not fits(field, *wanted):
            msg = "the output may be at most 8192 pixels on each side"
            raise InvalidRequest(FieldError(("body", field), msg, "output_too_large"))
        return wanted

    return patched(intake, "output_size", output_size)


# Pictures


def changed_input(change: Callable[[EncodedImage, Pixels], Pixels]) -> Planting:
    """Read other pixels than a file has. What that raises becomes a 500."""

    def around(pixels: Callable[[EncodedImage], Pixels]) -> Any:
        return lambda picture: np.ascontiguousarray(change(picture, pixels(picture)))

    return replaced(EncodedImage, "pixels", around)


def redrawn(change: Callable[[Pixels], Pixels]) -> Planting:
    """Enlarge another picture than was given; it is made as large as was asked for all the same."""
    return redrawn_for(lambda pixels, _: change(pixels))


def redrawn_for(change: Callable[[Pixels, Size], Pixels]) -> Planting:
    """The same, by the size that is asked for."""

    def around(upscale: Callable[..., Iterator[Pixels]]) -> Any:
        def redrawing(
            upscaler: NearestUpscaler,
            pixels: Pixels,
            model: UpscalingModel,
            size: Size,
            progress: Progress,
        ) -> Iterator[Pixels]:
            other = np.ascontiguousarray(change(pixels, size))
            return upscale(upscaler, other, model, size, progress)

        return redrawing

    return replaced(NearestUpscaler, "upscale", around)


def changed_task(change: Callable[[UpscaleJob], UpscaleJob]) -> Planting:
    """Carry out another task, and say of it what was asked for."""
    return patched(backend, "apply_fault", change)


def changed_file(change: Callable[[bytes, UpscaleJob], bytes]) -> Planting:
    """Give out another file, and say of it what was asked for."""

    def around(make: Callable[..., Any]) -> Any:
        async def making(maker: MockBackend, task: UpscaleJob, timer: StageTimer) -> UpscaleResult:
            made: UpscaleResult = await make(maker, task, timer)
            return replace(made, file=[change(b"".join(made.file), task)])

        return making

    return replaced(MockBackend, "make", around)
