"""Mistakes with the fields of a request: their names, their words, and what is told of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from tests.contract_tests.defects.planting import (
    Defect,
    Fields,
    Planting,
    changed_detail,
    changed_error,
    changed_fields,
    changed_task,
    failing,
    patched,
    refusing,
    replaced,
)
from tests.contract_tests.defects.probes import asking, sending
from upscaler.api import request as contract
from upscaler.api.request import UpscalingRequest
from upscaler.formats import ImageEncoding
from upscaler.models import UpscalingModel
from upscaler.service import app

MANY: Final = {f"field_{number}": 1 for number in range(101)}


def reading(name: str, change: Callable[[Any], Any]) -> Planting:
    """Read another value of a field, if there is one."""
    return changed_fields(
        lambda fields: fields | {name: change(fields[name])} if name in fields else fields
    )


def missing(change: Fields, *names: str) -> Planting:
    """Take some values if none of the names is given."""
    return changed_fields(
        lambda fields: (
            fields if any(fields.get(name) is not None for name in names) else fields | change
        )
    )


def wanting(change: Callable[[UpscalingRequest], dict[str, object]]) -> Planting:
    """Do otherwise than was asked, once all is read."""

    def around(parse: Callable[[bytes], UpscalingRequest]) -> Any:
        def wanted(body: bytes) -> UpscalingRequest:
            request = parse(body)
            return request.model_copy(update=change(request))

        return wanted

    return replaced(app, "parse_request", around)


def unless_named(name: str, value: object) -> Planting:
    """Have another default."""
    return changed_fields(lambda fields: {name: value} | fields)


def encoded(encoding: ImageEncoding) -> Planting:
    """Make files in one encoding."""
    return changed_task(lambda task: replace(task, encoding=encoding))


def number(value: object) -> bool:
    """Whether JSON has it as a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


MODELS: Final = (
    Defect(
        "model-forgotten",
        "Does not know real-esrgan-x4-v3-wdn.",
        ("REQ-8",),
        refusing(lambda f: f.get("model") == UpscalingModel.X4_V3_WDN, "model", "enum"),
        asking(model="real-esrgan-x4-v3-wdn"),
    ),
    Defect(
        "model-misspelt",
        "Knows real-esrgan-animevideo-v3 only as realesr-animevideov3, as its author calls it.",
        ("REQ-8",),
        reading(
            "model",
            lambda name: {
                "realesr-animevideov3": "real-esrgan-animevideo-v3",
                "real-esrgan-animevideo-v3": "unknown",
            }.get(str(name), name),
        ),
        asking(model="real-esrgan-animevideo-v3"),
    ),
    Defect(
        "model-unknown-is-default",
        "Takes the default for a model that it does not know.",
        ("REQ-8",),
        reading(
            "model", lambda name: name if name in list(UpscalingModel) else "real-esrgan-x4-plus"
        ),
        asking(model="real-esrgan-x8"),
    ),
    Defect(
        "model-default-other",
        "Takes real-esrgan-x4-v3 if no model is named.",
        ("REQ-8",),
        unless_named("model", "real-esrgan-x4-v3"),
        asking(),
    ),
    Defect(
        "model-ignored",
        "Takes real-esrgan-x4-plus whatever is named.",
        ("REQ-8",),
        wanting(lambda _: {"model": UpscalingModel.X4_PLUS}),
        asking(model="real-esrgan-x2-plus"),
    ),
    Defect(
        "model-in-any-case",
        "Takes a model's name in capitals.",
        ("REQ-8",),
        reading("model", lambda name: name.lower() if isinstance(name, str) else name),
        asking(model="Real-ESRGAN-x4-plus"),
    ),
    Defect(
        "model-null-is-default",
        "Takes a null for the default model.",
        ("REQ-8",),
        reading("model", lambda name: "real-esrgan-x4-plus" if name is None else name),
        asking(model=None),
    ),
    Defect(
        "model-empty-is-default",
        "Takes an empty name for the default model.",
        ("REQ-8",),
        reading("model", lambda name: "real-esrgan-x4-plus" if name == "" else name),
        asking(model=""),
    ),
)

