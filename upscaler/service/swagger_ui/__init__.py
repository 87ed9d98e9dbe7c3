"""The description of the API at `/docs`, to read and to try: Swagger UI, on a page of our own.

FastAPI's page has a script within it and loads others from another host. Here nothing comes from
elsewhere: Swagger UI's files are those of the package fastapi-swagger, unchanged and read when
somebody asks for them. All addresses are relative: it also works below a path of another server.
There is no Redoc beside it: it sets styles that only a policy with 'unsafe-inline' lets pass.
"""

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import APIRouter

from upscaler.service import static_files
from upscaler.service.static_files import HTML, SCRIPT, STYLE

# The other page's trusted types are not to be had: Swagger UI makes markup of Markdown. That is
# sanitised first, and script-src would let nothing in it run.
HEADERS: Final = static_files.headers(
    static_files.POLICY
    | {
        # Icons within the package's stylesheet, and pictures that an operation has given.
        "img-src": "'self' data: blob:"
    }
)
FOLDER: Final = Path(__file__).parent
PACKAGE: Final = "fastapi_swagger"
FILES: Final = {"swagger-ui.css": STYLE, "swagger-ui-bundle.js": SCRIPT}
"""What is served of the package below `/docs/`, with its media type."""


def _router() -> APIRouter:
    router = APIRouter(include_in_schema=False)
    serve = partial(static_files.serve, router, headers=HEADERS)
    serve("/docs", (FOLDER / "index.html").read_bytes, HTML)
    serve("/docs/start.js", (FOLDER / "start.js").read_bytes, SCRIPT)
    for name, media_type in FILES.items():
        serve(f"/docs/{name}", partial(_packaged, name), media_type)
    return router


def _packaged(name: str) -> bytes:
    """A file of the package, of which no code is run."""
    spec = find_spec(PACKAGE)
    assert spec is not None, "it is among what this package depends on"
    assert spec.submodule_search_locations is not None, "it is a package"
    return Path(spec.submodule_search_locations[0], "resources", name).read_bytes()


router: Final = _router()
"""Its routes, for the service to include; they are not part of the API's description."""
