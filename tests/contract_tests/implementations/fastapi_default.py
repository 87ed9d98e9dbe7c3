"""The API as somebody writes it with FastAPI in an afternoon, with nearly all at its default.

A 422 repeats no input: with FastAPI's own handler NaN and half of a surrogate pair would be a 500.
"""

import base64
import secrets
from enum import StrEnum
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from PIL import Image
from pydantic import BaseModel, ConfigDict

from tests.contract_tests.implementations.pixels import NoImage, read, resized

MISTAKES = {
    "any-token": ("REQ-2", "Checks that there is a token, and not which one."),
    "unknown-ignored": ("REQ-11", "Ignores unknown fields, as pydantic does by default."),
    "input-of-255": ("REQ-13", "Takes inputs of less than 256 pixels."),
    "sides-swapped": ("REQ-16", "Swaps width and height where a side is computed."),
    "garbage-500": ("RES-5", "Does not catch what its decoder raises."),
    "own-422": ("RES-5", "Repeats the input in a 422, as FastAPI does, which fails for NaN."),
    "null-size": ("REQ-5", "Takes a null for a size, and refuses it beside another one."),
}
"""What can be wrong with it by intention: the rule that it breaks, and how."""


class UpscalingModel(StrEnum):
    X4_PLUS = "real-esrgan-x4-plus"
    X4_V3 = "real-esrgan-x4-v3"
    X4_V3_WDN = "real-esrgan-x4-v3-wdn"
    ANIME_VIDEO = "real-esrgan-animevideo-v3"
    X4_PLUS_ANIME = "real-esrgan-x4-plus-anime"
    X2_PLUS = "real-esrgan-x2-plus"


class ImageEncoding(StrEnum):
    JPEG = "jpeg"
    PNG = "png"


class UpscalingRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    init_image: str | None = None
    init_image_url: str | None = None
    scale: float | None = None
    output_image_height: int | None = None
    output_image_width: int | None = None
    model: UpscalingModel = UpscalingModel.X4_PLUS
    output_image_encoding: ImageEncoding = ImageEncoding.JPEG
    face_enhance: bool = False


class LenientRequest(UpscalingRequest):
    model_config = ConfigDict(extra="ignore")


SIZES = ("scale", "output_image_height", "output_image_width")


class Upscaler:
    """What is behind the routes; `mistake` is one of MISTAKES, or none."""

    def __init__(self, token: str, mistake: str) -> None:
        self.token, self.mistake = token, mistake
        self.results: dict[str, object] = {}

    def check_token(
        self, given: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]
    ) -> None:
        right = secrets.compare_digest(given.credentials.encode(), self.token.encode())
        if self.mistake != "any-token" and not right:
            raise HTTPException(403, "Invalid token")

    def check(self, asked: UpscalingRequest) -> tuple[Image.Image, tuple[int, int]]:
        """The image and the size of the output; raises HTTPException."""
        if (asked.init_image is None) == (asked.init_image_url is None):
            raise HTTPException(400, "Give either init_image or init_image_url")
        if len(self._sizes(asked)) != 1:
            raise HTTPException(400, f"Give exactly one of {', '.join(SIZES)}")
        image = self._image(asked.init_image)
        if min(image.size) < (200 if self.mistake == "input-of-255" else 256):
            raise HTTPException(400, "The image is too small")
        if max(image.size) > 2048:
            raise HTTPException(413, "The image is too large")
        size = self._output_size(asked, *image.size)
        if min(size) < 1:
            raise HTTPException(400, "The output would be empty")
        if max(size) > 8192:
            raise HTTPException(413, "The output would be too large")
        return image, size

    def _sizes(self, asked: UpscalingRequest) -> list[str]:
        if self.mistake == "null-size":
            return [name for name in SIZES if name in asked.model_fields_set]
        return [name for name in SIZES if getattr(asked, name) is not None]

    def _image(self, text: str | None) -> Image.Image:
        if text is None:
            raise HTTPException(400, "The image could not be downloaded")
        try:
            file = base64.b64decode(text, validate=True)
        except ValueError as error:
            raise HTTPException(400, "init_image is not base64") from error
        try:
            return read(file)
        except NoImage as error:
            if self.mistake == "garbage-500":
                raise
            raise HTTPException(415, "init_image is not an image") from error

    def _output_size(self, asked: UpscalingRequest, width: int, height: int) -> tuple[int, int]:
        if asked.scale is not None:
            size = width * asked.scale, height * asked.scale
            if not 0 < max(size) < 10**6:
                raise HTTPException(400, "The scale is out of range")
            return round(size[0]), round(size[1])
        if self.mistake == "sides-swapped":
            width, height = height, width
        if asked.output_image_height is not None:
            return round(width * asked.output_image_height / height), asked.output_image_height
        assert asked.output_image_width is not None
        return asked.output_image_width, round(height * asked.output_image_width / width)


def upscale(image: Image.Image, size: tuple[int, int], encoding: str) -> dict[str, object]:
    file = resized(image, *size, encoding)
    return {"image_b64": base64.b64encode(file).decode(), "removed_for_safety": False}


def create_app(token: str, mistake: str = "") -> FastAPI:
    """The app; `mistake` is one of MISTAKES, or none."""
    app, upscaler = FastAPI(title="Upscaler"), Upscaler(token, mistake)
    results = upscaler.results
    with_token = [Depends(upscaler.check_token)]
    model = LenientRequest if mistake == "unknown-ignored" else UpscalingRequest

    def upscaling(
        request: Request, asked: UpscalingRequest, tasks: BackgroundTasks
    ) -> dict[str, object]:
        encoding = asked.output_image_encoding
        if request.headers.get("X-OctoAI-Async") != "1":
            return upscale(*upscaler.check(asked), encoding)
        if int(request.headers.get("Content-Length", 0)) > 10 * 2**20:
            raise HTTPException(413, "Request Entity Too Large")
        image, size = upscaler.check(asked)
        identifier = secrets.token_hex(8)
        tasks.add_task(lambda: results.update({identifier: upscale(image, size, encoding)}))
        return {"response_id": identifier, "poll_url": f"{public(request)}/poll/{identifier}"}

    upscaling.__annotations__["asked"] = model
    app.post("/upscaling", dependencies=with_token)(upscaling)

    @app.get("/poll/{identifier}", dependencies=with_token)
    def poll(request: Request, identifier: str) -> dict[str, object]:
        if identifier not in results:
            return {"status": "running"}
        return {"status": "completed", "response_url": f"{public(request)}/results/{identifier}"}

    @app.get("/results/{identifier}", dependencies=with_token)
    def result(identifier: str) -> object:
        return results[identifier]

    @app.get("/healthcheck")
    def healthcheck() -> dict[str, str]:
        return {"status": "ok"}

    if mistake != "own-422":
        app.exception_handler(RequestValidationError)(without_input)
    return app


async def without_input(_: Request, error: RequestValidationError) -> JSONResponse:
    kept = ("loc", "msg", "type")
    detail = [{name: each[name] for name in kept} for each in error.errors()]
    return JSONResponse({"detail": detail}, 422)


def public(request: Request) -> str:
    """The URL under which clients know it, as the proxy in front of it says."""
    told = request.headers
    scheme, host = told.get("X-Forwarded-Proto", "http"), told["Host"]
    return f"{scheme}://{host}{told.get('X-Forwarded-Prefix', '')}"
