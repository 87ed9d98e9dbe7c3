"""The Upscaling API: its limits and headers, its request, and which size a request asks for.

Rules are cited by id. REQ-1 to REQ-19 and RES-1 to RES-9 are listed, with their sources, in
docs/CONTRACT.md. This module does no I/O, and knows neither FastAPI nor torch: the service and the
mock server both stand on it, so they cannot drift apart.
"""

import re
from fractions import Fraction
from math import ceil, floor
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
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, from_json

from upscaler.errors import BodyTooLarge, FieldError, InvalidRequest
from upscaler.formats import ImageEncoding
from upscaler.models import UpscalingModel

Size = tuple[int, int]
"""Width and height in pixels."""

MIN_INPUT_PX: Final = 256
"""The shortest side an input may have (REQ-13)."""
MAX_INPUT_PX: Final = 2048
"""The longest side an input may have (REQ-13)."""
MAX_OUTPUT_PX: Final = 8192
"""The longest side an output may have (REQ-14)."""
MAX_BODY_BYTES: Final = 32 * 2**20
"""The most bytes a request body may have (RES-7, our choice). A 2048x2048 PNG of pure noise is
17 MB of base64, so every picture of eight bits a sample that meets REQ-13 fits."""

ASYNC_MAX_BODY_BYTES: Final = 10 * 2**20
"""The most bytes the body of an asynchronous request may have: 10 MB, in the larger sense of the
word (ASY-4)."""
MAX_COMMAS: Final = 10_000
"""How many commas a body may have (our choice). A request needs seven, and a URL may have some. An
empty object and a comma are three bytes, and become one of 64 in memory."""
TOO_MANY_VALUES: Final = "this JSON holds far more values than a request"
"""What is told of more."""
MAX_FIELDS: Final = 100
"""How many fields a request may have. There are eight, and for each other one an error is told."""
MAX_NAME_SHOWN: Final = 100
"""How many characters of an unknown field's name are told."""
RESULT_LIFETIME_S: Final = 24 * 60 * 60
"""How long the result of an asynchronous inference is kept (ASY-4)."""

REQUEST_ID_HEADER: Final = "X-User-Request-ID"
"""On every response; OctoAI's client prints it in its errors (RES-6)."""
AUTHORISED: Final = "authorised"
"""What a request's state has under this name is True once its token was found to be good."""
ASYNC_HEADER: Final = "X-OctoAI-Async"
"""`1` asks for an asynchronous inference (ASY-1)."""
DRY_RUN_HEADER: Final = "X-Upscaler-Dry-Run"
"""`1` asks what would come of the request, without inference. Ours, as the following are."""
INPUT_SIZE_HEADER: Final = "X-Upscaler-Input-Size"
OUTPUT_SIZE_HEADER: Final = "X-Upscaler-Output-Size"
"""On answers with a picture: width and height in pixels, such as 608x512."""
MODEL_HEADER: Final = "X-Upscaler-Model"
WEIGHTS_HEADER: Final = "X-Upscaler-Weights-SHA256"
COST_HEADER: Final = "X-Upscaler-Cost-USD"
"""On answers with a picture, if the service knows its price: what its work cost in dollars."""

IMAGE_FIELDS: Final = ("init_image", "init_image_url")
"""A request gives exactly one of these (REQ-4)."""
SIZE_FIELDS: Final = ("scale", "output_image_height", "output_image_width")
"""A request gives exactly one of these (REQ-5)."""

_DATA_PREFIX: Final = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE | re.ASCII)


def _decode_base64(value: object) -> object:
    """The bytes behind standard base64 text, tolerant of what REQ-17 tolerates and no more.

    Bytes pass as they are: a caller in the same process has the file itself.
    """
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "Input should be a valid string")
    prefix = _DATA_PREFIX.match(value)
    text = value[prefix.end() if prefix else 0 :]
    if "\n" in text or "\r" in text:  # which is found out sooner than replaced
        text = text.replace("\n", "").replace("\r", "")
    invalid = PydanticCustomError("base64_invalid", "this is not standard base64")
    if len(text) % 4 or text.endswith("==="):  # which some decoders let pass
        raise invalid
    try:
        image = pybase64.b64decode(text, validate=True)
    except ValueError as error:
        raise invalid from error
    if not image:
        raise PydanticCustomError("base64_empty", "this is empty: send an encoded image")
    return image


