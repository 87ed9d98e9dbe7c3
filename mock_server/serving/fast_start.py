"""The entry point of `upscaler-mock`, which imports only what is needed, as fast as possible.

Importing FastAPI takes most of the time until the mock is ready, and much of that is spent on what
a mock never needs, or not yet.
"""

import gc
import os


def main() -> int:
    """Import the command and run it; return its exit status."""
    # The collector would traverse all modules again and again, and what they define stays anyway.
    gc.disable()
    # pydantic would otherwise read the metadata of all installed packages in search of plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from pydantic import BaseModel, ConfigDict  # noqa: PLC0415  after the setting above

    # FastAPI's models of OpenAPI are then built for the first request of /openapi.json.
    default = BaseModel.model_config
    BaseModel.model_config = ConfigDict(defer_build=True)
    try:
        import fastapi  # noqa: F401, PLC0415
    finally:
        BaseModel.model_config = default
    from mock_server.serving.cli import main  # noqa: PLC0415  after all of the above

    gc.freeze()  # what is there now is never garbage, so it need not be looked at again
    gc.enable()
    return main()
