"""Where the command `upscaler-mock` begins: all that it needs is loaded at one go, and no more.

FastAPI takes most of the time until the mock is ready, much of it for what a mock has no use for,
or not yet.
"""

import gc
import os


def main() -> int:
    """Load the command and carry it out; return its status."""
    # It would look through all modules again and again, and whatever they define is there to stay.
    gc.disable()
    # pydantic would read the metadata of all that is installed, in search of plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    _import_fastapi()
    from mock_server.serving.cli import main  # noqa: PLC0415  not before all that

    gc.freeze()
    gc.enable()
    return main()


def _import_fastapi() -> None:
    """Import FastAPI; its models of OpenAPI are built once somebody asks for /openapi.json."""
    from pydantic import BaseModel, ConfigDict  # noqa: PLC0415  see `main`

    as_before = BaseModel.model_config
    BaseModel.model_config = ConfigDict(defer_build=True)
    try:
        import fastapi  # noqa: F401, PLC0415
    finally:
        BaseModel.model_config = as_before
