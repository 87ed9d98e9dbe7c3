"""The page at `/`: everything the API can do, in a browser, as a few files without a build step.

The page fetches the contract's limits and the models from `page/facts.json`, so none of them is
written down twice. All its addresses are relative: it also works below a path of another server.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from upscaler.contract import (
    DRY_RUN_HEADER,
    MAX_BODY_BYTES,
    MAX_INPUT_PX,
    MAX_OUTPUT_PX,
    MIN_INPUT_PX,
    UpscalingRequest,
)
from upscaler.models import MODELS, UpscalingModel

MADE_FOR: Final = {
    UpscalingModel.X4_PLUS: "For photos. The finest of the six, and slow.",
    UpscalingModel.X4_V3: "For anything. Fast.",
    UpscalingModel.X4_V3_WDN: "For anything, and keeps more of the grain and noise. Fast.",
    UpscalingModel.ANIMEVIDEO_V3: "For drawings. The fastest of the six.",
    UpscalingModel.X4_PLUS_ANIME: "For drawings. Finer lines, and slower.",
    UpscalingModel.X2_PLUS: "For photos that are to become twice the size. Slow.",
}
"""What to tell people who choose a model."""
OCTOAI_PRICE_USD: Final = "0.004"
"""What OctoAI charged for a picture, to show beside what this one cost."""

POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    # Any server: the picture behind init_image_url is shown as "before". Pictures run no code.
    "img-src": "'self' blob: http: https:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    # No text ever becomes markup, neither the service's nor the user's.
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
"""The Content-Security-Policy: what the page may load and do."""
HEADERS: Final = {
    "Content-Security-Policy": "; ".join(f"{what} {from_}" for what, from_ in POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Ask every time: after an upgrade the old page would talk to the new service.
    "Cache-Control": "no-cache",
}

FOLDER: Final = Path(__file__).parent
HTML: Final = "text/html; charset=utf-8"
SCRIPT: Final = "text/javascript; charset=utf-8"
FILES: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": SCRIPT,
    "call.js": SCRIPT,
    "compare.js": SCRIPT,
    "curl.js": SCRIPT,
    "picture.js": SCRIPT,
    "result.js": SCRIPT,
    "sizes.js": SCRIPT,
    "words.js": SCRIPT,
    "icon.svg": "image/svg+xml",
}
"""What is served below `/page/`, with its media type."""


def facts() -> dict[str, Any]:
    """What the page has to know of the API and of its models."""
    return {
        "min_input_px": MIN_INPUT_PX,
        "max_input_px": MAX_INPUT_PX,
        "max_output_px": MAX_OUTPUT_PX,
        "max_body_bytes": MAX_BODY_BYTES,
        "dry_run_header": DRY_RUN_HEADER,
        "octoai_price_usd": OCTOAI_PRICE_USD,
        "default_model": UpscalingRequest.model_fields["model"].default,
        "models": [
            {"name": model.name, "scale": model.scale, "made_for": MADE_FOR[model.name]}
            for model in MODELS.values()
        ],
    }


def _router() -> APIRouter:
    router = APIRouter(include_in_schema=False)
    _serve(router, "/", (FOLDER / "index.html").read_bytes(), HTML)
    _serve(router, "/page/facts.json", json.dumps(facts()).encode(), "application/json")
    for name, media_type in FILES.items():
        _serve(router, f"/page/{name}", (FOLDER / name).read_bytes(), media_type)
    return router


def _serve(router: APIRouter, path: str, content: bytes, media_type: str) -> None:
    """Answer GET and HEAD of `path` with `content`, or 304 to a browser that has it already."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = HEADERS | {"ETag": etag}

    async def answer(request: Request) -> Response:
        # The header may be a list, and a proxy may have marked each tag as weak: W/"...".
        if etag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    router.add_api_route(path, answer, methods=["GET", "HEAD"])


router: Final = _router()
"""The page's routes, for the service to include; they are not part of the API's description."""
