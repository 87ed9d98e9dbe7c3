"""The request of the Upscaling API: its fields, and how it is parsed from JSON.

Rules are cited by id: docs/CONTRACT.md lists REQ-1 to REQ-19 and RES-1 to RES-9 with their sources.
"""

import re
from typing import Annotated, Any, Final, Self

import pybase64
import pydantic
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, from_json

from upscaler.api.limits import MAX_COMMAS, MAX_FIELDS, MAX_NAME_SHOWN
from upscaler.errors import FieldError, InvalidRequest
from upscaler.formats import ImageEncoding
from upscaler.models import UpscalingModel

TOO_MANY_VALUES: Final = "this JSON holds far more values than a request"
"""The message of the error beyond MAX_COMMAS."""
IMAGE_FIELDS: Final = ("init_image", "init_image_url")
"""A request gives exactly one of these (REQ-4)."""
SIZE_FIELDS: Final = ("scale", "output_image_height", "output_image_width")
"""A request gives exactly one of these (REQ-5)."""

_DATA_PREFIX: Final = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE | re.ASCII)


def _decode_base64(value: object) -> object:
    """Decode standard base64 with what REQ-17 tolerates: line breaks and a `data:` prefix.

    Bytes are returned unchanged: callers in the same process pass the file itself.
    """
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "Input should be a valid string")
    prefix = _DATA_PREFIX.match(value)
    text = value[prefix.end() if prefix else 0 :]
    if "\n" in text or "\r" in text:  # two searches are faster than two copies
        text = text.replace("\n", "").replace("\r", "")
    invalid = PydanticCustomError("base64_invalid", "this is not standard base64")
    if len(text) % 4 or text.endswith("==="):  # some decoders accept both
        raise invalid
    try:
        image = pybase64.b64decode(text, validate=True)
    except ValueError as error:
        raise invalid from error
    if not image:
        raise PydanticCustomError("base64_empty", "this is empty: send an encoded image")
    return image


def _as_published(schema: dict[str, Any]) -> None:
    """Make the schema equal to the published one: no default where null means absent."""
    schema["description"] = (
        "What to upscale, how far, with which model, and the file format of the result."
    )
    for field in schema["properties"].values():
        if field.get("default", ...) is None:
            del field["default"]


class UpscalingRequest(BaseModel):
    """What to upscale, by how much, with which model and into which file format.

    Values are converted as in pydantic's lax mode (REQ-12), and unknown fields are refused
    (REQ-11). Raises pydantic's ValidationError with all errors of a request together.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_as_published)

    init_image: Annotated[
        Annotated[bytes, BeforeValidator(_decode_base64), WithJsonSchema({"type": "string"})]
        | None,
        Field(
            title="Initial Image",
            description="The image to upscale: a PNG, JPEG or WebP file in standard base64. "
            "Exactly one of init_image and init_image_url is required.",
            repr=False,
        ),
    ] = None
    """The encoded file itself, decoded from base64 (REQ-17)."""

    init_image_url: Annotated[
        str | None,
        Field(
            title="Image URL",
            description="Where to download the image to upscale from.",
        ),
    ] = None

    scale: Annotated[
        Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
        Field(
            title="Upscaling Factor",
            description="How many times longer both sides become. Exactly one of scale, "
            "output_image_height and output_image_width is required.",
            examples=[4.0],
        ),
    ] = None

    output_image_height: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Field(
            title="Output Image Height",
            description="Height of the output in pixels; the width follows the aspect ratio.",
        ),
    ] = None

    output_image_width: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Field(
            title="Output Image Width",
            description="Width of the output in pixels; the height follows the aspect ratio.",
        ),
    ] = None

    model: Annotated[
        UpscalingModel,
        Field(title="Upscaling Model", description="The model that upscales the image."),
    ] = UpscalingModel.X4_PLUS

    output_image_encoding: Annotated[
        ImageEncoding,
        Field(
            title="Output Image Encoding",
            description="The file format of the result.",
            examples=["jpeg"],
        ),
    ] = ImageEncoding.PNG

    face_enhance: Annotated[
        bool,
        Field(
            title="Enable Face Enhancer",
            description="Whether faces go through a model of their own as well.",
            examples=[True],
        ),
    ] = False

    def with_default_encoding(self, default: ImageEncoding) -> Self:
        """Return the request with `default` as its output_image_encoding if it has none (REQ-9)."""
        if "output_image_encoding" in self.model_fields_set:
            return self
        return self.model_copy(update={"output_image_encoding": default})

    @property
    def image_field(self) -> str:
        """The field with the image, for errors about it."""
        return next(name for name in IMAGE_FIELDS if getattr(self, name) is not None)

    @property
    def size_field(self) -> str:
        """The field with the requested size, for errors about it."""
        return next(name for name in SIZE_FIELDS if getattr(self, name) is not None)

    @model_validator(mode="wrap")
    @classmethod
    def _collect_all_errors(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Check the exclusive groups together with the fields (REQ-19).

        An "after" validator would run only if every field is valid, and so report the second
        mistake of a client only after it has corrected the first.
        """
        errors = _group_errors(data) if isinstance(data, dict) else []
        try:
            request = handler(data)
        except pydantic.ValidationError as error:
            fields = error.errors(include_url=False, include_input=False)
            errors = [_detail(each["loc"], each["msg"], each["type"]) for each in fields] + errors
        if errors:
            raise pydantic.ValidationError.from_exception_data(cls.__name__, errors)
        return request


