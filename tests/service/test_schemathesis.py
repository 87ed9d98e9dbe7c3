"""What the service says of itself in OpenAPI, held against what it does, by schemathesis.

It is run as a command, which goes through all of its phases: examples, the border of each rule,
random requests, and chains of them.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.hostile_requests import completed
from tests.support.properties import examples
from tests.support.service import TOKENS, png
from upscaler.api.headers import ASYNC_HEADER, DRY_RUN_HEADER, REQUEST_ID_HEADER
from upscaler.api.limits import MAX_OUTPUT_PX

pytestmark = [pytest.mark.dev, pytest.mark.usefixtures("no_fault_of_ours")]

EXAMPLES: Final = {"service": examples(100), "mock": examples(40)}
"""For each operation and phase. The mock gets fewer for the sake of time: nothing in it but the
network is another than the service's."""
PATIENCE_S: Final = 300
PICTURE_PX: Final = 256
PICTURE: Final = png(PICTURE_PX, PICTURE_PX)
SETTINGS: Final = f"""
[checks]
# All but those that nothing here can fail: no header is required but that of the token, which
# ignored_auth leaves out; nothing can be deleted; and who has a token and an id may have a picture.
missing_required_header.enabled = false
use_after_free.enabled = false
object_level_authorization.enabled = false

[generation]
deterministic = true

[dictionaries]
accepts.values = ["image/png", "image/jpeg", "*/*", "text/html, image/*;q=0.5"]
ones.values = ["1"]
pictures.values = ["{PICTURE}", "data:image/png;base64,{PICTURE}"]

[[operations]]
include-name = "POST /upscaling"
[operations.parameters]
"header.Accept" = {{ dictionary = "accepts", probability = 0.7 }}
"header.{ASYNC_HEADER}" = {{ dictionary = "ones", probability = 0.2 }}
"header.{DRY_RUN_HEADER}" = {{ dictionary = "ones", probability = 0.2 }}
"body.init_image" = {{ dictionary = "pictures", probability = 0.7 }}
"""
"""Without pictures nearly all requests would be refused for the same reason."""

DRY: Final = f"""
[operations.headers]
{DRY_RUN_HEADER} = "1"
"""
"""So that the largest pictures need not be made."""

Seen = Counter[tuple[str, int]]
"""How often each operation was answered with which status."""


def conforms(api: httpx.Client, description: str, more: str, folder: Path, examples: int) -> Seen:
    """Fail unless all checks pass for a description, by its path or URL."""
    config, report = folder / "settings.toml", folder / "report.ndjson"
    config.write_text(SETTINGS + more)
    command: list[str | Path] = [
        *(sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", config),
        *("run", description, "--url", str(api.base_url), "--continue-on-failure"),
        *("--max-examples", str(examples)),
        *("--header", f"Authorization: Bearer {TOKENS[0]}"),
        *("--report", "ndjson", "--report-ndjson-path", report),
    ]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return seen(report)


def seen(report: Path) -> Seen:
    """What came of all requests; each answer has an id (RES-6)."""
    found: Seen = Counter()
    for line in report.read_text().splitlines():
        scenario = json.loads(line).get("ScenarioFinished", {})
        for exchange in scenario.get("recorder", {}).get("interactions", {}).values():
            request, answer = exchange["request"], exchange["response"]
            if answer is None:
                continue
            assert REQUEST_ID_HEADER.lower() in {*map(str.lower, answer["headers"])}, exchange
            route = httpx.URL(request["uri"]).path.rpartition("/")
            path = f"{route[0]}/ID" if route[0].startswith("/v1") else "/".join(route[::2])
            found[f"{request['method']} {path}", answer["status_code"]] += 1
    return found


@pytest.mark.slow
def test_the_service_is_as_it_is_described(api: httpx.Client, target: str, tmp_path: Path) -> None:
    _, response_path = completed(api, {})
    more = f"""
# The published schema does not say that one of each group is needed, nor what a picture is.
[operations.checks]
positive_data_acceptance.enabled = false

[dictionaries.jobs]
values = ["{response_path.rpartition("/")[2]}"]

# Nor which hosts there are, nor what is in a file; and schemathesis cannot write JSON lines.
[[operations]]
include-name = "POST /v1/webhooks/test"
[operations.checks]
positive_data_acceptance.enabled = false

[[operations]]
include-name = "POST /v1/batches"
enabled = false

# It would remove the one job that the others ask for.
[[operations]]
include-name = "DELETE /v1/requests/{{response_id}}"
enabled = false

[[operations]]
include-path-regex = "^/v1/"
[operations.parameters]
"path.response_id" = {{ dictionary = "jobs", probability = 0.5 }}
"""
    answered = conforms(api, f"{api.base_url}/openapi.json", more, tmp_path, EXAMPLES[target])
    for operation in ("GET /livez", "GET /healthcheck", "GET /metrics"):
        assert answered[operation, 200], operation
    # Unknown ids come only if schemathesis makes some, and does not take those of other responses.
    for operation in ("GET /v1/requests/ID", "GET /v1/responses/ID"):
        assert all(answered[operation, status] for status in (200, 401)), operation
    assert all(answered["POST /upscaling", status] for status in (200, 401, 422)), answered
    assert answered["DELETE /upscaling", 405]


def narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """The description of upscaling, of those requests alone that must be accepted.

    That are such that need no download, and no fields but what belongs together; with values that
    pydantic takes for others (REQ-12) where they might come up.
    """
    nothing = {"type": "null"}
    side = {"type": "integer", "minimum": 1, "maximum": MAX_OUTPUT_PX}
    most = (MAX_OUTPUT_PX + 0.5) / PICTURE_PX
    sizes = {
        "scale": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": most},
        "output_image_height": side,
        "output_image_width": side,
    }
    schemas = document["components"]["schemas"]
    fields = schemas["UpscalingRequest"]["properties"]
    fields["init_image"] = {"enum": [PICTURE, f"data:image/png;base64,{PICTURE}"]}
    fields["init_image_url"] = nothing
    fields["face_enhance"] = {"enum": [False, 0, "0", "false", "no", "off", "f", "n"]}
    forms = [
        {
            "type": "object",
            "properties": {**fields, **dict.fromkeys(sizes, nothing), name: size},
            "required": ["init_image", name],
            "additionalProperties": False,
        }
        for name, size in sizes.items()
    ]
    schemas["UpscalingRequest"] = {"anyOf": forms}
    return {**document, "paths": {"/upscaling": document["paths"]["/upscaling"]}}


@pytest.mark.first(1)
def test_a_right_request_is_accepted_and_no_other(
    api: httpx.Client, target: str, tmp_path: Path
) -> None:
    path = tmp_path / "narrowed.json"
    path.write_text(json.dumps(narrowed(api.get("/openapi.json").json())))
    answered = conforms(api, str(path), DRY, tmp_path, EXAMPLES[target])
    assert answered["POST /upscaling", 200] > EXAMPLES[target] / 2
    assert answered["POST /upscaling", 422] > EXAMPLES[target] / 2
