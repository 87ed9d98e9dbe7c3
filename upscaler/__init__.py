"""A drop-in for OctoAI's image Upscaling API: Real-ESRGAN behind one POST.

    from upscaler import Engine

    engine = Engine.load("real-esrgan-x4-v3")
    upscaled = engine.upscale(pixels, outscale=2)

`__all__` is what is public; every other name may change. Each public name is imported when it is
first used: importing the package needs neither torch nor FastAPI. `Engine` needs the extra
`engine`.

In the folders: `api` is the contract as data, `imaging` reads and writes image files, `engine`
upscales, `service` serves the API over HTTP, `modal` does so on Modal, `bench` measures, and `cli`
is the command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from upscaler.engine.engine import Engine as Engine
    from upscaler.errors import UpscalerError as UpscalerError
    from upscaler.models import UpscalingModel as UpscalingModel
    from upscaler.service.app import create_app as create_app
    from upscaler.service.backend import LocalBackend as LocalBackend
    from upscaler.settings import Settings as Settings

    __version__: str

__all__ = (
    "Engine",
    "LocalBackend",
    "Settings",
    "UpscalerError",
    "UpscalingModel",
    "__version__",
    "create_app",
)

_MODULES: Final = {
    "Engine": "engine.engine",
    "LocalBackend": "service.backend",
    "Settings": "settings",
    "UpscalerError": "errors",
    "UpscalingModel": "models",
    "create_app": "service.app",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  any public object
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  which takes 20 ms, and few ask

        return version("octo-upscaler")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