def _group_errors(data: dict[str, Any]) -> list[InitErrorDetails]:
    """One error per field that is missing from an exclusive group or conflicts with another."""
    errors = []
    for group in (IMAGE_FIELDS, SIZE_FIELDS):
        choice = f"exactly one of {', '.join(group[:-1])} and {group[-1]} must be given"
        given = [name for name in group if data.get(name) is not None]
        broken = [(name, "conflicting") for name in given[1:]] or [(group[0], "missing")]
        if len(given) != 1:
            errors += [_detail((name,), choice, kind) for name, kind in broken]
    return errors


def _detail(loc: tuple[int | str, ...], msg: str, kind: str) -> InitErrorDetails:
    """An error for pydantic to raise; without the input, so that no response can repeat it."""
    error = PydanticCustomError(kind, msg)
    return InitErrorDetails(type=error, loc=loc, input=None)


def parse_request(body: bytes | bytearray) -> UpscalingRequest:
    """Parse a JSON body. Raises InvalidRequest with all field errors."""
    return validate_request(parse_fields(body))


def parse_fields(body: bytes | bytearray) -> object:
    """Parse a JSON body, whatever it is. Raises InvalidRequest.

    NaN, Infinity, lone surrogates and very deep nesting are refused, since none of them could be
    written in a response. So are bodies of very many values, which would take far more time and
    memory than any valid request.
    """
    if has_too_many_values(body):
        raise InvalidRequest(FieldError(("body",), TOO_MANY_VALUES, "json_invalid"))
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        broken = FieldError(("body",), f"this is not valid JSON: {error}", "json_invalid")
        raise InvalidRequest(broken) from error


def has_too_many_values(body: bytes | bytearray) -> bool:
    """Whether a JSON body has more than MAX_COMMAS commas.

    Searching one by one is far faster than `count` if there are few: `find` scans by memchr.
    """
    at = -1
    for _ in range(MAX_COMMAS + 1):
        at = body.find(b",", at + 1)
        if at < 0:
            return False
    return True


def validate_request(fields: object) -> UpscalingRequest:
    """Validate a mapping of field names to raw values. Raises InvalidRequest."""
    if not isinstance(fields, dict):
        raise InvalidRequest(FieldError(("body",), "send a JSON object", "model_type"))
    if len(fields) > MAX_FIELDS:  # pydantic would build an error for each unknown one
        msg = f"a request has {len(UpscalingRequest.model_fields)} fields, and not {len(fields)}"
        raise InvalidRequest(FieldError(("body",), msg, "too_many_fields"))
    try:
        return UpscalingRequest.model_validate(fields)
    except pydantic.ValidationError as error:
        errors = []
        for field in error.errors(include_url=False, include_input=False):
            # The name of an unknown field is the client's: up to 32 MiB long.
            names = (
                each[:MAX_NAME_SHOWN] if isinstance(each, str) else each for each in field["loc"]
            )
            errors.append(FieldError(("body", *names), field["msg"], field["type"]))
        raise InvalidRequest(*errors) from error
