"""The API docs at `/docs`: Swagger UI, on an HTML page of our own.

FastAPI's page has an inline script and loads others from a CDN. Here everything comes from the
service itself: Swagger UI's files are those of the package fastapi-swagger, unchanged and read on
the first request. All URLs are relative, so it also works under a path prefix of a proxy. There is
no Redoc: it sets inline styles, which only a policy with 'unsafe-inline' allows.
"""

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import APIRouter

from upscaler.service import static_files
from upscaler.service.static_files import HTML, SCRIPT, STYLE

# The playground's policy of trusted types is not possible here: Swagger UI renders Markdown as
# markup. It sanitises that first, and script-src would block any script in it.
HEADERS: Final = static_files.headers(
    static_files.POLICY
    | {
        # data: for the icons in the package's stylesheet, blob: for images that a call returned.
        "img-src": "'self' data: blob:"
    }
)
FOLDER: Final = Path(__file__).parent
PACKAGE: Final = "fastapi_swagger"
FILES: Final = {"swagger-ui.css": STYLE, "swagger-ui-bundle.js": SCRIPT}
"""The package's files served under `/docs/`, each with its media type."""


def create_router(notice: str = "") -> APIRouter:
    """Return its routes; they are not in the OpenAPI document.

    `notice` is a sentence for the top of the page.
    """
    router = APIRouter(include_in_schema=False)
    serve = partial(static_files.serve, router, headers=HEADERS)
    page = FOLDER / "index.html"
    serve("/docs", lambda: static_files.with_notice(page.read_bytes(), notice), HTML)
    serve("/docs/start.js", (FOLDER / "start.js").read_bytes, SCRIPT)
    for name, media_type in FILES.items():
        serve(f"/docs/{name}", partial(_packaged, name), media_type)
    return router


def _packaged(name: str) -> bytes:
    """The content of one of the package's files; the package itself is not imported."""
    spec = find_spec(PACKAGE)
    assert spec is not None, "it is one of our dependencies"
    assert spec.submodule_search_locations is not None, "it is a package"
    return Path(spec.submodule_search_locations[0], "resources", name).read_bytes()
