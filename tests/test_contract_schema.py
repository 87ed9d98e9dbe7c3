"""The published description and ours."""

import json
from pathlib import Path
from typing import Any, Final

from upscaler.contract import UpscalingRequest
from upscaler.responses import ImageResponse

SENTENCES: Final = {"description", "examples", "title"}
"""What of a schema is wording. OctoAI's wording is not ours to repeat."""


def facts(schema: Any) -> Any:
    """A JSON schema without its sentences; references by name, and not wrapped in an allOf."""
    if isinstance(schema, list):
        return [facts(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if len(schema.get("allOf", ())) == 1:
        schema = {key: schema[key] for key in schema if key != "allOf"} | schema["allOf"][0]
    kept = {key: facts(value) for key, value in schema.items() if key not in SENTENCES}
    if "$ref" in kept:
        kept["$ref"] = kept["$ref"].rpartition("/")[2]
    if "properties" in schema:
        kept["properties"] = {key: facts(value) for key, value in schema["properties"].items()}
    return kept


def published() -> Any:
    return facts(json.loads(Path(__file__).with_name("published_schema.json").read_text("utf-8")))


def ours(model: type[UpscalingRequest | ImageResponse]) -> dict[str, Any]:
    """The schema of a model and of all it refers to, by name."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    return {key: facts(value) for key, value in {model.__name__: schema, **definitions}.items()}


def test_the_schema_of_a_request_is_the_published_one() -> None:
    """All but the bounds of REQ-6 and REQ-7, which are ours, and the default of REQ-9."""
    schemas = ours(UpscalingRequest)
    fields = schemas["UpscalingRequest"]["properties"]
    assert fields["scale"]["anyOf"][0].pop("exclusiveMinimum") == 0
    assert fields["output_image_height"]["anyOf"][0].pop("minimum") == 1
    assert fields["output_image_width"]["anyOf"][0].pop("minimum") == 1
    assert fields["output_image_encoding"].pop("default") == "png"
    wanted = published()
    assert wanted.pop("ImageResponse")
    assert (
        wanted["UpscalingRequest"]["properties"]["output_image_encoding"].pop("default") == "jpeg"
    )
    assert schemas == wanted


def test_the_schema_of_a_response_is_the_published_one() -> None:
    """RES-1."""
    assert ours(ImageResponse) == {"ImageResponse": published()["ImageResponse"]}