def _as_published(schema: dict[str, Any]) -> None:
    """Write the request's schema as the published one is: no default where null means absent."""
    schema["description"] = "What to enlarge, how far, with which model, into which file format."
    for field in schema["properties"].values():
        if field.get("default", ...) is None:
            del field["default"]


class UpscalingRequest(BaseModel):
    """What to enlarge, how far, with which model and into which file format.

    Values are coerced as pydantic's lax mode does (REQ-12), and unknown fields are refused
    (REQ-11). Raises pydantic's ValidationError, with all broken rules of one request together.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_as_published)

    init_image: Annotated[
        Annotated[bytes, BeforeValidator(_decode_base64), WithJsonSchema({"type": "string"})]
        | None,
        Field(
            title="Initial Image",
            description="The picture to enlarge: a PNG, JPEG or WebP file in standard base64. "
            "Exactly one of init_image and init_image_url is required.",
            repr=False,
        ),
    ] = None
    """The encoded file itself, decoded from base64 (REQ-17)."""

    init_image_url: Annotated[
        str | None,
        Field(
            title="Image URL",
            description="Where to download the picture to enlarge from.",
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
        Field(title="Upscaling Model", description="The network that enlarges the picture."),
    ] = UpscalingModel.X4_PLUS

    output_image_encoding: Annotated[
        ImageEncoding,
        Field(
            title="Output Image Encoding",
            description="The file format of the answer.",
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
        """The same, with `default` for an output_image_encoding that was not given (REQ-9)."""
        if "output_image_encoding" in self.model_fields_set:
            return self
        return self.model_copy(update={"output_image_encoding": default})

    @property
    def image_field(self) -> str:
        """Which field gave the image, for errors about it."""
        return next(name for name in IMAGE_FIELDS if getattr(self, name) is not None)

    @property
    def size_field(self) -> str:
        """Which field asked for the size, for errors about it."""
        return next(name for name in SIZE_FIELDS if getattr(self, name) is not None)

    @model_validator(mode="wrap")
    @classmethod
    def _collect_all_errors(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Check the exclusive groups beside the fields, not after them (REQ-19).

        A plain "after" validator would run only once every field is right, and so tell a client
        of its second mistake only when the first is mended.
        """
        errors = _group_errors(data) if isinstance(data, dict) else []
        try:
            request = handler(data)
        except pydantic.ValidationError as error:
            errors = [_copy(field) for field in error.errors(include_url=False)] + errors
        if errors:
            raise pydantic.ValidationError.from_exception_data(cls.__name__, errors)
        return request


def _group_errors(data: dict[str, Any]) -> list[InitErrorDetails]:
    """One error per field that is missing from, or surplus in, an exclusive group."""
    errors = []
    for group in (IMAGE_FIELDS, SIZE_FIELDS):
        choice = f"exactly one of {', '.join(group[:-1])} and {group[-1]} must be given"
        given = [name for name in group if data.get(name) is not None]
        broken = [(name, "conflicting") for name in given[1:]] or [(group[0], "missing")]
        if len(given) != 1:
            errors += [_detail((name,), choice, kind) for name, kind in broken]
    return errors


def _copy(error: ErrorDetails) -> InitErrorDetails:
    return _detail(error["loc"], error["msg"], error["type"])


def _detail(loc: tuple[int | str, ...], msg: str, kind: str) -> InitErrorDetails:
    """An error for pydantic to raise; it carries no input, so that none can be echoed."""
    error = PydanticCustomError(kind, msg)
    return InitErrorDetails(type=error, loc=loc, input=None)


def check_body_size(size_bytes: int, *, asynchronous: bool = False) -> None:
    """Raise BodyTooLarge for a body of more than a request may have (RES-7, ASY-4)."""
    most = ASYNC_MAX_BODY_BYTES if asynchronous else MAX_BODY_BYTES
    if size_bytes > most:
        kind = "an asynchronous request" if asynchronous else "a request"
        raise BodyTooLarge(f"the body of {kind} may have at most {most} bytes")


def parse_request(body: bytes | bytearray) -> UpscalingRequest:
    """The request in a JSON body, or InvalidRequest with every field error in it.

    JSON is read strictly: NaN, Infinity, lone surrogates and unbounded nesting are refused, since
    none of them could be written back in an answer; and so is a body of very many values, which
    would take far more time and memory than any request.
    """
    if has_too_many_values(body):
        raise InvalidRequest(FieldError(("body",), TOO_MANY_VALUES, "json_invalid"))
    try:
        fields = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        broken = FieldError(("body",), f"this is not valid JSON: {error}", "json_invalid")
        raise InvalidRequest(broken) from error
    return validate_request(fields)


