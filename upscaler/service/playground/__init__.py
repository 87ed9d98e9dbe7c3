"""The page at `/`, which uses the API from a browser: static files without a build step.

The page fetches the contract's limits, the models and the output formats from `page/config.json`,
so that none is written down twice. All its URLs are relative, so it also works under a path prefix
of a proxy.
"""

import json
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter

from upscaler.api.headers import DRY_RUN_HEADER
from upscaler.api.limits import MAX_BODY_BYTES, MAX_INPUT_PX, MAX_OUTPUT_PX, MIN_INPUT_PX
from upscaler.api.request import UpscalingRequest
from upscaler.formats import ImageEncoding
from upscaler.models import MODELS
from upscaler.service import static_files
from upscaler.service.static_files import HTML, SCRIPT, STYLE

OCTOAI_PRICE_USD: Final = "0.004"
"""What OctoAI charged for an image, shown beside the cost of this one."""

HEADERS: Final = static_files.headers(
    static_files.POLICY
    | {
        # Any host: the image of init_image_url is shown as "before". Images cannot run code.
        "img-src": "'self' blob: http: https:",
        # The browser refuses to turn text into markup, whether it is the service's or the user's.
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
)
FOLDER: Final = Path(__file__).parent
FILES: Final = {
    "page.css": STYLE,
    "notice.css": STYLE,
    "page.js": SCRIPT,
    "api.js": SCRIPT,
    "compare.js": SCRIPT,
    "curl.js": SCRIPT,
    "events.js": SCRIPT,
    "format.js": SCRIPT,
    "image.js": SCRIPT,
    "progress.js": SCRIPT,
    "result.js": SCRIPT,
    "sizes.js": SCRIPT,
    "icon.svg": "image/svg+xml",
    "sample.jpg": "image/jpeg",
}
"""The files served under `/page/`, each with its media type."""


def config(*, face_enhance: bool) -> dict[str, Any]:
    """The API's limits, models and formats, the default one first, for `page/config.json`.

    `face_enhance` says whether the service restores faces.
    """
    default = UpscalingRequest.model_fields["output_image_encoding"].default
    return {
        "min_input_px": MIN_INPUT_PX,
        "max_input_px": MAX_INPUT_PX,
        "max_output_px": MAX_OUTPUT_PX,
        "max_body_bytes": MAX_BODY_BYTES,
        "dry_run_header": DRY_RUN_HEADER,
        "face_enhance": face_enhance,
        "octoai_price_usd": OCTOAI_PRICE_USD,
        "default_model": UpscalingRequest.model_fields["model"].default,
        "models": [
            {"name": model.name, "scale": model.scale, "description": model.description}
            for model in MODELS.values()
        ],
        "encodings": [
            {
                "name": encoding.value,
                "media_type": encoding.media_type,
                "suffix": encoding.suffixes[0],
                "description": encoding.row.description,
            }
            for encoding in sorted(ImageEncoding, key=lambda encoding: encoding is not default)
        ],
    }


@cache  # an app is made for each session of a mock
def _read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def create_router(notice: str = "", *, face_enhance: bool = False) -> APIRouter:
    """Return the page's routes; they are not in the OpenAPI document.

    `notice` is a sentence for the top of the page, and `face_enhance` says whether faces can be
    restored.
    """
    router = APIRouter(include_in_schema=False)

    def _config() -> bytes:
        return json.dumps(config(face_enhance=face_enhance)).encode()

    serve = partial(static_files.serve, router, headers=HEADERS)
    serve("/", lambda: static_files.with_notice(_read("index.html"), notice), HTML)
    serve("/page/config.json", _config, "application/json")
    for name, media_type in FILES.items():
        serve(f"/page/{name}", partial(_read, name), media_type)
    return router
