"""The mock of OctoAI's Upscaling API: the service's routes over a backend without torch.

    from mock_server import Mock

`__all__` is what is public; every other name may change. Each public name is imported when it is
first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mock_server.backend.jobs import PollScript as PollScript
    from mock_server.clock import Clock as Clock
    from mock_server.faults.fault import FaultError as FaultError
    from mock_server.inprocess.respx_router import Router as Router
    from mock_server.inprocess.respx_router import routes as routes
    from mock_server.inprocess.transport import Transport as Transport
    from mock_server.journal.journal import Entry as Entry
    from mock_server.mock import Mock as Mock
    from mock_server.scenario import Scenario as Scenario
    from mock_server.serving.server import MockServer as MockServer

__all__ = (
    "Clock",
    "Entry",
    "FaultError",
    "Mock",
    "MockServer",
    "PollScript",
    "Router",
    "Scenario",
    "Transport",
    "routes",
)

_MODULES: Final = {
    "Clock": "clock",
    "Entry": "journal.journal",
    "FaultError": "faults.fault",
    "Mock": "mock",
    "MockServer": "serving.server",
    "PollScript": "backend.jobs",
    "Router": "inprocess.respx_router",
    "Scenario": "scenario",
    "Transport": "inprocess.transport",
    "routes": "inprocess.respx_router",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  any public object
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