def has_too_many_values(body: bytes | bytearray) -> bool:
    """Whether a body of JSON holds more than MAX_COMMAS commas.

    Looked for one by one, which is far sooner done than counting where there are few.
    """
    at = -1
    for _ in range(MAX_COMMAS + 1):
        at = body.find(b",", at + 1)
        if at < 0:
            return False
    return True


def validate_request(fields: object) -> UpscalingRequest:
    """The request that a mapping of field names to raw values makes, or InvalidRequest."""
    if not isinstance(fields, dict):
        raise InvalidRequest(FieldError(("body",), "send a JSON object", "model_type"))
    if len(fields) > MAX_FIELDS:
        msg = f"a request has {len(UpscalingRequest.model_fields)} fields, and not {len(fields)}"
        raise InvalidRequest(FieldError(("body",), msg, "too_many_fields"))
    try:
        return UpscalingRequest.model_validate(fields)
    except pydantic.ValidationError as error:
        raise InvalidRequest(
            *(
                FieldError(("body", *map(_shown, field["loc"])), field["msg"], field["type"])
                for field in error.errors(include_url=False, include_input=False)
            )
        ) from error


def _shown(part: str | int) -> str | int:
    return part[:MAX_NAME_SHOWN] if isinstance(part, str) else part


def output_size(request: UpscalingRequest, input_size: Size) -> Size:
    """The exact size of the picture that `request` asks for, given the size of its input.

    Raises InvalidRequest for an input outside REQ-13, named on the image's field, and for an
    output beyond REQ-14, named on the field that asked for it. Call it with the size from the
    image's header, before any pixel is decoded (REQ-15).
    """
    check_input_size(input_size, request.image_field)
    size = _requested_size(request, input_size)
    if max(size) > MAX_OUTPUT_PX:
        field = request.size_field
        msg = (
            f"the output may be at most {MAX_OUTPUT_PX} pixels on each side: for this input of "
            f"{input_size[0]}x{input_size[1]} pixels, ask for at most {_largest(field, input_size)}"
        )
        raise InvalidRequest(FieldError(("body", field), msg, "output_too_large"))
    return size


def check_input_size(size: Size, field: str) -> None:
    """Raise InvalidRequest on `field` unless both sides are 256 to 2048 pixels (REQ-13)."""
    if min(size) >= MIN_INPUT_PX and max(size) <= MAX_INPUT_PX:
        return
    kind = "image_too_small" if min(size) < MIN_INPUT_PX else "image_too_large"
    msg = (
        f"each side must be {MIN_INPUT_PX} to {MAX_INPUT_PX} pixels, "
        f"and this image is {size[0]}x{size[1]}"
    )
    raise InvalidRequest(FieldError(("body", field), msg, kind))


def scaled_size(size: Size, scale: float) -> Size:
    """`size` times `scale`, each side rounded half up and at least 1 (REQ-16).

    The arithmetic is exact on the shortest decimal that reads as `scale`, so that 290 pixels times
    0.35 is 101.5, and 102 pixels, although the binary number nearest to 0.35 lies below it.
    """
    factor = Fraction(str(scale))
    return _half_up(size[0] * factor), _half_up(size[1] * factor)


def _requested_size(request: UpscalingRequest, size: Size) -> Size:
    width, height = size
    if request.output_image_height is not None:
        return _half_up(Fraction(width * request.output_image_height, height)), (
            request.output_image_height
        )
    if request.output_image_width is not None:
        return request.output_image_width, (
            _half_up(Fraction(height * request.output_image_width, width))
        )
    assert request.scale is not None, "the request's validator lets exactly one of the three pass"
    return scaled_size(size, request.scale)


def _half_up(side: Fraction) -> int:
    return max(1, floor(side + Fraction(1, 2)))


def _largest(field: str, size: Size) -> str:
    """The largest value of a size field that keeps the output of this input within REQ-14."""
    width, height = size
    reach = MAX_OUTPUT_PX + Fraction(1, 2)  # every side below this is rounded to the limit or less
    if field == "output_image_height":
        return str(min(MAX_OUTPUT_PX, ceil(reach * height / width) - 1))
    if field == "output_image_width":
        return str(min(MAX_OUTPUT_PX, ceil(reach * width / height) - 1))
    thousandths = ceil(1000 * reach / max(size)) - 1
    return f"{thousandths / 1000:g}"
