"""The OpenAPI description of each route, and the schemas of requests and responses."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from pydantic import BaseModel
from starlette.responses import PlainTextResponse, Response

from upscaler.api.headers import (
    ASYNC_HEADER,
    COST_HEADER,
    DRY_RUN_HEADER,
    FACES_HEADER,
    IGNORED_HEADER,
    INPUT_SIZE_HEADER,
    MODEL_HEADER,
    OUTPUT_SIZE_HEADER,
    REQUEST_ID_HEADER,
    WEIGHTS_HEADER,
)
from upscaler.api.request import UpscalingRequest
from upscaler.api.responses import (
    AsyncResponse,
    DryRunResponse,
    ErrorResponse,
    HTTPValidationError,
    ImageResponse,
)
from upscaler.formats import ImageEncoding
from upscaler.service.jobs.store import KEY_HEADER
from upscaler.service.negotiation import EVENTS as EVENTS_TYPE
from upscaler.service.webhooks import HEADER as WEBHOOK_HEADER

TEXT: Final = (
    "A drop-in for OctoAI's image Upscaling API. Every response has an id in the header "
    f"{REQUEST_ID_HEADER}: the one that the request has there, or else a new one."
)
SCHEMAS: Final = "#/components/schemas/"
FILES: Final = " or ".join(encoding.media_type for encoding in ImageEncoding)

INVALID: Final = "Validation Error"
CURSOR: Final = r"^[0-9]{1,15}(\.[0-9]{1,9})?$"
SAME: Final = "The same key and request give the same response for 24 hours."
KEY_PATTERN: Final = "^[!-~]{1,255}$"
WEBHOOK: Final = "A URL that is told when the inference is completed, by a POST."
ERROR_CONTENT: Final = {
    "content": {"application/json": {"schema": {"$ref": SCHEMAS + ErrorResponse.__name__}}}
}
"""Of a route with another media type: with `model`, FastAPI would give errors that one, too."""


class EventStream(Response):
    """The type of a response with events, for the description alone."""

    media_type = EVENTS_TYPE


class Zip(Response):
    """The same of a ZIP."""

    media_type = "application/zip"


UNAUTHORIZED: Final = {401: {"model": ErrorResponse, "description": "No valid token"}}
NOT_FOUND: Final = {404: {"model": ErrorResponse, "description": "No such id, or no longer"}}
NOT_NOW: Final = {
    503: {
        "model": ErrorResponse,
        "description": "The service is busy, or cannot do this at present",
        "headers": {
            "Retry-After": {
                "description": "After how many seconds to try again.",
                "schema": {"type": "integer"},
            }
        },
    }
}


def _parameter(place: str, name: str, description: str, **schema: object) -> dict[str, Any]:
    """A header, or an argument of the query: a string, unless the schema says otherwise."""
    whole = {"type": "string", **schema}
    return {"name": name, "in": place, "description": description, "schema": whole}


_header, _query = partial(_parameter, "header"), partial(_parameter, "query")


def _image(description: str, *models: type[BaseModel]) -> dict[str, Any]:
    """A 200 with an image, as the file itself or as JSON of one of `models`."""
    meanings = {
        "Server-Timing": "Milliseconds of each stage: fetch, decode, load, queue, infer, encode.",
        INPUT_SIZE_HEADER: "Size of the input in pixels, such as 304x256.",
        OUTPUT_SIZE_HEADER: "Size of the output.",
        MODEL_HEADER: "The model that upscaled it.",
        WEIGHTS_HEADER: "SHA-256 of the file with the model's weights.",
        FACES_HEADER: "How many faces were restored, if that was asked for.",
        IGNORED_HEADER: "A field of the request that was ignored: face_enhance.",
        COST_HEADER: "What the work cost in dollars, if the service knows its price.",
    }
    file = {"schema": {"type": "string", "format": "binary"}}
    schemas = [{"$ref": SCHEMAS + model.__name__} for model in models]
    return {
        "description": description,
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in meanings.items()
        },
        "content": {
            "application/json": {"schema": {"anyOf": schemas} if schemas[1:] else schemas[0]},
            **{encoding.media_type: file for encoding in ImageEncoding},
        },
    }


PREVIEW: Final = _query("preview", "1 asks for the rows, too, as small JPEGs in events `rows`.")
LIVEZ: Final[dict[str, Any]] = {"tags": ["operations"]}
HEALTHCHECK: Final[dict[str, Any]] = {"tags": ["operations"], "responses": NOT_NOW}
METRICS: Final[dict[str, Any]] = {
    "tags": ["operations"],
    "response_class": PlainTextResponse,
    "responses": {
        401: {"description": UNAUTHORIZED[401]["description"], **ERROR_CONTENT},
    },
}
UPSCALING: Final[dict[str, Any]] = {
    "responses": {
        200: _image(
            "The upscaled image, or the result of a dry run, or where an asynchronous one will be",
            ImageResponse,
            DryRunResponse,
            AsyncResponse,
        ),
        406: {"model": ErrorResponse, "description": "None of the accepted types can be given"},
        408: {"model": ErrorResponse, "description": "The body took too long to arrive"},
        413: {"model": ErrorResponse, "description": "The body is too large"},
        415: {"model": ErrorResponse, "description": "The body is in neither gzip nor deflate"},
        422: {"model": HTTPValidationError, "description": INVALID},
        **UNAUTHORIZED,
        **NOT_NOW,
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": SCHEMAS + UpscalingRequest.__name__}}
            },
        },
        "parameters": [
            _header(
                "Accept",
                f"{FILES} asks for the file itself, without JSON; {EVENTS_TYPE} for how far it is.",
            ),
            _header(ASYNC_HEADER, "1 asks for a response at once and the image later."),
            _header(DRY_RUN_HEADER, "1 asks what would come of the request, and upscales nothing."),
            _header(WEBHOOK_HEADER, WEBHOOK),
            _header(KEY_HEADER, SAME, pattern=KEY_PATTERN),
            _header(REQUEST_ID_HEADER, "An id of the client's own, to find the request by."),
            PREVIEW,
        ],
    },
}
EVENT_SCHEMA: Final = {
    "type": "object",  # of each event: OpenAPI has no more to say of a stream before 3.2
    "properties": {name: {"type": "string"} for name in ("event", "id", "data")},
}
LIST: Final[dict[str, Any]] = {
    "response_model_exclude_none": True,
    "responses": {**UNAUTHORIZED, 422: {"model": HTTPValidationError, "description": INVALID}},
    "openapi_extra": {
        "parameters": [
            _query(
                "limit", "How many at most.", type="integer", minimum=1, maximum=100, default=20
            ),
            _query("before", "The next_before of a page, for the next one.", pattern=CURSOR),
        ]
    },
}
CANCEL: Final[dict[str, Any]] = {
    "status_code": 204,
    "response_class": Response,
    "responses": {
        204: {"description": "It is stopped after its current rows, and is known no longer"},
        **UNAUTHORIZED,
        **NOT_FOUND,
    },
}
EVENTS: Final[dict[str, Any]] = {
    "response_class": EventStream,
    "responses": {
        200: {
            "content": {EVENTS_TYPE: {"schema": EVENT_SCHEMA}},
            "description": "`queued`, `progress` and at last `completed` or `failed`. Each event "
            "says how things are now, and the first how they are if that is not what "
            "`Last-Event-ID` says. With a preview, `rows` in between.",
        },
        401: {"description": UNAUTHORIZED[401]["description"], **ERROR_CONTENT},
        404: {"description": NOT_FOUND[404]["description"], **ERROR_CONTENT},
    },
    "openapi_extra": {"parameters": [PREVIEW]},
}
BATCH: Final[dict[str, Any]] = {
    "response_model_exclude_none": True,
    "responses": UNAUTHORIZED | NOT_FOUND,
}
BATCHES: Final[dict[str, Any]] = {
    "response_model_exclude_none": True,
    "responses": {
        408: {"model": ErrorResponse, "description": "The body took too long to arrive"},
        413: {"model": ErrorResponse, "description": "There are too many requests"},
        422: {"model": HTTPValidationError, "description": INVALID},
        **UNAUTHORIZED,
        **NOT_NOW,
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/jsonl": {
                    "schema": {"type": "string"},
                    "example": '{"name": "a", "init_image": "...", "scale": 2}',
                },
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "description": "Files under any name, and before them the fields of a "
                        "request, which all of them have in common.",
                        "properties": {
                            "files": {
                                "type": "array",
                                "items": {"type": "string", "format": "binary"},
                                "minItems": 1,
                            },
                        },
                        "required": ["files"],
                    }
                },
            },
        },
        "parameters": [
            _header(WEBHOOK_HEADER, WEBHOOK),
            _header(KEY_HEADER, SAME, pattern=KEY_PATTERN),
        ],
    },
}
ZIP: Final[dict[str, Any]] = {
    "response_class": Zip,
    "responses": {
        200: {"description": "The results, each as it is completed; errors.json has the errors"},
        401: {"description": UNAUTHORIZED[401]["description"], **ERROR_CONTENT},
        404: {"description": NOT_FOUND[404]["description"], **ERROR_CONTENT},
    },
}
WEBHOOK_SECRET: Final[dict[str, Any]] = {
    "responses": {**UNAUTHORIZED, 422: {"model": HTTPValidationError, "description": INVALID}}
}
WEBHOOK_TEST: Final[dict[str, Any]] = {
    **WEBHOOK_SECRET,
    "openapi_extra": {"parameters": [{**_header(WEBHOOK_HEADER, WEBHOOK), "required": True}]},
}
POLL: Final[dict[str, Any]] = {
    "response_model_exclude_none": True,
    "responses": UNAUTHORIZED | NOT_FOUND,
}
RESULT: Final[dict[str, Any]] = {
    "responses": {
        200: _image("The upscaled image", ImageResponse),
        307: {
            "description": "The response is at another host, where it needs no token. Only clients "
            "are sent there that are known to follow.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        422: {"model": HTTPValidationError, "description": INVALID},
        **UNAUTHORIZED,
        **NOT_FOUND,
        **NOT_NOW,
    },
}


def with_request_schema(
    openapi: Callable[[], dict[str, Any]], default_encoding: ImageEncoding
) -> Callable[[], dict[str, Any]]:
    """Return `openapi`, extended by the schemas that FastAPI cannot derive from the routes.

    The default of a request's output_image_encoding becomes `default_encoding`.
    """

    def complete() -> dict[str, Any]:
        document = openapi()
        schemas = document["components"]["schemas"]
        # HTTPValidationError replaces FastAPI's own, which has fields that no response here has.
        models = (UpscalingRequest, ImageResponse, DryRunResponse, AsyncResponse)
        for model in (*models, HTTPValidationError):
            schema = model.model_json_schema(ref_template=SCHEMAS + "{model}")
            schemas |= schema.pop("$defs", {})
            schemas[model.__name__] = schema
        encoding = schemas[UpscalingRequest.__name__]["properties"]["output_image_encoding"]
        encoding["default"] = default_encoding.value
        return document

    return complete