ENCODINGS: Final = (
    Defect(
        "encoding-default-jpeg",
        "Makes a JPEG if no encoding is named.",
        ("REQ-9",),
        unless_named("output_image_encoding", "jpeg"),
        asking(),
    ),
    Defect(
        "encoding-ignored",
        "Makes a PNG whatever is named.",
        ("REQ-9", "RES-2"),
        encoded(ImageEncoding.PNG),
        asking(output_image_encoding="jpeg"),
    ),
    Defect(
        "encoding-always-jpeg",
        "Makes a JPEG even where PNG is named.",
        ("REQ-9", "RES-2"),
        encoded(ImageEncoding.JPEG),
        asking(output_image_encoding="png"),
    ),
    Defect(
        "encoding-jpg",
        "Takes jpg for jpeg.",
        ("REQ-9",),
        reading("output_image_encoding", lambda name: "jpeg" if name == "jpg" else name),
        asking(output_image_encoding="jpg"),
    ),
    Defect(
        "encoding-in-any-case",
        "Takes an encoding's name in capitals.",
        ("REQ-9",),
        reading("output_image_encoding", lambda name: str(name).lower()),
        asking(output_image_encoding="PNG"),
    ),
    Defect(
        "encoding-unknown-is-png",
        "Makes a PNG of what it does not know.",
        ("REQ-9",),
        reading("output_image_encoding", lambda name: "jpeg" if name == "jpeg" else "png"),
        asking(output_image_encoding="webp"),
    ),
    Defect(
        "encoding-null-is-default",
        "Takes a null for the default encoding.",
        ("REQ-9",),
        reading("output_image_encoding", lambda name: "png" if name is None else name),
        asking(output_image_encoding=None),
    ),
)

FLAGS: Final = (
    Defect(
        "face-enhance-by-truth",
        "Takes whatever is not empty for true.",
        ("REQ-10", "REQ-12"),
        reading("face_enhance", bool),
        asking(face_enhance="maybe"),
    ),
    Defect(
        "face-enhance-false-refused",
        "Refuses face_enhance even if it is false.",
        ("REQ-10",),
        refusing(lambda fields: "face_enhance" in fields, "face_enhance"),
        asking(face_enhance=False),
    ),
    Defect(
        "face-enhance-500",
        "Has a fault of its own where it is to enhance faces.",
        ("RES-5", "REQ-10"),
        failing(lambda fields: fields.get("face_enhance") is True),
        asking(face_enhance=True),
    ),
    Defect(
        "face-enhance-text-refused",
        "Refuses a boolean that is a word in a string.",
        ("REQ-12", "REQ-10"),
        refusing(lambda fields: fields.get("face_enhance") == "false", "face_enhance", "bool_type"),
        asking(face_enhance="false"),
    ),
)

NAMES: Final = (
    Defect(
        "unknown-field-ignored",
        "Ignores fields that it does not know.",
        ("REQ-11",),
        changed_fields(
            lambda fields: {k: v for k, v in fields.items() if k in UpscalingRequest.model_fields}
        ),
        asking(upscale=2),
    ),
    Defect(
        "unknown-null-ignored",
        "Ignores fields that it does not know if they are null.",
        ("REQ-11",),
        changed_fields(
            lambda fields: {
                name: value
                for name, value in fields.items()
                if name in UpscalingRequest.model_fields or value is not None
            }
        ),
        asking(upscale=None),
    ),
    Defect(
        "field-in-any-case",
        "Takes the names of fields in capitals.",
        ("REQ-11",),
        changed_fields(lambda fields: {name.lower(): value for name, value in fields.items()}),
        asking(scale=..., Scale=2),
    ),
    Defect(
        "fields-without-number",
        "Tells an error for each of any number of fields.",
        ("REQ-11",),
        patched(contract, "MAX_FIELDS", 10**9),
        asking(**MANY),
    ),
    Defect(
        "values-without-number",
        "Reads any number of values before it refuses them.",
        ("REQ-11",),
        patched(contract, "MAX_COMMAS", 10**9),
        sending(b'{"values": [' + b"1," * 10_001 + b"1]}"),
    ),
    Defect(
        "field-name-told-whole",
        "Tells the whole name of an unknown field, however long.",
        ("REQ-11", "RES-4"),
        patched(contract, "MAX_NAME_SHOWN", 10**9),
        asking(**{"x" * 500: 1}),
    ),
)

TOGETHER: Final = (
    Defect(
        "first-error-only",
        "Tells only the first of several errors.",
        ("REQ-19", "RES-4"),
        changed_detail(lambda errors: errors[:1]),
        asking(scale=-1, model="none"),
    ),
    Defect(
        "choices-told-later",
        "Tells of a missing or a second field only once all others are right.",
        ("REQ-19",),
        changed_detail(
            lambda errors: (
                [each for each in errors if each["type"] not in ("missing", "conflicting")]
                or errors
            )
        ),
        asking(scale=..., model="none"),
    ),
    Defect(
        "choice-told-of-body",
        "Tells of a missing field on the body as a whole.",
        ("RES-4", "REQ-5"),
        changed_error(
            lambda error: error | {"loc": ["body"]} if error["type"] == "missing" else error
        ),
        asking(scale=...),
    ),
)
