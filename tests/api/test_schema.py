"""The published description and ours."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.both_servers import SERVERS, api_of
from tests.support.service import SETTINGS
from upscaler.api.request import UpscalingRequest
from upscaler.api.responses import ImageResponse
from upscaler.formats import ImageEncoding

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


def published(name: str = "published_schema.json") -> Any:
    return facts(json.loads(Path(__file__).with_name(name).read_text("utf-8")))


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


# The document that is served


@pytest.mark.parametrize("default", ImageEncoding)
@pytest.mark.parametrize("server", SERVERS)
def test_what_is_published_is_in_the_document_that_is_served(
    server: str, default: ImageEncoding
) -> None:
    """The route, its request and its answers; of the request's schema all but the bounds.

    What is more is ours: other routes, the token, request headers and `preview`, other
    statuses, pictures as files, and in JSON what comes of dry runs and asynchronous requests.
    """
    with api_of(server, replace(SETTINGS, default_encoding=default)) as api:
        document = api.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    wanted = published("published_paths.json")
    route = facts(document["paths"]["/upscaling"])
    (post,) = route.values()
    ours = [each["name"] for each in post.pop("parameters") if each["in"] != "header"]
    assert ours == ["preview"]
    assert post.pop("security") == [{"HTTPBearer": []}]
    answers = post["responses"]
    assert [answers.pop(status) for status in ("401", "406", "408", "413", "415", "503")]
    assert answers["200"].pop("headers")
    content = answers["200"]["content"]
    assert content.pop("image/png") == content.pop("image/jpeg")
    (first, *_) = content["application/json"]["schema"].pop("anyOf")
    content["application/json"]["schema"] = first
    assert {"/upscaling": route} == wanted["paths"]

    schemas = {name: facts(schema) for name, schema in document["components"]["schemas"].items()}
    fields = schemas["UpscalingRequest"]["properties"]
    assert fields["scale"]["anyOf"][0].pop("exclusiveMinimum") == 0
    assert fields["output_image_height"]["anyOf"][0].pop("minimum") == 1
    assert fields["output_image_width"]["anyOf"][0].pop("minimum") == 1
    assert schemas["HTTPValidationError"].pop("required") == ["detail"]
    wanted_schemas = published() | wanted["schemas"]
    encoding = wanted_schemas["UpscalingRequest"]["properties"]["output_image_encoding"]
    assert encoding["default"] == "jpeg"
    encoding["default"] = default.value
    assert {name: schemas[name] for name in wanted_schemas} == wanted_schemas
