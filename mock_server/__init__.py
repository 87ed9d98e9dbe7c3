"""The mock of the Upscaling API: the service's routes over a backend without torch.

    from mock_server import Mock

What is named here is imported once it is used, so that the package itself costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mock_server.backend.jobs import Progress as Progress
    from mock_server.clock import Clock as Clock
    from mock_server.faults.fault import FaultError as FaultError
    from mock_server.inprocess.respx_router import Router as Router
    from mock_server.inprocess.respx_router import routes as routes
    from mock_server.inprocess.transport import Transport as Transport
    from mock_server.journal.journal import Entry as Entry
    from mock_server.mock import Mock as Mock
    from mock_server.scenario import Scenario as Scenario
    from mock_server.serving.server import MockServer as MockServer

PUBLIC: Final = {
    "Clock": "clock",
    "Entry": "journal",
    "FaultError": "faults",
    "Mock": "mock",
    "MockServer": "server",
    "Progress": "jobs",
    "Router": "router",
    "Scenario": "scenario",
    "Transport": "transport",
    "routes": "router",
}
"""What is public, and the module that it is in."""


def __getattr__(name: str) -> Any:  # noqa: ANN401  whatever is public
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)
